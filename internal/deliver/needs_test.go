package deliver

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
)

// A key is needed while a change that is sealed to it waits, whatever else lies in the folder.
func TestNeeds(t *testing.T) {
	other, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "google")
	w.open()
	defer w.close()
	needs := func(key seal.PrivateKey, want bool) {
		t.Helper()
		if got, err := w.f.Needs(key.Public().ID()); err != nil || got != want {
			t.Errorf("needed: %v, %v, want %v", got, err, want)
		}
	}
	needs(w.key, false)
	file := w.put(w.change(1, 1, "google"))
	needs(w.key, true)
	needs(other, false)
	if err := os.Remove(filepath.Join(w.outgoing(), filepath.Base(file))); err != nil {
		t.Fatal(err)
	}
	needs(w.key, false)
	w.write("torn"+change.Suffix, []byte("{")) // may still become one
	needs(w.key, true)
	if err := os.RemoveAll(w.outgoing()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.f.Needs(w.key.Public().ID()); err == nil {
		t.Error("a folder that cannot be read needs nothing")
	}
}
