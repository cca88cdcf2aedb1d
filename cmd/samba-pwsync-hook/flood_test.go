package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
)

// mallory is the environment of what anybody can bring about in alice's name.
var mallory = alice[:1]

// waiting puts a file into spool/incoming that looks like a capture, by its name.
func (s *site) waiting(age time.Duration, account, upn string) string {
	s.t.Helper()
	name := capture.Header{ID: capture.NewID(), Time: time.Now().Add(-age), Account: account, UserPrincipalName: upn}.FileName()
	s.must(os.WriteFile(filepath.Join(s.incoming(), name), []byte("sealed"), 0o600))
	return name
}

func (s *site) there(name string) bool {
	_, err := os.Stat(filepath.Join(s.incoming(), name))
	return err == nil
}

func TestFloodIsBounded(t *testing.T) {
	s := newSite(t)
	real := s.waiting(time.Hour, "alice", "alice@example.com")
	plain := s.waiting(time.Hour, "plain", "")
	var forged []string
	for n := range capture.MaxDoubtful {
		forged = append(forged, s.waiting(30*time.Minute-time.Duration(n)*time.Millisecond, "alice", ""))
	}
	r := s.run(good, mallory)
	if r.code != 0 || !strings.Contains(r.line, " probe=maybe shredded=2 account=") {
		t.Errorf("exit %d, log %q", r.code, r.line)
	}
	if s.there(forged[0]) || s.there(forged[1]) || !s.there(forged[2]) || !s.there(plain) || !s.there(real) {
		t.Error("the wrong ones went")
	}
	if n := len(r.captures); n != capture.MaxDoubtful+1 {
		t.Errorf("%d captures, the real one among them", n)
	}

	// A real change has room, whatever the flood.
	r = s.run(good, alice)
	if n := len(r.captures); r.code != 0 || n != capture.MaxDoubtful+2 || strings.Contains(r.line, "shredded") {
		t.Errorf("exit %d, %d captures, log %q", r.code, n, r.line)
	}
	if !slices.ContainsFunc(r.captures, func(file string) bool { h, _, _, err := s.open(file); return err == nil && h.UserPrincipalName != "" }) {
		t.Error("it was not kept")
	}
}

// While no agent runs, real changes are bounded too, account by account.
func TestOneAccountsChangesAreBounded(t *testing.T) {
	s := newSite(t)
	tom := s.waiting(2*time.Hour, "tom", "tom@example.com")
	oldest := s.waiting(time.Hour, "alice", "alice@example.com")
	for range capture.MaxOfAccount - 1 {
		s.waiting(time.Minute, "Alice", "alice@example.com")
	}
	r := s.run(good, alice)
	if r.code != 0 || !strings.Contains(r.line, " shredded=1 ") || s.there(oldest) || !s.there(tom) || len(r.captures) != capture.MaxOfAccount+1 {
		t.Errorf("exit %d, %d captures, log %q", r.code, len(r.captures), r.line)
	}
}

func TestLinesOfAFloodAreFew(t *testing.T) {
	s := newSite(t)
	s.run(good, alice) // makes the folder
	probes := filepath.Join(s.state, "hook", "probes")
	count := func(n int) {
		s.must(os.WriteFile(probes, make([]byte, n), 0o600))
	}
	for _, tc := range []struct {
		before int
		said   string // "": nothing
	}{
		{0, ` probe=maybe account="alice"`},
		{linesAMinute - 1, ` probe=maybe account="alice"`},
		{linesAMinute, ""},
		{1022, ""},
		{1023, ` probe=maybe nth=1024 account="alice"`},
		{1024, ""},
	} {
		for _, password := range []string{good, "short"} { // accepted, refused
			count(tc.before)
			if code := exitCode(t, s.command(password, mallory).Run()); code != 0 && password == good {
				t.Fatalf("exit %d", code)
			}
			lines := s.logged(min(len(tc.said), 1))
			if tc.said == "" && len(lines) != 0 || tc.said != "" && (len(lines) != 1 || !strings.Contains(lines[0], strings.TrimSuffix(tc.said, ` account="alice"`)+" ")) {
				t.Errorf("after %d: %q, want %q", tc.before, lines, tc.said)
			}
		}
	}

	// What cannot be read counts, and so does a change that is refused: anybody can try his own as often as he likes.
	for password, env := range map[string][]string{"canary\xff": mallory, "short": alice} {
		count(5000)
		if code := exitCode(t, s.command(password, env).Run()); code != 1 {
			t.Fatalf("%q: exit %d", password, code)
		}
		if lines := s.logged(0); len(lines) != 0 {
			t.Errorf("%q: %q", password, lines)
		}
	}

	// A real change has its line, and so has the next minute.
	count(5000)
	if r := s.run(good, alice); strings.Contains(r.line, "probe") {
		t.Errorf("log %q", r.line)
	}
	s.must(os.Chtimes(probes, time.Time{}, time.Now().Add(-2*time.Minute)))
	if r := s.run(good, mallory); !strings.Contains(r.line, ` probe=maybe account=`) {
		t.Errorf("log %q", r.line)
	}
	if info, err := os.Stat(probes); err != nil || info.Size() != 1 {
		t.Errorf("%v, %v", info, err)
	}
	// Where it cannot be counted, everything is said.
	s.must(os.Remove(probes))
	s.must(os.Symlink("/dev/null", probes))
	if r := s.run(good, mallory); !strings.Contains(r.line, ` probe=maybe account=`) {
		t.Errorf("log %q", r.line)
	}
}

// BenchmarkFull is what a run costs while spool/incoming is full of a flood: of a real change, and of one more of the flood.
func BenchmarkFull(b *testing.B) {
	s := newSite(b)
	go func() {
		buf := make([]byte, 1<<12)
		for {
			if _, err := s.syslog.Read(buf); err != nil {
				return
			}
		}
	}()
	for n := range capture.MaxDoubtful {
		s.waiting(time.Hour-time.Duration(n), fmt.Sprint("ghost", n), "")
	}
	for name, env := range map[string][]string{"real": alice, "forged": mallory} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := s.command(good, env).Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
