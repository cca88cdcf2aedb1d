package census

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/index"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// domain is a DC with accounts and groups. A filter (group=NAME) matches the group's members, (NAME=VALUE) those with that attribute.
type domain struct {
	accounts   map[string]*member
	groups     map[string][]string // members by group
	protected  []string            // names
	usn        uint64
	invocation dsdb.GUID
	changes    []any  // at the USN of their index + 1: *member, string (name of a deleted one), directory.Other
	many       bool   // more changes than can be looked up
	refuse     string // a filter that the DC answers with this error
	err        error
	slow       time.Duration // each search by filter
	asked      []string      // searches, since they were looked at
}

type member struct {
	directory.Account
	gone bool
}

func (d *domain) add(name string, attributes ...string) *member {
	m := &member{Account: directory.Account{GUID: dsdb.GUID{byte(len(d.accounts) >> 8), byte(len(d.accounts)), 1}, SAMAccountName: name,
		DN: "CN=" + name + ",OU=People,DC=x", Attributes: map[string]string{"mail": name + "@example.com"}}}
	for _, a := range attributes {
		k, v, _ := strings.Cut(a, "=")
		m.Attributes[k] = v
	}
	d.accounts[name] = m
	d.touch(m, 1)
	return m
}

// touch gives an account a new USN, by which attributes were written.
func (d *domain) touch(m *member, written ...uint32) {
	d.changes = append(d.changes, m)
	d.usn = uint64(len(d.changes))
	m.USNChanged = d.usn
	m.MetaData = slices.DeleteFunc(m.MetaData, func(s dsdb.AttributeStamp) bool { return slices.Contains(written, s.AttID) })
	for _, attid := range written {
		m.MetaData = append(m.MetaData, dsdb.AttributeStamp{AttID: attid, LocalUSN: d.usn})
	}
}

func (d *domain) other(o directory.Other) {
	d.changes = append(d.changes, o)
	d.usn = uint64(len(d.changes))
}

func (d *domain) join(group, name string) {
	d.groups[group] = append(d.groups[group], name)
	d.other(directory.Other{DN: "CN=" + group, Classes: []string{"top", "group"}})
}

func (d *domain) remove(name string) {
	m := d.accounts[name]
	delete(d.accounts, name)
	d.touch(m)
	m.gone = true
}

func (d *domain) matches(m *member, filter string) bool {
	name, value, _ := strings.Cut(strings.Trim(filter, "()"), "=")
	if name == "memberOf" {
		return slices.Contains(d.groups[value], m.SAMAccountName)
	}
	return m.Attributes[name] == value
}

func (d *domain) search(what string) error {
	d.asked = append(d.asked, what)
	time.Sleep(d.slow)
	if d.refuse != "" && strings.Contains(what, d.refuse) {
		return d.err
	}
	return nil
}

func (d *domain) Root(context.Context) (directory.Root, error) {
	return directory.Root{HighestUSN: d.usn, InvocationID: d.invocation}, d.search("root")
}

func (d *domain) AllAccounts(_ context.Context, attrs []string, each func(directory.Account) error) error {
	for _, m := range d.accounts {
		if err := each(project(m.Account, attrs)); err != nil {
			return err
		}
	}
	return d.search("all")
}

func project(a directory.Account, attrs []string) directory.Account {
	all := a.Attributes
	a.Attributes = map[string]string{}
	for _, name := range attrs {
		a.Attributes[name] = all[name]
	}
	return a
}

