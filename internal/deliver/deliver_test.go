package deliver

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

var errDown = errors.New("connection refused")

// quiet is longer than any delay between two attempts: what has not happened by then does not happen.
const quiet = 20 * time.Minute

// That the user has to choose another password is told to the target that is to know, also after a restart, and taken back with the next.
func TestMustChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		google := w.places["google"]
		google.fails(errDown)
		w.start()
		w.watched()
		c := w.change(1, 1, "google", "entra")
		c.Routes[0].MustChange = true
		w.put(c)
		w.pass(5 * time.Second)
		w.stop()
		google.fails(nil)
		w.start()
		w.pass(quiet)
		w.put(w.change(1, 2, "google", "entra"))
		w.pass(quiet)
		for name, want := range map[string][]bool{"google": {true, true, false}, "entra": {false, false}} {
			var got []bool
			for _, c := range w.places[name].asked() {
				got = append(got, c.must)
			}
			if first, last := got[0], got[len(got)-1]; first != want[0] || last || len(got) < len(want) || slices.Contains(got[1:len(got)-1], !want[0]) {
				t.Errorf("%s was told %v", name, got)
			}
		}
		w.settled()
		w.unwatch()
		w.stop()
	})
}

func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		for _, p := range w.places {
			p.answers(func(context.Context, string, string) error { time.Sleep(100 * time.Millisecond); return nil })
		}
		w.start()
		w.put(w.change(1, 3, "google", "entra"))
		w.put(w.change(2, 1, "entra"))
		w.pass(2 * time.Second)
		w.places["google"].holds(1, 3)
		w.places["entra"].holds(1, 3)
		w.places["google"].holds(2, 0)
		w.places["entra"].holds(2, 1)
		w.settled()
		for name, want := range map[string]int{"google": 1, "entra": 2} {
			s := w.status(name)
			if s.State != Up || s.Delivered != want || s.LastDelivered.IsZero() || s.Median < 100*time.Millisecond || s.Median > 2*time.Second {
				t.Errorf("%+v", s)
			}
		}
		if got, err := w.ledger.DeliveredStamp("google", account(1).GUID); err != nil || !got.Equal(stamp(3)) {
			t.Errorf("the ledger says %v, %v", got, err)
		}
		w.stop()
		w.happened("delivered", 3)
	})
}

// Nothing but the targets ever holds the password: no log line, no file, while waiting, refused, delivered or set aside.
func TestNothingElseHoldsThePassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "yes", "no", "down")
		w.places["no"].fails(target.ErrRejected)
		w.places["down"].fails(errDown)
		w.start()
		w.put(w.change(1, 3, "yes", "no", "down"))
		w.pass(5 * time.Second)
		_ = w.f.Status()
		w.stop()
		w.places["yes"].holds(1, 3)
		found := 0
		err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte("Canary")) {
				t.Errorf("the password is in %s", path)
			}
			found++
			return err
		})
		if err != nil || found < 3 { // two databases and a change
			t.Errorf("looked into %d files: %v", found, err)
		}
		if text := w.text.String(); strings.Contains(text, "Canary") || !strings.Contains(text, "delivered") {
			t.Errorf("logged:\n%s", text)
		}
	})
}

// Many changes of few accounts, in wrong order, against targets that take their time and fail: never two at once, never an
// older one after a newer one, and in the end the newest.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		for _, p := range w.places {
			p.answers(func(ctx context.Context, _, _ string) error {
				time.Sleep(rand.N(3 * time.Second))
				if rand.IntN(5) == 0 {
					return errDown
				}
				return nil
			})
		}
		w.start()
		w.watched()
		const accounts, versions = 20, 12
		for _, i := range rand.Perm(accounts * versions) {
			w.put(w.change(byte(i/versions), 1+i%versions, "google", "entra"))
			time.Sleep(rand.N(500 * time.Millisecond))
		}
		w.pass(quiet)
		for name, p := range w.places {
			p.inOrder()
			for n := range byte(accounts) {
				p.holds(n, versions)
			}
			t.Logf("%s was asked %d times", name, len(p.asked()))
		}
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// A crash at any moment (here: a copy of what was on the disk then) leads to no loss and to no older password.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		for _, p := range w.places {
			p.answers(func(ctx context.Context, _, _ string) error {
				time.Sleep(rand.N(2 * time.Second))
				if rand.IntN(4) == 0 {
					return errDown
				}
				return nil
			})
		}
		version := 0
		for range 15 {
			w.start()
			w.watched()
			for range 6 {
				version++
				w.put(w.change(byte(version%4), version, "google", "entra"))
				time.Sleep(rand.N(time.Second))
			}
			synctest.Wait()
			w.unwatch()
			crashed := memory(t)
			if err := os.CopyFS(crashed, os.DirFS(w.dir)); err != nil {
				t.Fatal(err)
			}
			w.stop() // what was under way reaches the targets, and nobody knows
			w.dir = crashed
			if rand.IntN(4) == 0 {
				if err := os.Remove(filepath.Join(w.dir, "queue.db")); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.start()
		w.watched()
		w.pass(quiet)
		for _, p := range w.places {
			p.inOrder()
			for n := range byte(4) {
				newest := version
				for newest%4 != int(n) {
					newest--
				}
				p.holds(n, newest)
			}
		}
		w.settled()
		w.unwatch()
		w.stop()
	})
}

