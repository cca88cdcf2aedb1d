package directory

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// decoder reads an entry's attributes and keeps the first error, so that a
// whole entry can be read before asking whether it was sound.
type decoder struct {
	entry *ldap.Entry
	err   error
}

var errMissing = errors.New("not there, or not readable on this connection")

// text returns an attribute's first value, or "" if it has none.
func (d *decoder) text(name string) string { return d.entry.GetEqualFoldAttributeValue(name) }

// raw is text for values that are bytes.
func (d *decoder) raw(name string) []byte { return d.entry.GetEqualFoldRawAttributeValue(name) }

// number returns an attribute of syntax Integer or LargeInteger, which must be
// there: were a missing one 0, "not readable" would read as "switched off".
func (d *decoder) number(name string) int64 {
	value := d.text(name)
	if value == "" {
		d.fail(name, errMissing)
		return 0
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		d.fail(name, err)
	}
	return n
}

// optional is number, and 0 for an attribute that is not there.
func (d *decoder) optional(name string) int64 {
	if d.text(name) == "" {
		return 0
	}
	return d.number(name)
}

// guid returns an attribute that holds a GUID and must be there.
func (d *decoder) guid(name string) dsdb.GUID {
	guid, err := dsdb.GUIDFromBytes(d.raw(name))
	if err != nil {
		d.fail(name, err)
	}
	return guid
}

func (d *decoder) fail(name string, err error) {
	if d.err == nil {
		d.err = fmt.Errorf("decoding %s of %q: %w", name, d.entry.DN, err)
	}
}
