// Package agent proves captures and follows the directory, on a domain controller.
//
// What: a capture in spool/incoming names an account and holds a closed proof box. The agent opens that box, looks the account
// up until the directory holds the captured password (internal/proof), asks which targets want the account (internal/route) and
// hands the change, secret box untouched, to spool/outgoing. Beside that the watch passes on each account's password stamp, and
// until when it has seen them all: by that the forwarder knows what is no longer current.
//
// Why: what the hook was shown may be refused by Samba afterwards, or be anybody's invention. The process that can ask the
// directory sees no password; the process that sees passwords cannot ask. Only where the directory stores no NT hash, and the hook
// was told so ([directory] proof = "aes256"), a proof box holds the password, and internal/proof makes a key of it.
//
// How: link.go holds the connection to the DC, intake.go reads captures, docket decides whose turn it is, prove.go asks and acts
// on the answer, watch follows the stamps, and followup asks about those of which no capture came; refusals counts what the policy
// refused, and census keeps for the hook which policy each account has and which targets want it. A capture's file stays until its
// fate is sealed, and each step may be repeated after a crash: nothing is remembered but the files, and where the watch stood.
//
// Whom it trusts: the DC behind Dial, and root. A capture's header is a claim: it chooses whom to ask about, never the answer.
// Anybody in the domain can have captures made, with any name and as many as he likes: they cost at most a search each time that
// they are looked at, and delay no other account's by more than the watch takes to see it change.
//
// What it does not solve: a name that was given to another account before the capture was looked at leads to that other one, and
// the capture is shredded, and the change is not delivered.
package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/agent/census"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/docket"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/floods"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/followup"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/notices"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/refusals"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/watch"
	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/internal/refusal"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/internal/spool/notify"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

// DefaultConfirmTimeout is how long a capture may wait for its proof. Samba gives its script 10 s; the rest is for slow disks.
const DefaultConfirmTimeout = 2 * time.Minute

// Directory is a connection to the DC; *directory.DC is one. Its methods are called concurrently. After
// directory.ErrUnavailable it is closed and dialled anew.
type Directory interface {
	route.Domain
	watch.Directory
	followup.Directory
	census.Directory
	AccountByName(ctx context.Context, sAMAccountName string, attrs []string) (directory.Account, error)
	Close() error
}

// Options are what an Agent needs. All fields but DialProofs, ConfirmTimeout, ByKey, Peers, Settle, Notify, Index and Rules must be set.
type Options struct {
	Incoming       string    // folder of captures
	Refusals       string    // file in which the hook notes what the policy refused
	Outgoing       string    // folder of changes, sightings and the mark
	StateDir       string    // the agent's own folder
	Key            seal.Keys // opens proof boxes
	Dial           func(context.Context) (Directory, error)
	DialProofs     func(context.Context) (Directory, error) // nil: Dial; proofs are in more of a hurry than the rest
	Routes         *route.Table
	ConfirmTimeout time.Duration // 0: DefaultConfirmTimeout
	ByKey          bool          // captures may be proven by the AES256 key
	Host           string        // names this agent in the mark
	Peers          []string      // names of the DCs that have forwarders of their own; may be empty
	Settle         bool          // changes are delivered once more, when the peers have heard of them
	Notify         *Notify       // nil: nobody is told of refused passwords
	Log            *event.Log

	Index string                       // file in which the hook finds each account's policy and targets; empty: none is kept
	Rules func() (census.Rules, error) // what decides about it; see census.Options
}

// Notify is who is told that a password was refused, and how often: see notices.Options.
type Notify struct {
	Address      string
	Collect      time.Duration
	AccountPause time.Duration
	Hourly       int
	Audited      bool
}

// Agent is made by New and runs once.
type Agent struct {
	incoming *spool.Spool
	pruned   time.Time // when it was last looked which captures are gone; for takeIn
	outgoing *spool.Spool
	key      seal.Keys
	routes   *route.Table
	log      *event.Log
	link     *link // for proofs, so that none waits for a pass of the watch: the DC works off one connection's searches in turn
	docket   *docket.Docket
	watched  *link // for the watch
	watch    *watch.Watch
	follow   *followup.Followup
	handed   *handed
	refused  *refusals.Book
	floods   *floods.Book
	counted  *link            // for the census, so that the watch does not wait for filters that take long
	census   *census.Census   // nil: none
	notices  *notices.Notices // nil: nobody is told

	stuckMu sync.Mutex
	stuck   map[string]bool // captures that make no sense, and that the disk does not let be set aside
}

