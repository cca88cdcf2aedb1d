package directory

import (
	"errors"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestSelfWritable(t *testing.T) {
	sets := map[string]string{
		"telephoneNumber": "77b5b886-944a-11d1-aebd-0000f80367c1",
		"homePhone":       "e45795b2-9455-11d1-aebd-0000f80367c1",
		"url":             "e45795b3-9455-11d1-aebd-0000f80367c1",
		"mail":            "e48d0154-bcf8-11d1-8702-00c04fb96050", // Public-Information
		"employeeID":      "",
		"damaged":         "no GUID",
	}
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		if s.base != fakeSchema {
			t.Errorf("it asks below %s", s.base)
		}
		for name, set := range sets {
			if s.filter != "(&(objectClass=attributeSchema)(lDAPDisplayName="+ldap.EscapeFilter(name)+"))" {
				continue
			}
			attributes := map[string][]string{}
			if guid, err := dsdb.ParseGUID(set); err == nil {
				attributes["attributeSecurityGUID"] = []string{string(guid[:])}
			} else if set != "" {
				attributes["attributeSecurityGUID"] = []string{set}
			}
			return &reply{entries: []*ldap.Entry{ldap.NewEntry("CN="+name, attributes)}}
		}
		return &reply{}
	}})
	for name, want := range map[string]bool{"telephoneNumber": true, "homePhone": true, "url": true, "mail": false, "employeeID": false} {
		if got, err := dc.SelfWritable(t.Context(), name); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want)
		}
	}
	if _, err := dc.SelfWritable(t.Context(), "nosuch"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an attribute that there is not: %v", err)
	}
	if writable, err := dc.SelfWritable(t.Context(), "damaged"); writable || err == nil {
		t.Errorf("a value that is no GUID: %v, %v", writable, err)
	}
}
