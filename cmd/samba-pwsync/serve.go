package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/samba-pwsync/samba-pwsync/internal/agent"
	"github.com/samba-pwsync/samba-pwsync/internal/ballast"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/keyring"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
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
	keys   keeper
	disk   *ballast.Keeper
	why    func(ctx context.Context, account string) (any, error)
	more   map[string]control.Answer // what only this role answers
	open   []io.Closer               // closed in reverse order, after run has returned
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
//	word files     → agent (compiled)             → the hook
//	spool/refusals → agent (counts, notices)      → spool/outgoing → forwarder (courier)       → people
func serve(ctx context.Context, cfg *config.Config, role string, log *event.Log) (err error) {
	harden()
	debug.SetGCPercent(50) // a hundred thousand changes may wait for days: the memory beside theirs is not to be as much again
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
		p, err := whenDiskAllows(ctx, build.role, log, func(p *part) error { return build.build(p, cfg, log) })
		if p != nil {
			parts = append(parts, p)
		}
		if err != nil || p == nil {
			return err
		}
	}

	log.Started(version, role, targetNames(cfg))
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range parts {
		if listener, err := control.Listen(p.socket); err != nil { // before systemd hears that the service is ready: who asks then is answered
			log.ControlTrouble(err)
		} else {
			group.Go(func() error { answer(ctx, listener, p, log); return nil })
		}
		group.Go(func() error { return p.run(ctx) })
		group.Go(func() error { p.keys.tend(ctx); return nil })
		group.Go(func() error { return p.disk.Run(ctx) })
	}
	group.Go(func() error { return tellSystemd(ctx, parts) })
	group.Go(func() error { forget(ctx, parts); return nil })
	return group.Wait()
}

// lookEvery is how often it is tried whether the disk lets a part start.
const lookEvery = 5 * time.Second

// whenDiskAllows builds a part. As long as the disk is what keeps it from that, it waits: to end, and be started again every few seconds, would
// help nobody. It returns nil if ctx ends meanwhile.
func whenDiskAllows(ctx context.Context, role string, log *event.Log, build func(*part) error) (*part, error) {
	for said := false; ; said = true {
		p := &part{}
		err := build(p)
		if !ballast.IsTrouble(err) {
			return p, err
		}
		_ = p.close() // what it has opened so far; the error says why
		if !said {
			log.WaitingForDisk(role, err)
		}
		tellSystemdToWait(err)
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(lookEvery):
		}
	}
}

// keepBallast looks at the disk before anything else of a part does: if it is full, there may be room after that.
func keepBallast(p *part, dir string, cfg *config.Config, log *event.Log) {
	p.disk = ballast.New(ballast.Options{Dir: dir, Size: int64(cfg.Ballast) << 20, Log: log})
	p.disk.Look()
}

func buildAgent(p *part, cfg *config.Config, log *event.Log) error {
	paths := cfg.Paths()
	lock, err := lockFolder(paths.Agent)
	if err != nil {
		return err
	}
	p.open = append(p.open, lock)
	keepBallast(p, paths.Agent, cfg, log)
	// An installation that was made before there was this folder lacks it. Where it cannot be made, what is to lie in it says so.
	_ = durable.Folder(paths.Policy, 0o700)
	keys, err := keyring.Open(agentKeys(paths))
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
		Refusals:       paths.Refusals,
		Outgoing:       paths.Outgoing,
		StateDir:       paths.Agent,
		Key:            keys,
		Dial:           func(ctx context.Context) (agent.Directory, error) { return directory.Dial(ctx, cfg.Directory.URL) },
		DialProofs:     func(ctx context.Context) (agent.Directory, error) { return dialProofs(ctx, cfg.Directory.URL) },
		Routes:         routes,
		ConfirmTimeout: cfg.Directory.ConfirmTimeout,
		ByKey:          cfg.Directory.Proof != config.NTHash,
		Peers:          cfg.Directory.Peers,
		Settle:         cfg.Directory.Settle,
		Notify:         whomToTell(cfg.Notify),
		Host:           host,
		Log:            log,
		Index:          paths.PolicyIndex,
		Rules:          rulesOf(cfg),
	})
	if err != nil {
		return err
	}
	p.socket, p.status = paths.AgentSocket, func() any { return agentStatus{a.Status(), keys.Status(), p.disk.Status()} }
	p.why = func(ctx context.Context, account string) (any, error) { return a.Why(ctx, account), nil }
	p.keys = keeper{keys, roleAgent, cfg.Directory.ConfirmTimeout, a.Needs, log}
	p.run = func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return a.Run(ctx) })
		group.Go(func() error { keepWords(ctx, cfg, log); return nil })
		return group.Wait()
	}
	return nil
}

