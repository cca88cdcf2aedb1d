// Package ledger remembers what was delivered, and what the directory holds.
//
// What: per account and target the last final outcome (delivered, refused, expired, dropped) with its stamp, and the last stamp that was
// delivered; per account the newest stamp that the directory is known to hold; per place (a target and a name there, in a form that the
// forwarder makes) the account that had it last; and from these, who lacks the newest password. Stamps only grow, unless the agent says that the directory went back, or that the
// account is gone; of what was proven before that, only what is seen again counts.
//
// Why: before each attempt the forwarder asks here whether the password at hand is still the account's current one, whether the
// name is still the account's, and whether the target has it already.
//
// Stamps order the changes of one account only. Who had a place last is told by the time of the proof, so by the agent's clock.
//
// Bytes: a bbolt database (internal/boltfile) with four buckets: "outcomes", key objectGUID and target's name, value Entry, whose head holds
// what is counted; "newest", key objectGUID, value Newest; "holders", key place, value Holder; and "gaps", key objectGUID, whose head says which
// targets lack the newest password, and why: it follows from the others, and is there so that a start need not read these. No secret.
//
// Not solved: a clock that is set back between two accounts' proofs for one place makes the later one look older; it is dropped, with an
// event, until the account's next change.
//
// An attacker who can write here can make the forwarder believe that it has nothing to do. A ledger that is lost costs at most
// one repeated delivery per waiting change, and the memory of what was delivered when.
package ledger

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	outcomes = "outcomes"
	newest   = "newest"
	holders  = "holders"
	gaps     = "gaps"
)

// Expired is the class of a change whose secret was shredded because secret_ttl was over. The other classes are the target's.
const Expired target.Class = "expired"

// NameTaken is the class of a change that another account's took the name from.
const NameTaken target.Class = "name-taken"

// Dropped is the class of a change that a person took out of the queue.
const Dropped target.Class = "dropped"

// Entry is the last outcome for one account at one target.
type Entry struct {
	Target   string         `json:"target"`
	User     string         `json:"user"` // the account's name at the target
	Place    string         `json:"place"`
	Account  change.Account `json:"account"`
	Stamp    dsdb.Stamp     `json:"stamp"` // of the change that the outcome is about
	Proven   time.Time      `json:"proven"`
	Class    target.Class   `json:"class"` // delivered, no-user, rejected, expired, dropped or name-taken
	Reason   string         `json:"reason,omitempty"`
	At       time.Time      `json:"at"`
	Attempts int            `json:"attempts"`
	Captured time.Time      `json:"captured,omitzero"` // by the hook; zero in what an older version wrote

	// What the target holds from us, also when the last outcome was another one. Record fills it in. A change that settled was delivered
	// twice: DeliveredAt is of the last time; FirstAt, and how long that took from the capture, of the first.
	Delivered   dsdb.Stamp    `json:"delivered,omitzero"`
	DeliveredAt time.Time     `json:"delivered_at,omitzero"`
	FirstAt     time.Time     `json:"first_at,omitzero"` // zero in what an older version wrote, and so is Took
	Took        time.Duration `json:"took_ns,omitempty"`
	Confirmed   time.Time     `json:"confirmed,omitzero"` // when the target saw that password change, by its clock, if it has shown that; see Confirm
}

// Count says how many accounts had which last outcome at a target, and when it was last delivered to.
type Count struct {
	Classes       map[target.Class]int
	LastDelivered time.Time
	Confirmed     int // accounts of which the target has shown that it holds what was delivered last
}

// Ledger is an open ledger. Its methods may be called concurrently.
type Ledger struct {
	db     *boltfile.DB
	lost   bool
	forgot bool
	ahead  bool

	mu     sync.Mutex // also held while a transaction is written: counts never say what the disk does not
	counts map[string]*Count
	gaps   map[dsdb.GUID]lacks
}

