package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// decided returns what has been passed on since the last call of who wants which password, in order; it takes the other sightings, too.
func (s *site) decided() (all []string) {
	s.Helper()
	for _, file := range s.list(s.outgoing, change.SightingsSuffix) {
		b, err := os.ReadFile(file)
		if err != nil {
			s.Fatal(err)
		}
		seen, err := change.ParseSightings(filepath.Base(file), b)
		if err != nil {
			s.Fatal(err)
		}
		for _, one := range seen {
			if one.Wanted == nil {
				continue
			}
			what := fmt.Sprintf("%s@%d", one.Account.SAMAccountName, one.Stamp.Version)
			if one.Wanted.DC != "" {
				what += " of " + one.Wanted.DC
			}
			for _, r := range one.Wanted.Routes {
				what += fmt.Sprintf(" %s:%s:%s", r.Target, r.User, r.Reason)
				if r.Detail != "" {
					what += " (" + r.Detail + ")"
				}
			}
			all = append(all, what)
		}
		if err := os.Remove(file); err != nil {
			s.Fatal(err)
		}
	}
	return all
}

func (s *site) expectDecided(want ...string) {
	s.Helper()
	if got := s.decided(); !slices.Equal(got, want) {
		s.Errorf("decided: %q, want %q; log:\n%s", got, want, s.log.String())
	}
}

// installed starts the agent in a domain that has been looked at as a whole.
func (s *site) installed() {
	s.Helper()
	s.start()
	s.after(10 * time.Minute)
	s.decided()
}

// enough is when a change has been followed up.
const enough = DefaultConfirmTimeout + 3*watchEvery

func TestReasons(t *testing.T) {
	byHash := func(s *site, alice dsdb.GUID) {
		s.update(alice, func(a *directory.Account) {
			a.NTHash, a.SupplementalCredentials = hash("new"), nil
			s.stampAnew(a)
		})
	}
	for name, c := range map[string]struct {
		change func(s *site, alice dsdb.GUID)
		want   string
	}{
		"captured": {func(s *site, alice dsdb.GUID) {
			s.hook("alice", "new")
			s.set(alice, "new")
		}, "alice@2 of DC1 cloud:alice@example.com:lost"},
		"captured for nobody": {func(s *site, alice dsdb.GUID) {
			s.update(alice, func(a *directory.Account) { delete(a.Attributes, "mail") })
			s.hook("alice", "new")
			s.set(alice, "new")
		}, "alice@2"},
		"wanted since": {func(s *site, alice dsdb.GUID) {
			s.update(alice, func(a *directory.Account) { delete(a.Attributes, "mail") })
			s.hook("alice", "new")
			s.set(alice, "new")
			s.after(time.Second)
			s.update(alice, func(a *directory.Account) { a.Attributes["mail"] = "al@example.com" })
		}, "alice@2 of DC1 cloud:al@example.com:wanted-since"},
		"not captured": {func(s *site, alice dsdb.GUID) { s.set(alice, "new") }, "alice@2 of DC1 cloud:alice@example.com:not-captured"},
		"hash only":    {byHash, "alice@2 of DC1 cloud:alice@example.com:hash-only"},
		"hash past all": {func(s *site, alice dsdb.GUID) {
			s.update(alice, func(a *directory.Account) {
				a.NTHash = hash("new")
				keys := a.MetaData[1]
				s.stampAnew(a)
				a.MetaData[1] = keys
			})
		}, "alice@2 of DC1 cloud:alice@example.com:hash-only"},
		"complexity off": {func(s *site, alice dsdb.GUID) {
			s.simple = true
			s.set(alice, "new")
		}, "alice@2 of DC1 cloud:alice@example.com:complexity-off (the domain)"},
		"complexity off in a PSO": {func(s *site, alice dsdb.GUID) {
			s.psos = map[dsdb.GUID]directory.FineGrained{alice: {Name: "Weak ones"}}
			s.set(alice, "new")
		}, "alice@2 of DC1 cloud:alice@example.com:complexity-off (password settings object Weak ones)"},
		"complexity off in the domain, on in a PSO": {func(s *site, alice dsdb.GUID) {
			s.simple = true
			s.psos = map[dsdb.GUID]directory.FineGrained{alice: {Name: "Strong ones", Complexity: true}}
			s.set(alice, "new")
		}, "alice@2 of DC1 cloud:alice@example.com:not-captured"},
		"by hash, and complexity off": {func(s *site, alice dsdb.GUID) {
			s.simple = true
			byHash(s, alice)
		}, "alice@2 of DC1 cloud:alice@example.com:hash-only"},
		"no hash stored": {func(s *site, alice dsdb.GUID) {
			s.storesNone = true
			s.hook("alice", "new")
			s.set(alice, "new")
		}, "alice@2 of DC1 cloud:alice@example.com:unprovable"},
		"elsewhere": {func(s *site, alice dsdb.GUID) {
			s.elsewhere(alice, dsdb.GUID{2})
		}, "alice@2 of DC2 cloud:alice@example.com:other-dc (DC2)"},
		"at a peer": {func(s *site, alice dsdb.GUID) {
			s.elsewhere(alice, dsdb.GUID{3})
		}, "alice@2 of DC3 cloud:alice@example.com:peer (DC3)"},
		"at a DC that is gone": {func(s *site, alice dsdb.GUID) {
			s.elsewhere(alice, dsdb.GUID{4})
		}, "alice@2 cloud:alice@example.com:other-dc (one that is not there any more, with the invocation ID 00000004-0000-0000-0000-000000000000)"},
		"elsewhere, before the installation": {func(s *site, alice dsdb.GUID) {
			s.elsewhere(alice, dsdb.GUID{3})
			s.update(alice, func(a *directory.Account) { a.Stamp.Time = a.Stamp.Time.Add(-time.Hour) })
		}, "alice@2 of DC3 cloud:alice@example.com:before-installation"},
		"excluded": {func(s *site, alice dsdb.GUID) {
			s.update(alice, func(a *directory.Account) { a.Attributes["admincount"] = "1" })
			s.set(alice, "new")
		}, "alice@2"},
		"nothing but a rename": {func(s *site, alice dsdb.GUID) {
			s.rename(alice, "alicia")
		}, "alicia@1 of DC1 cloud:alice@example.com:before-installation"},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(s *site) {
				s.controllers = []directory.Controller{{Name: "DC2", InvocationID: dsdb.GUID{2}}, {Name: "DC3", InvocationID: dsdb.GUID{3}}}
				s.peers = []string{"DC0", "dc3"}
				alice := s.create("alice", "old")
				s.after(time.Minute)
				s.installed()
				c.change(s, alice)
				s.after(DefaultConfirmTimeout - time.Second)
				s.expectDecided()
				s.after(10 * time.Second)
				s.expectDecided(c.want)
				s.after(10 * time.Minute)
				s.expectDecided()
				if n := s.agent.Status().Followup.Undecided; n != 0 {
					s.Errorf("%d are undecided", n)
				}
			})
		})
	}
}

