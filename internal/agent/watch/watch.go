// Package watch passes on each account's password stamp, all of them once and then those that move, and says until when it has seen
// them all.
//
// Why: a password that waits (a target was down) may be sent only while it is current. The forwarder cannot ask the directory; by
// the sightings and the mark (internal/change) it knows what is not current any more, and when not to trust its knowledge.
//
// How: the DC raises an account's uSNChanged with every write. Each pass reads highestCommittedUSN first and then what changed since
// the one before. Samba shows that number only after the writes up to it, so what a pass misses has a higher one. All accounts are
// read at the first pass only, and when the database is another one or went back (see witness). The stamps go out first, the mark after them, and
// where the watch stands is noted last: a crash repeats stamps, which is harmless, and skips none. Package followup asks about whom
// the watch met. An account that cannot be decoded, which a broken DC may have replicated, counts as deleted until it can be: its stamp
// is not known, so nothing of it may be sent, and the others do not wait for it.
//
// Where the forwarder asks for it, because the disk has damaged what it was told, all stamps are passed on anew, and hold whatever was known
// before, as those of a restored database do. That costs the DC a look at all accounts, so after a few times it is done once in ten minutes at most: who can write to
// the folder could ask all the time. Who asks sooner waits, and holds back meanwhile what waited.
//
// Bytes: the position is a JSON file {"invocation_id", "usn", "seen", "latest"} behind which stands a checksum (internal/checked), written by durable.Replace: where to go on from,
// the highest USN that was seen, below which the database went back, and some accounts as they were last (witness). An attacker who can write it can make the watch skip stamps; it lies in the
// agent's own folder, which is root's.
//
// What it does not solve: it sees what its DC sees, and no sooner; a change at another DC is seen when it has been replicated.
package watch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/samba-pwsync/samba-pwsync/internal/agent/docket"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/followup"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	// perFile bounds the sightings in one file.
	perFile = 500
	// markEvery is how often the mark is written at most while nothing moves.
	markEvery = time.Second / 2
	// tellAtOnce is how many answers a forwarder that asks for all stamps gets at once (who is killed while he writes leaves half a file, too), and tellEvery
	// the time in which it may ask for another; asks is how many of its questions are answered by one: it has one or two.
	tellAtOnce = 6
	tellEvery  = 10 * time.Minute
	asks       = 1000
	// connections is how many are known apart: passes and glances have one each, and one of each may have been lost.
	connections = 4
	// saveEvery is how often the position is written at most while the directory changes.
	saveEvery = 5 * time.Second
)

// Directory is what the watch asks of a DC.
type Directory interface {
	Root(ctx context.Context) (directory.Root, error)
	Changed(ctx context.Context, fromUSN uint64, attrs []string,
		each func(directory.Account) error, gone func(guid dsdb.GUID, sAMAccountName string) error) error
	Known(ctx context.Context, guids []dsdb.GUID,
		each func(directory.Account) error, gone func(guid dsdb.GUID, sAMAccountName string) error) error
	Controllers(ctx context.Context) ([]directory.Controller, error)
	Neighbours(ctx context.Context) ([]directory.Neighbour, error)
}

// Options are what a Watch needs; all of them but Peers.
type Options struct {
	Spool  *spool.Spool  // for sightings; the mark lies beside them
	Asked  *spool.Spool  // where the forwarder asks for all stamps
	File   string        // where the position is kept
	Host   string        // names this agent in the mark
	Lag    time.Duration // how long a capture may wait for its proof
	Peers  []string      // names of the DCs that have forwarders of their own
	Docket *docket.Docket
	Follow *followup.Followup
	Log    *event.Log
}

// Watch is made by New.
type Watch struct {
	Options

	passing chan struct{} // holds a token during a pass, which guards what follows
	loaded  bool
	seen    uint64                   // the highest USN that the database had
	stamps  map[dsdb.GUID]dsdb.Stamp // as last passed on by this process
	odd     map[string]bool          // accounts that cannot be decoded, by DN: that has been said
	deaf    bool                     // the DC does not tell how far it has heard the peers: that has been said
	saved   []byte                   // the position, as it is on disk
	savedAt time.Time
	trusted []Directory   // connections by which the directory was seen to be no older than what has been passed on
	latest  []witness     // what was written last
	back    bool          // the directory went back, and that has not been passed on to the end
	times   atomic.Int64  // that it did
	files   int           // of sightings, written so far
	tells   *rate.Limiter // of answers to a forwarder that asks for all stamps, also of those that fail
	retry   time.Time     // after one that failed there is none before; zero: none did

	mu     sync.Mutex
	at     position
	mark   time.Time
	putOff time.Time // until when the forwarder's question waits; zero if there is none that has to
	peers  peers
}

// New returns a watch that has not looked yet.
func New(o Options) *Watch {
	return &Watch{Options: o, passing: make(chan struct{}, 1), stamps: map[dsdb.GUID]dsdb.Stamp{}, odd: map[string]bool{},
		tells: rate.NewLimiter(rate.Every(tellEvery), tellAtOnce)}
}

