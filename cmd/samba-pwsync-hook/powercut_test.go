package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/crash"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// The power is cut at any moment while the hook runs, once after another, some of its runs killed. What exited with 0 is there and whole; what else is
// visible is whole or recognised as damaged.
func TestPowerCut(t *testing.T) {
	run := trial.Start(t, "capture", 3000)
	const runs = 4
	var traces []*crash.Trace
	var checks []func(crash.State) error
	for range max(8, min(200, run.N/500)) {
		s := newSite(t)
		trace, err := crash.New(s.state)
		s.must(err)
		var passwords []string
		for n := range runs {
			password := fmt.Sprintf("%s%d", good, n)
			kill := -1
			if run.Rand.IntN(3) == 0 {
				kill = run.Rand.IntN(4)
			}
			killed, err := trace.Run(s.command(password, alice), kill)
			s.must(err)
			s.must(trace.Check())
			if !killed {
				passwords = append(passwords, password)
			}
		}
		traces, checks = append(traces, trace), append(checks, s.kept(passwords))
	}
	run.Note("%d recordings", len(traces))
	crash.HoldEach(t, run, traces, checks, crash.FileSync, crash.FolderSync)
}

// kept returns a check of what a power cut left: the passwords of those runs that had exited with 0.
func (s *site) kept(passwords []string) func(crash.State) error {
	read := map[string]string{} // contents are few, and opening boxes takes long
	return func(state crash.State) error {
		found := map[string]bool{}
		for path, content := range state.Files {
			name, in := strings.CutPrefix(path, "spool/incoming/")
			if !in || !capture.IsFile(name) {
				continue
			}
			password, known := read[string(content)]
			if !known {
				var err error
				if password, err = s.whole(content); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				read[string(content)] = password
			}
			found[password] = true
		}
		exits := 0
		for _, what := range state.Said {
			if what == "exit 0" {
				exits++
			}
		}
		for _, password := range passwords[:exits] {
			if !found[password] {
				return errors.New("exit 0, and no capture")
			}
		}
		return nil
	}
}

// whole returns the password in a capture, "" if its readers take it for damaged.
func (s *site) whole(content []byte) (string, error) {
	file := s.dir + "/found"
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return "", err
	}
	_, password, proof, err := s.open(file)
	switch {
	case errors.Is(err, capture.ErrDamaged), errors.Is(err, seal.ErrDamaged):
		return "", nil
	case err != nil:
		return "", err
	case !strings.HasPrefix(password, good) || string(proof) != string(box.EncodeNTHash(dsdb.NTHash(checkpassword.UTF16LE([]byte(password))))):
		return "", errors.New("the boxes hold something else")
	}
	return password, nil
}