// Open opens the ledger in the file, or makes it. What is damaged is dropped, with an event.
func Open(path string, log *event.Log) (*Ledger, error) {
	db, aside, err := boltfile.Open(path, outcomes, newest, holders, gaps)
	if err != nil {
		return nil, fmt.Errorf("opening ledger: %w", err)
	}
	if aside != "" {
		log.StateDamaged(path, aside)
	}
	l := &Ledger{db: db, forgot: aside != "", counts: map[string]*Count{}, gaps: map[dsdb.GUID]lacks{}}
	whole, dropped := false, 0
	now := time.Now()
	load := func(bucket string, read func(key, head, value []byte) error) error {
		n, err := db.Load(bucket, read)
		dropped += n
		return err
	}
	err = errors.Join(load(newest, func(_, _, value []byte) error {
		l.ahead = l.ahead || voidOf(value).After(now)
		return nil
	}), load(holders, func(_, _, value []byte) error {
		var h Holder
		err := json.Unmarshal(value, &h)
		l.ahead = l.ahead || h.Proven.After(now)
		return err
	}), load(outcomes, l.loadOutcome), load(gaps, func(key, head, _ []byte) error {
		if whole = whole || string(key) == wholeKey; string(key) != wholeKey {
			return l.loadGaps(key, head)
		}
		return nil
	}))
	l.lost = !whole || dropped > 0
	if err == nil && l.lost {
		err = l.recount()
	}
	if err = errors.Join(err, db.Rest()); err != nil {
		return nil, errors.Join(fmt.Errorf("opening ledger: %w", err), db.Close())
	}
	if dropped > 0 {
		log.ValuesDamaged(path, dropped)
		l.forgot = true
	}
	return l, nil
}

// Forgot reports whether something in the file was damaged when it was opened: what the agent told may have been in it.
func (l *Ledger) Forgot() bool { return l.forgot }

// Ahead reports whether something in the file was proven, or void, at a time that was still to come when it was opened: see Past.
func (l *Ledger) Ahead() bool { return l.ahead }

// Close gives the file up. No method is called after it.
func (l *Ledger) Close() error { return l.db.Close() }

// Rest gives memory back that reading took. It may be called at any time.
func (l *Ledger) Rest() error { return l.db.Rest() }

// Lost reports whether Open did not find all that was ever noted: the file was new, or it was damaged.
func (l *Ledger) Lost() bool { return l.lost }

// Record notes outcomes, durably and in one transaction. One about an older stamp than the last does not replace it; if it is a delivery, it still
// counts as what the target holds, unless that is newer. One of a password that is void is not noted: its stamp would stand in the
// way of those to come.
func (l *Ledger) Record(entries ...Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	type change struct{ old, merged Entry }
	var changes []change
	var lacking map[dsdb.GUID]lacks
	err := l.db.Update(func(tx boltfile.Tx) error {
		changes = nil
		d := newDraft(tx)
		for _, e := range entries {
			known, err := d.newestOf(e.Account.GUID)
			if err != nil {
				return err
			}
			if known.voids(e.Stamp, e.Proven) {
				continue
			}
			var old Entry
			if _, err := tx.Get(outcomes, entryKey(e.Account.GUID, e.Target), &old); err != nil {
				return err
			}
			merged := merge(old, e)
			if err := putOutcome(tx, merged); err != nil {
				return err
			}
			changes = append(changes, change{old, merged})
			if err := d.prove(Proof{e.Account, e.Stamp, e.Proven, []string{e.Place}}); err != nil {
				return err
			}
			d.learned[e.Account.GUID] = true
		}
		if err := d.write(); err != nil {
			return err
		}
		var err error
		lacking, err = l.writeGaps(d)
		return err
	})
	if err != nil {
		return fmt.Errorf("recording outcomes: %w", err)
	}
	for _, c := range changes {
		l.count(c.old, c.merged)
	}
	l.remember(lacking)
	return nil
}

// merge returns what is to be remembered after e has followed old.
func merge(old, e Entry) Entry {
	e.Delivered, e.DeliveredAt, e.FirstAt, e.Took, e.Confirmed = old.Delivered, old.DeliveredAt, old.FirstAt, old.Took, old.Confirmed
	order := e.Stamp.Compare(old.Delivered)
	if e.Class == target.Delivered && order >= 0 {
		if !e.Stamp.Equal(old.Delivered) {
			e.Confirmed = time.Time{}
		}
		e.Delivered, e.DeliveredAt = e.Stamp, e.At
	}
	if e.Class == target.Delivered && order > 0 {
		e.FirstAt, e.Took = e.At, 0
		if !e.Captured.IsZero() {
			e.Took = max(0, e.At.Sub(e.Captured)) // the clock may have been set back
		}
	}
	if e.Stamp.Compare(old.Stamp) < 0 {
		old.Delivered, old.DeliveredAt, old.FirstAt, old.Took, old.Confirmed = e.Delivered, e.DeliveredAt, e.FirstAt, e.Took, e.Confirmed
		return old
	}
	return e
}

