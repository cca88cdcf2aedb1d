package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	liz      = "liz@example.com"
	password = "Correct-Horse-7"
)

// installation is a state folder made by init, with both targets in the sandbox.
type installation struct {
	config string
	paths  config.Paths
}

// install runs init. With an owner, the forwarder is that user's.
func install(t *testing.T, sb *sandbox.Sandbox, owner account) installation {
	t.Helper()
	dir := t.TempDir()
	return installOn(t, sb, owner, dir, filepath.Join(dir, "state"), "")
}

// installOn is install with another state folder, and more lines for the top of the configuration.
func installOn(t *testing.T, sb *sandbox.Sandbox, owner account, dir, state, more string) installation {
	t.Helper()
	reachable(t, dir)
	reachable(t, filepath.Dir(lookPath(t, "samba-pwsync")))
	targets, err := os.ReadFile(sb.TargetsFile)
	if err != nil {
		t.Fatal(err)
	}
	// The targets' files, for the forwarder's user to read.
	for _, file := range []string{sb.CAFile, sb.GoogleCredentialsFile, sb.EntraSecretFile} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		mine := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(mine, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(mine, owner.uid, owner.gid); err != nil {
			t.Fatal(err)
		}
		targets = bytes.ReplaceAll(targets, []byte(file), []byte(mine))
	}
	in := installation{config: filepath.Join(dir, "c.toml")}
	text := more + fmt.Sprintf("state_dir = %q\n[directory]\nurl = \"ldapi://%s/none\"\n%s", state, dir, targets)
	if err := os.WriteFile(in.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"init", "--config", in.config}
	if owner != self() {
		args = append(args, "--user", "nobody")
	}
	if out, err := exec.Command("samba-pwsync", args...).CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	cfg, err := config.Load(in.config)
	if err != nil {
		t.Fatal(err)
	}
	in.paths = cfg.Paths()
	return in
}

// service is a running `samba-pwsync serve` and what systemd would hear of it.
type service struct {
	*exec.Cmd
	stderr *syncBuffer
	hears  chan string
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start runs serve as the given user and returns when it says that it is ready.
func (in installation) start(t *testing.T, as account, role string, env ...string) *service {
	t.Helper()
	s := in.begin(t, as, role, env...)
	s.hear(t, "READY=1")
	if role == roleForwarder {
		in.watch(t)
	}
	return s
}

// begin runs serve as the given user.
func (in installation) begin(t *testing.T, as account, role string, env ...string) *service {
	t.Helper()
	path := filepath.Join(filepath.Dir(in.config), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	s := &service{exec.Command("samba-pwsync", "serve", "--config", in.config, "--role", role), &syncBuffer{}, make(chan string, 1000)}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := socket.Read(buf)
			if err != nil {
				return
			}
			s.hears <- string(buf[:n])
		}
	}()
	s.Env = append(os.Environ(), append(env, "NOTIFY_SOCKET="+path)...)
	s.Stdout, s.Stderr = s.stderr, s.stderr
	if as != self() {
		s.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}}
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.ProcessState == nil {
			_ = s.Process.Kill()
			_ = s.Wait()
		}
		if t.Failed() {
			t.Logf("serve wrote:\n%s", s.stderr)
		}
	})
	return s
}

// watch stands in for the agent's watch, which says every now and then that it has seen everything.
func (in installation) watch(t *testing.T) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	done, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		ticker.Stop()
		close(done)
		<-ended // before the folder goes away
	})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				if err := change.WriteMark(in.paths.Outgoing, change.Mark{AsOf: time.Now(), Host: "dc1", InvocationID: dsdb.GUID{2}}); err != nil {
					t.Error(err)
				}
			}
		}
	}()
}

// hear waits for the next message to systemd.
func (s *service) hear(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-s.hears:
		if got != want {
			t.Fatalf("systemd hears %q, want %q", got, want)
		}
	case <-time.After(3 * time.Minute):
		t.Fatalf("systemd does not hear %q", want)
	}
}

// stop ends the service as systemd does.
func (s *service) stop(t *testing.T) {
	t.Helper()
	start := time.Now()
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("serve took %v to end", took)
	}
}

