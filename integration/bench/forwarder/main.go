// Command forwarder measures the forwarder by the numbers: the real program, its real targets with the vendors' libraries, over TLS against the cloud
// sandbox, in a process of its own. It prints tables as docs/benchmarks.md has them. The forwarder has two processors of its own, the sandbox and
// this program, which plays the agent, have the others: on fewer than four they take from each other.
//
// Four parts, each with a state folder of its own:
//
//	waiting     100,000 changes wait for two targets that are away: memory then, time of a start, and of asking
//	throughput  10,000 changes for two targets without limits: how many a second
//	fresh       10,000 changes wait and drain at the rates that are the targets' default: how long somebody's own change takes meanwhile
//	drain       10,000 changes at once, at a configured rate: is it kept, and the memory before, meanwhile, and after
//
// The agent's part is played as the agent does it: a change is written and synced under another name first, since this program is no
// match for a reader that meets a half-written file a hundred times a second; a mark comes each second. All changes hold one sealed box: to open it
// costs what it costs, and to close a hundred thousand would be this program's time.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/bench/numbers"
)

// mostRate is the highest that a configuration can have, in changes a second.
const mostRate = 1000

// options are what a run is given.
type options struct {
	bin                      string // folder of the programs
	dir                      string
	waiting, changes         int
	rate                     float64 // of the drain
	freshFor                 time.Duration
	forwarderCPUs, otherCPUs string
}

func main() {
	var o options
	parts := flag.String("parts", "waiting,throughput,fresh,drain", "which, separated by commas")
	flag.StringVar(&o.bin, "bin", "bin", "`folder` with samba-pwsync and cloud-sandbox, as make build leaves them")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "`folder` for the state, on the disk that is meant; what is made in it is removed at the end")
	flag.IntVar(&o.waiting, "waiting", 100_000, "changes that wait")
	flag.IntVar(&o.changes, "changes", 10_000, "changes of the other parts")
	flag.Float64Var(&o.rate, "rate", 50, "changes a second for the drain")
	flag.DurationVar(&o.freshFor, "fresh-for", 2*time.Minute, "how long fresh changes are made")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, o, strings.Split(*parts, ","))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "forwarder:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, o options, parts []string) error {
	if o.forwarderCPUs, o.otherCPUs = "0,1", "0,1"; runtime.NumCPU() >= 4 {
		o.otherCPUs = fmt.Sprintf("2-%d", runtime.NumCPU()-1)
	}
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	o.bin = bin
	for _, part := range parts {
		measure, known := map[string]func(context.Context, *site, options) ([][]string, error){
			"waiting": waiting, "throughput": throughput, "fresh": fresh, "drain": drain,
		}[part]
		if !known {
			return fmt.Errorf("there is no part %q", part)
		}
		before := numbers.Machine()
		s, err := newSite(ctx, o)
		if err != nil {
			return err
		}
		table, err := measure(ctx, s, o)
		if end := s.close(); err == nil {
			err = end
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
		fmt.Fprintf(out, "%s: %s at the beginning, %s at the end\n\n%s\n", part, before, numbers.Load(), numbers.Table(table))
	}
	return nil
}

// waiting puts so many changes before two targets that are away, and restarts the forwarder.
func waiting(ctx context.Context, s *site, o options) ([][]string, error) {
	s.sandbox.stop()
	f, err := s.start(ctx, 0, "")
	if err != nil {
		return nil, err
	}
	if err := s.put(o.waiting); err != nil {
		return nil, err
	}
	if err := s.until(ctx, func() (bool, error) { return s.waitingAt(ctx, o.waiting) }); err != nil {
		return nil, err
	}
	if err := s.decided(o.waiting); err != nil {
		return nil, err
	}
	if err := s.until(ctx, s.noSightings); err != nil {
		return nil, err
	}
	f.stop()

	// The targets come back while it is away.
	if err := s.startSandbox(ctx); err != nil {
		return nil, err
	}
	requests, err := s.requests(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if f, err = s.start(ctx, 0, ""); err != nil {
		return nil, err
	}
	answers := time.Since(began)
	err = s.until(ctx, func() (bool, error) {
		now, err := s.requests(ctx)
		return now > requests, err
	})
	if err != nil {
		return nil, err
	}
	first := time.Since(began)
	f.stop()

	// And are away again, for a weekend.
	s.sandbox.stop()
	if f, err = s.start(ctx, 0, ""); err != nil {
		return nil, err
	}
	defer f.stop()
	settled, err := f.memoryOver(ctx, time.Minute)
	if err != nil {
		return nil, err
	}
	cpu, err := f.cpu()
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, 20*time.Second); err != nil {
		return nil, err
	}
	idle, err := f.cpu()
	if err != nil {
		return nil, err
	}
	table := [][]string{{"what", "measured"}}
	row := func(what string, text string) { table = append(table, []string{what, text}) }
	row(fmt.Sprintf("start with %d waiting for each of two targets, until the control socket answers", o.waiting), seconds(answers))
	row("until the first request reaches a target", seconds(first))
	row("memory in the second half of a minute after a start, targets away: RSS, PSS, most", settled.String())
	row("CPU while they wait", fmt.Sprintf("%.1f %% of a core", 100*(idle-cpu).Seconds()/20))
	for _, ask := range [][]string{{"status", "--json"}, {"queue", "list", "--json"}, {"why", "user77"}} {
		began := time.Now()
		if err := s.ask(ctx, ask...); err != nil {
			return nil, err
		}
		row("`"+strings.Join(ask, " ")+"`", seconds(time.Since(began)))
	}
	after, err := f.memory()
	if err != nil {
		return nil, err
	}
	row("memory right after these", after.String())
	return table, nil
}

