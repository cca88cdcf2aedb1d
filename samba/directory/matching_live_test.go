package directory_test

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// everybody reads all accounts, by GUID.
func everybody(t *testing.T, dc *directory.DC) map[dsdb.GUID]directory.Account {
	t.Helper()
	all := map[dsdb.GUID]directory.Account{}
	err := dc.AllAccounts(t.Context(), []string{"primaryGroupID"}, func(a directory.Account) error {
		if a.Unreadable != nil || a.NTHash != nil || a.Attributes["primaryGroupID"] == "" {
			t.Errorf("told of %v (%v)", a, a.Unreadable)
		}
		all[a.GUID] = a
		return nil
	})
	if err != nil || len(all) < 3 {
		t.Fatalf("%d accounts, %v", len(all), err)
	}
	return all
}

// One search tells what as many tell as there are accounts.
func TestLiveMatching(t *testing.T) {
	dc := live(t)
	root, err := dc.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const chain = "memberOf:1.2.840.113556.1.4.1941:="
	all := everybody(t, dc)
	for _, tc := range []struct {
		filter string
		want   []string // some of them, at least
	}{
		{"(sAMAccountType=805306368)", []string{"Administrator", "krbtgt"}},
		{"(adminCount=1)", []string{"Administrator"}},
		{"(memberOf=CN=Domain Admins,CN=Users," + root.BaseDN + ")", []string{"Administrator"}},
		{"(" + chain + "CN=Administrators,CN=Builtin," + root.BaseDN + ")", []string{"Administrator", "nested-for-test"}},
		{"(" + chain + "CN=outer-for-test,CN=Users," + root.BaseDN + ")", []string{"nested-for-test"}},
		{"(memberOf=CN=outer-for-test,CN=Users," + root.BaseDN + ")", nil},
		{"(&(!(" + chain + "CN=outer-for-test,CN=Users," + root.BaseDN + "))(cn=*-for-test))", []string{"governed-for-test"}},
		{"(" + chain + "CN=no such group)", nil},
		{"(noSuchAttribute=1)", nil},
	} {
		got := map[dsdb.GUID]bool{}
		if err := dc.Matching(t.Context(), tc.filter, func(guid dsdb.GUID) error { got[guid] = true; return nil }); err != nil {
			t.Errorf("%s: %v", tc.filter, err)
		}
		var names []string
		for guid, a := range all {
			want, err := dc.Matches(t.Context(), guid, tc.filter)
			if err != nil || got[guid] != want {
				t.Errorf("%s, %s: one search says %v, the account's own %v, %v", tc.filter, a.SAMAccountName, got[guid], want, err)
			}
			if want {
				names = append(names, a.SAMAccountName)
			}
			delete(got, guid)
		}
		if len(got) > 0 {
			t.Errorf("%s: of %v nobody has heard", tc.filter, got)
		}
		for _, name := range tc.want {
			if !slices.Contains(names, name) {
				t.Errorf("%s matches %q, and not %s", tc.filter, names, name)
			}
		}
	}
}

// From the groups downwards the same accounts are found as from each account upwards.
func TestLiveProtectedAccounts(t *testing.T) {
	dc := live(t)
	got := map[dsdb.GUID]bool{}
	if err := dc.ProtectedAccounts(t.Context(), func(guid dsdb.GUID) error { got[guid] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	protected := map[string]bool{}
	for guid, a := range everybody(t, dc) {
		want, err := dc.Protected(t.Context(), guid)
		if err != nil || got[guid] != want {
			t.Errorf("%s: %v from above, %v from below, %v", a.SAMAccountName, got[guid], want, err)
		}
		if want {
			protected[a.SAMAccountName] = true
		}
	}
	for name, want := range map[string]bool{"Administrator": true, "nested-for-test": true, "primary-for-test": true, "listed-for-test": false, "governed-for-test": false} {
		if protected[name] != want {
			t.Errorf("%s: %v; protected are %v", name, protected[name], slices.Sorted(maps.Keys(protected)))
		}
	}
}

// A group whose member an account became has moved, and the account has not; an organisational unit that was renamed has, and who lies
// below has not. integration/directory_test.go does so between the USN and the end.
func TestLiveMoved(t *testing.T) {
	dc := live(t)
	root, err := dc.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var others []directory.Other
	accounts := map[string]bool{}
	err = dc.Moved(t.Context(), max(root.HighestUSN-2000, 1), nil, func(a directory.Account) error {
		accounts[a.SAMAccountName] = true
		return nil
	}, func(dsdb.GUID, string) error { return nil }, func(o directory.Other) error {
		others = append(others, o)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !accounts["nested-for-test"] {
		t.Errorf("told of the accounts %v", accounts)
	}
	for _, want := range []struct {
		dn      string
		class   string
		deleted bool
	}{
		{"CN=inner-for-test,CN=Users," + root.BaseDN, "group", false},
		{"OU=renamed-for-test," + root.BaseDN, "organizationalUnit", false},
		{"", "group", true},
	} {
		if !slices.ContainsFunc(others, func(o directory.Other) bool {
			return slices.Contains(o.Classes, want.class) && o.Deleted == want.deleted && (o.DN == want.dn || want.dn == "")
		}) {
			t.Errorf("not told of %+v; of %+v", want, others)
		}
	}
	if err := dc.Moved(t.Context(), 0, nil, nil, nil, nil); !errors.Is(err, directory.ErrManyChanges) {
		t.Errorf("from 0: %v", err)
	}
}
