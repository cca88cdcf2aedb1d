package deliver

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// decides passes on who wants version version of account n's password, and why it may lack it.
func (w *world) decides(n byte, version int, reason change.Reason, targets ...string) {
	w.Helper()
	s := change.Sighting{Account: account(n), Stamp: stamp(version), Wanted: &change.Wanted{DC: "DC1"}}
	for _, name := range targets {
		s.Wanted.Routes = append(s.Wanted.Routes, change.WantedRoute{Route: change.Route{Target: name, User: user(n)}, Reason: reason})
	}
	w.tell(s)
}

func (w *world) remove(name string) {
	w.Helper()
	if err := os.Remove(filepath.Join(w.outgoing(), name)); err != nil {
		w.Fatal(err)
	}
}

// drifts fails the test unless this is all drift, and the counts say so, too.
func (w *world) drifts(want ...string) {
	w.Helper()
	got, counts := []string{}, map[change.Reason]int{}
	err := w.f.Drift(func(d Drift) error {
		got = append(got, fmt.Sprintf("%s@%d %s %s", d.Account, d.Stamp.Version, d.Target, d.Reason))
		counts[d.Reason]++
		if d.User != d.Account || d.GUID == "" || d.Seen.IsZero() {
			w.Errorf("drift says %+v", d)
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) && len(got)+len(want) > 0 {
		w.Errorf("drift is %q, want %q", got, want)
	}
	if counted := w.f.Status().Drift; fmt.Sprint(counted) != fmt.Sprint(counts) {
		w.Errorf("counted %v, listed %v", counted, counts)
	}
}

func TestDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		google, entra := w.places["google"], w.places["entra"]
		w.start()
		w.watched()
		w.pass(2 * time.Second)
		w.drifts()

		// Never captured, until the next change arrives.
		w.sight(1, 1)
		w.pass(time.Second)
		w.drifts()
		w.decides(1, 1, change.ComplexityOff, "google", "entra", "unknown")
		w.pass(time.Second)
		w.drifts("user1@1 entra complexity-off", "user1@1 google complexity-off")
		w.happened("drift", 3)
		w.put(w.change(1, 2, "google", "entra"))
		w.pass(2 * time.Second)
		w.drifts()
		w.decides(1, 2, change.Lost, "google", "entra")
		w.pass(time.Second)
		w.drifts()

		// Told too early: the capture comes all the same.
		w.decides(1, 3, change.NotCaptured, "google")
		w.pass(time.Second)
		w.drifts("user1@3 google not-captured")
		w.put(w.change(1, 3, "google"))
		w.pass(2 * time.Second)
		w.drifts()
		google.holds(1, 3)

		// Refused: that is why, whatever the agent knows.
		google.fails(target.ErrNoUser)
		w.put(w.change(2, 1, "google", "entra"))
		w.pass(2 * time.Second)
		w.drifts("user2@1 google no-user")
		w.decides(2, 1, change.Lost, "google", "entra")
		w.pass(time.Second)
		w.drifts("user2@1 google no-user")
		w.decides(2, 1, change.Lost, "entra") // Google wants him no more
		w.pass(time.Second)
		w.drifts()

		// Waiting counts after a minute, or when the target does not work.
		google.fails(errDown)
		w.put(w.change(3, 1, "google"))
		w.decides(3, 1, change.Lost, "google")
		w.pass(5 * time.Second)
		w.drifts()
		w.pass(time.Hour)
		w.drifts("user3@1 google down")
		google.fails(target.ErrDenied)
		w.pass(20 * time.Minute)
		w.drifts("user3@1 google denied")

		// All of it is known after a restart.
		w.decides(4, 1, change.HashOnly, "google")
		w.pass(time.Second)
		w.stop()
		w.start()
		w.pass(10 * time.Minute)
		w.drifts("user3@1 google denied", "user4@1 google hash-only")

		// What is deleted is no drift, and what cannot be read has been lost.
		w.tell(change.Sighting{Account: account(4), Gone: true})
		entra.fails(errDown)
		w.pass(time.Second)
		w.drifts("user3@1 google denied")
		w.unwatch()
		w.stop()
	})
}

