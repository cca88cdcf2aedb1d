// Command demo shows the main job on a real Samba domain controller in Docker: passwords changed over several routes arrive at
// both clouds' doubles, with times; refused and forged ones are sent nowhere; and how long a user's new password takes.
//
// It shows what it measured, never what it hopes: what is not as samba-pwsync promises is marked, and the exit code is 1.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

func main() {
	clean := flag.Bool("clean", false, "only remove what a killed demo or test left behind")
	changes := flag.Int("changes", 50, "how many password changes to time")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if *clean {
		err = lab.Clean(ctx)
	} else {
		err = run(ctx, os.Stdout, *changes)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, changes int) (err error) {
	began := time.Now()
	progress := func(format string, args ...any) {
		fmt.Fprintf(out, "%5.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	l, err := lab.Start(ctx, lab.Options{Progress: progress})
	if err != nil {
		return fmt.Errorf("starting the lab: %w", err)
	}
	defer func() {
		if e := l.Close(); err == nil {
			err = e
		}
	}()
	d := &demo{Lab: l, out: out, passwords: map[string]string{}}

	progress("creating alice, bob, carol and mallory in the domain and at both clouds")
	for _, user := range []string{"alice", "bob", "carol", "mallory"} {
		if err := d.create(ctx, user); err != nil {
			return err
		}
	}
	version, err := l.DC.Exec(ctx, "", "samba", "-V")
	if err != nil {
		return fmt.Errorf("asking for Samba's version: %w", err)
	}
	progress("ready: Samba %s", strings.TrimSpace(strings.TrimPrefix(version, "Version ")))

	for _, show := range []func(context.Context) error{
		d.arrives, d.neverSent, func(ctx context.Context) error { return d.howFast(ctx, changes) },
	} {
		if err := show(ctx); err != nil {
			return err
		}
	}
	if d.broken > 0 {
		return fmt.Errorf("%d of the things above are not as promised", d.broken)
	}
	return nil
}

// demo is the company in which it happens.
type demo struct {
	*lab.Lab
	out       io.Writer
	passwords map[string]string // of the users, now
	broken    int               // how much was not as promised
}

func (d *demo) print(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// patience is how long a delivery may take before the demo calls it lost.
const patience = 20 * time.Second

func (d *demo) create(ctx context.Context, user string) error {
	if err := d.Sandbox.AddUsers(ctx, lab.Mail(user)); err != nil {
		return err
	}
	password := d.NewPassword()
	if err := d.DC.CreateUser(ctx, user, password); err != nil {
		return fmt.Errorf("creating %s: %w", user, err)
	}
	d.passwords[user] = password
	return d.wait(ctx, user, password)
}

// wait returns when both clouds hold the password.
func (d *demo) wait(ctx context.Context, user, password string) error {
	for _, cloud := range lab.Clouds {
		held, err := d.Sandbox.Verify(ctx, cloud, lab.Mail(user), password, patience)
		if err != nil {
			return fmt.Errorf("asking %s: %w", cloud, err)
		}
		if !held {
			return fmt.Errorf("%s did not get %s's password within %v", cloud, user, patience)
		}
	}
	return nil
}

// sent is how many passwords of a user each cloud was sent, and when it took the last one.
func (d *demo) sent(ctx context.Context, user string) (count map[sandbox.Cloud]int, last map[sandbox.Cloud]time.Time, err error) {
	state, err := d.Sandbox.State(ctx)
	if err != nil {
		return nil, nil, err
	}
	count, last = map[sandbox.Cloud]int{}, map[sandbox.Cloud]time.Time{}
	for _, cloud := range lab.Clouds {
		u, _ := state.User(cloud, lab.Mail(user))
		count[cloud] = len(u.Passwords)
		if current, ok := u.Current(); ok {
			last[cloud] = current.Applied
		}
	}
	return count, last, nil
}

// howFast times the way that matters to a person: from the DC's answer until both clouds hold the new password.
func (d *demo) howFast(ctx context.Context, changes int) error {
	if changes < 1 {
		return nil
	}
	admin, err := d.DC.Administrator()
	if err != nil {
		return err
	}
	defer admin.Close()
	answered := make([]time.Time, changes)
	for i := range answered {
		password := d.NewPassword()
		if err := admin.Reset("alice", password); err != nil {
			return fmt.Errorf("changing alice's password: %w", err)
		}
		answered[i] = time.Now()
		if err := d.wait(ctx, "alice", password); err != nil {
			return err
		}
		d.passwords["alice"] = password
	}
	state, err := d.Sandbox.State(ctx)
	if err != nil {
		return err
	}
	times := make([]time.Duration, changes)
	for _, cloud := range lab.Clouds {
		u, _ := state.User(cloud, lab.Mail("alice"))
		// One password a change, and those from before: the last ones are these.
		for i, p := range u.Passwords[len(u.Passwords)-changes:] {
			times[i] = max(times[i], p.Applied.Sub(answered[i]))
		}
	}
	slices.Sort(times)
	at := func(share float64) time.Duration { return times[int(share*float64(changes-1))] }
	d.print("\nHow fast: from the DC's answer until both clouds hold the new password, %d changes over LDAPS\n", changes)
	d.print("    median %s    95 %% %s    slowest %s    %s", ms(at(0.5)), ms(at(0.95)), ms(at(1)), d.verdict(at(0.5) < 100*time.Millisecond,
		"promised: a median under 100 ms", "promised was a median under 100 ms"))
	return nil
}
