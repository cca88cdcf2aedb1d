// Command samba-pwsync-hook is what Samba runs, as `check password script`, for each new password of the domain: it says
// whether the password may be set, and keeps it, sealed, for the agent.
//
// Why so small: it runs as root inside the open transaction of the DC's database, and nothing else is written on that DC until
// it ends. So it needs no daemon, opens no network, links few packages, and answers within 5 seconds also where something hangs
// (but see below).
//
// The way: configuration → password (stdin, to its end) and names (environment) → policy (internal/gate) → two sealed boxes → one file in
// spool/incoming, on disk before the exit code. A password that the policy refuses is not kept; that it was refused is noted in
// spool/refusals, for the agent to count.
//
// Exit codes: 0 the password may be set, 1 it may not, 2 it cannot be stored (only with on_capture_error = "refuse"). Each run
// sends one line to syslog; the streams stay empty, since Samba throws them away. Of what anybody in the domain may bring about (probe=maybe), a minute has a
// limited number of lines, and spool/incoming keeps a limited number of captures: the disk is not his to fill (quota.go, internal/capture).
//
// Whom it trusts: the configuration and the state folder, which are root's, and what internal/gate says. Neither the names (any domain user can have Samba
// ask in anybody's name, by SamrValidatePassword) nor the password's bytes. An exit of 0 proves nothing: Samba may
// still refuse the change. What was kept is used only once the directory proves it (internal/proof).
//
// What it does not solve: whoever is root on the DC reads what the hook reads; and pages of it can be swapped out while it runs.
// And the kernel ends no process while one of its threads sleeps uninterruptibly, as on a frozen file system: there the answer
// comes with the thaw, and Samba refuses after its 10 seconds.
//
//go:debug updatemaxprocs=0
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/attempt"
	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/gate"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/refusal"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	_ "github.com/samba-pwsync/samba-pwsync/internal/stack" // large from the start
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

// When the hook answers at the latest (Samba kills after 10 s, and then refuses), until when what the policy asks has to have answered
// (what has not counts as trouble of one rule; the others hold), and until when the policy itself.
const (
	deadline       = 5 * time.Second
	toolsDeadline  = 4250 * time.Millisecond
	policyDeadline = 4500 * time.Millisecond
	basicPatience  = 100 * time.Millisecond // for whose policy it is, where the policy or the password has not come
	logPatience    = 500 * time.Millisecond // for the line: the first time of day that is printed has a file read
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
	environ := os.Environ() // as Samba made it, for other programs
	harden()
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2) // a page that does not come keeps the processor of Go's that waits for it: another has to look at the clock
	}
	run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv, environ, send, os.Exit)
}

// run is the program. log takes the one line of a run; exit, with which it ends, takes the exit code, and may be called by another goroutine.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string, environ []string, log func(line), exit func(int)) {
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
		exit(checkpassword.Accept)
		return
	case len(args) == 1 && args[0] == "--help":
		fmt.Fprint(stdout, usage)
		exit(checkpassword.Accept)
		return
	default:
		fmt.Fprint(stderr, usage)
		if isTerminal(stdin) {
			exit(checkpassword.Fail)
			return
		}
		misused = errUsage // a slip in smb.conf is one in the configuration: nobody is locked out, no rule is left out
	}
	begun := time.Now()
	attempt.To(func(c *attempt.Course) line {
		l := answer(c, begun, file, stdin, getenv, environ)
		if misused != nil {
			l.config = misused
		}
		if l.worthSaying() {
			_, _ = attempt.Step(c, time.Now().Add(logPatience), func() (struct{}, error) { log(l); return none, nil })
		}
		return l
	}, func(l line) {
		switch l.verdict {
		case accepted:
			exit(checkpassword.Accept)
		case refused:
			exit(checkpassword.Refuse)
		default:
			exit(checkpassword.Fail)
		}
	})
}