// New opens the folders. Nothing runs yet.
func New(o Options) (*Agent, error) {
	if o.ConfirmTimeout == 0 {
		o.ConfirmTimeout = DefaultConfirmTimeout
	}
	incoming, err := spool.Open(o.Incoming, capture.Suffix)
	if err != nil {
		return nil, fmt.Errorf("opening incoming: %w", err)
	}
	outgoing, err := spool.Open(o.Outgoing, change.Suffix)
	if err != nil {
		return nil, fmt.Errorf("opening outgoing: %w", err)
	}
	sightings, err := spool.Open(o.Outgoing, change.SightingsSuffix)
	if err != nil {
		return nil, fmt.Errorf("opening outgoing: %w", err)
	}
	if o.DialProofs == nil {
		o.DialProofs = o.Dial
	}
	asked, err := spool.Open(o.Outgoing, change.AskSuffix)
	if err != nil {
		return nil, fmt.Errorf("opening outgoing: %w", err)
	}
	d, handed := docket.New(o.ConfirmTimeout), newHanded()
	var awaited []string // peers that must have heard of a change
	if o.Settle {
		awaited = o.Peers
	}
	follow, err := followup.New(followup.Options{
		Spool:  sightings,
		File:   filepath.Join(o.StateDir, "followup.json"),
		Delay:  o.ConfirmTimeout,
		Routes: o.Routes,
		Peers:  o.Peers,
		ByKey:  o.ByKey,
		Handed: handed.targets,
		Log:    o.Log,
	})
	if err != nil {
		return nil, err
	}
	tell, err := newNotices(o)
	if err != nil {
		return nil, err
	}
	flooded := floods.New(o.Log)
	add := func(records []refusal.Record) {
		for _, r := range records {
			flooded.Came(r.Account, !r.Probe)
		}
		if tell != nil {
			tell.Add(records)
		}
	}
	a := &Agent{
		stuck:    map[string]bool{},
		notices:  tell,
		floods:   flooded,
		incoming: incoming,
		outgoing: outgoing,
		key:      o.Key,
		routes:   o.Routes,
		log:      o.Log,
		link:     newLink(o.DialProofs, o.Log),
		docket:   d,
		handed:   handed,
		follow:   follow,
		watched:  newLink(o.Dial, nil),
		watch: watch.New(watch.Options{
			Spool:  sightings,
			Asked:  asked,
			File:   filepath.Join(o.StateDir, "watch.json"),
			Host:   o.Host,
			Lag:    o.ConfirmTimeout,
			Peers:  awaited,
			Docket: d,
			Follow: follow,
			Log:    o.Log,
		}),
		refused: refusals.Open(refusals.Options{
			File:  o.Refusals,
			State: filepath.Join(o.StateDir, "refusals.json"),
			Tell:  add,
			Log:   o.Log,
		}),
	}
	if o.Index != "" {
		a.counted = newLink(o.Dial, nil)
		a.census = census.New(census.Options{File: o.Index, Rules: o.Rules, Routes: o.Routes, WentBack: a.watch.WentBack, Log: o.Log})
	}
	return a, nil
}

// newNotices returns nil if nobody is to be told.
func newNotices(o Options) (*notices.Notices, error) {
	if o.Notify == nil {
		return nil, nil
	}
	out, err := spool.Open(o.Outgoing, change.NoticeSuffix)
	if err != nil {
		return nil, fmt.Errorf("opening outgoing: %w", err)
	}
	return notices.New(notices.Options{
		Spool:        out,
		Routes:       o.Routes,
		Address:      o.Notify.Address,
		Collect:      o.Notify.Collect,
		AccountPause: o.Notify.AccountPause,
		Hourly:       o.Notify.Hourly,
		Audited:      o.Notify.Audited,
		Log:          o.Log,
	}), nil
}

