package dsdb

import (
	"encoding/binary"
	"errors"
	"time"
)

// DirSyncCookie is a decoded cookie of the DirSync control
// (1.2.840.113556.1.4.841): from where the next search goes on. To clients it is
// opaque ([MS-ADTS] 3.1.1.3.4.1.3); this is how Samba writes it, and Windows too.
type DirSyncCookie struct {
	Time         time.Time // when the DC wrote it
	InvocationID GUID      // whose USNs these are; a DC with another one starts from the beginning, or from its cursor

	// HighObjUpdate is the USN up to which objects have been told while pages of
	// one round are still to come; HighPropUpdate that of the last whole round
	// ([MS-DRSR], USN_VECTOR). Samba writes the same into both and goes on
	// from the larger.
	HighObjUpdate, HighPropUpdate uint64

	Cursors []Cursor // what else has been told, by originating DC; without LastSync in Samba's
}

// Errors of ParseDirSyncCookie.
var (
	errCookieLength    = errors.New("decoding DirSync cookie: its length does not fit its contents")
	errCookieSignature = errors.New("decoding DirSync cookie: not its signature")
)

// ParseDirSyncCookie decodes ldapControlDirSyncCookie of Samba's
// librpc/idl/drsblobs.idl, little-endian:
//
//	 0  "MSDS"   4  3
//	 8  time, a FILETIME   16  reserved   20  reserved
//	24  size of the cursors in bytes
//	28  HighObjUpdate   36  reserved   44  HighPropUpdate
//	52  invocationId
//	68  the cursors, as in replUpToDateVector; nothing if their size is 0
//
// A cookie that is too short, too long or of another kind is an error; the empty
// one, which starts a search from the beginning, is none of these.
func ParseDirSyncCookie(b []byte) (DirSyncCookie, error) {
	const header = 68
	if len(b) < header {
		return DirSyncCookie{}, errCookieLength
	}
	if string(b[:4]) != "MSDS" || binary.LittleEndian.Uint32(b[4:]) != 3 {
		return DirSyncCookie{}, errCookieSignature
	}
	size := binary.LittleEndian.Uint32(b[24:])
	if uint64(len(b)) != header+uint64(size) {
		return DirSyncCookie{}, errCookieLength
	}
	c := DirSyncCookie{
		Time:           NTTime(int64(binary.LittleEndian.Uint64(b[8:]))),
		HighObjUpdate:  binary.LittleEndian.Uint64(b[28:]),
		HighPropUpdate: binary.LittleEndian.Uint64(b[44:]),
		InvocationID:   GUID(b[52:68]),
	}
	if size == 0 {
		return c, nil
	}
	var err error
	c.Cursors, err = ParseReplUpToDateVector(b[header:])
	return c, err
}
