package crash

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

const envFolder = "PWSYNC_CRASH_FOLDER"

// Self is this test's binary, about to run one test, in which Inside returns the folder.
func Self(t testing.TB, test, folder string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), envFolder+"="+folder)
	return cmd
}

// Inside returns the folder in which the test is to do what is recorded, if it was started by Self.
func Inside() (folder string, ok bool) { return os.LookupEnv(envFolder) }

// Folder makes a folder in memory where there is one: what the disk does is simulated, and its real time is not wanted.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "crash")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// What is taken away to see whether a test would notice.
const (
	FileSync   = false
	FolderSync = true
)

// within how many crash points a missing sync has to be found.
const within = 1000

// Hold cuts the power at run.N random points of the traces, and holds what is left to check. Then it takes away each of needs, FileSync or
// FolderSync, and fails the test if that is not found soon.
func Hold(t testing.TB, run *trial.Run, traces []*Trace, check func(State) error, needs ...bool) {
	t.Helper()
	HoldEach(t, run, traces, slices.Repeat([]func(State) error{check}, len(traces)), needs...)
}

// HoldEach is Hold with a check for each trace.
func HoldEach(t testing.TB, run *trial.Run, traces []*Trace, checks []func(State) error, needs ...bool) {
	t.Helper()
	one := func(traces []*Trace) (at, of int, err error) {
		i := run.Rand.IntN(len(traces))
		trace := traces[i]
		at = run.Rand.IntN(trace.Len() + 1)
		return at, trace.Len(), checks[i](trace.At(run.Rand, at))
	}
	for range run.N {
		if at, of, err := one(traces); err != nil {
			run.Lost("power cut after %d of %d calls: %v", at, of, err)
		}
		run.Trial(1)
	}
	for _, folders := range needs {
		name := map[bool]string{FileSync: "files", FolderSync: "folders"}[folders]
		var without []*Trace
		for _, trace := range traces {
			without = append(without, trace.Without(folders))
		}
		n := 1
		for ; n <= within; n++ {
			if _, _, err := one(without); err != nil {
				break
			}
		}
		if n > within {
			t.Errorf("without the fsync of %s, %d crash points found nothing: the test proves nothing", name, within)
			continue
		}
		run.Note("without the fsync of %s found at crash point %d", name, n)
	}
}