func TestOneTargetsTroubleDoesNotDelayTheOther(t *testing.T) {
	for name, trouble := range map[string]func(context.Context, string, string) error{
		"hangs":     func(ctx context.Context, _, _ string) error { <-ctx.Done(); return ctx.Err() },
		"fails":     func(context.Context, string, string) error { return errDown },
		"denies":    func(context.Context, string, string) error { return target.ErrDenied },
		"throttles": func(context.Context, string, string) error { return target.RetryAfter(errDown, 10*time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google", "entra")
				w.places["google"].answers(trouble)
				w.places["google"].checksWith(target.ErrDenied)
				w.start()
				w.watched()
				for n := range byte(30) {
					w.put(w.change(n, 1, "google", "entra"))
					w.pass(scanEvery)
					w.places["entra"].holds(n, 1)
				}
				w.places["google"].fails(nil)
				w.places["google"].checksWith(nil)
				w.pass(20 * time.Minute)
				for n := range byte(30) {
					w.places["google"].holds(n, 1)
				}
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}

// A repeated attempt needs a mark that is fresh and not older than the moment it became due.
func TestRetryNeedsTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.fails(errDown)
		w.start()
		w.put(w.change(1, 1, "google"))
		w.pass(2 * time.Second)
		p.fails(nil)
		w.mark(time.Now().Add(-3 * time.Second)) // fresh, but from before the item was due again
		w.pass(50 * time.Second)
		p.holds(1, 0)
		w.happened("watch-stale", 0) // it still may be only slow
		w.pass(2 * time.Hour)
		p.holds(1, 0)
		w.happened("watch-stale", 1)
		if s := w.f.Status(); s.Watch.Fresh || s.Targets[0].Waiting != 1 {
			t.Errorf("%+v", s)
		}
		w.mark(time.Now().Add(-2 * time.Minute)) // covers the item, but is stale
		w.pass(time.Minute)
		p.holds(1, 0)
		w.mark(time.Now().Add(2 * time.Minute)) // no clock says that
		w.pass(2 * time.Second)
		p.holds(1, 0)
		w.happened("watch-fresh", 0)
		w.mark(time.Now())
		w.pass(2 * time.Second)
		p.holds(1, 1)
		w.happened("watch-stale", 1)
		w.happened("watch-fresh", 1)
		if len(p.asked()) != 2 {
			t.Errorf("asked %+v", p.asked())
		}
		w.settled()
		w.stop()
	})
}

// A proof is enough for a first attempt for ten seconds.
func TestFirstAttemptNeedsAFreshProof(t *testing.T) {
	for _, c := range []struct {
		age  time.Duration
		sent bool
	}{
		{0, true},
		{8 * time.Second, true},
		{12 * time.Second, false},
		{-5 * time.Second, false}, // the clock was set back since: nobody knows how old it is
		{-time.Hour, false},
	} {
		t.Run(c.age.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				w.start()
				w.pass(2 * time.Minute)
				change := w.change(1, 1, "google")
				change.Proven = change.Proven.Add(-c.age)
				w.put(change)
				w.pass(quiet)
				if sent := len(w.places["google"].asked()) > 0; sent != c.sent {
					t.Errorf("sent: %v", sent)
				}
				w.watched()
				w.pass(3 * time.Second)
				w.places["google"].holds(1, 1)
				w.unwatch()
				w.stop()
			})
		})
	}
}

