// Command hook measures what a check password script costs a Samba AD DC, for the hook and for what it could be compared with: each is run in
// the way of Samba (programs/c/samba.c), side by side, in rounds in which each has one turn in an order drawn anew. It prints a table as
// docs/benchmarks.md has it. The machine should be idle.
//
// The hook is the one in bin/, copied as `make install` does (a file that the linker has just written lies in memory in smaller pieces, and is slower to start: 0.25 ms
// were seen), and installed twice as `samba-pwsync init` does it: with the default configuration, and with all rules on (site.go), of which each is first seen
// refusing what it has to. With -other another version of it is measured beside it.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/bench/numbers"
	"github.com/samba-pwsync/samba-pwsync/integration/bench/programs"
	"github.com/samba-pwsync/samba-pwsync/integration/bench/rules"
)

const (
	devLog   = "/dev/log"
	deadline = "60" // seconds for one run

	// libraries is how many make up, at five pieces each, the 1,158 pieces of memory of an LDAP worker of Samba 4.17.
	libraries = 230
)

func main() {
	o := options{}
	flag.IntVar(&o.rounds, "rounds", 600, "how often each has its turn")
	flag.IntVar(&o.accounts, "accounts", 20_000, "accounts in the index of policies")
	flag.IntVar(&o.words, "words", 100_000, "banned words")
	flag.IntVar(&o.breached, "breached", 100_000_000, "breached passwords")
	flag.DurationVar(&o.settle, "settle", 5*time.Minute, "how long to wait before it is measured")
	flag.StringVar(&o.folder, "in", "/var/tmp", "folder on a disk like that of the DC")
	flag.StringVar(&o.bin, "bin", "bin", "folder of the programs")
	flag.StringVar(&o.other, "other", "", "another samba-pwsync-hook, to be measured beside that of -bin")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hook:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds, accounts, words, breached int
	settle                            time.Duration
	folder, bin, other                string
}

// variant is one of those that are compared.
type variant struct {
	name    string
	command string // what stands in smb.conf, without the word exec
	stores  string // folder in which each run leaves a file; empty: it stores nothing
	again   bool   // it is also measured from a process with libraries
	runs
}

