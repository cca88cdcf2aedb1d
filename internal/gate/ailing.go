package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/gate/also"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/words"
)

// compiledWithin is how long after a change words may not be compiled yet: serve looks every few seconds, and a million words take it some.
const compiledWithin = time.Minute

// Ailing tells which rules of the configuration cannot be asked now, or not as they should be: for whoever looks after it, before somebody's
// password shows it. What this process may not look at, it says nothing about.
func Ailing(c config.HookConfig) []error {
	var ailing []error
	seen := map[string]bool{}
	note := func(section, key, what string, err error) {
		if what = key + what; err == nil || seen[what] || errors.Is(err, fs.ErrPermission) {
			return
		}
		seen[what] = true
		ailing = append(ailing, fmt.Errorf("%s.%s: %w", section, key, err))
	}
	for _, p := range append([]config.NamedPolicy{{Policy: c.Policy}}, c.Policies...) {
		section := "policy"
		if p.Name != "" {
			section += "." + p.Name
		}
		if p.Policy.Mode == policy.Off {
			continue
		}
		if len(p.Policy.Banned) > 0 {
			note(section, "banned", strings.Join(p.Policy.Banned, "\x00"), ailingWords(c.Paths(), p.Policy.Banned, time.Now()))
		}
		if path := p.Policy.Breached; path != "" {
			f, err := breached.Open(path)
			if err == nil {
				_ = f.Close() // was read only
			} else {
				err = fmt.Errorf("%w: breached passwords are let through", err)
			}
			note(section, "breached", path, err)
		}
		for _, command := range p.Policy.Also {
			if _, err := os.Stat(also.Program(command)); err != nil {
				note(section, "also", command, fmt.Errorf("%w: it cannot be asked, which on_also_error = %q answers", err, c.Hook.OnAlsoError))
			}
		}
	}
	return ailing
}

// ailingWords tells why the compiled words of a list are not what the files say.
func ailingWords(paths config.Paths, list []string, at time.Time) error {
	t, errOpen := words.Open(wordsFile(paths, list))
	if errOpen == nil {
		defer t.Close()
	}
	now, err := state(list)
	switch {
	case errors.Is(errOpen, fs.ErrPermission):
		return errOpen
	case err != nil && errOpen == nil:
		return fmt.Errorf("%w; %w", err, errOld)
	case err != nil:
		return fmt.Errorf("%w; %w", err, errNone)
	case unusual(errOpen) != nil:
		return errOpen
	case errOpen == nil && t.Tag() == now.tag, now.size <= unremarked, at.Sub(now.changed) < compiledWithin:
		return nil
	}
	return errUncompiled
}
