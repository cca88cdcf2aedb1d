// Package gate is what the hook asks about a password: it picks the policy of the account, puts together what that policy's rules need, and
// asks them.
//
// Why a package: `samba-pwsync policy test` explains what the hook would say, and it can only do so by asking the same code.
//
// The way: configuration, or the copy of the last good one (Load) → the account's policy and the targets that want it, from the index that the agent
// keeps (internal/policy/index) → the policy's rules (internal/policy), with the tools that they ask for: banned words, breached passwords,
// what the targets take, other programs. Nothing is opened that no rule asks for, and no network is used.
//
// What cannot be asked refuses nothing and costs little: a tool that is missing, damaged, hangs or panics is a Trouble, the rules that
// do without it hold, and the hook's log says so at each password. An account that the index does not know has [policy], and counts as wanted by
// every target.
//
// Whom it trusts: the configuration and its copy, word files, the file of breached passwords and the programs, which are root's. The
// index and the compiled words are the agent's: whoever takes over the agent can choose everybody's policy among those in the
// configuration, but have no program run. Not the names: any domain user can have Samba ask in anybody's name, and so
// learn what another's policy says to a password.
//
// What it does not solve: a file on a disk that does not answer holds up the verdict for a second each time it is asked for.
package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/attempt"
	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/gate/also"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/index"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	entra "github.com/samba-pwsync/samba-pwsync/internal/target/entra/accepts"
	google "github.com/samba-pwsync/samba-pwsync/internal/target/google/accepts"
)

// Shortest is how many characters each type of target asks for.
var Shortest = map[string]int{config.TypeGoogle: google.Shortest, config.TypeEntra: entra.Shortest}

// accepts is what each type of target would refuse.
var accepts = map[string]func([]byte) []string{
	config.TypeGoogle: google.Password,
	config.TypeEntra:  entra.Password,
}

const (
	// patience is how long one file may hold up the verdict.
	patience = time.Second

	// programPatience is how long all other programs together may.
	programPatience = 3 * time.Second

	// startPatience is how long after the policy's time a program that cannot be started may hold it up.
	startPatience = 100 * time.Millisecond
)

// Request is a password, and what Samba says of it.
type Request struct {
	policy.Subject
	Environ []string // for other programs
}

// Account is what is known of an account before its password is looked at.
type Account struct {
	Policy   string          // name of the policy that holds
	Settings policy.Settings // of it
	Known    bool            // the index has the account
	Made     time.Time       // when the agent asked the directory for what the index has; zero without an index
	Targets  []string        // those that want it, or may
}

// Trouble is something that could not be asked.
type Trouble struct {
	Rule  string // for which rule; empty: for the choice of the policy
	Err   error
	Minor bool // usual in a new installation
}

// Verdict is what the policy says.
type Verdict struct {
	Account
	Findings []policy.Finding
	Troubles []Trouble
}

// Refused reports whether the password may not be set.
func (v Verdict) Refused() bool { return policy.Refused(v.Findings) }

// Rules names the rules with objections that refuse the password, or with those that are only audited, each once.
func (v Verdict) Rules(audited bool) []string {
	var rules []string
	for _, f := range v.Findings {
		if f.Audited == audited && !slices.Contains(rules, f.Rule) {
			rules = append(rules, f.Rule)
		}
	}
	return rules
}

// Decide asks the policy. It ends in good time before until, if the rules themselves do not take long.
//
// What it maps it leaves so: the process ends with the answer, and to unmap before that has all its threads interrupted.
func (c Conf) Decide(course *attempt.Course, r Request, until time.Time) Verdict {
	a, troubles := c.Account(course, r.Account, until)
	v := Verdict{Account: a, Troubles: troubles}
	if a.Settings.Mode == policy.Off {
		return v
	}
	t := &tools{course: course, conf: c, request: r, until: until, troubles: v.Troubles}
	all := t.open(a)
	all.Failed = func(rule string) { t.trouble(rule, attempt.ErrInternal) }
	v.Findings = policy.Check(a.Settings, r.Subject, all)
	v.Troubles = t.troubles
	return v
}

// Basic asks nothing but the rules about length and complexity of the account's policy. It is for where Decide fails. Other programs, which then were not asked, answer as
// on_also_error says.
func (c Conf) Basic(course *attempt.Course, r Request, until time.Time) Verdict {
	a, troubles := c.Account(course, r.Account, until)
	p := a.Settings
	a.Settings = policy.Settings{Mode: p.Mode, MinLength: p.MinLength, MaxLength: p.MaxLength, Complexity: p.Complexity, Tiers: p.Tiers, Audit: p.Audit}
	v := Verdict{Account: a, Findings: policy.Check(a.Settings, r.Subject, policy.Tools{}), Troubles: troubles}
	if len(p.Also) > 0 && p.Mode != policy.Off && c.Hook.OnAlsoError == config.Refuse {
		audited := !p.Enforces() || slices.Contains(p.Audit, policy.RuleAlso)
		v.Findings = append(v.Findings, policy.Finding{Rule: policy.RuleAlso, Reason: "other checks could not be asked about it", Audited: audited})
	}
	return v
}

// errNoIndex takes the place of an error that would name a file, and not who makes it.
var errNoIndex = errors.New("not known before `samba-pwsync serve` has asked the directory")

