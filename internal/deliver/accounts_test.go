package deliver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// named is a change of account n, whose name at all targets is another's.
func (w *world) named(n byte, version int, name string, targets ...string) change.Change {
	w.Helper()
	c := w.change(n, version, targets...)
	for i := range c.Routes {
		c.Routes[i].User = name
	}
	return c
}

func deleted(n byte) change.Sighting { return change.Sighting{Account: account(n), Gone: true} }

// Who is gone is forgotten when a directory would have forgotten him, and nobody else.
func TestDeletedAccountIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.start()
		w.put(w.named(1, 7, "alice", "google"))
		w.put(w.named(2, 7, "bob", "google"))
		w.pass(2 * time.Second)
		w.tell(deleted(1))
		w.pass(2 * time.Second)
		w.stop()
		time.Sleep(keepGone - 3*time.Minute)
		w.start()
		w.pass(2 * time.Minute)
		w.happened("swept", 0)
		if s := w.f.Status(); s.Targets[0].Delivered != 2 {
			t.Errorf("%+v", s.Targets)
		}
		w.stop()
		time.Sleep(time.Minute)
		w.start()
		w.pass(2 * time.Minute)
		w.happened("swept", 1)
		if s := w.f.Status(); s.Targets[0].Delivered != 1 {
			t.Errorf("%+v", s.Targets)
		}
		w.stop()
	})
}

// alice is deleted while her target is down, and another alice is made with the same name there: what waits is shredded at once, and
// never sent, also if its file comes late or is met again.
func TestDeletedAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		google := w.places["google"]
		google.fails(errDown)
		w.places["entra"].fails(target.ErrRejected)
		w.start()
		w.watched()
		w.put(w.named(1, 7, "alice", "google", "entra")) // waits here, is parked there
		late := w.named(1, 8, "alice", "google")
		w.pass(5 * time.Second)
		w.tell(deleted(1))
		w.pass(2 * time.Second)
		w.happened("account-gone", 1)
		w.settled()
		if s := w.f.Status(); len(s.Parked) != 0 {
			t.Errorf("%+v", s)
		}
		w.put(late)
		w.pass(2 * time.Second)
		w.happened("account-gone", 2)
		w.put(w.named(2, 1, "alice", "google"))
		w.pass(2 * time.Second)
		google.fails(nil)
		w.pass(quiet)
		google.holdsFor("alice", 2, 1)
		w.settled()

		// The first one is undeleted, and gets a password and its name back.
		w.tell(change.Sighting{Account: account(1), Stamp: stamp(9)})
		w.put(w.named(1, 9, "alice", "google"))
		w.pass(2 * time.Second)
		google.holdsFor("alice", 1, 9)
		w.happened("account-gone", 2)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// The clock was set back before the account was deleted: what waits is dropped all the same.
func TestDeletedAfterTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.places["google"].fails(errDown)
		w.start()
		w.watched()
		w.put(w.change(1, 1, "google"))
		w.pass(2 * time.Second)
		if _, err := w.f.sight(time.Now().Add(-time.Hour), []change.Sighting{deleted(1)}); err != nil {
			t.Fatal(err)
		}
		w.places["google"].fails(nil)
		w.pass(quiet)
		w.places["google"].holds(1, 0)
		w.happened("account-gone", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// What is under way for an account when it is deleted ends before its successor's password is sent.
func TestDeletedDuringAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		google := w.places["google"]
		google.answers(func(context.Context, string, string) error { time.Sleep(10 * time.Second); return nil })
		w.start()
		w.put(w.named(1, 7, "alice", "google"))
		w.pass(2 * time.Second)
		w.tell(deleted(1))
		w.put(w.named(2, 1, "Alice", "google"))
		w.pass(quiet)
		google.holdsFor("alice", 2, 1)
		if n := len(google.asked()); n != 2 {
			t.Errorf("asked %d times", n)
		}
		w.settled()
		w.stop()
	})
}

