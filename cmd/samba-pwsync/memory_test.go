package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/canary"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// Commands that see a secret are as closed as serve: here one that waits for a password on standard input.
func TestCommandsAreUnreadable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs another user, which root alone can take on")
	}
	reachable(t, filepath.Dir(lookPath(t, "samba-pwsync")))
	for _, args := range [][]string{{"--config", "none.toml", "policy", "test"}, {"--config", "none.toml", "breached", "test"}} {
		cmd := exec.Command("samba-pwsync", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(nobody.uid), Gid: uint32(nobody.gid)}}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var mem, limits string
		for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			mem, limits = fmt.Sprint(accountOf(info).uid), ""
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "Max core file size") {
					limits = strings.Join(strings.Fields(line)[4:6], " ")
				}
			}
			if mem == "0" && limits == "0 0" {
				break
			}
		}
		if mem != "0" || limits != "0 0" {
			t.Errorf("%v: its memory belongs to uid %s, its core may be of %q bytes", args, mem, limits)
		}
		stdin.Close()
		_ = cmd.Wait() // what it thinks of no password is of no interest here
	}
}

// After a minute, or some more on a machine that does much else, no delivered password is left in the forwarder's memory, in any form: neither in what is ours nor in what the vendors'
// libraries, net/http and crypto/tls made of it. One may be, of twenty, on a stack.
func TestMemoryForgets(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("takes a minute, and root")
	}
	sb := startSandbox(t)
	if err := sb.AddUser(sandbox.User{Name: liz}); err != nil {
		t.Fatal(err)
	}
	in := install(t, sb, self())
	s := in.start(t, self(), roleForwarder)
	var passwords []string
	for version := range uint32(20) {
		password := fmt.Sprintf("Qx7+\"&<%d-canary", version+10)
		passwords = append(passwords, password)
		in.hand(t, version+1, password)
		holds(t, sb, password)
	}
	search, err := canary.New(passwords)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for {
		found, size, err := search.ScanMemory(s.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if size < 1<<20 {
			t.Fatalf("only %d bytes of memory were seen", size)
		}
		t.Logf("%2.0f s after the last delivery: %d copies in %d MB", time.Since(began).Seconds(), len(found), size>>20)
		if len(found) == 0 {
			break
		}
		if since := time.Since(began); since > time.Minute && len(found) == 1 || since > 5*time.Minute {
			for _, f := range found {
				t.Log(f)
			}
			if len(found) > 1 {
				t.Error("passwords are left in memory")
			}
			break
		}
		time.Sleep(5 * time.Second)
	}
}
