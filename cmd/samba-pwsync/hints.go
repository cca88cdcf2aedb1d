package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/user"
	"strings"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/breached/importer"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/notice"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

var (
	errNotAsInit   = errors.New("it belongs to somebody else")
	errNoHashes    = errors.New("no new password can be proven: Samba stores no NT hashes (nt hash store in smb.conf)")
	errNoProof     = errors.New("no new password can be proven: Samba stores neither NT hashes (nt hash store in smb.conf) nor AES keys (the domain's functional level is below 2008)")
	errReadOnly    = errors.New("this is a read-only domain controller: passwords change on the writable ones, where the hook and the agent belong")
	errStrangers   = errors.New("the keys do not belong together: what is sealed to the one cannot be opened with the other")
	errNoNTLM      = errors.New("the directory holds NT hashes, and nothing else can be compared with them")
	errNoBreached  = errors.New("there is no file of breached passwords")
	errNoWords     = errors.New("a file of banned words is missing")
	errNoForwarder = errors.New("the forwarder is not running, and only it knows what it has delivered")
	errNothingRuns = errors.New("neither the agent nor the forwarder is running, and nobody else knows")
	errNoAccount   = errors.New("no account of that name is known")
	errNotQueued   = errors.New("nothing of the account is in the queue")
)

// untrusted is how package cloud says that TLS failed: of the error below it keeps no more, whose text quotes the server.
const untrusted = "certificate is not trusted"

// hints returns what to do about an error: commands to run and files to look at. All advice to people stands here, but for the
// remedies of a configuration's faults, which belong to their lines, and what a target's refusal says to grant.
func hints(err error) []string {
	var (
		usage  *usageError
		faults config.Faults
		nobody user.UnknownUserError
		file   *fileError
		manual = "every key is explained in samba-pwsync.toml(5)"
		socket = "[directory] url has to name the privileged socket, ldap_priv/ldapi below the folder that this prints: testparm -s --parameter-name='private dir'"
	)
	switch {
	case errors.As(err, &usage):
		return []string{usage.ask + " --help lists what there is"}
	case errors.As(err, &faults):
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
	case errors.Is(err, errNoAccount):
		return []string{"name it by sAMAccountName, user principal name, objectGUID, or by its name at a target"}
	case errors.Is(err, errNotQueued):
		return []string{"see where its password is: samba-pwsync why ACCOUNT"}
	case errors.Is(err, errNoForwarder), errors.Is(err, errNothingRuns):
		return []string{"see what runs: samba-pwsync status"}
	case errors.Is(err, errNoNTLM):
		return []string{"import a list of NTLM hashes (Have I Been Pwned's downloader makes one if it is asked for NTLM) into a file of its own: samba-pwsync breached import -o FILE LIST"}
	case errors.Is(err, errNotAsInit):
		return []string{"stop the services and give it back: samba-pwsync init"}
	case errors.Is(err, errNoHashes):
		return []string{`set [directory] proof = "aes256"`, "or nt hash store = always in smb.conf, and restart Samba"}
	case errors.Is(err, errNoProof):
		return []string{"put nt hash store = always into [global] of smb.conf and restart Samba"}
	case errors.Is(err, errReadOnly):
		return []string{"install samba-pwsync on each writable domain controller, and take it and its line in smb.conf away from this one"}
	case errors.Is(err, errStrangers):
		return []string{"write the right public key: samba-pwsync init"}
	case errors.Is(err, importer.ErrIncomplete):
		return []string{"get the list again; the downloader goes on where it was broken off", "or take it as it is: --incomplete"}
	case errors.Is(err, importer.ErrDiskFull):
		return []string{"make room: a file has 2.3 bytes for each hash, with --bits 8 half of that", "or leave out what is rare: --min-count 10"}
	case errors.Is(err, importer.ErrBusy):
		return []string{"wait for it, and see what it made: samba-pwsync breached info"}
	case errors.Is(err, importer.ErrList):
		return nil // its text tells what to do
	case errors.Is(err, errNoBreached), errors.Is(err, breached.ErrDamaged), errors.Is(err, breached.ErrForeign), errors.Is(err, breached.ErrUnfinished):
		return []string{"make it of a list: samba-pwsync breached import FILE; /usr/share/doc/samba-pwsync/operating.md tells where to get one"}
	case errors.Is(err, errNoWords):
		return []string{"put the file there or correct banned in the configuration"}
	case errors.Is(err, directory.ErrNotPrivileged):
		return []string{socket}
	case errors.Is(err, directory.ErrUnavailable):
		return []string{"is the DC running? systemctl status samba-ad-dc", socket}
	case errors.Is(err, target.ErrDenied) && strings.Contains(err.Error(), untrusted):
		return []string{
			"see whose certificate comes: openssl s_client -connect HOST:443 </dev/null | openssl x509 -noout -issuer -subject -dates",
			"where a proxy opens TLS, or the server's authority is your own, put the authority's certificate into a PEM file and name it by the target's ca_file",
		}
	case errors.Is(err, target.ErrDenied):
		return []string{"/usr/share/doc/samba-pwsync/operating.md lists, target by target, what has to be granted"}
	case errors.Is(err, notice.ErrNotNow):
		return []string{"see what the server says: openssl s_client -connect HOST:PORT, with -starttls smtp unless tls is \"implicit\""}
	case errors.As(err, &file):
		return file.hints()
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EPERM):
		return []string{"run it as root", "only the forwarder's role runs as a user of its own, the one that init --user named"}
	case errors.Is(err, fs.ErrNotExist):
		return []string{"make keys and folders first: samba-pwsync init"}
	case errors.As(err, new(*net.OpError)), errors.As(err, new(*net.DNSError)):
		return []string{"does a firewall stand between, or is a proxy needed? HTTPS_PROXY names one"}
	}
	return nil
}

// hints of a file that a target names: the one that the forwarder's user cannot read is given to his group.
func (e *fileError) hints() []string {
	switch group := groupName(e.reader.gid); {
	case errors.Is(e.cause, fs.ErrNotExist):
		return []string{"put the file there or correct the path; samba-pwsync check looks at all of them"}
	case errors.Is(e.cause, errNoWay):
		return []string{fmt.Sprintf("let the forwarder's group pass: chgrp %[1]s %[2]s && chmod g+x %[2]s; or put the file elsewhere", group, e.path)}
	case errors.Is(e.cause, errNoRead), errors.Is(e.cause, fs.ErrPermission):
		return []string{fmt.Sprintf("let the forwarder's group read it: chgrp %[1]s %[2]s && chmod 0640 %[2]s", group, e.path)}
	}
	return nil
}
