package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func (s *site) expectSighted(want ...string) {
	s.Helper()
	if got := s.sighted(); !slices.Equal(got, want) {
		s.Errorf("passed on: %q, want %q; log:\n%s", got, want, s.log.String())
	}
}

func (s *site) position() string {
	s.Helper()
	b, err := os.ReadFile(filepath.Join(s.state, "watch.json"))
	if err != nil {
		s.Fatal(err)
	}
	return string(b)
}

func TestWatchPassesOnStampsThatMove(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		bob := s.create("bob", "old")
		s.start()
		s.after(ms)
		s.expectSighted("alice@1", "bob@1")
		s.after(10 * time.Minute)
		s.expectSighted()
		if _, scans, _ := s.counts(); scans != 1 {
			s.Errorf("nothing moved, and changes were read %d times", scans)
		}
		s.set(bob, "new")
		s.set(bob, "newer")
		s.after(watchEvery)
		s.expectSighted("bob@3")
		s.rename(alice, "alicia") // moves the USN, and no stamp
		s.after(watchEvery)
		s.expectSighted()
		s.remove(alice)
		s.after(watchEvery)
		s.expectSighted("alicia gone")
		s.after(10 * time.Minute)
		s.expectSighted()
		s.bringBack(alice)
		s.after(watchEvery)
		s.expectSighted("alicia@1")
		if status := s.agent.Status().Watch; status.USN != s.usn || status.InvocationID != s.invocation || time.Since(status.Mark) > watchEvery {
			s.Errorf("status is %+v", status)
		}
	})
}

func TestAccountsWithoutPasswordAreNoSightings(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.update(alice, func(a *directory.Account) { a.Stamp = dsdb.Stamp{} })
		s.start()
		s.after(ms)
		s.expectSighted()
	})
}

// A broken domain controller may replicate nonsense. It holds up nobody but the account that it is about, of which nothing is sent.
func TestAccountThatCannotBeDecoded(t *testing.T) {
	test(t, func(s *site) {
		alice, bob := s.create("alice", "old"), s.create("bob", "old")
		nameless := s.create("nameless", "old")
		s.start()
		s.after(10 * time.Minute)
		s.expectSighted("alice@1", "bob@1", "nameless@1")
		decodable := *s.accounts[alice]
		decodable.DN = "CN=alice"
		for range 2 {
			s.update(alice, func(a *directory.Account) {
				*a = directory.Account{GUID: a.GUID, SAMAccountName: "alice", DN: "CN=alice", Unreadable: errors.New("no time"), USNChanged: a.USNChanged}
			})
			s.update(nameless, func(a *directory.Account) {
				*a = directory.Account{SAMAccountName: "nameless", DN: "CN=nameless", Unreadable: errors.New("no GUID"), USNChanged: a.USNChanged}
			})
			s.set(bob, "new")
			s.hookSure("alice", "new")
			s.after(10 * time.Minute)
		}
		s.expectSighted("alice gone", "bob@2", "alice gone", "bob@3")
		s.expect()
		s.expectEvents(map[string]uint64{"account-unreadable": 2, "capture-damaged": 2, "agent-trouble": 0})
		if time.Since(s.mark().AsOf) > 2*time.Second {
			s.Error("the mark stands still")
		}
		if status := s.agent.Status(); status.Watch.USN != s.usn || status.Followup.Undecided != 0 {
			s.Errorf("status is %+v", status)
		}

		s.hook("alice", "newer")
		s.update(alice, func(a *directory.Account) { decodable.USNChanged = a.USNChanged; *a = decodable })
		s.set(alice, "newer")
		s.after(watchEvery + ms)
		s.expectSighted("alice@2")
		s.expect("alice=newer")

		s.update(alice, func(a *directory.Account) { a.Unreadable = errors.New("again") })
		s.after(10 * time.Minute)
		s.expectSighted("alice gone")
		s.stop()
		if err := os.Remove(filepath.Join(s.state, "followup.json")); err != nil { // so that all are looked at
			s.Fatal(err)
		}
		s.start()
		s.after(10 * time.Minute)
		s.expectEvents(map[string]uint64{"account-unreadable": 5, "agent-trouble": 0}) // to the watch the nameless one has vanished, so it looks at all as well
		if n := s.agent.Status().Followup.Undecided; n != 0 {
			s.Errorf("%d are undecided", n)
		}
	})
}