// Account looks up which policy holds for an account, and which targets want it.
func (c Conf) Account(course *attempt.Course, name string, until time.Time) (Account, []Trouble) {
	a := Account{Policy: config.DefaultPolicy, Settings: policy.Settings(c.Policy)}
	for _, t := range c.Targets {
		a.Targets = append(a.Targets, t.Name)
	}
	preflight := len(c.Targets) > 0 && (c.Policy.Preflight || slices.ContainsFunc(c.Policies, func(p config.NamedPolicy) bool { return p.Policy.Preflight }))
	if len(c.Policies) == 0 && !preflight {
		return a, nil
	}
	found, err := attempt.Step(course, earlier(until, patience), func() (answer, error) { return ask(c.Paths().PolicyIndex, name) })
	if err != nil {
		// Before serve ran for the first time there is none; where no policy hangs on it, that is no fault.
		none := errors.Is(err, fs.ErrNotExist)
		minor := none && len(c.Policies) == 0
		if none {
			err = errNoIndex
		}
		return a, []Trouble{{Err: fmt.Errorf("who has which policy and which targets: %w", err), Minor: minor}}
	}
	a.Made, a.Known = found.made, found.known
	var troubles []Trouble
	for _, p := range c.Policies {
		if !slices.Contains(found.policies, p.Name) {
			troubles = append(troubles, Trouble{Err: fmt.Errorf("policy %s: who has it is not known yet: `samba-pwsync serve` asks the directory once it has read this configuration", p.Name)})
		}
	}
	if !found.known {
		return a, troubles
	}
	for _, p := range c.Policies {
		if p.Name == found.Policy {
			a.Policy, a.Settings = p.Name, policy.Settings(p.Policy)
		}
	}
	a.Targets = slices.DeleteFunc(a.Targets, func(name string) bool {
		return slices.Contains(found.targets, name) && !slices.Contains(found.Targets, name)
	})
	return a, troubles
}

// answer is what the index says of an account.
type answer struct {
	index.Entry
	known             bool
	made              time.Time
	policies, targets []string // about which the directory was asked
}

func ask(path, name string) (a answer, err error) {
	ix, err := index.Open(path)
	if err != nil {
		return a, err
	}
	defer ix.Close()
	a.made, a.policies, a.targets = ix.Made(), ix.Policies(), ix.Targets()
	if name != "" {
		a.Entry, a.known, err = ix.Find(name)
	}
	return a, err
}

// tools are what the rules of one request need.
type tools struct {
	course   *attempt.Course
	conf     Conf
	request  Request
	until    time.Time
	troubles []Trouble
}

func (t *tools) trouble(rule string, err error) {
	t.troubles = append(t.troubles, Trouble{Rule: rule, Err: err})
}

func (t *tools) open(a Account) policy.Tools {
	var all policy.Tools
	if len(a.Settings.Banned) > 0 {
		if b := t.banned(a.Settings.Banned); b != nil {
			all.Banned = b
		}
	}
	if a.Settings.Breached != "" {
		all.Breached = func(password []byte) bool { return t.isBreached(a.Settings.Breached, password) }
	}
	if a.Settings.Preflight {
		all.Targets = t.targets(a.Targets)
	}
	all.Also = t.programs(a.Settings.Also)
	return all
}

// isBreached looks a password up in the file of breached ones. The file is opened when it is asked for, and not before.
func (t *tools) isBreached(path string, password []byte) bool {
	held, err := attempt.Step(t.course, earlier(t.until, patience), func() (bool, error) {
		f, err := breached.Open(path)
		if err != nil {
			return false, err
		}
		return f.HoldsPassword(password)
	})
	if err != nil {
		t.trouble(policy.RuleBreached, err)
	}
	return held
}

// targets are the named targets, with what they would refuse.
func (t *tools) targets(names []string) []policy.Target {
	var all []policy.Target
	for _, target := range t.conf.Targets {
		judge := accepts[target.Type]
		if judge == nil || !slices.Contains(names, target.Name) {
			continue
		}
		all = append(all, policy.Target{Name: target.Name, Accepts: func(password secret.Secret) []policy.Reason {
			var reasons []policy.Reason
			for _, reason := range judge(password.Bytes()) {
				reasons = append(reasons, policy.Reason("it "+reason))
			}
			return reasons
		}})
	}
	return all
}

// programs are the other check password scripts. One that cannot be asked answers as on_also_error says.
func (t *tools) programs(commands []string) []policy.Program {
	var all []policy.Program
	var until time.Time
	for _, command := range commands {
		all = append(all, policy.Program{Name: filepath.Base(also.Program(command)), Accepts: func() bool {
			if until.IsZero() {
				until = earlier(t.until, programPatience)
			}
			// It ends by itself, but for its start; and it must not outlast the policy, which would then be given up as a whole.
			ok, err := attempt.Step(t.course, earliest(until.Add(patience), t.until.Add(startPatience)), func() (bool, error) {
				return also.Run(command, t.request.Password.Bytes(), t.request.Environ, until)
			})
			if err != nil {
				t.trouble(policy.RuleAlso, err)
				return t.conf.Hook.OnAlsoError != config.Refuse
			}
			return ok
		}})
	}
	return all
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func earlier(until time.Time, patience time.Duration) time.Time {
	return earliest(time.Now().Add(patience), until)
}