// runs are what was measured, by rounds.
type runs struct {
	took, cpu    []float64 // milliseconds
	minor, major []float64 // page faults
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp(o.folder, "samba-pwsync-bench-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	closeLog, err := listen()
	if err != nil {
		return err
	}
	defer closeLog()
	harness, variants, err := prepare(ctx, dir, o)
	if err != nil {
		return err
	}
	syscall.Sync() // what was written for this is not to be on its way to the disk while others sync
	// ext4 looks at each inode that was freed in the last five minutes before it gives one to a new file: 0.2 ms after this benchmark has removed what an earlier run of it left.
	progress("waiting for %v, for the disk to forget what was removed", o.settle)
	select {
	case <-time.After(o.settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	machine := numbers.Machine()
	progress("measuring: %d rounds of %d", o.rounds, len(variants))
	if err := measure(ctx, harness, 0, variants, o.rounds); err != nil {
		return err
	}
	var again []*variant
	for _, v := range variants {
		if v.again {
			again = append(again, &variant{name: v.name, command: v.command, stores: v.stores})
		}
	}
	progress("measuring: %d rounds of %d, from a process with libraries", o.rounds, len(again))
	if err := measure(ctx, harness, libraries, again, o.rounds); err != nil {
		return err
	}
	fmt.Printf("Into docs/benchmarks.md, \"What the hook costs the domain controller\":\n\n%s; after it %s.\n%d rounds; all rules: %d banned words, %d breached passwords, %d accounts in the index.\n\n%s\nFrom a process with %d libraries:\n\n%s",
		machine, numbers.Load(), o.rounds, o.words, o.breached, o.accounts, table(variants), libraries, table(again))
	return nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// listen reads what the programs send to syslog, where no syslog does: with nobody there a line costs less.
func listen() (closing func(), err error) {
	if conn, err := net.Dial("unixgram", devLog); err == nil {
		return func() { _ = conn.Close() }, nil
	}
	_ = os.Remove(devLog) // a socket that nobody listens at
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: devLog, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("standing in for syslog (root can): %w", err)
	}
	go func() {
		buf := make([]byte, 1<<16)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	return func() { _ = conn.Close(); _ = os.Remove(devLog) }, nil
}

// prepare builds and installs what is measured.
func prepare(ctx context.Context, dir string, o options) (harness string, variants []*variant, err error) {
	if err := programs.Build(ctx, dir); err != nil {
		return "", nil, err
	}
	store := func(name string) string { return filepath.Join(dir, name+".stored") }
	for _, name := range []string{"c", "bash", "python"} {
		if err := os.Mkdir(store(name), 0o700); err != nil {
			return "", nil, fmt.Errorf("making a folder: %w", err)
		}
	}
	progress("installing the hook with the default configuration")
	hook := filepath.Join(o.bin, "samba-pwsync-hook")
	plain, err := install(ctx, o.bin, hook, filepath.Join(dir, "default"), "[policy]\npreflight = false\n"+targets)
	if err != nil {
		return "", nil, err
	}
	full, err := installAll(ctx, filepath.Join(dir, "all"), hook, o)
	if err != nil {
		return "", nil, err
	}
	variants = []*variant{
		{name: "`/bin/true`", command: "/bin/true", again: true},
		{name: "Go, does nothing", command: filepath.Join(dir, "nothing"), again: true},
		{name: "C, stores plainly (`O_EXCL`, two fsyncs)", command: filepath.Join(dir, "store") + " " + store("c"), stores: store("c"), again: true},
		{name: "**samba-pwsync-hook**, default policy", command: plain.command, stores: plain.incoming(), again: true},
		{name: "**samba-pwsync-hook**, all rules", command: full.command, stores: full.incoming(), again: true},
		{name: "cracklib-check", command: "cracklib-check"},
		{name: "pwscore (libpwquality)", command: "pwscore " + account},
		{name: "bash script of the usual kind", command: filepath.Join(dir, "check.sh") + " " + store("bash"), stores: store("bash")},
		{name: "Python script of the usual kind", command: filepath.Join(dir, "check.py") + " " + store("python"), stores: store("python")},
	}
	if o.other != "" {
		other, err := installAll(ctx, filepath.Join(dir, "other"), o.other, o)
		if err != nil {
			return "", nil, err
		}
		variants = append(variants, &variant{name: o.other + ", all rules", command: other.command, stores: other.incoming(), again: true})
	}
	return filepath.Join(dir, "samba"), variants, nil
}

// account is whose password the programs are asked about.
const account = "alice"

func environment(account string) []string {
	return append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"SAMBA_CPS_ACCOUNT_NAME="+account, "SAMBA_CPS_USER_PRINCIPAL_NAME="+account+"@samdom.example.com", "SAMBA_CPS_FULL_NAME=Alice Köhler")
}

// batch is how many rounds are run before what they stored is taken away, as an agent would: the hook makes room where many captures wait. It is moved, not
// removed: see -settle; no domain changes its passwords hundreds of times a minute.
const batch = 50

// measure has the harness run all variants, and sees to it that each did what it is for.
func measure(ctx context.Context, harness string, libraries int, variants []*variant, rounds int) error {
	for done := 0; done < rounds; done += batch {
		if err := measureBatch(ctx, harness, libraries, variants, min(batch, rounds-done)); err != nil {
			return err
		}
	}
	return nil
}

func measureBatch(ctx context.Context, harness string, libraries int, variants []*variant, rounds int) error {
	const warmUp = 5
	args := []string{strconv.Itoa(warmUp + rounds), strconv.Itoa(rand.Int()), deadline, strconv.Itoa(libraries)}
	for _, v := range variants {
		args = append(args, "exec "+v.command)
	}
	cmd := exec.CommandContext(ctx, harness, args...)
	cmd.Env, cmd.Stdin, cmd.Stderr = environment(account), strings.NewReader(rules.NewPassword()), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("running as Samba does: %w", err)
	}
	skip, ran := warmUp*len(variants), make([]int, len(variants))
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var n, status int
		var took, cpu, minor, major float64
		if _, err := fmt.Sscan(lines.Text(), &n, &took, &cpu, &minor, &major, &status); err != nil {
			return fmt.Errorf("reading the times: %w", err)
		}
		v := variants[n]
		if status != 0 {
			return fmt.Errorf("%s refused the password or failed (wait status %#x): its times mean nothing", v.name, status)
		}
		ran[n]++
		if skip--; skip >= 0 {
			continue
		}
		v.took, v.cpu = append(v.took, took/1e6), append(v.cpu, cpu/1e3)
		v.minor, v.major = append(v.minor, minor), append(v.major, major)
	}
	for i, v := range variants {
		if ran[i] != warmUp+rounds {
			return fmt.Errorf("%s has %d of %d times", v.name, ran[i], warmUp+rounds)
		}
		if v.stores == "" {
			continue
		}
		stored, err := empty(v.stores)
		if err != nil {
			return err
		}
		if stored != warmUp+rounds {
			return fmt.Errorf("%s stored %d passwords in %d runs", v.name, stored, warmUp+rounds)
		}
	}
	syscall.Sync() // what was moved is not to be on its way to the disk, either
	return nil
}

// empty moves the files of a folder into another one beside it, and returns how many they were.
func empty(folder string) (files int, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return 0, fmt.Errorf("looking for captures: %w", err)
	}
	taken := folder + ".taken"
	if err := os.MkdirAll(taken, 0o700); err != nil {
		return 0, fmt.Errorf("making a folder: %w", err)
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(folder, e.Name()), filepath.Join(taken, e.Name())); err != nil {
			return 0, fmt.Errorf("taking a capture away: %w", err)
		}
	}
	return len(entries), nil
}

func table(variants []*variant) string {
	nothing := variants[0]
	rows := [][]string{{"program", "p50", "p99", "slowest", "p50 to `/bin/true`'s", "p99 to `/bin/true`'s", "CPU", "page faults"}}
	for _, v := range variants {
		rows = append(rows, []string{
			v.name, milliseconds(numbers.Quantile(v.took, 0.5)), milliseconds(numbers.Quantile(v.took, 0.99)), milliseconds(numbers.Quantile(v.took, 1)),
			numbers.Compare(v.took, nothing.took, 0.5).String(), numbers.Compare(v.took, nothing.took, 0.99).String(),
			milliseconds(numbers.Quantile(v.cpu, 0.5)), fmt.Sprintf("%.0f", numbers.Quantile(v.minor, 0.5)),
		})
	}
	return numbers.Table(rows)
}

func milliseconds(ms float64) string { return fmt.Sprintf("%.2f ms", ms) }
