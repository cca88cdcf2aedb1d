// Command torture runs the long forms of the torture tests, one after the other, and prints what they found as the table of
// docs/reliability.md. `make torture` is how to call it.
//
// The tests lie beside what they torture, and `make test` runs their short forms. They are listed in parts.go.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

func main() {
	var o options
	flag.IntVar(&o.n, "n", 0, "how many trials each part makes; 0: as many as parts.go says")
	flag.StringVar(&o.parts, "parts", "", "the parts to run, with commas; none: all")
	flag.Uint64Var(&o.seed, "seed", 0, "where the random numbers begin; 0: somewhere")
	flag.StringVar(&o.write, "write", "", "put the rows into the table of this file")
	flag.BoolVar(&o.list, "list", false, "list the parts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

type options struct {
	n     int
	parts string
	seed  uint64
	write string
	list  bool
}

func run(ctx context.Context, o options) error {
	chosen, err := choose(o.parts)
	if err != nil {
		return err
	}
	if o.list {
		for _, p := range chosen {
			fmt.Printf("%-10s %9d  %s\n", p.name, p.long, p.does)
		}
		return nil
	}
	if slices.ContainsFunc(chosen, func(p part) bool { return p.dc }) {
		if err := images(ctx); err != nil {
			return err
		}
	}
	here, err := thisRun(ctx)
	if err != nil {
		return err
	}
	var rows []row
	var failed []string
	for _, p := range chosen {
		n, seed := o.n, o.seed
		if n == 0 {
			n = p.long
		}
		if seed == 0 {
			seed = rand.Uint64()
		}
		fmt.Printf("%s: %d trials, seed %d\n", p.name, n, seed)
		began := time.Now()
		result, out, err := p.run(ctx, n, seed)
		if err != nil {
			fmt.Printf("%s\n%s: FAILED after %v: %v\n", out, p.name, time.Since(began).Round(time.Second), err)
			failed = append(failed, p.name)
		}
		if result.Part == "" {
			continue // it did not get as far as to report
		}
		fmt.Printf("%s: %s trials in %v: %d lost, %d wrongly sent, %d out of order; seed %d %s\n", p.name, thousands(result.Trials),
			time.Since(began).Round(time.Second), result.Lost, result.Wrong, result.OutOfOrder, result.Seed, result.Note)
		rows = append(rows, newRow(p, result, here))
	}
	fmt.Printf("\n%s%s", head, lines(rows))
	if o.write != "" && len(failed) == 0 {
		if err := update(o.write, rows); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

func choose(names string) ([]part, error) {
	if names == "" {
		return parts, nil
	}
	var chosen []part
	for name := range strings.SplitSeq(strings.ReplaceAll(names, " ", ","), ",") {
		at := slices.IndexFunc(parts, func(p part) bool { return p.name == name })
		switch {
		case at >= 0:
			chosen = append(chosen, parts[at])
		case name != "":
			return nil, fmt.Errorf("there is no part %q: -list shows them", name)
		}
	}
	return chosen, nil
}

// run runs the part's test as a process of its own. out is what it printed.
func (p part) run(ctx context.Context, n int, seed uint64) (result trial.Result, out []byte, err error) {
	dir, err := os.MkdirTemp("", "torture")
	if err != nil {
		return result, nil, err
	}
	defer os.RemoveAll(dir)
	report := filepath.Join(dir, "report")
	cmd := exec.CommandContext(ctx, "go", "test", "-count", "1", "-timeout", "0", "-v", "-run", "^"+p.test+"$", p.where)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", trial.EnvTrials, n), fmt.Sprintf("%s=%d", trial.EnvSeed, seed), trial.EnvReport+"="+report,
		"PWSYNC_INTEGRATION=required")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	out, failed := cmd.CombinedOutput()
	reported, err := os.ReadFile(report)
	if err == nil {
		reported, _, _ = bytes.Cut(reported, []byte("\n"))
		err = json.Unmarshal(reported, &result)
	}
	switch {
	case failed != nil:
		return result, out, failed
	case err != nil:
		return result, out, fmt.Errorf("the test did not report: %w", err)
	case result.Part != p.name:
		return result, out, fmt.Errorf("the test says that it is part %q", result.Part)
	case result.Failed:
		return result, out, errors.New("the test failed")
	}
	return result, out, nil
}

// images builds what the lab needs.
func images(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "make", "--no-print-directory", "images")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building the lab's images: %w", err)
	}
	return nil
}
