package directory

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestDirSync(t *testing.T) {
	var asked []search
	answers := []*reply{
		{entries: []*ldap.Entry{
			ldap.NewEntry("CN=alice", map[string][]string{
				"objectGUID": {strings.Repeat("a", 16)}, "parentGUID": {strings.Repeat("p", 16)}, "instanceType": {"4"}, "unicodePwd": {"hhhhhhhhhhhhhhhh"},
			}),
			ldap.NewEntry("CN=bob\nDEL:1,CN=Deleted Objects", map[string][]string{
				"objectGUID": {strings.Repeat("b", 16)}, "instanceType": {"4"}, "isDeleted": {"TRUE"}, "mail": {},
			}),
		}, synced: []byte("first"), more: 1},
		{entries: []*ldap.Entry{ldap.NewEntry("CN=carol", map[string][]string{"objectGUID": {strings.Repeat("c", 16)}})}, synced: []byte("second")},
	}
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		asked = append(asked, s)
		return answers[len(asked)-1]
	}})
	var got []DirSyncEntry
	next, err := dc.DirSync(t.Context(), []byte("before"), []string{"mail", "unicodePwd"}, func(e DirSyncEntry) error { got = append(got, e); return nil })
	if err != nil || string(next) != "second" || len(got) != 3 {
		t.Fatalf("DirSync = %q, %v after %v", next, err, got)
	}
	if len(asked) != 2 || asked[0].cookie != "before" || asked[1].cookie != "first" || !slices.Contains(asked[0].attrs, "isDeleted") || asked[0].base != fakeBase {
		t.Errorf("asked %+v", asked)
	}
	if a := got[0]; a.GUID != dsdb.GUID([]byte(strings.Repeat("a", 16))) || a.ParentGUID.IsZero() || a.InstanceType != 4 || a.Deleted || len(a.Attributes) != 1 {
		t.Errorf("alice is %+v", a)
	}
	if mail, told := got[1].Attributes["mail"]; !got[1].Deleted || !told || len(mail) != 0 || !got[1].ParentGUID.IsZero() {
		t.Errorf("bob is %v, his mail %q", got[1], mail)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, got); strings.Contains(text, "hhh") || strings.Contains(text, "104 104") || !strings.Contains(text, "unicodePwd") {
			t.Errorf("%s: %s", format, text)
		}
	}
}

func TestDirSyncUnknown(t *testing.T) {
	dc := dialFake(t, &fake{answer: func(search) *reply { return &reply{} }})
	if next, err := dc.DirSync(t.Context(), nil, nil, nil); err == nil || next != nil || !strings.Contains(err.Error(), "cookie") {
		t.Errorf("of a server that ignores the control: %q, %v", next, err)
	}
}

func FuzzDecodeDirSync(f *testing.F) {
	f.Add([]byte(strings.Repeat("g", 16)), []byte(strings.Repeat("p", 16)), []byte("4"), []byte("TRUE"), "mail", []byte("a@example.com"))
	f.Add([]byte("short"), []byte("short"), []byte("-1"), []byte("FALSE"), "objectGUID", []byte{})
	f.Add([]byte(strings.Repeat("g", 16)), []byte{}, []byte("9223372036854775808"), []byte{}, "ISDELETED", []byte("TRUE"))
	f.Fuzz(func(t *testing.T, guid, parent, instance, deleted []byte, name string, value []byte) {
		e, err := decodeDirSync(ldap.NewEntry("CN=x", map[string][]string{
			"objectGUID": {string(guid)}, "parentGUID": {string(parent)}, "instanceType": {string(instance)}, "isDeleted": {string(deleted)}, name: {string(value)},
		}))
		if err != nil {
			if !e.GUID.IsZero() || e.Attributes != nil {
				t.Errorf("%v, and yet %v", err, e)
			}
			return
		}
		for _, known := range []string{"objectGUID", "parentGUID", "instanceType", "isDeleted"} {
			if strings.EqualFold(name, known) {
				return
			}
		}
		if got := e.Attributes[name]; len(got) != 1 || string(got[0]) != string(value) {
			t.Errorf("%q is %q, want %q", name, got, value)
		}
	})
}
