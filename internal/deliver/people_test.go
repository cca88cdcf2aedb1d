package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// queued lists what is in the queue, as "target account@version state".
func (w *world) queued(name string) (list []string) {
	w.Helper()
	err := w.f.Queue(name, func(q Queued) error {
		list = append(list, fmt.Sprintf("%s %s@%d %s", q.Target, q.Account, q.Stamp.Version, q.State))
		if q.Sealed != (q.State != Refused) || q.Due.IsZero() != (q.State == Refused) {
			w.Errorf("%+v", q)
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// tale returns the one story of a name, and what it says of a target.
func (w *world) tale(name, at string) (Story, TargetStory) {
	w.Helper()
	s, err := w.f.Why(name)
	if err != nil || len(s.Accounts) != 1 {
		w.Fatalf("why %s: %+v, %v", name, s, err)
	}
	i := slices.IndexFunc(s.Accounts[0].Targets, func(t TargetStory) bool { return t.Target == at })
	return s.Accounts[0], s.Accounts[0].Targets[i]
}

// slow is a target's answer that takes a while.
func slow(d time.Duration, answer func() error) func(context.Context, string, string) error {
	return func(context.Context, string, string) error {
		time.Sleep(d)
		return answer()
	}
}

func TestDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		google, entra := w.places["google"], w.places["entra"]
		google.fails(errDown)
		entra.fails(errDown)
		w.start()
		w.watched()
		w.put(w.change(1, 1, "google", "entra"))
		w.put(w.change(2, 1, "google"))
		w.pass(5 * time.Second)

		// At one target: the other one still needs the password.
		g, err := w.f.Drop("USER1", "google")
		if err != nil || len(g.Dropped) != 1 || g.Dropped[0].Target != "google" || !slices.Equal(g.Kept, []string{"entra"}) || len(w.files()) != 2 {
			t.Errorf("%+v, %v, %q", g, err, w.files())
		}
		if got, want := w.queued(""), []string{"entra user1@1 waiting", "google user2@1 waiting"}; !slices.Equal(got, want) {
			t.Errorf("queued %q", got)
		}
		// At all: it is shredded at once.
		g, err = w.f.Drop(account(1).GUID.String(), "")
		if err != nil || len(g.Dropped) != 1 || len(g.Kept) != 0 || len(w.files()) != 1 {
			t.Errorf("%+v, %v, %q", g, err, w.files())
		}
		w.happened("dropped", 2)
		w.pass(2 * time.Minute)
		for _, name := range []string{"user1", "nobody", ""} {
			if g, err := w.f.Drop(name, ""); err != nil || len(g.Dropped) != 0 {
				t.Errorf("drop %q once more: %+v, %v", name, g, err)
			}
		}

		// The record is kept over a restart, nothing comes back, and the next change goes as ever.
		w.stop()
		w.start()
		google.fails(nil)
		entra.fails(nil)
		w.pass(15 * time.Minute)
		w.drifts("user1@1 entra dropped", "user1@1 google dropped")
		google.holds(1, 0)
		google.holds(2, 1)
		if _, s := w.tale("user1", "google"); s.Outcome == nil || s.Outcome.Class != "dropped" || s.Missing != "dropped" || s.Delivered != nil {
			t.Errorf("%+v", s)
		}
		w.put(w.change(1, 2, "google", "entra"))
		w.pass(2 * time.Second)
		w.drifts()
		google.holds(1, 2)

		// What is parked leaves the queue, and its outcome stays.
		entra.fails(target.ErrRejected)
		w.put(w.change(1, 3, "google", "entra"))
		w.pass(2 * time.Second)
		if g, err := w.f.Drop("user1@example.com", ""); err != nil || len(g.Dropped) != 1 || g.Dropped[0].State != Refused {
			t.Errorf("%+v, %v", g, err)
		}
		w.drifts("user1@3 entra rejected")
		if n := len(w.f.Status().Parked); n != 0 {
			t.Errorf("%d parked", n)
		}
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// Of a request that is under way the password may arrive all the same, and the ledger then says so. It is not sent again.
func TestDropDuringAnAttempt(t *testing.T) {
	for name, arrives := range map[string]bool{"it arrives": true, "it fails": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google")
				p := w.places["google"]
				p.answers(slow(10*time.Second, func() error {
					if arrives {
						return nil
					}
					return errDown
				}))
				w.start()
				w.watched()
				w.put(w.change(1, 1, "google"))
				w.pass(3 * time.Second)
				if got, want := w.queued("google"), []string{"google user1@1 trying"}; !slices.Equal(got, want) {
					t.Errorf("queued %q", got)
				}
				g, err := w.f.Drop("user1", "")
				if err != nil || len(g.Dropped) != 1 || g.Dropped[0].State != Trying || len(w.files()) != 0 {
					t.Errorf("%+v, %v, %q", g, err, w.files())
				}
				w.pass(10 * time.Minute)
				if n := len(p.asked()); n != 1 {
					t.Errorf("%d attempts", n)
				}
				_, s := w.tale("user1", "google")
				if arrives {
					w.drifts()
					p.holds(1, 1)
					if s.Delivered == nil || !s.Delivered.Newest || s.Missing != "" {
						t.Errorf("%+v", s)
					}
				} else {
					w.drifts("user1@1 google dropped")
				}
				w.settled()
				w.unwatch()
				w.stop()
			})
		})
	}
}

func TestRetryNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		google, entra := w.places["google"], w.places["entra"]
		google.fails(errDown)
		entra.fails(target.ErrDenied)
		entra.checksWith(target.ErrDenied)
		w.start()
		w.watched()
		for n := range byte(8) {
			w.put(w.change(1+n, 1, "google", "entra"))
		}
		w.doze(3 * time.Hour) // by now both are looked at every few minutes only
		google.fails(nil)
		start := time.Now()
		r, err := w.f.Retry("", "google")
		if err != nil || r.Due != 8 || r.Parked+r.Settling+r.Trying != 0 || len(r.Paused) > 0 {
			t.Errorf("%+v, %v", r, err)
		}
		w.pass(10 * time.Second)
		if s := w.status("google"); s.State != Up || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		if s := w.status("entra"); s.State != Denied || s.Waiting != 8 {
			t.Errorf("%+v", s)
		}
		entra.fails(nil)
		entra.checksWith(nil)
		if r, err := w.f.Retry("user3", ""); err != nil || r.Due != 1 || len(r.Accounts) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		w.pass(10 * time.Second)
		w.settled()
		if took := time.Since(start); took > time.Minute {
			t.Errorf("it took %v", took)
		}

		// Parked ones have no password any more; a pause that the target asked for is kept.
		google.fails(target.ErrNoUser)
		entra.fails(target.RetryAfter(errors.New("too many"), 40*time.Minute))
		w.put(w.change(1, 2, "google", "entra"))
		w.pass(2 * time.Second)
		r, err = w.f.Retry("", "")
		if err != nil || r.Due != 1 || r.Parked != 1 || len(r.Paused) != 1 || time.Until(r.Paused["entra"]) < 39*time.Minute {
			t.Errorf("%+v, %v", r, err)
		}
		n := len(entra.asked())
		w.pass(30 * time.Minute)
		if len(entra.asked()) != n {
			t.Error("the pause was not kept")
		}
		for _, name := range []string{"nobody", "user77"} {
			if r, err := w.f.Retry(name, ""); err != nil || len(r.Accounts)+r.Due+r.Parked != 0 {
				t.Errorf("retry %q: %+v, %v", name, r, err)
			}
		}
		w.unwatch()
		w.stop()
	})
}

