package control

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ask repeats a question until the server, which starts meanwhile, is there.
func ask(t *testing.T, path, question string, answer any) error {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := Get(t.Context(), path, question, answer); !errors.Is(err, ErrNotRunning) || time.Now().After(deadline) {
			return err
		}
	}
}

func TestServeAndGet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	for range 2 { // the second time over the socket that the first left behind
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- Serve(ctx, path, map[string]func() (any, error){
				"/status": func() (any, error) { return map[string]int{"waiting": 3}, nil },
				"/broken": func() (any, error) { return nil, errors.New("disk on fire") },
			})
		}()
		var got map[string]int
		if err := ask(t, path, "/status", &got); err != nil || got["waiting"] != 3 {
			t.Errorf("got %v, %v", got, err)
		}
		if err := ask(t, path, "/broken", &got); err == nil || !strings.Contains(err.Error(), "disk on fire") {
			t.Errorf("broken: %v", err)
		}
		if err := ask(t, path, "/unknown", &got); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("unknown: %v", err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("socket: %v, %v", info, err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	if err := Get(t.Context(), filepath.Join(dir, "none"), "/status", nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	dead := filepath.Join(dir, "dead")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_ = Serve(ctx, dead, nil)
	if err := Get(t.Context(), dead, "/status", nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a dead socket: %v", err)
	}
}
