package also

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const password = "Canary-Pa55wörd\n with a line"

// script writes a program.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func soon() time.Time { return time.Now().Add(3 * time.Minute) }

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       bool
	}{
		{"accepts", "#!/bin/sh\nexit 0", true},
		{"refuses", "#!/bin/sh\nexit 1", false},
		{"another code", "#!/bin/sh\nexit 2", false},
		{"dies", "#!/bin/sh\nkill -9 $$", false},
		{"reads", "#!/bin/sh\n[ \"$(cat)\" = '" + password + "' ]", true},
		{"reads something else", "#!/bin/sh\n[ \"$(cat)\" = 'x' ]", false},
		{"the environment is as given", "#!/bin/sh\n[ \"$SAMBA_CPS_ACCOUNT_NAME\" = 'al ice' ] && [ -z \"$HOME\" ]", true},
		{"arguments", "#!/bin/sh\n[ $# = 2 ] && [ \"$1\" = -d ] && [ \"$2\" = '$HOME' ]", true},
		{"no #!", "[ \"$2\" = '$HOME' ] && [ \"$(cat)\" = '" + password + "' ]", true},
		{"prints much", "#!/bin/sh\nhead -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2", true},
		{"its output is no file of ours", "#!/bin/sh\n[ /proc/self/fd/1 -ef /dev/null ] && [ /proc/self/fd/2 -ef /dev/null ]", true},
		{"no pipe besides", "#!/bin/sh\nfor n in 3 4 5 6 7 8 9; do [ ! -p /proc/$$/fd/$n ] || exit 1; done; [ -p /proc/$$/fd/0 ]", true},
	} {
		got, err := Run(script(t, tc.text)+"  -d $HOME ", []byte(password), []string{"SAMBA_CPS_ACCOUNT_NAME=al ice", "PATH=/usr/bin:/bin"}, soon())
		if err != nil || got != tc.want {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
}

// A program that does not read must not matter, nor how long the password is.
func TestDoesNotRead(t *testing.T) {
	for _, n := range []int{0, 1, 4096} {
		if ok, err := Run("/bin/true", []byte(strings.Repeat("x", n)), nil, soon()); !ok || err != nil {
			t.Errorf("%d bytes: %v, %v", n, ok, err)
		}
	}
}

func TestCannotBeAsked(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]error{
		filepath.Join(dir, "none"): syscall.ENOENT, dir: syscall.EACCES, plain: syscall.EACCES, script(t, "#!/nowhere/python\n"): syscall.ENOENT,
	} {
		ok, err := Run(command+" secret-argument", []byte(password), nil, soon())
		if ok || !errors.Is(err, want) || !strings.HasPrefix(err.Error(), command+": starting it: ") {
			t.Errorf("%s: %v, %v", command, ok, err)
		}
	}
	if _, err := Run("/bin/true", nil, nil, time.Now()); err == nil {
		t.Error("asked after the time was up")
	}
}

// A program that hangs is killed with all that it started.
func TestHangs(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	path := script(t, "#!/bin/sh\nsleep 1000 &\necho $! $$ > $1\nwait")
	var numbers []string
	for patience := 500 * time.Millisecond; len(numbers) != 2; patience *= 2 { // a busy machine starts it late
		begun := time.Now()
		ok, err := Run(path+" "+pids, []byte(password), os.Environ(), begun.Add(patience))
		if ok || !errors.Is(err, ErrLate) {
			t.Errorf("%v, %v", ok, err)
		}
		if took := time.Since(begun); took < patience || took > patience+time.Minute {
			t.Errorf("took %v of %v", took, patience)
		}
		text, _ := os.ReadFile(pids)
		if numbers = strings.Fields(string(text)); patience > time.Minute {
			t.Fatalf("the program did not start: %q", text)
		}
	}
	for _, pid := range numbers {
		gone := func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		}
		for deadline := time.Now().Add(3 * time.Minute); !gone(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("process %s lives on", pid)
			}
		}
	}
}

// What a program leaves in the background is not waited for.
func TestBackground(t *testing.T) {
	begun := time.Now()
	if ok, err := Run(script(t, "#!/bin/sh\nsleep 100 &\nexit 0"), nil, os.Environ(), soon()); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

func TestProgram(t *testing.T) {
	for command, want := range map[string]string{"/a/b -c d": "/a/b", " /a": "/a", "": ""} {
		if got := Program(command); got != want {
			t.Errorf("%q: %q", command, got)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	for b.Loop() {
		if ok, err := Run("/bin/true", []byte(password), nil, soon()); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
