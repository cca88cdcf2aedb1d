package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestDelay(t *testing.T) {
	for _, c := range []struct {
		before int
		asked  time.Duration
		random float64
		want   time.Duration
	}{
		{0, 0, 0, 0},
		{0, 0, 0.5, time.Second},
		{0, 0, 1, 2 * time.Second},
		{1, 0, 1, 4 * time.Second},
		{2, 0, 0.25, 2 * time.Second},
		{8, 0, 1, 512 * time.Second},
		{9, 0, 1, 15 * time.Minute},
		{1 << 40, 0, 1, 15 * time.Minute},
		{1 << 40, 0, 0.5, 7*time.Minute + 30*time.Second},
		{0, 10 * time.Second, 1, 10 * time.Second},
		{9, 10 * time.Second, 1, 15 * time.Minute},
		{0, 24 * time.Hour, 1, time.Hour},
		{0, -time.Second, 0, 0},
	} {
		if got := delay(c.before, c.asked, c.random); got != c.want {
			t.Errorf("delay(%d, %v, %v) = %v, want %v", c.before, c.asked, c.random, got, c.want)
		}
	}
}

func TestDownPause(t *testing.T) {
	for _, c := range []struct {
		before int
		random float64
		want   time.Duration
	}{
		{0, 0, 30 * time.Second},
		{0, 1, 22500 * time.Millisecond},
		{1, 0, time.Minute},
		{2, 0.5, 105 * time.Second},
		{4, 0, 8 * time.Minute},
		{5, 0, 10 * time.Minute},
		{1 << 40, 0, 10 * time.Minute},
		{1 << 40, 1, 7*time.Minute + 30*time.Second},
	} {
		if got := downPause(c.before, c.random); got != c.want {
			t.Errorf("downPause(%d, %v) = %v, want %v", c.before, c.random, got, c.want)
		}
	}
}

// since returns the seconds from start at which things happened.
func since(start time.Time, times []time.Time) (seconds []int) {
	for _, t := range times {
		seconds = append(seconds, int(t.Sub(start).Round(time.Second)/time.Second))
	}
	return seconds
}

func TestDeniedStopsTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		denied := errors.Join(target.ErrDenied, errors.New("grant the scope"))
		p.fails(denied)
		p.checksWith(denied)
		for n := range byte(5) {
			w.put(w.change(n, 1, "google"))
		}
		w.targets[0].Workers = 1
		w.start()
		w.watched()
		start := time.Now()
		w.pass(700 * time.Second)
		if n := len(p.asked()); n != 1 {
			t.Errorf("%d attempts at a target that denies", n)
		}
		if got, want := since(start, p.checks), []int{10, 30, 70, 150, 310, 610}; !slices.Equal(got, want) {
			t.Errorf("probed at %v, want %v", got, want)
		}
		w.happened("target-denied", 1)
		s := w.status("google")
		if s.State != Denied || s.Error != denied.Error() || s.Waiting != 5 || !s.Since.Equal(start) {
			t.Errorf("%+v", s)
		}
		for _, i := range w.items() {
			if i.Attempts != 0 {
				t.Errorf("%s lost an attempt", i.User)
			}
		}
		// A new change makes it look at once; another one right after it does not.
		p.checks = nil
		start = time.Now()
		w.put(w.change(6, 1, "google"))
		w.pass(2 * time.Second)
		w.put(w.change(7, 1, "google"))
		w.pass(20 * time.Second)
		if got := since(start, p.checks); len(got) != 2 || got[0] > 1 || got[1] != got[0]+10 {
			t.Errorf("probed at %v", got)
		}
		p.fails(nil)
		p.checksWith(nil)
		w.pass(5 * time.Minute)
		w.happened("target-up", 1)
		w.settled()
		if s := w.status("google"); s.State != Up || s.Error != "" || s.Delivered != 7 {
			t.Errorf("%+v", s)
		}
		w.unwatch()
		w.stop()
	})
}

// Check is content, and setting a password is denied all the same: the pauses grow, and nobody is asked without end.
func TestDeniedThoughCheckIsContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.fails(target.ErrDenied)
		w.put(w.change(1, 1, "google"))
		w.start()
		w.watched()
		w.pass(time.Hour)
		if n := len(p.asked()); n < 10 || n > 20 {
			t.Errorf("%d attempts in an hour", n)
		}
		w.unwatch()
		w.stop()
	})
}

func TestThrottledPausesTheTarget(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{90 * time.Second: 90 * time.Second, 24 * time.Hour: time.Hour} {
		t.Run(asked.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				w.targets[0].Workers = 1
				p := w.places["google"]
				p.answers(func(context.Context, string, string) error {
					p.fails(nil)
					return target.RetryAfter(errors.New("too many"), asked)
				})
				w.put(w.change(1, 1, "google"))
				w.put(w.change(2, 1, "google"))
				w.start()
				w.watched()
				start := time.Now()
				w.pass(2 * time.Second)
				if s := w.status("google"); s.State != Throttled || s.Waiting != 2 || s.Error == "" {
					t.Errorf("%+v", s)
				}
				w.pass(2 * want)
				calls := p.asked()
				if len(calls) != 3 || calls[1].at.Sub(start) < want || calls[1].at.Sub(start) > want+3*time.Second {
					t.Errorf("asked %+v", calls)
				}
				w.settled()
				if s := w.status("google"); s.State != Up {
					t.Errorf("%+v", s)
				}
				w.unwatch()
				w.stop()
			})
		})
	}
}

