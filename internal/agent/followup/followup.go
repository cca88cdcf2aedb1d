// Package followup finds out, for each password stamp that the watch saw, which targets want the account, and if nothing was handed
// over for one, why.
//
// Why: the hook does not see every change, and nobody has the password of one that it did not see. What cannot be delivered is at
// least told, by `samba-pwsync drift`, with the likely reason.
//
// How: an account that the watch saw is asked about once the time is over in which a capture can be proven (Delay); what it holds
// by then, and who wants it, is passed on as a second sighting of the same stamp (change.Wanted). An account that changed otherwise is
// asked about again, and so are all of them once a day and when the configuration has changed: a group's new member does not
// change as an account does. The forwarder knows what was delivered, so what is passed on twice, or too early, does no harm. Those that
// moved go first, and of all together a hundred at a time.
//
// Until an account has been asked about, the watch's position on disk stays before its change (Floor), so a crash forgets none; and a
// look at all of them that was not finished begins anew.
//
// Bytes: a JSON file {"since", "settings", "whole"} with a checksum (internal/checked), written by durable.Replace: when the agent first ran, a digest of what decides who
// wants whom, and when the last finished look at all accounts began. An attacker who can write it can have drift explained by
// "before-installation"; it lies in the agent's own folder, which is root's.
//
// What it does not solve: the directory does not keep why the hook was not run. Reasons are read from how the directory is some
// minutes after the change.
package followup

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/checked"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	// batch bounds the accounts that one Ask asks about.
	batch = 100
	// wholeEvery is the time between two looks at all accounts.
	wholeEvery = 24 * time.Hour
)

// Directory is what is asked of a DC.
type Directory interface {
	route.Domain
	Changed(ctx context.Context, fromUSN uint64, attrs []string,
		each func(directory.Account) error, gone func(guid dsdb.GUID, sAMAccountName string) error) error
	AccountByGUID(ctx context.Context, guid dsdb.GUID, attrs []string) (directory.Account, error)
	Root(ctx context.Context) (directory.Root, error)
	Controllers(ctx context.Context) ([]directory.Controller, error)
	ResultantPSO(ctx context.Context, guid dsdb.GUID) (pso directory.FineGrained, found bool, err error)
	PasswordSettings(ctx context.Context) (directory.PasswordSettings, error)
}

// Options are what a Followup needs.
type Options struct {
	Spool  *spool.Spool  // for sightings
	File   string        // the state
	Delay  time.Duration // how long a capture may wait for its proof
	Routes *route.Table
	Peers  []string // short names of DCs that deliver by themselves
	ByKey  bool     // an account without NT hash is proven by its AES256 key
	// Handed tells for which targets this stamp of the account was handed over; ok is false if no capture of it was proven.
	Handed func(directory.Account) (targets []string, ok bool)
	Log    *event.Log
}

// Followup is made by New.
type Followup struct {
	Options
	settings string

	mu      sync.Mutex
	state   state
	unsaved bool // the disk has not got it
	pending map[dsdb.GUID]*entry
	movers  []*entry  // by due; stale ones are skipped
	rest    []*entry  // of looks at all accounts, likewise
	left    int       // of the look at all accounts
	whole   time.Time // when the look at all accounts began that is not finished; zero if there is none

	sites *sites // Ask's own
}

type state struct {
	Since    time.Time `json:"since"`
	Settings string    `json:"settings"`
	Whole    time.Time `json:"whole"`
}

// entry is an account to be asked about.
type entry struct {
	guid  dsdb.GUID
	stamp dsdb.Stamp
	due   time.Time
	from  uint64 // the watch meets the account again if it goes on from there; zero if a look at all accounts does
	mover bool
	whole bool // the look at all accounts waits for it
	asked bool // it is being asked about
	fault bool // that the DC refuses to answer has been said
}

