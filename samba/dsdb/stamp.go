package dsdb

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// Stamp says which version of an attribute the directory holds: the values
// under which the change was originated, the same on every DC once replicated
// ([MS-DRSR] 4.1.10.2.22, PROPERTY_META_DATA). Of the password attribute it
// names one password change of one account, without holding any secret.
//
// The zero Stamp stands for "none" and is older than any other.
type Stamp struct {
	Version      uint32    `json:"version"`       // counts the changes, from 1
	Time         time.Time `json:"time"`          // when, on the originating DC's clock; whole seconds, UTC
	InvocationID GUID      `json:"invocation_id"` // the originating DC's database
	USN          uint64    `json:"usn"`           // the originating DC's update sequence number
}

// IsZero reports whether s is the zero Stamp.
func (s Stamp) IsZero() bool { return s.Equal(Stamp{}) }

// Compare returns -1 if s is older than other, 1 if newer, and 0 if they name
// the same change. It is the order by which replication lets one of two
// changes win: the higher version, then the later time, then the larger
// invocationId. The USN has no part in it.
//
// So does Samba (replmd_update_is_newer in repl_meta_data.c). In [MS-DRSR] 5.11
// versions wrap around, which matters after 2^31 changes of one password.
func (s Stamp) Compare(other Stamp) int {
	return cmp.Or(
		cmp.Compare(s.Version, other.Version),
		s.Time.Compare(other.Time),
		s.InvocationID.Compare(other.InvocationID),
	)
}

// Equal reports whether all values, the USN included, are the same. Use it
// instead of ==, which would also compare how the time is represented.
func (s Stamp) Equal(other Stamp) bool {
	return s.Compare(other) == 0 && s.USN == other.USN
}

// String returns a short form for logs, "version@time by invocationId/usn".
func (s Stamp) String() string {
	if s.IsZero() {
		return "none"
	}
	return fmt.Sprintf("%d@%s by %s/%d", s.Version, s.Time.UTC().Format(time.RFC3339), s.InvocationID, s.USN)
}

// The attributes that hold a password, by the numbers (ATTRTYP) under which
// replPropertyMetaData lists them; the same in every forest.
const (
	AttIDUnicodePwd              = 0x0009005A // unicodePwd, 1.2.840.113556.1.4.90
	AttIDSupplementalCredentials = 0x0009007D // supplementalCredentials, 1.2.840.113556.1.4.125
)

// MetaData is an object's decoded replPropertyMetaData, in the stored order.
type MetaData []AttributeStamp

// AttributeStamp is the stamp of one attribute of an object.
type AttributeStamp struct {
	AttID uint32 // ATTRTYP, such as AttIDUnicodePwd
	Stamp
	LocalUSN uint64 // under which this DC wrote it; no other DC's, and no part of the stamp
}

// Errors of ParseReplPropertyMetaData.
var (
	errMetaDataLength  = errors.New("decoding replPropertyMetaData: its length does not fit its count")
	errMetaDataVersion = errors.New("decoding replPropertyMetaData: not version 1")
	errMetaDataTime    = errors.New("decoding replPropertyMetaData: a time after the year 9999")
)

// ParseReplPropertyMetaData decodes a value of the attribute
// replPropertyMetaData: replPropertyMetaDataBlob version 1 of Samba's
// librpc/idl/drsblobs.idl, the PROPERTY_META_DATA_VECTOR of [MS-DRSR] as NDR,
// little-endian:
//
//	 0  version (1)   4  reserved   8  count  12  reserved
//	16  count times 48 bytes:
//	     0  attid      4  version    8  originating time, seconds since 1601
//	    16  originating invocationId 32  originating USN
//	    40  local USN
//
// A value that is too short, too long or of another version is an error.
func ParseReplPropertyMetaData(b []byte) (MetaData, error) {
	const header, entry = 16, 48
	if len(b) < header {
		return nil, errMetaDataLength
	}
	if binary.LittleEndian.Uint32(b) != 1 {
		return nil, errMetaDataVersion
	}
	count := uint64(binary.LittleEndian.Uint32(b[8:]))
	if uint64(len(b)) != header+entry*count {
		return nil, errMetaDataLength
	}
	m := make(MetaData, count)
	for i := range m {
		e := b[header+entry*i:]
		t, ok := fileTime(binary.LittleEndian.Uint64(e[8:]), 1)
		if !ok {
			return nil, errMetaDataTime
		}
		m[i].AttID = binary.LittleEndian.Uint32(e)
		m[i].Stamp = Stamp{
			Version:      binary.LittleEndian.Uint32(e[4:]),
			Time:         t,
			InvocationID: GUID(e[16:32]),
			USN:          binary.LittleEndian.Uint64(e[32:]),
		}
		m[i].LocalUSN = binary.LittleEndian.Uint64(e[40:])
	}
	return m, nil
}

// WrittenSince lists the attributes that this DC wrote under the USN or a later
// one, whether somebody changed them here or replication brought them. Links,
// such as a group's members, have no meta data among these.
func (m MetaData) WrittenSince(usn uint64) (attids []uint32) {
	for _, e := range m {
		if e.LocalUSN >= usn {
			attids = append(attids, e.AttID)
		}
	}
	return attids
}