// hand puts a proven change into spool/outgoing, as the agent does.
func (in installation) hand(t *testing.T, version uint32, password string) {
	t.Helper()
	now := time.Now()
	header := capture.Header{ID: capture.NewID(), Time: now, Host: "dc1", Account: "liz"}
	raw, err := header.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.LoadPublic(in.paths.ForwarderPublicKey)
	if err != nil {
		t.Fatal(err)
	}
	box, err := seal.Close(key, capture.SecretInfo(raw), []byte(password))
	if err != nil {
		t.Fatal(err)
	}
	c := change.Change{
		Capture:  header.ID.String(),
		Account:  change.Account{GUID: dsdb.GUID{1}, SAMAccountName: "liz", UserPrincipalName: liz},
		Stamp:    dsdb.Stamp{Version: version, Time: now.UTC().Truncate(time.Second), InvocationID: dsdb.GUID{2}, USN: uint64(version)},
		Captured: now, Proven: now,
		Routes:    []change.Route{{Target: "google", User: liz}, {Target: "entra", User: liz}},
		Header:    raw,
		SecretBox: box,
	}
	text, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	outgoing, err := spool.Open(in.paths.Outgoing, change.Suffix)
	if err != nil {
		t.Fatal(err)
	}
	if err := outgoing.Put(c.FileName(), text); err != nil {
		t.Fatal(err)
	}
}

// holds waits until both clouds hold the password.
func holds(t *testing.T, sb *sandbox.Sandbox, password string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	err := sb.Wait(ctx, func(sandbox.State) bool {
		return sb.Verify(sandbox.Google, liz, password) && sb.Verify(sandbox.Microsoft, liz, password)
	})
	if err != nil {
		t.Fatalf("the clouds do not hold the password: %v", err)
	}
}

// A change that the agent handed over arrives at both clouds; nothing of it stays behind. The forwarder runs once as the
// user of the test, and, if that is root, once as a user of its own.
func TestForwarderDelivers(t *testing.T) {
	users := map[string]account{"as the same user": self()}
	if os.Geteuid() == 0 {
		users["as a user of its own"] = nobody
	}
	for name, owner := range users {
		t.Run(name, func(t *testing.T) {
			sb := startSandbox(t)
			if err := sb.AddUser(sandbox.User{Name: liz}); err != nil {
				t.Fatal(err)
			}
			in := install(t, sb, owner)
			in.hand(t, 1, "Older-Horse-6") // before the forwarder runs
			s := in.start(t, owner, roleForwarder)
			holds(t, sb, "Older-Horse-6")
			in.hand(t, 2, password) // while it runs
			holds(t, sb, password)

			for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
				files, err := filepath.Glob(filepath.Join(in.paths.Outgoing, "*"+change.Suffix))
				if err != nil {
					t.Fatal(err)
				}
				if len(files) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("still in spool/outgoing: %v", files)
				}
			}
			var status deliver.Status
			if err := control.Get(t.Context(), in.paths.ForwarderSocket, "/status", &status); err != nil {
				t.Fatal(err)
			}
			for _, target := range status.Targets {
				if target.State != deliver.Up || target.Waiting != 0 || target.Delivered != 1 || target.LastDelivered.IsZero() {
					t.Errorf("status: %+v", target)
				}
			}
			if len(status.Targets) != 2 {
				t.Errorf("status knows %d targets", len(status.Targets))
			}
			hardened(t, s.Process.Pid, owner)
			s.stop(t)
			s.hear(t, "STOPPING=1")

			if n := strings.Count(s.stderr.String(), "event=delivered"); n != 4 {
				t.Errorf("the log tells of %d deliveries", n)
			}
			if v := sb.State().Violations; len(v) > 0 {
				t.Errorf("the clouds complain: %v", v)
			}
			leftNothing(t, in, s.stderr.String())
		})
	}
}

// hardened looks from outside at what harden promises.
func hardened(t *testing.T, pid int, owner account) {
	t.Helper()
	proc := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if !strings.Contains(proc("status"), "\nUmask:\t0077\n") {
		t.Error("the umask is not 0077")
	}
	for line := range strings.Lines(proc("limits")) {
		if strings.HasPrefix(line, "Max core file size") && strings.Join(strings.Fields(line)[4:6], " ") != "0 0" {
			t.Errorf("it may dump core: %s", line)
		}
	}
	// What the kernel shows of a process that is not dumpable belongs to root, so not even its own user looks into it.
	if owner.uid != 0 {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			t.Fatal(err)
		}
		if got := accountOf(info); got.uid != 0 {
			t.Errorf("/proc/PID/mem belongs to uid %d, so the process is dumpable", got.uid)
		}
	}
}