// A mail address is handed to a colleague while the target is down: the colleague's password is the one that is sent, in whatever
// spelling and order they come.
func TestNameIsHandedOver(t *testing.T) {
	for name, order := range map[string][2]int{"older first": {0, 1}, "newer first": {1, 0}, "both at once": {-1, -1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google", "entra")
				google, entra := w.places["google"], w.places["entra"]
				google.fails(errDown)
				entra.fails(errDown)
				w.start()
				w.watched()
				old := w.named(1, 7, "alice@example.com", "google")
				w.put(w.named(1, 7, "alice@example.com", "entra")) // is nobody else's there
				w.pass(2 * time.Second)
				now := w.named(2, 1, "Alice@Example.com", "google")
				changes := []change.Change{old, now}
				for _, i := range order {
					if i >= 0 {
						w.put(changes[i])
						w.pass(2 * time.Second)
					}
				}
				if order[0] < 0 {
					w.put(now)
					w.put(old)
					w.pass(2 * time.Second)
				}
				w.happened("name-taken", 1)
				if s := w.status("google"); s.Waiting != 1 {
					t.Errorf("%+v", s)
				}
				if text := w.text.String(); !strings.Contains(text, "taken_by="+account(2).GUID.String()) {
					t.Errorf("logged:\n%s", text)
				}
				google.fails(nil)
				entra.fails(nil)
				w.pass(quiet)
				google.holdsFor("alice@example.com", 2, 1)
				entra.holdsFor("alice@example.com", 1, 7)
				for _, c := range google.asked() {
					if c.version == 7 && c.err == nil {
						t.Error("the old password was sent")
					}
				}
				w.settled()

				// Also once that is done, and in the next run.
				w.stop()
				w.start()
				w.put(old)
				w.pass(quiet)
				google.holdsFor("alice@example.com", 2, 1)
				w.happened("name-taken", 1) // that has been said, and is written down
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}

// The queue still holds the old account's password, because the new one's was never queued: it had waited for too long.
func TestNameIsHandedOverByAnExpiredChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.places["google"].fails(errDown)
		w.start()
		w.watched()
		w.pass(sureAfter)
		w.put(w.named(1, 7, "alice", "google"))
		w.pass(5 * time.Second)
		expired := w.named(2, 1, "alice", "google")
		expired.Captured = expired.Captured.Add(-100 * time.Hour)
		w.put(expired)
		w.pass(2 * time.Second)
		w.places["google"].fails(nil)
		w.pass(quiet)
		w.places["google"].holdsFor("alice", 0, 0)
		w.happened("expired", 1)
		w.happened("name-taken", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// The ledger knows that the name was handed over, and the queue does not: the last run ended in between.
func TestLedgerKnowsWhoHasTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.places["google"].fails(errDown)
		w.start()
		w.put(w.named(1, 7, "alice", "google"))
		w.pass(5 * time.Second)
		w.stop()
		w.open()
		item := w.items()[0]
		item.Account, item.Proven = account(2), time.Now()
		if err := w.ledger.Prove(proof(item)); err != nil {
			t.Fatal(err)
		}
		w.close()
		w.places["google"].fails(nil)
		w.start()
		w.watched()
		w.pass(quiet)
		w.places["google"].holdsFor("alice", 0, 0)
		w.happened("name-taken", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// A few names wander among a few accounts while targets fail, changes come late, and the forwarder is stopped: each name gets the
// password that was proven last for it, and never an older one after a newer one.
func TestNamesWander(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.answers(func(context.Context, string, string) error {
			time.Sleep(rand.N(3 * time.Second))
			if rand.IntN(3) == 0 {
				return errDown
			}
			return nil
		})
		w.start()
		w.watched()
		names := []string{"alice", "bob", "carol"}
		versions := map[byte]int{}
		last := map[string]change.Change{}
		current := map[byte]change.Change{}
		var late []change.Change
		for step := range 200 {
			n := byte(rand.IntN(4))
			versions[n] = step + 1 // so that inOrder can compare across accounts
			c := w.named(n, versions[n], names[rand.IntN(len(names))], "google")
			last[c.Routes[0].User], current[n] = c, c
			if rand.IntN(4) == 0 {
				late = append(late, c)
			} else {
				w.put(c)
			}
			if len(late) > 0 && rand.IntN(4) == 0 {
				i := rand.IntN(len(late))
				w.put(late[i])
				late = append(late[:i], late[i+1:]...)
			}
			if rand.IntN(20) == 0 {
				w.stop()
				w.start()
			}
			time.Sleep(rand.N(2 * time.Second))
		}
		for _, c := range late {
			w.put(c)
		}
		w.pass(quiet)
		p.inOrder()
		for name, c := range last {
			n := c.Account.GUID[0]
			if current[n].Capture == c.Capture { // else its account's password is another one now
				p.holdsFor(name, n, int(c.Stamp.Version))
			}
		}
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// The directory is restored from yesterday's backup: passwords of today are void, and the next ones are delivered, though their
// versions have been used before.
func TestDirectoryWentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		google, entra := w.places["google"], w.places["entra"]
		entra.fails(errDown)
		w.start()
		w.watched()
		old := w.change(1, 8, "google", "entra")
		w.put(old)
		w.put(w.change(2, 5, "entra"))
		w.pass(2 * time.Second)
		google.holds(1, 8)
		w.tell(
			change.Sighting{Account: account(1), Stamp: stamp(5), Reset: true},
			change.Sighting{Account: account(2), Stamp: stamp(5), Reset: true}, // was the same yesterday, and still waits
		)
		w.pass(2 * time.Second)
		w.happened("directory-went-back", 1)
		w.happened("rolled-back", 1)
		w.put(old) // comes back from somewhere
		w.pass(2 * time.Second)
		w.happened("rolled-back", 3) // once for each target
		entra.fails(nil)
		w.pass(quiet)
		entra.holds(1, 0)
		entra.holds(2, 5)
		for version := 6; version <= 9; version++ {
			w.put(w.change(1, version, "google", "entra"))
			w.pass(2 * time.Second)
			google.holds(1, version)
			entra.holds(1, version)
		}
		w.happened("superseded", 0)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// The agent proves a change against the restored directory, and tells of the restoring after that, because a look at all accounts takes
// its time: the change waits until it has.
func TestChangeBeforeTheNewsOfARestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.start()
		w.put(w.change(1, 8, "google"))
		w.pass(2 * time.Second)
		began := time.Now()
		w.put(w.change(1, 6, "google"))
		w.mark(began.Add(-time.Second)) // of the look before
		w.pass(5 * time.Second)
		w.tell(change.Sighting{Account: account(1), Stamp: stamp(6), Reset: true})
		w.mark(began)
		w.pass(3 * time.Second)
		w.places["google"].holds(1, 6)
		w.happened("superseded", 0)
		w.happened("rolled-back", 0)
		w.settled()
		w.stop()
	})
}

// But it does not wait for longer than a password may.
func TestOlderChangeExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.ttl = 20 * time.Minute
		w.start()
		w.put(w.change(1, 8, "google"))
		w.pass(2 * time.Second)
		w.put(w.change(1, 6, "google"))
		w.pass(19 * time.Minute)
		if len(w.files()) != 1 {
			t.Errorf("files: %q", w.files())
		}
		w.pass(2 * time.Minute)
		w.happened("superseded", 1)
		w.places["google"].holds(1, 8)
		w.settled()
		w.stop()
	})
}