// elsewhere commits a change that another DC originated.
func (s *site) elsewhere(guid, invocation dsdb.GUID) {
	s.set(guid, "new")
	s.update(guid, func(a *directory.Account) { a.Stamp.InvocationID = invocation })
}

func TestFollowupByKey(t *testing.T) {
	test(t, func(s *site) {
		s.storesNone, s.byKey = true, true
		alice := s.create("alice", "old")
		s.after(time.Minute)
		s.installed()
		s.set(alice, "new")
		s.after(enough)
		s.expectDecided("alice@2 of DC1 cloud:alice@example.com:not-captured")
	})
}

func TestBeforeInstallation(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		bob := s.create("bob", "old", "adminCount=1")
		nobody := s.create("nobody", "none")
		s.update(nobody, func(a *directory.Account) { a.NTHash, a.SupplementalCredentials = nil, nil })
		s.after(time.Minute)
		since := time.Now()
		s.start()
		s.after(enough)
		s.expectDecided("alice@1 of DC1 cloud:alice@example.com:before-installation", "bob@1", "nobody@1")
		if got := s.agent.Status().Followup; !got.Since.Equal(since) || got.Undecided != 0 {
			s.Errorf("status is %+v", got)
		}

		// It is not forgotten when the agent is installed again.
		s.stop()
		s.set(bob, "new")
		s.update(bob, func(a *directory.Account) { delete(a.Attributes, "admincount") })
		s.after(time.Hour)
		s.start()
		s.after(enough)
		s.expectDecided("bob@2 of DC1 cloud:bob@example.com:not-captured")
	})
}

