// Package ramdisk puts the temporary folders of a package's tests into memory, where the machine has room for them there, and has them run on
// one processor under the race detector.
//
// Why: tests with a simulated clock live through days in which everything is synced to disk. The clock costs nothing and the syncs
// cost minutes on a slow disk, and show nothing: what a sync is worth, other tests ask (internal/durable, internal/crash).
// And Go 1.26's race detector itself may crash where two processors meet a timer of one simulated clock that is due (golang/go#78156). It
// finds races by what happens before what, for which one processor is enough.
package ramdisk

import (
	"os"
	"runtime"
	"syscall"
	"testing"
)

const (
	dir  = "/dev/shm"
	room = 256 << 20
)

// processors is how many the tests have, unless they say otherwise themselves; 0: all.
var processors = 0

// Run is for TestMain: it runs the tests of a package, and returns its exit code.
func Run(m *testing.M) int {
	runtime.GOMAXPROCS(processors)
	var disk syscall.Statfs_t
	if syscall.Statfs(dir, &disk) == nil && disk.Bavail*uint64(disk.Bsize) > room {
		if temp, err := os.MkdirTemp(dir, "samba-pwsync-test-"); err == nil {
			defer os.RemoveAll(temp)
			os.Setenv("TMPDIR", temp)
		}
	}
	return m.Run()
}