// A capture is proven for one version, and after a crash for a later one with the same password: the file of the first may go, the
// second's stays.
func TestOneCaptureOfTwoVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.places["google"].fails(errDown)
		w.start()
		w.watched()
		c := w.change(1, 2, "google")
		w.put(c)
		w.pass(3 * time.Second)
		c.Stamp = stamp(3)
		if slices.Contains(w.files(), c.FileName()) { // as the agent does
			w.remove(c.FileName())
		}
		w.put(c)
		w.sight(1, 3)
		w.pass(3 * time.Second)
		w.places["google"].fails(nil)
		w.pass(quiet)
		w.places["google"].holds(1, 2) // the password that both have
		w.happened("delivered", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// When a look began is read from the names of its files, and is never in the future: that would void what is proven until then.
func TestWritten(t *testing.T) {
	now := time.Unix(1700000000, 0)
	f := &Forwarder{undated: map[string]time.Time{"01699999999000000008": now.Add(-2)}, started: now.Add(-2 * time.Second), watch: watch{looked: now}}
	for name, want := range map[string]look{
		"01699999999000000007-ABC.sightings": {at: time.Unix(1699999999, 7)},
		"01700000000000000000-ABC.sightings": {at: now},
		"01700000001000000000-ABC.sightings": {at: now, met: now, undated: true, ahead: true},
		"01699999997000000000-ABC.sightings": {at: time.Unix(1699999997, 0), met: now, undated: true},
		"01699999999000000008-ABC.sightings": {at: time.Unix(1699999999, 8), met: now.Add(-2), undated: true},
		"ABC.sightings":                      {at: now},
	} {
		if got := f.written(name, now); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	later := now.Add(time.Second / 2)
	if got := f.written("01700000001000000000-DEF.sightings", later); !got.undated || !got.at.Equal(now) || !got.met.Equal(now) {
		t.Errorf("another file of a look that was met before: %+v", got)
	}
}

// A scan that is told twice, because we were killed before its file was removed, does not undo what has come since.
func TestDirectoryWentBackOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.start()
		w.watched()
		w.put(w.change(1, 8, "google"))
		w.pass(2 * time.Second)
		at := time.Now()
		reset := change.Sighting{Account: account(1), Stamp: stamp(5), Reset: true}
		for range 2 {
			if _, err := w.f.sight(at, []change.Sighting{reset}); err != nil {
				t.Fatal(err)
			}
			w.places["google"].fails(errDown)
			w.put(w.change(1, 6, "google"))
			w.pass(2 * time.Second)
		}
		w.places["google"].fails(nil)
		w.pass(quiet)
		w.places["google"].holds(1, 6)
		w.happened("directory-went-back", 1)
		w.happened("rolled-back", 0)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// A look at a directory that went back was dated by a clock that was ahead. What is proven after it is sent: at once where that date is still to
// come, and otherwise when the look has come in which the directory holds it.
func TestChangeAfterARestoreWhileTheClockWasAhead(t *testing.T) {
	for _, ahead := range []time.Duration{5 * time.Second, time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				w.start()
				w.put(w.change(1, 8, "google"))
				w.pass(2 * time.Second)
				c := w.change(1, 6, "google")
				if _, err := w.ledger.See(time.Now().Add(ahead), change.Sighting{Account: account(1), Stamp: stamp(5), Reset: true}); err != nil {
					t.Fatal(err)
				}
				w.pass(6 * time.Second)
				w.put(c)
				w.pass(2 * time.Second)
				if ahead == time.Hour {
					w.places["google"].holds(1, 6)
				} else if len(w.files()) != 1 {
					t.Errorf("it was not kept: %q", w.files())
				}
				w.watched()
				w.sight(1, 6)
				w.pass(3 * time.Second)
				w.places["google"].holds(1, 6)
				w.happened("rolled-back", 0)
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}

// Somebody had a name, as was noted while the clock was ahead. Who gets it after the clock was set back has it, in a running forwarder and in one that starts then.
func TestNameAfterTheClockWasSetBack(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running %v", running), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				w.start()
				w.watched()
				former := w.named(1, 7, "alice", "google")
				w.put(former)
				w.pass(2 * time.Second)
				w.places["google"].holdsFor("alice", 1, 7)
				ahead := ledger.Proof{Account: former.Account, Stamp: former.Stamp, Proven: time.Now().Add(time.Hour), Places: []string{placeOf(former.Routes[0])}}
				if err := w.ledger.Prove(ahead); err != nil {
					t.Fatal(err)
				}
				w.put(w.named(3, 1, "alice", "google")) // the clock is ahead still, and so is the holder: nobody knows who is the later one
				w.pass(2 * time.Second)
				w.happened("name-taken", 1)
				if running {
					w.f.watch.mu.Lock()
					w.f.watch.back = time.Now() // see TestSetBack
					w.f.watch.mu.Unlock()
				} else {
					w.stop()
					w.start()
				}
				w.pass(2 * time.Second)
				w.put(w.named(2, 1, "alice", "google"))
				w.pass(quiet)
				w.places["google"].holdsFor("alice", 2, 1)
				w.happened("name-taken", 1)
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}

// A target stops wanting an account while its password waits: it is not sent, and not shredded, and sent once the target wants it again. An answer of before the proof says nothing.
func TestUnwantedWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		for _, p := range w.places {
			p.fails(errDown)
		}
		w.start()
		w.watched()
		w.decides(2, 2, change.Lost) // nobody wants it yet
		w.pass(2 * time.Second)
		w.put(w.change(1, 2, "google", "entra"))
		w.put(w.change(2, 2, "google"))
		w.pass(2 * time.Second)
		w.decides(1, 2, change.Lost, "entra")
		w.pass(2 * time.Second)
		w.happened("shelved", 1)
		for _, p := range w.places {
			p.fails(nil)
		}
		w.pass(2 * time.Hour)
		w.places["entra"].holds(1, 2)
		w.places["google"].holds(2, 2)
		w.places["google"].holds(1, 0)
		var q []Queued
		err := w.f.Queue("google", func(i Queued) error { q = append(q, i); return nil })
		if err != nil || len(q) != 1 || q[0].Class != queue.Unwanted || q[0].State != Shelved || !q[0].Sealed {
			t.Errorf("%+v, %v", q, err)
		}
		if _, told := w.tale(q[0].Account, "google"); told.Wanted || told.Missing != "" || told.Queued == nil || told.Queued.State != Shelved {
			t.Errorf("why: %+v", told)
		}
		if s := w.status("google"); s.Waiting != 0 || s.Shelved != 1 || s.State != Up {
			t.Errorf("%+v", s)
		}
		if r, err := w.f.Retry("", ""); err != nil || r.Due != 0 {
			t.Fatal(r, err)
		}
		w.pass(time.Minute)
		w.places["google"].holds(1, 0)
		w.drifts()
		w.places["google"].fails(target.ErrDenied)
		w.decides(1, 2, change.Lost, "google", "entra")
		w.pass(10 * time.Minute)
		w.drifts("user1@2 google denied")
		w.places["google"].fails(nil)
		w.pass(20 * time.Minute)
		w.places["google"].holds(1, 2)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// That a target does not want an account holds when the agent tells all stamps anew, when the ledger is lost, and when the clock was set, also of what was not leased meanwhile, since the target
// is stopped; it is no drift, and of what expires nobody is told.
func TestUnwantedForLong(t *testing.T) {
	unwanted := func(t *testing.T, then func(w *world)) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "google")
			w.places["google"].fails(target.ErrDenied)
			w.ttl = 3 * time.Hour
			w.all = func() []change.Sighting {
				return []change.Sighting{{Account: account(1), Stamp: stamp(2), Reset: true}, {Whole: true}}
			}
			w.start()
			w.watched()
			w.pass(2 * time.Second)
			w.put(w.change(1, 2, "google"))
			w.pass(2 * time.Second)
			if s := w.status("google"); s.State != Denied {
				t.Fatalf("%+v", s)
			}
			then(w)
			w.places["google"].fails(nil)
			w.pass(20 * time.Minute)
			w.places["google"].holds(1, 0)
			w.drifts()
			w.pass(4 * time.Hour)
			w.happened("shelved-expired", 1)
			w.happened("expired", 0)
			if s := w.status("google"); s.Waiting != 0 || s.Expired != 0 || s.State != Up {
				t.Errorf("%+v", s)
			}
			w.drifts()
			w.settled()
			w.unwatch()
			w.stop()
		})
	}
	t.Run("all told anew", func(t *testing.T) {
		unwanted(t, func(w *world) {
			w.decides(1, 2, change.Lost)
			w.pass(2 * time.Second)
			w.write(change.SightingsFile(time.Now(), "x"), []byte("{"))
			w.pass(30 * time.Second)
			w.happened("asked-for-all", 1)
		})
	})
	t.Run("ledger lost", func(t *testing.T) {
		unwanted(t, func(w *world) {
			w.decides(1, 2, change.Lost)
			w.pass(2 * time.Second)
			w.stop()
			if err := os.Remove(filepath.Join(w.dir, "ledger.db")); err != nil {
				w.Fatal(err)
			}
			w.start()
		})
	})
	t.Run("told again", func(t *testing.T) { // the clock was set forward: the first answer is of before the proof, by the time of day
		unwanted(t, func(w *world) {
			if _, err := w.ledger.See(time.Now().Add(-2*time.Hour), change.Sighting{Account: account(1), Stamp: stamp(2), Wanted: &change.Wanted{DC: "DC7"}}); err != nil {
				w.Fatal(err)
			}
			w.decides(1, 2, change.Lost)
			w.pass(2 * time.Second)
		})
	})
	t.Run("answered to come", func(t *testing.T) { // the clock was set back
		unwanted(t, func(w *world) {
			if _, err := w.ledger.See(time.Now().Add(2*time.Hour), change.Sighting{Account: account(1), Stamp: stamp(2), Wanted: &change.Wanted{DC: "DC7"}}); err != nil {
				w.Fatal(err)
			}
			w.decides(1, 2, change.Lost)
			w.pass(2 * time.Second)
		})
	})
	t.Run("told before it came", func(t *testing.T) {
		unwanted(t, func(w *world) {
			c := w.change(1, 3, "google")
			w.pass(time.Second)
			w.decides(1, 3, change.Lost)
			w.all = func() []change.Sighting {
				return []change.Sighting{{Account: account(1), Stamp: stamp(3), Reset: true}, {Whole: true}}
			}
			w.pass(2 * time.Second)
			w.put(c)
			w.pass(2 * time.Second)
			if err := w.f.queue.Each("", func(i queue.Item, _ bool) error {
				if !i.Shelved || i.Stamp.Version != 3 {
					w.Errorf("%+v", i)
				}
				return nil
			}); err != nil {
				w.Fatal(err)
			}
		})
	})
}