// A target that is tried by hand at the very moment at which it failed once too often: when its pause is over, the breaker's is, too.
func TestHurryRightAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		h := newHealth("google", w.log)
		for n := range failuresUntilDown {
			done, err := h.breaker.Allow()
			if err != nil {
				t.Fatal(err)
			}
			h.attempted(dsdb.GUID{byte(n)}, errDown, done)
		}
		h.hurry()
		state, until := h.stopped(time.Now())
		if state != Down || time.Until(until) > time.Second {
			t.Fatalf("%s for %v", state, time.Until(until))
		}
		time.Sleep(time.Until(until))
		if state, _ := h.stopped(time.Now()); state != Up {
			t.Error(state)
		}
		if _, err := h.breaker.Allow(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		google, entra := w.places["google"], w.places["entra"]
		w.start()
		w.watched()
		w.pass(2 * time.Second)
		google.answers(slow(41*time.Millisecond, func() error { return nil }))
		entra.fails(fmt.Errorf("%w: it has fewer than 3 of 4 character classes", target.ErrRejected))
		w.put(w.change(1, 1, "google", "entra"))
		w.decides(1, 1, change.Lost, "google", "entra")
		w.pass(3 * time.Second)
		for _, name := range []string{"user1", "User1", "USER1@example.COM", account(1).GUID.String(), strings.ToUpper(account(1).GUID.String())} {
			s, at := w.tale(name, "google")
			if s.Account != "user1" || s.UserPrincipalName != "user1@example.com" || !s.Decided || s.DC != "DC1" || s.Stamp.Version != 1 || s.Gone {
				t.Errorf("%s: %+v", name, s)
			}
			// The change lay there for up to a second before it was looked for.
			if d := at.Delivered; d == nil || !d.Newest || d.Took < 41*time.Millisecond || d.Took > 1100*time.Millisecond || d.FirstAt.IsZero() || at.Missing != "" || !at.Wanted {
				t.Errorf("%s: %+v", name, at)
			}
			if _, at = w.tale(name, "entra"); at.Missing != "rejected" || at.Outcome.Attempts != 1 || at.Queued.State != Refused || at.Delivered != nil {
				t.Errorf("%s: %+v", name, at)
			}
		}
		// What the targets hold is told while something newer waits.
		google.fails(errDown)
		w.put(w.change(1, 2, "google"))
		w.pass(2 * time.Second)
		s, at := w.tale("user1", "google")
		if s.Stamp.Version != 2 || at.Queued == nil || at.Queued.State != Pending || at.Queued.Attempts == 0 || at.Queued.Class != target.Temporary ||
			at.Delivered == nil || at.Delivered.Newest || at.Delivered.Stamp.Version != 1 || at.Missing != "" {
			t.Errorf("%+v %+v", s, at)
		}
		// By its name at a target, which may be two accounts', and by none.
		c := w.change(2, 1, "google")
		c.Routes[0].User = "info@example.com"
		w.put(c)
		w.pass(2 * time.Second)
		if s, _ := w.tale("INFO@example.com", "google"); s.Account != "user2" {
			t.Errorf("%+v", s)
		}
		c = w.change(3, 1, "entra")
		c.Routes[0].User = "info@example.com"
		w.put(c)
		w.pass(2 * time.Second)
		if s, err := w.f.Why("info@example.com"); err != nil || len(s.Accounts) != 2 {
			t.Errorf("%+v, %v", s, err)
		}
		if g, err := w.f.Drop("info@example.com", ""); err != nil || len(g.Accounts) != 2 || len(g.Dropped) != 0 {
			t.Errorf("%+v, %v", g, err)
		}
		for _, name := range []string{"", " ", "nobody", "user", `"`, (dsdb.GUID{7, 7}).String()} {
			if s, err := w.f.Why(name); err != nil || len(s.Accounts) != 0 {
				t.Errorf("%q: %+v, %v", name, s, err)
			}
		}
		// One that is gone is told of, unless another has its name.
		w.tell(change.Sighting{Account: account(1), Gone: true})
		w.pass(2 * time.Second)
		if s, _ := w.tale("user1", "google"); !s.Gone {
			t.Errorf("%+v", s)
		}
		successor := account(9)
		successor.SAMAccountName = "user1"
		w.tell(change.Sighting{Account: successor, Stamp: stamp(1)})
		w.pass(2 * time.Second)
		if s, _ := w.tale("user1", "google"); s.Gone || s.GUID != successor.GUID {
			t.Errorf("%+v", s)
		}
		w.unwatch()
		w.stop()
	})
}