// The mark covers no more than what had been passed on when it was written.
func TestMark(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.slow(100 * ms)
		s.start()
		s.after(watchEvery*10 + 70*ms) // the DC's highest USN has been read, and the answer is on its way
		changed := time.Now()
		s.set(alice, "new")
		s.sighted()
		for s.mark().AsOf.Before(changed) {
			if seen := s.sighted(); seen != nil {
				s.Fatalf("%q was passed on, and a step later the mark does not cover it", seen)
			}
			s.after(100 * ms)
		}
		s.expectSighted("alice@2")
		if m := s.mark(); m.Host != "dc1" || m.InvocationID != s.invocation {
			s.Errorf("mark is %+v", m)
		}

		s.setDown(true)
		before := s.mark()
		s.after(10 * time.Minute)
		if !s.mark().AsOf.Equal(before.AsOf) {
			s.Error("the mark moved while the DC was down")
		}
		s.slow(0)
		s.setDown(false)
		s.after(lastRedial + time.Second)
		if time.Since(s.mark().AsOf) > 2*time.Second {
			s.Error("the mark stands still")
		}
	})
}

func TestWatchContinuesWhereItStood(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.create("bob", "old")
		s.start()
		s.after(time.Second)
		s.expectSighted("alice@1", "bob@1")
		if want := fmt.Sprint(`"usn":`, s.usn); !strings.Contains(s.position(), want) {
			s.Errorf("after the first scan the position is %s, want %s", s.position(), want)
		}
		s.set(alice, "seen")
		s.after(10 * time.Minute)
		s.expectSighted("alice@2")
		s.stop()
		s.set(alice, "new")
		s.start()
		s.after(time.Second)
		s.expectSighted("alice@3")
		for _, from := range s.scans[1:] {
			if from == 0 {
				s.Error("the whole domain was read again")
			}
		}
	})
}

// Only a directory that went back makes older stamps count; that a position is lost says nothing about the directory.
func TestWatchBeginsAnew(t *testing.T) {
	position := func(s *site) string { return filepath.Join(s.state, "watch.json") }
	for name, c := range map[string]struct {
		disturb func(*site) error
		back    bool
	}{
		"another database": {func(s *site) error { s.invocation = dsdb.GUID{0xdd}; return nil }, true},
		"USN rolled back":  {func(s *site) error { s.usn -= 100; return nil }, true},
		"USN rolled back, position of an earlier version": {func(s *site) error {
			s.usn -= 100
			before, _, _ := strings.Cut(s.position(), `,"seen"`)
			return os.WriteFile(position(s), []byte(before+"}"), 0o600)
		}, true},
		"position lost":     {func(s *site) error { return os.Remove(position(s)) }, false},
		"position damaged":  {func(s *site) error { return os.WriteFile(position(s), []byte(`{"usn":`), 0o600) }, false},
		"position is empty": {func(s *site) error { return os.WriteFile(position(s), nil, 0o600) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(s *site) {
				s.create("alice", "old")
				s.remove(s.create("bob", "old"))
				s.start()
				s.after(10 * time.Minute)
				s.sighted()
				s.stop()
				if err := c.disturb(s); err != nil {
					s.Fatal(err)
				}
				s.start()
				s.after(time.Second)
				if c.back {
					s.expectSighted("alice@1 reset", "bob gone", "whole")
				} else {
					s.expectSighted("alice@1", "bob gone")
				}
				s.after(10 * time.Minute)
				s.expectSighted()
			})
		})
	}
}

