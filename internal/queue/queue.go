// Package queue holds, per target and account, the newest change that is still to be delivered.
//
// What: an item for each pair of target and account (objectGUID); the item with the newest stamp wins, whatever the order in
// which they come. A name at a target can pass from one account to another (a deleted one to its successor, a mail address to a
// colleague), so there is also one item only for each place: of two accounts' items for one place, the one that was proven later
// wins. What two items' places are, and whether they are the same, is for the forwarder to say. An item waits until it is due, is leased to one worker, and is then done, due again, settling, or parked: the target
// refuses this user or this password, and only the account's next change can help. Parked items are kept for people to see;
// their secret is gone. An item that settles has been delivered, and waits in its place until the forwarder wants it delivered once more.
//
// Why leases, and not "take out, put back": between the two an item would be nowhere, and a newer one could be overtaken by
// the older one that is put back. A leased item stays in its place. A newer one replaces it there at once, and the lease then
// stands for nothing: it can neither finish nor delay the newer one, which waits until the lease is returned. So there are never
// two leases for one target and account, nor for one place, and what is leased for it is never older than what was before. Leases live in memory: one
// process, which bbolt's file lock guards, and after a crash nothing is leased.
//
// Bytes: a bbolt database (internal/boltfile) with one bucket, "items": key objectGUID and target's name, value Item. It holds
// no secret, only names of files in spool/outgoing, and can be rebuilt from them. The index in memory never says what the disk
// does not: one mutex is held while a transaction is written.
//
// Clocks: due times are compared as times of this process, which setting the clock does not move (package time, "monotonic"). What
// comes from the disk gets such times in Open: due in an hour at most, and never as fresh as what was proven just now.
//
// An attacker who can write here can delay or drop deliveries and make a target look refused; he cannot make a password be
// sent that the forwarder does not hold sealed, nor under a name other than one that an item gives to its file's change
// (internal/deliver compares the two).
package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	bucket = "items"

	// freshTurns is how many items in a row that were never tried go before the ones that wait for another attempt: the user at
	// the desk does not wait for the backlog, and the backlog moves all the same.
	freshTurns = 4

	// maxAhead is how far ahead a due time from the disk may lie. More than an hour no target may ask for: it was the clock.
	maxAhead = time.Hour
)

// Item is one change for one target.
type Item struct {
	Target   string         `json:"target"`
	User     string         `json:"user"`  // the account's name at the target
	Place    string         `json:"place"` // target and user in the form in which the same account's are the same
	Account  change.Account `json:"account"`
	Stamp    dsdb.Stamp     `json:"stamp"`
	Capture  string         `json:"capture"`
	File     string         `json:"file,omitempty"` // in spool/outgoing; empty once parked
	Captured time.Time      `json:"captured"`
	Proven   time.Time      `json:"proven"`
	Due      time.Time      `json:"due"`              // when it may be tried, or was parked
	Attempts int            `json:"attempts"`         // that counted
	Class    target.Class   `json:"class,omitempty"`  // of the last attempt; empty: never tried
	Reason   string         `json:"reason,omitempty"` // of the last attempt, in words
	Parked   bool           `json:"parked,omitempty"`
	Resume   time.Time      `json:"resume,omitzero"` // until when the target asked for a pause, in answer to the last attempt

	// MustChange is the route's: the target is to demand another password at the next login there.
	MustChange bool `json:"must_change,omitempty"`

	// Of a change that another DC's forwarder may overtake with an older one (internal/deliver, settle.go).
	Peers     []change.Peer `json:"peers,omitempty"`    // as the change has them
	Delivered time.Time     `json:"delivered,omitzero"` // for the first time; zero: not yet
	Settling  bool          `json:"settling,omitempty"` // delivered, and not due again until Rouse says so
}

// Lease is the right to try one item. It is returned by exactly one of Done, Retry, Throttle, Postpone, Settle, Park and Release.
type Lease struct {
	Item
	entry *entry
}