const (
	// scanEvery is how often incoming is read when nothing announces a new file: notification is only a hint.
	scanEvery = 2 * time.Second
	// watchEvery is the time between two passes of the watch: one in which nothing moved costs the DC a look at two numbers, others
	// cost it in proportion to what moved. Where one takes long all the same (thousands of changes at once, a scan of a large
	// domain, a DC or a disk that is slow), the next is watchShare times as far away as it took, up to watchSeldom, which is well
	// below the minute after which the forwarder takes the watch for stale.
	watchEvery  = time.Second
	watchShare  = 10
	watchSeldom = 20 * time.Second
	// followEvery is the time between two batches of accounts that are asked about.
	followEvery = time.Second
	// countEvery is the time between two looks at what the hook noted as refused.
	countEvery = 2 * time.Second
	// troubleEvery is the time between two attempts of what fails.
	troubleEvery = 3 * time.Second
	// lookEvery is how often it is asked whether it is time for a look at all accounts.
	lookEvery = time.Second
)

// Run works until ctx ends, and then returns nil; captures that still wait stay in their folder. An error means that it could
// not start.
func (a *Agent) Run(ctx context.Context) error {
	ticks, err := notify.Dir(ctx, a.incoming.Dir(), scanEvery)
	if err != nil {
		return fmt.Errorf("starting agent: %w", err)
	}
	a.run(ctx, ticks)
	return nil
}

func (a *Agent) run(ctx context.Context, ticks <-chan struct{}) {
	var loops sync.WaitGroup
	loops.Go(func() { a.link.keep(ctx) })
	loops.Go(func() { a.watched.keep(ctx) })
	loops.Go(func() { a.takeIn(ctx, ticks) })
	loops.Go(func() { a.prove(ctx) })
	loops.Go(func() { a.keepWatch(ctx) })
	loops.Go(func() { a.followUp(ctx) })
	loops.Go(func() { a.lookAtAll(ctx) })
	loops.Go(func() { a.countRefusals(ctx) })
	if a.notices != nil {
		loops.Go(func() { a.tellPeople(ctx) })
	}
	if a.census != nil {
		loops.Go(func() { a.counted.keep(ctx) })
		loops.Go(func() { a.keepIndex(ctx) })
		defer a.counted.close()
	}
	loops.Wait()
	a.watch.Close()
	a.link.close()
	a.watched.close()
}

// keepWatch has the watch make its passes, while the DC answers, until ctx ends. While it does not, no mark is written, and the
// forwarder sees the watch grow stale.
func (a *Agent) keepWatch(ctx context.Context) {
	a.repeat(ctx, "watching the directory", restAfter, func(dc Directory) error { return a.watch.Pass(ctx, dc) })
}

// followUp asks about the accounts that the watch met, a batch each second.
func (a *Agent) followUp(ctx context.Context) {
	rest := func(took time.Duration) time.Duration { return max(0, followEvery-took) }
	a.repeat(ctx, "asking who wants which account", rest, func(dc Directory) error { return a.follow.Ask(ctx, dc) })
}

// lookAtAll has the followup take in all accounts when it is time for that, once the watch has begun: its first pass may read them all.
func (a *Agent) lookAtAll(ctx context.Context) {
	rest := func(time.Duration) time.Duration { return lookEvery }
	a.repeat(ctx, "looking at all accounts", rest, func(dc Directory) error {
		if a.watch.Status().Mark.IsZero() {
			return nil
		}
		return a.follow.Look(ctx, dc)
	})
}

// countRefusals counts what the hook noted as refused, until ctx ends. Nobody waits for it, so it needs no notification; and somebody
// who has Samba ask again and again does not make it busier.
func (a *Agent) countRefusals(ctx context.Context) {
	healthy := true
	for {
		err := a.refused.Look()
		if err != nil && healthy {
			a.log.AgentTrouble("counting what the policy refused", err)
		}
		healthy = err == nil
		a.floods.Look()
		a.log.Summarise()
		select {
		case <-ctx.Done():
			return
		case <-time.After(countEvery):
		}
	}
}

// tellPeople hands over who is to be told that a password was refused.
func (a *Agent) tellPeople(ctx context.Context) {
	rest := func(time.Duration) time.Duration { return countEvery }
	a.repeat(ctx, "looking up who is to be told that a password was refused", rest, func(dc Directory) error { return a.notices.Send(ctx, dc) })
}