// A change that is lost between the agent and the target is told of, because the agent says who should have it.
func TestDriftOfTheLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.places["google"].fails(errDown)
		w.start()
		w.watched()
		lost := w.put(w.change(1, 1, "google"))
		w.decides(1, 1, change.Lost, "google")
		w.pass(3 * time.Second)
		w.drifts()
		w.remove(lost)
		w.pass(10 * time.Minute)
		w.happened("secret-lost", 1)
		w.drifts("user1@1 google lost")
		w.unwatch()
		w.stop()
	})
}

// Which accounts a directory that went back still holds is known when all files of that look have been read, and not before.
func TestWholeWaitsForTheFilesBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.places["google"].fails(errDown)
		w.start()
		w.watched()
		w.put(w.change(1, 2, "google"))
		w.put(w.change(2, 2, "google"))
		w.pass(3 * time.Second)
		began := time.Now()
		whole, _ := change.MarshalSightings("", []change.Sighting{{Whole: true}})
		seen, _ := change.MarshalSightings("", []change.Sighting{{Account: account(1), Stamp: stamp(2), Reset: true}})
		first := change.SightingsFile(began, "1")
		w.write(first, seen[:20])
		w.write(change.SightingsFile(began, "2"), whole)
		w.pass(3 * time.Second)
		if s := w.status("google"); s.Waiting != 2 {
			t.Errorf("%d wait", s.Waiting)
		}
		w.remove(first)
		w.write(first, seen)
		w.pass(3 * time.Second)
		if s := w.status("google"); s.Waiting != 1 {
			t.Errorf("%d wait, want the one that the directory still holds", s.Waiting)
		}
		w.happened("account-gone", 1)
		w.places["google"].fails(nil)
		w.pass(20 * time.Minute)
		w.places["google"].holds(1, 2)
		w.places["google"].holds(2, 0)
		w.unwatch()
		w.stop()
	})
}

// The clock is set back while the agent looks at a directory that went back, or before that is read: it is asked for anew, and what the directory does not hold
// goes only when that has come. What was proven meanwhile stays.
func TestWholeWhileTheClockIsSetBack(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Second, time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				w.places["google"].fails(errDown)
				w.start()
				w.watched()
				w.put(w.change(1, 2, "google"))
				w.put(w.change(2, 2, "google"))
				w.pass(3 * time.Second)
				began := time.Now().Add(ahead)
				back := func(n byte, version int) change.Sighting {
					return change.Sighting{Account: account(n), Stamp: stamp(version), Reset: true}
				}
				w.all = func() []change.Sighting { return []change.Sighting{back(1, 2), back(3, 3), {Whole: true}} }
				seen, _ := change.MarshalSightings("", []change.Sighting{back(1, 2), back(3, 2)})
				whole, _ := change.MarshalSightings("", []change.Sighting{{Whole: true}})
				if ahead < time.Hour {
					w.write(change.SightingsFile(began, "1"), seen)
					w.pass(3 * time.Second)
					w.put(w.change(3, 3, "google"))
				} else {
					w.put(w.change(3, 3, "google")) // which the look does not show
					w.write(change.SightingsFile(began, "1"), seen)
				}
				w.pass(3 * time.Second)
				w.write(change.SightingsFile(began, "2"), whole)
				w.pass(6 * time.Second)
				if s := w.status("google"); s.Waiting != 2 {
					t.Errorf("%d wait, want the two that the directory still holds", s.Waiting)
				}
				w.happened("account-gone", 1)
				w.happened("rolled-back", 0)
				if asked := w.asked.Load(); (asked > 0) != (ahead == time.Hour) { // a second is over when it is read
					t.Errorf("all stamps were asked for %d times", asked)
				}
				if files := w.files(); len(files) != 2 {
					t.Errorf("left in the folder: %q, want the two changes", files)
				}
				w.unwatch()
				w.stop()
			})
		})
	}
}

