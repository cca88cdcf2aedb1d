package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// noPause keeps the race detector from letting each process of the tests wait for a second before it ends.
const noPause = "atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	os.Setenv("GORACE", noPause)
	testscript.Main(m, map[string]func(){"samba-pwsync": main})
}

// nobody is the unprivileged user of the tests that root runs.
var nobody = account{65534, 65534}

// TestScripts holds the command line to testdata/script. What the scripts have beside testscript's own commands:
//
//	gives CODE [as-nobody] COMMAND ARG...   runs it, and wants that exit code
//	rights MODE OWNER FILE...               wants the mode as in ls -l; OWNER is self, nobody, or shared (self, group of nobody)
//	answers SOCKET...                       waits until a role answers there
//	taken FILE                              waits until a role has taken the file away
//	touched FILE, untouched FILE            notes when the file changed; wants it not to have changed since
//
// In files that end in .toml, $WORK stands for the folder of the script, $TARGETS for two targets in the cloud sandbox, and
// $GOOGLE_KEY, $CA, $AUTHORITY and $GRAPH for what they name.
func TestScripts(t *testing.T) {
	sb := startSandbox(t)
	reachable(t, filepath.Dir(lookPath(t, "samba-pwsync")))
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("GORACE", noPause)
			return errors.Join(reach(env.WorkDir), expand(env.WorkDir, sb))
		},
		Condition: func(condition string) (bool, error) {
			if condition != "root" {
				return false, fmt.Errorf("unknown condition %q", condition)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"gives":     gives,
			"rights":    rights,
			"answers":   answers,
			"taken":     taken,
			"touched":   func(ts *testscript.TestScript, _ bool, args []string) { ts.Setenv(args[0], changed(ts, args[0])) },
			"untouched": untouched,
		},
	})
}

func startSandbox(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	sb, err := sandbox.Start(t.TempDir(), sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Close(); err != nil {
			t.Error(err)
		}
	})
	return sb
}

func lookPath(t *testing.T, command string) string {
	t.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// reach lets everybody pass through a temporary folder and the ones around it, which are made for one user.
func reach(dir string) error {
	for temp := filepath.Clean(os.TempDir()); dir != temp && dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if err := os.Chmod(dir, info.Mode()|0o111); err != nil {
			return err
		}
	}
	return nil
}

func reachable(t *testing.T, dir string) {
	t.Helper()
	if err := reach(dir); err != nil {
		t.Fatal(err)
	}
}

func expand(dir string, sb *sandbox.Sandbox) error {
	targets, err := os.ReadFile(sb.TargetsFile)
	if err != nil {
		return err
	}
	words := strings.NewReplacer("$WORK", dir, "$TARGETS", string(targets), "$GOOGLE_KEY", sb.GoogleCredentialsFile,
		"$CA", sb.CAFile, "$AUTHORITY", sb.Microsoft.AuthorityURL, "$GRAPH", sb.Microsoft.GraphURL)
	files, err := filepath.Glob(filepath.Join(dir, "*.toml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(words.Replace(string(text))), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func gives(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	args = args[1:]
	if args[0] == "as-nobody" {
		id := strconv.Itoa(nobody.uid)
		args = append([]string{"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups"}, args[1:]...)
	}
	got := 0
	err = ts.Exec(args[0], args[1:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func rights(ts *testscript.TestScript, _ bool, args []string) {
	owner, ok := map[string]account{"self": self(), "nobody": nobody, "shared": {self().uid, nobody.gid}}[args[1]]
	if !ok {
		ts.Fatalf("unknown owner %q", args[1])
	}
	for _, file := range args[2:] {
		info, err := os.Lstat(ts.MkAbs(file))
		ts.Check(err)
		if got := lsMode(info.Mode()); got != args[0] || accountOf(info) != owner {
			ts.Fatalf("%s is %s of %v, want %s of %v", file, got, accountOf(info), args[0], owner)
		}
	}
}

// lsMode writes a mode as ls -l does, as far as it is needed here.
func lsMode(m fs.FileMode) string {
	text := []byte(m.Perm().String())
	if m.IsDir() {
		text[0] = 'd'
	}
	if m&fs.ModeSetgid != 0 {
		text[6] = 's'
	}
	return string(text)
}

func answers(ts *testscript.TestScript, _ bool, args []string) {
	for _, socket := range args {
		ts.Check(untilAnswers(ts.MkAbs(socket)))
	}
}

func taken(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	ts.Fatalf("%s is still there", args[0])
}

// untilAnswers waits until a role answers at its socket.
func untilAnswers(socket string) error {
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var status map[string]any
		if err := control.Get(context.Background(), socket, "/status", &status); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func changed(ts *testscript.TestScript, file string) string {
	info, err := os.Stat(ts.MkAbs(file))
	ts.Check(err)
	return strconv.FormatInt(info.Sys().(*syscall.Stat_t).Ctim.Nano(), 10)
}

func untouched(ts *testscript.TestScript, _ bool, args []string) {
	if then, now := ts.Getenv(args[0]), changed(ts, args[0]); then != now {
		ts.Fatalf("%s has changed", args[0])
	}
}
