// Package deliver is the forwarder: it takes the agent's changes from spool/outgoing and sets the passwords at the targets.
//
// What: one intake, which turns files into queue items and applies the agent's sightings; and for each target a lane, which leases
// items, opens their boxes, and calls the target. Lanes do not wait for each other.
//
// What the disk has damaged of the agent's sightings, or of the ledger, the agent is asked for (change.AskSuffix). Until it has told all anew, no mark counts.
//
// The rule (docs/design.md): a password is sent only while the directory itself proves that it is the account's current one. A change
// that the agent proved within the last ten seconds may be tried once on the strength of that. Everything else, and every repeated
// attempt, needs the watch: a mark at most a minute old, and not older than the moment the item became due, with all
// sightings that it covers applied, and none of them newer. If the watch is stale, what waited keeps waiting, with an alarm. What was
// proven before the account was deleted, or before the directory went back to an older state, is current no more. And a password goes
// to a name only while no other account is known to have had that name since.
//
// At least once, in order, never two at once: for one target there is one lease at a time for an account and for a name (internal/queue), the
// ledger is written before the item is dropped, and the secret's file is shredded after both (book.go). A crash at any point leads to the same
// password being set again, never to an older one. Files and queue are compared at every look, so after a restart all is found.
//
// With peers (other DCs that have forwarders of their own) a delivered change stays until it can be delivered once more as the last word:
// settle.go.
//
// Secrets: a box is opened right before SetPassword and the password destroyed right after. A refused password is shredded at
// once (the account's next change tries again), one that is undelivered, or
// could not settle, after SecretTTL.
//
// Trusts: the folder's writer, which is the agent. An attacker who can write to spool/outgoing can have passwords of his choice
// set, or hold deliveries back; one who can only write to the queue or the ledger can only do the latter.
//
// Not solved: a target that applies a request after we gave it up for lost (timeout, crash) can apply it after the next
// request for the same account; none of the targets has a way to forbid that. And a machine
// whose clock stands still while it is off: a file that was put there in the moments before is taken for new. And, with peers, a DC that is
// heard but does not hear, and a forwarder that stands still for minutes between its last look and its request: see settle.go.
package deliver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/internal/spool/notify"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	defaultWorkers = 8
	defaultTTL     = 72 * time.Hour

	scanEvery      = time.Second
	attemptTimeout = 30 * time.Second
	stopGrace      = 10 * time.Second
)

// errGone means that a change's file is not there any more.
var errGone = errors.New("the change's file is gone")

// Options says what a Forwarder works with. All of it stays the caller's to close, after Run has returned.
type Options struct {
	Outgoing  string    // the folder spool/outgoing
	Key       seal.Keys // opens the secret boxes
	Queue     *queue.Queue
	Ledger    *ledger.Ledger
	Lost      bool // the ledger was damaged: what the agent told may be forgotten
	Targets   []Target
	SecretTTL time.Duration // how long after its capture a password may wait; 0: 72 hours
	Log       *event.Log
}

// Target is one place where passwords go.
type Target struct {
	Name    string // NAME of [target.NAME], as in a change's routes
	Target  target.Target
	Rate    float64 // changes a second; 0: as fast as it goes
	Workers int     // attempts at once; 0: 8
}

// Forwarder is the forwarder. Make one with New, run it once with Run.
type Forwarder struct {
	key     seal.Keys
	queue   *queue.Queue
	ledger  *ledger.Ledger
	ttl     time.Duration
	log     *event.Log
	changes *spool.Spool
	sights  *spool.Spool
	asks    *spool.Spool // for the stamps of all accounts
	lost    bool         // we have to ask for them; the intake's own
	askedAt time.Time    // when this process last did; the intake's own
	asking  bool         // a question of ours, or of the last run's, may lie there; the intake's own
	lanes   map[string]*lane
	names   []string // of the lanes, in the order of Options
	started time.Time
	watch   watch
	book    book
	torn    map[string]time.Time // files that made no sense yet, and since when; the intake's own
	unread  map[string]bool      // files that the disk did not give, which has been said; the intake's own
	undated map[string]time.Time // looks of which nobody knows what was proven before and what since, and when their first file was met; the intake's own
	begun   bool                 // what lay in the folder at the start has been taken in; the intake's own
	fail    context.CancelCauseFunc

	mu    sync.Mutex
	said  map[string]bool // steps that fail, which has been said
	stuck map[string]bool // changes that are damaged, and could not be set aside
}

