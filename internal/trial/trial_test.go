package trial

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// fake stands for a test that fails without failing this one.
type fake struct {
	testing.TB
	failed  int
	cleanup func()
}

func (f *fake) Errorf(string, ...any) { f.failed++ }
func (f *fake) Error(...any)          { f.failed++ }
func (f *fake) Failed() bool          { return f.failed > 0 }
func (f *fake) Cleanup(do func())     { f.cleanup = do }

func TestResult(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report")
	t.Setenv(EnvTrials, "7")
	t.Setenv(EnvSeed, "42")
	t.Setenv(EnvReport, report)
	f := &fake{TB: t}
	r := Start(f, "part", 3)
	if r.N != 7 || r.Seed != 42 {
		t.Errorf("asked for 7 trials from seed 42, got %d from %d", r.N, r.Seed)
	}
	first := r.Rand.Uint64()
	if again := Start(&fake{TB: t}, "part", 3).Rand.Uint64(); again != first {
		t.Error("the same seed led elsewhere")
	}
	r.Trial(5)
	r.Trial(1)
	r.Lost("a")
	for range 2 * said {
		r.Wrong("b")
	}
	r.OutOfOrder("c")
	r.Note("one")
	r.Note("two")
	f.cleanup()
	if f.failed != said+2 {
		t.Errorf("said %d times that it failed", f.failed)
	}
	b, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var got Result
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if want := (Result{"part", 6, 1, 2 * said, 1, 42, "one; two", true}); got != want {
		t.Errorf("reported %+v, want %+v", got, want)
	}
}

func TestShort(t *testing.T) {
	t.Setenv(EnvTrials, "")
	t.Setenv(EnvSeed, "")
	t.Setenv(EnvReport, "")
	if r := Start(&fake{TB: t}, "part", 3); r.N != 3 {
		t.Errorf("%d trials", r.N)
	}
}
