package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/docs"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
)

func initCommand() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make the keys, the state folder and an example configuration",
		Description: "Safe to run again: what exists is kept. Prints what to put into smb.conf. " +
			"With --user the forwarder's folders and key belong to that user, for a forwarder that runs without root's rights " +
			"(serve --role forwarder).",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "user", Usage: "the unprivileged `NAME` that the forwarder will run as (default: root runs both roles)"},
		},
		Before: noArguments,
		Action: runInit,
	}
}

func runInit(c *cli.Context) error {
	out, path := c.App.Writer, configPath(c)
	owner, err := lookUpOwner(c.String("user"))
	if err != nil {
		return err
	}

	made, err := createConfig(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%-8s %s\n", made, path)
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}

	paths := cfg.Paths()
	for _, f := range folders(cfg.StateDir, paths, owner) {
		made, err := makeFolder(f)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%-8s %s/\n", made, f.path)
	}
	for _, k := range []struct {
		private, public string
		owner           *account
	}{{paths.AgentKey, paths.AgentPublicKey, nil}, {paths.ForwarderKey, paths.ForwarderPublicKey, owner}} {
		made, err := makeKey(k.private, k.public, k.owner)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%-8s %s\n", made, k.private)
	}

	fmt.Fprintf(out, `
Next:
  1. Add a target to %s, then run: samba-pwsync check --connect
  2. Put this line into the [global] section of smb.conf:
         check password script = exec /usr/sbin/samba-pwsync-hook%s
  3. Restart Samba: a reload does not make its workers run a new script.
         systemctl restart samba-ad-dc
  4. Start the delivery:
         systemctl enable --now samba-pwsync
`, path, hookFlags(path))
	return nil
}

// hookFlags is what the hook needs on its command line to find the same configuration.
func hookFlags(path string) string {
	if path == config.DefaultFile {
		return ""
	}
	return " --config " + path
}

// account is the unprivileged user that owns the forwarder's part.
type account struct{ uid, gid int }

func lookUpOwner(name string) (*account, error) {
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, usagef("looking up the forwarder's user: %w (make it with: useradd --system %s)", err, name)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("looking up the forwarder's user: %w", err)
	}
	return &account{uid, gid}, nil
}

func createConfig(path string) (made string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("making folder for the configuration: %w", err)
	}
	// It holds no secret, only the names of files that do.
	switch err := durable.Create(path, docs.ExampleConfig, 0o644); {
	case errors.Is(err, fs.ErrExist):
		return "kept", nil
	case err != nil:
		return "", fmt.Errorf("writing example configuration %s: %w", path, err)
	}
	return "made", nil
}

type folder struct {
	path  string
	mode  fs.FileMode
	owner *account // nil: who runs init, root
	group bool     // only the group is the owner's
}

// folders lists the state folder's parts. With one user everything is 0700. With two, the forwarder's user can pass through
// what is root's, without listing it, and owns his own part; spool/outgoing stays root's, so that nobody can put another
// folder in its place under root's writes, and is writable to the user's group.
func folders(stateDir string, p config.Paths, owner *account) []folder {
	through := fs.FileMode(0o700)
	if owner != nil {
		through = 0o711
	}
	outgoing := folder{path: p.Outgoing, mode: 0o700}
	if owner != nil {
		outgoing = folder{path: p.Outgoing, mode: 0o770 | fs.ModeSetgid, owner: owner, group: true}
	}
	return []folder{
		{path: stateDir, mode: through},
		{path: p.Keys, mode: through},
		{path: p.Spool, mode: through},
		{path: p.Incoming, mode: 0o700},
		outgoing,
		{path: p.Agent, mode: 0o700},
		{path: p.Forwarder, mode: 0o700, owner: owner},
	}
}

func makeFolder(f folder) (made string, err error) {
	made = "made"
	switch err := os.Mkdir(f.path, f.mode.Perm()); {
	case errors.Is(err, fs.ErrExist):
		made = "kept"
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
			return "", fmt.Errorf("making folder: %w", err)
		}
		return makeFolder(f)
	case err != nil:
		return "", fmt.Errorf("making folder: %w", err)
	}
	info, err := os.Lstat(f.path)
	if err != nil {
		return "", fmt.Errorf("making folder: %w", err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("making folder: %s exists and is none", f.path)
	}
	if f.owner != nil {
		uid := f.owner.uid
		if f.group {
			uid = os.Geteuid()
		}
		if err := os.Lchown(f.path, uid, f.owner.gid); err != nil {
			return "", fmt.Errorf("making folder: %w", err)
		}
	}
	// After chown, which clears the setgid bit; and for folders that an earlier init made with other rights.
	if err := os.Chmod(f.path, f.mode); err != nil {
		return "", fmt.Errorf("making folder: %w", err)
	}
	return made, nil
}

// makeKey makes a key pair where there is none. A private key is never replaced: captures may be sealed to it.
func makeKey(private, public string, owner *account) (made string, err error) {
	key, err := seal.LoadPrivate(private)
	switch made = "kept"; {
	case errors.Is(err, fs.ErrNotExist):
		made = "made"
		if key, err = seal.Generate(); err != nil {
			return "", err
		}
		text, err := key.MarshalPEM()
		if err != nil {
			return "", err
		}
		defer clear(text)
		if err := durable.Create(private, text, 0o600); err != nil {
			return "", fmt.Errorf("writing %s: %w", private, err)
		}
	case err != nil:
		return "", err
	}
	if owner != nil {
		if err := os.Lchown(private, owner.uid, owner.gid); err != nil {
			return "", fmt.Errorf("writing %s: %w", private, err)
		}
	}
	// The public key goes last and follows the private one: the hook never seals to a key that nobody holds.
	if err := durable.Replace(public, key.Public().MarshalPEM(), 0o644); err != nil {
		return "", fmt.Errorf("writing %s: %w", public, err)
	}
	return made, nil
}