// A clock ahead of ours does not make a proof last: the minute counts from when the change came.
func TestProofFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.checksWith(target.ErrDenied)
		p.fails(target.ErrDenied)
		w.start()
		w.put(w.change(1, 1, "google")) // its denial stops the target
		w.pass(2 * time.Second)
		c := w.change(2, 1, "google")
		c.Proven = c.Proven.Add(24 * time.Hour)
		w.put(c)
		w.pass(2 * time.Minute)
		p.fails(nil)
		p.checksWith(nil)
		w.pass(quiet)
		p.holds(2, 0)
		w.stop()
	})
}

// The password was changed again, on a DC without the hook: only a sighting says so.
func TestSightingSupersedes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		p := w.places["google"]
		p.fails(errDown)
		w.start()
		w.watched()
		w.put(w.change(1, 1, "google", "entra"))
		w.put(w.change(2, 5, "google"))
		w.pass(2 * time.Second)
		w.sight(1, 2)
		w.sight(2, 5) // says nothing new
		w.pass(2 * time.Second)
		p.fails(nil)
		w.pass(quiet)
		p.holds(1, 0)
		p.holds(2, 5)
		w.places["entra"].holds(1, 1) // was sent while it was right
		w.happened("superseded", 1)
		w.settled()

		// And a change that comes after the sighting of a newer one is not sent at all.
		w.put(w.change(1, 1, "google"))
		w.pass(quiet)
		p.holds(1, 0)
		w.happened("superseded", 2)
		w.put(w.change(1, 2, "google"))
		w.pass(2 * time.Second)
		p.holds(1, 2)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// A late change is shredded at once, even while its target takes nothing.
func TestLateChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.fails(target.ErrDenied)
		p.checksWith(target.ErrDenied)
		w.start()
		w.watched()
		w.put(w.change(1, 1, "google"))
		w.pass(2 * time.Second)
		w.sight(1, 3)
		w.pass(2 * time.Second)
		w.settled()
		w.put(w.change(1, 2, "google"))
		w.pass(2 * time.Second)
		w.settled()
		w.happened("superseded", 2)
		w.unwatch()
		w.stop()
	})
}

// The ledger knows of a newer stamp and the queue does not: the last run ended in between.
func TestLedgerKnowsBetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.places["google"].fails(errDown)
		w.start()
		w.put(w.change(1, 1, "google"))
		w.pass(2 * time.Second)
		w.stop()
		w.open()
		if _, err := w.ledger.See(time.Now(), change.Sighting{Account: account(1), Stamp: stamp(2)}); err != nil {
			t.Fatal(err)
		}
		w.close()
		w.places["google"].fails(nil)
		w.start()
		w.watched()
		w.pass(quiet)
		w.places["google"].holds(1, 0)
		w.happened("superseded", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// And the other way round: a waiting item says what is newest, even if the ledger is lost.
func TestQueueKnowsBetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		w.places["google"].fails(errDown)
		w.start()
		w.put(w.change(1, 2, "google"))
		w.pass(2 * time.Second)
		w.stop()
		if err := os.Remove(filepath.Join(w.dir, "ledger.db")); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.watched()
		w.put(w.change(1, 1, "entra"))
		w.pass(5 * time.Second)
		w.places["entra"].holds(1, 0)
		w.happened("superseded", 1)
		w.unwatch()
		w.stop()
	})
}

// Sightings that the mark covers are applied before anything is sent on the strength of that mark, even if both appear
// at once; and a mark whose sightings cannot be read counts for nothing.
func TestMarkCountsAfterItsSightings(t *testing.T) {
	for name, torn := range map[string]bool{"whole": false, "torn": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				p := w.places["google"]
				p.fails(errDown)
				w.start()
				w.put(w.change(1, 1, "google"))
				w.pass(5 * time.Minute)
				p.fails(nil)
				if torn {
					w.write("7"+".sightings", []byte(`{"format":1,"sigh`))
				} else {
					w.sight(1, 2)
				}
				w.mark(time.Now())
				w.pass(5 * time.Second)
				p.holds(1, 0)
				if torn { // it was being written; now it is whole
					w.happened("superseded", 0)
					if err := os.Remove(filepath.Join(w.outgoing(), "7.sightings")); err != nil {
						t.Fatal(err)
					}
					w.sight(1, 2)
					w.pass(2 * time.Second)
				}
				p.holds(1, 0)
				w.happened("superseded", 1)
				w.settled()
				w.stop()
			})
		})
	}
}

