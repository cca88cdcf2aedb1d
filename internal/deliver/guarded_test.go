package deliver

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// panicky is a place whose code panics while it is ill: with what it was sent, as a library might that quotes what it cannot read.
type panicky struct {
	*place
	ill             atomic.Bool
	checked, looked atomic.Int64 // how often it panicked there
}

func (p *panicky) SetPassword(ctx context.Context, u target.User, s secret.Secret) error {
	if p.ill.Load() {
		panic("cannot read " + string(s.Bytes()))
	}
	return p.place.SetPassword(ctx, u, s)
}

func (p *panicky) Check(ctx context.Context) error {
	if p.ill.Load() {
		p.checked.Add(1)
		_ = nothing().Name
	}
	return p.place.Check(ctx)
}

// nothing is what a decoder may make of "null".
func nothing() *target.User { return nil }

func (p *panicky) LastChange(ctx context.Context, u target.User) (time.Time, error) {
	if p.ill.Load() {
		p.looked.Add(1)
		panic(u)
	}
	return p.place.LastChange(ctx, u)
}

// A target whose code panics is a target that fails: its breaker opens, the others go on, and what waited arrives when it is well again. No
// word of the panic is told.
func TestTargetThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		p := &panicky{place: w.places["google"]}
		w.targets[0].Target = p
		p.ill.Store(true)
		w.start()
		w.watched()
		const accounts = 12
		for n := byte(1); n <= accounts; n++ {
			w.put(w.change(n, 1, "google", "entra"))
		}
		w.pass(time.Minute)
		s := w.status("google")
		if s.State != Down || s.Waiting != accounts || !strings.HasPrefix(s.Error, "the target's code failed in guarded_test.go:") {
			t.Errorf("%+v", s)
		}
		for n := byte(1); n <= accounts; n++ {
			w.places["entra"].holds(n, 1)
		}
		p.ill.Store(false)
		w.pass(time.Hour)
		for n := byte(1); n <= accounts; n++ {
			w.places["google"].holds(n, 1)
		}
		w.settled()
		w.unwatch()
		w.stop()
		if text := w.text.String(); strings.Contains(text, "Canary") || !strings.Contains(text, "the target's code failed in guarded_test.go:") {
			t.Errorf("logged:\n%s", text)
		}
	})
}

// So it is where it is asked how it is, or whether a password has arrived.
func TestQuestionsThatPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google")
		p := &panicky{place: w.places["google"]}
		w.targets[0].Target = p
		p.lastChange = func(string) (time.Time, error) { return time.Now(), nil }
		w.start()
		w.watched()
		w.put(w.change(1, 1, "google"))
		w.pass(5 * time.Second)
		p.holds(1, 1)
		p.ill.Store(true)
		w.pass(10 * time.Second)
		p.ill.Store(false)
		p.fails(target.ErrDenied)
		w.put(w.change(1, 2, "google"))
		w.pass(5 * time.Second)
		p.ill.Store(true)
		w.pass(10 * time.Minute)
		if s := w.status("google"); s.State != Denied || p.checked.Load() == 0 || p.looked.Load() == 0 {
			t.Errorf("%+v; it panicked %d times at Check, %d at LastChange", s, p.checked.Load(), p.looked.Load())
		}
		p.ill.Store(false)
		p.fails(nil)
		w.pass(time.Hour)
		p.holds(1, 2)
		w.settled()
		w.unwatch()
		w.stop()
	})
}
