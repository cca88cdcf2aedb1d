package deliver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// unwell is a place that is down in every way by turns: refused connections, errors, no answer within the time that an attempt has, and
// pauses asked for.
func unwell() func(context.Context, string, string) error {
	var n atomic.Int64
	return func(ctx context.Context, _, _ string) error {
		switch n.Add(1) % 4 {
		case 0:
			return target.RetryAfter(errDown, 20*time.Minute)
		case 1:
			<-ctx.Done()
			return ctx.Err()
		}
		return errDown
	}
}

// Both clouds are down for three days, two hours and a half, while an account changes each hour, one of them every five hours, and the forwarder starts anew
// each day. What has waited for 72 hours then has been shredded, and is drift; everything else arrives, of each account the newest, and
// nothing after something newer.
func TestDownForThreeDays(t *testing.T) {
	const (
		down    = 74 // hours
		often   = byte(200)
		expired = 3 // those of the hours 0, 1 and 2; that of hour 3 is 71½ hours old when the clouds come back
	)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		for _, p := range w.places {
			p.answers(unwell())
		}
		w.start()
		w.watched()
		w.pass(time.Minute)
		versions := 0
		for hour := range down {
			w.pass(time.Second)
			w.put(w.change(byte(hour), 1, "google", "entra"))
			if hour%5 == 0 {
				versions++
				w.put(w.change(often, versions, "google", "entra"))
			}
			if hour%24 == 23 {
				w.stop()
				w.start()
			}
			w.doze(time.Hour - time.Second)
		}
		w.doze(30 * time.Minute)
		for name, p := range w.places {
			// Each new change has the target looked at; besides, it is tried ever more seldom.
			if n := len(p.asked()); n > 30*down {
				t.Errorf("%s was asked %d times in %d hours", name, n, down)
			}
			if len(p.held) > 0 {
				t.Errorf("%s holds %v", name, p.held)
			}
		}
		var drift []string
		for hour := range expired {
			drift = append(drift, fmt.Sprintf("%s@1 entra expired", user(byte(hour))), fmt.Sprintf("%s@1 google expired", user(byte(hour))))
		}
		w.driftsBecause(change.Reason(ledger.Expired), drift...)
		if n := len(w.files()); n != down-expired+1 {
			t.Errorf("%d secrets are left of %d that wait", n, down-expired+1)
		}

		for _, p := range w.places {
			p.fails(nil)
		}
		w.doze(2 * time.Hour)
		for _, p := range w.places {
			p.inOrder()
			p.holds(often, versions)
			for hour := range down {
				version := 1
				if hour < expired {
					version = 0
				}
				p.holds(byte(hour), version)
			}
		}
		w.drifts(drift...)
		w.settled()

		// The next change of those whose password expired.
		for hour := range expired {
			w.put(w.change(byte(hour), 2, "google", "entra"))
		}
		w.pass(time.Minute)
		for _, p := range w.places {
			for hour := range expired {
				p.holds(byte(hour), 2)
			}
		}
		w.drifts()
		w.settled()
		w.unwatch()
		w.stop()
	})
}

// driftsBecause fails the test unless this is all drift with that reason.
func (w *world) driftsBecause(reason change.Reason, want ...string) {
	w.Helper()
	var got []string
	if err := w.f.Drift(func(d Drift) error {
		if d.Reason == reason {
			got = append(got, fmt.Sprintf("%s@%d %s %s", d.Account, d.Stamp.Version, d.Target, d.Reason))
		}
		return nil
	}); err != nil {
		w.Fatal(err)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.Errorf("drift is %s, want %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
}

// The agent stands still for an hour, in which the target comes back, and the password may have been changed on another DC, of which only the
// agent could tell. Nothing goes in that hour; and after it only what is still current. That the forwarder starts anew meanwhile, or that the
// change is met only then, makes no difference.
func TestAgentStandsStillForAnHour(t *testing.T) {
	for _, changed := range []bool{true, false} {
		for _, restart := range []bool{true, false} {
			for _, tried := range []bool{true, false} {
				t.Run(fmt.Sprintf("changed %v, restart %v, tried %v", changed, restart, tried), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { agentStandsStill(t, changed, restart, tried) })
				})
			}
		}
	}
}

func agentStandsStill(t *testing.T, changed, restart, tried bool) {
	w := newWorld(t, "google", "entra")
	google := w.places["google"]
	google.fails(errDown)
	w.start()
	w.watched()
	w.pass(time.Minute)
	if tried {
		w.put(w.change(1, 1, "google", "entra"))
		w.pass(5 * time.Second)
		w.unwatch() // the agent's last mark covers everything that there was
	} else {
		w.unwatch()
		w.stop()
		w.put(w.change(1, 1, "google", "entra"))
		w.pass(time.Minute)
		w.start()
	}
	w.pass(5 * time.Second)
	asked := len(google.asked())
	google.fails(nil)
	w.doze(30 * time.Minute)
	if restart {
		w.stop()
		w.start()
	}
	if _, err := w.f.Retry("", ""); err != nil { // an administrator loses patience
		t.Fatal(err)
	}
	w.doze(30 * time.Minute)
	// Since the target came back, or was up, at most an attempt began whose look at the directory was not a minute old.
	if n := len(google.asked()); n != asked {
		t.Errorf("asked %d times more while nobody looked at the directory", n-asked)
	}
	google.holds(1, 0)
	if s := w.f.Status(); s.Watch.Fresh || w.status("google").Waiting != 1 {
		t.Errorf("%+v", s)
	}
	w.happened("watch-fresh", 0)

	// The agent is back, and tells first what it sees.
	if changed {
		w.sight(1, 2)
	}
	w.watched()
	w.pass(quiet)
	if changed {
		google.holds(1, 0)
		if n := len(google.asked()); n != asked {
			t.Errorf("asked %d times more", n-asked)
		}
	} else {
		google.holds(1, 1)
		w.places["entra"].holds(1, 1)
	}
	w.settled()
	w.put(w.change(1, 3, "google", "entra"))
	w.pass(2 * time.Second)
	google.holds(1, 3)
	w.places["entra"].holds(1, 3)
	google.inOrder()
	w.settled()
	w.unwatch()
	w.stop()
}