// Whatever is dropped because something newer is known is said, also if the newer one has been delivered.
func TestLateChangeAfterADelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.start()
		w.watched()
		w.put(w.change(1, 3, "google"))
		w.pass(2 * time.Second)
		w.put(w.change(1, 2, "google"))
		w.pass(3 * time.Second)
		w.happened("superseded", 1)
		w.put(w.change(1, 3, "google")) // says nothing new
		w.put(w.change(2, 1, "google")) // two at once, the older one last
		w.put(w.change(2, 2, "google"))
		w.pass(3 * time.Second)
		w.happened("superseded", 2)
		w.places["google"].holds(1, 3)
		w.places["google"].holds(2, 2)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

func TestNewerChangeReplacesWaitingOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		google, entra := w.places["google"], w.places["entra"]
		google.fails(errDown)
		entra.fails(target.ErrDenied)
		entra.checksWith(target.ErrDenied)
		w.start()
		w.watched()
		w.put(w.change(1, 1, "google", "entra"))
		w.pass(2 * time.Second)
		w.put(w.change(1, 2, "google")) // the account left entra's filter: its old password must not go there any more
		w.pass(2 * time.Second)
		if s := w.status("entra"); s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		google.fails(nil)
		entra.fails(nil)
		entra.checksWith(nil)
		w.pass(quiet)
		google.holds(1, 2)
		google.inOrder()
		entra.holds(1, 0)
		w.happened("superseded", 2)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// A target that comes back gets nothing before the directory has been looked at once more, however fresh the mark was: the agent may
// have ended just before the password was changed.
func TestTargetThatComesBackNeedsALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		google := w.places["google"]
		google.fails(target.ErrDenied)
		google.checksWith(target.ErrDenied)
		w.start()
		w.watched()
		w.pass(5 * time.Second)
		w.put(w.change(1, 1, "google"))
		w.pass(5 * time.Second)
		asked := len(google.asked())
		w.unwatch()
		google.fails(nil)
		google.checksWith(nil)
		w.pass(50 * time.Second) // the last mark is younger than a minute all the time
		if n := len(google.asked()); n != asked {
			t.Errorf("asked %d times more without a look at the directory", n-asked)
		}
		w.watched()
		w.pass(5 * time.Second)
		google.holds(1, 1)
		w.unwatch()
		w.stop()
	})
}

// The newer change comes while the older one is under way: it waits for that, and is not delayed by its failure.
func TestNewerChangeDuringAnAttempt(t *testing.T) {
	for name, result := range map[string]error{"delivered": nil, "failed": errDown, "refused": target.ErrRejected, "denied": target.ErrDenied} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				p := w.places["google"]
				p.answers(func(context.Context, string, string) error {
					p.fails(nil)
					time.Sleep(10 * time.Second)
					return result
				})
				w.start()
				w.put(w.change(1, 1, "google"))
				w.pass(3 * time.Second)
				w.put(w.change(1, 2, "google"))
				w.pass(3 * time.Second)
				if len(p.asked()) != 1 {
					t.Error("the newer change did not wait")
				}
				if name == "denied" { // what waited for the target needs a look at the directory
					w.watched()
				}
				w.pass(20 * time.Second) // otherwise no watch: as a first attempt
				p.holds(1, 2)
				w.happened("parked", 0)
				w.happened("retry", 0)
				w.settled()
				if name == "denied" {
					w.unwatch()
				}
				w.stop()
			})
		})
	}
}

func TestParked(t *testing.T) {
	for _, class := range []error{target.ErrNoUser, target.ErrRejected} {
		t.Run(class.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google", "entra")
				p := w.places["google"]
				p.fails(class)
				w.start()
				w.watched()
				w.put(w.change(1, 1, "google", "entra"))
				w.pass(quiet)
				w.settled() // and so the secret is shredded
				s := w.f.Status()
				if len(s.Parked) != 1 || s.Parked[0].Account != "user1" || s.Parked[0].Class != target.Classify(class) ||
					s.Parked[0].Reason != class.Error() || s.Parked[0].Version != 1 || s.Targets[0].Parked != 1 || s.Targets[0].State != Up {
					t.Errorf("%+v", s)
				}
				if len(p.asked()) != 1 {
					t.Errorf("asked %d times", len(p.asked()))
				}
				w.put(w.change(1, 1, "google")) // the same change from another DC, say
				w.pass(quiet)
				if len(p.asked()) != 1 {
					t.Error("a refused password was sent again")
				}
				p.fails(nil)
				w.put(w.change(1, 2, "google"))
				w.pass(2 * time.Second)
				p.holds(1, 2)
				if s := w.f.Status(); len(s.Parked) != 0 {
					t.Errorf("%+v", s)
				}
				w.unwatch()
				w.stop()
			})
		})
	}
}

func TestExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		w.ttl = 20 * time.Minute
		p := w.places["google"]
		p.fails(errDown)
		w.start()
		w.watched()
		old := w.change(1, 1, "google", "entra")
		w.put(old)
		w.pass(15 * time.Minute)
		w.happened("expired", 0)
		w.pass(10 * time.Minute)
		w.happened("expired", 1)
		w.settled()
		entries, err := w.ledger.Entries(account(1).GUID)
		if err != nil || len(entries) != 2 || entries[1].Class != ledger.Expired || entries[1].Attempts == 0 {
			t.Errorf("%+v, %v", entries, err)
		}
		w.drifts("user1@1 google expired")
		w.put(old) // comes back too late
		late := w.change(2, 1, "google")
		late.Captured = late.Captured.Add(-time.Hour)
		w.put(late)
		p.fails(nil)
		w.pass(quiet)
		p.holds(1, 0)
		p.holds(2, 0)
		w.happened("expired", 2)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// A clock that is ahead makes all that waits look old. Nothing is shredded for that until it has been so for an hour.
func TestClockAheadAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.fails(errDown)
		w.start()
		w.watched()
		old := func(n byte) {
			c := w.change(n, 1, "google")
			c.Captured = c.Captured.Add(-defaultTTL - time.Hour)
			w.put(c)
		}
		old(1)
		w.pass(30 * time.Minute)
		p.fails(nil)
		w.pass(quiet)
		p.holds(1, 1)
		p.fails(errDown)
		old(2)
		w.pass(5 * time.Minute)
		w.happened("expired", 0)
		w.pass(10 * time.Minute)
		w.happened("expired", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// Nor in the hour after it is found to be set.
func TestClockIsSetAhead(t *testing.T) {
	begin := time.Now()
	f := &Forwarder{ttl: defaultTTL, started: begin, watch: watch{log: event.New(slog.New(slog.DiscardHandler)), looked: begin}}
	captured := begin.Round(0)
	for _, c := range []struct {
		passed, by time.Duration
		want       bool
	}{
		{time.Minute, 0, false},
		{2 * time.Hour, 0, false},
		{2*time.Hour + time.Second, 2 * defaultTTL, false}, // it has just been set
		{3 * time.Hour, 2 * defaultTTL, false},
		{3*time.Hour + time.Second, 2 * defaultTTL, true},
		{3*time.Hour + 2*time.Second, 3 * defaultTTL, false}, // once more
		{3*time.Hour + 3*time.Second, 0, false},              // and back
		{defaultTTL, 0, false},
		{defaultTTL + time.Second, 0, true},
	} {
		if got := f.overdue(captured, trial.ClockSet(begin.Add(c.passed), c.by)); got != c.want {
			t.Errorf("%v after the capture, with the clock set by %v: %v", c.passed, c.by, got)
		}
	}
}

// slowKeys are keys that a disk gives when it has come back, which each time takes that long.
type slowKeys struct {
	seal.Keys
	wait atomic.Int64
}

func (s *slowKeys) Find(id seal.KeyID) (seal.PrivateKey, error) {
	time.Sleep(time.Duration(s.wait.Load()))
	return s.Keys.Find(id)
}

// The disk stands still between the look at the watch and the request: what may not go any more does not.
func TestDiskStandsStillBeforeARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		keys := &slowKeys{Keys: w.key}
		w.keys = keys
		p := w.places["google"]
		w.start()
		w.pass(2 * time.Second)

		keys.wait.Store(int64(5 * time.Minute))
		w.put(w.change(1, 1, "google"))
		w.pass(10 * time.Minute)
		if n := len(p.asked()); n != 0 {
			t.Errorf("without a watch %d passwords were sent that had been proven minutes ago", n)
		}
		keys.wait.Store(0)
		w.watched()
		w.pass(10 * time.Second)
		p.holds(1, 1)

		keys.wait.Store(int64(5 * time.Minute))
		w.put(w.change(1, 2, "google"))
		w.pass(time.Minute)
		w.sight(1, 3)
		w.pass(10 * time.Minute)
		p.holds(1, 1)
		w.settled()

		w.put(w.change(2, 1, "google"))
		w.pass(6 * time.Minute)
		p.holds(2, 1) // nothing newer was seen meanwhile
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// What a crash leaves between the overwriting of a secret and its removal is removed, and nobody needs to look at it.
func TestZeros(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.start()
		c := w.change(1, 1, "google")
		w.write(c.FileName(), make([]byte, 700))
		w.write("2.change", nil)
		w.pass(5 * time.Second)
		if n := len(w.files()); n != 2 {
			t.Errorf("%d files are left while they may be being written", n)
		}
		w.pass(10 * time.Second)
		w.settled()
		w.happened("change-damaged", 1) // the empty one
		w.stop()
	})
}