// keepIndex has the census look at what has changed. A filter that the DC does not answer in time costs that connection and no other.
func (a *Agent) keepIndex(ctx context.Context) {
	for {
		dc, err := a.counted.get(ctx)
		if err != nil {
			return
		}
		began := time.Now()
		if err := a.census.Pass(ctx, dc); errors.Is(err, directory.ErrUnavailable) {
			a.counted.lost(dc, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(census.Every - min(time.Since(began), census.Every)):
		}
	}
}

// repeat takes a step, again and again, while the DC answers on the watch's connection, until ctx ends. One that failed (the
// disk is full) rests longer: it may have asked the DC a lot before.
func (a *Agent) repeat(ctx context.Context, doing string, rest func(took time.Duration) time.Duration, step func(Directory) error) {
	healthy := true
	for {
		dc, err := a.watched.get(ctx)
		if err != nil {
			return
		}
		began := time.Now()
		err = step(dc)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, directory.ErrUnavailable):
			a.watched.lost(dc, err)
			a.link.suspect(err) // which may have nothing to ask just now, and would not notice
		case err != nil && healthy:
			a.log.AgentTrouble(doing, err)
		}
		pause := rest(time.Since(began))
		if healthy = err == nil; !healthy && !errors.Is(err, directory.ErrUnavailable) {
			pause = max(pause, troubleEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// restAfter returns how long the watch rests after a pass that took so long.
func restAfter(pass time.Duration) time.Duration {
	return max(watchEvery-pass, min(watchShare*pass, watchSeldom), 0)
}

// Status says how the agent is.
type Status struct {
	Directory DirectoryStatus `json:"directory"`
	Captures  CaptureStatus   `json:"captures"`
	Watch     watch.Status    `json:"watch"`
	Followup  followup.Status `json:"followup"`
	Refusals  refusals.Status `json:"refusals"`
	Floods    []floods.Flood  `json:"floods"`
	Policies  census.Status   `json:"policies"`
}

// DirectoryStatus says whether the DC answers.
type DirectoryStatus struct {
	Up    bool      `json:"up"`
	Since time.Time `json:"since"`           // of being up or down
	DC    string    `json:"dc,omitempty"`    // its DNS name, once it was up
	Error string    `json:"error,omitempty"` // why it is down
	// NTHash tells whether the account looked up last has what captures are compared by: "stored", the NT hash; "aes256", no NT
	// hash but the AES256 key; "missing", no NT hash, and the capture is not one that could be compared by the key; "none", neither;
	// or "unknown" before the first.
	NTHash proof.Basis `json:"nt_hash"`
}

// CaptureStatus counts captures: those that wait, and since the process started those of each fate.
type CaptureStatus struct {
	Pending    int       `json:"pending"`
	Oldest     time.Time `json:"oldest,omitzero"` // when the oldest that waits was first seen
	Proven     uint64    `json:"proven"`
	Unwanted   uint64    `json:"unwanted"`
	Never      uint64    `json:"never"`
	Unprovable uint64    `json:"unprovable"`
	Damaged    uint64    `json:"damaged"`
	Unanswered uint64    `json:"unanswered"` // shredded: their accounts could not be looked up
	AsideFull  uint64    `json:"aside_full"` // shredded: they made no sense, and too many that made none had been set aside
	Crowded    uint64    `json:"crowded"`    // shredded by the hook before their time, because too many of their kind waited
}

// Status may be called at any time.
func (a *Agent) Status() Status {
	s := Status{Directory: a.link.status(), Watch: a.watch.Status(), Followup: a.follow.Status(), Refusals: a.refused.Status(), Floods: a.floods.Status()}
	s.Directory.NTHash = a.docket.Basis()
	if a.census != nil {
		s.Policies = a.census.Status()
	}
	s.Captures.Pending, s.Captures.Oldest = a.docket.Waiting()
	counters := a.log.Counters()
	s.Captures.Proven = counters["proven"]
	s.Captures.Unwanted = counters["unwanted"]
	s.Captures.Never = counters["never-committed"]
	s.Captures.Crowded = counters["crowded"]
	s.Captures.Unprovable = counters["unprovable"]
	s.Captures.Damaged = counters["capture-damaged"]
	s.Captures.Unanswered = counters["unanswered"]
	s.Captures.AsideFull = counters["aside-full"]
	return s
}
