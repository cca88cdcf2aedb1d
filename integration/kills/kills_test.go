// Package kills tries what samba-pwsync promises while everything around it fails: serve, or its two halves, are killed again and again
// while passwords of a real domain change, are refused or forged; the clouds misbehave; Samba is restarted, its socket is gone, the clock jumps.
//
// It is a part of the torture (integration/torture), which says by environment how many kills and from which seed.
package kills

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

const (
	// killsInARound is how often serve is killed, at most, before everything comes to rest, and is judged.
	killsInARound = 25
	// kindsOfRounds is how many rounds it takes to try everything: see round.
	kindsOfRounds = 4
	// sideBySide is how many domains are tortured at once, if there are kills enough for them.
	sideBySide = 3
	// changers is how many people change passwords at a time.
	changers = 3
	// patience is how long the clouds may take to get what they must have, once everything works: a machine may be small and busy.
	patience = 10 * time.Minute
)

// config has the hook refuse what it cannot store, because here every password that the directory takes has to arrive.
const config = `
state_dir = "/var/lib/samba-pwsync"

[hook]
on_capture_error = "refuse"

[policy]
preflight = false

[directory]
confirm_timeout = "30s"
`

var ctx context.Context // ends at an interrupt: then every step fails at once, and the labs are removed

func TestMain(m *testing.M) {
	if os.Getenv("CI") != "true" && os.Getenv("PWSYNC_INTEGRATION") == "" {
		fmt.Println("skipped: needs Docker and a few minutes; make integration runs it")
		return
	}
	var stop context.CancelFunc
	ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := m.Run()
	stop()
	os.Exit(code)
}

// TestServe: after each round, once nothing disturbs any more, each cloud holds the directory's password of each account; no cloud was ever sent a
// password that the directory did not take, nor one after a newer one of the same account. A trial is a kill.
func TestServe(t *testing.T) {
	run := trial.Start(t, "serve", 40)
	domains := max(1, min(sideBySide, run.N/(4*killsInARound)))
	var all sync.WaitGroup
	torn := make([]*domain, domains)
	for i := range torn {
		torn[i] = start(t, run, i)
	}
	for i, d := range torn {
		kills := run.N/domains + max(0, min(1, run.N%domains-i))
		all.Go(func() { d.torture(kills) })
	}
	all.Wait()
	sum := &counts{}
	for _, d := range torn {
		d.counts.into(sum)
	}
	run.Note("%s; domains side by side: %d", sum, domains)
}

// counts says what was tried.
type counts struct {
	taken, refused, forged, hooks, rests, restarts, sockets, jumps, starts atomic.Int64
}

func (c *counts) each() []*atomic.Int64 {
	return []*atomic.Int64{&c.taken, &c.refused, &c.forged, &c.hooks, &c.rests, &c.restarts, &c.sockets, &c.jumps, &c.starts}
}

func (c *counts) into(sum *counts) {
	for i, n := range sum.each() {
		n.Add(c.each()[i].Load())
	}
}

func (c *counts) String() string {
	return fmt.Sprintf("changes: %d, refused: %d, forged: %d, hooks killed: %d, judged: %d times, Samba restarted: %d, LDAPI gone: %d, clock set: %d, serve found the directory: %d times",
		c.taken.Load(), c.refused.Load(), c.forged.Load(), c.hooks.Load(), c.rests.Load(), c.restarts.Load(), c.sockets.Load(), c.jumps.Load(), c.starts.Load())
}

// domain is a lab, and what is known of it.
type domain struct {
	*testing.T
	*lab.Lab
	run      *trial.Run
	number   int
	accounts []*account
	mallory  string // his password, which nobody changes
	counts   counts

	up    sync.RWMutex // held while Samba is being restarted
	still sync.RWMutex // held while the clock is being set: see round
}