// Queue is an open queue. Its methods may be called concurrently.
type Queue struct {
	db *boltfile.DB

	mu    sync.Mutex
	lines map[string]*line // by target
	files map[string]int   // how many items refer to the file
}

// Open opens the queue in the file, or makes it. What is damaged is dropped, with an event: the files in spool/outgoing hold
// what is needed to queue it again.
func Open(path string, log *event.Log) (*Queue, error) {
	db, aside, err := boltfile.Open(path, bucket)
	if err != nil {
		return nil, fmt.Errorf("opening queue: %w", err)
	}
	if aside != "" {
		log.StateDamaged(path, aside)
	}
	q := &Queue{db: db, lines: map[string]*line{}, files: map[string]int{}}
	now := time.Now()
	dropped, err := db.Load(bucket, func(key, value []byte) error {
		var item Item
		if err := json.Unmarshal(value, &item); err != nil {
			return err
		}
		if string(item.key()) != string(key) {
			return errors.New("an item lies under another's key")
		}
		if len(q.line(item.Target).rivals(item)) > 0 {
			return errors.New("two items for one place")
		}
		item.Due = now.Add(min(item.Due.Sub(now), maxAhead))
		if !item.Resume.IsZero() {
			item.Resume = now.Add(min(item.Resume.Sub(now), maxAhead))
		}
		item.Proven = now.Add(item.Proven.Sub(now))
		q.insert(&entry{item: item, waited: true})
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening queue: %w", err), db.Close())
	}
	if dropped > 0 {
		log.ValuesDamaged(path, dropped)
	}
	return q, nil
}

// Close gives the file up. No method is called after it.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.db.Close()
}

