package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/samba-pwsync/samba-pwsync/internal/agent"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/internal/target/entra"
	"github.com/samba-pwsync/samba-pwsync/internal/target/google"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

const (
	roleAll       = "all"
	roleAgent     = "agent"
	roleForwarder = "forwarder"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "prove captured passwords and deliver them, until stopped",
		Description: "Runs in the foreground and logs to standard error. The agent needs root, the forwarder does not: " +
			"they can run as two services, which is what --role is for.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "role", Value: roleAll, Usage: "`ROLE` to run: all, agent or forwarder"},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "`LEVEL` of the log: debug, info, warn or error"},
		},
		Before: noArguments,
		Action: func(c *cli.Context) error {
			role := c.String("role")
			if !slices.Contains([]string{roleAll, roleAgent, roleForwarder}, role) {
				return usagef("--role is %q, and has to be all, agent or forwarder", role)
			}
			var level slog.Level
			if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
				return usagef("--log-level is %q, and has to be debug, info, warn or error", c.String("log-level"))
			}
			cfg, err := config.Load(configPath(c))
			if err != nil {
				return err
			}
			return serve(c.Context, cfg, role, newLog(c.App.ErrWriter, level))
		},
	}
}

func newLog(w io.Writer, level slog.Level) *event.Log {
	return event.New(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})))
}

// serve is the wiring plan: it builds the parts in the order in which a password passes through them, then starts the loops.
//
//	spool/incoming → agent (proof, routes, watch) → spool/outgoing → forwarder (queue, ledger) → targets
func serve(ctx context.Context, cfg *config.Config, role string, log *event.Log) (err error) {
	if err := harden(); err != nil {
		return err
	}
	paths := cfg.Paths()
	var loops []func(context.Context) error

	if role != roleForwarder {
		unlock, err := lock(paths.Agent)
		if err != nil {
			return err
		}
		defer unlock()
		a, err := newAgent(cfg, paths, log)
		if err != nil {
			return err
		}
		loops = append(loops, a.Run, answer(paths.AgentSocket, log, func() any { return a.Status() }))
	}

	if role != roleAgent {
		unlock, err := lock(paths.Forwarder)
		if err != nil {
			return err
		}
		defer unlock()
		f, closeAll, err := newForwarder(cfg, paths, log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeAll()) }()
		loops = append(loops, f.Run, answer(paths.ForwarderSocket, log, func() any { return f.Status() }))
	}

	group, ctx := errgroup.WithContext(ctx)
	for _, loop := range loops {
		group.Go(func() error { return loop(ctx) })
	}
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady) // without systemd there is nobody to tell
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func newAgent(cfg *config.Config, paths config.Paths, log *event.Log) (*agent.Agent, error) {
	key, err := seal.LoadPrivate(paths.AgentKey)
	if err != nil {
		return nil, err
	}
	routes, err := newRoutes(cfg)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("reading host name: %w", err)
	}
	return agent.New(agent.Options{
		Incoming:       paths.Incoming,
		Outgoing:       paths.Outgoing,
		StateDir:       paths.Agent,
		Key:            key,
		Dial:           func(ctx context.Context) (agent.Directory, error) { return directory.Dial(ctx, cfg.Directory.URL) },
		Routes:         routes,
		ConfirmTimeout: cfg.Directory.ConfirmTimeout,
		Host:           host,
		Log:            log,
	})
}

func newRoutes(cfg *config.Config) (*route.Table, error) {
	var targets []route.Target
	for _, name := range targetNames(cfg) {
		t := cfg.Target[name]
		targets = append(targets, route.Target{Name: name, UserAttribute: t.User, UserDomain: t.UserDomain, Filter: t.Filter})
	}
	return route.New(targets, route.Scope{
		BaseDN:  cfg.Directory.BaseDN,
		Filter:  cfg.Directory.Filter,
		Exclude: cfg.Directory.Exclude,
	})
}