// Confirm notes that the target has shown, at a time of its clock, the delivery of a stamp; nothing if another one was delivered since.
func (l *Ledger) Confirm(name string, guid dsdb.GUID, stamp dsdb.Stamp, at time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var old, e Entry
	noted := false
	err := l.db.Update(func(tx boltfile.Tx) error {
		key := entryKey(guid, name)
		found, err := tx.Get(outcomes, key, &old)
		if noted = found && old.Delivered.Equal(stamp); err != nil || !noted {
			return err
		}
		e = old
		e.Confirmed = at
		return putOutcome(tx, e)
	})
	if err != nil {
		return fmt.Errorf("recording a confirmation: %w", err)
	}
	if noted {
		l.count(old, e)
	}
	return nil
}

// Last returns the last outcome for the account at the target; the zero Entry if there was none. A change whose stamp is not
// newer than the entry's need not be tried again.
func (l *Ledger) Last(name string, guid dsdb.GUID) (e Entry, err error) {
	err = l.db.View(func(tx boltfile.Tx) error {
		_, err := tx.Get(outcomes, entryKey(guid, name), &e)
		return err
	})
	if err != nil {
		return Entry{}, fmt.Errorf("reading outcome: %w", err)
	}
	return e, nil
}

// DeliveredStamp returns the stamp of the password that the target holds from us; the zero stamp if it holds none.
func (l *Ledger) DeliveredStamp(name string, guid dsdb.GUID) (dsdb.Stamp, error) {
	e, err := l.Last(name, guid)
	return e.Delivered, err
}

// Entries returns the outcomes of one account, sorted by target.
func (l *Ledger) Entries(guid dsdb.GUID) (entries []Entry, err error) {
	err = l.db.View(func(tx boltfile.Tx) (err error) {
		entries, err = outcomesOf(tx, guid)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading outcomes: %w", err)
	}
	return entries, nil
}

// Counts returns a copy of the counts of all targets.
func (l *Ledger) Counts() map[string]Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := make(map[string]Count, len(l.counts))
	for name, c := range l.counts {
		counts[name] = Count{maps.Clone(c.Classes), c.LastDelivered, c.Confirmed}
	}
	return counts
}

// count replaces old by e in the counts; either may be none.
func (l *Ledger) count(old, e Entry) {
	name := cmp.Or(e.Target, old.Target)
	c := l.counts[name]
	if c == nil {
		c = &Count{Classes: map[target.Class]int{}}
		l.counts[name] = c
	}
	if old.Class != "" {
		c.Classes[old.Class]--
	}
	if e.Class != "" {
		c.Classes[e.Class]++
	}
	if !old.Confirmed.IsZero() {
		c.Confirmed--
	}
	if !e.Confirmed.IsZero() {
		c.Confirmed++
	}
	if e.DeliveredAt.After(c.LastDelivered) {
		c.LastDelivered = e.DeliveredAt
	}
}

func entryKey(guid dsdb.GUID, name string) []byte { return append(guid[:], name...) }

// putOutcome writes an entry behind what loadOutcome needs of it: when it was last delivered, in nanoseconds since 1970 or 0, whether that was
// confirmed, and its class.
func putOutcome(tx boltfile.Tx, e Entry) error {
	var at uint64
	if !e.DeliveredAt.IsZero() {
		at = uint64(e.DeliveredAt.UnixNano())
	}
	head := binary.BigEndian.AppendUint64(nil, at)
	if e.Confirmed.IsZero() {
		head = append(head, 0)
	} else {
		head = append(head, 1)
	}
	return tx.PutHead(outcomes, entryKey(e.Account.GUID, e.Target), append(head, e.Class...), e)
}

// loadOutcome counts an outcome at the start.
func (l *Ledger) loadOutcome(key, head, value []byte) error {
	var e Entry
	switch {
	case len(head) == 0: // an older version's
		if err := json.Unmarshal(value, &e); err != nil {
			return err
		}
	case len(head) < 9 || len(key) <= len(e.Account.GUID):
		return errors.New("an outcome's head is too short")
	default:
		e.Target, e.Class = string(key[len(e.Account.GUID):]), target.Class(head[9:])
		if at := int64(binary.BigEndian.Uint64(head)); at != 0 {
			e.DeliveredAt = time.Unix(0, at)
		}
		if head[8] != 0 {
			e.Confirmed = e.DeliveredAt
		}
	}
	l.count(Entry{}, e)
	return nil
}