// Stamp returns the stamp of one attribute, and whether there is one. An
// attribute that was set once keeps a stamp when its value is deleted.
func (m MetaData) Stamp(attid uint32) (Stamp, bool) {
	e, ok := m.first(attid)
	return e.Stamp, ok
}

// first returns what there is of the first of these attributes that has any.
func (m MetaData) first(attids ...uint32) (AttributeStamp, bool) {
	for _, attid := range attids {
		for _, e := range m {
			if e.AttID == attid {
				return e, true
			}
		}
	}
	return AttributeStamp{}, false
}

// Password returns the stamp of the account's password: that of unicodePwd, or
// of supplementalCredentials where unicodePwd was never written.
//
// Samba moves unicodePwd's stamp with every password change, even where
// `nt hash store = never` leaves the attribute empty (seen with 4.17; it forces
// the meta data, see update_final_msg in password_hash.c). So the stamps of one
// account stay comparable when that setting is switched. An account that was
// added without a password has a stamp, too.
func (m MetaData) Password() (Stamp, bool) {
	e, ok := m.first(AttIDUnicodePwd, AttIDSupplementalCredentials)
	return e.Stamp, ok
}

// PasswordUSN returns under which of its own USNs this DC wrote the attribute
// whose stamp Password returns; 0 if there is none.
func (m MetaData) PasswordUSN() uint64 {
	e, _ := m.first(AttIDUnicodePwd, AttIDSupplementalCredentials)
	return e.LocalUSN
}

// HashOnly reports whether the account's password was last set by its hash, the
// password itself being unknown to the DC: so no check password script saw it,
// and s, decoded from the same read, holds no keys that belong to it. An account
// that has no password at all counts, too: see whether unicodePwd is there.
//
// The stamps alone cannot tell. A hash that is set over SAMR (SetUserInfo, levels
// 18 and 21) moves the stamps of both attributes, just as a password does, and
// leaves supplementalCredentials empty. A hash that is written past Samba's
// password module (ldbmodify with the control bypass_password_hash) moves
// unicodePwd's only, and leaves the older password's keys there. A change by
// password gives both attributes one originating USN. (Seen with 4.13 and 4.25;
// update_final_msg in password_hash.c.)
//
// An account that is made to log on with a smartcard gets a random password; in
// 4.13 and 4.17 (not from 4.22 on) it counts as well, since it gets no keys.
func (m MetaData) HashOnly(s SupplementalCredentials) bool {
	if s.NewerKeys == nil && s.Kerberos == nil {
		return true
	}
	hash, ok := m.Stamp(AttIDUnicodePwd)
	if !ok {
		return false
	}
	keys, _ := m.Stamp(AttIDSupplementalCredentials)
	keys.Version = hash.Version // they count from different beginnings
	return !hash.Equal(keys)
}

// FirstPassword reports whether the account's password is the first that it got,
// whoever set it and whenever: none has followed. An account that never had one
// does not count.
//
// The versions tell, on every DC alike: supplementalCredentials is first written with
// the first password. unicodePwd may have been written once before, empty, because
// most tools add an account first and set its password then. pwdLastSet tells less:
// "must change at next logon" takes its time away, and an administrator can set it
// to now without a new password. Nor does the time tell: a password may be set long
// after its account was added.
//
// Where a hash was written past Samba's password module, or a password came by
// migration, keys count for less, and one change may go unnoticed. (Seen with 4.13
// to 4.25.)
func (m MetaData) FirstPassword() bool {
	hash, _ := m.Stamp(AttIDUnicodePwd)
	keys, _ := m.Stamp(AttIDSupplementalCredentials)
	return keys.Version == 1 && hash.Version <= 2 ||
		keys.Version == 0 && hash.Version == 2 // a hash alone: a migration sets it after adding the account
}

// NTTime converts a time as the directory writes it into attributes such as
// pwdLastSet: 100 nanosecond intervals since 1601-01-01 UTC ([MS-DTYP] 2.3.3,
// FILETIME). The values that mean "never" (0, the largest, and anything
// negative or after the year 9999) become the zero time.
func NTTime(t int64) time.Time {
	if t < 0 || t == math.MaxInt64 {
		return time.Time{}
	}
	converted, _ := fileTime(uint64(t), 10_000_000)
	return converted
}

// fileTime converts ticks since 1601, perSecond of them a second. 0 becomes the
// zero time; ok is false for a time that RFC 3339, and so JSON, cannot write.
func fileTime(ticks, perSecond uint64) (_ time.Time, ok bool) {
	const (
		from1601 = 11_644_473_600  // seconds from 1601-01-01 to 1970-01-01
		last     = 253_402_300_799 // 9999-12-31T23:59:59Z, seconds from 1970
	)
	seconds, rest := ticks/perSecond, ticks%perSecond
	if ticks == 0 {
		return time.Time{}, true
	}
	if seconds > from1601+last {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds)-from1601, int64(rest*(1_000_000_000/perSecond))).UTC(), true
}