// Who changes again is asked about when the time of that change is over; who changes otherwise, when it is over for the password.
func TestFollowupWaitsForTheLastChange(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.installed()
		s.set(alice, "new")
		s.after(time.Minute)
		s.set(alice, "newer")
		s.after(90 * time.Second)
		s.expectDecided()
		s.rename(alice, "alicia")
		s.after(35 * time.Second)
		s.expectDecided("alicia@3 of DC1 cloud:alice@example.com:not-captured")
	})
}

// A crash before an account has been asked about forgets nobody.
func TestFollowupAfterARestart(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		bob := s.create("bob", "old")
		s.after(time.Minute)
		s.start()
		s.after(time.Minute)
		s.stop()
		s.start()
		s.after(enough)
		s.expectDecided("alice@1 of DC1 cloud:alice@example.com:before-installation", "bob@1 of DC1 cloud:bob@example.com:before-installation")

		s.set(alice, "new")
		s.after(110 * time.Second)
		s.set(bob, "new")
		s.after(20 * time.Second) // the position has been saved meanwhile
		s.expectDecided("alice@2 of DC1 cloud:alice@example.com:not-captured")
		s.stop()
		scans := len(s.scans)
		s.start()
		s.after(enough)
		got := s.decided()
		if !slices.Contains(got, "bob@2 of DC1 cloud:bob@example.com:not-captured") {
			s.Errorf("%q", got)
		}
		if slices.Contains(s.scans[scans:], 0) {
			s.Error("the whole domain was read again")
		}
	})
}

func TestFollowupWhileTheDCIsDown(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.installed()
		s.set(alice, "new")
		s.after(time.Minute)
		s.setDown(true)
		s.after(time.Hour)
		s.expectDecided()
		s.setDown(false)
		s.after(5 * time.Second)
		s.expectDecided("alice@2 of DC1 cloud:alice@example.com:not-captured")
	})
}

// An account about which the DC refuses to answer delays no other, and is asked about again.
func TestFollowupRefused(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		bob := s.create("bob", "old")
		s.installed()
		s.refuses = map[string]bool{alice.String(): true}
		s.set(alice, "new")
		s.set(bob, "new")
		s.after(time.Hour)
		s.expectDecided("bob@2 of DC1 cloud:bob@example.com:not-captured")
		s.expectEvents(map[string]uint64{"agent-trouble": 1})
		s.mu.Lock()
		delete(s.refuses, alice.String())
		s.mu.Unlock()
		s.after(enough)
		s.expectDecided("alice@2 of DC1 cloud:alice@example.com:not-captured")
	})
}

// What cannot be told of any account is said once, not for each; none is taken for refused, or for deleted.
func TestFollowupOfAnUnreadableDomain(t *testing.T) {
	for name, known := range map[string]bool{"controllers": false, "password settings": true} {
		for _, unreadable := range []error{errors.New("LDAP result 80"), directory.ErrNotFound} {
			t.Run(name+", "+unreadable.Error(), func(t *testing.T) {
				test(t, func(s *site) {
					var all []dsdb.GUID
					var want []string
					for n := range 2 * 100 {
						who := fmt.Sprintf("user%03d", n)
						all = append(all, s.create(who, "old"))
						want = append(want, fmt.Sprintf("%s@2 of DC1 cloud:%s@example.com:not-captured", who, who))
					}
					if known {
						s.installed()
					} else {
						s.start()
						s.after(ms)
					}
					s.mu.Lock()
					s.unreadable = unreadable
					s.mu.Unlock()
					for _, guid := range all {
						s.set(guid, "new")
					}
					s.after(10 * time.Minute)
					s.expectDecided()
					s.expectEvents(map[string]uint64{"agent-trouble": 1})
					if n := s.agent.Status().Followup.Undecided; n != len(all) {
						s.Errorf("%d are undecided, want %d", n, len(all))
					}
					s.mu.Lock()
					s.unreadable = nil
					s.mu.Unlock()
					s.after(10 * time.Second)
					s.expectDecided(want...)
				})
			})
		}
	}
}

// Without a target nobody is asked about, whoever changes; a capture from before is shredded. A target that comes has all of them looked at.
func TestFollowupWithoutATarget(t *testing.T) {
	test(t, func(s *site) {
		before := s.routes
		var err error
		if s.routes, err = route.New(nil, route.Scope{}); err != nil {
			s.Fatal(err)
		}
		alice := s.create("alice", "old")
		s.hook("alice", "new")
		s.set(alice, "new")
		s.installed()
		s.set(alice, "newer")
		s.after(enough)
		s.expectDecided()
		s.expectWaiting(0)
		if n := s.agent.Status().Followup.Undecided; n != 0 {
			s.Errorf("%d are undecided", n)
		}
		s.stop()
		s.routes = before
		s.start()
		s.after(enough)
		s.expectDecided("alice@3 of DC1 cloud:alice@example.com:not-captured")
	})
}

