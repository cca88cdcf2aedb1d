package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/bench/rules"
)

const (
	folder = "/etc/samba-pwsync/"
	words  = folder + "words.txt"
	list   = folder + "breached.bin"

	config = `
state_dir = "/var/lib/samba-pwsync"

[directory]
confirm_timeout = "3s"
exclude = "(adminCount=1)"
`
	bannedWords       = 100_000
	breachedPasswords = 10_000_000
)

// install turns all rules on.
func (b *bench) install(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "samba-pwsync-bench-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "breached.bin")
	if err := rules.Breached(ctx, file, breachedPasswords); err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading breached passwords: %w", err)
	}
	if err := b.DC.WriteFile(ctx, list, "0644", string(text)); err != nil {
		return err
	}
	if err := b.DC.WriteFile(ctx, words, "0644", rules.Words(bannedWords)); err != nil {
		return err
	}
	if err := b.DC.Configure(ctx, config+rules.Policy(words, list)); err != nil {
		return err
	}
	if _, err := b.DC.Exec(ctx, "", "samba-pwsync", "policy", "compile"); err != nil {
		return fmt.Errorf("compiling words: %w", err)
	}
	return nil
}

// probe has the DC refuse, by the hook, a password for each rule; the agent must know the accounts first.
func (b *bench) probe() error {
	for deadline := time.Now().Add(2 * time.Minute); b.admin.Reset(user(0), b.Remember(rules.Short())) == nil; time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s has not the policy %s after two minutes", user(0), rules.Staff)
		}
	}
	for rule, password := range rules.Bad(user(0)) {
		if err := b.admin.Reset(user(0), b.Remember(password)); err == nil {
			return fmt.Errorf("the hook accepts what the rule %s should refuse", rule)
		} else if !strings.Contains(err.Error(), "complexity") {
			return fmt.Errorf("trying the rule %s: %w", rule, err)
		}
	}
	if err := b.admin.Reset(user(0), b.NewPassword()); err != nil {
		return fmt.Errorf("the hook refuses a good password: %w", err)
	}
	return nil
}
