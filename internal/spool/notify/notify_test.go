package notify

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

func wait(t *testing.T, ticks <-chan struct{}) {
	t.Helper()
	select {
	case <-ticks:
	case <-time.After(3 * time.Minute):
		t.Fatal("no tick")
	}
}

func TestTicksAtStartAndOnNewFiles(t *testing.T) {
	dir := t.TempDir()
	ticks, err := Dir(t.Context(), dir, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, ticks)
	if err := os.WriteFile(filepath.Join(dir, "x"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	wait(t, ticks)
}

func TestTicksWithoutNotification(t *testing.T) {
	ticks, err := Dir(t.Context(), t.TempDir(), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		wait(t, ticks)
	}
}

// A process that may open no more files gets no notification from the kernel, either; nor one whose user has used up his instances.
func TestNoInstance(t *testing.T) {
	dir := t.TempDir()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	_, errWatcher := fsnotify.NewWatcher()
	ticks, err := Dir(t.Context(), dir, time.Millisecond)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if errWatcher == nil || err != nil {
		t.Fatal(errWatcher, err)
	}
	for range 3 {
		wait(t, ticks)
	}
}

func TestMissingFolder(t *testing.T) {
	if _, err := Dir(t.Context(), filepath.Join(t.TempDir(), "missing"), time.Hour); err == nil {
		t.Error("watching nothing succeeded")
	}
}