// Where the watch goes on from may lie far behind what it has seen. That the directory went back to somewhere between is noticed.
func TestWentBackNotAsFarAsThePosition(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		bob := s.create("bob", "old")
		s.installed()
		s.refuses = map[string]bool{alice.String(): true} // holds the position
		s.set(alice, "new")
		s.after(time.Minute)
		s.mu.Lock()
		before, usn := *s.accounts[bob], s.usn
		s.mu.Unlock()
		s.set(bob, "new")
		s.after(2 * DefaultConfirmTimeout)
		s.sighted()
		s.stop()
		s.mu.Lock()
		*s.accounts[bob], s.usn = before, usn
		s.mu.Unlock()
		if want := fmt.Sprintf(`"usn":%d,"seen":%d,`, usn-1, usn+1); !strings.Contains(s.position(), want) {
			s.Fatalf("the position is %s, want %s", s.position(), want)
		}
		s.start()
		s.after(time.Second)
		s.expectSighted("bob@1 reset", "alice@2 reset", "whole")
	})
}

// By the time that somebody looks again, a directory that went back may have come as far as before, or farther. What was passed on last tells it from the same one.
func TestWentBackAndCaughtUp(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(s *site, alice, bob dsdb.GUID, before directory.Account)
		back    bool
	}{
		"nothing": {func(s *site, alice, bob dsdb.GUID, before directory.Account) {}, false},
		"others change": {func(s *site, alice, bob dsdb.GUID, before directory.Account) {
			s.set(alice, "new")
		}, false},
		"it changes again": {func(s *site, alice, bob dsdb.GUID, before directory.Account) {
			s.set(bob, "newer")
		}, false},
		"it is deleted": {func(s *site, alice, bob dsdb.GUID, before directory.Account) {
			s.remove(bob)
		}, false},
		"its password is older": {func(s *site, alice, bob dsdb.GUID, before directory.Account) {
			s.goesBack(bob, &before)
		}, true},
		"its password is older, and others change": {func(s *site, alice, bob dsdb.GUID, before directory.Account) {
			s.goesBack(bob, &before)
			s.set(alice, "new")
		}, true},
		"its password was older, and changed again": {func(s *site, alice, bob dsdb.GUID, before directory.Account) {
			s.goesBack(bob, &before)
			s.set(bob, "newer")
		}, true},
		"another attribute is older": {func(s *site, alice, bob dsdb.GUID, before directory.Account) {
			older := s.account(bob)
			older.USNChanged--
			s.goesBack(bob, &older)
		}, true},
		"it came back from a peer": {func(s *site, alice, bob dsdb.GUID, before directory.Account) {
			again := s.account(bob)
			again.MetaData = slices.Clone(again.MetaData)
			again.MetaData[0].LocalUSN += 5
			again.USNChanged += 5
			s.goesBack(bob, &again)
		}, true},
		"it is not there yet": {func(s *site, alice, bob dsdb.GUID, before directory.Account) {
			s.goesBack(bob, nil)
		}, true},
	} {
		for _, stopped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stopped %t", name, stopped), func(t *testing.T) {
				test(t, func(s *site) {
					alice, bob := s.create("alice", "old"), s.create("bob", "old")
					s.start()
					s.after(10 * time.Minute)
					before := s.account(bob)
					s.set(bob, "new")
					s.after(10 * time.Minute)
					s.sighted()
					if stopped {
						s.stop()
					} else {
						s.setDown(true)
						s.after(time.Minute)
					}
					scans := len(s.scans)
					c.happens(s, alice, bob, before)
					if stopped {
						s.start()
					} else {
						s.setDown(false)
					}
					s.after(10 * time.Minute)
					back := slices.Contains(s.scans[scans:], 0)
					whole := slices.Contains(s.sighted(), "whole")
					if back != c.back || whole != c.back {
						s.Errorf("all accounts were read: %t, and told as of a directory that went back: %t", back, whole)
					}
				})
			})
		}
	}
}

