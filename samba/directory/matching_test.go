package directory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestMoved(t *testing.T) {
	l := newLedger(t, "alice", "group1", "carol", "group2")
	l.dead["carol"], l.dead["group2"] = true, true
	l.spoil = func(name string, e *ldap.Entry) {
		if strings.HasPrefix(name, "group") {
			for _, a := range e.Attributes {
				if a.Name == "objectClass" {
					*a = *ldap.NewEntryAttribute("objectClass", []string{"top", "group"})
				}
			}
		}
	}
	dc := l.dial()
	moved := func(from uint64) (got []string, err error) {
		err = dc.Moved(t.Context(), from, nil, func(a Account) error {
			got = append(got, a.SAMAccountName)
			return nil
		}, func(_ dsdb.GUID, name string) error {
			got = append(got, name+" gone")
			return nil
		}, func(o Other) error {
			got = append(got, fmt.Sprint(o.DN, o.Classes, o.Deleted))
			return nil
		})
		slices.Sort(got)
		return got, err
	}
	got, err := moved(l.usn["alice"])
	want := []string{"CN=group1,CN=Users," + fakeBase + "[top group] false", "CN=group2,CN=Users," + fakeBase + "[top group] true", "alice", "carol gone"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("told %q, %v", got, err)
	}
	if _, err := moved(0); !errors.Is(err, ErrManyChanges) {
		t.Errorf("from 0: %v", err)
	}
	l.highest += lookupLimit
	l.asked = nil
	if _, err := moved(l.usn["alice"]); !errors.Is(err, ErrManyChanges) || len(l.asked) != 1 {
		t.Errorf("after many changes: %v, %d searches", err, len(l.asked))
	}
}

// What is asked instead of a chain.
func TestMatchingUnchains(t *testing.T) {
	const rule = ":1.2.840.113556.1.4.1941:="
	within := map[string][]string{ // groups by the group that they are within
		"CN=Staff,DC=example,DC=test": {"CN=Teachers (new),DC=example,DC=test", "CN=Sub,DC=example,DC=test"},
		"CN=Empty,DC=example,DC=test": nil,
	}
	for i := range mostGroups {
		within["CN=Huge"] = append(within["CN=Huge"], fmt.Sprintf("CN=%d", i))
	}
	var asked []string
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		asked = append(asked, s.filter)
		r := &reply{}
		if strings.HasPrefix(s.filter, "(&"+groups) {
			_, group, _ := strings.Cut(s.filter, rule)
			for _, dn := range within[strings.TrimSuffix(group, "))")] {
				r.entries = append(r.entries, ldap.NewEntry(dn, nil))
			}
			return r
		}
		if len(s.attrs) != 1 || s.attrs[0] != "objectGUID" || !s.paged {
			t.Errorf("asked %+v", s)
		}
		r.entries = append(r.entries, user(t, "alice", 7))
		return r
	}})
	const staff = "(|(memberOf=CN=Staff,DC=example,DC=test)(memberOf=CN=Teachers \\28new\\29,DC=example,DC=test)(memberOf=CN=Sub,DC=example,DC=test))"
	for filter, want := range map[string]string{
		"(mail=*)":                               "(&" + UserAccounts + "(mail=*))",
		UserAccounts:                             UserAccounts,
		"(memberOf=CN=Staff,DC=example,DC=test)": "(&" + UserAccounts + "(memberOf=CN=Staff,DC=example,DC=test))",
		"(memberOf" + rule + "CN=Staff,DC=example,DC=test)":                                                     "(&" + UserAccounts + staff + ")",
		"(MEMBEROF" + rule + "CN=Empty,DC=example,DC=test)":                                                     "(&" + UserAccounts + "(|(memberOf=CN=Empty,DC=example,DC=test)))",
		"(&(mail=*)(!(memberOf" + rule + "CN=Staff,DC=example,DC=test)))":                                       "(&" + UserAccounts + "(&(mail=*)(!" + staff + ")))",
		"(memberOf" + rule + "CN=Huge)":                                                                         "(&" + UserAccounts + "(memberOf" + rule + "CN=Huge))",
		"(manager" + rule + "CN=Staff,DC=example,DC=test)":                                                      "(&" + UserAccounts + "(manager" + rule + "CN=Staff,DC=example,DC=test))",
		"(|(memberOf" + rule + "CN=Staff,DC=example,DC=test)(memberOf" + rule + "CN=Empty,DC=example,DC=test))": "(&" + UserAccounts + "(|" + staff + "(|(memberOf=CN=Empty,DC=example,DC=test))))",
	} {
		var got []dsdb.GUID
		err := dc.Matching(t.Context(), filter, func(guid dsdb.GUID) error {
			got = append(got, guid)
			return nil
		})
		if last := asked[len(asked)-1]; err != nil || last != want || !slices.Equal(got, []dsdb.GUID{{15: 7}}) {
			t.Errorf("%s: asked %s, want %s; %v, %v", filter, last, want, got, err)
		}
	}
	if err := dc.Matching(t.Context(), "(", nil); err == nil {
		t.Error("half a filter is asked")
	}
	enough := errors.New("enough")
	if err := dc.Matching(t.Context(), "(mail=*)", func(dsdb.GUID) error { return enough }); err != enough {
		t.Errorf("stopped by its caller: %v", err)
	}
}

func TestAllAccountsReadsNoHash(t *testing.T) {
	var asked []search
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		asked = append(asked, s)
		e := ldap.NewEntry("CN=alice,"+fakeBase, map[string][]string{"objectGUID": {strings.Repeat("g", 16)}, "sAMAccountName": {"alice"}, "uSNChanged": {"9"}, "mail": {"a@b"}})
		return &reply{entries: []*ldap.Entry{e, ldap.NewEntry("CN=odd,"+fakeBase, map[string][]string{"sAMAccountName": {"odd"}})}}
	}})
	var got []string
	err := dc.AllAccounts(t.Context(), []string{"mail"}, func(a Account) error {
		got = append(got, fmt.Sprint(a.SAMAccountName, a.Attributes["mail"], a.Unreadable == nil))
		return nil
	})
	if err != nil || !slices.Equal(got, []string{"alicea@btrue", "oddfalse"}) {
		t.Errorf("told %q, %v", got, err)
	}
	for _, s := range asked {
		if slices.Contains(s.attrs, hashAttribute) || !s.paged || s.filter != UserAccounts {
			t.Errorf("asked %+v", s)
		}
	}
}