// leftNothing searches the log and every file below the state folder for the passwords.
func leftNothing(t *testing.T, in installation, log string) {
	t.Helper()
	look := func(where string, text []byte) {
		for _, word := range []string{password, "Older-Horse-6"} {
			if bytes.Contains(text, []byte(word)) {
				t.Errorf("%s holds %s", where, word)
			}
		}
	}
	look("the log", []byte(log))
	looked := 0
	err := filepath.WalkDir(filepath.Dir(in.config), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the mark has just been replaced
		}
		look(path, text)
		looked++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if looked < 8 { // four keys, two databases, configuration, credentials
		t.Errorf("only %d files were looked at", looked)
	}
}

// Whatever the environment says, neither the SDKs nor net/http log what is sent (GODEBUG: passwords, access tokens, the client
// secret), and the tokens come from the configured host.
func TestHostileEnvironment(t *testing.T) {
	sb := startSandbox(t)
	if err := sb.AddUser(sandbox.User{Name: liz}); err != nil {
		t.Fatal(err)
	}
	in := install(t, sb, self())
	s := in.start(t, self(), roleForwarder, "GOOGLE_SDK_GO_LOGGING_LEVEL=debug", "AZURE_SDK_GO_LOGGING=all",
		"AZURE_REGIONAL_AUTHORITY_NAME=westeurope", "MSAL_FORCE_REGION=westeurope", "GODEBUG=madvdontneed=1,http2debug=2")
	in.hand(t, 1, password)
	holds(t, sb, password)
	s.stop(t)
	for line := range strings.Lines(s.stderr.String()) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("not a line of ours: %s", line)
		}
	}
	leftNothing(t, in, s.stderr.String())
}

func TestGoDebug(t *testing.T) {
	for before, after := range map[string]string{
		"":                               "clobberfree=1",
		"clobberfree=1":                  "clobberfree=1",
		"gctrace=1":                      "gctrace=1,clobberfree=1",
		"gctrace=1,clobberfree=1":        "gctrace=1,clobberfree=1",
		"clobberfree=1,clobberfree=0":    "clobberfree=1",
		" a=1,,b=2,":                     " a=1,b=2,clobberfree=1",
		"http2debug=2":                   "clobberfree=1",
		"gctrace=1,http2debug=1,madv=0":  "gctrace=1,madv=0,clobberfree=1",
		"http2debug=1,http2debug=2":      "clobberfree=1",
		"xhttp2debug=2 y,http2debug,a=1": "a=1,clobberfree=1",
		"http2debug=0,http2client=0":     "http2client=0,clobberfree=1",
	} {
		if got := goDebug(before); got != after {
			t.Errorf("%q becomes %q, want %q", before, got, after)
		}
	}
}

// Every command starts anew; none does so without end, and none loses its arguments, its input or its exit code.
func TestStartsAnewOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		code int
		out  string
	}{
		"version": {[]string{"version"}, exitOK, "samba-pwsync devel"},
		"policy":  {[]string{"--config", "none.toml", "policy", "test"}, exitFailed, "refused: "},
		"usage":   {[]string{"nosuch"}, exitUsage, ""},
	} {
		cmd := exec.Command("samba-pwsync", tc.args...)
		cmd.Env = append(os.Environ(), "GODEBUG=http2debug=2")
		cmd.Stdin = strings.NewReader("short")
		out, err := cmd.Output()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != tc.code || !strings.HasPrefix(string(out), tc.out) {
			t.Errorf("%s: exit code %d, want %d; output %q", name, got, tc.code, out)
		}
	}
}

// Where the unit asks for it, systemd hears again and again that the service lives.
func TestWatchdog(t *testing.T) {
	in := install(t, startSandbox(t), self())
	s := in.start(t, self(), roleAll, "WATCHDOG_USEC=100000")
	for range 3 {
		s.hear(t, "WATCHDOG=1")
	}
	s.stop(t)
}

// An installation that was made before there was a folder for what the hook asks gets it from the agent.
func TestAgentMakesFolderOfPolicy(t *testing.T) {
	in := install(t, startSandbox(t), self())
	if err := os.Remove(in.paths.Policy); err != nil {
		t.Fatal(err)
	}
	s := in.start(t, self(), roleAgent)
	if info, err := os.Stat(in.paths.Policy); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("%v, %v", info, err)
	}
	s.stop(t)
}