// What a restart finds: files that nobody queued, items whose files are gone, targets that are not configured any more.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		google, entra := w.places["google"], w.places["entra"]
		google.fails(errDown)
		w.watched()
		w.put(w.change(1, 1, "google", "entra", "no-such-target"))
		w.start()
		w.pass(3 * time.Second)
		w.happened("unknown-target", 1)
		lost := w.put(w.change(2, 1, "google"))
		w.pass(3 * time.Second)
		w.stop()
		if err := os.Remove(filepath.Join(w.outgoing(), lost)); err != nil {
			t.Fatal(err)
		}
		w.start()
		google.fails(nil)
		w.pass(quiet)
		google.holds(1, 1)
		google.holds(2, 0)
		w.happened("secret-lost", 1)
		w.settled()
		w.stop()

		// The queue is lost with one item: it is found again, and what was delivered is not sent again.
		entra.fails(errDown)
		w.start()
		w.put(w.change(3, 1, "google", "entra"))
		w.pass(3 * time.Second)
		w.stop()
		if err := os.WriteFile(filepath.Join(w.dir, "queue.db"), []byte("noise"), 0o600); err != nil {
			t.Fatal(err)
		}
		sent := len(google.asked())
		w.start()
		entra.fails(nil)
		w.pass(quiet)
		entra.holds(3, 1)
		if len(google.asked()) != sent {
			t.Error("what was delivered was sent again")
		}
		w.happened("state-damaged", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

func TestDamagedFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		w.start()
		slow := w.change(1, 1, "google")
		whole, err := slow.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		w.write(slow.FileName(), whole[:len(whole)/2]) // is being written
		w.write("3.change", []byte("noise"))
		w.write("4.sightings", []byte("noise"))
		w.pass(5 * time.Second)
		if err := os.WriteFile(filepath.Join(w.outgoing(), slow.FileName()), whole, 0o600); err != nil {
			t.Fatal(err)
		}
		other, err := seal.Generate()
		if err != nil {
			t.Fatal(err)
		}
		ours := w.key
		w.key = other
		foreign := w.put(w.change(5, 1, "google", "entra"))
		w.key = ours
		moved := w.change(6, 1, "google") // someone put another account's box into it
		moved.SecretBox = slow.SecretBox
		w.put(moved)
		w.pass(10 * time.Second)
		w.answer()
		w.places["google"].holds(1, 1)
		w.settled()
		w.happened("asked-for-all", 1)
		w.happened("change-damaged", 4)
		for _, name := range []string{"3.change", "4.sightings", foreign, moved.FileName()} {
			if _, err := os.Stat(filepath.Join(w.outgoing(), "damaged", name)); err != nil {
				t.Error(err)
			}
		}
		if n := len(w.places["google"].asked()) + len(w.places["entra"].asked()); n != 1 {
			t.Errorf("%d passwords were sent", n)
		}
		w.stop()
	})
}

// That the disk does not give a file says nothing about it: it is said once, tried again at every look, and the mark does not count
// meanwhile. Only what is read and makes no sense is damaged.
func TestUnreadableFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.open()
		defer w.close()
		file := w.put(w.change(1, 1, "google"))
		var fault error
		look := func() found {
			_, state := read(w.f, w.f.changes, file, func(_ string, b []byte) (change.Change, error) {
				if fault != nil {
					return change.Change{}, fault
				}
				return change.Parse(b)
			})
			return state
		}
		for _, fault = range []error{syscall.EIO, syscall.EMFILE, syscall.EACCES} {
			for range 3600 {
				if state := look(); state != unclear {
					t.Fatalf("%v: %v", fault, state)
				}
				time.Sleep(time.Second)
			}
		}
		w.happened("change-unreadable", 1)
		w.happened("change-damaged", 0)
		fault = nil
		if state := look(); state != good {
			t.Errorf("in the end: %v", state)
		}
		fault = syscall.EIO
		look()
		w.happened("change-unreadable", 2)
		for _, fault = range []error{change.ErrDamaged, spool.ErrTooLarge} {
			name := file
			for range 12 {
				look()
				time.Sleep(time.Second)
			}
			if _, err := os.Stat(filepath.Join(w.outgoing(), "damaged", name)); err != nil {
				t.Errorf("%v: %v", fault, err)
			}
			file = w.put(w.change(1, 2, "google"))
		}
		w.happened("change-damaged", 2)
	})
}

