package route

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// dc matches the filters listed; asking for one that is not listed is an error, so a test knows what was asked.
type dc map[string]bool

var errAsked = errors.New("asked for a filter that should not matter")

func (d dc) Matches(_ context.Context, _ dsdb.GUID, filter string) (bool, error) {
	matches, ok := d[filter]
	if !ok {
		return false, errAsked
	}
	return matches, nil
}

// Protected answers for the filter "protected".
func (d dc) Protected(context.Context, dsdb.GUID) (bool, error) { return d["protected"], nil }

var alice = directory.Account{
	GUID: dsdb.GUID{1}, SAMAccountName: "alice", UserPrincipalName: "alice@corp.example",
	Attributes: map[string]string{"mail": "a.smith@corp.example", "odd": "@corp.example"},
}

func table(t *testing.T, filter, exclude string, targets ...Target) *Table {
	t.Helper()
	table, err := New(targets, Scope{Filter: filter, Exclude: exclude})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestUserNames(t *testing.T) {
	for _, c := range []struct{ attribute, domain, user, why string }{
		{"mail", "", "a.smith@corp.example", ""},
		{"Mail", "", "a.smith@corp.example", ""},
		{"mail", "example.org", "a.smith@example.org", ""},
		{"mail", "@example.org", "a.smith@example.org", ""},
		{"sAMAccountName", "", "alice", ""},
		{"sAMAccountName", "example.org", "alice@example.org", ""},
		{"userPrincipalName", "example.org", "alice@example.org", ""},
		{"wWWHomePage", "", "", "cloud: the account has no wWWHomePage"},
		{"wWWHomePage", "example.org", "", "cloud: the account has no wWWHomePage"},
		{"odd", "example.org", "", "cloud: its odd has nothing before the @"},
	} {
		routes, refusals, err := table(t, "", "", Target{"cloud", c.attribute, c.domain, ""}).Of(t.Context(), dc{}, alice)
		var want []change.Route
		if c.user != "" {
			want = []change.Route{{Target: "cloud", User: c.user}}
		}
		if err != nil || !reflect.DeepEqual(routes, want) || strings.Join(refusals, "; ") != c.why {
			t.Errorf("%s, %q: %v, %q, %v", c.attribute, c.domain, routes, refusals, err)
		}
	}
}

func TestFilters(t *testing.T) {
	both := []Target{{"one", "mail", "", "(one=1)"}, {"two", "mail", "", ""}}
	for name, c := range map[string]struct {
		dc      dc
		targets string
		why     string
	}{
		"all match":            {dc{"(x=1)": false, "(f=1)": true, "(one=1)": true}, "one two", ""},
		"one does not":         {dc{"(x=1)": false, "(f=1)": true, "(one=1)": false}, "two", "one: the account does not match its filter"},
		"not filter":           {dc{"(x=1)": false, "(f=1)": false}, "", "the account does not match filter"},
		"excluded, asks alone": {dc{"(x=1)": true}, "", "the account matches exclude"},
	} {
		routes, refusals, err := table(t, "(f=1)", "(x=1)", both...).Of(t.Context(), c.dc, alice)
		var targets []string
		for _, r := range routes {
			targets = append(targets, r.Target)
		}
		if err != nil || strings.Join(targets, " ") != c.targets || strings.Join(refusals, "; ") != c.why {
			t.Errorf("%s: %v, %q, %v", name, targets, refusals, err)
		}
	}
}

// Whatever question the DC leaves open, nobody is routed anywhere.
func TestErrorsDecideNothing(t *testing.T) {
	targets := []Target{{"two", "mail", "", ""}, {"one", "mail", "", "(one=1)"}}
	for _, answers := range []dc{
		{"(f=1)": true, "(one=1)": true},
		{"(x=1)": false, "(one=1)": true},
		{"(x=1)": false, "(f=1)": true},
	} {
		routes, refusals, err := table(t, "(f=1)", "(x=1)", targets...).Of(t.Context(), answers, alice)
		if !errors.Is(err, errAsked) || routes != nil || refusals != nil {
			t.Errorf("%v: %v, %q, %v", answers, routes, refusals, err)
		}
	}
}

func TestNoTarget(t *testing.T) {
	routes, refusals, err := table(t, "(f=1)", "").Of(t.Context(), dc{}, alice)
	if routes != nil || len(refusals) != 1 || err != nil {
		t.Errorf("%v, %q, %v", routes, refusals, err)
	}
}

func TestAttributes(t *testing.T) {
	got := table(t, "", "", Target{UserAttribute: "proxyAddresses"}, Target{UserAttribute: "Mail"}, Target{UserAttribute: "mail"},
		Target{UserAttribute: "sAMAccountName"}, Target{UserAttribute: "userPrincipalName"}).Attributes()
	if !reflect.DeepEqual(got, []string{"mail", "proxyaddresses"}) {
		t.Errorf("attributes are %q", got)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, err := range map[string]error{
		"base":             second(New(nil, Scope{BaseDN: "people"})),
		"filter":           second(New(nil, Scope{Filter: "("})),
		"exclude":          second(New(nil, Scope{Exclude: "mail=x"})),
		"a target's":       second(New([]Target{{"a", "mail", "", "(&"}}, Scope{})),
		"without a target": second(New([]Target{{Name: "a"}}, Scope{})),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func second(_ *Table, err error) error { return err }

func TestBaseDN(t *testing.T) {
	for dn, inside := range map[string]bool{
		"CN=Alice,OU=People,DC=corp,DC=example":          true,
		"cn=alice,ou=staff,ou=PEOPLE,dc=Corp,dc=example": true,
		"CN=Alice,CN=Users,DC=corp,DC=example":           false,
		"OU=People,DC=corp,DC=example":                   false,
		"not a DN":                                       false,
	} {
		table, err := New([]Target{{"cloud", "mail", "", ""}}, Scope{BaseDN: "OU=People,DC=corp,DC=example"})
		if err != nil {
			t.Fatal(err)
		}
		a := alice
		a.DN = dn
		routes, refusals, err := table.Of(t.Context(), dc{}, a)
		if err != nil || (len(routes) == 1) != inside || (len(refusals) == 0) != inside {
			t.Errorf("%s: %v, %v, %v", dn, routes, refusals, err)
		}
	}
}

func TestProtected(t *testing.T) {
	for _, c := range []struct{ is, wanted, routed bool }{{true, false, false}, {true, true, true}, {false, false, true}} {
		table, err := New([]Target{{"cloud", "mail", "", ""}}, Scope{Protected: c.wanted})
		if err != nil {
			t.Fatal(err)
		}
		routes, refusals, err := table.Of(t.Context(), dc{"protected": c.is}, alice)
		if err != nil || (len(routes) == 1) != c.routed || (len(refusals) == 0) != c.routed {
			t.Errorf("%+v: %v, %v, %v", c, routes, refusals, err)
		}
	}
}