// Without a watchdog in the unit, or with one for another process, it hears nothing between ready and stopping.
func TestNoWatchdog(t *testing.T) {
	in := install(t, startSandbox(t), self())
	s := in.start(t, self(), roleAll, "WATCHDOG_USEC=1000", "WATCHDOG_PID=1")
	if err := untilAnswers(in.paths.ForwarderSocket); err != nil {
		t.Fatal(err)
	}
	s.stop(t)
	s.hear(t, "STOPPING=1")
}

// A part that hangs keeps the watchdog silent.
func TestWatchdogOfAPartThatHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")

	ctx, cancel := context.WithCancel(t.Context())
	release, asked, ended := make(chan struct{}), make(chan struct{}, 1), make(chan error)
	hangs := &part{status: func() any {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-release
		return nil
	}}
	go func() { ended <- tellSystemd(ctx, []*part{hangs}) }()

	read := func(timeout time.Duration) string {
		t.Helper()
		buf := make([]byte, 100)
		if err := socket.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			t.Fatal(err)
		}
		n, _ := socket.Read(buf)
		return string(buf[:n])
	}
	if got := read(3 * time.Minute); got != "READY=1" {
		t.Errorf("systemd hears %q first", got)
	}
	<-asked
	if got := read(100 * time.Millisecond); got != "" {
		t.Errorf("systemd hears %q of a part that hangs", got)
	}
	close(release)
	if got := read(3 * time.Minute); got != "WATCHDOG=1" {
		t.Errorf("systemd hears %q of a part that lives again", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// deliverSlowly starts a forwarder, and returns while Google takes its time over a password.
func deliverSlowly(t *testing.T, takes time.Duration) (*sandbox.Sandbox, *service) {
	t.Helper()
	sb := startSandbox(t)
	if err := sb.AddUser(sandbox.User{Name: liz}); err != nil {
		t.Fatal(err)
	}
	if err := sb.Misbehave(sandbox.Google, sandbox.Fault{Kind: "slow", On: "write", Times: 1, Delay: takes}); err != nil {
		t.Fatal(err)
	}
	in := install(t, sb, self())
	in.hand(t, 1, password)
	s := in.start(t, self(), roleForwarder)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := sb.Wait(ctx, func(state sandbox.State) bool { return len(state.Faults) == 0 }); err != nil {
		t.Fatal(err)
	}
	return sb, s
}

// A signal lets a delivery under way come to its end.
func TestStopWaitsForADelivery(t *testing.T) {
	sb, s := deliverSlowly(t, 500*time.Millisecond)
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
	if !sb.Verify(sandbox.Google, liz, password) || !strings.Contains(s.stderr.String(), "event=delivered target=google") {
		t.Error("the delivery was broken off")
	}
}

// What runs beside the main thing ends after it, and does not keep the process if it hangs.
func TestBeside(t *testing.T) {
	for name, hangs := range map[string]bool{"ends": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mishap, release, began := errors.New("mishap"), make(chan struct{}), time.Now()
				err := beside(t.Context(), func(ctx context.Context) {
					<-ctx.Done()
					time.Sleep(time.Second)
					if hangs {
						<-release
					}
				}, func(context.Context) error { time.Sleep(time.Minute); return mishap })
				want := time.Minute + time.Second
				if hangs {
					want = time.Minute + tellingGrace
				}
				if took := time.Since(began); err != mishap || took != want {
					t.Errorf("%v after %v, want %v", err, took, want)
				}
				close(release)
			})
		})
	}
}

// A crash is not taken for a wrong configuration, after which the units do not start the service again. (SIGQUIT makes the runtime
// end as it does after a panic.)
func TestCrashHasNoExitCode(t *testing.T) {
	in := install(t, startSandbox(t), self())
	s := in.start(t, self(), roleAll)
	if err := s.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	err := s.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
		t.Errorf("serve ended with %v, not by a signal", err)
	}
}

// A second signal does not.
func TestSecondSignal(t *testing.T) {
	_, s := deliverSlowly(t, time.Hour)
	ended := make(chan error, 1)
	go func() { ended <- s.Wait() }()
	start := time.Now()
	for signals := 1; ; signals++ {
		if err := s.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
				t.Errorf("serve ended with %v, not by the signal", err)
			}
			if signals < 2 {
				t.Error("the first signal ended it")
			}
			return
		case <-time.After(100 * time.Millisecond):
			if time.Since(start) > 3*time.Minute {
				t.Fatalf("%d signals did not end it", signals)
			}
		}
	}
}