// A file that has grown since it was queued is damaged, and not tried for days.
func TestFileHasGrown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.places["google"].fails(errDown)
		w.start()
		w.watched()
		file := w.put(w.change(1, 1, "google"))
		w.pass(2 * time.Second)
		if err := os.WriteFile(filepath.Join(w.outgoing(), file), make([]byte, change.MaxSize+1), 0o600); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.happened("change-damaged", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// An item in the queue that does not match its file is not sent under the name that it claims.
func TestForgedItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.places["google"].fails(errDown)
		w.start()
		file := w.put(w.change(1, 1, "google"))
		w.pass(2 * time.Second)
		w.stop()
		w.open()
		forged := w.items()[0]
		forged.Account, forged.User, forged.Place, forged.Stamp = account(9), "administrator", "administrator's", stamp(1)
		if _, err := w.queue.Add(forged); err != nil {
			t.Fatal(err)
		}
		w.close()
		w.places["google"].fails(nil)
		w.start()
		w.watched()
		w.pass(time.Minute)
		for _, c := range w.places["google"].asked() {
			if c.user != "user1" {
				t.Errorf("asked %+v", c)
			}
		}
		if _, err := os.Stat(filepath.Join(w.outgoing(), "damaged", file)); err != nil {
			w.places["google"].holds(1, 1) // the right one came first
		}
		w.unwatch()
		w.stop()
	})
}

// A stop waits for what is under way, for 10 seconds, and loses nothing of what it gives up.
func TestStop(t *testing.T) {
	for _, c := range []struct {
		takes    time.Duration
		stops    time.Duration
		attempts int
	}{
		{5 * time.Second, 5 * time.Second, 1},
		{20 * time.Second, 10 * time.Second, 2},
	} {
		t.Run(c.takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				p := w.places["google"]
				p.answers(func(ctx context.Context, _, _ string) error {
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(c.takes):
						return nil
					}
				})
				w.put(w.change(1, 1, "google"))
				w.start()
				synctest.Wait()
				if len(p.asked()) != 1 {
					t.Fatal("nothing is under way")
				}
				stopping := time.Now()
				w.stop()
				if took := time.Since(stopping); took != c.stops {
					t.Errorf("stopped after %v", took)
				}
				w.open()
				for _, i := range w.items() {
					if i.Attempts != 0 || i.Class != "" {
						t.Errorf("what was given up counts: %+v", i)
					}
				}
				w.close()
				p.fails(nil)
				w.start()
				w.watched()
				w.pass(time.Minute)
				p.holds(1, 1)
				if n := len(p.asked()); n != c.attempts {
					t.Errorf("%d attempts", n)
				}
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.targets[0].Rate = 5
		for n := range byte(50) {
			w.put(w.change(n, 1, "google"))
		}
		begin := time.Now()
		w.start()
		w.pass(time.Minute)
		calls := w.places["google"].asked()
		if len(calls) != 50 {
			t.Fatalf("%d of 50 sent", len(calls))
		}
		// 5 at once, then 5 a second.
		if took := calls[49].at.Sub(begin); took < 8900*time.Millisecond || took > 9100*time.Millisecond {
			t.Errorf("50 changes took %v", took)
		}
		w.stop()
	})
}

func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.targets[0].Workers = 3
		w.places["google"].answers(func(context.Context, string, string) error { time.Sleep(time.Second); return nil })
		for n := range byte(9) {
			w.put(w.change(n, 1, "google"))
		}
		w.start()
		for i := range 3 {
			synctest.Wait()
			if n := len(w.places["google"].asked()); n != 3*(i+1) {
				t.Errorf("%d attempts after %d seconds", n, i)
			}
			time.Sleep(time.Second)
		}
		w.stop()
	})
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t, "google")
	if _, err := New(Options{Outgoing: filepath.Join(w.dir, "none"), Log: w.log}); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("no folder: %v", err)
	}
	twice := Options{Outgoing: w.outgoing(), Targets: append(w.targets, w.targets...), Log: w.log}
	if _, err := New(twice); err == nil || !strings.Contains(err.Error(), `"google" is given twice`) {
		t.Errorf("a target twice: %v", err)
	}
}

