package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
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

// Who may write beside a spool could make a link of it, and have the hook write elsewhere. Above it there may be links: they are root's.
func TestOpenFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.MkdirAll(at("real/incoming"), 0o700), os.Symlink("real", at("above")), os.Symlink("real/incoming", at("incoming"))); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{at("incoming"), at("incoming") + "/"} {
		if _, err := Open(link, ".x"); err == nil || !strings.Contains(err.Error(), "mount") {
			t.Errorf("%s: %v", link, err)
		}
	}
	if _, err := Open(at("above/incoming"), ".x"); err != nil {
		t.Error(err)
	}

	// It became one later.
	s, err := Open(at("real/incoming"), ".x")
	if err == nil {
		err = errors.Join(s.Put("1.x", nil), os.Rename(at("real/incoming"), at("elsewhere")), os.Symlink(at("elsewhere"), at("real/incoming")))
	}
	if err != nil {
		t.Fatal(err)
	}
	if names, err := s.List(); err == nil {
		t.Errorf("listed %q behind a link", names)
	}
}

// A pipe in a file's place is not waited for.
func TestReadOfAPipe(t *testing.T) {
	s := open(t)
	if err := syscall.Mkfifo(filepath.Join(s.Dir(), "1.capture"), 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := s.Read("1.capture", 100); done <- err }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a pipe was read")
		}
	case <-time.After(10 * time.Second):
		t.Error("a pipe is waited for")
	}
}

// Whatever else lies in the folder, and however many files, no more names are kept than asked for.
func TestSome(t *testing.T) {
	s := open(t)
	for i := range 2500 {
		for _, suffix := range []string{".capture", ".other"} {
			if err := os.WriteFile(filepath.Join(s.Dir(), fmt.Sprintf("%05d%s", i, suffix)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for limit, want := range map[int]int{1: 1, 7: 7, 2000: 2000, 3000: 2500} {
		names, err := s.Some(limit)
		if err != nil || len(names) != want || !slices.IsSorted(names) || cap(names) > 2*want+16 {
			t.Errorf("of %d at most: %d names, room for %d, %v", limit, len(names), cap(names), err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 2500 || !slices.IsSorted(all) {
		t.Errorf("%d names, %v", len(all), err)
	}
	if allocated := testing.AllocsPerRun(1, func() { _, _ = s.Some(1) }); allocated > 5000 {
		t.Errorf("one name cost %v allocations: the folder was read to its end", allocated)
	}
}

func TestDamagedIsBounded(t *testing.T) {
	s := open(t)
	aside := filepath.Join(s.Dir(), damaged)
	if err := os.Mkdir(aside, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range mostDamaged + 100 {
		if err := os.WriteFile(filepath.Join(aside, fmt.Sprintf("%05d.capture", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := s.Damaged(); err != nil || len(names) != mostDamaged {
		t.Errorf("%d names, %v", len(names), err)
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
	names, err := s.New(func(name []byte) bool { return !slices.Contains(unknown, string(name)) })
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

// What the kernel gives is taken for what it is, whatever it is.
func FuzzParseNames(f *testing.F) {
	entry := func(inode uint64, kind byte, name string) []byte {
		b := binary.NativeEndian.AppendUint64(nil, inode)
		b = binary.NativeEndian.AppendUint64(b, 1)
		b = binary.NativeEndian.AppendUint16(b, uint16((nameAt+len(name)+1+7)/8*8))
		b = append(append(b, kind), name...)
		return append(b, make([]byte, 8-(nameAt+len(name))%8)...)
	}
	f.Add(slices.Concat(entry(1, syscall.DT_REG, "1-a.change"), entry(2, syscall.DT_DIR, ".."), entry(0, syscall.DT_REG, "inode-zero")))
	f.Add(entry(1, syscall.DT_REG, "1-a.change")[:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		told := 0
		more, err := parseNames(b, func(name []byte, _ byte) bool {
			if told++; len(name) == 0 || bytes.IndexByte(name, 0) >= 0 {
				t.Errorf("the name %q", name)
			}
			return true
		})
		if more != (err == nil) {
			t.Errorf("%v, %v", more, err)
		}
		if told > len(b)/nameAt {
			t.Errorf("%d names in %d bytes", told, len(b))
		}
	})
}

func TestFileWithInodeZero(t *testing.T) {
	b := make([]byte, 32)
	binary.NativeEndian.PutUint16(b[lengthAt:], 32)
	b[kindAt] = syscall.DT_REG
	copy(b[nameAt:], "1.change")
	told := 0
	if more, err := parseNames(b, func(name []byte, kind byte) bool { told++; return string(name) == "1.change" && kind == syscall.DT_REG }); !more || err != nil || told != 1 {
		t.Errorf("%d, %v, %v", told, more, err)
	}
}

// The names are those that package os has.
func TestNamesAsPackageOS(t *testing.T) {
	s := open(t)
	for i := range 1500 {
		name := strings.Repeat("x", i%200) + fmt.Sprint(i) + ".capture"
		if err := os.WriteFile(filepath.Join(s.Dir(), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(s.Dir(), "link.capture")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			want = append(want, e.Name())
		}
	}
	if names, err := s.List(); err != nil || !slices.Equal(names, want) {
		t.Errorf("%d names, not %d; %v", len(names), len(want), err)
	}
	for kind, want := range map[string]bool{want[0]: true, "link.capture": false, "nothing.capture": false} {
		if got, err := isRegular(s.Dir(), kind, syscall.DT_UNKNOWN); got != want || err != nil {
			t.Errorf("%s, of a kind that the file system does not tell: %v, %v", kind, got, err)
		}
	}
	if _, err := isRegular(filepath.Join(s.Dir(), want[0]), "x", syscall.DT_UNKNOWN); err == nil {
		t.Error("what lstat refuses to tell is taken for no file")
	}
}

// What is known costs nothing that the garbage collector has to see to.
func BenchmarkNew(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(dir, ".change")
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10_000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%019d-%032x.change", i, i)), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("spool", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if names, err := s.New(func([]byte) bool { return true }); err != nil || len(names) > 0 {
				b.Fatal(names, err)
			}
		}
	})
	b.Run("os.ReadDir", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 10_000 {
				b.Fatal(err)
			}
		}
	})
}
