package ledger

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// wanted is the agent's decision about a stamp: these targets want the account, all for one reason.
func wanted(n byte, version int, reason change.Reason, targets ...string) change.Sighting {
	s := sighting(n, version)
	s.Wanted = &change.Wanted{DC: "DC1"}
	for _, name := range targets {
		r := change.WantedRoute{Route: change.Route{Target: name, User: account(n).SAMAccountName}, Reason: reason, Detail: "of " + string(reason)}
		s.Wanted.Routes = append(s.Wanted.Routes, r)
	}
	return s
}

// all returns all gaps, by target, account and reason.
func all(t *testing.T, l *Ledger) (gaps []Gap) {
	t.Helper()
	if err := l.Gaps(func([]dsdb.GUID) {}, func(g Gap) error { gaps = append(gaps, g); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(gaps, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(a.Account.SAMAccountName, b.Account.SAMAccountName), cmp.Compare(a.Target, b.Target))
	})
	return gaps
}

// lacking lists the gaps, and checks that what is kept in memory says the same.
func lacking(t *testing.T, l *Ledger) []string {
	t.Helper()
	gaps := all(t, l)
	list, kept := []string{}, []string{}
	for _, g := range gaps {
		list = append(list, fmt.Sprintf("%s %s@%d %s", g.Target, g.Account.SAMAccountName, g.Stamp.Version, g.Reason))
		if g.User != g.Account.SAMAccountName || g.Account.SAMAccountName == "" {
			t.Errorf("%+v", g)
		}
	}
	l.EachGap(func(guid dsdb.GUID, target string, reason change.Reason) {
		at := slices.IndexFunc(gaps, func(g Gap) bool { return g.Account.GUID == guid && g.Target == target && g.Reason == reason })
		if at < 0 {
			t.Errorf("in memory %s lacks account %v for %s", target, guid, reason)
			return
		}
		kept = append(kept, list[at])
	})
	if len(kept) != len(list) {
		t.Errorf("in memory %q, on disk %q", kept, list)
	}
	return list
}

