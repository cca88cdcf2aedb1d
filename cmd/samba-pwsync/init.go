package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

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
		Description: "Safe to run again: what is there is kept, and its rights are mended. A private key is never replaced. Prints what to " +
			"put into smb.conf. With --user the forwarder's folders and key belong to that user, for a forwarder that runs without " +
			"root's rights (serve --role forwarder); later runs keep the user, and --user root takes it back.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "user", Usage: "the unprivileged user `NAME` of the forwarder"},
		},
		Before: noArguments,
		Action: runInit,
	}
}

// What became of a file or a folder.
const (
	made   = "made"
	kept   = "kept"
	mended = "mended"
)

// plain is a path that means the same to smb.conf, where % begins a variable, and to the shell that Samba runs the hook with.
var plain = regexp.MustCompile(`^[A-Za-z0-9/._+:@,=-]+$`)

func runInit(c *cli.Context) error {
	path, err := filepath.Abs(configPath(c))
	if err != nil {
		return fmt.Errorf("finding the configuration: %w", err)
	}
	if !plain.MatchString(path) {
		return usagef(c, "--config %q: the path becomes part of smb.conf, and has to do with letters, digits and / . _ + : @ , = -", path)
	}
	user, err := lookUpUser(c.String("user"))
	if err != nil {
		return err
	}

	report := func(what, path string) { fmt.Fprintf(c.App.Writer, "%-6s  %s\n", what, path) }
	what, err := createConfig(path)
	if err != nil {
		return err
	}
	report(what, path)
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	if err := checkOwn(cfg.StateDir); err != nil {
		return err
	}
	paths := cfg.Paths()
	if user == nil {
		if user, err = ownerOf(paths.Forwarder); err != nil {
			return err
		}
	}
	for _, f := range folders(cfg.StateDir, paths, *user) {
		what, err := settle(f)
		if err != nil {
			return fmt.Errorf("making folder %s: %w", f.path, cause(err))
		}
		report(what, f.path+"/")
	}
	for _, k := range []struct {
		private, public string
		owner           account
	}{{paths.AgentKey, paths.AgentPublicKey, self()}, {paths.ForwarderKey, paths.ForwarderPublicKey, *user}} {
		key, what, err := makePrivate(k.private, k.owner)
		if err != nil {
			return err
		}
		report(what, k.private)
		if what, err = makePublic(k.public, key.Public()); err != nil {
			return err
		}
		report(what, k.public)
	}
	fmt.Fprintf(c.App.Writer, nextSteps, path, configArgument(path), hookCommand(path), start(path, *user))
	return nil
}

const nextSteps = `
Next:
  1. Add a target to %s, then run: samba-pwsync%s check --connect
  2. Put this line into the [global] section of smb.conf:
         check password script = exec %s
  3. Restart Samba: a reload does not make its workers run a new script.
         systemctl restart samba-ad-dc
  4. Start the delivery:
%s`

// configArgument is what a command needs to find the same configuration.
func configArgument(path string) string {
	if path == config.DefaultFile {
		return ""
	}
	return " --config " + path
}

// hookCommand is what Samba is to run: the hook beside this program, with this configuration.
func hookCommand(path string) string {
	hook := "/usr/sbin/samba-pwsync-hook"
	if program, err := os.Executable(); err == nil && plain.MatchString(program) {
		if _, err := os.Stat(program + "-hook"); err == nil {
			hook = program + "-hook"
		}
	}
	return hook + configArgument(path)
}

// units are the names of the services that run the roles.
type units struct{ agent, forwarder string }

func (u units) String() string {
	if u.agent == u.forwarder {
		return u.agent
	}
	return u.agent + " and " + u.forwarder
}

func unitsFor(forwarder account) units {
	if forwarder == self() {
		return units{"samba-pwsync", "samba-pwsync"}
	}
	return units{"samba-pwsync-agent", "samba-pwsync-forwarder"}
}

// start is how the delivery is started, in lines. The units know the usual configuration only.
func start(path string, forwarder account) string {
	const indent = "         "
	u, serve := unitsFor(forwarder), indent+"samba-pwsync"+configArgument(path)+" serve"
	switch together := u.agent == u.forwarder; {
	case path == config.DefaultFile && together:
		return indent + "systemctl enable --now " + u.agent + "\n"
	case path == config.DefaultFile:
		return indent + "systemctl enable --now " + u.agent + " " + u.forwarder + "\n"
	case together:
		return serve + "\n"
	default:
		return serve + " --role agent\n" + serve + fmt.Sprintf(" --role forwarder    # as the user with uid %d\n", forwarder.uid)
	}
}

func createConfig(path string) (what string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("making folder for the configuration: %w", err)
	}
	// It holds no secret, only the names of files that do.
	switch err := durable.Create(path, docs.ExampleConfig, 0o644); {
	case errors.Is(err, fs.ErrExist):
		return kept, nil
	case err != nil:
		return "", fmt.Errorf("writing example configuration %s: %w", path, cause(err))
	}
	return made, nil
}

// makePrivate makes a private key where there is none. One that is there is never replaced: captures may be sealed to it.
func makePrivate(path string, owner account) (_ seal.PrivateKey, what string, err error) {
	what = kept
	key, err := seal.LoadPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		what = made
		key, err = createPrivate(path)
	}
	if err != nil {
		return seal.PrivateKey{}, "", err
	}
	given, err := give(path, owner)
	if err != nil {
		return seal.PrivateKey{}, "", fmt.Errorf("giving %s to the forwarder's user: %w", path, cause(err))
	}
	if given && what == kept {
		what = mended
	}
	return key, what, nil
}

func createPrivate(path string) (seal.PrivateKey, error) {
	key, err := seal.Generate()
	if err != nil {
		return seal.PrivateKey{}, err
	}
	text, err := key.MarshalPEM()
	if err != nil {
		return seal.PrivateKey{}, err
	}
	defer clear(text)
	if err := durable.Create(path, text, 0o600); err != nil {
		return seal.PrivateKey{}, fmt.Errorf("writing %s: %w", path, cause(err))
	}
	return key, nil
}

// makePublic writes the public key unless it is there. It comes after the private one and follows it, so the hook never
// seals to a key that nobody holds.
func makePublic(path string, key seal.PublicKey) (what string, err error) {
	text := key.MarshalPEM()
	there, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		what = made
	case err == nil && bytes.Equal(there, text):
		given, err := give(path, self()) // who owns it could put another key there
		if err != nil {
			return "", fmt.Errorf("taking back %s: %w", path, cause(err))
		}
		if given {
			return mended, nil
		}
		return kept, nil
	default:
		what = mended
	}
	if err := durable.Replace(path, text, 0o644); err != nil {
		return "", fmt.Errorf("writing %s: %w", path, cause(err))
	}
	return what, nil
}
