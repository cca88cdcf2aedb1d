package spool

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/crash"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

const files = 6

func fileName(n int) string { return fmt.Sprintf("%02d.capture", n) }

// sealed makes contents that tell whether they are whole, as a capture's tag does.
func sealed(n int) []byte {
	b := bytes.Repeat([]byte{byte(n + 1)}, 700*(n+1))
	sum := sha256.Sum256(b)
	return append(sum[:], b...)
}

func isWhole(b []byte, n int) bool { return bytes.Equal(b, sealed(n)) }

func write(dir string) error {
	s, err := Open(dir, ".capture")
	if err != nil {
		return err
	}
	for n := range files {
		err = errors.Join(err, s.Put(fileName(n), sealed(n)))
		crash.Say(fmt.Sprint("put ", n))
	}
	for n := range 2 {
		err = errors.Join(err, s.SetAside(fileName(n)))
		crash.Say(fmt.Sprint("aside ", n))
	}
	for n := 2; n < 4; n++ {
		crash.Say(fmt.Sprint("removing ", n))
		err = errors.Join(err, s.Remove(fileName(n)))
		crash.Say(fmt.Sprint("removed ", n))
	}
	return err
}

// The power is cut at any point of the writer's work, and its reader, the real one, finds what was put, and what was set aside.
func TestPowerCut(t *testing.T) {
	if dir, ok := crash.Inside(); ok {
		if err := write(dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	run := trial.Start(t, "spool", 2000)
	dir, found := crash.Folder(t), crash.Folder(t)
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
	crash.Hold(t, run, []*crash.Trace{trace}, func(state crash.State) error {
		if err := state.Put(found); err != nil {
			return err
		}
		s, err := Open(found, ".capture")
		if err != nil {
			return err
		}
		listed, err1 := s.List()
		aside, err2 := s.Damaged()
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		said := func(what string, n int) bool { return slices.Contains(state.Said, fmt.Sprint(what, " ", n)) }
		for n := range files {
			name := fileName(n)
			b, err := s.Read(name, 1<<20)
			here := err == nil && isWhole(b, n)
			there := slices.Contains(aside, name) && isWhole(state.Files["damaged/"+name], n)
			switch {
			case said("put", n) && !said("removing", n) && !here && !there:
				return fmt.Errorf("%s was put, and is lost", name)
			case said("aside", n) && (!there || slices.Contains(listed, name)):
				return fmt.Errorf("%s was set aside, and is met again", name)
			case said("removed", n) && slices.Contains(listed, name):
				return fmt.Errorf("%s was shredded, and is back", name)
			}
		}
		return nil
	}, crash.FileSync, crash.FolderSync)
}
