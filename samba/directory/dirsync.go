package directory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// DirSyncEntry is one object as DirSync tells of it ([MS-ADTS] 3.1.1.3.4.1.3).
type DirSyncEntry struct {
	DN           string // of a deleted object, where it lies now
	GUID         dsdb.GUID
	ParentGUID   dsdb.GUID // zero unless name is among the attributes that are told: the object is new, or was renamed or moved
	InstanceType int32     // bit 0: head of a naming context, bit 2: writable here ([MS-ADTS] 3.1.1.1.9)
	Deleted      bool      // it was deleted since the cookie

	// Attributes are those that were asked for and written since the cookie: all
	// values, as the bytes they are; none for one that was emptied. A connection
	// that reads secrets is told of them here too, if it asks.
	Attributes map[string][][]byte
}

// String tells what changed, without any value.
func (e DirSyncEntry) String() string {
	return fmt.Sprintf("%s (%s: %s)", e.DN, e.GUID, strings.Join(slices.Sorted(maps.Keys(e.Attributes)), " "))
}

// GoString is String, so that %#v shows no values either.
func (e DirSyncEntry) GoString() string { return e.String() }

// dirSyncSize is how much a DC is asked to tell at a time; Samba does not care.
const dirSyncSize = 1 << 20

// DirSync calls each for every object of the domain, of whatever kind, of which
// an attribute among attrs (none: any) was written since cookie was given out;
// nil for all of them. It returns the cookie of the next call, which
// dsdb.ParseDirSyncCookie can read. Cookies may be kept for as long as the DC
// remembers deletions, and taken to another DC, which then may tell things twice.
//
// Samba answers in one piece, so the first call holds all that it tells in
// memory. And it looks at every object of the domain each time ("uSNChanged>=",
// see dirsync.c), so with its usual database (TDB) a call costs in proportion to
// the size of the domain, whatever changed: to follow accounts, Changed is cheaper.
// The connection needs the right DS-Replication-Get-Changes, as SYSTEM has it.
//
// An error of each ends it and is returned as it is. After any error, begin again
// from the same cookie.
func (dc *DC) DirSync(ctx context.Context, cookie []byte, attrs []string, each func(DirSyncEntry) error) (next []byte, err error) {
	if len(attrs) > 0 {
		attrs = slices.Concat(attrs, []string{"isDeleted"})
	}
	for {
		// Flags 0: the caller's rights are those of replication, not object by object.
		control := ldap.NewRequestControlDirSync(0, dirSyncSize, cookie)
		result, err := dc.search(ctx, &ldap.SearchRequest{
			BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: anything, Attributes: attrs, Controls: []ldap.Control{control},
		})
		if err != nil {
			return nil, fmt.Errorf("reading changes by DirSync: %w", err)
		}
		if err := tellAll(result, "reading changes by DirSync", func(entry *ldap.Entry) (func() error, error) {
			e, err := decodeDirSync(entry)
			return func() error { return each(e) }, err
		}); err != nil {
			return nil, err
		}
		answer, ok := ldap.FindControl(result.Controls, ldap.ControlTypeDirSync).(*ldap.ControlDirSync)
		if !ok || len(answer.Cookie) == 0 {
			return nil, errors.New("reading changes by DirSync: the server gave no cookie, so it does not know the control")
		}
		cookie = answer.Cookie
		if answer.Flags == 0 { // otherwise there is more
			return cookie, nil
		}
	}
}

func decodeDirSync(entry *ldap.Entry) (DirSyncEntry, error) {
	d := decoder{entry: entry}
	e := DirSyncEntry{
		DN:           entry.DN,
		GUID:         d.guid("objectGUID"),
		InstanceType: int32(d.optional("instanceType")),
		Deleted:      d.text("isDeleted") == "TRUE",
		Attributes:   map[string][][]byte{},
	}
	if len(d.raw("parentGUID")) > 0 {
		e.ParentGUID = d.guid("parentGUID")
	}
	for _, a := range entry.Attributes {
		switch strings.ToLower(a.Name) {
		case "objectguid", "parentguid", "instancetype", "isdeleted":
		default:
			e.Attributes[a.Name] = a.ByteValues
		}
	}
	if d.err != nil {
		return DirSyncEntry{}, d.err
	}
	return e, nil
}
