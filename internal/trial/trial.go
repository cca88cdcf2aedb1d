// Package trial counts what a torture test finds: how often it tried, and how often something was lost, wrongly sent or out of order.
//
// What: a torture test is an ordinary test that begins with Start. Alone it runs its short form, as part of `make test`; under
// `make torture` (integration/torture) the same test runs as long as it is told to, and its numbers go into docs/reliability.md.
//
// How: the command tells the test by environment how many trials it is to make and from which seed, and the test appends its Result to a
// file, as a line of JSON.
//
// For tests only.
package trial

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The environment by which the command tells a test what to do.
const (
	EnvTrials = "PWSYNC_TRIALS"
	EnvSeed   = "PWSYNC_SEED"
	EnvReport = "PWSYNC_TRIALS_REPORT"
)

// Result is what a part of the torture found.
type Result struct {
	Part       string `json:"part"`
	Trials     int    `json:"trials"`
	Lost       int    `json:"lost"`
	Wrong      int    `json:"wrong"`        // sent, and not the account's password
	OutOfOrder int    `json:"out_of_order"` // sent after a newer one
	Seed       uint64 `json:"seed"`
	Note       string `json:"note,omitempty"` // what else is worth knowing of the run
	Failed     bool   `json:"failed"`         // for whatever reason
}

// Run is a torture test that is running. Its methods may be called concurrently, except those of Rand.
type Run struct {
	N    int        // how many trials are to be made
	Seed uint64     // given, or made up; printed with the test
	Rand *rand.Rand // from the seed

	t  testing.TB
	mu sync.Mutex
	r  Result
}

// Start begins a part of the torture, with as many trials as the command asks for, or short. The result is reported when the test ends.
func Start(t testing.TB, part string, short int) *Run {
	t.Helper()
	r := &Run{N: short, Seed: rand.Uint64(), t: t}
	if asked := os.Getenv(EnvTrials); asked != "" {
		n, err := strconv.Atoi(asked)
		if err != nil || n < 1 {
			t.Fatalf("%s is %q, and should be a number of trials", EnvTrials, asked)
		}
		r.N = n
	}
	if asked := os.Getenv(EnvSeed); asked != "" {
		seed, err := strconv.ParseUint(asked, 10, 64)
		if err != nil {
			t.Fatalf("%s is %q, and should be a number", EnvSeed, asked)
		}
		r.Seed = seed
	}
	r.Rand = rand.New(rand.NewPCG(r.Seed, 0))
	r.r = Result{Part: part, Seed: r.Seed}
	t.Cleanup(r.report)
	return r
}

// Trial counts trials that were made.
func (r *Run) Trial(n int) { r.add(&r.r.Trials, n) }

// Lost counts a password that did not arrive, or that a crash took away, and fails the test.
func (r *Run) Lost(format string, args ...any) {
	r.t.Helper()
	r.found(&r.r.Lost, "lost", format, args)
}

// Wrong counts a password that was sent and was not the account's, and fails the test.
func (r *Run) Wrong(format string, args ...any) {
	r.t.Helper()
	r.found(&r.r.Wrong, "wrongly sent", format, args)
}

// OutOfOrder counts a password that was sent after a newer one, and fails the test.
func (r *Run) OutOfOrder(format string, args ...any) {
	r.t.Helper()
	r.found(&r.r.OutOfOrder, "out of order", format, args)
}

// Note says something about the run that belongs beside its numbers.
func (r *Run) Note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.r.Note = strings.TrimPrefix(r.r.Note+"; "+fmt.Sprintf(format, args...), "; ")
}

// said is how many findings are printed, and not only counted.
const said = 20

func (r *Run) found(count *int, what, format string, args []any) {
	r.t.Helper()
	if r.add(count, 1) <= said {
		r.t.Errorf(what+": "+format, args...)
	}
}

func (r *Run) add(count *int, n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	*count += n
	return *count
}

func (r *Run) report() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r.Lost+r.r.Wrong+r.r.OutOfOrder > 0 && !r.t.Failed() {
		r.t.Error("something was found")
	}
	r.r.Failed = r.t.Failed()
	r.t.Logf("%s: %d trials, %d lost, %d wrongly sent, %d out of order, seed %d %s", r.r.Part, r.r.Trials, r.r.Lost, r.r.Wrong, r.r.OutOfOrder, r.r.Seed, r.r.Note)
	path := os.Getenv(EnvReport)
	if path == "" {
		return
	}
	line, err := json.Marshal(r.r)
	if err == nil {
		err = appendTo(path, append(line, '\n'))
	}
	if err != nil {
		r.t.Errorf("reporting: %v", err)
	}
}

func appendTo(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