// Pass looks once and passes on what moved, or, if the forwarder asks for that, everything. It may be called concurrently and repeated after any error.
func (w *Watch) Pass(ctx context.Context, dc Directory) error { return w.pass(ctx, dc, true) }

// Glance is Pass, but leaves the forwarder's questions to the next one: somebody waits for what moved, and anybody in the domain can be the reason.
func (w *Watch) Glance(ctx context.Context, dc Directory) error { return w.pass(ctx, dc, false) }

func (w *Watch) pass(ctx context.Context, dc Directory, answers bool) error {
	select {
	case w.passing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.passing }()
	if err := w.load(); err != nil {
		return err
	}
	began := time.Now()
	peers, err := w.listen(ctx, dc)
	switch {
	case errors.Is(err, directory.ErrUnavailable), ctx.Err() != nil:
		return fmt.Errorf("watching: %w", err)
	case err != nil:
		// Nothing but the last word hangs on it, which waits until the peers are heard again.
		if !w.deaf {
			w.Log.AgentTrouble("listening to peers", err)
		}
		peers = w.lastHeard()
	}
	w.deaf = err != nil
	root, err := dc.Root(ctx)
	if err != nil {
		return fmt.Errorf("watching: %w", err)
	}
	var asked []string
	due := false
	if answers {
		if asked, due, err = w.asked(began); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	now := position{root.InvocationID, root.HighestUSN}
	first, before := w.at == position{}, w.back
	w.back = w.back || !first && (now.InvocationID != w.at.InvocationID || now.USN < w.seen)
	if !w.back && !slices.Contains(w.trusted, dc) {
		if w.back, err = w.wentBack(ctx, dc); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	if w.back && !before {
		w.times.Add(1)
		w.Log.DirectoryRestored()
	}
	anew := first || w.back || due
	switch {
	case anew:
		// Unless this is the first time: a database that was restored may hold older passwords than have been seen.
		restored := !first || len(asked) > 0
		clear(w.stamps)
		if err = w.Follow.Anew(); err != nil {
			break
		}
		err = w.passOn(ctx, dc, began, now.InvocationID, 0, restored)
		// Also if that failed on the disk, which the forwarder may have filled: the DC was asked.
		if due && !errors.Is(err, directory.ErrUnavailable) && ctx.Err() == nil {
			w.tells.ReserveN(time.Now(), 1)
			w.retry = time.Now().Add(tellEvery / tellAtOnce) // unless it is answered to the end
		}
	case now != w.at:
		err = w.passOn(ctx, dc, began, now.InvocationID, w.at.USN+1, false)
	}
	if err != nil {
		return fmt.Errorf("watching: %w", err)
	}
	if !slices.Contains(w.trusted, dc) {
		w.trusted = append(w.trusted[max(0, len(w.trusted)+1-connections):], dc)
	}
	w.Docket.PassComplete(began)
	if anew {
		w.back = false
		w.Follow.SawAll(began)
		if err := w.answered(asked); err != nil { // before the mark, which does not count while they are there
			return fmt.Errorf("watching: %w", err)
		}
	}
	if !anew && now == w.at && began.Sub(w.Status().Mark) < markEvery { // captures without a name have it look all the time
		return nil
	}
	if err := change.WriteMark(w.Spool.Dir(), change.Mark{AsOf: began, Host: w.Host, InvocationID: now.InvocationID, Peers: peers}); err != nil {
		return err
	}
	w.mu.Lock()
	w.at, w.mark = now, began
	w.mu.Unlock()
	w.seen = now.USN
	return w.save(anew)
}

// asked returns the questions for all stamps that the forwarder has asked, and whether it is time to answer them. If not, that is said once.
func (w *Watch) asked(now time.Time) (asked []string, due bool, err error) {
	if asked, err = w.Asked.Some(asks); err != nil {
		return nil, false, err
	}
	next := now.Add(time.Duration((1 - w.tells.TokensAt(now)) * float64(tellEvery)))
	if next.Before(w.retry) {
		next = w.retry
	}
	due = len(asked) > 0 && next.Before(now.Add(time.Millisecond)) // tokens are not counted more exactly
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case due || len(asked) == 0:
		w.putOff = time.Time{}
	case w.putOff.IsZero():
		w.putOff = next
		w.Log.AskPutOff(next)
	}
	return asked, due, nil
}

// answered removes the forwarder's questions: what it was told last is all that it asked for.
func (w *Watch) answered(asked []string) error {
	for _, name := range asked {
		if err := w.Asked.Discard(name); err != nil {
			return err
		}
	}
	if len(asked) > 0 {
		w.retry = time.Time{}
		w.mu.Lock()
		w.putOff = time.Time{}
		w.mu.Unlock()
		w.Log.AllTold()
	}
	return nil
}

// passOn passes on the stamps of all accounts that changed since a USN and whose stamp is not the one passed on last, and the
// accounts that were deleted since. began is when the pass did, own the DC's invocationId.
func (w *Watch) passOn(ctx context.Context, dc Directory, began time.Time, own dsdb.GUID, fromUSN uint64, restored bool) error {
	var seen []change.Sighting
	flush := func() error {
		if len(seen) == 0 {
			return nil
		}
		w.tell(own, seen)
		if err := w.put(began, seen); err != nil {
			return err
		}
		w.note(seen)
		seen = nil
		return nil
	}
	add := func(s change.Sighting) error {
		if seen = append(seen, s); len(seen) < perFile {
			return nil
		}
		return flush()
	}
	from, latest := uint64(0), []witness(nil)
	if fromUSN > 0 {
		from, latest = w.at.USN, slices.Clone(w.latest)
	}
	err := dc.Changed(ctx, fromUSN, nil, func(a directory.Account) error {
		if a.Unreadable != nil {
			return w.leaveOut(a, add)
		}
		delete(w.odd, a.DN)
		latest = among(latest, witnessOf(a))
		w.Follow.Saw(a.GUID, a.Stamp, from)
		if a.Stamp.Equal(w.stamps[a.GUID]) { // both are zero if the account never had a password
			return nil
		}
		return add(change.Sighting{
			Account: identity(a),
			Stamp:   a.Stamp,
			Reset:   restored,
		})
	}, func(guid dsdb.GUID, name string) error {
		return add(change.Sighting{Account: change.Account{GUID: guid, SAMAccountName: name}, Gone: true})
	})
	if err == nil && restored {
		err = add(change.Sighting{Whole: true})
	}
	if err == nil {
		err = flush()
	}
	if err == nil {
		w.latest = latest
	}
	return err
}

// leaveOut passes on that an account cannot be decoded, and says so once.
func (w *Watch) leaveOut(a directory.Account, add func(change.Sighting) error) error {
	if !w.odd[a.DN] {
		w.odd[a.DN] = true
		w.Log.AccountUnreadable(identity(a), a.Unreadable)
	}
	if a.GUID.IsZero() { // nothing can wait for it
		return nil
	}
	return add(change.Sighting{Account: identity(a), Gone: true})
}

func identity(a directory.Account) change.Account {
	return change.Account{GUID: a.GUID, SAMAccountName: a.SAMAccountName, UserPrincipalName: a.UserPrincipalName}
}

// tell tells the docket who moved, before the disk has it: a capture without a name waits for nothing else, and what is found by that is
// proven like everything. Should the disk fail, the next pass tells it again.
func (w *Watch) tell(own dsdb.GUID, seen []change.Sighting) {
	var moved []docket.Mover
	for _, s := range seen {
		if !s.Whole && !s.Gone {
			moved = append(moved, docket.Mover{GUID: s.Account.GUID, Name: s.Account.SAMAccountName, Stamp: s.Stamp, Seen: time.Now()})
		}
	}
	w.Docket.Moved(own, moved)
}

// note remembers what has been passed on.
func (w *Watch) note(passedOn []change.Sighting) {
	for _, s := range passedOn {
		switch {
		case s.Whole:
		case s.Gone:
			delete(w.stamps, s.Account.GUID) // should it be brought back, that is news
			w.Follow.Gone(s.Account.GUID)
		default:
			w.stamps[s.Account.GUID] = s.Stamp
		}
	}
	w.Log.Sighted(len(passedOn))
}

// put stores sightings, in more than one file if extremely long names make that necessary. The files' names are in their order.
func (w *Watch) put(began time.Time, seen []change.Sighting) error {
	name := change.SightingsFile(began, fmt.Sprintf("%09d-%s", w.files, rand.Text()))
	b, err := change.MarshalSightings(name, seen)
	if err != nil {
		return fmt.Errorf("encoding sightings: %w", err)
	}
	if half := len(seen) / 2; len(b) > change.MaxSize && half > 0 {
		if err := w.put(began, seen[:half]); err != nil {
			return err
		}
		return w.put(began, seen[half:])
	}
	w.files++
	return w.Spool.Put(name, b)
}

// WentBack returns how often this process has seen the directory go back.
func (w *Watch) WentBack() int64 { return w.times.Load() }

// Status says how far the watch has come.
type Status struct {
	Mark         time.Time `json:"mark,omitzero"` // every stamp until then has been passed on
	InvocationID dsdb.GUID `json:"invocation_id"`
	USN          uint64    `json:"usn"`
	// PutOff is until when the forwarder waits, which asks for all stamps again, soon after it has got them; what waited there is held back until then.
	PutOff time.Time `json:"put_off,omitzero"`
}

// Status may be called at any time.
func (w *Watch) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{Mark: w.mark, InvocationID: w.at.InvocationID, USN: w.at.USN}
	if time.Now().Before(w.putOff) { // later it would have been answered, if the DC were there
		s.PutOff = w.putOff
	}
	return s
}