func resets(sightings ...change.Sighting) []byte {
	for i := range sightings {
		sightings[i].Reset = !sightings[i].Whole
	}
	b, _ := change.MarshalSightings("", sightings)
	return b
}

// Until the answer has come, nothing goes that waited, and what a look said whose time cannot be told stays until it has been asked for: also over a crash, and
// if its date is over by then.
func TestUndatedIsAskedForFirst(t *testing.T) {
	for _, ahead := range []time.Duration{time.Second, time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				w.places["google"].fails(errDown)
				w.open()
				w.mark(time.Now())
				w.put(w.change(1, 8, "google"))
				w.scan()
				w.pass(time.Millisecond)
				w.mark(time.Now())
				w.scan()
				if !w.f.watch.covers(time.Now()) {
					t.Fatal("this shows nothing")
				}
				name := change.SightingsFile(time.Now().Add(ahead), "1")
				w.write(name, resets(change.Sighting{Account: account(1), Stamp: stamp(5)}, change.Sighting{Whole: true}))
				w.pass(time.Millisecond)
				w.mark(time.Now())
				w.scan()
				if w.f.watch.covers(time.Now().Add(-time.Hour)) {
					t.Error("a mark counts beside it")
				}
				if !slices.Contains(w.files(), name) {
					t.Fatalf("it went before it was asked for: %q", w.files())
				}
				w.close() // killed
				w.places["google"].fails(nil)
				time.Sleep(2 * time.Second)
				w.start()
				for range 30 { // marks, and no answer
					w.mark(time.Now())
					w.pass(time.Second)
				}
				w.happened("asked-for-all", 1)
				if files := w.files(); slices.Contains(files, name) || len(files) != 2 {
					t.Errorf("left in the folder: %q, want the change and the question", files)
				}
				w.all = func() []change.Sighting {
					return []change.Sighting{{Account: account(1), Stamp: stamp(5), Reset: true}, {Whole: true}}
				}
				w.watched()
				w.pass(6 * time.Second)
				w.happened("rolled-back", 1)
				if n := len(w.places["google"].asked()); n != 0 {
					t.Errorf("a password was sent %d times that a restored directory does not hold", n)
				}
				w.unwatch()
				w.stop()
			})
		})
	}
}

// scan is one look at the folder of a forwarder that does not run.
func (w *world) scan() {
	w.Helper()
	if err := w.f.scan(); err != nil {
		w.Fatal(err)
	}
}