// A directory that went back is lost in the middle of being passed on: what has been passed on by then is no witness that it did not.
func TestWentBackAndWasLost(t *testing.T) {
	test(t, func(s *site) {
		bob := s.create("bob", "old")
		for n := range 600 {
			s.create(fmt.Sprint("user", n), "old")
		}
		s.start()
		s.after(10 * time.Minute)
		before := s.account(bob)
		s.set(bob, "new")
		s.after(10 * time.Minute)
		s.sighted()
		s.stop()
		s.goesBack(bob, &before)
		s.breaks = 550
		s.start()
		s.after(10 * time.Minute)
		if s.breaks != 0 {
			s.Error("it was not lost")
		}
		if !slices.Contains(s.sighted(), "whole") {
			s.Error("that it went back was not passed on to the end")
		}
	})
}

// What changed last before an end bears witness at the next start.
func TestWentBackToRightBeforeTheEnd(t *testing.T) {
	test(t, func(s *site) {
		bob := s.create("bob", "old")
		s.start()
		s.after(10 * time.Minute)
		for n := range 3 {
			before := s.account(bob)
			s.set(bob, fmt.Sprint("new", n))
			s.after(watchEvery + time.Duration(n)*time.Second)
			s.sighted()
			s.stop()
			s.goesBack(bob, &before)
			s.start()
			s.after(time.Second)
			if !slices.Contains(s.sighted(), "whole") {
				s.Error("that it went back was not seen")
			}
			s.after(7 * time.Second)
		}
	})
}

// One record that the DC refuses to read neither stops the watch nor keeps the others from telling.
func TestWitnessThatCannotBeRead(t *testing.T) {
	for _, back := range []bool{false, true} {
		test(t, func(s *site) {
			alice, bob := s.create("alice", "old"), s.create("bob", "old")
			s.start()
			s.after(10 * time.Minute)
			s.sighted()
			s.stop()
			s.refuses = map[string]bool{alice.String(): true}
			if back {
				s.goesBack(bob, nil)
			}
			s.start()
			s.after(10 * time.Minute)
			if whole := slices.Contains(s.sighted(), "whole"); whole != back || time.Since(s.mark().AsOf) > 2*time.Second {
				s.Errorf("it went back: %t, and was told as such: %t; the mark is of %v", back, whole, s.mark().AsOf)
			}
		})
	}
}

// Passes and glances take turns while captures without a name wait, each with a connection of its own. Each is asked once.
func TestConnectionsAreTrusted(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(time.Minute)
		for n := range 10 {
			s.hook("", fmt.Sprint("new", n))
			s.after(time.Second)
			s.set(alice, fmt.Sprint("new", n))
			s.after(time.Second)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.known == 0 || s.known > 2 {
			s.Errorf("the directory was asked %d times whether it is the same", s.known)
		}
	})
}

// The database is restored while the agent runs: what it knew of stamps is worth nothing.
func TestRestoredWhileRunning(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(10 * time.Minute)
		s.expectSighted("alice@1")
		s.mu.Lock()
		s.invocation, s.usn = dsdb.GUID{0xdd}, 9000
		s.mu.Unlock()
		s.after(watchEvery)
		s.expectSighted("alice@1 reset", "whole")
		s.set(alice, "new")
		s.after(watchEvery)
		s.expectSighted("alice@2")
	})
}

func TestManySightingsAreSeveralFiles(t *testing.T) {
	test(t, func(s *site) {
		for n := range 1001 {
			s.create(fmt.Sprint("user", n), "old")
		}
		s.start()
		s.after(ms)
		if got := len(s.list(s.outgoing, change.SightingsSuffix)); got != 3 {
			s.Errorf("%d files", got)
		}
		if got := len(s.sighted()); got != 1001 {
			s.Errorf("%d sightings", got)
		}
	})
}

func TestHugeNamesFitTheFiles(t *testing.T) {
	test(t, func(s *site) {
		for n := range 400 {
			s.create(fmt.Sprintf("%d%s", n, strings.Repeat("\x01", 1000)), "old") // JSON makes six bytes of each
		}
		s.start()
		s.after(ms)
		for _, file := range s.list(s.outgoing, change.SightingsSuffix) {
			if info, err := os.Stat(file); err != nil || info.Size() > change.MaxSize {
				s.Errorf("%v, %v", info, err)
			}
		}
		if got := len(s.sighted()); got != 400 {
			s.Errorf("%d sightings", got)
		}
	})
}

