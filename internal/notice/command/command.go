// Package command tells people by a program: it is run for each letter, which it gets as JSON on its standard input.
//
// The program gets no argument but those that the configuration gives, and PATH alone for an environment, so that nothing from the
// directory gets to where a shell or a program could take it for more than it is. It runs as the process that starts it, with what
// that one may do, has half a minute, and is killed then with all that it started. Exit code 0: told; 75 (EX_TEMPFAIL): try again
// later; any other, and a program that cannot be started: given up, with the first line of its standard error in the log. Its
// output goes nowhere.
//
// Whom it trusts: the program, which the configuration names and which others than root must not be able to write
// (`samba-pwsync check` looks).
package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/notice"
)

const (
	patience = 30 * time.Second
	tempFail = 75 // EX_TEMPFAIL of sysexits.h
	maxWords = 200
)

// Command is a notice.Sender.
type Command struct {
	line []string
}

// New takes the program's path and its arguments, separated by spaces.
func New(line string) *Command { return &Command{strings.Fields(line)} }

// Name implements notice.Sender.
func (*Command) Name() string { return "command" }

// Send implements notice.Sender.
func (c *Command) Send(ctx context.Context, l notice.Letter) error {
	input, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encoding the notice: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	words := &head{}
	cmd := exec.CommandContext(ctx, c.line[0], c.line[1:]...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(append(input, '\n'))
	cmd.Stderr = words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second // for what it started, and left behind with our pipes
	err = cmd.Run()
	exit := (*exec.ExitError)(nil)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("running %s: %w: it took longer than %v", c.line[0], notice.ErrNotNow, patience)
	case errors.As(err, &exit) && exit.ExitCode() == tempFail:
		return fmt.Errorf("running %s: %w: exit code %d%s", c.line[0], notice.ErrNotNow, tempFail, words)
	case errors.As(err, &exit):
		return fmt.Errorf("running %s: %w%s", c.line[0], err, words)
	case errors.Is(err, exec.ErrWaitDelay):
		return nil // it ended with 0, and left something behind
	}
	return fmt.Errorf("starting the command: %w", err)
}

// head keeps the beginning of what is written.
type head struct{ b []byte }

func (h *head) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), maxWords-len(h.b))]...)
	return len(p), nil
}

// String is the first line, quoted.
func (h *head) String() string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(h.b), []byte("\n"))
	if len(line) == 0 {
		return ""
	}
	return ": it says " + strconv.QuoteToASCII(string(line))
}