func TestDeletedIsNotFollowedUp(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.installed()
		s.set(alice, "new")
		s.after(time.Minute)
		s.remove(alice)
		s.after(time.Second)
		if n := s.agent.Status().Followup.Undecided; n != 0 {
			s.Errorf("%d are undecided", n)
		}
		s.after(enough)
		s.expectDecided()
	})
}

// All accounts are asked about again when the configuration has changed, and once a day, for a group's new member does not change.
func TestLookAtAll(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.after(time.Minute)
		s.installed()
		other, err := route.New([]route.Target{{Name: "other", UserAttribute: "sAMAccountName"}}, route.Scope{})
		if err != nil {
			s.Fatal(err)
		}
		s.stop()
		s.routes = other
		s.start()
		s.after(time.Minute)
		s.stop() // before it is done
		s.start()
		s.after(enough)
		s.expectDecided("alice@1 of DC1 other:alice:before-installation")
		s.stop()
		s.peers = []string{"DC9"}
		s.start()
		s.after(enough)
		s.expectDecided("alice@1 of DC1 other:alice:before-installation")

		s.stop()
		s.after(23 * time.Hour)
		s.start()
		s.after(enough)
		s.expectDecided()
		s.mu.Lock()
		s.accounts[alice].SAMAccountName = "alicia" // without moving the USN
		s.mu.Unlock()
		s.after(time.Hour)
		s.expectDecided("alicia@1 of DC1 other:alicia:before-installation")
	})
}

// doze lets time pass, and 90 minutes, at little cost: a DC that takes an hour for each search is asked little.
func (s *site) doze(d time.Duration) {
	s.slow(time.Hour)
	s.after(d)
	s.slow(0)
	s.after(90 * time.Minute)
}

// A look at all accounts that takes minutes holds up neither the mark nor what is told of those who change meanwhile.
func TestLookAtAllBesideTheWatch(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.after(time.Minute)
		s.installed()
		s.mu.Lock()
		s.paging = 5 * time.Minute
		scans := len(s.scans)
		s.mu.Unlock()
		s.doze(22 * time.Hour)
		for range 60 {
			s.after(time.Minute)
			if age := time.Since(s.mark().AsOf); age > 2*watchEvery {
				s.Fatalf("the mark is %v old", age)
			}
			s.mu.Lock()
			begun := slices.Contains(s.scans[scans:], 0)
			s.mu.Unlock()
			if begun && s.stamp(alice).Version == 1 {
				s.set(alice, "new")
			}
		}
		s.expectDecided("alice@2 of DC1 cloud:alice@example.com:not-captured")
	})
}

// An account about which the DC never answers does not hold up the look at all of them, and so not the next one.
func TestLookAtAllButOne(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		bob := s.create("bob", "old")
		s.refuses = map[string]bool{alice.String(): true}
		s.after(time.Minute)
		s.installed()
		s.mu.Lock()
		s.accounts[bob].SAMAccountName = "bobby" // without moving the USN
		s.mu.Unlock()
		s.doze(25 * time.Hour)
		s.expectDecided("bobby@1 of DC1 cloud:bob@example.com:before-installation")
	})
}

// The agent ends before all accounts of a directory that went back were asked about.
func TestLookAtAllOfARestoredDirectory(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		s.after(time.Minute)
		s.installed()
		s.mu.Lock()
		s.invocation = dsdb.GUID{0xdd}
		s.mu.Unlock()
		s.after(time.Minute)
		s.stop()
		s.start()
		s.after(enough + lookEvery)
		s.expectDecided("alice@1 cloud:alice@example.com:before-installation")
	})
}

// It goes back while a look at all accounts is not done, which does not count for one at what it holds now.
func TestRestoredDuringALookAtAll(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.after(time.Minute)
		s.start()
		s.after(time.Minute) // all are seen, and nobody is asked about
		s.mu.Lock()
		s.invocation, s.paging = dsdb.GUID{0xdd}, 5*time.Minute
		s.mu.Unlock()
		s.set(alice, "restored")
		s.after(4 * time.Minute) // all that were seen before are asked about
		s.decided()
		s.after(2 * time.Minute) // all are seen anew
		s.stop()
		s.mu.Lock()
		s.paging = 0
		s.mu.Unlock()
		s.start()
		s.after(enough + lookEvery)
		s.expectDecided("alice@2 of DC1 cloud:alice@example.com:not-captured")
	})
}

