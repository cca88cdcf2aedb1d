package crash

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// stubborn does a few things in a folder, says what became of each, and goes on.
func stubborn(dir string) {
	say := func(what string, err error) {
		if err == nil {
			Say(what)
		} else if errno := syscall.Errno(0); errors.As(err, &errno) {
			Say(what + ": " + errno.Error())
		} else {
			Say(what + ": " + err.Error())
		}
	}
	say("before", os.WriteFile(filepath.Join(dir, "before"), nil, 0o600))
	Say(Begin)
	f, err := os.Create(filepath.Join(dir, "file"))
	say("create", err)
	if err != nil {
		return
	}
	_, err = f.WriteString(words)
	say("write", err)
	say("sync", f.Sync())
	say("rename", os.Rename(filepath.Join(dir, "file"), filepath.Join(dir, "other")))
	_, err = os.ReadFile(filepath.Join(dir, "other"))
	say("read", err)
	say("outside", os.WriteFile(os.DevNull, []byte(words), 0))
	say("remove", os.Remove(filepath.Join(dir, "other")))
}

func TestEndure(t *testing.T) {
	if dir, ok := Inside(); ok {
		stubborn(dir)
		return
	}
	all := []string{"before", "create", "write", "sync", "rename", "read", "outside", "remove"}
	fails := func(name string, errno syscall.Errno) []string {
		said := slices.Clone(all)
		said[slices.Index(said, name)] = name + ": " + errno.Error()
		if name == "rename" {
			said = []string{"before", "create", "write", "sync", "rename: " + errno.Error(), "read: no such file or directory", "outside", "remove: no such file or directory"}
		}
		return said
	}
	for _, c := range []struct {
		fault Fault
		want  []string
		hit   string
	}{
		{Fault{First: 100, Calls: 1, Errno: syscall.EIO}, all, ""},
		{Fault{Calls: 1, Errno: syscall.EROFS}, []string{"before", "create: " + syscall.EROFS.Error()}, "open file"},
		{Fault{First: 1, Calls: 1, Errno: syscall.ENOSPC}, fails("write", syscall.ENOSPC), "write file"},
		{Fault{First: 2, Calls: 1, Errno: syscall.EIO}, fails("sync", syscall.EIO), "sync file"},
		{Fault{First: 3, Calls: 1, Errno: syscall.EDQUOT}, fails("rename", syscall.EDQUOT), "rename other"},
		{Fault{First: 4, Calls: 1, Errno: syscall.EIO, Reads: true}, fails("read", syscall.EIO), "open other"},
		{Fault{First: 1, Calls: 1, Effect: Short, Errno: syscall.ENOSPC}, all, "write file"}, // the rest is written by another call
		{Fault{First: 1, Calls: 2, Effect: Delay}, all, "write file"},
		{Fault{First: 2, Calls: 1, Effect: Kill}, []string{"before", "create", "write"}, "sync file"},
	} {
		dir := Folder(t)
		got, err := Endure(Self(t, "TestEndure", dir), dir, c.fault, true)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Said, c.want) || !strings.HasPrefix(strings.Join(got.Hit, ","), c.hit) || got.Killed != (c.fault.Effect == Kill) {
			t.Errorf("%v: %+v, want %q", c.fault, got, c.want)
		}
		if got.Calls < len(got.Hit) || !got.Killed && got.Exit != 0 {
			t.Errorf("%v: %+v", c.fault, got)
		}
	}
}