// New prepares a forwarder and starts nothing.
func New(o Options) (*Forwarder, error) {
	changes, err := spool.Open(o.Outgoing, change.Suffix)
	if err != nil {
		return nil, err
	}
	sights, err := spool.Open(o.Outgoing, change.SightingsSuffix)
	if err != nil {
		return nil, err
	}
	asks, err := spool.Open(o.Outgoing, change.AskSuffix)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	f := &Forwarder{
		asks: asks, lost: o.Lost, asking: true, said: map[string]bool{}, stuck: map[string]bool{},
		key: o.Key, queue: o.Queue, ledger: o.Ledger, ttl: o.SecretTTL, log: o.Log, changes: changes, sights: sights,
		lanes: map[string]*lane{}, watch: watch{log: o.Log, looked: now}, book: book{turn: make(chan struct{}, 1)}, torn: map[string]time.Time{}, unread: map[string]bool{},
		undated: map[string]time.Time{}, started: now,
	}
	if f.ttl <= 0 {
		f.ttl = defaultTTL
	}
	for _, t := range o.Targets {
		if f.lanes[t.Name] != nil {
			return nil, fmt.Errorf("preparing forwarder: target %q is given twice", t.Name)
		}
		f.lanes[t.Name] = newLane(f, t)
		f.names = append(f.names, t.Name)
	}
	return f, nil
}

// Run delivers until ctx ends; then attempts under way get 10 seconds to finish, and it returns nil. An error means that it
// cannot go on: the folder cannot be watched, or a database turned out to be damaged, which the next start repairs.
func (f *Forwarder) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticks, err := notify.Dir(ctx, f.changes.Dir(), scanEvery)
	if err != nil {
		return fmt.Errorf("starting forwarder: %w", err)
	}
	return f.run(ctx, ticks)
}

// run is Run with the hints from elsewhere.
func (f *Forwarder) run(ctx context.Context, ticks <-chan struct{}) error {
	ctx, f.fail = context.WithCancelCause(ctx)
	defer f.fail(nil)
	attempts, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()

	var lanes sync.WaitGroup
	if f.persist(ctx, "recalling what is in the queue", f.recall) {
		for _, l := range f.lanes {
			lanes.Go(func() { l.run(ctx, attempts) })
		}
		lanes.Go(func() { f.sweep(ctx) })
		f.intake(ctx, ticks)
	}
	stop := time.AfterFunc(stopGrace, abandon)
	defer stop.Stop()
	lanes.Wait()
	if err := context.Cause(ctx); errors.Is(err, boltfile.ErrDamaged) {
		return fmt.Errorf("running forwarder: %w", err)
	}
	return nil
}

// recall tells the ledger of what is in the queue, as far as it may not know: the last run may have ended between the two, or the ledger was
// lost. And a pause that a target asked for is not over because we stopped.
func (f *Forwarder) recall() error {
	if now := time.Now(); f.ledger.Ahead() {
		void, err := f.ledger.Past(now, now)
		if err != nil {
			return err
		}
		f.lost = f.lost || void
	}
	if f.lost {
		f.watch.doubt()
	}
	for name, l := range f.lanes {
		resume, why, err := f.queue.Paused(name)
		if err != nil {
			return err
		}
		if resume.After(time.Now()) {
			l.health.resumes(resume, errors.New(why))
		}
	}
	if !f.ledger.Lost() {
		return f.tell()
	}
	var proofs []ledger.Proof
	err := f.queue.Each("", func(i queue.Item, _ bool) error {
		if proofs = append(proofs, proof(i)); len(proofs) < batch {
			return nil
		}
		defer func() { proofs = proofs[:0] }()
		return f.ledger.Prove(proofs...)
	})
	return errors.Join(err, f.ledger.Prove(proofs...))
}

// tell tells the ledger of what was queued, and it has not been told of.
func (f *Forwarder) tell() error {
	items, err := f.queue.Untold()
	if err != nil || len(items) == 0 {
		return err
	}
	var proofs []ledger.Proof
	for _, item := range items {
		proofs = append(proofs, proof(item))
	}
	if err := f.ledger.Prove(proofs...); err != nil {
		return err
	}
	f.queue.Told()
	return nil
}

// placeOf is what an item's or a change's user at a target is known by. Targets do not tell upper and lower case apart. It is a digest,
// because a key of a database cannot be of any length, and an attribute of the directory can.
func placeOf(r change.Route) string {
	sum := sha256.Sum256([]byte(r.Target + "\x00" + strings.ToLower(strings.ToUpper(r.User)))) // the detour folds letters with two small forms
	return base64.RawStdEncoding.EncodeToString(sum[:])
}