// New reads the state, or begins it: from then on changes are of this installation.
func New(o Options) (*Followup, error) {
	f := &Followup{Options: o, settings: settings(o), pending: map[dsdb.GUID]*entry{}, sites: &sites{peers: o.Peers}}
	b, err := durable.ReadSmall(o.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading who has been asked about: %w", err)
	}
	known := err == nil
	if known {
		text, err := checked.Text(b)
		if err == nil {
			err = json.Unmarshal(text, &f.state)
		}
		if known = err == nil && !f.state.Since.IsZero(); !known {
			o.Log.FollowupForgotten(o.File)
		}
	}
	if !known {
		f.state = state{Since: time.Now().UTC().Truncate(time.Second)} // stamps count whole seconds
		if err := f.save(); err != nil {
			o.Log.AgentTrouble("beginning to follow changes up", err) // Ask tries again
		}
	}
	return f, nil
}

// settings is a digest of what decides who wants whom, the directory apart.
func settings(o Options) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %q", o.Routes, o.Peers))
	return hex.EncodeToString(sum[:])
}

func (f *Followup) save() error {
	b, err := json.Marshal(f.state)
	if err != nil {
		return fmt.Errorf("encoding who has been asked about: %w", err)
	}
	f.unsaved = true
	if err := durable.Replace(f.File, checked.Wrap(b), 0o600); err != nil {
		return fmt.Errorf("noting who has been asked about: %w", err)
	}
	f.unsaved = false
	return nil
}

// Saw takes in an account that a pass of the watch met. from is the position before the pass, zero in one that reads all accounts.
func (f *Followup) Saw(guid dsdb.GUID, stamp dsdb.Stamp, from uint64) {
	f.take(guid, stamp, from, true)
}

// take takes an account in. What the watch met is the newest that is known of it.
func (f *Followup) take(guid dsdb.GUID, stamp dsdb.Stamp, from uint64, newest bool) {
	if len(f.Routes.Targets()) == 0 {
		return // nobody can want it; a target that comes has all of them looked at
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.pending[guid]
	if e == nil || e.asked || newest && !e.stamp.Equal(stamp) {
		e = &entry{guid: guid, stamp: stamp, due: time.Now().Add(f.Delay), mover: from > 0}
		if old := f.pending[guid]; old != nil {
			e.from, e.mover, e.whole = old.from, e.mover || old.mover, old.whole
		}
		f.add(e)
	}
	if e.from == 0 {
		e.from = from
	}
	if from == 0 && !e.whole {
		e.whole = true
		f.left++
	}
}

// add puts an entry into the place of the account's former one.
func (f *Followup) add(e *entry) {
	f.pending[e.guid] = e
	if e.mover {
		f.movers = append(f.movers, e)
	} else {
		f.rest = append(f.rest, e)
	}
}

// Look takes all accounts in, if it is time for that. It may take minutes, so it goes on beside the watch's passes.
func (f *Followup) Look(ctx context.Context, dc Directory) error {
	f.mu.Lock()
	age := time.Since(f.state.Whole)
	wanted := f.whole.IsZero() && (f.state.Settings != f.settings || age >= wholeEvery || age < 0)
	f.mu.Unlock()
	if !wanted {
		return nil
	}
	began := time.Now()
	err := dc.Changed(ctx, 0, nil, func(a directory.Account) error {
		if a.Unreadable == nil { // otherwise the watch tells of it
			f.take(a.GUID, a.Stamp, 0, false)
		}
		return nil
	}, func(dsdb.GUID, string) error { return nil })
	if err != nil {
		return fmt.Errorf("looking at all accounts: %w", err)
	}
	f.SawAll(began)
	return nil
}

// Anew says that the directory is another one, or went back: a look at all accounts is due, also if this process ends before it is done.
func (f *Followup) Anew() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole = time.Time{} // one that is not finished is of what was before
	if f.state.Whole.IsZero() && !f.unsaved {
		return nil
	}
	f.state.Whole = time.Time{}
	return f.save()
}

// SawAll ends a look at all accounts, or a pass of the watch that read them all, which began at that time.
func (f *Followup) SawAll(began time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole = began
}

// Gone forgets an account that was deleted.
func (f *Followup) Gone(guid dsdb.GUID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.pending[guid]; e != nil {
		f.remove(e)
	}
}

func (f *Followup) remove(e *entry) {
	if f.pending[e.guid] == e {
		delete(f.pending, e.guid)
		if e.whole {
			f.left--
		}
	}
}

