package deliver

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/target"
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
		for _, i := range w.queue.Items() {
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
		w.pass(105 * time.Second)
		var at []time.Time
		for _, c := range p.asked() {
			at = append(at, c.at)
		}
		// Every half a minute, and each after one more look at the directory.
		got, want := since(start, at), []int{0, 0, 0, 0, 0, 30, 60, 90}
		if !slices.EqualFunc(got, want, func(got, want int) bool { return got >= want && got <= want+6 }) {
			t.Errorf("attempts at %v, want %v", got, want)
		}
		attempts := 0
		for _, i := range w.queue.Items() {
			attempts += i.Attempts
		}
		if attempts != 8 {
			t.Errorf("%d attempts were counted", attempts)
		}
		w.happened("target-down", 1)
		if s := w.status("google"); s.State != Down || s.Error != errDown.Error() || !s.Since.Equal(start) {
			t.Errorf("%+v", s)
		}
		p.fails(nil)
		w.pass(10 * time.Minute)
		w.happened("target-up", 1)
		w.settled()
		if s := w.status("google"); s.State != Up || s.Delivered != 40 {
			t.Errorf("%+v", s)
		}
		w.unwatch()
		w.stop()
	})
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
