package kills

import (
	"math/rand/v2"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// storm is everything around serve: the clouds, Samba, its socket, the clock. At its end all of it works again.
func (d *domain) storm(draw *rand.Rand, jumps bool, over <-chan struct{}) {
	upTo := func(most time.Duration) time.Duration { return time.Duration(draw.Int64N(int64(most))) }
	for _, cloud := range lab.Clouds {
		d.misbehaves(draw, cloud) // from the beginning
	}
	d.until(over, draw, 2*time.Second, func() {
		var err error
		switch what := draw.IntN(100); {
		case what < 50:
			d.misbehaves(draw, lab.Clouds[draw.IntN(len(lab.Clouds))])
		case what < 60: // an outage
			cloud := lab.Clouds[draw.IntN(len(lab.Clouds))]
			if err = d.Sandbox.Misbehave(ctx, cloud, sandbox.Fault{Kind: "503"}); err == nil {
				time.Sleep(upTo(8 * time.Second))
				err = d.Sandbox.Behave(ctx)
			}
		case what < 72:
			if err = d.DC.HideLDAPI(ctx, true); err == nil {
				time.Sleep(upTo(4 * time.Second))
				err = d.DC.HideLDAPI(ctx, false)
			}
			d.counts.sockets.Add(1)
		case what < 95 && jumps:
			for _, by := range []time.Duration{time.Hour, -time.Hour, 0}[draw.IntN(2):] {
				if err == nil {
					d.still.Lock()
					err = d.DC.SetClock(ctx, by)
					d.still.Unlock()
					time.Sleep(upTo(5 * time.Second))
				}
			}
			d.counts.jumps.Add(1)
		case what >= 97:
			err = d.restart()
		}
		if err != nil {
			d.Error(err)
		}
	})
	if err := d.Sandbox.Behave(ctx); err != nil {
		d.Error(err)
	}
}

// misbehaves gives a cloud a fault for its next requests.
func (d *domain) misbehaves(draw *rand.Rand, cloud sandbox.Cloud) {
	f := sandbox.Fault{Times: 1 + draw.IntN(4)}
	kinds := []string{"429", "500", "502", "503", "504", "504-applied", "504-applied", "cut", "cut", "cut-applied", "cut-applied", "slow", "expired-token"}
	switch f.Kind = kinds[draw.IntN(len(kinds))]; f.Kind {
	case "429":
		f.RetryAfter = time.Duration(1+draw.IntN(3)) * time.Second
	case "slow":
		f.Delay = time.Duration(draw.Int64N(int64(5 * time.Second)))
		if draw.IntN(8) == 0 { // beyond what serve waits for an answer
			f.Delay, f.Times = 40*time.Second, 1
		}
	}
	if err := d.Sandbox.Misbehave(ctx, cloud, f); err != nil {
		d.Error(err)
	}
}

func (d *domain) restart() error {
	d.up.Lock()
	defer d.up.Unlock()
	d.counts.restarts.Add(1)
	if err := d.DC.StopSamba(ctx); err != nil {
		return err
	}
	return d.DC.StartSamba(ctx)
}