// The forwarder was killed between two files of a look, or one of them is damaged: whom the missing one shows is not gone for that.
func TestPartOfALook(t *testing.T) {
	for _, damaged := range []bool{true, false} {
		t.Run(fmt.Sprintf("damaged %v", damaged), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				w.places["google"].fails(errDown)
				w.start()
				w.watched()
				w.put(w.change(1, 2, "google"))
				w.put(w.change(2, 2, "google"))
				w.pass(3 * time.Second)
				w.all = func() []change.Sighting {
					return []change.Sighting{{Account: account(1), Stamp: stamp(2), Reset: true}, {Account: account(2), Stamp: stamp(2), Reset: true}, {Whole: true}}
				}
				began := time.Now()
				rest := resets(change.Sighting{Account: account(2), Stamp: stamp(2)}, change.Sighting{Whole: true})
				if damaged {
					w.write(change.SightingsFile(began, "1"), []byte("{")) // it said that account 1 has version 2
				} else {
					w.stop()
					time.Sleep(time.Second)
					w.start()
				}
				w.write(change.SightingsFile(began, "2"), rest)
				w.pass(30 * time.Second)
				w.places["google"].fails(nil)
				w.pass(quiet)
				w.happened("account-gone", 0)
				w.happened("asked-for-all", 1)
				w.places["google"].holds(1, 2)
				w.places["google"].holds(2, 2)
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}

// A stamp was seen while the clock was ahead, and is read after one that was seen after it was set back, in a directory that went back. What the directory holds is
// asked for.
func TestSeenAheadAndReadLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.start()
		w.pass(3 * time.Second)
		now := time.Now()
		seen, _ := change.MarshalSightings("", []change.Sighting{{Account: account(1), Stamp: stamp(8)}})
		w.write(change.SightingsFile(now.Add(time.Hour), "1"), seen)
		w.write(change.SightingsFile(now, "2"), resets(change.Sighting{Account: account(1), Stamp: stamp(5)}, change.Sighting{Whole: true}))
		w.all = func() []change.Sighting {
			return []change.Sighting{{Account: account(1), Stamp: stamp(5), Reset: true}, {Whole: true}}
		}
		w.watched()
		w.pass(3 * time.Second)
		w.put(w.change(1, 6, "google"))
		w.pass(quiet)
		w.places["google"].holds(1, 6)
		w.happened("asked-for-all", 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// That the directory went back was noted while the clock was ahead; then it was set back. What waits is not sent before the directory was looked at again.
func TestVoidAtATimeToCome(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running %v", running), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				w.places["google"].fails(errDown)
				w.start()
				w.put(w.change(1, 8, "google"))
				w.pass(3 * time.Second)
				if _, err := w.ledger.See(time.Now().Add(time.Hour), change.Sighting{Account: account(1), Stamp: stamp(5), Reset: true}); err != nil {
					t.Fatal(err)
				}
				w.places["google"].fails(nil)
				if running {
					w.f.watch.mu.Lock()
					w.f.watch.back = time.Now() // see TestSetBack
					w.f.watch.mu.Unlock()
				} else {
					w.stop()
					w.start()
				}
				before := len(w.places["google"].asked())
				w.all = func() []change.Sighting {
					return []change.Sighting{{Account: account(1), Stamp: stamp(5), Reset: true}, {Whole: true}}
				}
				w.watched()
				w.pass(quiet)
				if n := len(w.places["google"].asked()) - before; n != 0 {
					t.Errorf("a password was sent %d times that a restored directory does not hold", n)
				}
				w.happened("asked-for-all", 1)
				w.happened("rolled-back", 1)
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}

// A deletion or a restore was noted while the clock was ahead, by a forwarder that then ended; by the next start that time is over. What the agent saw in between is of
// before it, by its date.
func TestVoidAtATimeThatIsOver(t *testing.T) {
	for _, c := range []struct {
		name           string
		gone, captured bool
	}{{"changed elsewhere", false, false}, {"changed here", false, true}, {"deleted", true, false}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				p := w.places["google"]
				p.fails(errDown)
				w.start()
				w.watched()
				w.pass(2 * time.Second)
				w.put(w.change(1, 2, "google"))
				w.pass(2 * time.Second)
				ahead := time.Now().Add(time.Hour)
				if _, err := w.ledger.See(ahead, change.Sighting{Account: account(1), Stamp: stamp(2), Reset: true}, change.Sighting{Whole: true}); err != nil {
					t.Fatal(err)
				}
				w.unwatch()
				w.stop()
				time.Sleep(10 * time.Minute)
				w.all = func() []change.Sighting {
					return []change.Sighting{{Account: account(1), Stamp: stamp(3), Reset: true}, {Whole: true}}
				}
				if c.gone {
					w.tell(change.Sighting{Account: account(1), Gone: true})
					w.all = func() []change.Sighting { return []change.Sighting{{Whole: true}} }
				} else {
					w.sight(1, 3)
				}
				if c.captured {
					w.put(w.change(1, 3, "google"))
				}
				time.Sleep(51 * time.Minute)
				before := len(p.asked())
				p.fails(nil)
				w.start()
				w.pass(time.Second / 2)
				w.stop() // between the look and the question
				w.start()
				w.watched()
				w.pass(quiet)
				for _, sent := range p.asked()[before:] {
					if sent.version != 3 || !c.captured {
						t.Errorf("version %d was sent", sent.version)
					}
				}
				if c.captured {
					p.holds(1, 3)
				}
				w.happened("asked-for-all", 1)
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}

// A start with what an agent wrote meanwhile asks nothing.
func TestOrdinaryStartAsksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.start()
		w.watched()
		w.put(w.change(3, 2, "google"))
		w.pass(5 * time.Second)
		w.stop()
		w.sight(1, 2)
		w.tell(change.Sighting{Account: account(2), Gone: true}, change.Sighting{Account: account(3), Gone: true})
		w.decides(1, 2, change.Lost, "google")
		time.Sleep(5 * time.Second)
		w.start()
		w.pass(10 * time.Second)
		w.happened("asked-for-all", 0)
		w.unwatch()
		w.stop()
	})
}

// A question that is answered within a second is no alarm, however long ago a mark was first missed.
func TestAskingIsNoAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		waited := func(n byte) {
			c := w.change(n, 2, "google")
			c.Proven = c.Proven.Add(-time.Minute)
			w.put(c)
		}
		w.start()
		waited(2) // a mark is missed
		w.pass(2 * time.Second)
		w.watched()
		w.pass(3 * time.Hour)
		w.places["google"].holds(2, 2)
		w.write(change.SightingsFile(time.Now(), "x"), []byte("{"))
		w.pass(8 * time.Second)
		for n := range byte(16) {
			waited(10 + n)
			w.pass(300 * time.Millisecond)
		}
		w.pass(3 * time.Second)
		w.happened("asked-for-all", 1)
		w.happened("watch-stale", 0)
		w.unwatch()
		w.stop()
	})
}

