package ramdisk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Small mounts a file system of its own for a test, of so many bytes and inodes (0: as many as it likes), and returns its folder. Root only: others
// skip the test.
func Small(t testing.TB, bytes int64, inodes int) string {
	t.Helper()
	dir := mountPoint(t)
	options := fmt.Sprintf("mode=0755,size=%d", bytes)
	if inodes > 0 {
		options += fmt.Sprintf(",nr_inodes=%d", inodes)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mounting: %v", err)
	}
	return dir
}

// Ext4 is Small with the file system that most servers have, on a loop device: what is written is kept back, and may fail only when it is synced.
func Ext4(t testing.TB, bytes int64, inodes int) string {
	t.Helper()
	dir := mountPoint(t)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, bytes); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", "-F"}
	if inodes > 0 {
		args = append(args, "-N", fmt.Sprint(inodes))
	}
	run(t, "mkfs.ext4", append(args, image)...)
	run(t, "mount", "-o", "loop", image, dir)
	return dir
}

// Break has the kernel treat an Ext4 as it does when it finds it damaged: nothing can be written any more.
func Break(t testing.TB, dir string) {
	t.Helper()
	run(t, "mount", "-o", "remount,abort", dir)
}

// Fill writes into a file until there is no room left, and returns its name.
func Fill(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "lost+found", "filler")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, io.ErrShortWrite) {
			t.Fatal(err)
		}
	}
	return path
}

func mountPoint(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	dir, err := os.MkdirTemp("/dev/shm", "small")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
		_ = os.Remove(dir)
	})
	return dir
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}