// A database that turns out to be damaged ends the run; the next one repairs it, and nothing is lost.
func TestDamagedDatabaseEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.start()
		w.put(w.change(1, 1, "google"))
		w.pass(2 * time.Second)
		path := filepath.Join(w.dir, "ledger.db")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte(`"attempts":1`), []byte(`"attempts":7`)), 0o600); err != nil {
			t.Fatal(err)
		}
		w.put(w.change(1, 2, "google"))
		if err := <-w.ended; !errors.Is(err, boltfile.ErrDamaged) {
			t.Errorf("ended with %v", err)
		}
		w.halt()
		w.close()
		w.places["google"].holds(1, 1)
		w.start()
		w.watched()
		w.pass(5 * time.Second)
		w.places["google"].holds(1, 2)
		w.happened("values-damaged", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// As long as the outcome cannot be written down, the item is neither sent again nor forgotten.
func TestUnwritableState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		w.put(w.change(1, 1, "google"))
		p.answers(func(context.Context, string, string) error { return w.queue.Close() }) // accepts, and then:
		w.start()
		w.watched()
		w.pass(10 * time.Minute)
		if n := len(p.asked()); n != 1 {
			t.Errorf("sent %d times", n)
		}
		if w.log.Counters()["forwarder-trouble"] == 0 {
			t.Error("nobody was told")
		}
		if len(w.files()) != 1 {
			t.Error("the secret was shredded before it was written down that it may be")
		}
		w.stop()
		w.start()
		w.pass(2 * time.Minute)
		if n := len(p.asked()); n != 1 {
			t.Errorf("sent %d times", n)
		}
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// What a file of sightings said that the disk has damaged is asked for, and until it is there nothing goes that waited.
func TestDamagedSightingsAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.fails(errors.New("away"))
		w.start()
		w.watched()
		w.put(w.change(1, 1, "google"))
		w.put(w.change(2, 1, "google"))
		w.pass(time.Minute)
		w.unwatch()
		w.write("5.sightings", []byte("{\"format\":1,\"sightings\":[{")) // it said that account 1 has version 2
		w.all = func() []change.Sighting {
			return []change.Sighting{
				{Account: account(1), Stamp: stamp(2), Reset: true}, {Account: account(2), Stamp: stamp(1), Reset: true}, {Whole: true},
			}
		}
		p.fails(nil)
		before := len(p.asked())
		for range 60 { // an agent that writes marks, and is slow to answer
			w.mark(time.Now())
			w.pass(time.Second)
		}
		if n := len(p.asked()) - before; n > 0 {
			t.Errorf("%d sent before the agent had told all", n)
		}
		w.watched()
		w.pass(20 * time.Minute)
		p.holds(1, 0)
		p.holds(2, 1)
		w.happened("asked-for-all", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// A file that makes no sense and cannot be set aside is said so once, is not queued again and again, and is set aside when that is possible.
func TestStuckFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		if err := os.WriteFile(filepath.Join(w.outgoing(), "damaged"), nil, 0o600); err != nil { // no folder can be made
			t.Fatal(err)
		}
		w.start()
		w.watched()
		w.write("3.change", []byte("noise"))
		ours, err := w.key, error(nil)
		if w.key, err = seal.Generate(); err != nil {
			t.Fatal(err)
		}
		foreign := w.put(w.change(5, 1, "google"))
		w.key = ours
		w.put(w.change(1, 1, "google"))
		w.pass(time.Hour)
		w.places["google"].holds(1, 1)
		w.happened("change-damaged", 2)
		w.happened("queued", 2)
		if n := w.log.Counters()["forwarder-trouble"]; n > 4 {
			t.Errorf("%d troubles were logged", n)
		}
		if err := os.Remove(filepath.Join(w.outgoing(), "damaged")); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		for _, name := range []string{"3.change", foreign} {
			if _, err := os.Stat(filepath.Join(w.outgoing(), "damaged", name)); err != nil {
				t.Error(err)
			}
		}
		w.happened("change-damaged", 2)
		w.settled()
		w.unwatch()
		w.stop()
	})
}
