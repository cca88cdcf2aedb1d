package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
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

func TestAskHashStore(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for _, tc := range []struct {
		name        string
		store, ntlm string // what testparm does, asked for the one and the other
		want        hashStore
	}{
		{"no testparm", "", "", storeUnknown},
		{"always", "echo always", "echo ntlmv2-only", storesHashes},
		{"always, without NTLM", "echo always", "echo disabled", storesHashes},
		{"never", "echo never", "echo ntlmv2-only", storesNone},
		{"auto", "echo auto", "echo ntlmv2-only", storesHashes},
		{"auto, without NTLM", "echo auto", "echo disabled", storesNone},
		{"Samba 4.13", "echo Parameter nt hash store unknown for section global; exit 1", "echo ntlmv2-only", storesHashes},
		{"Samba 4.13, without NTLM", "exit 1", "echo disabled", storesHashes},
		{"broken", "exit 1", "exit 1", storeUnknown},
	} {
		if tc.store != "" {
			script := "#!/bin/sh\ncase \"$*\" in\n'-s --parameter-name=nt hash store') " + tc.store +
				" ;;\n'-s --parameter-name=ntlm auth') " + tc.ntlm + " ;;\n*) exit 9\nesac\n"
			if err := os.WriteFile(filepath.Join(dir, "testparm"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if got := askHashStore(t.Context()); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestCheckProof(t *testing.T) {
	const (
		byHash   = "ok         passwords are proven by NT hash\n"
		byKey    = "ok         passwords are proven by AES256 key\n"
		rather   = "attention  Samba stores NT hashes: set [directory] proof = \"nthash\", with which the agent sees no password\n"
		noHashes = "FAULT      no new password can be proven: Samba stores no NT hashes (nt hash store in smb.conf)\n" +
			"           hint: set [directory] proof = \"aes256\"\n           hint: or nt hash store = always in smb.conf, and restart Samba\n"
		noProof = "FAULT      no new password can be proven: Samba stores neither NT hashes (nt hash store in smb.conf) nor AES keys (the domain's functional level is below 2008)\n" +
			"           hint: put nt hash store = always into [global] of smb.conf and restart Samba\n"
	)
	for _, tc := range []struct {
		name, proof string
		store       hashStore
		held        passwords
		want        string
		code        int
	}{
		{"hashes by hash", config.NTHash, storesHashes, passwords{level: 4}, byHash, exitOK},
		{"hashes by hash, old domain", config.NTHash, storesHashes, passwords{level: 2}, byHash, exitOK},
		{"hashes by key", config.AES256, storesHashes, passwords{level: 4}, rather, exitAttention},
		{"hashes by key, not of all", config.AES256, storesHashes, passwords{level: 4, unhashed: []string{"alice"}}, rather, exitAttention},
		{"keys by hash", config.NTHash, storesNone, passwords{level: 4}, noHashes, exitFailed},
		{"keys by key", config.AES256, storesNone, passwords{level: 4}, byKey, exitOK},
		{"neither by hash", config.NTHash, storesNone, passwords{level: 2}, noProof, exitFailed},
		{"neither by key", config.AES256, storesNone, passwords{level: 2}, noProof, exitFailed},
		{"a hash is missing", config.NTHash, storesHashes, passwords{level: 4, unhashed: []string{"alice"}},
			"ok         passwords are proven by NT hash; that of alice is stored from the next change on\n", exitOK},
		{"hashes are missing", config.NTHash, storesHashes, passwords{level: 4, unhashed: []string{"alice", "bob"}, more: true},
			"ok         passwords are proven by NT hash; that of alice, bob and others is stored from the next change on\n", exitOK},
		{"untold, hashes", config.NTHash, storeUnknown, passwords{level: 4}, byHash, exitOK},
		{"untold, one is missing", config.NTHash, storeUnknown, passwords{level: 4, unhashed: []string{"alice"}}, noHashes, exitFailed},
		{"untold, one is missing, by key", config.AES256, storeUnknown, passwords{level: 4, unhashed: []string{"alice"}}, byKey, exitOK},
	} {
		var out bytes.Buffer
		list := &checklist{out: &out}
		checkProof(list, tc.proof, tc.store, tc.held)
		if out.String() != tc.want || list.code != tc.code {
			t.Errorf("%s: code %d, %q; want %d, %q", tc.name, list.code, out.String(), tc.code, tc.want)
		}
	}
}