// throughput has a backlog delivered as fast as it goes.
func throughput(ctx context.Context, s *site, o options) ([][]string, error) {
	table := [][]string{{"Google's password", "changes a second, both targets at once: google", "entra", "the forwarder's CPU for a change at both", "memory, most"}}
	if err := s.addUsers(ctx, o.changes); err != nil {
		return nil, err
	}
	for _, format := range []string{"crypt-sha512", "cleartext"} {
		if err := s.reset(); err != nil {
			return nil, err
		}
		if err := s.put(o.changes); err != nil {
			return nil, err
		}
		began := time.Now()
		f, err := s.start(ctx, mostRate, format)
		if err != nil {
			return nil, err
		}
		peak := f.watch(ctx)
		if err := s.until(ctx, func() (bool, error) { return s.waitingAt(ctx, 0) }); err != nil {
			return nil, err
		}
		cpu, err := f.cpu()
		if err != nil {
			return nil, err
		}
		most := peak()
		f.stop()
		took, err := s.took(ctx, began)
		if err != nil {
			return nil, err
		}
		table = append(table, []string{
			"`" + format + "`", fmt.Sprintf("%.0f", float64(o.changes)/took["google"].Seconds()), fmt.Sprintf("%.0f", float64(o.changes)/took["microsoft"].Seconds()),
			fmt.Sprintf("%.2f ms", 1000*cpu.Seconds()/float64(o.changes)), most.String(),
		})
	}
	return table, nil
}

// fresh measures changes of people beside a backlog.
func fresh(ctx context.Context, s *site, o options) ([][]string, error) {
	const extra = 1000
	if err := s.addUsers(ctx, o.changes+extra); err != nil {
		return nil, err
	}
	f, err := s.start(ctx, 0, "")
	if err != nil {
		return nil, err
	}
	defer f.stop()
	if err := s.put(o.changes); err != nil {
		return nil, err
	}
	table := [][]string{{"fresh changes, one each half second", "made", "until both targets have it: median", "99 %", "slowest"}}
	var made []fellow
	phase := func(name string, length time.Duration) error {
		begin := len(made)
		for until := time.Now().Add(length); time.Now().Before(until); {
			one, err := s.putOne(o.changes + len(made))
			if err != nil {
				return err
			}
			made = append(made, one)
			if err := sleep(ctx, time.Until(one.at.Add(500*time.Millisecond))); err != nil {
				return err
			}
		}
		delays, err := s.delays(ctx, made[begin:])
		if err != nil {
			return err
		}
		table = append(table, []string{
			name, fmt.Sprint(len(delays)), seconds(time.Duration(numbers.Quantile(delays, 0.5))), seconds(time.Duration(numbers.Quantile(delays, 0.99))),
			seconds(time.Duration(numbers.Quantile(delays, 1))),
		})
		return nil
	}
	if err := phase(fmt.Sprintf("while %d changes come in, and right after", o.changes), 20*time.Second); err != nil {
		return nil, err
	}
	if err := phase("while they drain at the default rates", o.freshFor); err != nil {
		return nil, err
	}
	if drained, err := s.waitingAt(ctx, 0); err != nil || drained {
		return nil, fmt.Errorf("the backlog was gone before the end: %v", err)
	}
	return table, nil
}

// drain delivers a batch at a configured rate.
func drain(ctx context.Context, s *site, o options) ([][]string, error) {
	if err := s.addUsers(ctx, o.changes); err != nil {
		return nil, err
	}
	f, err := s.start(ctx, o.rate, "")
	if err != nil {
		return nil, err
	}
	defer f.stop()
	if err := sleep(ctx, 10*time.Second); err != nil {
		return nil, err
	}
	before, err := f.memory()
	if err != nil {
		return nil, err
	}
	peak := f.watch(ctx)
	began := time.Now()
	if err := s.put(o.changes); err != nil {
		return nil, err
	}
	if err := s.until(ctx, func() (bool, error) { return s.waitingAt(ctx, 0) }); err != nil {
		return nil, err
	}
	most := peak()
	if err := sleep(ctx, time.Minute); err != nil { // until what was secret is overwritten
		return nil, err
	}
	after, err := f.memory()
	if err != nil {
		return nil, err
	}
	took, err := s.took(ctx, began)
	if err != nil {
		return nil, err
	}
	table := [][]string{{"target", "rate configured", "changes", "drained in", "of the rate", "memory before", "most", "a minute after"}}
	for _, name := range []string{"google", "microsoft"} {
		rate := float64(o.changes) / took[name].Seconds()
		table = append(table, []string{
			name, fmt.Sprintf("%g/s", o.rate), fmt.Sprint(o.changes), seconds(took[name]), fmt.Sprintf("%.1f %%", 100*rate/o.rate),
			before.String(), most.String(), after.String(),
		})
	}
	return table, nil
}

func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.0f ms", 1000*d.Seconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
