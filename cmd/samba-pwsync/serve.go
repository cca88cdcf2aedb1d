package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/samba-pwsync/samba-pwsync/internal/agent"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
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
		Action: runServe,
	}
}

func runServe(c *cli.Context) error {
	role := c.String("role")
	if !slices.Contains([]string{roleAll, roleAgent, roleForwarder}, role) {
		return usagef(c, "--role is %q, and has to be all, agent or forwarder", role)
	}
	level, ok := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}[c.String("log-level")]
	if !ok {
		return usagef(c, "--log-level is %q, and has to be debug, info, warn or error", c.String("log-level"))
	}
	cfg, err := config.Load(configPath(c))
	if err != nil {
		return err
	}
	log := event.New(slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level})))
	return serve(c.Context, cfg, role, log)
}

// part is one role, built and not yet running.
type part struct {
	socket string // where it answers questions
	run    func(context.Context) error
	status func() any
	drift  control.Stream // the forwarder's
	open   []io.Closer    // closed in reverse order, after run has returned
}

func (p *part) close() (err error) {
	for _, c := range slices.Backward(p.open) {
		err = errors.Join(err, c.Close())
	}
	return err
}

// serve is the wiring plan: it builds the parts in the order in which a password passes through them, then starts the loops.
//
//	spool/incoming → agent (proof, routes, watch) → spool/outgoing → forwarder (queue, ledger) → targets
func serve(ctx context.Context, cfg *config.Config, role string, log *event.Log) (err error) {
	if err := harden(); err != nil {
		return err
	}
	if len(cfg.Target) == 0 {
		return errNoTarget // an agent without targets would find every capture unwanted, and shred it
	}
	var parts []*part
	defer func() {
		for _, p := range parts {
			err = errors.Join(err, p.close())
		}
	}()
	for _, build := range []struct {
		role  string
		build func(*part, *config.Config, *event.Log) error
	}{{roleAgent, buildAgent}, {roleForwarder, buildForwarder}} {
		if role != roleAll && role != build.role {
			continue
		}
		p := &part{}
		parts = append(parts, p)
		if err := build.build(p, cfg, log); err != nil {
			return err
		}
	}

	log.Started(version, role, targetNames(cfg))
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range parts {
		group.Go(func() error { return p.run(ctx) })
		group.Go(func() error { answer(ctx, p, log); return nil })
	}
	group.Go(func() error { return tellSystemd(ctx, parts) })
	return group.Wait()
}

func buildAgent(p *part, cfg *config.Config, log *event.Log) error {
	paths := cfg.Paths()
	lock, err := lockFolder(paths.Agent)
	if err != nil {
		return err
	}
	p.open = append(p.open, lock)
	key, err := seal.LoadPrivate(paths.AgentKey)
	if err != nil {
		return err
	}
	routes, err := newRoutes(cfg)
	if err != nil {
		return &codedError{exitUsage, err}
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("reading host name: %w", err)
	}
	a, err := agent.New(agent.Options{
		Incoming:       paths.Incoming,
		Outgoing:       paths.Outgoing,
		StateDir:       paths.Agent,
		Key:            key,
		Dial:           func(ctx context.Context) (agent.Directory, error) { return directory.Dial(ctx, cfg.Directory.URL) },
		Routes:         routes,
		ConfirmTimeout: cfg.Directory.ConfirmTimeout,
		ByKey:          cfg.Directory.Proof != config.NTHash,
		Peers:          cfg.Directory.Peers,
		Settle:         cfg.Directory.Settle,
		Host:           host,
		Log:            log,
	})
	if err != nil {
		return err
	}
	p.socket, p.run, p.status = paths.AgentSocket, a.Run, func() any { return a.Status() }
	return nil
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

		Protected: cfg.Directory.Protected == config.Include,
	})
}

func buildForwarder(p *part, cfg *config.Config, log *event.Log) error {
	paths := cfg.Paths()
	lock, err := lockFolder(paths.Forwarder)
	if err != nil {
		return err
	}
	p.open = append(p.open, lock)
	key, err := seal.LoadPrivate(paths.ForwarderKey)
	if err != nil {
		return err
	}
	q, err := queue.Open(paths.Queue, log)
	if err != nil {
		return err
	}
	p.open = append(p.open, q)
	l, err := ledger.Open(paths.Ledger, log)
	if err != nil {
		return err
	}
	p.open = append(p.open, l)
	var targets []deliver.Target
	for _, name := range targetNames(cfg) {
		t, err := openTarget(name, cfg.Target[name])
		if err != nil {
			return &codedError{exitUsage, err}
		}
		p.open = append(p.open, t)
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
	if err != nil {
		return err
	}
	p.socket, p.run, p.status = paths.ForwarderSocket, f.Run, func() any { return f.Status() }
	p.drift = func(tell func(any) error) error { return f.Drift(func(d deliver.Drift) error { return tell(d) }) }
	return nil
}

// answer serves a part's answers until ctx ends. A socket that cannot be served is reported, and does not stop deliveries.
func answer(ctx context.Context, p *part, log *event.Log) {
	answers := map[string]func() (any, error){"/status": func() (any, error) { return p.status(), nil }}
	if p.drift != nil {
		answers["/drift"] = func() (any, error) { return p.drift, nil }
	}
	if err := control.Serve(ctx, p.socket, answers); err != nil {
		log.ControlTrouble(err)
	}
}
