package attempt

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errOwn = errors.New("own")

// trace is what was done in which order, by whatever goroutine.
type trace struct {
	mu   sync.Mutex
	done []string
}

func (t *trace) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = append(t.done, what)
}

func in(d time.Duration) time.Time { return time.Now().Add(d) }

// step is a step that takes so long.
func (t *trace) step(c *Course, name string, takes, patience time.Duration) string {
	value, err := Step(c, in(patience), func() (string, error) {
		t.add(name)
		time.Sleep(takes)
		return name, nil
	})
	if err != nil {
		return err.Error()
	}
	return value
}

func TestWithoutTrouble(t *testing.T) {
	var tr trace
	got := Run(func(c *Course) []string {
		a := tr.step(c, "a", 0, time.Hour)
		_, err := Step(c, in(time.Hour), func() (int, error) { return 3, errOwn })
		n, errOuter := Step(c, in(time.Hour), func() (int, error) {
			return len(tr.step(c, "b", 0, time.Hour) + tr.step(c, "c", 0, time.Hour)), nil
		})
		return []string{a, fmt.Sprint(err), fmt.Sprint(n, errOuter), tr.step(c, "d", 0, time.Hour)}
	})
	if want := []string{"a", "own", "2 <nil>", "d"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(tr.done, want) {
		t.Errorf("done: %q", tr.done)
	}
}

// A panic is an error, which tells nothing, and the same goroutine goes on.
func TestPanic(t *testing.T) {
	var tr trace
	got := Run(func(c *Course) []string {
		_, err := Step(c, in(time.Hour), func() (int, error) {
			tr.step(c, "a", 0, time.Hour)
			panic("Canary")
		})
		return []string{fmt.Sprint(err), tr.step(c, "b", 0, time.Hour)}
	})
	if want := []string{"internal fault", "b"}; !slices.Equal(got, want) || !slices.Equal(tr.done, []string{"a", "b"}) {
		t.Errorf("%q, done %q", got, tr.done)
	}
}

// What hangs becomes an error, each by itself; what was done is not done again; and time goes by for what hangs only.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr trace
		begun := time.Now()
		got := Run(func(c *Course) []string {
			all := []string{tr.step(c, "a", 0, time.Second), tr.step(c, "hangs", time.Hour, time.Second), tr.step(c, "slow", 900*time.Millisecond, time.Second), tr.step(c, "too late", 0, 0)}
			inner := []string{}
			outer, err := Step(c, in(4*time.Second), func() (string, error) {
				inner = []string{tr.step(c, "b", 0, time.Second), tr.step(c, "hangs inside", time.Hour, time.Second), tr.step(c, "c", 0, time.Second)}
				return fmt.Sprint(inner), nil
			})
			all = append(all, outer, fmt.Sprint(err))
			_, err = Step(c, in(time.Second), func() (string, error) { // too slow as a whole, though no part of it is
				for range 4 {
					tr.step(c, "part", 400*time.Millisecond, time.Second)
				}
				return "", nil
			})
			return append(all, fmt.Sprint(err), tr.step(c, "d", 0, time.Second))
		})
		if want := []string{"a", "it hangs", "slow", "it hangs", "[b it hangs c]", "<nil>", "it hangs", "d"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if want := []string{"a", "hangs", "slow", "b", "hangs inside", "c", "part", "part", "part", "d"}; !slices.Equal(tr.done, want) {
			t.Errorf("done: %q, want %q", tr.done, want)
		}
		if took := time.Since(begun); took < 3900*time.Millisecond || took > 3900*time.Millisecond+4*pace {
			t.Errorf("took %v", took)
		}
		time.Sleep(2 * time.Hour) // what was given up ends, and nothing comes of it
		if len(tr.done) != 10 {
			t.Errorf("done afterwards: %q", tr.done[10:])
		}
	})
}

func BenchmarkSteps(b *testing.B) {
	for b.Loop() {
		Run(func(c *Course) int {
			for range 12 {
				_, _ = Step(c, in(time.Hour), func() (int, error) { return 0, nil })
			}
			return 0
		})
	}
}
