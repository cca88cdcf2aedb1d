package deliver

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// shows makes the place show when it last took a password, with the whole seconds that Graph has, after a delay, and returns how often it was
// asked.
func (p *place) shows(delay time.Duration) (asked func() int) {
	n := 0
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastChange = func(user string) (time.Time, error) {
		n++
		at := time.Unix(0, 0)
		for _, c := range p.calls {
			if c.user == user && c.err == nil && time.Since(c.at) >= delay {
				at = c.at.Truncate(time.Second)
			}
		}
		return at, nil
	}
	return func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return n
	}
}

// What the target shows is noted, also if it takes its time, and is of the last delivery only.
func TestConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "entra", "google")
		p := w.places["entra"]
		asked := p.shows(30 * time.Second)
		w.start()
		w.watched()
		w.put(w.change(1, 1, "entra", "google"))
		w.pass(5 * time.Second)
		if n := asked(); n != 0 {
			t.Errorf("asked %d times at once", n)
		}
		w.pass(10 * time.Second)
		if s := w.status("entra"); s.Delivered != 1 || s.Confirmed != 0 || asked() != 1 {
			t.Errorf("%+v, asked %d times", s, asked())
		}
		w.pass(2 * time.Minute)
		delivered := p.asked()[0].at
		e, err := w.ledger.Last("entra", account(1).GUID)
		if s := w.status("entra"); err != nil || s.Confirmed != 1 || asked() != 2 || !e.Confirmed.Equal(delivered.Truncate(time.Second)) {
			t.Errorf("%+v, %+v, %v, asked %d times", s, e, err, asked())
		}
		if s := w.status("google"); s.Confirmed != 0 || s.Unconfirmable == "" || s.State != Up {
			t.Errorf("%+v", s)
		}
		w.put(w.change(1, 2, "entra"))
		w.pass(5 * time.Second)
		if s := w.status("entra"); s.Confirmed != 0 || s.Delivered != 1 {
			t.Errorf("%+v", s)
		}
		w.pass(5 * time.Minute)
		if s := w.status("entra"); s.Confirmed != 1 || asked() != 4 {
			t.Errorf("%+v, asked %d times", s, asked())
		}
		w.stop()
		w.start()
		w.pass(time.Minute)
		if s := w.status("entra"); s.Confirmed != 1 || asked() != 4 {
			t.Errorf("after a restart: %+v", s)
		}
		w.unwatch()
		w.stop()
	})
}

// What never shows, is somebody else's, or cannot be asked for, is no confirmation and no alarm, and is given up.
func TestUnconfirmed(t *testing.T) {
	for name, answer := range map[string]func() (time.Time, error){
		"old":      func() (time.Time, error) { return time.Now().Add(-24 * time.Hour), nil },
		"later":    func() (time.Time, error) { return time.Now(), nil },
		"an error": func() (time.Time, error) { return time.Time{}, errors.New("503") },
		"never":    func() (time.Time, error) { return time.Time{}, target.ErrCannotTell },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "entra")
				asked := 0
				w.places["entra"].lastChange = func(string) (time.Time, error) { asked++; return answer() }
				w.start()
				w.watched()
				w.put(w.change(1, 1, "entra"))
				w.pass(time.Hour)
				w.places["entra"].mu.Lock()
				n := asked
				w.places["entra"].mu.Unlock()
				if s := w.status("entra"); s.Confirmed != 0 || s.State != Up || n < 1 || n > len(landingAfter) {
					t.Errorf("%+v, asked %d times", s, n)
				}
				if c := w.log.Counters(); c["forwarder-trouble"] > 0 || c["retry"] > 0 || c["target-down"] > 0 {
					t.Errorf("%v", c)
				}
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}

// Passwords and questions together keep to the target's rate, and no password waits for a question.
func TestConfirmationsKeepToTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "entra")
		w.targets[0].Rate = 10
		asked := w.places["entra"].shows(0)
		w.start()
		w.watched()
		for n := range byte(200) {
			w.put(w.change(n, 1, "entra"))
		}
		w.pass(22 * time.Second)
		if n := len(w.places["entra"].asked()); n != 200 {
			t.Errorf("%d passwords in 22 s at 10 a second", n)
		}
		if n := asked(); n > 22*10+10-200 { // the rate's, and one second's at the beginning
			t.Errorf("%d questions beside them", n)
		}
		w.pass(time.Hour)
		if s := w.status("entra"); s.Confirmed != 200 {
			t.Errorf("%+v", s)
		}
		w.unwatch()
		w.stop()
	})
}
