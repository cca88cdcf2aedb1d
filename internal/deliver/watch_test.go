package deliver

import (
	"context"
	"io/fs"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

// begun returns a watch that has looked for a mark at a time, when there was none.
func begun(now time.Time) (*watch, *event.Log) {
	log := event.New(slog.New(slog.DiscardHandler))
	w := &watch{log: log}
	w.set(change.Mark{AsOf: time.Time{}}, now)
	return w, log
}

func TestWindow(t *testing.T) {
	begin := time.Now()
	now := begin.Add(time.Hour)
	for _, c := range []struct {
		name      string
		mark, due time.Time
	}{
		{"no mark", time.Time{}, time.Time{}},
		{"just now", now, now},
		{"a while ago", now.Add(-59 * time.Second), now.Add(-59 * time.Second)},
		{"a minute ago", now.Add(-time.Minute), now.Add(-time.Minute)},
		{"too long ago", now.Add(-time.Minute - 1), time.Time{}},
		{"not yet", now.Add(1), time.Time{}},
	} {
		w, _ := begun(begin)
		w.set(change.Mark{AsOf: c.mark.Round(0)}, now)
		proven, due := w.window(now)
		if !proven.Equal(now.Add(-provenFor)) || !due.Equal(c.due) {
			t.Errorf("%s: proven %v, due %v", c.name, proven, due)
		}
	}
}

// A mark from before we started says nothing: the clock may have been set since, and then it only looks fresh.
func TestMarkFromBeforeTheStart(t *testing.T) {
	now := time.Now()
	w := &watch{log: event.New(slog.New(slog.DiscardHandler))}
	for range 3 {
		if w.set(change.Mark{AsOf: now.Round(0)}, now.Add(time.Second)) {
			t.Error("it is news")
		}
	}
	if _, due := w.window(now.Add(time.Second)); !due.IsZero() {
		t.Errorf("due %v", due)
	}
	next := now.Add(2 * time.Second)
	if !w.set(change.Mark{AsOf: next.Round(0)}, next) {
		t.Error("the next one is not")
	}
	if _, due := w.window(next); !due.Equal(next) {
		t.Errorf("due %v", due)
	}
}

// However the clock is set, and whether there is an agent or not: nothing is sent under a mark that is older than a minute in truth, nor as
// just proven; and with an agent, nothing waits for longer than until its next mark.
func TestClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{-24 * time.Hour, -time.Hour, -30 * time.Second, 30 * time.Second, time.Hour, 24 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			begin := time.Now()
			truth := begin
			w, log := begun(begin)
			truth = truth.Add(2 * time.Hour)
			last := truth // the last mark before the clock is set
			if !w.set(change.Mark{AsOf: last.Round(0)}, truth) {
				t.Fatal("a mark is no news")
			}
			proof := truth // of an item that waits, never tried
			retry := truth.Add(10 * time.Second)

			// The agent ends with that. What the clock says now comes closer to the mark, and away from it again.
			for range 3 * 3600 {
				truth = truth.Add(time.Second)
				now := trial.ClockSet(truth, by)
				w.set(change.Mark{AsOf: last.Round(0)}, now)
				if proven, due := w.window(now); !due.IsZero() || !proof.Before(proven) {
					t.Fatalf("%v after the mark: proven %v, due %v", truth.Sub(last), proven, due)
				}
			}
			if n := log.Counters()["clock-set"]; n != 1 {
				t.Errorf("it was said %d times that the clock was set", n)
			}

			// It comes back.
			now := trial.ClockSet(truth, by)
			w.set(change.Mark{AsOf: now.Round(0)}, now)
			if proven, due := w.window(now); retry.After(due) || !proof.Before(proven) {
				t.Errorf("with a new mark: proven %v, due %v", proven, due)
			}

			// The clock is set once more, between the writing of a mark and its being read, and the agent goes on.
			written := now.Round(0)
			truth = truth.Add(time.Second)
			retry = truth
			now = trial.ClockSet(truth, 0)
			w.set(change.Mark{AsOf: written}, now)
			if _, due := w.window(now); due.After(truth) {
				t.Errorf("a mark that was written before the clock was set covers what came after: %v", due)
			}
			truth = truth.Add(time.Second)
			w.set(change.Mark{AsOf: truth.Round(0)}, truth)
			if _, due := w.window(truth); retry.After(due) {
				t.Errorf("a second later, due %v", due)
			}
		})
	}
}

// While the machine slept, the clock that nobody sets stood still, and the other did not.
func TestMachineSlept(t *testing.T) {
	begin := time.Now()
	w, log := begun(begin)
	now := begin.Add(time.Second)
	w.set(change.Mark{AsOf: now.Round(0)}, now)
	awake := trial.ClockSet(now.Add(500*time.Millisecond), 2*time.Hour)
	if proven, due := w.window(awake); !due.IsZero() || !now.Before(proven) {
		t.Errorf("proven %v, due %v", proven, due)
	}
	if n := log.Counters()["clock-set"]; n != 1 {
		t.Errorf("clock-set happened %d times", n)
	}
	if s := w.status(awake); s.Fresh || !s.AsOf.IsZero() {
		t.Errorf("%+v", s)
	}
}