// A pause that the target asked for holds after a restart, and for every item.
func TestThrottledThroughARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.targets[0].Workers = 1
		p := w.places["google"]
		p.fails(target.RetryAfter(errors.New("too many"), 50*time.Minute))
		w.put(w.change(1, 1, "google"))
		w.put(w.change(2, 1, "google"))
		w.start()
		w.watched()
		start := time.Now()
		w.pass(2 * time.Second)
		w.stop()
		p.fails(nil)
		w.start()
		w.put(w.change(3, 1, "google"))
		w.pass(45 * time.Minute)
		if n := len(p.asked()); n != 1 {
			t.Errorf("%d attempts within the pause", n)
		}
		if s := w.status("google"); s.State != Throttled || s.Waiting != 3 || s.Error == "" {
			t.Errorf("%+v", s)
		}
		w.pass(10 * time.Minute)
		w.settled()
		if calls := p.asked(); len(calls) != 4 || calls[1].at.Sub(start) < 50*time.Minute {
			t.Errorf("asked %+v", calls)
		}
		w.unwatch()
		w.stop()
	})
}

func TestDownTargetIsProbedWithOneItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.targets[0].Workers = 1
		p := w.places["google"]
		p.fails(errDown)
		for n := range byte(40) {
			w.put(w.change(n, 1, "google"))
		}
		start := time.Now()
		w.start()
		w.watched()
		w.pass(time.Hour)
		calls := p.asked()
		if len(calls) < 12 {
			t.Fatalf("%d attempts in an hour", len(calls))
		}
		for i, c := range calls {
			if i < failuresUntilDown {
				if c.at.After(start.Add(time.Second)) {
					t.Errorf("attempt %d came %v after the start", i, c.at.Sub(start))
				}
				continue
			}
			// The pauses grow, and each ends with one more look at the directory, or with the first item that is due.
			least, most := downPause(i-failuresUntilDown, 1), downPause(i-failuresUntilDown, 0)
			if pause := c.at.Sub(calls[i-1].at); pause < least || pause > most+10*time.Second {
				t.Errorf("attempt %d came after %v, want %v to %v", i, pause, least, most)
			}
		}
		attempts := 0
		for _, i := range w.items() {
			attempts += i.Attempts
		}
		if attempts != len(calls) {
			t.Errorf("%d attempts were counted of %d", attempts, len(calls))
		}
		w.happened("target-down", 1)
		if s := w.status("google"); s.State != Down || s.Error != errDown.Error() || !s.Since.Equal(start) {
			t.Errorf("%+v", s)
		}
		// A new change makes it look soon, but not all the time.
		n := len(p.asked())
		for v := range byte(10) {
			w.put(w.change(50+v, 1, "google"))
			w.pass(10 * time.Second)
		}
		if n := len(p.asked()) - n; n < 3 || n > 6 {
			t.Errorf("%d attempts in 100 seconds of changes", n)
		}
		p.fails(nil)
		w.pass(25 * time.Minute)
		w.happened("target-up", 1)
		w.settled()
		if s := w.status("google"); s.State != Up || s.Delivered != 50 {
			t.Errorf("%+v", s)
		}
		w.unwatch()
		w.stop()
	})
}

// Failures in a row make a target down; those of one account only when there are many, for they may be about it.
func TestWhenATargetIsDown(t *testing.T) {
	const taken, failed, refused, denied, unused = 0, 1, 2, 3, 4
	errs := []error{nil, errDown, target.ErrNoUser, target.ErrDenied, errUnused}
	type step struct {
		account byte
		what    int
		times   int
	}
	for name, c := range map[string]struct {
		steps []step
		want  bool
	}{
		"four of several":              {[]step{{1, failed, 2}, {2, failed, 2}}, false},
		"five of several":              {[]step{{1, failed, 4}, {2, failed, 1}}, true},
		"five of several, mixed":       {[]step{{1, failed, 1}, {2, failed, 1}, {1, failed, 3}}, true},
		"nine of one":                  {[]step{{1, failed, 9}}, false},
		"nine of one, then another":    {[]step{{1, failed, 9}, {2, failed, 1}}, true},
		"ten of one":                   {[]step{{1, failed, 10}}, true},
		"another's before one taken":   {[]step{{2, failed, 1}, {3, taken, 1}, {1, failed, 9}}, false},
		"another's before one refused": {[]step{{2, failed, 1}, {3, refused, 1}, {1, failed, 9}}, false},
		"attempts that were not made":  {[]step{{1, failed, 4}, {2, unused, 9}, {1, failed, 5}}, false},
		"denied in between":            {[]step{{1, failed, 4}, {3, denied, 1}, {2, failed, 1}}, true},
	} {
		h := newHealth("google", event.New(slog.New(slog.DiscardHandler)))
		for _, s := range c.steps {
			for range s.times {
				done, err := h.breaker.Allow()
				if err != nil {
					t.Fatalf("%s: down before the last step: %v", name, err)
				}
				if s.what == unused {
					done(errUnused)
				} else {
					h.attempted(dsdb.GUID{s.account}, errs[s.what], done)
				}
			}
		}
		if got := !h.down.IsZero(); got != c.want {
			t.Errorf("%s: down is %v", name, got)
		}
	}
}