// proof is what an item says about the directory.
func proof(i queue.Item) ledger.Proof {
	return ledger.Proof{Account: i.Account, Stamp: i.Stamp, Proven: i.Proven, Places: []string{i.Place}}
}

// outdated reports whether, as far as is known, an item's password is not current any more, or its name another account's.
func outdated(i queue.Item, k ledger.Knowledge) bool {
	return k.Newest[i.Account.GUID].Outdates(i.Stamp, i.Proven) || k.Holders[i.Place].Outdates(i.Account.GUID, i.Proven)
}

// dropped says why an item is not sent.
func (f *Forwarder) dropped(i queue.Item, k ledger.Knowledge) {
	newest, holder := k.Newest[i.Account.GUID], k.Holders[i.Place]
	switch {
	case i.Parked, !i.Delivered.IsZero(): // what became of it has been said
	case !newest.Outdates(i.Stamp, i.Proven) && holder.Outdates(i.Account.GUID, i.Proven):
		f.log.NameTaken(i.Target, i.User, i.Account, i.Stamp.Version, holder.Account)
		f.try("recording an outcome", func() error { return f.nameTaken(i, holder.Account) })
	case i.Stamp.Compare(newest.Stamp) < 0:
		f.log.Superseded(i.Target, i.Account, i.Stamp.Version, newest.Stamp.Version)
	case i.Stamp.Compare(newest.Stamp) > 0 && !newest.Stamp.IsZero():
		f.log.RolledBack(i.Target, i.Account, i.Stamp.Version, newest.Stamp.Version)
	default:
		f.log.AccountGone(i.Target, i.Account, i.Stamp.Version)
	}
}

func (f *Forwarder) nameTaken(i queue.Item, by change.Account) error {
	return f.ledger.Record(ledger.Entry{
		Target: i.Target, User: i.User, Place: i.Place, Account: i.Account, Stamp: i.Stamp, Proven: i.Proven, Captured: i.Captured,
		Class: ledger.NameTaken, Reason: "the name is the account " + by.SAMAccountName + "'s now", At: time.Now(), Attempts: i.Attempts,
	})
}

// supersede drops what is outdated of the accounts and places that k is about, and of accounts that are gone everything.
func (f *Forwarder) supersede(k ledger.Knowledge, gone map[dsdb.GUID]bool) error {
	items, err := f.queue.Supersede(maps.Keys(k.Newest), maps.Keys(k.Holders), func(i queue.Item) bool {
		return gone[i.Account.GUID] || outdated(i, k)
	})
	for _, item := range items {
		f.dropped(item, k)
		f.shred(item.File)
	}
	return err
}

// wanted reports whether the leased item is to be sent: it is the newest that is known of its account, nobody else has the name, the target
// wants it still, and nothing final has come of it yet. Otherwise it returns the lease.
func (f *Forwarder) wanted(ctx context.Context, lease queue.Lease) bool {
	var k ledger.Knowledge
	var last ledger.Entry
	known := f.persist(ctx, "asking the ledger", func() (err error) {
		if k, err = f.ledger.Known(proof(lease.Item)); err != nil {
			return err
		}
		last, err = f.ledger.Last(lease.Target, lease.Account.GUID)
		return err
	})
	again := !lease.Delivered.IsZero() && !lease.MustChange && last.Class == target.Delivered && lease.Stamp.Equal(last.Stamp) // see settle.go
	switch {
	case !known:
		f.queue.Release(lease)
	case outdated(lease.Item, k):
		f.persist(ctx, "dropping items", func() error { return f.supersede(k, nil) })
		f.queue.Release(lease)
	case lease.Stamp.Compare(last.Stamp) <= 0 && !again:
		// The last run ended after it had written this down, and before it dropped the item.
		f.finish(ctx, lease, nil, last.Class, last.Reason, len(lease.Peers) == 0 || lease.MustChange)
	case !f.queue.Current(lease):
		f.queue.Release(lease)
	case unwanted(lease.Item, k):
		// It is kept, for as long as others: a slip in a filter is not to shred what waits.
		f.log.Shelved(lease.Target, lease.Account)
		f.write(ctx, &verdict{result: lease.Shelve()})
		f.reshelve(ctx, lease.Account.GUID) // the agent may have told otherwise meanwhile
	default:
		return true
	}
	return false
}