// What the agent asked before an account was deleted, or the directory went back, may be told after that.
func TestAskedAboutBefore(t *testing.T) {
	back := sighting(2, 2)
	back.Reset = true
	l := temp(t)
	see(t, l, at(90), sighting(1, 3), sighting(2, 3))
	see(t, l, at(100), change.Sighting{Account: account(1), Gone: true}, back)
	see(t, l, at(99), wanted(1, 3, change.NotCaptured, "a"), wanted(2, 3, change.NotCaptured, "a"))
	if got := lacking(t, l); len(got) > 0 {
		t.Errorf("%q", got)
	}
	if _, _, n := versions(t, l, "a", 1); n != 0 {
		t.Errorf("the deleted account has version %d", n)
	}
	if _, _, n := versions(t, l, "a", 2); n != 2 {
		t.Errorf("the directory went back to version 2, and has %d", n)
	}
	see(t, l, at(101), wanted(1, 4, change.NotCaptured, "a"), wanted(2, 2, change.NotCaptured, "a"))
	want := []string{"a user1@4 not-captured", "a user2@2 not-captured"}
	if got := lacking(t, l); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestGaps(t *testing.T) {
	const off, lost, nowhere = change.ComplexityOff, change.Lost, change.NotCaptured
	gone := change.Sighting{Account: account(1), Gone: true}
	back := sighting(1, 2)
	back.Reset = true
	type step any // an Entry or a change.Sighting
	for _, c := range []struct {
		name  string
		steps []step
		want  []string
	}{
		{"nothing is known", nil, nil},
		{"only seen", []step{sighting(1, 3)}, nil},
		{"wanted by two", []step{sighting(1, 3), wanted(1, 3, off, "a", "b")}, []string{"a user1@3 complexity-off", "b user1@3 complexity-off"}},
		{"decided before it was seen", []step{wanted(1, 3, off, "a")}, []string{"a user1@3 complexity-off"}},
		{"unwanted", []step{wanted(1, 3, off)}, nil},
		{"an old decision comes late", []step{sighting(1, 4), wanted(1, 3, off, "a")}, nil},
		{"a newer password", []step{wanted(1, 3, off, "a"), sighting(1, 4)}, nil},
		{"deleted", []step{wanted(1, 3, off, "a"), gone}, nil},
		{"the directory went back", []step{wanted(1, 3, off, "a"), back}, nil},
		{"delivered before", []step{outcome("a", 1, 3, target.Delivered), wanted(1, 3, lost, "a")}, nil},
		{"delivered after", []step{wanted(1, 3, lost, "a", "b"), outcome("a", 1, 3, target.Delivered)}, []string{"b user1@3 lost"}},
		{"an older one delivered", []step{outcome("a", 1, 2, target.Delivered), wanted(1, 3, off, "a")}, []string{"a user1@3 complexity-off"}},
		{"a newer one delivered", []step{wanted(1, 3, off, "a"), outcome("a", 1, 4, target.Delivered)}, nil},
		{"refused", []step{outcome("a", 1, 3, target.NoUser)}, []string{"a user1@3 no-user"}},
		{"refused and decided", []step{outcome("a", 1, 3, target.Rejected), wanted(1, 3, lost, "a")}, []string{"a user1@3 rejected"}},
		{"refused and not wanted any more", []step{outcome("a", 1, 3, Expired), wanted(1, 3, lost)}, nil},
		{"refused once, seen since", []step{outcome("a", 1, 3, target.NoUser), sighting(1, 4)}, nil},
		{"refused and deleted", []step{outcome("a", 1, 3, target.NoUser), gone}, nil},
		{"wanted since", []step{wanted(1, 3, lost, "a"), outcome("a", 1, 3, target.Delivered), wanted(1, 3, nowhere, "a", "b")}, []string{"b user1@3 wanted-since"}},
		{"wanted since, by the first", []step{wanted(1, 3, nowhere), wanted(1, 3, nowhere, "a")}, []string{"a user1@3 wanted-since"}},
		{"it stays so", []step{wanted(1, 3, nowhere), wanted(1, 3, nowhere, "a"), wanted(1, 3, nowhere, "a")}, []string{"a user1@3 wanted-since"}},
		{"never captured, and wanted since", []step{wanted(1, 3, off), wanted(1, 3, off, "a")}, []string{"a user1@3 complexity-off"}},
		{"not wanted any more", []step{wanted(1, 3, off, "a", "b"), wanted(1, 3, off, "b")}, []string{"b user1@3 complexity-off"}},
		{"the first reason stays", []step{wanted(1, 3, off, "a"), wanted(1, 3, nowhere, "a")}, []string{"a user1@3 complexity-off"}},
		{"a peer by configuration", []step{wanted(1, 3, change.AtOtherDC, "a"), wanted(1, 3, change.AtPeer, "a")}, []string{"a user1@3 peer"}},
		{"no peer any more", []step{wanted(1, 3, change.AtPeer, "a"), wanted(1, 3, change.AtOtherDC, "a", "b")}, []string{"a user1@3 other-dc", "b user1@3 other-dc"}},
		{"disabled later", []step{wanted(1, 3, off, "a"), wanted(1, 3, change.Disabled, "a")}, []string{"a user1@3 disabled"}},
		{"enabled again", []step{wanted(1, 3, change.Disabled, "a"), wanted(1, 3, nowhere, "a")}, []string{"a user1@3 wanted-since"}},
		{"temporary no more", []step{wanted(1, 3, change.Temporary, "a"), wanted(1, 3, off, "a")}, []string{"a user1@3 complexity-off"}},
		{"delivered, and disabled later", []step{outcome("a", 1, 3, target.Delivered), wanted(1, 3, change.Disabled, "a")}, nil},
		{"two accounts", []step{wanted(2, 1, off, "a"), wanted(1, 3, off, "a")}, []string{"a user1@3 complexity-off", "a user2@1 complexity-off"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			l, _ := open(t, path)
			for i, s := range c.steps {
				switch s := s.(type) {
				case Entry:
					record(t, l, s)
				case change.Sighting:
					see(t, l, at(100+i), s)
					see(t, l, at(100+i), s) // as after a crash
				}
			}
			for range 2 {
				if got := lacking(t, l); !slices.Equal(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l, _ = open(t, path)
			}
		})
	}
}

func TestGapsAreToldOnce(t *testing.T) {
	l := temp(t)
	told := func(s change.Sighting) (n int) { return len(see(t, l, start, s).Gaps) }
	for _, c := range []struct {
		s    change.Sighting
		want int
	}{
		{wanted(1, 3, change.NotCaptured, "a"), 1}, {wanted(1, 3, change.NotCaptured, "a"), 0}, {wanted(1, 3, change.NotCaptured, "a", "b"), 1}, {wanted(1, 3, change.NotCaptured), 0},
	} {
		if got := told(c.s); got != c.want {
			t.Errorf("%v: %d told, want %d", c.s.Wanted, got, c.want)
		}
	}
}

func TestGapDetails(t *testing.T) {
	l := temp(t)
	see(t, l, start, wanted(1, 3, change.ComplexityOff, "a", "b"))
	refused := outcome("b", 1, 3, target.NoUser)
	refused.Reason = "no such user"
	record(t, l, refused)
	renamed := wanted(1, 3, change.ComplexityOff, "a", "b")
	renamed.Account.SAMAccountName = "user1" // the user at the target stays
	renamed.Account.UserPrincipalName = "new@example.com"
	see(t, l, start, renamed)
	gaps := all(t, l)
	if len(gaps) != 2 {
		t.Fatalf("%+v", gaps)
	}
	a, b := gaps[0], gaps[1]
	if a.Detail != "of complexity-off" || a.DC != "DC1" || a.Seen.IsZero() || a.Account.UserPrincipalName != "new@example.com" {
		t.Errorf("%+v", a)
	}
	if b.Detail != "no such user" || b.DC != "DC1" || b.Reason != "no-user" {
		t.Errorf("%+v", b)
	}
}

// More than are read at a time, and all of them are told, until it is enough.
func TestManyGaps(t *testing.T) {
	l := temp(t)
	var everybody []change.Sighting
	for n := range 2*gapsAtATime + 1 {
		s := wanted(1, 3, change.BeforeInstallation, "a", "b")
		s.Account.GUID = dsdb.GUID{byte(n), byte(n >> 8), 1}
		everybody = append(everybody, s)
	}
	see(t, l, start, everybody...)
	told := map[dsdb.GUID]int{}
	for _, g := range all(t, l) {
		told[g.Account.GUID]++
	}
	for _, s := range everybody {
		if told[s.Account.GUID] != 2 {
			t.Fatalf("of account %s %d gaps are told", s.Account.GUID, told[s.Account.GUID])
		}
	}
	enough, n := errors.New("enough"), 0
	if err := l.Gaps(func([]dsdb.GUID) {}, func(Gap) error { n++; return enough }); err != enough || n != 1 {
		t.Errorf("%d are told, %v", n, err)
	}
}

// Damage costs what it hit, and nothing that is told is wrong.
func TestGapsAfterDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, _ := open(t, path)
	see(t, l, start, wanted(1, 3, change.HashOnly, "a"), wanted(2, 3, change.HashOnly, "a"))
	record(t, l, outcome("b", 1, 3, target.NoUser))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.ReplaceAll(b, []byte(`"user":"user1","reason":"hash-only"`), []byte(`"user":"user9","reason":"hash-only"`))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l, log := open(t, path)
	if got, want := lacking(t, l), []string{"b user1@3 no-user", "a user2@3 hash-only"}; !slices.Equal(got, want) || log.Counters()["values-damaged"] != 1 {
		t.Errorf("got %q, want %q; events %v", got, want, log.Counters())
	}
}

// After a directory that went back has been looked at as a whole, who was not seen there is gone, but for who came after the look began.
func TestWhole(t *testing.T) {
	l := temp(t)
	prove(t, l, proof(1, 5, 10, "a user1"), proof(2, 5, 10, "a user2"))
	back := sighting(1, 4)
	back.Reset = true
	for range 2 { // as after a crash
		see(t, l, at(20), back)
		see(t, l, at(20), change.Sighting{Whole: true})
	}
	if n := newestOf(t, l, 1); n.Stamp.Version != 4 || !n.Outdates(stamp(5), at(10)) {
		t.Errorf("seen: %+v", n)
	}
	if n := newestOf(t, l, 2); !n.Stamp.IsZero() || !n.Outdates(stamp(5), at(10)) {
		t.Errorf("not seen: %+v", n)
	}
	if n := newestOf(t, l, 2); n.Outdates(stamp(1), at(21)) {
		t.Errorf("made anew after the look began: %+v", n)
	}
	prove(t, l, proof(3, 1, 21, "a user3")) // is news of after the look began
	see(t, l, at(20), change.Sighting{Whole: true})
	if n := newestOf(t, l, 3); n.Outdates(stamp(1), at(21)) {
		t.Errorf("made after the look began: %+v", n)
	}
}
