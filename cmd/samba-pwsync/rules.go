package main

import (
	"os"
	"slices"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/internal/agent/census"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

// rulesOf returns what tells the agent whose each policy is: by the configuration as it is then, for the hook also reads it at each run.
// The file is read again when it has changed; one with a fault is an error until it is mended. Targets stay those that the process
// began with.
func rulesOf(cfg *config.Config) func() (census.Rules, error) {
	rules, seen, err := rulesIn(cfg), fileState{}, error(nil) // it is read once more, for it may have changed since cfg was
	return func() (census.Rules, error) {
		now, statErr := stateOf(cfg.File())
		if statErr != nil {
			return rules, statErr
		}
		if now != seen {
			seen = now
			var fresh *config.Config
			if fresh, err = config.Load(cfg.File()); err == nil {
				rules = rulesIn(fresh)
			}
		}
		return rules, err
	}
}

// fileState is what changes when a file does.
type fileState struct {
	inode             uint64
	size              int64
	modified, changed syscall.Timespec
}

func stateOf(path string) (fileState, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}, err
	}
	s := info.Sys().(*syscall.Stat_t)
	return fileState{s.Ino, s.Size, s.Mtim, s.Ctim}, nil
}

func rulesIn(cfg *config.Config) census.Rules {
	preflight := cfg.Policy.Preflight || slices.ContainsFunc(cfg.Policies, func(p config.NamedPolicy) bool { return p.Policy.Preflight })
	r := census.Rules{Wanted: len(cfg.Policies) > 0 || preflight && len(cfg.Target) > 0}
	for _, p := range cfg.Policies {
		r.Policies = append(r.Policies, census.Policy{Name: p.Name, BaseDN: p.BaseDN, Filter: p.Filter})
	}
	return r
}