// Add queues items, in one transaction. An item that is not newer than what is in its place is ignored. It returns the items
// that were replaced; a file that Needs then denies is the caller's to shred.
func (q *Queue) Add(items ...Item) (replaced []Item, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	winners := map[string]index{} // by target
	losers := map[*entry]bool{}   // of those in the queue
	for _, item := range items {
		if _, ok := winners[item.Target]; !ok {
			winners[item.Target] = newIndex()
		}
		queued, batch := q.line(item.Target).rivals(item), winners[item.Target].rivals(item)
		if slices.ContainsFunc(slices.Concat(queued, batch), func(e *entry) bool { return !item.newerThan(e.item) }) {
			continue
		}
		for _, e := range queued {
			losers[e] = true
		}
		for _, e := range batch {
			winners[item.Target].delete(e)
		}
		winners[item.Target].add(&entry{item: item})
	}
	var added []*entry
	for _, index := range winners {
		added = slices.AppendSeq(added, maps.Values(index.accounts))
	}
	if len(added) == 0 {
		return nil, nil
	}
	err = q.db.Update(func(tx boltfile.Tx) error {
		for e := range losers {
			if err := tx.Delete(bucket, e.item.key()); err != nil {
				return err
			}
		}
		for _, e := range added {
			if err := tx.Put(bucket, e.item.key(), e.item); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("queueing: %w", err)
	}
	for e := range losers {
		replaced = append(replaced, e.item)
		q.remove(e)
	}
	for _, e := range added {
		q.insert(e)
	}
	return replaced, nil
}

// newerThan says which of two rivals stays. Stamps order one account's changes; two accounts' only the time of the proof does.
func (i Item) newerThan(other Item) bool {
	if i.Account.GUID == other.Account.GUID {
		return i.Stamp.Compare(other.Stamp) > 0
	}
	return i.Proven.After(other.Proven)
}

// Supersede drops those items of these accounts and places, waiting, leased or parked, that are outdated, and returns them.
func (q *Queue) Supersede(accounts iter.Seq[dsdb.GUID], places iter.Seq[string], outdated func(Item) bool) ([]Item, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	old := map[*entry]bool{}
	look := func(e *entry) {
		if e != nil && outdated(e.item) {
			old[e] = true
		}
	}
	for _, l := range q.lines {
		for guid := range accounts {
			look(l.accounts[guid])
		}
		for place := range places {
			look(l.places[place])
		}
	}
	return q.drop(slices.Collect(maps.Keys(old)))
}

// Expire drops the items captured before a time, except those that are leased or parked, and returns them.
func (q *Queue) Expire(before time.Time) ([]Item, error) {
	return q.dropIf(func(e *entry) bool {
		return !e.item.Parked && e.item.Captured.Before(before) && !e.line.leasedAccounts[e.item.Account.GUID]
	})
}

// Forget drops the items that refer to a file, leased or not, and returns them.
func (q *Queue) Forget(file string) ([]Item, error) {
	return q.dropIf(func(e *entry) bool { return e.item.File == file })
}

func (q *Queue) dropIf(condition func(*entry) bool) ([]Item, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var matching []*entry
	for _, l := range q.lines {
		for _, e := range l.accounts {
			if condition(e) {
				matching = append(matching, e)
			}
		}
	}
	return q.drop(matching)
}

func (q *Queue) drop(entries []*entry) ([]Item, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	err := q.db.Update(func(tx boltfile.Tx) error {
		for _, e := range entries {
			if err := tx.Delete(bucket, e.item.key()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("dropping items: %w", err)
	}
	items := make([]Item, len(entries))
	for i, e := range entries {
		items[i] = e.item
		q.remove(e)
	}
	return items, nil
}

// Ready reports whether Lease would give an item.
func (q *Queue) Ready(name string, proven, due time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line(name).pick(proven, due) != nil
}

// Lease leases the target's next item: one of this run that was never tried, proven not before proven; or else the one that is due for
// longest, not after due.
func (q *Queue) Lease(name string, proven, due time.Time) (Lease, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.line(name)
	e := l.pick(proven, due)
	if e == nil {
		return Lease{}, false
	}
	l.take(e)
	return Lease{Item: e.item, entry: e}, true
}

// Current reports whether the lease still stands for the newest change of its account.
func (q *Queue) Current(l Lease) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return l.entry.current()
}

// Done returns a lease and drops its item, unless a newer one has taken the place. On an error the lease is not returned.
func (q *Queue) Done(l Lease) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l.entry.current() {
		if _, err := q.drop([]*entry{l.entry}); err != nil {
			return fmt.Errorf("finishing item: %w", err)
		}
	}
	l.entry.line.giveBack(l.entry)
	return nil
}

// Retry returns a lease after an attempt that counts; the item is due again at due.
func (q *Queue) Retry(l Lease, due time.Time, class target.Class, reason string) error {
	return q.retry(l, due, time.Time{}, class, reason)
}

// Throttle is Retry after a target asked for a pause of all its items, until resume.
func (q *Queue) Throttle(l Lease, due, resume time.Time, reason string) error {
	return q.retry(l, due, resume, target.Throttled, reason)
}

func (q *Queue) retry(l Lease, due, resume time.Time, class target.Class, reason string) error {
	return q.giveBack(l, func(item *Item) {
		item.Attempts++
		item.Due, item.Resume, item.Class, item.Reason = due, resume, class, reason
	})
}

// Postpone returns a lease after an attempt that does not count: it was not the item's fault. The item is due at once.
func (q *Queue) Postpone(l Lease, class target.Class, reason string) error {
	return q.giveBack(l, func(item *Item) {
		item.Due, item.Class, item.Reason = time.Now(), class, reason
	})
}

// Settle returns a lease after a delivery that may not be the last word. The item stays where it is, with its secret, and is not leased
// until Rouse.
func (q *Queue) Settle(l Lease) error {
	return q.giveBack(l, func(item *Item) {
		if item.Delivered.IsZero() {
			item.Delivered = time.Now()
		}
		item.Settling, item.Attempts, item.Class, item.Reason = true, 0, target.Delivered, ""
	})
}

// Rouse makes those items that settle and are ready due now, in one transaction, and returns how many these were.
func (q *Queue) Rouse(ready func(Item) bool) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var old, roused []*entry
	for _, l := range q.lines {
		if l.delivered == 0 {
			continue
		}
		for _, e := range l.accounts {
			if e.item.Settling && ready(e.item) {
				item := e.item
				item.Settling, item.Due = false, time.Now()
				old, roused = append(old, e), append(roused, &entry{item: item})
			}
		}
	}
	if err := q.replace(old, roused); err != nil {
		return 0, fmt.Errorf("rousing items: %w", err)
	}
	return len(old), nil
}

// Park returns a lease; the item stays, without a secret, until the account's next change.
func (q *Queue) Park(l Lease, class target.Class, reason string) error {
	return q.giveBack(l, func(item *Item) {
		item.Attempts++
		item.Due, item.Class, item.Reason = time.Now(), class, reason
		item.Parked, item.File = true, ""
	})
}

// Release returns a lease as if it had never been.
func (q *Queue) Release(l Lease) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.entry.line.giveBack(l.entry)
}

// giveBack returns a lease whose item has changed. On an error the lease is not returned.
func (q *Queue) giveBack(l Lease, edit func(*Item)) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := l.entry
	if !e.current() {
		e.line.giveBack(e)
		return nil
	}
	item := e.item
	edit(&item)
	err := q.db.Update(func(tx boltfile.Tx) error { return tx.Put(bucket, item.key(), item) })
	if err != nil {
		return fmt.Errorf("updating item: %w", err)
	}
	q.remove(e)
	e.line.giveBack(e)
	q.insert(&entry{item: item})
	return nil
}

