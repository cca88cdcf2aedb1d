package command

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/notice"
)

// script makes a program of shell text.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tell")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

var letter = notice.Letter{
	ID: "0", Account: "$(reboot)", FullName: "`x`; \"y\"", Mail: "alice@example.com", Policy: "default", Times: 2,
	Rules: []notice.Rule{{Name: "length", Reason: "it is too short"}},
	First: time.Unix(1700000000, 0).UTC(), Last: time.Unix(1700000060, 0).UTC(), MinLength: 8, MaxLength: 16,
}

func TestSend(t *testing.T) {
	t.Setenv("CANARY", "from the environment")
	out := filepath.Join(t.TempDir(), "out")
	program := script(t, `out=$1; shift; cat > $out.json; env > $out.env; printf '%s|' "$@" > $out.args; pwd > $out.pwd`)
	if err := New(program+" "+out+"  one two").Send(t.Context(), letter); err != nil {
		t.Fatal(err)
	}
	read := func(suffix string) string {
		b, err := os.ReadFile(out + suffix)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var got notice.Letter
	if err := json.Unmarshal([]byte(read(".json")), &got); err != nil || !reflect.DeepEqual(got, letter) {
		t.Errorf("%v: %s", err, read(".json"))
	}
	if env := read(".env"); strings.Contains(env, "CANARY") || !strings.Contains(env, "PATH=/usr/local/sbin:") {
		t.Errorf("environment: %s", env)
	}
	if args := read(".args"); args != "one|two|" {
		t.Errorf("arguments: %s", args)
	}
	if pwd := read(".pwd"); pwd != "/\n" {
		t.Errorf("folder: %s", pwd)
	}
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		command string
		later   bool
		words   string
	}{
		"come again": {script(t, "echo busy >&2; exit 75"), true, `exit code 75: it says "busy"`},
		"no":         {script(t, "printf 'no\\033[2J\\nmore' >&2; exit 1"), false, `exit status 1: it says "no\x1b[2J"`},
		"talkative":  {script(t, "yes x | tr -d '\\n' | head -c 100000 >&2; exit 1"), false, strings.Repeat("x", maxWords) + `"`},
		"killed":     {script(t, "kill -9 $$"), false, "signal: killed"},
		"not there":  {"/none/at/all", false, "no such file"},
		"no program": {filepath.Dir(script(t, "")), false, "permission denied"},
	} {
		err := New(c.command).Send(t.Context(), letter)
		if err == nil || errors.Is(err, notice.ErrNotNow) != c.later || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := New(script(t, "exec 0<&-; exit 0")).Send(t.Context(), letter); err != nil {
		t.Errorf("a program that reads nothing: %v", err)
	}
}

// A program that hangs is killed, with what it started.
func TestHangs(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	program := New(script(t, "sleep 1000 & echo $! > $1; wait") + " " + pid)
	var b []byte
	for patience := 300 * time.Millisecond; len(b) == 0; patience *= 2 { // a busy machine starts it late
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		began := time.Now()
		err := program.Send(ctx, letter)
		if took := time.Since(began); !errors.Is(err, notice.ErrNotNow) || took > patience+time.Minute {
			t.Errorf("%v after %v", err, took)
		}
		if b, err = os.ReadFile(pid); len(b) == 0 && patience > time.Minute {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break // gone, or nobody has asked for its end yet
		}
		if time.Now().After(deadline) {
			t.Fatalf("what it started lives on: %s", stat)
		}
	}
}
