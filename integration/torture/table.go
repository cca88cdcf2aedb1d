package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

// row is a line of the table of docs/reliability.md.
type row struct {
	name string
	text string
}

const (
	head = "| part | what was done | trials | lost | wrongly sent | out of order | 0 in N bounds (95 %) | seed | of the run | where |\n" +
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
	begin = "<!-- torture: written by `make torture WRITE=1` -->\n"
	end   = "<!-- /torture -->\n"
)

func newRow(p part, r trial.Result, here string) row {
	return row{p.name, fmt.Sprintf("| `%s` | %s | %s | %d | %d | %d | %s | %d | %s | %s |\n",
		p.name, p.does, thousands(r.Trials), r.Lost, r.Wrong, r.OutOfOrder, bound(r), r.Seed, r.Note, here)}
}

// bound is the rule of three: what happened in none of N trials happens, with 95 % confidence, in fewer than 3 of N.
func bound(r trial.Result) string {
	if r.Lost+r.Wrong+r.OutOfOrder > 0 || r.Trials < 3 {
		return "nothing"
	}
	return "fewer than 1 in " + thousands(r.Trials/3)
}

// thousands writes a number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

func lines(rows []row) string {
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(r.text)
	}
	return b.String()
}

// update puts rows into the table of a file; those of other parts stay.
func update(path string, rows []row) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("updating the table: %w", err)
	}
	text, err = merge(text, rows)
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("updating the table of %s: %w", path, err)
	}
	return nil
}

func merge(text []byte, rows []row) ([]byte, error) {
	before, rest, ok1 := bytes.Cut(text, []byte(begin))
	old, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("it has no table between %q and %q", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	for line := range strings.Lines(string(old)) {
		name := strings.Trim(strings.TrimSpace(strings.SplitN(line+"||", "|", 3)[1]), "`")
		known := slices.ContainsFunc(parts, func(p part) bool { return p.name == name })
		if known && !slices.ContainsFunc(rows, func(r row) bool { return r.name == name }) {
			rows = append(rows, row{name, line})
		}
	}
	place := func(r row) int { return slices.IndexFunc(parts, func(p part) bool { return p.name == r.name }) }
	slices.SortStableFunc(rows, func(a, b row) int { return place(a) - place(b) })
	return slices.Concat(before, []byte(begin+head+lines(rows)+end), after), nil
}

// thisRun says when, on what and of which commit the run is.
func thisRun(ctx context.Context) (string, error) {
	commit, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return "", fmt.Errorf("asking git for the commit: %w", err)
	}
	cpu := "CPU"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d × %s, %s, %s", time.Now().Format(time.DateOnly), runtime.NumCPU(), cpu, runtime.Version(), strings.TrimSpace(string(commit))), nil
}
