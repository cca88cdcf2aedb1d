package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cloud-sandbox": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			// A socket's path is short (108 bytes), a test's folder is not.
			dir, err := os.MkdirTemp("", "sandbox")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			e.Setenv("CLOUD_SANDBOX_DIR", dir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"ready": ready, "set": set, "exits": exits},
	})
}

// ready waits until serve answers.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := sandbox.NewClient(ts.Getenv("CLOUD_SANDBOX_DIR") + "/control.sock")
	for {
		if _, err := c.State(ctx); err == nil {
			return
		} else if ctx.Err() != nil {
			ts.Fatalf("waiting for serve: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// set sets a password as a target would: set MAIL PASSWORD.
func set(ts *testscript.TestScript, neg bool, args []string) {
	if err := setGoogle(context.Background(), ts.Getenv("CLOUD_SANDBOX_DIR"), args[0], args[1]); (err != nil) != neg {
		ts.Fatalf("setting password: %v", err)
	}
}

// exits runs a command and wants this exit code: exits CODE COMMAND….
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if (code == want) == neg {
		ts.Fatalf("exit code %d", code)
	}
}
