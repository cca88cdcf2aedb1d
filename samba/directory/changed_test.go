package directory

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// ledger is a domain's accounts by the USN of their last change, as far as Changed asks for it.
type ledger struct {
	t       *testing.T
	highest uint64
	usn     map[string]uint64 // by name
	dead    map[string]bool
	asked   []search
	before  func(s search) // something happens just before a search is answered
	spoil   func(name string, e *ldap.Entry)
}

func newLedger(t *testing.T, names ...string) *ledger {
	l := &ledger{t: t, highest: 1000, usn: map[string]uint64{}, dead: map[string]bool{}}
	for _, name := range names {
		l.touch(name)
	}
	return l
}

func (l *ledger) touch(name string) {
	l.highest++
	l.usn[name] = l.highest
}

func (l *ledger) dial() *DC {
	return dialFake(l.t, &fake{answer: l.answer, highest: func() uint64 { return l.highest }})
}

func (l *ledger) answer(s search) *reply {
	l.asked = append(l.asked, s)
	if l.before != nil {
		l.before(s)
	}
	r := &reply{}
	for name, usn := range l.usn {
		scan := strings.Contains(s.filter, UserAccounts) || strings.HasPrefix(s.base, "<WKGUID=")
		found := strings.Contains(s.filter, fmt.Sprintf("(uSNChanged=%d)", usn)) && (s.deleted || !l.dead[name])
		if scan && (strings.HasPrefix(s.base, "<WKGUID=") == l.dead[name]) {
			_, from, _ := strings.Cut(s.filter, "uSNChanged>=")
			n, _ := strconv.ParseUint(strings.TrimRight(from, ")"), 10, 64)
			found = usn >= n
		}
		if found {
			r.entries = append(r.entries, l.entry(name, usn))
		}
	}
	return r
}

func (l *ledger) entry(name string, usn uint64) *ldap.Entry {
	e := user(l.t, name, name[0])
	e.Attributes = append(e.Attributes, ldap.NewEntryAttribute("objectClass", []string{"top", "person", "organizationalPerson", "user"}))
	switch {
	case l.dead[name]:
		e.Attributes = append(e.Attributes, ldap.NewEntryAttribute("isDeleted", []string{"TRUE"}))
	case strings.HasPrefix(name, "group"):
		e.Attributes = append(e.Attributes, ldap.NewEntryAttribute("sAMAccountType", []string{"268435456"}))
	default:
		e.Attributes = append(e.Attributes, ldap.NewEntryAttribute("sAMAccountType", []string{strconv.Itoa(dsdb.SAMUserObject)}))
	}
	for _, a := range e.Attributes {
		if a.Name == "uSNChanged" {
			*a = *ldap.NewEntryAttribute("uSNChanged", []string{strconv.FormatUint(usn, 10)})
		}
	}
	if l.spoil != nil {
		l.spoil(name, e)
	}
	return e
}

