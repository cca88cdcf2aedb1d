// Package compat tries every way by which a password changes on every Samba that samba-pwsync is for, and holds what is seen against
// what is expected. `make compat` runs it whole and writes docs/compatibility.md; `make test` runs the oldest and the newest
// Samba whole and the others in a short form.
//
// A row is a way to change a password, a column a Debian suite with its Samba, a cell what came of it there. A cell is not told by
// the expectation but by facts: the hash that the directory holds after the change, what the two clouds were sent, what the
// hook and serve logged, and what `samba-pwsync drift` lists. At the end of a column these are added up once more, without
// looking at the cells: nothing may be lost, and nothing sent that the directory did not take (totals_test.go).
package compat

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

var (
	columns = flag.String("columns", "bullseye,bookworm:short,trixie:short,trixie-backports:short,forky",
		"Debian suites, oldest Samba first; those that end in :short try some rows only")
	only  = flag.String("only", "", "try only the rows whose names hold this text")
	write = flag.String("write", "", "write the matrix to this file, when every cell is as expected")
)

// ctx ends at an interrupt: then every step fails at once, and the labs are removed.
var ctx context.Context

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	var stop context.CancelFunc
	ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return m.Run()
}

// TestMatrix tries the columns side by side, as many as the machine has cores.
func TestMatrix(t *testing.T) {
	if os.Getenv("CI") != "true" && os.Getenv("PWSYNC_INTEGRATION") == "" {
		t.Skip("needs Docker and minutes; make compat runs it")
	}
	var all, whole, parts []*column
	for name := range strings.SplitSeq(*columns, ",") {
		suite, short := strings.CutSuffix(name, ":short")
		c := &column{suite: suite, short: short}
		all = append(all, c)
		if short {
			parts = append(parts, c)
		} else {
			whole = append(whole, c)
		}
	}
	// What takes longest begins first.
	sideBySide(runtime.NumCPU(), append(whole, parts...), func(c *column) {
		t.Run(c.suite, func(t *testing.T) { c.try(t) })
	})
	if *write == "" || t.Failed() {
		return
	}
	text, err := report(all, time.Now())
	if err == nil {
		err = os.WriteFile(*write, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A stage is a state of the whole domain in which rows are tried. First all of its accounts are made, then enter is called, all
// passwords are changed, between is called, the cells are judged, and leave is called.
type stage struct {
	name                  string
	enter, between, leave func(context.Context, *lab.DC) error
}

var stages = []*stage{normal, held, userPasswords, simple}

var (
	normal = &stage{name: "normal"}

	// What lies between capture and proof: the agent does not run while the passwords change.
	held = &stage{
		name:    "held",
		enter:   func(ctx context.Context, dc *lab.DC) error { return dc.StopServe(ctx) },
		between: func(ctx context.Context, dc *lab.DC) error { return dc.StartServe(ctx) },
	}

	// The attribute userPassword is a password, as in other directories (dSHeuristics, fUserPwdSupport: [MS-ADTS] 6.1.1.2.4.1.2).
	userPasswords = &stage{
		name: "userPassword",
		enter: func(ctx context.Context, dc *lab.DC) error {
			return dc.SambaTool(ctx, "forest", "directory_service", "dsheuristics", "000000001")
		},
		leave: func(ctx context.Context, dc *lab.DC) error {
			return dc.SambaTool(ctx, "forest", "directory_service", "dsheuristics", "0")
		},
	}

	// Samba does not run the hook for anybody.
	simple = &stage{
		name: "simple",
		enter: func(ctx context.Context, dc *lab.DC) error {
			return dc.SambaTool(ctx, "domain", "passwordsettings", "set", "--complexity=off")
		},
		leave: func(ctx context.Context, dc *lab.DC) error {
			return dc.SambaTool(ctx, "domain", "passwordsettings", "set", "--complexity=on")
		},
	}
)

// rowsAtOnce is how many passwords of a column are changed at the same time. Samba's clients give up after ten seconds.
const rowsAtOnce = 4

// try runs a column.
func (c *column) try(t *testing.T) {
	began := time.Now()
	must(t, c.start())
	defer func() {
		if err := c.lab.Close(); err != nil {
			t.Errorf("removing the lab: %v", err)
		}
	}()
	t.Logf("Samba %s is up after %.0f s", c.version, time.Since(began).Seconds())

	for _, s := range stages {
		var cells []*cell
		for _, r := range rows {
			if cmp.Or(r.stage, normal) == s && (!c.short || r.short) && strings.Contains(r.name, *only) {
				cells = append(cells, &cell{row: r, column: c})
			}
		}
		if len(cells) == 0 {
			continue
		}
		c.cells = append(c.cells, cells...)
		sideBySide(rowsAtOnce, cells, (*cell).setUp)
		must(t, c.do(s.name, s.enter))
		sideBySide(rowsAtOnce, cells, (*cell).change)
		must(t, c.do(s.name, s.between))
		sideBySide(4*rowsAtOnce, cells, func(cell *cell) {
			t.Run(cell.row.group+"/"+cell.row.name, cell.judge)
		})
		must(t, c.do(s.name, s.leave))
	}
	c.addUp(t)
	if t.Failed() {
		log, err := c.lab.DC.Exec(ctx, "", "sh", "-c", "grep -v -e level=DEBUG -e event=proven -e event=delivered "+lab.ServeLog+" | tail -n 40")
		t.Logf("the end of serve's log (%v):\n%s", err, log)
	}
	t.Logf("%d cells in %.0f s: %v", len(c.cells), time.Since(began).Seconds(), c.totals)
}

func (c *column) do(name string, step func(context.Context, *lab.DC) error) error {
	if step == nil {
		return nil
	}
	if err := step(ctx, c.lab.DC); err != nil {
		return fmt.Errorf("stage %s: %w", name, err)
	}
	return nil
}

// sideBySide calls do for each item, for n of them at a time, and returns when all are done.
func sideBySide[T any](n int, items []T, do func(T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, n)
	for _, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(item)
		})
	}
	wg.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