func newForwarder(cfg *config.Config, paths config.Paths, log *event.Log) (_ *deliver.Forwarder, closeAll func() error, err error) {
	var opened []io.Closer
	closeOpened := func() (err error) {
		for _, c := range slices.Backward(opened) {
			err = errors.Join(err, c.Close())
		}
		return err
	}
	defer func() {
		if err != nil {
			_ = closeOpened()
		}
	}()

	key, err := seal.LoadPrivate(paths.ForwarderKey)
	if err != nil {
		return nil, nil, err
	}
	q, err := queue.Open(paths.Queue, log)
	if err != nil {
		return nil, nil, err
	}
	opened = append(opened, q)
	l, err := ledger.Open(paths.Ledger, log)
	if err != nil {
		return nil, nil, err
	}
	opened = append(opened, l)
	if len(cfg.Target) == 0 {
		return nil, nil, &codedError{exitUsage, errNoTarget}
	}
	var targets []deliver.Target
	for _, name := range targetNames(cfg) {
		t, err := newTarget(cfg.Target[name])
		if err != nil {
			return nil, nil, &codedError{exitUsage, fmt.Errorf("opening target %s: %w", name, err)}
		}
		opened = append(opened, t)
		targets = append(targets, deliver.Target{Name: name, Target: t, Rate: rate(cfg.Target[name])})
	}
	f, err := deliver.New(deliver.Options{
		Outgoing:  paths.Outgoing,
		Key:       key,
		Queue:     q,
		Ledger:    l,
		Targets:   targets,
		SecretTTL: cfg.Directory.SecretTTL,
		Log:       log,
	})
	return f, closeOpened, err
}

// newTarget is the one list of target types.
func newTarget(t config.Target) (target.Target, error) {
	switch t.Type {
	case config.TypeGoogle:
		return google.New(google.Options{
			CredentialsFile: t.Google.CredentialsFile,
			Subject:         t.Google.Subject,
			Endpoint:        t.Google.Endpoint,
			PasswordFormat:  t.Google.PasswordFormat,
			CAFile:          t.Google.CAFile,
		})
	case config.TypeEntra:
		return entra.New(entra.Options{
			TenantID:              t.Entra.TenantID,
			ClientID:              t.Entra.ClientID,
			ClientSecretFile:      t.Entra.ClientSecretFile,
			ClientCertificateFile: t.Entra.CertificateFile,
			AuthorityURL:          t.Entra.AuthorityURL,
			GraphURL:              t.Entra.GraphURL,
			CAFile:                t.Entra.CAFile,
		})
	}
	return nil, fmt.Errorf("type %q is unknown", t.Type)
}

// rate is the target's own or its type's default, in changes a second: half of what the vendors allow by default (Google: 2,400
// requests a minute and user; Graph: 3,000 writes in 150 s), so that other tools of the tenant have room.
func rate(t config.Target) float64 {
	if t.Rate > 0 {
		return t.Rate
	}
	if t.Type == config.TypeGoogle {
		return 20
	}
	return 10
}

func targetNames(cfg *config.Config) []string {
	var names []string
	for name := range cfg.Target {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// answer serves a role's status. A socket that cannot be served is reported, and does not stop deliveries.
func answer(socket string, log *event.Log, status func() any) func(context.Context) error {
	return func(ctx context.Context) error {
		err := control.Serve(ctx, socket, map[string]func() (any, error){
			"/status": func() (any, error) { return status(), nil },
		})
		if err != nil {
			log.ControlTrouble(err)
		}
		return nil
	}
}

// lock makes this process the only one of its role: the folder's lock goes away with the process.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking state folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking state folder: another serve runs on %s", dir)
		}
		return nil, fmt.Errorf("locking state folder: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// harden keeps what the process holds in memory inside it: no core dump, no ptrace by its own user, no SDK that logs requests.
func harden() error {
	syscall.Umask(0o077)
	for _, name := range []string{"GOOGLE_SDK_GO_LOGGING_LEVEL", "AZURE_SDK_GO_LOGGING"} {
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("hardening: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hardening: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("hardening: %w", err)
	}
	return nil
}
