// Command dc measures on a real domain controller how many password changes a second it makes with one check password script or another: nothing
// (/bin/true), the hook, a Python script of the usual kind, and two that show what the hook cannot go below: a Go program that does nothing, and one in C that does nothing
// but store. It prints a table as docs/benchmarks.md has it. The machine should be idle: it is
// the DC and the administrator in one.
//
// One administrator's LDAPS session resets the passwords of accounts that exist, one after the other: what is measured is how long each holds the
// DC up, since it makes one change at a time anyway. smb.conf names one path; what stands behind it is exchanged between turns of a few changes,
// because Samba need not be restarted for that. In each cycle each script has one turn, in an order drawn anew, so that a machine that
// becomes slower or faster does so for all.
//
// The hook stores each password for samba-pwsync serve, whose work on the same machine is measured apart: in half of each round it runs, and the
// turns are longer, because it looks at each account again after confirm_timeout; in the other half it does not, and what the hook stored is taken away.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/bench/numbers"
	"github.com/samba-pwsync/samba-pwsync/integration/bench/programs"
	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

const (
	users  = 40
	sbin   = lab.LocalSbin + "/"
	script = sbin + "check"            // the path in smb.conf
	stores = "/var/lib/check-password" // where the Python script and the one in C do
	taken  = "/var/lib/taken"          // where it is moved

	aloneCycles, aloneChanges = 5, 8
	serveCycles, serveChanges = 1, 40
)

// variant is what stands behind the path.
type variant struct {
	name, program string
	stores        bool      // each password
	rates         []float64 // changes a second, of each turn
	took          []float64 // seconds, of each change
	again         int       // changes that had to be made again
}

// half is one of the two halves of a round.
type half struct {
	serve           bool
	cycles, changes int
	variants        []*variant
}

func main() {
	rounds := flag.Int("rounds", 8, "how often each half has its turn")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *rounds)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "dc:", err)
		os.Exit(1)
	}
}

// bench is a run.
type bench struct {
	*lab.Lab
	admin *lab.Session
	root  string // the DC's root folder, as this machine sees it
	next  int    // user
}

func run(ctx context.Context, rounds int) (err error) {
	machine := numbers.Machine()
	l, err := lab.Start(ctx, lab.Options{Config: config, Progress: progress, Disk: true})
	if err != nil {
		return fmt.Errorf("starting the lab: %w", err)
	}
	defer func() {
		if e := l.Close(); err == nil {
			err = e
		}
	}()
	b := &bench{Lab: l}
	if err := b.setUp(ctx); err != nil {
		return err
	}
	version, err := l.DC.Version(ctx)
	if err != nil {
		return err
	}

	const hook = sbin + "samba-pwsync-hook"
	alone := &half{false, aloneCycles, aloneChanges, []*variant{
		{name: "`/bin/true`", program: sbin + "true"},
		{name: "**samba-pwsync-hook**, all rules", program: hook, stores: true},
		{name: "Go, does nothing", program: sbin + "nothing"},
		{name: "C, stores plainly", program: sbin + "store", stores: true},
		{name: "Python script of the usual kind", program: sbin + "check.py", stores: true},
	}}
	serving := &half{true, serveCycles, serveChanges, []*variant{
		{name: "`/bin/true`", program: sbin + "true"},
		{name: "**samba-pwsync-hook**, all rules", program: hook, stores: true},
	}}
	for round := range rounds + 1 { // the first warms up
		halves := []*half{alone, serving}
		shuffle(halves)
		for _, h := range halves {
			if err := b.half(ctx, h, round > 0); err != nil {
				return err
			}
		}
		progress("round %d of %d", round, rounds)
	}

	rows := [][]string{{"serve", "script", "changes a second, median of turns", "of `/bin/true`'s", "median of a change", "99 %"}}
	for _, h := range []*half{alone, serving} {
		for _, v := range h.variants {
			does := "stopped"
			if h.serve {
				does = "running"
			}
			rows = append(rows, []string{does, v.name, fmt.Sprintf("%.1f", numbers.Quantile(v.rates, 0.5)), numbers.Compare(v.rates, h.variants[0].rates, 0.5).Fine(),
				milliseconds(numbers.Quantile(v.took, 0.5)), milliseconds(numbers.Quantile(v.took, 0.99))})
			if v.again > 0 {
				progress("%d changes had to be made again: %s was gone before Samba had written the password, or refused it", v.again, v.program)
			}
		}
	}
	fmt.Printf("Into docs/benchmarks.md, \"Password changes a second on a domain controller\":\n\n%s; after it %s.\nSamba %s; %d rounds of %d turns of %d changes without serve, and %d of %d beside it, for each script.\n\n%s",
		machine, numbers.Load(), version, rounds, aloneCycles, aloneChanges, serveCycles, serveChanges, numbers.Table(rows))
	return nil
}

