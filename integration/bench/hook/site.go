package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/bench/rules"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/index"
)

// site is an installation of the hook.
type site struct{ dir, command string }

func (s site) state() string    { return filepath.Join(s.dir, "state") }
func (s site) incoming() string { return filepath.Join(s.state(), "spool", "incoming") }

// install sets up a hook below dir with the samba-pwsync of the folder bin, with a configuration that says where they keep things, and what is given.
func install(ctx context.Context, bin, hook, dir, config string) (site, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return site{}, err
	}
	file, copied := filepath.Join(dir, "samba-pwsync.toml"), filepath.Join(dir, "samba-pwsync-hook")
	s := site{dir, copied + " --config " + file}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return site{}, fmt.Errorf("making a folder: %w", err)
	}
	program, err := os.ReadFile(hook)
	if err != nil {
		return site{}, fmt.Errorf("reading the hook (make build makes it): %w", err)
	}
	if err := os.WriteFile(copied, program, 0o755); err != nil {
		return site{}, fmt.Errorf("copying the hook: %w", err)
	}
	if err := os.WriteFile(file, []byte("state_dir = \""+s.state()+"\"\n"+config), 0o644); err != nil {
		return site{}, fmt.Errorf("writing a configuration: %w", err)
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(bin, "samba-pwsync"), "init", "--config", file).CombinedOutput(); err != nil {
		return site{}, fmt.Errorf("running samba-pwsync init (make build makes it): %w\n%s", err, out)
	}
	return s, nil
}

// targets are those whose rules join the policy. Nothing is sent, so their credentials are not needed.
const targets = `
[target.google]
type = "google"
credentials_file = "/nowhere/google.json"
subject = "pwsync@example.com"
user = "mail"

[target.entra]
type = "entra"
tenant_id = "11111111-2222-3333-4444-555555555555"
client_id = "66666666-7777-8888-9999-000000000000"
certificate_file = "/nowhere/entra.pem"
user = "userPrincipalName"
`

// installAll installs the hook with all rules on, and sees each of them refuse what it has to.
func installAll(ctx context.Context, dir, hook string, o options) (site, error) {
	words, list := filepath.Join(dir, "words.txt"), filepath.Join(dir, "breached.bin")
	s, err := install(ctx, o.bin, hook, dir, rules.Policy(words, list)+targets)
	if err != nil {
		return site{}, err
	}
	progress("writing %d banned words, %d breached passwords and an index of %d accounts", o.words, o.breached, o.accounts)
	if err := os.WriteFile(words, []byte(rules.Words(o.words)), 0o644); err != nil {
		return site{}, fmt.Errorf("writing words: %w", err)
	}
	if err := rules.Breached(ctx, list, o.breached); err != nil {
		return site{}, err
	}
	c := index.Contents{Made: time.Now(), Policies: []string{rules.Staff}, Targets: []string{"entra", "google"}}
	all := index.Entry{Policy: rules.Staff, Targets: c.Targets}
	c.Accounts = append(c.Accounts, index.Account{Name: account, Entry: all})
	for n := range o.accounts - 1 {
		c.Accounts = append(c.Accounts, index.Account{Name: fmt.Sprintf("user%06d", n), Entry: all})
	}
	folder := filepath.Join(s.state(), "policy")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return site{}, fmt.Errorf("making a folder: %w", err)
	}
	if err := index.Write(filepath.Join(folder, "accounts.index"), c); err != nil {
		return site{}, err
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(o.bin, "samba-pwsync"), "policy", "compile", "--config", filepath.Join(dir, "samba-pwsync.toml")).CombinedOutput(); err != nil {
		return site{}, fmt.Errorf("compiling words: %w\n%s", err, out)
	}
	return s, s.probe(ctx)
}

// probe asks the hook about passwords of which each breaks one rule.
func (s site) probe(ctx context.Context) error {
	if accepted, err := s.asks(ctx, account, rules.NewPassword()); err != nil || !accepted {
		return errors.Join(fmt.Errorf("the hook refuses a good password"), err)
	}
	for rule, password := range rules.Bad(account) {
		if accepted, err := s.asks(ctx, account, password); err != nil || accepted {
			return errors.Join(fmt.Errorf("the hook accepts what the rule %s should refuse", rule), err)
		}
	}
	// The policy that the index names asks for more than the one that holds for others.
	if accepted, err := s.asks(ctx, "unknown", rules.Short()); err != nil || !accepted {
		return errors.Join(fmt.Errorf("an account that the index does not know has not [policy]"), err)
	}
	_, err := empty(s.incoming())
	return err
}

// asks reports whether the hook accepts a password.
func (s site) asks(ctx context.Context, account, password string) (accepted bool, err error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "exec "+s.command)
	cmd.Env, cmd.Stdin = environment(account), strings.NewReader(password)
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("running the hook: %w", err)
	}
	return true, nil
}