// Sightings that could not be stored are not lost, and nothing says that they were passed on.
func TestWatchCannotWrite(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(time.Second)
		s.sighted()
		if err := os.Rename(s.outgoing, s.outgoing+".away"); err != nil {
			s.Fatal(err)
		}
		s.set(alice, "new")
		changed := time.Now()
		s.after(10 * time.Minute)
		if err := os.Rename(s.outgoing+".away", s.outgoing); err != nil {
			s.Fatal(err)
		}
		if m := s.mark(); m.AsOf.After(changed) {
			s.Errorf("the mark says %v, after the change at %v", m.AsOf, changed)
		}
		s.after(troubleEvery)
		s.expectSighted("alice@2")
		if n := strings.Count(s.log.String(), "watching the directory failed"); n != 1 {
			s.Errorf("that it failed has been said %d times", n)
		}
	})
}

// What a look finds holds from when it began, however long it took: a password that was proven meanwhile is not of before it.
func TestSightingsAreOfWhenTheLookBegan(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		s.slow(10 * time.Second)
		s.start()
		var files []string
		for ; len(files) == 0; files = s.list(s.outgoing, change.SightingsSuffix) {
			s.after(ms)
		}
		latest := change.SightingsFile(time.Now().Add(-19*time.Second), "") // it asked two questions before it wrote
		if got := filepath.Base(files[0]); got > latest {
			s.Errorf("the file is %s, want one of before %s", got, latest)
		}
	})
}

// question is a forwarder's, which asks for all stamps.
func (s *site) question() (file string) {
	s.Helper()
	file = filepath.Join(s.outgoing, change.AskFile(time.Now(), "x"))
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		s.Fatal(err)
	}
	return file
}

func (s *site) expectAnswered(question string, want bool) {
	s.Helper()
	if _, err := os.Stat(question); errors.Is(err, fs.ErrNotExist) != want {
		s.Errorf("answered: %v, want %v; log:\n%s", !want, want, s.log.String())
	}
}

// tellAtOnce is how often all is told at once.
const tellAtOnce = 6

// Where the forwarder has lost what it was told, it asks, and gets all: as it is now, whatever it knew. The first times at once; who asks again
// and again waits, so that nobody has the DC tell of all accounts all the time.
func TestForwarderAsksForAll(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		s.start()
		s.after(time.Second)
		s.expectSighted("alice@1")
		for n := range uint64(tellAtOnce + 2) {
			before, ask := s.mark(), s.question()
			s.after(2 * time.Second)
			late := max(n, tellAtOnce-1) - (tellAtOnce - 1)
			if late > 0 {
				s.expectAnswered(ask, false)
				s.expectSighted()
				if until := time.Until(s.agent.Status().Watch.PutOff); until < 9*time.Minute || until > 10*time.Minute {
					s.Errorf("status puts it off for %v", until)
				}
				s.after(9 * time.Minute)
				s.expectAnswered(ask, false)
				s.expectSighted()
				s.after(time.Minute)
			}
			s.expectAnswered(ask, true)
			s.expectSighted("alice@1 reset", "whole")
			s.expectEvents(map[string]uint64{"all-told": n + 1, "ask-put-off": late})
			if !s.mark().AsOf.After(before.AsOf) {
				s.Error("no mark followed")
			}
			if until := s.agent.Status().Watch.PutOff; !until.IsZero() {
				s.Errorf("status puts it off until %v", until)
			}
		}
		// Who follows up may look at all accounts, too, if he comes between the beginning and the end of an answer.
		if _, scans, _ := s.counts(); scans < 1+tellAtOnce+2 || scans > 1+2*(tellAtOnce+2) {
			s.Errorf("all accounts were read %d times", scans)
		}
		s.after(time.Minute)
		s.expectSighted()

		// A directory that went back has all told anyway.
		ask := s.question()
		s.mu.Lock()
		s.invocation, s.usn = dsdb.GUID{0xdd}, 9000
		s.mu.Unlock()
		s.after(2 * time.Second)
		s.expectAnswered(ask, true)
		s.expectSighted("alice@1 reset", "whole")
	})
}