func (d *domain) Moved(_ context.Context, from uint64, attrs []string, each func(directory.Account) error,
	gone func(dsdb.GUID, string) error, other func(directory.Other) error) error {

	if err := d.search(fmt.Sprintf("moved from %d", from)); err != nil {
		return err
	}
	if d.many || from == 0 {
		return directory.ErrManyChanges
	}
	for _, change := range d.changes[from-1:] {
		var err error
		switch change := change.(type) {
		case *member:
			if change.gone {
				err = gone(change.GUID, change.SAMAccountName)
			} else {
				err = each(project(change.Account, attrs))
			}
		case directory.Other:
			err = other(change)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *domain) Matching(_ context.Context, filter string, each func(dsdb.GUID) error) error {
	for _, m := range d.accounts {
		if d.matches(m, filter) {
			if err := each(m.GUID); err != nil {
				return err
			}
		}
	}
	return d.search("all " + filter)
}

func (d *domain) ProtectedAccounts(_ context.Context, each func(dsdb.GUID) error) error {
	for _, name := range d.protected {
		if err := each(d.accounts[name].GUID); err != nil {
			return err
		}
	}
	return d.search("all protected")
}

func (d *domain) one(guid dsdb.GUID, what string, answer func(*member) bool) (bool, error) {
	for _, m := range d.accounts {
		if m.GUID == guid {
			return answer(m), d.search(m.SAMAccountName + " " + what)
		}
	}
	return false, directory.ErrNotFound
}

func (d *domain) Matches(_ context.Context, guid dsdb.GUID, filter string) (bool, error) {
	return d.one(guid, filter, func(m *member) bool { return d.matches(m, filter) })
}

func (d *domain) Protected(_ context.Context, guid dsdb.GUID) (bool, error) {
	return d.one(guid, "protected", func(m *member) bool { return slices.Contains(d.protected, m.SAMAccountName) })
}

// office is a census of a domain.
type office struct {
	*testing.T
	*domain
	*Census
	rules    Rules
	rulesErr error
	log      bytes.Buffer
}

// test runs f in a bubble, at an office that has not looked yet: of two policies, one by a group and one by a unit, and two targets.
func test(t *testing.T, f func(*office)) {
	synctest.Test(t, func(t *testing.T) {
		routes, err := route.New([]route.Target{
			{Name: "cloud", UserAttribute: "mail"}, {Name: "lab", UserAttribute: "mail", Filter: "(memberOf=lab)"},
		}, route.Scope{Filter: directory.UserAccounts, Exclude: "(adminCount=1)"})
		if err != nil {
			t.Fatal(err)
		}
		o := &office{T: t, domain: &domain{accounts: map[string]*member{}, groups: map[string][]string{}, invocation: dsdb.GUID{1}}}
		o.rules = Rules{Wanted: true, Policies: []Policy{{"staff", "", "(memberOf=staff)"}, {"pupils", "OU=Pupils,DC=x", ""}, {"odd", "OU=People,DC=x", "(odd=1)"}}}
		log := event.New(slog.New(slog.NewTextHandler(&o.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		o.Census = New(Options{File: filepath.Join(t.TempDir(), "index"), Routes: routes, Log: log, Rules: func() (Rules, error) { return o.rules, o.rulesErr }})
		for _, name := range []string{"alice", "bob", "carol"} {
			o.add(name)
		}
		o.accounts["carol"].DN = "CN=carol,OU=Year 5,OU=Pupils,DC=x"
		o.groups["staff"], o.groups["lab"] = []string{"bob"}, []string{"carol"}
		f(o)
	})
}

func (o *office) pass() {
	o.Helper()
	if err := o.Pass(o.Context(), o.domain); err != nil {
		o.Fatal(err)
	}
}

// later makes passes until the time is over.
func (o *office) later(d time.Duration) {
	o.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(Every)
		o.pass()
	}
}

// expect compares what the hook finds: "name: policy targets…", or "name: unknown".
func (o *office) expect(want ...string) {
	o.Helper()
	ix, err := index.Open(o.File)
	if err != nil {
		o.Fatal(err)
	}
	defer ix.Close()
	for _, line := range want {
		name, _, _ := strings.Cut(line, ":")
		got := name + ": unknown"
		if e, found, err := ix.Find(name); err != nil {
			o.Error(err)
		} else if found {
			got = strings.Join(slices.DeleteFunc(append([]string{name + ":", e.Policy}, e.Targets...), func(s string) bool { return s == "" }), " ")
		}
		if got != line {
			o.Errorf("the hook finds %q, want %q; log:\n%s", got, line, o.log.String())
		}
	}
}

// searched returns the searches since the last call, but for the one in each pass.
func (o *office) searched() []string {
	asked := slices.DeleteFunc(o.asked, func(s string) bool { return s == "root" })
	o.asked = nil
	slices.Sort(asked)
	return asked
}

func (o *office) expectSearches(want ...string) {
	o.Helper()
	if got := o.searched(); !slices.Equal(got, want) {
		o.Errorf("searched %q, want %q", got, want)
	}
}

var allFilters = []string{"all (adminCount=1)", "all (memberOf=lab)", "all (memberOf=staff)", "all (odd=1)", "all protected"}

func TestFirst(t *testing.T) {
	test(t, func(o *office) {
		o.add("root")
		o.protected = []string{"root"}
		o.add("old", "adminCount=1", "odd=1")
		o.add("poor", "mail=")
		o.pass()
		o.expect("alice: cloud", "ALICE: cloud", "bob: staff cloud", "carol: pupils cloud lab", "root:", "old: odd", "poor:", "nobody: unknown")
		o.expectSearches(append([]string{"all"}, allFilters...)...)
		s := o.Status()
		if !s.Kept || s.Pending || s.Error != "" || s.Accounts != 6 || !s.Made.Equal(time.Now()) || !s.AsOf.Equal(time.Now()) ||
			!maps.Equal(s.Policies, map[string]int{"default": 3, "staff": 1, "pupils": 1, "odd": 1}) || !maps.Equal(s.Targets, map[string]int{"cloud": 3, "lab": 1}) {
			t.Errorf("status is %+v", s)
		}
		made := s.Made
		o.later(time.Minute)
		if s := o.Status(); len(o.searched()) > 0 || !s.Made.Equal(made) || !s.AsOf.Equal(time.Now()) {
			t.Errorf("when nothing moves: %+v", s)
		}
	})
}

// The lowest precedence counts, which is the order of the rules.
func TestPrecedence(t *testing.T) {
	test(t, func(o *office) {
		o.groups["staff"] = append(o.groups["staff"], "carol")
		o.pass()
		o.expect("carol: staff cloud lab")
		if got, want := o.Status().Policies, map[string]int{"default": 1, "staff": 2, "pupils": 0, "odd": 0}; !maps.Equal(got, want) { // nobody's, too
			t.Errorf("policies are %v, want %v", got, want)
		}
		o.rules.Policies = slices.Clone(o.rules.Policies)
		slices.Reverse(o.rules.Policies)
		o.pass()
		o.expect("carol: pupils cloud lab", "bob: staff cloud")
	})
}

// An account's own change is asked about at once, and nobody else is.
func TestAccountsThatChange(t *testing.T) {
	test(t, func(o *office) {
		o.pass()
		o.searched()

		dave := o.add("dave", "odd=1")
		o.pass()
		o.expect("dave: odd cloud")
		o.expectSearches("dave (adminCount=1)", "dave (memberOf=lab)", "dave (memberOf=staff)", "dave (odd=1)", "dave protected", "moved from 4")

		dave.SAMAccountName = "david"
		o.touch(dave, 1)
		o.pass()
		o.expect("dave: unknown", "david: odd cloud")

		dave.DN = "CN=dave,OU=Pupils,DC=x"
		o.touch(dave, 1)
		o.pass()
		o.expect("david: pupils cloud")

		dave.Attributes["adminCount"] = "1"
		o.touch(dave, 7)
		o.pass()
		o.expect("david: pupils")

		o.remove("dave")
		o.pass()
		o.expect("david: unknown", "alice: cloud")

		alice := o.accounts["alice"]
		alice.Unreadable = errors.New("nonsense")
		o.touch(alice, 1)
		o.pass()
		o.expect("alice: unknown")
		o.searched()
		o.later(10 * time.Minute)
		o.expectSearches()
	})
}

func TestPasswordsDecideNothing(t *testing.T) {
	test(t, func(o *office) {
		o.pass()
		alice := o.accounts["alice"]
		for _, written := range [][]uint32{{dsdb.AttIDUnicodePwd, dsdb.AttIDSupplementalCredentials, 0x00090060}, {0x000906A0}} {
			o.searched()
			o.touch(alice, written...)
			o.pass()
			o.expectSearches(fmt.Sprintf("moved from %d", o.usn))
		}
		// With another attribute, or where only a link was written, he is asked about.
		for _, written := range [][]uint32{{dsdb.AttIDUnicodePwd, 8}, nil} {
			o.touch(alice, written...)
			o.pass()
			if got := o.searched(); len(got) != 6 {
				t.Errorf("searched %q", got)
			}
		}
		// Unless a filter asks for it.
		o.rules.Policies = append(slices.Clone(o.rules.Policies), Policy{"new", "", "(pwdLastSet=0)"})
		o.pass()
		o.searched()
		o.touch(alice, 0x00090060)
		o.pass()
		if got := o.searched(); !slices.Contains(got, "alice (pwdLastSet=0)") {
			t.Errorf("searched %q", got)
		}
	})
}

func TestGroups(t *testing.T) {
	test(t, func(o *office) {
		o.slow = 100 * time.Millisecond
		o.pass()
		o.searched()
		time.Sleep(time.Minute)
		o.join("staff", "alice")
		o.slow = 2 * time.Second
		o.pass()
		o.expect("alice: staff cloud")
		// Of all filters but (odd=1), which is nobody's turn: all have a policy that goes before.
		o.expectSearches("all (adminCount=1)", "all (memberOf=lab)", "all (memberOf=staff)", "all protected", "moved from 4")

		// Four searches have taken eight seconds: the next time is eighty seconds off, and accounts' own changes do not wait.
		o.slow = 0
		o.groups["staff"] = []string{"bob"}
		o.join("lab", "alice")
		o.pass()
		if !o.Status().Pending {
			t.Error("nothing is pending")
		}
		o.later(50 * time.Second)
		o.add("dave")
		o.pass()
		o.expect("alice: staff cloud", "dave: cloud")
		o.later(80 * time.Second)
		o.expect("alice: cloud lab")
		if o.Status().Pending {
			t.Error("something is pending")
		}

		// A group that is deleted had members.
		o.groups["lab"] = nil
		o.other(directory.Other{Classes: []string{"top", "group"}, Deleted: true})
		o.later(10 * time.Second)
		o.expect("alice: cloud", "carol: pupils cloud")
	})
}

// What asks for no groups, and for no place, does not look when they change.
func TestChangesThatDoNotMatter(t *testing.T) {
	test(t, func(o *office) {
		routes, err := route.New([]route.Target{{Name: "cloud", UserAttribute: "mail"}}, route.Scope{Protected: true})
		if err != nil {
			t.Fatal(err)
		}
		o.Routes = routes
		o.rules.Policies = []Policy{{"odd", "", "(odd=1)"}}
		o.pass()
		o.searched()
		o.join("staff", "alice")
		o.other(directory.Other{Classes: []string{"top", "organizationalUnit"}})
		o.other(directory.Other{Classes: []string{"top", "person", "user", "computer"}})
		o.later(time.Minute)
		o.expectSearches("moved from 4")

		// But once an hour, for filters can ask for what nobody thought of.
		o.later(time.Hour)
		o.expectSearches("all (odd=1)")
		o.later(2 * time.Hour)
		o.expectSearches()
	})
}

func TestUnitRenamed(t *testing.T) {
	test(t, func(o *office) {
		o.pass()
		o.searched()
		o.accounts["alice"].DN = "CN=alice,OU=Pupils,DC=x"
		o.other(directory.Other{DN: "OU=Pupils,DC=x", Classes: []string{"top", "organizationalUnit"}})
		o.later(10 * time.Second)
		o.expect("alice: pupils cloud")
		if got := o.searched(); !slices.Contains(got, "all") {
			t.Errorf("searched %q", got)
		}
	})
}

func TestManyChanges(t *testing.T) {
	test(t, func(o *office) {
		o.pass()
		time.Sleep(time.Minute)
		o.searched()
		for i := range singly + 1 {
			o.add(fmt.Sprint("new", i))
		}
		o.pass()
		o.expectSearches(append(slices.Clone(allFilters), "moved from 4")...)
		o.expect("new0: cloud", "new200: cloud")

		time.Sleep(time.Minute)
		o.many = true
		o.add("late")
		o.pass()
		o.expectSearches(append([]string{"all"}, append(slices.Clone(allFilters), "moved from 205")...)...)
		o.expect("late: cloud")

		// A restore, and a database that went back.
		o.many = false
		time.Sleep(time.Minute)
		o.invocation = dsdb.GUID{2}
		o.accounts["alice"].Attributes["odd"] = "1"
		o.pass()
		o.expect("alice: odd cloud")
		time.Sleep(time.Minute)
		delete(o.accounts, "alice")
		o.changes, o.usn = o.changes[:3], 3
		o.pass()
		o.expect("alice: unknown", "bob: staff cloud")

		// One that went back and has come as far again: the watch has seen it.
		times := int64(0)
		o.WentBack = func() int64 { return times }
		time.Sleep(time.Minute)
		o.pass()
		o.searched()
		delete(o.accounts, "carol")
		time.Sleep(time.Minute)
		o.pass()
		o.expectSearches()
		times++
		time.Sleep(time.Minute)
		o.pass()
		o.expect("carol: unknown")
		o.searched()
		time.Sleep(time.Minute)
		o.pass()
		o.expectSearches()
	})
}

func TestRefusedFilter(t *testing.T) {
	for _, refusal := range []error{errors.New("LDAP result 11"), fmt.Errorf("asking: %w", directory.ErrUnavailable)} {
		test(t, func(o *office) {
			o.pass()
			o.join("staff", "alice")
			o.refuse, o.err = "all (memberOf=staff)", refusal
			for range 100 {
				time.Sleep(Every)
				if err := o.Pass(t.Context(), o.domain); err != nil && !errors.Is(err, directory.ErrUnavailable) {
					t.Fatal(err)
				}
			}
			// The last file stays in force, that is said once, and others are still asked about.
			o.expect("alice: cloud", "bob: staff cloud")
			if n := strings.Count(o.log.String(), "census-trouble"); n != 1 {
				t.Errorf("said %d times:\n%s", n, o.log.String())
			}
			if s := o.Status(); s.Error == "" || !s.Pending {
				t.Errorf("status is %+v", s)
			}
			o.searched()
			o.add("dave")
			o.pass()
			o.expect("dave: cloud")
			if n := len(o.searched()); n != 6 {
				t.Errorf("%d searches: a filter that is refused is asked again at once", n)
			}
			o.refuse = ""
			o.later(2 * time.Minute)
			o.expect("alice: staff cloud")
			if s := o.Status(); s.Error != "" || s.Pending || !strings.Contains(o.log.String(), "census-up") {
				t.Errorf("status is %+v; log:\n%s", s, o.log.String())
			}
		})
	}
}

func TestDirectoryAway(t *testing.T) {
	test(t, func(o *office) {
		o.pass()
		o.refuse, o.err = "root", directory.ErrUnavailable
		if err := o.Pass(t.Context(), o.domain); !errors.Is(err, directory.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		if s := o.Status(); s.Error == "" || strings.Contains(o.log.String(), "census-trouble") {
			t.Errorf("status is %+v; log:\n%s", s, o.log.String())
		}
		o.refuse = ""
		o.add("dave")
		o.pass()
		o.expect("dave: cloud")
		if s := o.Status(); s.Error != "" {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestRulesChange(t *testing.T) {
	test(t, func(o *office) {
		o.pass()
		o.rulesErr = errors.New("F:3: policy.staff.filter: nonsense")
		o.add("dave")
		o.later(time.Minute)
		o.expect("bob: staff cloud", "dave: cloud")
		if s := o.Status(); s.Error == "" || strings.Count(o.log.String(), "census-trouble") != 1 {
			t.Errorf("status is %+v; log:\n%s", s, o.log.String())
		}
		o.rulesErr = nil
		o.rules.Policies = []Policy{{"staff", "", "(odd=1"}} // not what config lets through
		o.later(time.Minute)
		o.expect("bob: staff cloud")

		// What is new is never mixed with what was: as long as the new filters are not answered, the old file stays.
		before := []Policy{{"staff", "", "(memberOf=staff)"}, {"pupils", "OU=Pupils,DC=x", ""}, {"odd", "OU=People,DC=x", "(odd=1)"}}
		o.refuse, o.err = "all (memberOf=lab)", errors.New("busy")
		for i, policies := range [][]Policy{append([]Policy{{"others", "", "(memberOf=lab)"}}, before...), {{"others", "", "(memberOf=lab)"}}} {
			o.rules.Policies = policies
			o.later(10 * time.Second)
			o.add(fmt.Sprint("eve", i))
			o.later(10 * time.Second)
			o.expect("bob: staff cloud", "carol: pupils cloud lab", "eve0: unknown", "eve1: unknown")
			if s := o.Status().Error; !strings.Contains(s, "busy") {
				t.Errorf("status says %q", s)
			}
		}
		o.refuse = ""
		o.later(2 * time.Minute)
		o.expect("bob: cloud", "carol: others cloud lab", "eve0: cloud", "eve1: cloud")
		ix, err := index.Open(o.File)
		if err != nil {
			t.Fatal(err)
		}
		defer ix.Close()
		if !slices.Equal(ix.Policies(), []string{"others"}) || !slices.Equal(ix.Targets(), []string{"cloud", "lab"}) {
			t.Errorf("the index is of %q and %q", ix.Policies(), ix.Targets())
		}
	})
}

// Where the hook asks for nothing, nothing is asked of the DC.
func TestNotWanted(t *testing.T) {
	test(t, func(o *office) {
		o.rules.Wanted = false
		o.later(time.Minute)
		if _, err := os.Stat(o.File); len(o.asked) > 0 || err == nil || o.Status().Kept {
			t.Errorf("asked %q; %v, %+v", o.asked, err, o.Status())
		}
		o.rules.Wanted = true
		o.pass()
		o.expect("bob: staff cloud")
	})
}

func TestDiskFull(t *testing.T) {
	test(t, func(o *office) {
		o.pass()
		file := o.File
		o.File = filepath.Join(t.TempDir(), "missing", "index")
		o.add("dave")
		o.later(time.Minute)
		if s := o.Status(); s.Error == "" || strings.Count(o.log.String(), "census-trouble") != 1 {
			t.Errorf("status is %+v; log:\n%s", s, o.log.String())
		}
		o.File = file
		o.pass()
		o.expect("dave: cloud")
		if s := o.Status(); s.Error != "" || !strings.Contains(o.log.String(), "census-up") {
			t.Errorf("status is %+v; log:\n%s", s, o.log.String())
		}
	})
}
