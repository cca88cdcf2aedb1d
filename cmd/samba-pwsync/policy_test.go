package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal: what a person types into keys, the program reads from tty, and what the terminal shows
// comes back out of keys.
func terminal(t *testing.T) (keys, tty *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	if err := unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return keys, tty
}

func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// askAtTerminal starts policy test at a terminal and returns when the terminal has stopped to show what is typed.
func askAtTerminal(t *testing.T, tty *os.File) (cmd *exec.Cmd, stdout, stderr *syncBuffer) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(config, []byte("# all defaults\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr = &syncBuffer{}, &syncBuffer{}
	cmd = exec.Command("samba-pwsync", "policy", "test", "--config", config)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	for deadline := time.Now().Add(3 * time.Minute); echoes(t, tty); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the terminal goes on showing what is typed; stderr: %s", stderr)
		}
	}
	return cmd, stdout, stderr
}

func TestPasswordIsNotShown(t *testing.T) {
	keys, tty := terminal(t)
	cmd, stdout, stderr := askAtTerminal(t, tty)
	if _, err := io.WriteString(keys, password+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v, stderr: %s", err, stderr)
	}
	if !strings.HasPrefix(stdout.String(), "accepted\n\npolicy ") || stderr.String() != "Password: \n" {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
	if !echoes(t, tty) {
		t.Error("the terminal is left without echo")
	}
	if _, err := io.WriteString(tty, "the end"); err != nil { // for something to be read at all
		t.Fatal(err)
	}
	var shown []byte
	for buf := make([]byte, 100); !bytes.Contains(shown, []byte("the end")); {
		n, err := keys.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, buf[:n]...)
	}
	if bytes.Contains(shown, []byte(password[:4])) {
		t.Errorf("the terminal showed %q", shown)
	}
}

func TestInterruptedAtTheTerminal(t *testing.T) {
	_, tty := terminal(t)
	cmd, stdout, stderr := askAtTerminal(t, tty)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if !echoes(t, tty) {
		t.Error("the terminal is left without echo")
	}
	if stdout.String() != "" || !strings.Contains(stderr.String(), "samba-pwsync: reading password: interrupt") {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
}