// Next returns when the first of the target's items that wait is due; false if none waits.
func (q *Queue) Next(name string) (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line(name).next()
}

// Wake receives after something changed that may let the target's next item be leased sooner. One receiver per target.
func (q *Queue) Wake(name string) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line(name).wake
}

// Needs reports whether an item refers to the file.
func (q *Queue) Needs(file string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.files[file] > 0
}

// Count returns how many items of the target wait (leased ones included), how many of those that were delivered are in the queue still,
// settling or due once more, and how many are parked.
func (q *Queue) Count(name string) (waiting, delivered, parked int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.line(name)
	return len(l.accounts) - l.delivered - l.parked, l.delivered, l.parked
}

// Items returns a copy of all items, the longest captured first.
func (q *Queue) Items() []Item {
	q.mu.Lock()
	var items []Item
	for _, l := range q.lines {
		for _, e := range l.accounts {
			items = append(items, e.item)
		}
	}
	q.mu.Unlock()
	slices.SortFunc(items, func(a, b Item) int { return byCapture(&a, &b) })
	return items
}

// replace puts changed items into the places of the old ones, in one transaction.
func (q *Queue) replace(old, changed []*entry) error {
	if len(changed) == 0 {
		return nil
	}
	err := q.db.Update(func(tx boltfile.Tx) error {
		for _, e := range changed {
			if err := tx.Put(bucket, e.item.key(), e.item); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, e := range old {
		q.remove(e)
		q.insert(changed[i])
	}
	return nil
}

func (i Item) key() []byte { return append(i.Account.GUID[:], i.Target...) }

func (q *Queue) line(name string) *line {
	l := q.lines[name]
	if l == nil {
		l = newLine()
		q.lines[name] = l
	}
	return l
}

// insert and remove keep index and file counts in step with what has been written.
func (q *Queue) insert(e *entry) {
	if e.item.File != "" {
		q.files[e.item.File]++
	}
	q.line(e.item.Target).insert(e)
}

func (q *Queue) remove(e *entry) {
	if file := e.item.File; file != "" {
		if q.files[file]--; q.files[file] == 0 {
			delete(q.files, file)
		}
	}
	e.line.remove(e)
}