// Clocks that are corrected little by little are none that were set.
func TestClockIsSlewed(t *testing.T) {
	begin := time.Now()
	w, log := begun(begin)
	for second := range 3600 {
		d := time.Duration(second) * time.Second
		now := trial.ClockSet(begin.Add(d), d/1000)
		w.set(change.Mark{AsOf: now.Round(0)}, now)
		if _, due := w.window(now); second > 0 && due.IsZero() {
			t.Fatalf("stale after %v", d)
		}
	}
	if n := log.Counters()["clock-set"]; n != 0 {
		t.Errorf("clock-set happened %d times", n)
	}
}

// What was found in the queue waits for the watch, however recently it was proven: the clock may have been set meanwhile.
func TestWaitedSinceTheLastRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.answers(func(ctx context.Context, _, _ string) error { <-ctx.Done(); return ctx.Err() })
		w.start()
		w.put(w.change(1, 1, "google"))
		w.pass(2 * time.Second)
		w.stop() // gives the attempt up
		p.fails(nil)
		w.start()
		w.pass(quiet)
		p.holds(1, 0)
		w.watched()
		w.pass(3 * time.Second)
		p.holds(1, 1)
		w.unwatch()
		w.stop()
	})
}

// The clock was set back by a day while we were down: retries are due within the hour, not in a day.
func TestRetryAfterTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.fails(errDown)
		w.start()
		w.put(w.change(1, 1, "google"))
		w.pass(2 * time.Second)
		w.stop()
		w.open()
		lease, ok, _ := w.queue.Lease("google", time.Time{}, time.Now().Add(quiet))
		if !ok {
			t.Fatal("nothing waits")
		}
		if err := w.queue.Return(lease.Retry(time.Now().Add(24*time.Hour), lease.Class, lease.Reason)); err != nil {
			t.Fatal(err)
		}
		w.close()
		p.fails(nil)
		w.start()
		w.watched()
		w.pass(time.Hour + 3*time.Second)
		p.holds(1, 1)
		w.unwatch()
		w.stop()
	})
}

// When the clock is set back, what was before is told by the last look before it, in today's time.
func TestSetBack(t *testing.T) {
	begin := time.Now()
	w, _ := begun(begin)
	for _, c := range []struct {
		passed, by time.Duration
		want       time.Duration // after begin; 0: nothing
	}{
		{time.Second, 0, 0},
		{2 * time.Second, time.Hour, 0}, // ahead
		{3 * time.Second, time.Hour, 0},
		{5 * time.Second, 0, 3 * time.Second}, // back
		{6 * time.Second, 0, 3 * time.Second},
		{7 * time.Second, -time.Minute, 6*time.Second - time.Minute}, // once more, and the first has not been dealt with
	} {
		got := w.setBack(trial.ClockSet(begin.Add(c.passed), c.by))
		if want := begin.Round(0).Add(c.want); c.want == 0 && !got.IsZero() || c.want != 0 && !got.Equal(want) {
			t.Errorf("after %v, set by %v: %v, want %v", c.passed, c.by, got, c.want)
		}
	}
	w.past(begin) // of another
	back := w.setBack(trial.ClockSet(begin.Add(8*time.Second), -time.Minute))
	if back.IsZero() {
		t.Error("it was forgotten")
	}
	if w.past(back); !w.setBack(trial.ClockSet(begin.Add(9*time.Second), -time.Minute)).IsZero() {
		t.Error("it was not")
	}
}

// An agent that was killed after it had made a file, and before it had made it the forwarder's to read: what the file was to say is asked for, and it is set aside.
func TestFileThatMayNotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.open()
		f, name := w.f, "1-1-x"+change.SightingsSuffix
		w.write(name, nil)
		denied := func(string, []byte) (int, error) {
			return 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
		} // root may read all
		for _, step := range []struct {
			wait time.Duration
			want found
		}{{0, unclear}, {tornFor - 1, unclear}, {1, unclear}, {time.Second, gone}} {
			time.Sleep(step.wait)
			if _, got := read(f, f.sights, name, denied); got != step.want {
				t.Errorf("after %v: %v, want %v", step.wait, got, step.want)
			}
			if asks, err := f.awaitsAll(); err != nil || asks != (step.wait == 1 || step.want == gone) {
				t.Errorf("after %v: it waits for all: %v, %v", step.wait, asks, err)
			}
		}
		w.write(name, []byte("something"))
		for range 60 { // whoever took our right to read this one away may give it back
			if _, got := read(f, f.sights, name, denied); got != unclear {
				t.Errorf("one that is not empty: %v", got)
			}
			time.Sleep(time.Second)
		}
		if aside, err := f.sights.Damaged(); err != nil || len(aside) != 1 {
			t.Errorf("set aside: %q, %v", aside, err)
		}
		w.close()
	})
}