// An account that is deleted while others are asked about is not told of any more: the forwarder would take it for one that came back.
func TestDeletedWhileAskedAbout(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.installed()
		s.set(alice, "new")
		for n := range 20 {
			s.create(fmt.Sprint("user", n), "old")
		}
		s.after(DefaultConfirmTimeout - time.Second)
		s.decided()
		s.slow(50 * ms)
		before, _, _ := s.counts()
		for looks := before; looks < before+2; looks, _, _ = s.counts() {
			s.after(10 * ms)
		}
		s.remove(alice)
		s.after(time.Minute)
		got := s.decided()
		if len(got) != 20 || slices.ContainsFunc(got, func(told string) bool { return strings.HasPrefix(told, "alice") }) {
			s.Errorf("%q", got)
		}
	})
}

// 20,000 accounts at the first start are asked about a hundred a second, and whoever changes meanwhile goes first.
func TestFollowupOfManyAccounts(t *testing.T) {
	const many = 20_000
	test(t, func(s *site) {
		for n := range many {
			s.create(fmt.Sprint("user", n), "old")
		}
		s.after(time.Minute)
		s.start()
		s.after(DefaultConfirmTimeout - 100*time.Second)
		late := s.create("late", "old")
		s.after(110 * time.Second)
		if n := s.agent.Status().Followup.Undecided; n < many-1200 || n > many-900 {
			s.Errorf("10 s after their time, %d of %d are undecided", n, many)
		}
		s.decided()
		s.after(92 * time.Second)
		if got := s.decided(); !slices.Contains(got, "late@1 of DC1 cloud:late@example.com:not-captured") {
			s.Error("who changed meanwhile has not been asked about")
		}
		s.hook("late", "new")
		s.set(late, "new")
		s.after(10 * ms)
		s.expect("late=new")
		s.after(10 * time.Second)
		s.remove(late)
		s.after(200 * time.Second)
		if n := s.agent.Status().Followup.Undecided; n != 0 {
			s.Errorf("%d are undecided", n)
		}
	})
}

// In an old domain, passwords were changed at domain controllers that are not there any more. Those that are, are not listed for each.
func TestChangedWhereNoDCIs(t *testing.T) {
	const many, gone = 300, 5
	test(t, func(s *site) {
		for n := range many {
			s.invocation = dsdb.GUID{0xdc, byte(n % gone)}
			s.create(fmt.Sprint("user", n), "old")
		}
		s.invocation = dsdb.GUID{0xdc, 0xff}
		s.start()
		s.after(enough + many/100*time.Second)
		if got := s.decided(); len(got) != many {
			s.Errorf("%d are decided", len(got))
		}
		s.mu.Lock()
		if s.listed > gone {
			s.Errorf("the domain controllers were listed %d times", s.listed)
		}
		s.controllers = []directory.Controller{{Name: "DC2", InvocationID: dsdb.GUID{0xdc, 1}}}
		s.mu.Unlock()
		s.after(time.Minute)
		s.update(dsdb.GUID{1, 0, 0xac}, func(*directory.Account) {})
		s.after(enough)
		s.expectDecided("user1@1 of DC2 cloud:user1@example.com:other-dc (DC2)")
	})
}

func TestFollowupStateDamaged(t *testing.T) {
	for _, text := range []string{"", "{", "null", `{"since":7}`} {
		test(t, func(s *site) {
			s.create("alice", "old")
			s.after(time.Minute)
			if err := os.WriteFile(filepath.Join(s.state, "followup.json"), []byte(text), 0o600); err != nil {
				s.Fatal(err)
			}
			since := time.Now()
			s.start()
			s.after(enough)
			s.expectDecided("alice@1 of DC1 cloud:alice@example.com:before-installation")
			if got := s.agent.Status().Followup.Since; !got.Equal(since) {
				s.Errorf("%q: since %v", text, got)
			}
			if b, err := os.ReadFile(filepath.Join(s.state, "followup.json")); err != nil || !strings.Contains(string(b), `"whole":"2000-`) {
				s.Errorf("%q: %s, %v", text, b, err)
			}
		})
	}
}
