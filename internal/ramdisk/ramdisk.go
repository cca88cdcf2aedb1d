// Package ramdisk puts the temporary folders of a package's tests into memory, where the machine has room for them there.
//
// Why: tests with a simulated clock live through days in which everything is synced to disk. The clock costs nothing and the syncs
// cost minutes on a slow disk, and show nothing: what a sync is worth, other tests ask (internal/durable, internal/crash).
package ramdisk

import (
	"os"
	"syscall"
	"testing"
)

const (
	dir  = "/dev/shm"
	room = 256 << 20
)

// Run is for TestMain: it runs the tests of a package, and returns its exit code.
func Run(m *testing.M) int {
	var disk syscall.Statfs_t
	if syscall.Statfs(dir, &disk) == nil && disk.Bavail*uint64(disk.Bsize) > room {
		if temp, err := os.MkdirTemp(dir, "samba-pwsync-test-"); err == nil {
			defer os.RemoveAll(temp)
			os.Setenv("TMPDIR", temp)
		}
	}
	return m.Run()
}
