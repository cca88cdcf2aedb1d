package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func open(t *testing.T) *Spool {
	t.Helper()
	s, err := Open(t.TempDir(), ".capture")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPutListReadRemove(t *testing.T) {
	s := open(t)
	for _, name := range []string{"2.capture", "1.capture"} {
		if err := s.Put(name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put("1.capture", nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name used twice: %v", err)
	}
	names, err := s.List()
	if err != nil || !slices.Equal(names, []string{"1.capture", "2.capture"}) {
		t.Errorf("list: %v, %v", names, err)
	}
	if b, err := s.Read("1.capture", 100); err != nil || string(b) != "1.capture" {
		t.Errorf("read: %q, %v", b, err)
	}
	if _, err := s.Read("1.capture", 3); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a file over the limit: %v", err)
	}
	for range 2 {
		if err := s.Remove("1.capture"); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Read("1.capture", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read after removal: %v", err)
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	s := open(t)
	for _, name := range []string{"x.new", "notes.txt", ".hidden.capture"} {
		if err := os.WriteFile(filepath.Join(s.Dir(), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(s.Dir(), "link.capture")); err != nil {
		t.Fatal(err)
	}
	if names, err := s.List(); err != nil || len(names) != 0 {
		t.Errorf("list: %v, %v", names, err)
	}
	if _, err := s.Read("link.capture", 1<<20); err == nil {
		t.Error("a symbolic link was followed")
	}
	for _, name := range []string{"x.txt", "../x.capture", "a/b.capture"} {
		if err := s.Put(name, nil); err == nil {
			t.Errorf("put %q", name)
		}
	}
}

func TestSetAside(t *testing.T) {
	s := open(t)
	if names, err := s.Damaged(); err != nil || names != nil {
		t.Errorf("damaged at first: %v, %v", names, err)
	}
	for range 2 {
		if err := s.Put("1.capture", nil); err != nil {
			t.Fatal(err)
		}
		if err := s.SetAside("1.capture"); err != nil {
			t.Fatal(err)
		}
	}
	if names, _ := s.List(); len(names) != 0 {
		t.Errorf("still listed: %v", names)
	}
	if names, err := s.Damaged(); err != nil || len(names) != 1 {
		t.Errorf("damaged: %v, %v", names, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "missing"), ".x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, ".x"); err == nil {
		t.Error("a file was opened as a spool")
	}
}

func TestNew(t *testing.T) {
	s := open(t)
	const n = 3000 // more than are read at a time
	for i := range n {
		if err := os.WriteFile(filepath.Join(s.Dir(), fmt.Sprintf("%05d.capture", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(s.Dir(), "folder.capture"), 0o700), os.WriteFile(filepath.Join(s.Dir(), "other"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if names, err := s.New(nil); err != nil || len(names) != n || !slices.IsSorted(names) {
		t.Errorf("%d names, %v", len(names), err)
	}
	unknown := []string{"00000.capture", "01023.capture", "01024.capture", "02999.capture"}
	names, err := s.New(func(name string) bool { return !slices.Contains(unknown, name) })
	if err != nil || !slices.Equal(names, unknown) {
		t.Errorf("%q, %v", names, err)
	}
	if err := os.RemoveAll(s.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.New(nil); err == nil {
		t.Error("a folder that is gone was listed")
	}
}