// changed collects what Changed tells: "name" or "name gone", sorted, each once.
func (l *ledger) changed(dc *DC, from uint64) []string {
	l.t.Helper()
	var got []string
	err := dc.Changed(l.t.Context(), from, []string{"mail"}, func(a Account) error {
		if a.Attributes["mail"] == "" {
			l.t.Errorf("%v came without its attributes", a)
		}
		got = append(got, a.SAMAccountName)
		return nil
	}, func(_ dsdb.GUID, name string) error {
		got = append(got, name+" gone")
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	slices.Sort(got)
	return slices.Compact(got)
}

func (l *ledger) expect(got []string, want ...string) {
	l.t.Helper()
	if !slices.Equal(got, want) {
		l.t.Errorf("Changed tells %q, want %q", got, want)
	}
}

func TestChangedLooksUp(t *testing.T) {
	l := newLedger(t, "alice", "bob", "group1", "carol", "dave")
	l.dead["carol"] = true
	dc := l.dial()
	l.expect(l.changed(dc, l.usn["bob"]), "bob", "carol gone", "dave")
	if len(l.asked) != 1 || strings.Contains(l.asked[0].filter, ">=") || slices.Contains(l.asked[0].attrs, "unicodePwd") || l.asked[0].base != fakeBase {
		t.Errorf("asked %+v", l.asked)
	}
	l.expect(l.changed(dc, l.highest+1))

	for range 3 * lookupSize {
		l.touch("bob")
	}
	l.asked = nil
	l.expect(l.changed(dc, l.usn["alice"]), "alice", "bob", "carol gone", "dave")
	if len(l.asked) != 4 {
		t.Errorf("%d searches", len(l.asked))
	}
}

// Whoever changes between two searches, or between a search and the look at the highest USN, is found where he has gone.
func TestChangedWhileLookingUp(t *testing.T) {
	for when := range 5 {
		for _, jump := range []int{1, lookupSize - 5, lookupSize, 2 * lookupSize} {
			t.Run(fmt.Sprintf("before search %d by %d", when+1, jump), func(t *testing.T) {
				l := newLedger(t, "alice", "bob")
				from := l.usn["alice"]
				for range 2 * lookupSize {
					l.touch("carol")
				}
				l.before = func(search) {
					if len(l.asked) <= when+1 { // alice runs away before each of the first searches
						for range jump - 1 {
							l.touch("dave")
						}
						l.touch("alice")
					}
				}
				want := []string{"alice", "bob", "carol"}
				if jump > 1 {
					want = append(want, "dave")
				}
				l.expect(l.changed(l.dial(), from), want...)
			})
		}
	}
}

// A directory that changes faster than it can be followed, or has changed very much, is read as a whole.
func TestChangedScans(t *testing.T) {
	alone := func(asked []search) bool {
		return slices.IndexFunc(asked, func(s search) bool { return strings.Contains(s.filter, UserAccounts) }) == 0
	}
	l := newLedger(t, "alice", "bob", "carol")
	l.dead["carol"] = true
	dc := l.dial()
	l.expect(l.changed(dc, 0), "alice", "bob", "carol gone")
	if !alone(l.asked) || !l.asked[0].paged || l.asked[0].filter != UserAccounts || slices.Contains(l.asked[0].attrs, "unicodePwd") {
		t.Errorf("from 0: asked %+v", l.asked)
	}

	from := l.usn["bob"]
	l.highest += lookupLimit
	l.asked = nil
	l.expect(l.changed(dc, from), "bob", "carol gone")
	if len(l.asked) != 3 || !alone(l.asked[1:]) { // the first look-up is made before it is known that there are so many
		t.Errorf("after very many changes: asked %+v", l.asked)
	}

	l = newLedger(t, "alice", "bob")
	from = l.usn["alice"]
	l.before = func(search) {
		for range lookupSize {
			l.touch("bob")
		}
	}
	l.expect(l.changed(l.dial(), from), "alice", "bob")
	if n := len(l.asked); n != lookupLimit/lookupSize+2 {
		t.Errorf("in a hurry: asked %d times", n)
	}
}

func TestChangedPages(t *testing.T) {
	broken := false
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		switch {
		case strings.HasPrefix(s.base, "<WKGUID="):
			return &reply{}
		case s.cookie == "":
			return &reply{entries: []*ldap.Entry{user(t, "alice", 1), user(t, "bob", 2)}, cookie: "next"}
		case broken:
			return &reply{code: ldap.LDAPResultOther}
		}
		return &reply{entries: []*ldap.Entry{user(t, "carol", 3)}}
	}})
	var names []string
	each := func(a Account) error { names = append(names, a.SAMAccountName); return nil }
	if err := dc.Changed(t.Context(), 0, nil, each, nil); err != nil || strings.Join(names, " ") != "alice bob carol" {
		t.Errorf("Changed gives %q, %v", names, err)
	}
	broken = true
	if err := dc.Changed(t.Context(), 0, nil, each, nil); !ldap.IsErrorWithCode(err, ldap.LDAPResultOther) {
		t.Errorf("Changed = %v, want the second page's error", err)
	}
}

