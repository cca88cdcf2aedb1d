package main

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

var errNoTarget = errors.New("no target is configured: add a [target.NAME] section to the configuration")

// hints returns what to do about an error: commands to run and files to look at. All advice to people stands here, but for
// the remedies of a configuration's faults, which belong to their lines.
func hints(err error) []string {
	switch faults := config.Faults(nil); {
	case errors.As(err, &faults):
		return []string{"every key is explained in samba-pwsync.toml(5)"}
	case errors.Is(err, errNoTarget):
		return []string{"every key is explained in samba-pwsync.toml(5)"}
	case errors.Is(err, control.ErrNotRunning):
		return []string{"start it: systemctl start samba-pwsync", "see why it stopped: journalctl -u samba-pwsync"}
	case errors.Is(err, directory.ErrUnavailable):
		return []string{"is the DC running? systemctl status samba-ad-dc", "[directory] url has to name ldap_priv/ldapi below `testparm -s --parameter-name='private dir'`"}
	case errors.Is(err, seal.ErrOtherKey):
		return []string{"the keys below the state folder were replaced; what was sealed to the old ones cannot be opened"}
	case errors.Is(err, target.ErrDenied):
		return []string{"docs/operating.md lists the rights that each target needs"}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EPERM):
		return []string{"run it as root (the forwarder's role: as its own user)"}
	case errors.Is(err, fs.ErrNotExist):
		return []string{"make keys and folders first: samba-pwsync init"}
	}
	return nil
}