// The directory went back, and the forwarder starts before it has been told: what was delivered, or waits, of the directory's past does not stand in the way of a change that has come since, and which
// has a lower version.
func TestChangeBeforeTheRestoreIsTold(t *testing.T) {
	for _, c := range []struct {
		name                   string
		delivered, gone, noted bool
	}{
		{"the past was delivered", true, false, false}, {"the past was delivered, and the account deleted", true, true, false},
		{"the past waits", false, false, false}, {"the past waits, and the restore was noted before a crash", false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				p := w.places["google"]
				if !c.delivered {
					p.fails(errDown)
				}
				w.start()
				w.watched()
				w.pass(2 * time.Second)
				w.put(w.change(1, 3, "google"))
				w.pass(2 * time.Second)
				if c.gone {
					w.tell(change.Sighting{Account: account(1), Gone: true})
					w.pass(2 * time.Second)
				}
				w.unwatch()
				w.stop()
				time.Sleep(time.Minute)
				reset := change.Sighting{Account: account(1), Stamp: stamp(1)}
				began := time.Now()
				w.write(change.SightingsFile(began, "1"), resets(reset, change.Sighting{Whole: true}))
				if c.noted {
					if err := w.openDatabases(); err != nil {
						t.Fatal(err)
					}
					if _, err := w.ledger.See(began, reset, change.Sighting{Whole: true}); err != nil {
						t.Fatal(err)
					}
					w.close()
				}
				time.Sleep(time.Second)
				w.put(w.change(1, 2, "google"))
				w.all = func() []change.Sighting {
					return []change.Sighting{{Account: account(1), Stamp: stamp(2), Reset: true}, {Whole: true}}
				}
				p.fails(nil)
				time.Sleep(time.Second)
				w.start()
				w.watched()
				w.pass(quiet)
				p.holds(1, 2)
				w.happened("superseded", 0)
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}
