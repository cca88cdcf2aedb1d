package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/agent"
	"github.com/samba-pwsync/samba-pwsync/internal/ballast"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/keyring"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
)

// agentStatus is what the agent's role answers.
type agentStatus struct {
	agent.Status
	Keys []keyring.Key  `json:"keys"` // the current one first, then those that are still to be destroyed
	Disk ballast.Status `json:"disk"` // below its folder
}

func agentKeys(p config.Paths) keyring.Files {
	return keyring.Files{Private: p.AgentKey, Public: p.AgentPublicKey, Retired: p.AgentRetired}
}

func forwarderKeys(p config.Paths) keyring.Files {
	return keyring.Files{Private: p.ForwarderKey, Public: p.ForwarderPublicKey, Retired: p.ForwarderRetired}
}

func keyCommand() *cli.Command {
	return &cli.Command{
		Name:   "key",
		Usage:  "exchange the keys that captured passwords are sealed to",
		Action: missingCommand,
		Subcommands: []*cli.Command{{
			Name:  "rotate",
			Usage: "make new key pairs; the old private keys are destroyed when nothing can be sealed to them any more",
			Description: "The hook seals to the new keys from its next run, and a running serve finds them by itself. It keeps an old private key " +
				"while something may wait that is sealed to it: the agent's for confirm_timeout, the forwarder's for secret_ttl, and longer where something " +
				"does wait. Then it is overwritten and removed; samba-pwsync status tells when. Without --agent and --forwarder both are exchanged. Needs " +
				"root. Safe to repeat: a rotation that was broken off is completed first, and nothing else is done then.",
			Flags: []cli.Flag{
				configFlag(),
				&cli.BoolFlag{Name: "agent", Usage: "only the agent's keys, or with --forwarder both"},
				&cli.BoolFlag{Name: "forwarder", Usage: "only the forwarder's keys, or with --agent both"},
			},
			Before: noArguments,
			Action: runKeyRotate,
		}},
	}
}

func runKeyRotate(c *cli.Context) error {
	cfg, err := config.Load(configPath(c))
	if err != nil {
		return err
	}
	paths := cfg.Paths()
	owner, err := ownerOf(paths.Forwarder)
	if err != nil {
		return err
	}
	all := folders(cfg.StateDir, paths, *owner)
	both := c.Bool("agent") == c.Bool("forwarder")
	for _, role := range []struct {
		name   string
		wanted bool
		files  keyring.Files
		owner  account
		keep   time.Duration
		until  string
		unit   string
	}{
		{roleAgent, both || c.Bool("agent"), agentKeys(paths), self(), cfg.Directory.ConfirmTimeout, "confirm_timeout", unitsFor(*owner).agent},
		{roleForwarder, both || c.Bool("forwarder"), forwarderKeys(paths), *owner, cfg.Directory.SecretTTL, "secret_ttl", unitsFor(*owner).forwarder},
	} {
		if !role.wanted {
			continue
		}
		if _, err := os.Stat(role.files.Private); err != nil {
			return fmt.Errorf("rotating %s: %w", role.files.Private, err)
		}
		// An installation of before there were rotations lacks the folder, and a service that runs since then cannot write to it.
		_, err := os.Lstat(role.files.Retired)
		lacked := errors.Is(err, fs.ErrNotExist)
		folder := all[slices.IndexFunc(all, func(f folder) bool { return f.path == role.files.Retired })]
		if _, err := settle(folder); err != nil {
			return fmt.Errorf("making folder %s: %w", folder.path, cause(err))
		}
		give := func(path string) error {
			if _, err := give(path, role.owner); err != nil {
				return fmt.Errorf("giving %s to the role's user: %w", path, cause(err))
			}
			return nil
		}
		r, err := keyring.Rotate(role.files, give, time.Now())
		if err != nil {
			return err
		}
		out := c.App.Writer
		if r.Resumed {
			fmt.Fprintf(out, "%s: a rotation had been broken off, and is complete now: the hook seals to %s\n", role.name, r.New)
		} else {
			fmt.Fprintf(out, "%s: the hook seals to %s now\n", role.name, r.New)
		}
		fmt.Fprintf(out, "%s: %s is destroyed by serve in %v (%s), later if what waits then is sealed to it\n", role.name, r.Old, max(role.keep, keyring.LeastKept), role.until)
		if lacked {
			fmt.Fprintf(out, "%s: restart it once, so that it may write to %s: systemctl try-restart %s\n", role.name, folder.path, role.unit)
		}
	}
	return nil
}

// keeper is what a role does about its keys while it runs.
type keeper struct {
	ring   *keyring.Ring
	role   string
	keep   time.Duration
	needed func(seal.KeyID) (bool, error)
	log    *event.Log
}

// tendEvery is how often the keys are looked at: two or three small files.
const tendEvery = 10 * time.Second

// tend looks after the keys until ctx ends. A trouble is said when it is new.
func (k keeper) tend(ctx context.Context) {
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	said := ""
	for {
		destroyed, err := k.ring.Tend(time.Now(), k.keep, k.needed)
		for _, id := range destroyed {
			k.log.KeyDestroyed(k.role, id)
		}
		trouble := ""
		if err != nil {
			trouble = err.Error()
		}
		if trouble != said && err != nil {
			k.log.KeyTrouble(k.role, err)
		}
		said = trouble
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// keysRow tells of a role's keys: "3f5c… since 09:12:01; 7a01… is destroyed 14:00:00".
func keysRow(keys []keyring.Key) string {
	text := ""
	for i, k := range keys {
		switch {
		case i == 0:
			text = fmt.Sprintf("%s since %s", k.ID, clock(k.Made))
		case k.Kept != "":
			text += fmt.Sprintf("; %s, retired %s, is kept: %s", k.ID, clock(k.Retired), k.Kept)
		default:
			text += fmt.Sprintf("; %s, retired %s, is destroyed %s", k.ID, clock(k.Retired), clock(k.Due))
		}
	}
	return text
}