func milliseconds(seconds float64) string { return fmt.Sprintf("%.1f ms", seconds*1000) }

func shuffle[T any](s []T) { rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] }) }

var began = time.Now()

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%5.0f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

func user(n int) string { return fmt.Sprintf("user%03d", n) }

func (b *bench) setUp(ctx context.Context) error {
	if err := b.install(ctx); err != nil {
		return err
	}
	pid, err := exec.CommandContext(ctx, "docker", "inspect", "--format", "{{.State.Pid}}", b.DC.Name).Output()
	if err != nil {
		return fmt.Errorf("looking for the DC's processes: %w", err)
	}
	b.root = "/proc/" + strings.TrimSpace(string(pid)) + "/root"
	for _, folder := range []string{stores, taken} {
		if err := os.Mkdir(b.root+folder, 0o700); err != nil {
			return fmt.Errorf("making a folder (root can): %w", err)
		}
	}
	if err := b.bring(ctx); err != nil {
		return err
	}
	if err := b.put(sbin + "true"); err != nil {
		return err
	}
	if err := b.DC.ConfigureSamba(ctx, "check password script = exec "+script); err != nil {
		return err
	}
	if b.admin, err = b.DC.Administrator(); err != nil {
		return err
	}
	progress("creating %d users", users)
	for n := range users {
		if err := b.Sandbox.AddUsers(ctx, lab.Mail(user(n))); err != nil {
			return err
		}
		if err := b.admin.Create(user(n), b.NewPassword()); err != nil {
			return fmt.Errorf("creating %s: %w", user(n), err)
		}
	}
	progress("asking each rule")
	if err := b.put(sbin + "samba-pwsync-hook"); err != nil {
		return err
	}
	return b.probe()
}

// bring puts the hook, and the programs that it is compared with, side by side onto the DC's disk.
func (b *bench) bring(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "samba-pwsync-bench-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := programs.Build(ctx, dir); err != nil {
		return err
	}
	for _, from := range []string{filepath.Join(dir, "check.py"), filepath.Join(dir, "nothing"), filepath.Join(dir, "store"), b.root + "/bin/true", b.root + "/usr/sbin/samba-pwsync-hook"} {
		program, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(b.root+sbin+filepath.Base(from), program, 0o755)
		}
		if err != nil {
			return fmt.Errorf("copying a program: %w", err)
		}
	}
	return nil
}

// put exchanges what stands behind the path in smb.conf. It takes no time on the DC: the folder is reached from outside.
func (b *bench) put(program string) error {
	if err := os.Symlink(program, b.root+script+".new"); err != nil {
		return fmt.Errorf("exchanging the script: %w", err)
	}
	if err := os.Rename(b.root+script+".new", b.root+script); err != nil {
		return fmt.Errorf("exchanging the script: %w", err)
	}
	return nil
}

