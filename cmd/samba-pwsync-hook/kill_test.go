package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

// Killed at any moment, the hook leaves nothing, a whole capture, or one that its readers recognise as damaged; and when it
// exits with 0 the capture is whole.
func TestKilledAtRandom(t *testing.T) {
	r := trial.Start(t, "hook", 200)
	s := newSite(t)
	start := time.Now()
	for range 5 {
		if run := s.run(good, alice); run.code != 0 {
			t.Fatalf("exit %d", run.code)
		}
	}
	usual := time.Since(start) / 5
	for _, file := range s.list() {
		s.must(os.Remove(file))
	}

	killed, accepted, left := 0, 0, 0
	for range r.N {
		cmd := s.command(good, alice)
		s.must(cmd.Start())
		time.Sleep(time.Duration(r.Rand.Int64N(int64(usual * 3 / 2))))
		_ = cmd.Process.Kill()
		err := cmd.Wait()
		files := s.list()
		if len(files) > 1 {
			t.Fatalf("%d captures of one run", len(files))
		}
		left += len(files)
		whole := false
		for _, file := range files {
			switch _, password, _, err := s.open(file); {
			case err == nil && password == good:
				whole = true
			case err == nil:
				r.Wrong("a capture holds something else")
			case !errors.Is(err, capture.ErrDamaged) && !errors.Is(err, seal.ErrDamaged):
				t.Errorf("neither whole nor damaged: %v", err)
			}
			s.must(os.Remove(file))
		}
		if exitCode(t, err) != 0 {
			killed++
		} else if accepted++; !whole {
			r.Lost("exit 0 without a whole capture")
		}
		r.Trial(1)
	}
	r.Note("%d killed, %d accepted, %d captures left", killed, accepted, left)
	if killed < r.N/20 || accepted < r.N/20 {
		t.Errorf("%d killed, %d accepted: the times prove nothing", killed, accepted)
	}
	s.silent(good)
}

func FuzzRun(f *testing.F) {
	s := newSite(f)
	f.Add([]byte(good), "alice", "alice@example.com", "Alice", true)
	f.Add([]byte("Passw0rd\x00\xff"), "a\nb\" error=\"", "\xff", strings.Repeat("x", 2000), false)
	f.Add([]byte{}, "", "", "", false)
	f.Fuzz(func(t *testing.T, password []byte, account, upn, full string, enforce bool) {
		s := *s
		s.t = t
		mode := "off"
		if enforce {
			mode = "enforce"
		}
		s.configure("[policy]\nmode = \"" + mode + "\"\nmax_length = 64\n")
		names := map[string]string{"SAMBA_CPS_ACCOUNT_NAME": account, "SAMBA_CPS_USER_PRINCIPAL_NAME": upn, "SAMBA_CPS_FULL_NAME": full}
		var lines []line
		var out strings.Builder
		_ = os.Remove(s.state + "/hook/probes") // each has its line
		exit := make(chan int, 1)
		run([]string{"--config", s.config}, io.MultiReader(strings.NewReader(string(password))), &out, &out,
			func(name string) string { return names[name] }, nil, func(l line) { lines = append(lines, l) }, func(code int) { exit <- code })
		code := <-exit
		files := s.list()
		for _, file := range files {
			h := s.holds(file, string(password))
			if h.Account != "" && h.Account != account || h.FullName != "" && h.FullName != full {
				t.Errorf("made-up names: %+v", h)
			}
			s.must(os.Remove(file))
		}
		if out.Len() > 0 || len(lines) != 1 {
			t.Fatalf("said %q, logged %d lines", out.String(), len(lines))
		}
		text := lines[0].text()
		for _, c := range text {
			if c < 0x20 || c == 0x7f || c == '\u2028' || c == '\u202e' {
				t.Errorf("%q stands in the log line %q", c, text)
			}
		}
		if len(text) > 6*maxError {
			t.Errorf("a log line of %d bytes", len(text))
		}
		secret := string(password)
		if len(secret) > 8 && strings.Contains(text, secret) && !strings.Contains(account, secret) && !strings.Contains(fixedWords, secret) {
			t.Error("the log line holds the password")
		}
		switch {
		case code == 0 && enforce && len(files) != 1:
			t.Errorf("accepted, and %d captures: %s", len(files), text)
		case code == 1 && (!enforce || len(files) != 0):
			t.Errorf("refused, and %d captures: %s", len(files), text)
		case code != 0 && code != 1:
			t.Errorf("exit %d: %s", code, text)
		}
	})
}

// fixedWords are in log lines whatever the password is.
const fixedWords = `accepted refused policy=default rules=length,complexity capture= probe=maybe account=" error="not captured: reading password: the password is empty contains a NUL longer than 4096 bytes not UTF-8" ignored="SAMBA_CPS_ACCOUNT_NAME SAMBA_CPS_USER_PRINCIPAL_NAME SAMBA_CPS_FULL_NAME" reason="it has fewer than 8 characters it has more than 64 characters it mixes fewer than three of: digits, upper case, lower case, other ASCII characters, letters without case"`