// Captures without a name have the watch look, and anybody in the domain can make them: they have no question answered.
func TestGlanceAnswersNobody(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		a := s.idle()
		dc, err := s.dial(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		ask := s.question()
		if err := a.watch.Glance(s.Context(), dc); err != nil {
			s.Fatal(err)
		}
		s.expectSighted("alice@1")
		s.expectAnswered(ask, false)
		if err := a.watch.Pass(s.Context(), dc); err != nil {
			s.Fatal(err)
		}
		s.expectSighted("alice@1 reset", "whole")
		s.expectAnswered(ask, true)
	})
}

// A disk that is full while the forwarder asks once does not use up all answers.
func TestAnswerThatFailsRests(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		a := s.idle()
		pass := func() error {
			dc, err := s.dial(s.Context())
			if err == nil {
				err = a.watch.Pass(s.Context(), dc)
			}
			return err
		}
		elsewhere, err := spool.Open(s.T.TempDir(), change.SightingsSuffix)
		if err = errors.Join(err, pass(), os.Remove(elsewhere.Dir())); err != nil {
			s.Fatal(err)
		}
		s.expectSighted("alice@1")
		ask, here := s.question(), a.watch.Spool
		a.watch.Spool = elsewhere
		_, before, _ := s.counts()
		for range 100 {
			if pass() == nil {
				s.Error("the pass went well")
			}
			time.Sleep(3 * time.Second)
		}
		a.watch.Spool = here
		if _, scans, _ := s.counts(); scans != before+3 {
			s.Errorf("all accounts were read %d times in five minutes", scans-before)
		}
		if until := time.Until(a.Status().Watch.PutOff); until > 100*time.Second {
			s.Errorf("put off for %v", until)
		}
		time.Sleep(100 * time.Second)
		if err := pass(); err != nil {
			s.Error(err)
		}
		s.expectSighted("alice@1 reset", "whole")
		s.expectAnswered(ask, true)
	})
}

// An answer that the disk does not take counts: the forwarder's user can see to that, by filling it. One that the DC did not give does not.
func TestAnswerThatFails(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		a := s.idle()
		pass := func(fails bool) {
			s.Helper()
			dc, err := s.dial(s.Context())
			if err == nil {
				err = a.watch.Pass(s.Context(), dc)
			}
			if (err != nil) != fails {
				s.Fatalf("pass: %v", err)
			}
		}
		pass(false)
		s.expectSighted("alice@1")
		elsewhere, err := spool.Open(s.T.TempDir(), change.SightingsSuffix)
		if err != nil {
			s.Fatal(err)
		}
		if err := os.Remove(elsewhere.Dir()); err != nil {
			s.Fatal(err)
		}
		for range tellAtOnce - 1 {
			ask := s.question()
			pass(false)
			s.expectAnswered(ask, true)
			s.expectSighted("alice@1 reset", "whole")
		}
		ask, here := s.question(), a.watch.Spool
		s.loseSearches(true)
		pass(true)
		s.loseSearches(false)
		a.watch.Spool = elsewhere
		pass(true)
		a.watch.Spool = here
		_, before, _ := s.counts()
		pass(false)
		s.expectAnswered(ask, false)
		if _, scans, _ := s.counts(); scans != before {
			s.Error("all accounts were read again")
		}
		time.Sleep(10 * time.Minute)
		pass(false)
		s.expectSighted("alice@1 reset", "whole")
		s.expectAnswered(ask, true)

		ask = s.question()
		time.Sleep(10 * time.Minute)
		s.loseSearches(true)
		pass(true)
		s.loseSearches(false)
		pass(false)
		s.expectSighted("alice@1 reset", "whole")
		s.expectAnswered(ask, true)
	})
}