// start brings up a domain with its accounts.
func start(t *testing.T, run *trial.Run, number int) *domain {
	d := &domain{T: t, run: run, number: number}
	var err error
	d.Lab, err = lab.Start(ctx, lab.Options{Config: config, Clock: true, Progress: func(format string, args ...any) { t.Logf("lab %d: "+format, append([]any{number}, args...)...) }})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	must(t, d.DC.MortalHook(ctx))

	d.mallory = d.NewPassword()
	must(t, d.Sandbox.AddUsers(ctx, lab.Mail(mallory)))
	must(t, d.DC.LDAPSCreate(ctx, mallory, "", d.mallory))
	for i := range 12 {
		a := &account{name: fmt.Sprintf("mortal%02d", i), goes: i%3 == 0}
		a.now = a.name
		must(t, d.Sandbox.AddUsers(ctx, lab.Mail(a.name)))
		d.accounts = append(d.accounts, a)
		d.create(a)
	}
	d.rest()
	return d
}

// torture kills so often.
func (d *domain) torture(kills int) {
	size := min(killsInARound, (kills+kindsOfRounds-1)/kindsOfRounds)
	for round := 0; kills > 0 && !d.Failed(); round++ {
		now := min(kills, size)
		d.round(round, now)
		kills -= now
	}
	if d.Failed() {
		d.explain()
		return
	}
	d.nothingLeft()
	events, err := d.DC.Events(ctx)
	must(d, err)
	for _, e := range events {
		if e.Name == "directory-up" {
			d.counts.starts.Add(1)
		}
	}
}

// draw returns random numbers of its own to each of those who take part in a round.
func (d *domain) draw(round, who int) *rand.Rand {
	return rand.New(rand.NewPCG(d.run.Seed, uint64(d.number)<<40|uint64(round)<<8|uint64(who)))
}

// round makes so many kills while everybody does what he does, and judges.
//
// In every other round the clock jumps, and no account comes or goes: which of two accounts had a name last is told by the agent's clock, and
// docs/design.md says what becomes of that when it is set back. So nothing of them waits then, either: each start proves anew what does. Nor is a change
// under way in the moment in which the clock is set. In every other two, agent and forwarder are processes of their own.
func (d *domain) round(round, kills int) {
	jumps, apart := round%2 == 0, round%4 >= 2
	if jumps && !d.nothingWaits() {
		return
	}
	switch {
	case round%4 == 2:
		must(d, d.DC.SplitServe(ctx))
	case round%4 == 0 && round > 0:
		must(d, d.DC.JoinServe(ctx))
	}
	began := time.Now()
	over := make(chan struct{})
	var people sync.WaitGroup
	for i := range changers {
		people.Go(func() { d.change(d.draw(round, i), jumps, over) })
	}
	people.Go(func() { d.forge(d.draw(round, changers), over) })
	people.Go(func() { d.storm(d.draw(round, changers+1), jumps, over) })
	d.kill(d.draw(round, changers+2), kills, apart)
	close(over)
	people.Wait()
	killed := time.Since(began)
	d.rest()
	d.Logf("lab %d, round %d: %d kills in %v, rest after %v; %v", d.number, round, kills, killed.Round(time.Second), (time.Since(began) - killed).Round(time.Second), &d.counts)
}

// kill kills serve, or one of its halves, or both: from before it has opened its files to long after it has nothing left to do.
func (d *domain) kill(draw *rand.Rand, kills int, apart bool) {
	for range kills {
		services := []string{lab.Serve}
		if apart {
			services = [][]string{{lab.Agent}, {lab.Forwarder}, {lab.Agent, lab.Forwarder}}[draw.IntN(3)]
		}
		longest := 700 * time.Millisecond
		if draw.IntN(5) == 0 {
			longest = 4 * time.Second
		}
		var all sync.WaitGroup
		for _, service := range services {
			later := time.Duration(draw.Int64N(int64(longest)))
			all.Go(func() {
				if err := d.DC.Kill(ctx, service, later); err != nil {
					d.Error(err)
				}
			})
		}
		all.Wait()
		if d.Failed() {
			return
		}
		d.run.Trial(1)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
