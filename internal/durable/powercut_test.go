package durable

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/crash"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

// text makes contents by which can be told that they are whole: a checksum, a number, and a few sectors.
func text(n int) []byte {
	b := fmt.Appendf(nil, "%d\n%s", n, bytes.Repeat(fmt.Appendf(nil, "line %d\n", n), 200))
	sum := sha256.Sum256(b)
	return append(sum[:], b...)
}

// number is the number of contents that are whole.
func number(b []byte) (int, error) {
	if len(b) < sha256.Size || sha256.Sum256(b[sha256.Size:]) != [sha256.Size]byte(b) {
		return 0, fmt.Errorf("%d bytes are not whole", len(b))
	}
	line, _, _ := strings.Cut(string(b[sha256.Size:]), "\n")
	return strconv.Atoi(line)
}

// work calls each function of the package, and says before it what begins, and after it what holds.
func work(dir string) error {
	path := func(name string) string { return filepath.Join(dir, name) }
	var failed error
	do := func(what string, err error) {
		if failed = errors.Join(failed, err); failed == nil {
			crash.Say(what)
		}
	}
	for n := range 4 {
		do(fmt.Sprint("value ", n), Replace(path("value"), text(n), 0o600))
	}
	for n := range 4 {
		do(fmt.Sprint("created ", n), Create(path(fmt.Sprint("file", n)), text(n), 0o600))
	}
	crash.Say("moving")
	do("moved", Move(path("file0"), path("folder/file0")))
	crash.Say("removing")
	do("removed", Remove(path("file1")))
	crash.Say("shredding")
	do("shredded", Shred(path("file2")))
	return failed
}

// promised holds a state against the guarantees of the package comment.
func promised(s crash.State) error {
	said := func(what string) bool { return slices.Contains(s.Said, what) }
	last := -1
	for n := range 4 {
		if said(fmt.Sprint("value ", n)) {
			last = n
		}
	}
	b, there := s.Files["value"]
	switch n, err := number(b); {
	case !there && last < 0:
	case !there:
		return fmt.Errorf("value %d is lost", last)
	case err != nil:
		return fmt.Errorf("what was replaced: %w", err)
	case n < last || n > last+1:
		return fmt.Errorf("value %d after %d had been put", n, last)
	}
	whole := func(n int, paths ...string) error {
		if !said(fmt.Sprint("created ", n)) {
			return nil
		}
		for _, path := range paths {
			if got, err := number(s.Files[path]); err == nil && got == n {
				return nil
			}
		}
		return fmt.Errorf("file %d is lost", n)
	}
	at := []string{"file0"}
	if said("moving") {
		at = append(at, "folder/file0")
	}
	if said("moved") {
		at = at[1:]
	}
	err := errors.Join(whole(0, at...), whole(3, "file3"))
	if !said("removing") {
		err = errors.Join(err, whole(1, "file1"))
	}
	if !said("shredding") {
		err = errors.Join(err, whole(2, "file2"))
	}
	for what, path := range map[string]string{"moved": "file0", "removed": "file1", "shredded": "file2"} {
		if _, there := s.Files[path]; said(what) && there {
			err = errors.Join(err, fmt.Errorf("%s is back after it was %s", path, what))
		}
	}
	return err
}

// The power is cut at any point of Create, Replace, Move, Remove and Shred, and what had returned holds.
func TestPowerCut(t *testing.T) {
	if dir, ok := crash.Inside(); ok {
		if err := work(dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	run := trial.Start(t, "durable", 3000)
	dir := crash.Folder(t)
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	trace, err := crash.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trace.Run(crash.Self(t, "TestPowerCut", dir), -1); err != nil {
		t.Fatal(err)
	}
	if err := trace.Check(); err != nil {
		t.Fatal(err)
	}
	crash.Hold(t, run, []*crash.Trace{trace}, promised, crash.FileSync, crash.FolderSync)
}
