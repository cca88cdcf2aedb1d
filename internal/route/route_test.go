package route

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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

// Namesakes answers with bob, who has alice's name where "bob" is so.
func (d dc) Namesakes(_ context.Context, _ string, values, _ []string) ([]directory.Account, error) {
	if _, asked := d["bob"]; !asked {
		return nil, nil
	}
	if slices.Contains(values, "fail@corp.example") {
		return nil, errAsked
	}
	return []directory.Account{alice, bob}, nil
}

// Protected answers for the filter "protected".
func (d dc) Protected(context.Context, dsdb.GUID) (bool, error) { return d["protected"], nil }

var alice = directory.Account{
	GUID: dsdb.GUID{1}, SAMAccountName: "alice", UserPrincipalName: "alice@corp.example",
	Attributes: map[string]string{"mail": "a.smith@corp.example", "odd": "@corp.example"},
}

var bob = directory.Account{
	GUID: dsdb.GUID{2}, SAMAccountName: "bob", UserPrincipalName: "A.Smith@other.example",
	Attributes: map[string]string{"mail": "A.Smith@Corp.example"},
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
		routes, refusals, err := table(t, "", "", Target{Name: "cloud", UserAttribute: c.attribute, UserDomain: c.domain}).Of(t.Context(), dc{}, alice)
		var want []change.Route
		if c.user != "" {
			want = []change.Route{{Target: "cloud", User: c.user}}
		}
		if err != nil || !reflect.DeepEqual(routes, want) || inWords(refusals) != c.why {
			t.Errorf("%s, %q: %v, %q, %v", c.attribute, c.domain, routes, refusals, err)
		}
	}
}

func TestFilters(t *testing.T) {
	both := []Target{{Name: "one", UserAttribute: "mail", Filter: "(one=1)"}, {Name: "two", UserAttribute: "mail"}}
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
		if err != nil || strings.Join(targets, " ") != c.targets || inWords(refusals) != c.why {
			t.Errorf("%s: %v, %q, %v", name, targets, refusals, err)
		}
	}
}

// That an account is a user's, which the default filter asks for, needs no search.
func TestDefaultFilter(t *testing.T) {
	routes, refusals, err := table(t, directory.UserAccounts, "", Target{Name: "cloud", UserAttribute: "mail"}).Of(t.Context(), dc{}, alice)
	if err != nil || len(routes) != 1 || len(refusals) != 0 {
		t.Errorf("%v, %v, %v", routes, refusals, err)
	}
}

