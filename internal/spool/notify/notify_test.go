package notify

import (
	"os"
	"path/filepath"
	"testing"
	"time"
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

func TestMissingFolder(t *testing.T) {
	if _, err := Dir(t.Context(), filepath.Join(t.TempDir(), "missing"), time.Hour); err == nil {
		t.Error("watching nothing succeeded")
	}
}