// lanes is how many connections proofs are asked over: as many as Samba has LDAP processes, unless somebody configured it.
const lanes = 4

// dialProofs connects so that no proof waits for one of Samba's LDAP processes that waits to write itself. With fewer connections than asked for, proofs
// are slower while many passwords are changed at once, and no more than that.
func dialProofs(ctx context.Context, url string) (agent.Directory, error) {
	dc, err := directory.Dial(ctx, url)
	if err != nil {
		return nil, err
	}
	_ = dc.Widen(ctx, lanes)
	return dc, nil
}

func newRoutes(cfg *config.Config) (*route.Table, error) {
	var targets []route.Target
	for _, name := range targetNames(cfg) {
		t := cfg.Target[name]
		targets = append(targets, route.Target{
			Name: name, UserAttribute: t.User, UserDomain: t.UserDomain, Filter: t.Filter,
			Temporary: route.Handling(t.Temporary), Disabled: route.Handling(t.Disabled),
		})
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
	keepBallast(p, paths.Forwarder, cfg, log)
	keys, err := keyring.Open(forwarderKeys(paths))
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
		Key:       keys,
		Queue:     q,
		Ledger:    l,
		Lost:      l.Forgot(),
		Targets:   targets,
		SecretTTL: cfg.Directory.SecretTTL,
		Log:       log,
	})
	if err != nil {
		return err
	}
	courier, err := newCourier(cfg, log)
	if err != nil {
		return err
	}
	p.socket = paths.ForwarderSocket
	p.keys = keeper{keys, roleForwarder, cfg.Directory.SecretTTL, f.Needs, log}
	p.run = func(ctx context.Context) error { return beside(ctx, courier.Run, f.Run) }
	p.status = func() any {
		s := forwarderStatus{Status: f.Status(), Keys: keys.Status(), Disk: p.disk.Status()}
		if cfg.Notify.On() {
			notices := courier.Status()
			s.Notices = &notices
		}
		return s
	}
	p.why = func(_ context.Context, account string) (any, error) { return f.Why(account) }
	p.more = map[string]control.Answer{
		"/drift": func(url.Values) (any, error) {
			return control.Stream(func(tell func(any) error) error { return f.Drift(func(d deliver.Drift) error { return tell(d) }) }), nil
		},
		"/queue": func(about url.Values) (any, error) {
			return control.Stream(func(tell func(any) error) error {
				return f.Queue(about.Get("target"), func(q deliver.Queued) error { return tell(q) })
			}), nil
		},
		"POST /queue/retry": func(about url.Values) (any, error) { return f.Retry(about.Get("account"), about.Get("target")) },
		"POST /queue/drop":  func(about url.Values) (any, error) { return f.Drop(about.Get("account"), about.Get("target")) },
	}
	return nil
}

// tellingGrace is for how long the end waits for a mail that is being sent.
const tellingGrace = 5 * time.Second

// beside runs the main thing, and beside it another of less weight, which ends after it. If that does not, because a library under it hangs, the
// process ends without it.
func beside(ctx context.Context, other func(context.Context), main func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		other(ctx)
	}()
	err := main(ctx)
	cancel()
	select {
	case <-ended:
	case <-time.After(tellingGrace):
	}
	return err
}

// whyTimeout is how long the directory has for the questions of `why`, which are a handful; control.Get waits a little longer.
const whyTimeout = 5 * time.Second

// answer serves a part's answers until ctx ends. A socket that cannot be served is reported, and does not stop deliveries.
func answer(ctx context.Context, listener net.Listener, p *part, log *event.Log) {
	answers := map[string]control.Answer{
		"/status": func(url.Values) (any, error) { return p.status(), nil },
		"/why": func(about url.Values) (any, error) {
			ctx, cancel := context.WithTimeout(ctx, whyTimeout)
			defer cancel()
			return p.why(ctx, about.Get("account"))
		},
	}
	maps.Copy(answers, p.more)
	if err := control.Serve(ctx, listener, answers); err != nil {
		log.ControlTrouble(err)
	}
}