var errUsage = errors.New("wrong arguments in smb.conf: only --config FILE is known")

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
func answer(c *attempt.Course, begun time.Time, file string, stdin io.Reader, getenv func(string) string, environ []string) (l line) {
	late := begun.Add(deadline)

	conf := gate.Load(c, file)
	l.config, l.copyOf, l.noCopy = conf.Err, conf.Since, conf.NoCopy

	from, err := within(c, late, "reading password", func() (checkpassword.Request, error) { return checkpassword.Read(stdin, getenv) })
	probe := maybeProbe(from)
	l.account, l.probe, l.ignored = from.Account, probe && !errors.Is(err, attempt.ErrHangs), from.Ignored
	password := secret.New(from.Password)
	if err == nil {
		l = l.judge(c, begun, conf, gate.Request{Environ: environ, Subject: policy.Subject{
			Password: password, Account: from.Account, UserPrincipalName: from.UserPrincipalName, FullName: from.FullName,
		}})
	} else {
		l = l.unreadable(c, begun, conf, err)
	}

	// The answer does not hang on what is left.
	if !l.late {
		if l.file != "" {
			if l.shredded, err = within(c, late, "making room in spool/incoming", func() (int, error) { return makeRoom(conf.HookConfig, l.file) }); err != nil {
				l.Troubles = append(l.Troubles, gate.Trouble{Err: err, Minor: true})
			}
		}
		if l.probe || l.verdict == refused {
			l.nth, _ = within(c, late, "counting", func() (int, error) { return count(conf.Paths().Probes, time.Now()), nil })
		}
		if _, err := within(c, late, "noting the refusal", func() (struct{}, error) { return none, note(conf.Paths().Refusals, l, probe) }); err != nil {
			l.Troubles = append(l.Troubles, gate.Trouble{Err: err, Minor: true})
		}
		if _, err := within(c, late, "keeping a copy of "+file, func() (struct{}, error) { return none, conf.Keep() }); err != nil {
			l.Troubles = append(l.Troubles, gate.Trouble{Err: err})
		}
		password.Destroy() // where storing hangs, a goroutine that was given up may still be closing a box over it
	}
	return l
}

// unreadable is the answer to a password that cannot be read: what has not been seen cannot be allowed.
func (l line) unreadable(c *attempt.Course, begun time.Time, conf gate.Conf, err error) line {
	account, _ := conf.Account(c, l.account, begun.Add(deadline+basicPatience))
	if !account.Settings.Enforces() {
		return l.notCaptured(err, conf.Hook)
	}
	l.Policy = account.Policy
	l.verdict, l.err = refused, err
	return l
}

// judge asks the policy, and stores what it accepts.
func (l line) judge(c *attempt.Course, begun time.Time, conf gate.Conf, request gate.Request) line {
	var err error
	l.Verdict, err = within(c, begun.Add(policyDeadline), "asking the policy",
		func() (gate.Verdict, error) { return conf.Decide(c, request, begun.Add(toolsDeadline)), nil })
	if err != nil {
		l.Verdict = conf.Basic(c, request, begun.Add(policyDeadline+basicPatience))
		l.Troubles = append(l.Troubles, gate.Trouble{Err: err})
	}

	if l.Refused() {
		l.verdict = refused
		return l
	}
	if conf.NoTarget {
		l.verdict = accepted // a password that nobody wants is not kept
		return l
	}
	taken, err := within(c, begun.Add(deadline), "storing", func() (capture.Header, error) { return take(conf.HookConfig, request.Subject) })
	if err != nil {
		l.late = errors.Is(err, attempt.ErrHangs)
		return l.notCaptured(err, conf.Hook)
	}
	l.verdict, l.capture, l.file = accepted, taken.ID.String(), taken.FileName()
	return l
}

var none struct{}

// note tells the agent of objections. Where it cannot, the log has them all the same.
func note(path string, l line, probe bool) error {
	var records []refusal.Record
	for _, audited := range []bool{false, true} {
		rules := l.Rules(audited)
		if l.verdict == refused && l.err != nil && !audited {
			rules = []string{refusal.Unreadable}
		}
		if len(rules) > 0 {
			records = append(records, refusal.Record{Time: time.Now(), Account: l.account, Probe: probe, Policy: l.Policy, Rules: rules, Audit: audited})
		}
	}
	if len(records) == 0 {
		return nil
	}
	err := refusal.Append(path, records...)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, refusal.ErrFull) { // no installation yet, or nobody who takes them away
		return nil
	}
	return err
}

// notCaptured is the answer where the policy has no objection but nothing could be kept.
func (l line) notCaptured(err error, hook config.Hook) line {
	l.verdict, l.severity, l.err = accepted, severityError, fmt.Errorf("not captured: %w", err)
	if hook.OnCaptureError == config.Refuse {
		l.verdict = failed
	}
	return l
}

// maybeProbe reports whether Samba named neither user principal name nor full name: it never does for SamrValidatePassword,
// which changes nothing, and always does for an account that has one of the two.
func maybeProbe(r checkpassword.Request) bool {
	return capture.Header{UserPrincipalName: r.UserPrincipalName, FullName: r.FullName}.Doubtful()
}

// within is a step of the hook's; the error says of which, if it hangs or panics.
func within[T any](c *attempt.Course, until time.Time, doing string, step func() (T, error)) (T, error) {
	value, err := attempt.Step(c, until, step)
	if err == attempt.ErrHangs || err == attempt.ErrInternal {
		err = fmt.Errorf("%s: %w", doing, err)
	}
	return value, err
}