// half gives each script its turns.
func (b *bench) half(ctx context.Context, h *half, count bool) error {
	change := b.DC.StopServe
	if h.serve {
		change = b.DC.StartServe
	}
	if err := change(ctx); err != nil {
		return err
	}
	if err := b.put(sbin + "true"); err != nil {
		return err
	}
	if err := b.settle(ctx, h.serve); err != nil {
		return err
	}
	order := slices.Clone(h.variants)
	for range h.cycles {
		shuffle(order)
		for _, v := range order {
			if h.serve {
				if err := b.settle(ctx, true); err != nil {
					return err
				}
			}
			if err := b.turn(v, h.changes, count); err != nil {
				return err
			}
			if !h.serve {
				if err := b.tidy(v, h.changes); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// turn makes changes with a script, and one before them that does not count: the program is read anew, and what went before may linger.
func (b *bench) turn(v *variant, changes int, count bool) error {
	if err := b.put(v.program); err != nil {
		return err
	}
	var took []float64
	total := 0.0
	for n := range changes + 1 {
		seconds, err := b.change(v)
		if err != nil {
			return err
		}
		if n > 0 {
			took = append(took, seconds)
			total += seconds
		}
	}
	if count {
		v.took, v.rates = append(v.took, took...), append(v.rates, float64(changes)/total)
	}
	return nil
}

// change resets the next user's password and returns how many seconds that took. Samba refuses the password if it cannot write it all to the
// script, and one that does not read may be gone by then; and of some thousands of random passwords the hook refuses one, which looks like a banned word. Such a change
// is made again with another, and only the second time counts.
func (b *bench) change(v *variant) (float64, error) {
	name := user(b.next % users)
	b.next++
	for try := 0; ; try++ {
		start := time.Now()
		err := b.admin.Reset(name, b.NewPassword())
		if err == nil {
			return time.Since(start).Seconds(), nil
		}
		if try == 5 {
			return 0, fmt.Errorf("changing %s with %s: %w", name, v.name, err)
		}
		v.again++
	}
}

// settle waits until the DC, and serve if it runs, have done with what went before.
func (b *bench) settle(ctx context.Context, serve bool) error {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if !serve {
			break
		}
		text, err := b.DC.Exec(ctx, "", "sh", "-c", "samba-pwsync status --json || true") // its exit code tells of drift
		if err != nil {
			return err
		}
		waiting, err := waiting(text)
		if err != nil {
			return err
		}
		if waiting == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("serve has not settled: %d captures, accounts or items wait", waiting)
		}
	}
	time.Sleep(time.Second)
	return nil
}

// tidy takes away what nobody will fetch, and asks that a script did its work: it stored as many passwords as were changed. It is moved, not removed: ext4 looks at
// each inode that was freed in the last minutes before it gives one to a new file, and each script would pay for what the others left.
func (b *bench) tidy(v *variant, changes int) error {
	want, stored := 0, 0
	if v.stores {
		want = changes + 1
	}
	for _, folder := range []string{"/var/lib/samba-pwsync/spool/incoming", stores} {
		entries, err := os.ReadDir(b.root + folder)
		if err != nil {
			return fmt.Errorf("looking for what %s stored: %w", v.program, err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			if err := os.Rename(filepath.Join(b.root+folder, e.Name()), filepath.Join(b.root+taken, e.Name())); err != nil {
				return fmt.Errorf("taking away what %s stored: %w", v.program, err)
			}
			stored++
		}
	}
	if stored != want {
		return fmt.Errorf("%s stored %d passwords of %d changes", v.program, stored, want)
	}
	return nil
}

// waiting is how much samba-pwsync serve has still to do: captures to prove, and accounts to ask about.
func waiting(text string) (int, error) {
	var status struct {
		Captures int `json:"captures"`
		Agent    *struct {
			Followup struct{ Undecided int } `json:"followup"`
		} `json:"agent"`
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return 0, fmt.Errorf("reading the status: %w", err)
	}
	if status.Agent == nil {
		return 1, nil // it has only just been started
	}
	return status.Captures + status.Agent.Followup.Undecided, nil
}
