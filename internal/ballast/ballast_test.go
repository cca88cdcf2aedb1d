package ballast

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/ramdisk"
)

const mb = 1 << 20

func keeper(dir string, size int64) (*Keeper, *event.Log) {
	log := event.New(slog.New(slog.NewTextHandler(new(bytes.Buffer), nil)))
	return New(Options{Dir: dir, Size: size, Log: log}), log
}

// disks are the file systems on which this is tried, each of 32 MB.
var disks = map[string]func(testing.TB, int64, int) string{"tmpfs": ramdisk.Small, "ext4": ramdisk.Ext4}

// The ballast is made where there is room, removed when the disk is full, and made again.
func TestFullDisk(t *testing.T) {
	for name, disk := range disks {
		t.Run(name, func(t *testing.T) {
			dir := disk(t, 32*mb, 0)
			k, log := keeper(dir, 8*mb)
			k.Look()
			if s := k.Status(); s.Condition != Well || s.Ballast != 8*mb || s.Wanted != 8*mb || s.Free < mb {
				t.Fatalf("at first: %+v", s)
			}
			filler := ramdisk.Fill(t, dir)
			if err := os.WriteFile(filepath.Join(dir, "ours"), make([]byte, mb), 0o600); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("the disk is not full: %v", err)
			}
			k.Look()
			if s := k.Status(); s.Condition != Full || s.Ballast != 0 {
				t.Fatalf("full: %+v", s)
			}
			if err := os.WriteFile(filepath.Join(dir, "ours"), make([]byte, 4*mb), 0o600); err != nil {
				t.Errorf("the reserve's room cannot be used: %v", err)
			}
			k.Look()
			if s := k.Status(); s.Condition != Low || s.Ballast != 0 {
				t.Errorf("while there is no room for the reserve: %+v", s)
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			k.Look()
			if s := k.Status(); s.Condition != Well || s.Ballast != 8*mb {
				t.Errorf("afterwards: %+v", s)
			}
			if c := log.Counters(); c["disk-trouble"] == 0 || c["disk-trouble"] > 2 || c["ballast-released"] != 1 || c["disk-well"] != 1 {
				t.Errorf("events: %v", c)
			}
		})
	}
}

// No inodes are as bad as no blocks. The ballast gives back the one that it has.
func TestNoInodes(t *testing.T) {
	for name, disk := range disks {
		t.Run(name, func(t *testing.T) {
			dir := disk(t, 32*mb, 64)
			k, _ := keeper(dir, mb)
			k.Look()
			var err error
			for i := 0; err == nil; i++ {
				err = os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600)
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			if seen, err := See(dir); seen != Full || err != nil {
				t.Errorf("from outside it is %s, %v", seen, err)
			}
			k.Look()
			if s := k.Status(); s.Condition != Full || !strings.Contains(s.Error, "no space") || s.Ballast != 0 {
				t.Errorf("%+v", s)
			}
			if err := os.WriteFile(filepath.Join(dir, "ours"), nil, 0o600); err != nil {
				t.Errorf("no file can be made: %v", err)
			}
		})
	}
}

// A file system that the kernel finds damaged is noticed, and when it can be written again, the process is to start anew.
func TestReadOnly(t *testing.T) {
	dir := ramdisk.Ext4(t, 32*mb, 0)
	k, log := keeper(dir, mb)
	k.Look()
	ramdisk.Break(t, dir)
	k.Look()
	if s := k.Status(); s.Condition != ReadOnly && s.Condition != Broken {
		t.Errorf("%+v", s)
	}
	if log.Counters()["disk-trouble"] != 1 {
		t.Error("nobody was told")
	}
	k.note(ReadOnly, syscall.EROFS, 0, 0)
	k.o.Dir = t.TempDir()
	if err := k.Run(context.Background()); !errors.Is(err, ErrMountedAnew) {
		t.Errorf("mounted anew: %v", err)
	}
}

func TestWithoutBallast(t *testing.T) {
	k, _ := keeper(t.TempDir(), 0)
	k.Look()
	if s := k.Status(); s.Condition != Well || s.Ballast != 0 {
		t.Errorf("%+v", s)
	}
	if left, _ := os.ReadDir(k.o.Dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Where the size was changed, or a crash left a part, the ballast is made anew.
func TestBallastOfAnotherSize(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, file), []byte("part"), 0o600); err != nil {
		t.Fatal(err)
	}
	k, log := keeper(dir, mb)
	k.Look()
	k.Look()
	if s := k.Status(); s.Condition != Well || s.Ballast != mb {
		t.Errorf("%+v", s)
	}
	if log.Counters()["ballast-released"] != 0 {
		t.Error("it was said that the disk is full")
	}
}
