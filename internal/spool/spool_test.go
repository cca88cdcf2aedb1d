package spool

import (
	"errors"
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