func TestChangedStops(t *testing.T) {
	stop := errors.New("stop")
	for _, from := range []uint64{0, 1001} {
		l := newLedger(t, "alice", "bob")
		dc := l.dial()
		living := func(Account) error { return stop }
		dead := func(dsdb.GUID, string) error { return stop }
		if err := dc.Changed(t.Context(), from, nil, living, dead); err != stop {
			t.Errorf("from %d: %v, want the callback's error", from, err)
		}
		l.dead["alice"], l.dead["bob"] = true, true
		if err := dc.Changed(t.Context(), from, nil, living, dead); err != stop {
			t.Errorf("from %d, all dead: %v, want the callback's error", from, err)
		}
	}
}

func TestKnown(t *testing.T) {
	l := newLedger(t)
	var asked search
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		asked = s
		l.dead["bob"] = true
		return &reply{entries: []*ldap.Entry{l.entry("alice", 1001), l.entry("bob", 1002)}}
	}})
	var got []string
	err := dc.Known(t.Context(), []dsdb.GUID{{1, 0x2a, 15: 0xff}, {2}}, func(a Account) error { got = append(got, a.SAMAccountName); return nil },
		func(_ dsdb.GUID, name string) error { got = append(got, name+" gone"); return nil })
	if err != nil || !slices.Equal(got, []string{"alice", "bob gone"}) {
		t.Errorf("told of %q, %v", got, err)
	}
	if !asked.deleted || strings.Contains(strings.Join(asked.attrs, " "), "unicodePwd") {
		t.Errorf("asked %+v", asked)
	}
	err = dc.Known(t.Context(), nil, nil, nil)
	if err != nil {
		t.Error(err)
	}
}

// An account that cannot be decoded is told of as such, in either way of looking, and delays no other.
func TestChangedUnreadable(t *testing.T) {
	late := make([]byte, 16+48) // its time is after the year 9999
	late[0], late[8] = 1, 1
	copy(late[16+8:], "\xff\xff\xff\xff\xff\xff\xff\xff")
	for _, c := range []struct{ name, attribute, value string }{
		{"metadata", "replPropertyMetaData", string(late)},
		{"identity", "objectGUID", "short"},
		{"deleted", "objectGUID", "short"},
	} {
		for _, from := range []uint64{0, 1001} {
			l := newLedger(t, "alice", "bob", "carol")
			l.dead["alice"] = c.name == "deleted"
			l.spoil = func(name string, e *ldap.Entry) {
				for _, a := range e.Attributes {
					if name == "alice" && a.Name == c.attribute {
						*a = *ldap.NewEntryAttribute(a.Name, []string{c.value})
					}
				}
			}
			var sound, odd []string
			err := l.dial().Changed(t.Context(), from, nil, func(a Account) error {
				switch {
				case a.Unreadable == nil:
					sound = append(sound, a.SAMAccountName)
				case !strings.Contains(a.Unreadable.Error(), c.attribute) || a.DN == "" || !a.Stamp.IsZero() || a.GUID.IsZero() != (c.attribute == "objectGUID"):
					t.Errorf("%s from %d: %+v, %v", c.name, from, a, a.Unreadable)
				default:
					odd = append(odd, a.SAMAccountName)
				}
				return nil
			}, func(_ dsdb.GUID, name string) error {
				t.Errorf("%s from %d: %s is gone", c.name, from, name)
				return nil
			})
			slices.Sort(sound)
			if err != nil || !slices.Equal(sound, []string{"bob", "carol"}) || !slices.Equal(odd, []string{"alice"}) {
				t.Errorf("%s from %d: %q can be read and %q cannot, %v", c.name, from, sound, odd, err)
			}
		}
	}
}
