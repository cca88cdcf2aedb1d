package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Create(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a taken name: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "one" {
		t.Errorf("contents %q", got)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestCreateFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.Symlink(target, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := Create(filepath.Join(dir, "link"), []byte("x"), 0o600); err == nil {
		t.Error("wrote through a symbolic link")
	}
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the target of the link was made")
	}
}

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path+".new", []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two"} {
		if err := Replace(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != want {
			t.Errorf("contents %q", got)
		}
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRemoveAndShred(t *testing.T) {
	dir := t.TempDir()
	for name, remove := range map[string]func(string) error{"remove": Remove, "shred": Shred} {
		path := filepath.Join(dir, name)
		if err := Create(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := remove(path); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: still there", name)
		}
	}
}

func TestShredOverwrites(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "file"), filepath.Join(dir, "hard link")
	if err := Create(path, []byte("password"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, other); err != nil {
		t.Fatal(err)
	}
	if err := Shred(path); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(other); strings.Trim(string(got), "\x00") != "" {
		t.Errorf("the blocks still hold %q", got)
	}
}

func TestShredOverwritesAllOfALargerFile(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "file"), filepath.Join(dir, "hard link")
	text := strings.Repeat("password", 3*shreddedAtOnce/8+1)
	if err := errors.Join(Create(path, []byte(text), 0o600), os.Link(path, other), Shred(path)); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(other); len(got) != len(text) || strings.Trim(string(got), "\x00") != "" {
		t.Errorf("of %d bytes are left: %d, and not all zeros", len(text), len(got))
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it is there still")
	}
}

// Another role can make a file that is larger than any memory, and has no block on the disk.
func TestShredOfAHugeFile(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "file"), filepath.Join(dir, "hard link")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Link(path, other)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skip(err) // not on this file system
	}
	if err := Shred(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(other); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it is there still")
	}
}

// A pipe that another role puts in a file's place is not waited for, and neither it nor a link nor a folder is taken for a file.
func TestOnlyPlainFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(syscall.Mkfifo(at("pipe"), 0o600), os.WriteFile(at("file"), []byte("text"), 0o600),
		os.Symlink("file", at("link")), os.Mkdir(at("folder"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, name := range []string{"pipe", "link", "folder"} {
			for what, err := range map[string]error{"sync": Sync(at(name)), "shred": Shred(at(name)), "read": func() error { _, err := ReadSmall(at(name)); return err }()} {
				if err == nil {
					t.Errorf("%s of a %s", what, name)
				}
			}
			if _, err := os.Lstat(at(name)); err != nil {
				t.Error(err)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the pipe is waited for")
	}
	if b, err := ReadSmall(at("file")); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := Read(at("file"), 2); err != nil || string(b) != "te" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestErrorsNameTheCause(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing", "file")
	for name, err := range map[string]error{
		"create":  Create(missing, nil, 0o600),
		"replace": Replace(missing, nil, 0o600),
		"move":    Move(missing, missing+"2"),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestModeLike(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	for folder, want := range map[os.FileMode]os.FileMode{0o700: 0o600, 0o770 | os.ModeSetgid: 0o660, 0o750: 0o640, 0o777: 0o660} {
		if err := os.Chmod(dir, folder); err != nil {
			t.Fatal(err)
		}
		mode, err := ModeLike(dir)
		if err != nil || mode != want {
			t.Errorf("in a folder of %v: %v, %v", folder, mode, err)
		}
		path := filepath.Join(dir, "file")
		if err := Create(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		if info, _ := os.Stat(path); info.Mode().Perm() != want {
			t.Errorf("a file of %v was made with %v", want, info.Mode())
		}
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
