// Command samba-pwsync-hook is what Samba runs, as `check password script`, for each new password of the domain: it says
// whether the password may be set, and keeps it, sealed, for the agent.
//
// Why so small: it runs as root inside the open transaction of the DC's database, and nothing else is written on that DC until
// it ends. So it needs no daemon, opens no network, links few packages, and answers within 5 seconds also where something hangs
// (but see below).
//
// The way: configuration → password (stdin, to its end) and names (environment) → policy → two sealed boxes → one file in
// spool/incoming, on disk before the exit code. A password that the policy refuses is not kept.
//
// Exit codes: 0 the password may be set, 1 it may not, 2 it cannot be stored (only with on_capture_error = "refuse"). Each run
// sends one line to syslog; the streams stay empty, since Samba throws them away.
//
// Whom it trusts: the configuration and the state folder, which are root's. Neither the names (any domain user can have Samba
// ask in anybody's name, by SamrValidatePassword) nor the password's bytes. An exit of 0 proves nothing: Samba may
// still refuse the change. What was kept is used only once the directory proves it (internal/proof).
//
// What it does not solve: whoever is root on the DC reads what the hook reads; and pages of it can be swapped out while it runs.
// And the kernel ends no process while one of its threads sleeps uninterruptibly, as on a frozen file system: there the answer
// comes with the thaw, and Samba refuses after its 10 seconds.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

// When the hook answers at the latest (Samba kills after 10 s, and then refuses), and how much of that time a configuration
// that cannot be read may cost: the built-in one can do without.
const (
	deadline       = 5 * time.Second
	configDeadline = time.Second
)

// Set by the linker.
var (
	version = "devel"
	devLog  = "/dev/log" // tests have a syslog of their own
)

const usage = `usage: samba-pwsync-hook [--config FILE]
In smb.conf: check password script = exec /usr/sbin/samba-pwsync-hook
See samba-pwsync-hook(8).
`

func main() {
	harden()
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv, send))
}

// run is the program: its result is the exit code. log takes the one line of a run.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string, log func(line)) int {
	file := config.DefaultFile
	var misused error
	switch {
	case len(args) == 0:
	case len(args) == 2 && args[0] == "--config":
		file = args[1]
	case len(args) == 1 && strings.HasPrefix(args[0], "--config="):
		file = strings.TrimPrefix(args[0], "--config=")
	case len(args) == 1 && args[0] == "--version":
		fmt.Fprintln(stdout, "samba-pwsync-hook", version)
		return checkpassword.Accept
	case len(args) == 1 && args[0] == "--help":
		fmt.Fprint(stdout, usage)
		return checkpassword.Accept
	default:
		fmt.Fprint(stderr, usage)
		if isTerminal(stdin) {
			return checkpassword.Fail
		}
		misused = errUsage // a slip in smb.conf is one in the configuration: nobody is locked out, no rule is left out
	}
	l := answer(file, stdin, getenv)
	if misused != nil {
		l.config = misused
	}
	log(l)
	switch l.verdict {
	case accepted:
		return checkpassword.Accept
	case refused:
		return checkpassword.Refuse
	default:
		return checkpassword.Fail
	}
}

var (
	errUsage    = errors.New("wrong arguments in smb.conf: only --config FILE is known")
	errLate     = errors.New("it hangs")
	errInternal = errors.New("internal fault")
)

// isTerminal reports whether a person, and not Samba, is at the other end.
func isTerminal(stdin io.Reader) bool {
	f, ok := stdin.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// answer does what a run is for, and returns what is to be said about it.
func answer(file string, stdin io.Reader, getenv func(string) string) (l line) {
	late := after(deadline)

	conf, err := within(after(configDeadline), "reading "+file, config.BuiltinHook(),
		func() (config.HookConfig, error) { return config.LoadHook(file) })
	l.config = err
	rules := policy.Settings(conf.Policy)

	asked, err := within(late, "reading password", request{},
		func() (request, error) { return read(stdin, getenv, rules) })
	password := secret.New(asked.Password)
	defer password.Destroy()
	l.account, l.probe, l.ignored = asked.Account, asked.maybeProbe() && !errors.Is(err, errLate), asked.Ignored
	switch {
	case err != nil && rules.Enforces():
		l.verdict, l.err = refused, err // what has not been seen cannot be allowed
		return l
	case err != nil:
		return l.notCaptured(err, conf.Hook)
	case len(asked.reasons) > 0 && rules.Enforces():
		l.verdict, l.reasons = refused, asked.reasons
		return l
	}
	l.audit = asked.reasons

	l.capture, err = within(late, "storing", "",
		func() (string, error) { return take(conf, asked.Request, password) })
	if err != nil {
		return l.notCaptured(err, conf.Hook)
	}
	l.verdict = accepted
	return l
}

// notCaptured is the answer where the policy has no objection but nothing could be kept.
func (l line) notCaptured(err error, hook config.Hook) line {
	l.verdict, l.severity, l.err = accepted, severityError, fmt.Errorf("not captured: %w", err)
	if hook.OnCaptureError == config.Refuse {
		l.verdict = failed
	}
	return l
}

// request is what Samba asks, and what the policy says to it.
type request struct {
	checkpassword.Request
	reasons []policy.Reason
}

// maybeProbe reports whether Samba named neither user principal name nor full name: it never does for SamrValidatePassword,
// which changes nothing, and always does for an account that has one of the two.
func (r request) maybeProbe() bool { return r.UserPrincipalName == "" && r.FullName == "" }

func read(stdin io.Reader, getenv func(string) string, rules policy.Settings) (r request, err error) {
	if r.Request, err = checkpassword.Read(stdin, getenv); err == nil {
		r.reasons = policy.Check(rules, secret.New(r.Password))
	}
	return r, err
}

// after returns a channel that is closed after d.
func after(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// within returns what step returns, or the fallback and an error if step is not done before late, or panics. A step that
// hangs, at a pipe that nobody closes or a network mount, ends with the process (a thread that sleeps uninterruptibly does not).
func within[T any](late <-chan struct{}, doing string, fallback T, step func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer func() {
			if recover() != nil { // with what, could tell of the password
				done <- result{fallback, fmt.Errorf("%s: %w", doing, errInternal)}
			}
		}()
		value, err := step()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-late:
		return fallback, fmt.Errorf("%s: %w", doing, errLate)
	}
}