// What was delivered, and settles, is not sent once more to a target that has stopped wanting the account.
func TestUnwantedWhileItSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.start()
		w.pass(2 * time.Second)
		c := w.change(1, 2, "google")
		c.Peers = []change.Peer{{Name: "DC2"}}
		w.put(c)
		w.pass(2 * time.Second)
		w.places["google"].holds(1, 2)
		w.decides(1, 2, change.Lost)
		w.pass(2 * time.Second)
		w.watched()
		w.pass(20 * time.Minute)
		if n := len(w.places["google"].asked()); n != 1 {
			t.Errorf("sent %d times", n)
		}
		w.unwatch()
		w.stop()
	})
}

// Wanted again, but under another name, or in a state in which its password is not to be sent: what was shelved stays so, and that is drift.
func TestWantedAgainOtherwise(t *testing.T) {
	for name, c := range map[string]struct {
		user         string
		told, drifts change.Reason
	}{
		"another name": {"other", change.Lost, change.WantedSince},
		"shared":       {user(1), change.NameShared, change.NameShared},
	} {
		t.Run(name, func(t *testing.T) {
			route := change.WantedRoute{Route: change.Route{Target: "google", User: c.user}, Reason: c.told}
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				p := w.places["google"]
				p.fails(target.ErrDenied)
				w.start()
				w.watched()
				w.put(w.change(1, 2, "google"))
				w.pass(2 * time.Second)
				w.decides(1, 2, change.Lost)
				w.pass(2 * time.Second)
				w.happened("shelved", 1)
				w.tell(change.Sighting{Account: account(1), Stamp: stamp(2), Wanted: &change.Wanted{Routes: []change.WantedRoute{route}}})
				w.pass(2 * time.Second)
				p.fails(nil)
				w.pass(quiet)
				p.holds(1, 0)
				if n := w.f.Status().Drift[c.drifts]; n != 1 {
					t.Errorf("drift: %v", w.f.Status().Drift)
				}
				w.unwatch()
				w.stop()
			})
		})
	}
}

// The agent tells that a target does not want an account while its password is on the way there; that comes to nothing, and the target is stopped: it is no drift.
func TestUnwantedOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.answers(func(context.Context, string, string) error {
			time.Sleep(5 * time.Second)
			return target.ErrDenied
		})
		w.start()
		w.watched()
		w.put(w.change(1, 2, "google"))
		w.pass(2 * time.Second)
		w.decides(1, 2, change.Lost)
		w.pass(2 * time.Second)
		w.happened("shelved", 0)
		w.pass(5 * time.Second)
		w.happened("shelved", 1)
		w.drifts()
		p.fails(nil)
		w.pass(quiet)
		p.holds(1, 0)
		w.unwatch()
		w.stop()
	})
}
