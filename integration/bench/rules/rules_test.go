package rules

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
)

func TestWords(t *testing.T) {
	words := strings.Fields(Words(100_000))
	seen := map[string]bool{}
	for _, w := range words {
		if len(w) < 5 || len(w) > 9 {
			t.Fatalf("%s has %d letters", w, len(w))
		}
		seen[w] = true
	}
	if len(seen) != 100_000 {
		t.Errorf("%d different words of 100,000", len(seen))
	}
	if w := word(longWord); len(w) != 9 {
		t.Errorf("the long word is %s", w)
	}
}

func TestBreached(t *testing.T) {
	path := filepath.Join(t.TempDir(), "breached.bin")
	if err := Breached(context.Background(), path, 100_000); err != nil {
		t.Fatal(err)
	}
	f, err := breached.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := f.Header().Entries; n != 100_000 {
		t.Errorf("%d passwords, want 100,000", n)
	}
	if held, err := f.HoldsPassword([]byte(leaked)); err != nil || !held {
		t.Errorf("the known one is not held: %v", err)
	}
	if held, err := f.HoldsPassword([]byte(NewPassword())); err != nil || held {
		t.Errorf("another one is held: %v", err)
	}
}
