package nopoll

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	f, err := OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	flags, _, _ := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_GETFL, 0)
	closed, _, _ := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_GETFD, 0)
	if flags&syscall.O_NONBLOCK != 0 || closed&syscall.FD_CLOEXEC == 0 {
		t.Errorf("flags %o, of the descriptor %o", flags, closed)
	}
	if _, err := f.WriteString("text"); err != nil || f.Close() != nil {
		t.Error(err)
	}
	if text, err := ReadFile(file); string(text) != "text" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	_, err = Open(file + "2")
	if path := (*fs.PathError)(nil); !errors.As(err, &path) || path.Path != file+"2" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not there: %v", err)
	}
}

// A pipe in a file's place is opened at once, and can be told.
func TestPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(pipe, syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().IsRegular() {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// BenchmarkReadFile is what one small file costs, beside package os.
func BenchmarkReadFile(b *testing.B) {
	file := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("x", 1728)), 0o600); err != nil {
		b.Fatal(err)
	}
	for name, read := range map[string]func(string) ([]byte, error){"nopoll": ReadFile, "os": os.ReadFile} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := read(file); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