// Floor returns how far the watch's position on disk may go.
func (f *Followup) Floor(usn uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.pending {
		if e.from > 0 {
			usn = min(usn, e.from)
		}
	}
	return usn
}

// Status says what is still to be asked.
type Status struct {
	Since     time.Time `json:"since"`     // changes before that are not of this installation
	Undecided int       `json:"undecided"` // accounts to be asked about
}

// Status may be called at any time.
func (f *Followup) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Status{Since: f.state.Since, Undecided: len(f.pending)}
}

// Pending reports whether an account is still to be asked about.
func (f *Followup) Pending(guid dsdb.GUID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pending[guid] != nil
}

// Ask asks about those whose turn it is, up to a hundred, and passes on the answers. After an error they have their turn again.
func (f *Followup) Ask(ctx context.Context, dc Directory) error {
	began := time.Now()
	turn := f.next(began)
	seen, refused, err := f.sightings(ctx, dc, turn)
	if err == nil {
		err = f.put(began, slices.DeleteFunc(seen, f.forgotten))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.giveBack(turn)
		return fmt.Errorf("following up: %w", err)
	}
	for _, e := range turn {
		switch {
		case f.pending[e.guid] != e: // it changed meanwhile, and waits anew
		case slices.Contains(refused, e):
			e.asked, e.fault, e.due = false, true, time.Now().Add(f.Delay)
			if e.whole { // the look does not wait for what may never be answered
				e.whole = false
				f.left--
			}
			f.add(e)
		default:
			f.remove(e)
		}
	}
	if !f.whole.IsZero() && f.left == 0 {
		f.state.Settings, f.state.Whole, f.whole, f.unsaved = f.settings, f.whole, time.Time{}, true
	}
	if !f.unsaved {
		return nil
	}
	return f.save()
}

// forgotten reports whether an account was deleted after it was asked about: what was told of it would say that it came back.
func (f *Followup) forgotten(s change.Sighting) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pending[s.Account.GUID] == nil
}

// next returns those whose turn it is.
func (f *Followup) next(now time.Time) (turn []*entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, line := range []*[]*entry{&f.movers, &f.rest} {
		for len(*line) > 0 && len(turn) < batch {
			e := (*line)[0]
			if f.pending[e.guid] == e {
				if e.due.After(now) {
					break
				}
				e.asked = true
				turn = append(turn, e)
			}
			(*line)[0], *line = nil, (*line)[1:]
		}
	}
	return turn
}

// giveBack gives entries their turn again, before all others.
func (f *Followup) giveBack(turn []*entry) {
	for _, e := range slices.Backward(turn) {
		e.asked = false
		if e.mover {
			f.movers = slices.Insert(f.movers, 0, e)
		} else {
			f.rest = slices.Insert(f.rest, 0, e)
		}
	}
}

// sightings asks about accounts. refused are those about which the DC would not tell. What would fail for the others as well is an error.
func (f *Followup) sightings(ctx context.Context, dc Directory, turn []*entry) (seen []change.Sighting, refused []*entry, err error) {
	for _, e := range turn {
		s, found, err := f.sighting(ctx, dc, e)
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case errors.Is(err, directory.ErrUnavailable), errors.As(err, new(domainError)):
			return nil, nil, err
		case err != nil:
			if !e.fault {
				f.Log.AgentTrouble("asking who wants account "+e.guid.String(), err)
			}
			refused = append(refused, e)
		case found:
			seen = append(seen, s)
		}
	}
	return seen, refused, nil
}

func (f *Followup) put(began time.Time, seen []change.Sighting) error {
	if len(seen) == 0 {
		return nil
	}
	name := change.SightingsFile(began, rand.Text())
	b, err := change.MarshalSightings(name, seen)
	if err != nil {
		return fmt.Errorf("encoding sightings: %w", err)
	}
	if half := len(seen) / 2; len(b) > change.MaxSize && half > 0 {
		if err := f.put(began, seen[:half]); err != nil {
			return err
		}
		return f.put(began, seen[half:])
	}
	return f.Spool.Put(name, b)
}