// Whatever question the DC leaves open, nobody is routed anywhere.
func TestErrorsDecideNothing(t *testing.T) {
	targets := []Target{{Name: "two", UserAttribute: "mail"}, {Name: "one", UserAttribute: "mail", Filter: "(one=1)"}}
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

func inWords(refusals []Refusal) string {
	var texts []string
	for _, r := range refusals {
		texts = append(texts, r.String())
	}
	return strings.Join(texts, "; ")
}

// What becomes of a password in a certain state is each target's own choice; that the account is meant is not touched by it.
func TestStates(t *testing.T) {
	const temporary, disabled, both, forever = "temporary", "disabled", "temporary and disabled", "temporary, never expires"
	states := map[string]directory.Account{}
	for name, a := range map[string]directory.Account{
		"":        {PwdLastSet: time.Unix(1, 0)},
		temporary: {},
		disabled:  {PwdLastSet: time.Unix(1, 0), UserAccountControl: dsdb.UFAccountDisable},
		both:      {UserAccountControl: dsdb.UFAccountDisable},
		forever:   {UserAccountControl: dsdb.UFDontExpirePassword},
	} {
		a.GUID, a.SAMAccountName = alice.GUID, alice.SAMAccountName
		states[name] = a
	}
	for _, c := range []struct {
		temporary, disabled Handling
		want                map[string]string // by state: "must" for MustChange, or the reason for which it is not sent; else it is
	}{
		{"", "", nil},
		{Send, Send, nil},
		{Skip, Send, map[string]string{temporary: "temporary", both: "temporary"}},
		{ForceChange, Send, map[string]string{temporary: "must", both: "must"}},
		{Send, Skip, map[string]string{disabled: "disabled", both: "disabled"}},
		{ForceChange, Skip, map[string]string{temporary: "must", disabled: "disabled", both: "disabled"}},
	} {
		table := table(t, "", "", Target{Name: "cloud", UserAttribute: "sAMAccountName", Temporary: c.temporary, Disabled: c.disabled})
		for name, a := range states {
			routes, refusals, err := table.Of(t.Context(), dc{}, a)
			got := ""
			switch {
			case len(routes) == 1 && routes[0].MustChange:
				got = "must"
			case len(routes) == 0 && len(refusals) == 1 && refusals[0].Route == (change.Route{Target: "cloud", User: "alice"}):
				got = string(refusals[0].State)
			}
			if err != nil || len(routes)+len(refusals) != 1 || got != c.want[name] {
				t.Errorf("temporary %q, disabled %q, account %q: %v, %v, %v", c.temporary, c.disabled, name, routes, refusals, err)
			}
			if targets, err := table.Targeted(t.Context(), dc{}, a); err != nil || !reflect.DeepEqual(targets, []string{"cloud"}) {
				t.Errorf("account %q is targeted by %q, %v", name, targets, err)
			}
		}
	}
}

// Of two accounts with one name at a target neither is routed there; but one that the target does not want has no name there.
func TestNameShared(t *testing.T) {
	mail := Target{Name: "cloud", UserAttribute: "mail"}
	for name, c := range map[string]struct {
		dc     dc
		target Target
		scope  Scope
		bob    uint32 // userAccountControl
		shared bool
	}{
		"two":                         {dc{"bob": true}, mail, Scope{Protected: true}, 0, true},
		"one":                         {dc{}, mail, Scope{Protected: true}, 0, false},
		"one an administrator":        {dc{"bob": true}, mail, Scope{}, 0, false},
		"one excluded":                {dc{"bob": true}, mail, Scope{Exclude: "(x=1)", Protected: true}, 0, false},
		"one disabled":                {dc{"bob": true}, Target{Name: "cloud", UserAttribute: "mail", Disabled: Skip}, Scope{Protected: true}, dsdb.UFAccountDisable, false},
		"one disabled, and sent":      {dc{"bob": true}, mail, Scope{Protected: true}, dsdb.UFAccountDisable, true},
		"other names":                 {dc{"bob": true}, Target{Name: "cloud", UserAttribute: "userPrincipalName"}, Scope{Protected: true}, 0, false},
		"an attribute without index":  {dc{"bob": true}, Target{Name: "cloud", UserAttribute: "info"}, Scope{Protected: true}, 0, false},
		"one domain for both at last": {dc{"bob": true}, Target{Name: "cloud", UserAttribute: "mail", UserDomain: "example.org"}, Scope{Protected: true}, 0, true},
	} {
		table, err := New([]Target{c.target}, c.scope)
		if err != nil {
			t.Fatal(err)
		}
		a := alice
		a.Attributes = map[string]string{"mail": "a.smith@corp.example", "info": "a.smith@corp.example"}
		bob := bob
		bob.UserAccountControl = c.bob
		routes, refusals, err := table.Of(t.Context(), withBob{c.dc, bob}, a)
		if err != nil || len(routes)+len(refusals) != 1 || (len(refusals) == 1) != c.shared {
			t.Errorf("%s: %v, %v, %v", name, routes, refusals, err)
		}
		if c.shared && len(refusals) == 1 && (refusals[0].State != change.NameShared || refusals[0].With != "bob") {
			t.Errorf("%s: %+v", name, refusals[0])
		}
	}
	a := alice
	a.Attributes = map[string]string{"mail": "fail@corp.example"}
	if routes, _, err := table(t, "", "", mail).Of(t.Context(), dc{"bob": true}, a); !errors.Is(err, errAsked) || routes != nil {
		t.Errorf("%v, %v", routes, err)
	}
}

// withBob excludes and protects bob alone.
type withBob struct {
	dc
	bob directory.Account
}

func (w withBob) Namesakes(ctx context.Context, attribute string, values, attrs []string) ([]directory.Account, error) {
	found, err := w.dc.Namesakes(ctx, attribute, values, attrs)
	if len(found) == 2 {
		found[1] = w.bob
	}
	return found, err
}

func (w withBob) Matches(_ context.Context, guid dsdb.GUID, _ string) (bool, error) {
	return guid == w.bob.GUID, nil
}
func (w withBob) Protected(_ context.Context, guid dsdb.GUID) (bool, error) {
	return guid == w.bob.GUID, nil
}

func TestNoTarget(t *testing.T) {
	routes, refusals, err := table(t, "(f=1)", "").Of(t.Context(), dc{}, alice)
	if routes != nil || len(refusals) != 1 || err != nil {
		t.Errorf("%v, %q, %v", routes, refusals, err)
	}
	// Who is told of refused passwords hangs on no target.
	for filter, want := range map[string]string{"": "", "(f=1)": "the account does not match filter"} {
		if why, err := table(t, filter, "").Meant(t.Context(), dc{"(f=1)": false}, alice); why != want || err != nil {
			t.Errorf("%q: %q, %v", filter, why, err)
		}
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
		"a target's":       second(New([]Target{{Name: "a", UserAttribute: "mail", Filter: "(&"}}, Scope{})),
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
		table, err := New([]Target{{Name: "cloud", UserAttribute: "mail"}}, Scope{BaseDN: "OU=People,DC=corp,DC=example"})
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
		table, err := New([]Target{{Name: "cloud", UserAttribute: "mail"}}, Scope{Protected: c.wanted})
		if err != nil {
			t.Fatal(err)
		}
		routes, refusals, err := table.Of(t.Context(), dc{"protected": c.is}, alice)
		if err != nil || (len(routes) == 1) != c.routed || (len(refusals) == 0) != c.routed {
			t.Errorf("%+v: %v, %v, %v", c, routes, refusals, err)
		}
	}
}

func TestAsks(t *testing.T) {
	targets := []Target{{Name: "one", UserAttribute: "mail", Filter: "(one=1)"}, {Name: "two", UserAttribute: "mail"}}
	for name, c := range map[string]struct {
		targets       []Target
		scope         Scope
		filters       string
		place, groups bool
	}{
		"nothing":   {nil, Scope{Filter: "(f=1)", BaseDN: "DC=x"}, "", false, false},
		"all":       {targets, Scope{Filter: "(f=1)", Exclude: "(x=1)", BaseDN: "DC=x"}, "(f=1)(x=1)(one=1)", true, true},
		"as little": {targets[1:], Scope{Protected: true}, "", false, false},
	} {
		table, err := New(c.targets, c.scope)
		if err != nil {
			t.Fatal(err)
		}
		filters, place, groups := table.Asks()
		if strings.Join(filters, "") != c.filters || place != c.place || groups != c.groups || len(table.Targets()) != len(c.targets) {
			t.Errorf("%s: %q, %v, %v; targets %q", name, filters, place, groups, table.Targets())
		}
	}
}