// Refused accounts say nothing about the target.
func TestRefusalsDoNotBringATargetDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		w.places["google"].fails(target.ErrNoUser)
		for n := range byte(20) {
			w.put(w.change(n, 1, "google"))
		}
		w.start()
		w.pass(2 * time.Second)
		w.happened("parked", 20)
		w.happened("target-down", 0)
		w.stop()
	})
}

// forbidding is a place that does not let us set some users' passwords.
func forbidding(users ...string) func(context.Context, string, string) error {
	return func(_ context.Context, user, _ string) error {
		if slices.Contains(users, user) {
			return target.ErrForbidden
		}
		return nil
	}
}

// One 403 never stops the target, nor is the password lost: it waits until it is known whose fault that is. Here it is the user's.
func TestForbiddenForOneUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.answers(forbidding(user(1)))
		w.start()
		w.watched()
		w.put(w.change(1, 1, "google"))
		w.pass(time.Hour)
		w.happened("target-denied", 0)
		w.happened("parked", 0)
		if s := w.status("google"); s.State != Up || s.Waiting != 1 || len(w.files()) != 1 {
			t.Errorf("%+v", s)
		}
		if n, checks := len(p.asked()), len(p.checks); n < 5 || n > 40 || checks < 1 || checks > n {
			t.Errorf("%d attempts, %d checks", n, checks)
		}
		w.put(w.change(2, 1, "google"))
		w.pass(2 * time.Second)
		p.holds(2, 1)
		w.pass(20 * time.Minute)
		w.happened("parked", 1)
		w.settled()
		if s := w.f.Status(); len(s.Parked) != 1 || s.Parked[0].Class != target.Forbidden || s.Drift["forbidden"] != 1 {
			t.Errorf("%+v", s)
		}
		p.answers(nil)
		w.put(w.change(1, 2, "google"))
		w.pass(2 * time.Second)
		p.holds(1, 2)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// The probe is refused as well: the target is stopped, and nothing is lost.
func TestForbiddenAndProbeDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.fails(target.ErrForbidden)
		p.checksWith(fmt.Errorf("%w: give the role", target.ErrDenied))
		w.start()
		w.watched()
		w.put(w.change(1, 1, "google"))
		w.pass(2 * time.Second)
		if s := w.status("google"); s.State != Denied || !strings.Contains(s.Error, "give the role") || s.Waiting != 1 {
			t.Errorf("%+v", s)
		}
		w.pass(time.Hour)
		if n := len(p.asked()); n != 1 {
			t.Errorf("%d attempts", n)
		}
		p.fails(nil)
		p.checksWith(nil)
		w.pass(6 * time.Minute)
		p.holds(1, 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// We may look and not write: the same answer for several accounts, and for none the opposite, is about us.
func TestForbiddenForEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		w.start()
		w.watched()
		w.put(w.change(9, 1, "google"))
		w.pass(2 * time.Second)
		p.holds(9, 1)
		p.fails(fmt.Errorf("%w: reset right missing", target.ErrForbidden)) // taken away meanwhile
		for n := range byte(2) {
			w.put(w.change(n, 1, "google"))
		}
		w.pass(5 * time.Minute)
		w.happened("target-denied", 0)
		for n := range byte(5) {
			w.put(w.change(10+n, 1, "google"))
		}
		w.pass(2 * time.Second)
		if s := w.status("google"); s.State != Denied || !strings.Contains(s.Error, "reset right missing") {
			t.Errorf("%+v", s)
		}
		w.doze(24 * time.Hour)
		w.happened("parked", 0)
		if s := w.status("google"); s.Waiting != 7 {
			t.Errorf("%+v", s)
		}
		if n := len(p.asked()); n > 3000 {
			t.Errorf("%d attempts in a day", n)
		}
		p.fails(nil)
		w.pass(20 * time.Minute)
		for _, n := range []byte{0, 1, 10, 11, 12, 13, 14} {
			p.holds(n, 1)
		}
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// While it cannot be asked whose fault it is, nobody is to blame.
func TestForbiddenAndProbeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := w.places["google"]
		p.fails(target.ErrForbidden)
		p.checksWith(errDown)
		w.start()
		w.watched()
		w.put(w.change(1, 1, "google"))
		for w.log.Counters()["retry"] == 0 { // the next one may come at any time after the first
			w.pass(time.Millisecond)
		}
		w.happened("target-denied", 0)
		w.happened("parked", 0)
		w.happened("retry", 1)
		p.fails(nil)
		w.pass(quiet)
		p.holds(1, 1)
		w.settled()
		w.unwatch()
		w.stop()
	})
}
