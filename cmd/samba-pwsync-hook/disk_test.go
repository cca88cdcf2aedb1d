package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/crash"
	"github.com/samba-pwsync/samba-pwsync/internal/ramdisk"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

// Each system call by which the hook reads, writes or syncs something in the state folder fails, is late, or is the last. The hook answers as
// on_capture_error says; with exit 0 the capture is there and whole, or the log has an error; what is visible besides is whole or recognised as damaged.
func TestDiskFaults(t *testing.T) {
	run := trial.Start(t, "disk-hook", 60)
	s := newSite(t)
	sites := map[string]int{"accept": 0, "refuse": 2}
	calls := func() int {
		e, err := crash.Endure(s.command(good, alice), s.state, crash.Fault{First: 1 << 30, Reads: true}, false)
		s.must(err)
		s.clear()
		return e.Calls
	}
	each, first := calls(), 0
	hit, kept := 0, 0
	for n := range run.N {
		answer := []string{"accept", "refuse"}[run.Rand.IntN(2)]
		s.configure(fmt.Sprintf("[hook]\non_capture_error = %q\n", answer))
		fault := crash.RandomFault(run.Rand, each, true)
		if n < 4*each { // every call in turn, with each error, and then at random
			fault = crash.Fault{First: first / 4, Calls: 1, Errno: []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO}[first%4], Reads: true}
			first++
		}
		e, err := crash.Endure(s.command(good, alice), s.state, fault, false)
		s.must(err)
		if len(e.Hit) > 0 {
			hit++
		}
		alarmed := slices.ContainsFunc(s.logged(0), func(line string) bool {
			return strings.HasPrefix(line, fmt.Sprintf("<%d>", facilityAuth<<3|severityError))
		})
		what := fmt.Sprintf("%s, %s (%q)", answer, fault, e.Hit)
		whole := 0
		for _, file := range s.list() {
			switch _, password, _, err := s.open(file); {
			case err == nil && password == good:
				whole++
			case err == nil:
				run.Wrong("%s: a capture holds something else", what)
			case !errors.Is(err, capture.ErrDamaged) && !errors.Is(err, seal.ErrDamaged):
				t.Errorf("%s: neither whole nor damaged: %v", what, err)
			}
		}
		kept += whole
		switch {
		case e.Killed:
		case e.Exit != 0 && e.Exit != sites[answer]:
			t.Errorf("%s: exit %d", what, e.Exit)
		case whole == 0 && e.Exit == 0 && !alarmed:
			run.Lost("%s: exit 0, no capture, and no error in the log", what)
		case whole == 0 && e.Exit == 0 && answer == "refuse":
			run.Lost("%s: exit 0 and no capture", what)
		}
		s.clear()
		run.Trial(1)
	}
	run.Note("%d calls of a run, %d runs met a fault, %d captures whole", each, hit, kept)
	if hit < run.N/4 || kept == 0 {
		t.Errorf("%d of %d met a fault, %d captures were kept: the test proves nothing", hit, run.N, kept)
	}
}

// clear removes what is in the spool.
func (s *site) clear() {
	for _, file := range s.list() {
		s.must(os.Remove(file))
	}
}

// On a real disk that is full, or has no inodes left, the answer is the same.
func TestFullDisk(t *testing.T) {
	for name, inodes := range map[string]int{"no room": 0, "no inodes": 32} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			disk := ramdisk.Small(t, 1<<20, inodes)
			s.must(os.CopyFS(filepath.Join(disk, "state"), os.DirFS(s.state)))
			s.state = filepath.Join(disk, "state")
			for answer, exit := range map[string]int{"accept": 0, "refuse": 2} {
				s.configure(fmt.Sprintf("[hook]\non_capture_error = %q\n", answer))
				if r := s.run(good, alice); r.code != 0 {
					t.Fatalf("exit %d at first", r.code)
				}
				var filler []string
				if inodes == 0 {
					filler = append(filler, ramdisk.Fill(t, disk))
				}
				for i := 0; inodes > 0; i++ {
					file := filepath.Join(disk, fmt.Sprint(answer, i))
					if os.WriteFile(file, nil, 0o600) != nil {
						break
					}
					filler = append(filler, file)
				}
				before := len(s.list())
				if r := s.run(good, alice); r.code != exit || len(s.list()) != before {
					t.Errorf("%s: exit %d, %d captures", answer, r.code, len(s.list())-before)
				}
				for _, file := range filler {
					s.must(os.Remove(file))
				}
				if r := s.run(good, alice); r.code != 0 || len(s.list()) != before+1 {
					t.Errorf("%s: with room again exit %d, %d captures", answer, r.code, len(s.list())-before)
				}
			}
		})
	}
}
