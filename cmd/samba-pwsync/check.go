package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "check configuration, keys and folders; with --connect also the directory and the targets",
		Description: "Changes nothing anywhere. Exit code 0: fine, 1: something does not work, 2: the configuration is wrong, " +
			"3: it works, and something needs attention.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "connect", Usage: "also ask the directory and each target whether they would work now"},
		},
		Before: noArguments,
		Action: runCheck,
	}
}

// checklist prints each finding and keeps the gravest for the exit code.
type checklist struct {
	out  io.Writer
	code int
}

func (l *checklist) ok(format string, args ...any) {
	fmt.Fprintf(l.out, "ok         %s\n", fmt.Sprintf(format, args...))
}

func (l *checklist) attention(format string, args ...any) {
	fmt.Fprintf(l.out, "attention  %s\n", fmt.Sprintf(format, args...))
	if l.code == exitOK {
		l.code = exitAttention
	}
}

// fault reports what is wrong, with hints, and the exit code that it means. The configuration's faults win over the others.
func (l *checklist) fault(code int, err error) {
	fmt.Fprintf(l.out, "FAULT      %v\n", err)
	for _, hint := range hints(err) {
		fmt.Fprintf(l.out, "           hint: %s\n", hint)
	}
	if l.code != exitUsage {
		l.code = code
	}
}

func runCheck(c *cli.Context) error {
	cfg, err := config.Load(configPath(c))
	if err != nil {
		return err
	}
	list := &checklist{out: c.App.Writer}
	checkConfig(list, cfg, configPath(c))
	checkState(list, cfg)
	if c.Bool("connect") {
		checkDirectory(c.Context, list, cfg)
		checkTargets(c.Context, list, cfg)
	}
	if list.code != exitOK {
		return &codedError{code: list.code}
	}
	return nil
}

func checkConfig(list *checklist, cfg *config.Config, path string) {
	before := list.code
	for _, fault := range append(cfg.CheckFiles(), filterFaults(cfg, path)...) {
		list.fault(exitUsage, errors.New(fault.String()))
	}
	if len(cfg.Target) == 0 {
		list.fault(exitUsage, errNoTarget)
	}
	if list.code == before {
		list.ok("configuration %s", path)
	}
}

// filterFaults judges the LDAP filters as the directory would. It stands here because the hook reads the configuration too, and
// must not pay for an LDAP library.
func filterFaults(cfg *config.Config, path string) []config.Fault {
	filters := map[string]string{"directory.filter": cfg.Directory.Filter, "directory.exclude": cfg.Directory.Exclude}
	for name, t := range cfg.Target {
		filters["target."+name+".filter"] = t.Filter
	}
	var faults []config.Fault
	for key, filter := range filters {
		if filter == "" {
			continue
		}
		if err := directory.ValidateFilter(filter); err != nil {
			faults = append(faults, config.Fault{File: path, Key: key, Problem: err.Error(),
				Remedy: "write an LDAP filter (RFC 4515), such as (memberOf=CN=Cloud,OU=Groups,DC=example,DC=com)"})
		}
	}
	return faults
}

func checkState(list *checklist, cfg *config.Config) {
	paths, before := cfg.Paths(), list.code
	checkKey(list, paths.AgentKey, paths.AgentPublicKey)
	checkKey(list, paths.ForwarderKey, paths.ForwarderPublicKey)
	if list.code == before && list.code != exitUsage {
		list.ok("state folder %s and keys", cfg.StateDir)
	}
}

func checkKey(list *checklist, private, public string) {
	key, errPrivate := seal.LoadPrivate(private)
	pub, errPublic := seal.LoadPublic(public)
	if err := errors.Join(errPrivate, errPublic); err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // which the configuration's files were checked for
			list.fault(exitFailed, err)
		}
		return
	}
	if pub.ID() != key.Public().ID() {
		list.fault(exitFailed, fmt.Errorf("%s does not belong to %s: captures sealed to it could never be opened; run samba-pwsync init, which writes the right one", public, private))
	}
}

func checkDirectory(ctx context.Context, list *checklist, cfg *config.Config) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	dc, err := directory.Dial(ctx, cfg.Directory.URL)
	if err != nil {
		list.fault(exitFailed, err)
		return
	}
	defer dc.Close()
	root, err := dc.Root(ctx)
	if err != nil {
		list.fault(exitFailed, err)
		return
	}
	list.ok("directory %s, domain %s, over %s", root.DNSHostName, root.DomainName, cfg.Directory.URL)

	settings, err := dc.PasswordSettings(ctx)
	if err != nil {
		list.fault(exitFailed, err)
		return
	}
	blind := false
	if !settings.Complexity {
		blind = true
		list.attention("the domain's password complexity is off: Samba does not run the hook; samba-tool domain passwordsettings set --complexity=on")
	}
	for _, pso := range settings.FineGrained {
		if !pso.Complexity {
			blind = true
			list.attention("complexity is off in the fine-grained policy %s: Samba does not run the hook for its users; samba-tool domain passwordsettings pso set %q --complexity=on", pso.Name, pso.Name)
		}
	}
	if !blind {
		list.ok("password complexity is on: Samba runs the hook")
	}
	if cfg.Policy.Mode == config.Enforce && cfg.Policy.MaxLength < settings.MinLength {
		list.attention("no password can be set: the domain asks for %d characters at least, [policy] max_length allows %d at most", settings.MinLength, cfg.Policy.MaxLength)
	}
}

func checkTargets(ctx context.Context, list *checklist, cfg *config.Config) {
	for _, name := range targetNames(cfg) {
		t, err := newTarget(cfg.Target[name])
		if err != nil {
			list.fault(exitUsage, fmt.Errorf("opening target %s: %w", name, err))
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		err = t.Check(ctx)
		cancel()
		_ = t.Close()
		if err != nil {
			list.fault(exitFailed, fmt.Errorf("target %s: %s: %w", name, target.Classify(err), err))
			continue
		}
		list.ok("target %s can set passwords", name)
	}
}
