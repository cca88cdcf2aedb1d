package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestCheckScript(t *testing.T) {
	const (
		hook = "/usr/sbin/samba-pwsync-hook"
		put  = "put check password script = exec " + hook + " into [global] of smb.conf and restart Samba\n"
	)
	dir := t.TempDir()
	testparm := filepath.Join(dir, "testparm")
	t.Setenv("PATH", dir)
	for _, tc := range []struct {
		name       string
		does       string // testparm; empty: there is none
		complexity bool
		want       string
		code       int
	}{
		{"no testparm", "", true, "", exitOK},
		{"named", "echo 'exec " + hook + " --config /x'", true,
			"ok         Samba runs the hook: check password script = exec " + hook + " --config /x\n", exitOK},
		{"named in vain", "echo 'exec " + hook + "'", false, "", exitOK},
		{"nothing", "echo", true, "attention  Samba does not run the hook: " + put, exitAttention},
		{"another", "echo exec /usr/local/sbin/crackcheck", true, "attention  Samba does not run the hook: " + put, exitAttention},
		{"nothing, without complexity", "echo", false, "attention  Samba does not run the hook: " + put, exitAttention},
		{"no exec", "echo " + hook, true,
			"attention  Samba runs the hook from a shell, and its kill after 10 s would reach the shell only: " + put, exitAttention},
		{"broken", "echo Error loading services. >&2; exit 1", true,
			"attention  it cannot be told whether Samba runs the hook: running " + testparm + ": exit status 1\n", exitAttention},
	} {
		if tc.does != "" {
			script := "#!/bin/sh\n[ \"$*\" = '-s --parameter-name=check password script' ] || exit 9\n" + tc.does + "\n"
			if err := os.WriteFile(testparm, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		list := &checklist{out: &out}
		checkScript(t.Context(), list, hook, tc.complexity)
		if out.String() != tc.want || list.code != tc.code {
			t.Errorf("%s: code %d, %q; want %d, %q", tc.name, list.code, out.String(), tc.code, tc.want)
		}
	}
}