// finish drops or parks an item, as its outcome in the ledger says, and then shreds the secret; or lets it settle, if its delivery was not
// the last word. An outcome that is not in the ledger yet is written there first.
func (f *Forwarder) finish(ctx context.Context, lease queue.Lease, outcome *ledger.Entry, class target.Class, reason string, lastWord bool) {
	result := lease.Done()
	switch {
	case class == target.NoUser || class == target.Rejected || class == target.Forbidden:
		result = lease.Park(class, reason)
	case class == target.Delivered && !lastWord:
		result = lease.Settle()
	}
	if f.write(ctx, &verdict{outcome: outcome, result: result}) {
		f.shred(lease.File)
	}
}

// open returns the item's password, which the caller destroys. Errors: errGone, change.ErrDamaged, seal's, and what reading
// a file can lead to.
func (f *Forwarder) open(item queue.Item) (secret.Secret, error) {
	b, err := f.changes.Read(item.File, change.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return secret.Secret{}, errGone
	}
	if err != nil {
		return secret.Secret{}, err
	}
	c, err := change.Parse(b)
	if err != nil {
		return secret.Secret{}, err
	}
	if c.Account.GUID != item.Account.GUID || !c.Stamp.Equal(item.Stamp) ||
		!slices.Contains(c.Routes, change.Route{Target: item.Target, User: item.User, MustChange: item.MustChange}) {
		return secret.Secret{}, fmt.Errorf("%w: it is not the one that was queued", change.ErrDamaged)
	}
	return seal.Open(f.key, capture.SecretInfo(c.Header), c.SecretBox)
}

// Needs reports whether a change that waits is sealed to the forwarder's key of that name. One that makes no sense counts: it may still
// be being written, and is set aside soon. What still is with the agent is not seen here: whoever destroys a key waits until secret_ttl is over,
// after which that would be expired.
func (f *Forwarder) Needs(key seal.KeyID) (bool, error) {
	files, err := f.changes.List()
	if err != nil {
		return false, err
	}
	for _, file := range files {
		b, err := f.changes.Read(file, change.MaxSize)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil && !errors.Is(err, spool.ErrTooLarge) {
			return false, err
		}
		c, err := change.Parse(b)
		if err != nil {
			return true, nil
		}
		if id, ok := seal.SealedTo(c.SecretBox); !ok || id == key {
			return true, nil
		}
	}
	return false, nil
}

// trouble says that a step failed, once until it succeeds: a disk that is full is no reason to fill the log. about tells steps of one kind apart.
func (f *Forwarder) trouble(doing, about string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	step := doing + "\x00" + about
	if err == nil {
		delete(f.said, step)
	} else if !f.said[step] {
		f.said[step] = true
		f.log.ForwarderTrouble(doing, err)
	}
}

// persist runs write until it succeeds: going on without would send a password twice, or forget one. It gives up, and
// returns false, if the database is damaged or ctx has ended.
func (f *Forwarder) persist(ctx context.Context, doing string, write func() error) bool {
	for pause := time.Second; ; pause = min(2*pause, 10*time.Second) {
		err := write()
		if f.trouble(doing, "", err); err == nil {
			return true
		}
		if errors.Is(err, boltfile.ErrDamaged) {
			f.fail(err)
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// shred destroys a change's file if no item needs it any more. What it cannot destroy, the intake meets again.
func (f *Forwarder) shred(file string) {
	if file == "" || f.queue.Needs([]byte(file)) || f.isStuck(file) { // what is stuck is kept for a person
		return
	}
	f.trouble("shredding a change", file, f.changes.Remove(file))
}

// setAside moves a file away that makes no sense. Where the disk does not let it, the file stays, and is stuck: the intake tries again.
func (f *Forwarder) setAside(s *spool.Spool, file string, why error) {
	err := s.SetAside(file)
	if errors.Is(err, fs.ErrNotExist) {
		return // another target's lane was quicker
	}
	if f.stick(file, err != nil) {
		f.log.ChangeDamaged(file, why)
	}
	f.trouble("setting a file aside", file, err)
}

// stick notes whether a file is stuck, and reports whether it was not before.
func (f *Forwarder) stick(file string, is bool) (news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	news = !f.stuck[file]
	if is {
		f.stuck[file] = true
	} else {
		delete(f.stuck, file)
	}
	return news
}

// isStuck reports whether a file is damaged and could not be set aside: it must not be queued.
func (f *Forwarder) isStuck(file string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stuck[file]
}
