package main

import (
	"errors"
	"io/fs"
	"net"
	"os/user"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

var (
	errNoTarget  = errors.New("no target is configured: add a [target.NAME] section to the configuration")
	errNotAsInit = errors.New("it belongs to somebody else")
	errStrangers = errors.New("the keys do not belong together: what is sealed to the one cannot be opened with the other")
)

// hints returns what to do about an error: commands to run and files to look at. All advice to people stands here, but for the
// remedies of a configuration's faults, which belong to their lines, and what a target's refusal says to grant.
func hints(err error) []string {
	var (
		usage  *usageError
		faults config.Faults
		nobody user.UnknownUserError
		manual = "every key is explained in samba-pwsync.toml(5)"
		socket = "[directory] url has to name the privileged socket, ldap_priv/ldapi below the folder that this prints: testparm -s --parameter-name='private dir'"
	)
	switch {
	case errors.As(err, &usage):
		return []string{usage.ask + " --help lists what there is"}
	case errors.As(err, &faults), errors.Is(err, errNoTarget):
		return []string{manual}
	case errors.As(err, &nobody):
		return []string{"make the user: useradd --system --home /nonexistent --shell /usr/sbin/nologin " + string(nobody)}
	case errors.Is(err, errLocked):
		return []string{"find it: systemctl status 'samba-pwsync*'"}
	case errors.Is(err, errOtherOwner):
		return []string{
			"where init gave the forwarder a user of its own, each role runs as its own service: systemctl start samba-pwsync-agent samba-pwsync-forwarder",
			"to run both as root again: samba-pwsync init --user root",
		}
	case errors.Is(err, errNotAsInit):
		return []string{"stop the services and give it back: samba-pwsync init"}
	case errors.Is(err, errStrangers):
		return []string{"write the right public key: samba-pwsync init"}
	case errors.Is(err, directory.ErrNotPrivileged):
		return []string{socket}
	case errors.Is(err, directory.ErrUnavailable):
		return []string{"is the DC running? systemctl status samba-ad-dc", socket}
	case errors.Is(err, target.ErrDenied):
		return []string{"docs/operating.md lists, target by target, what has to be granted"}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EPERM):
		return []string{
			"run it as root",
			"only the forwarder's role runs as a user of its own, who has to be able to read the files that the targets name",
		}
	case errors.Is(err, fs.ErrNotExist):
		return []string{"make keys and folders first: samba-pwsync init"}
	case errors.As(err, new(*net.OpError)), errors.As(err, new(*net.DNSError)):
		return []string{"does a firewall stand between, or is a proxy needed? HTTPS_PROXY names one"}
	}
	return nil
}
