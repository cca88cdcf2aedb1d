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
// Bytes: a bbolt database (internal/boltfile) with two buckets. "items": key objectGUID and target's name, value Item, whose head (index.go) holds what
// the index needs. "untold": what the ledger may not have been told of. It holds
// no secret, only names of files in spool/outgoing, and can be rebuilt from them. In memory is what decides which item is next, some 200 bytes
// of each, and no text; everything else is read when it is used. So a hundred thousand may wait, and a start is one walk over the heads. The index in memory never says what the disk
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

	// What the ledger may not have been told of: a list of keys, as of the last Add.
	untold    = "untold"
	untoldKey = "added"

	// freshTurns is how many items in a row that were never tried go before the ones that wait for another attempt: the user at
	// the desk does not wait for the backlog, and the backlog moves all the same.
	freshTurns = 4

	// maxAhead is how far ahead a due time from the disk may lie. More than an hour no target may ask for: it was the clock.
	maxAhead = time.Hour
	// clockSlack is how far the time of day and the clock that nobody sets may part before the former was set.
	clockSlack = 10 * time.Millisecond

	// atATime is how many items are read, or changed, in one transaction that becomes no bigger the more there are.
	atATime = 1024
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
	Shelved  bool           `json:"shelved,omitempty"` // the target does not want it, and it is not leased
	Resume   time.Time      `json:"resume,omitzero"`   // until when the target asked for a pause, in answer to the last attempt
	Pause    time.Duration  `json:"pause,omitempty"`   // how long that was, in nanoseconds: Resume may be of a clock that was ahead

	// MustChange is the route's: the target is to demand another password at the next login there.
	MustChange bool `json:"must_change,omitempty"`

	// Of a change that another DC's forwarder may overtake with an older one (internal/deliver, settle.go).
	Peers     []change.Peer `json:"peers,omitempty"`    // as the change has them
	Delivered time.Time     `json:"delivered,omitzero"` // for the first time; zero: not yet
	Settling  bool          `json:"settling,omitempty"` // delivered, and not due again until Rouse says so
}

// Lease is the right to try one item. It is returned by one Return or Release.
type Lease struct {
	Item
	entry *entry
}

// Result is what became of a leased item, for Return.
type Result struct {
	lease Lease
	edit  func(*Item) // nil: the item is dropped
}

// Done drops the item.
func (l Lease) Done() Result { return Result{l, nil} }

// Retry says that an attempt counts; the item is due again at due.
func (l Lease) Retry(due time.Time, class target.Class, reason string) Result {
	return l.retry(due, time.Time{}, class, reason)
}

// Throttle is Retry after a target asked for a pause of all its items, until resume.
func (l Lease) Throttle(due, resume time.Time, reason string) Result {
	return l.retry(due, resume, target.Throttled, reason)
}

func (l Lease) retry(due, resume time.Time, class target.Class, reason string) Result {
	return Result{l, func(item *Item) {
		item.Attempts++
		item.Due, item.Resume, item.Class, item.Reason = due, resume, class, reason
		if item.Pause = 0; !resume.IsZero() {
			item.Pause = time.Until(resume)
		}
	}}
}

// Postpone says that an attempt does not count: it was not the item's fault. The item is due at once.
func (l Lease) Postpone(class target.Class, reason string) Result {
	return Result{l, func(item *Item) {
		item.Due, item.Class, item.Reason = time.Now(), class, reason
	}}
}

// Unwanted is the class of an item that is shelved.
const Unwanted target.Class = "unwanted"

// Shelve says that the item was not tried, since the target does not want that, and is not to be until Queue.Shelve says otherwise.
func (l Lease) Shelve() Result { return Result{l, func(item *Item) { item.Shelve() }} }

// Shelve shelves an item that is not in a queue yet.
func (i *Item) Shelve() {
	i.Shelved, i.Class, i.Reason = true, Unwanted, "the target does not want the account any more"
	i.Resume, i.Pause = time.Time{}, 0
}

// unshelve is the opposite.
func (i *Item) unshelve() {
	i.Shelved, i.Due, i.Class, i.Reason = false, time.Now(), target.Temporary, "the target did not want the account for a while"
}

// Settle says that a delivery may not be the last word. The item stays where it is, with its secret, and is not leased until Rouse.
func (l Lease) Settle() Result {
	return Result{l, func(item *Item) {
		if item.Delivered.IsZero() {
			item.Delivered = time.Now()
		}
		item.Settling, item.Attempts, item.Class, item.Reason = true, 0, target.Delivered, ""
	}}
}

// Park says that only the account's next change can help: the item stays, without a secret.
func (l Lease) Park(class target.Class, reason string) Result {
	return Result{l, func(item *Item) {
		item.Attempts++
		item.Due, item.Class, item.Reason = time.Now(), class, reason
		item.Parked, item.File = true, ""
	}}
}

// Queue is an open queue. Its methods may be called concurrently.
type Queue struct {
	db    *boltfile.DB
	epoch time.Time // what the index counts its times from

	mu     sync.Mutex
	lines  map[string]*line // by target
	files  map[digest]int32 // how many items refer to the file
	untold [][]byte         // keys
}

// Open opens the queue in the file, or makes it. What is damaged is dropped, with an event: the files in spool/outgoing hold
// what is needed to queue it again.
func Open(path string, log *event.Log) (*Queue, error) {
	db, aside, err := boltfile.Open(path, bucket, untold)
	if err != nil {
		return nil, fmt.Errorf("opening queue: %w", err)
	}
	if aside != "" {
		log.StateDamaged(path, aside)
	}
	q := &Queue{db: db, epoch: time.Now(), lines: map[string]*line{}, files: map[digest]int32{}}
	dropped, err1 := db.Load(bucket, q.load)
	damaged, err2 := db.Load(untold, func(_, _, value []byte) error {
		var added addition
		err := json.Unmarshal(value, &added)
		q.untold = added.Keys
		return err
	})
	if err := errors.Join(err1, err2, db.Rest()); err != nil {
		return nil, errors.Join(fmt.Errorf("opening queue: %w", err), db.Close())
	}
	if dropped += damaged; dropped > 0 {
		log.ValuesDamaged(path, dropped)
	}
	return q, nil
}

// load takes an item into the index at the start.
func (q *Queue) load(key, head, value []byte) error {
	h, err := parseHead(head)
	var peers []change.Peer
	if len(head) == 0 || h.flags&settling != 0 { // an older version's, or one whose peers are asked for each second
		var item Item
		if err := json.Unmarshal(value, &item); err != nil {
			return err
		}
		if string(item.key()) != string(key) {
			return errors.New("an item lies under another's key")
		}
		h, err, peers = headOf(item), nil, item.Peers
	}
	guid, name, ok := splitKey(key)
	if err != nil || !ok {
		return errors.New("an item cannot be decoded")
	}
	if len(q.line(name).rivals(guid, h.place)) > 0 {
		return errors.New("two items for one place")
	}
	e := q.entry(guid, h)
	e.waited = true
	now := time.Since(q.epoch)
	e.due = min(e.due, now+maxAhead)
	e.proven = min(e.proven, 0) // before this run, whatever a clock said that was ahead
	e.captured = min(e.captured, q.epoch.UnixNano())
	q.insert(q.line(name), e, peers)
	return nil
}

// Close gives the file up. No method is called after it.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.db.Close()
}

// Rest gives memory back that reading took. It may be called at any time.
func (q *Queue) Rest() error { return q.db.Rest() }

// addition is the value in the bucket "untold".
type addition struct {
	Keys [][]byte `json:"keys"`
}

// Add queues items, in one transaction. An item that is not newer than what is in its place is ignored. It returns the items
// that were replaced; a file that Needs then denies is the caller's to shred. What is queued counts as untold, until Told.
func (q *Queue) Add(items ...Item) (replaced []Item, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	rivals, err := q.rivals(items)
	if err != nil {
		return nil, fmt.Errorf("queueing: %w", err)
	}
	winners := map[string]batch{} // by target
	losers := map[*entry]Item{}   // of those in the queue
	for _, item := range items {
		if _, ok := winners[item.Target]; !ok {
			winners[item.Target] = batch{map[dsdb.GUID]*Item{}, map[string]*Item{}}
		}
		queued, fellows := q.line(item.Target).rivals(item.Account.GUID, digestOf(item.Place)), winners[item.Target].rivals(item)
		if slices.ContainsFunc(queued, func(e *entry) bool { return !item.newerThan(rivals[e]) }) ||
			slices.ContainsFunc(fellows, func(i *Item) bool { return !item.newerThan(*i) }) {
			continue
		}
		for _, e := range queued {
			losers[e] = rivals[e]
		}
		for _, i := range fellows {
			winners[item.Target].delete(i)
		}
		winners[item.Target].add(&item)
	}
	var added []*Item
	for _, b := range winners {
		added = slices.AppendSeq(added, maps.Values(b.accounts))
	}
	if len(added) == 0 {
		return nil, nil
	}
	keys := slices.Clone(q.untold)
	for _, item := range added {
		keys = append(keys, item.key())
	}
	err = q.db.Update(func(tx boltfile.Tx) error {
		for _, item := range losers {
			if err := tx.Delete(bucket, item.key()); err != nil {
				return err
			}
		}
		for _, item := range added {
			if err := put(tx, *item); err != nil {
				return err
			}
		}
		return tx.Put(untold, []byte(untoldKey), addition{keys})
	})
	if err != nil {
		return nil, fmt.Errorf("queueing: %w", err)
	}
	q.untold = keys
	for e, item := range losers {
		replaced = append(replaced, item)
		q.remove(e)
	}
	for _, item := range added {
		q.insert(q.line(item.Target), q.entryOf(*item), item.Peers)
	}
	return replaced, nil
}

// batch holds items of one target that are being added. No two have the same account or the same place.
type batch struct {
	accounts map[dsdb.GUID]*Item
	places   map[string]*Item
}

func (b batch) add(i *Item)    { b.accounts[i.Account.GUID], b.places[i.Place] = i, i }
func (b batch) delete(i *Item) { delete(b.accounts, i.Account.GUID); delete(b.places, i.Place) }

func (b batch) rivals(item Item) (rivals []*Item) {
	account, place := b.accounts[item.Account.GUID], b.places[item.Place]
	if account != nil {
		rivals = append(rivals, account)
	}
	if place != nil && place != account {
		rivals = append(rivals, place)
	}
	return rivals
}

// rivals reads the items that cannot be there together with one of these.
func (q *Queue) rivals(items []Item) (map[*entry]Item, error) {
	var entries []*entry
	for _, item := range items {
		entries = append(entries, q.line(item.Target).rivals(item.Account.GUID, digestOf(item.Place))...)
	}
	read, err := q.read(entries)
	rivals := map[*entry]Item{}
	for i, item := range read {
		rivals[entries[i]] = item
	}
	return rivals, err
}

// newerThan says which of two rivals stays. Stamps order one account's changes; two accounts' only the time of the proof does.
func (i Item) newerThan(other Item) bool {
	if i.Account.GUID == other.Account.GUID {
		return i.Stamp.Compare(other.Stamp) > 0
	}
	return i.Proven.After(other.Proven)
}

// Untold returns the items that the ledger may not have been told of: those that were added since Told, or right before the last run ended.
func (q *Queue) Untold() ([]Item, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var entries []*entry
	for _, key := range q.untold {
		if guid, name, ok := splitKey(key); ok && q.line(name).accounts[guid] != nil {
			entries = append(entries, q.line(name).accounts[guid])
		}
	}
	return q.read(entries)
}

// Told notes that the ledger has been told of all that was added until now.
func (q *Queue) Told() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.untold = nil // the disk says so with the next Add; until then the last one may be told once more
}

// Supersede drops those items of these accounts and places, waiting, leased or parked, that are outdated, and returns them.
func (q *Queue) Supersede(accounts iter.Seq[dsdb.GUID], places iter.Seq[string], outdated func(Item) bool) ([]Item, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	met := map[*entry]bool{}
	for _, l := range q.lines {
		for guid := range accounts {
			if e := l.accounts[guid]; e != nil {
				met[e] = true
			}
		}
		for place := range places {
			if e := l.places[digestOf(place)]; e != nil {
				met[e] = true
			}
		}
	}
	entries := slices.Collect(maps.Keys(met))
	items, err := q.read(entries)
	if err != nil {
		return nil, fmt.Errorf("looking for outdated items: %w", err)
	}
	var old []*entry
	var dropped []Item
	for i, item := range items {
		if outdated(item) {
			old, dropped = append(old, entries[i]), append(dropped, item)
		}
	}
	return dropped, q.drop(old)
}

// Shelve shelves the accounts' items that are unwanted, and takes those back that are not any more, but for what is leased or parked. It returns those that it shelved. No
// account is named twice.
func (q *Queue) Shelve(accounts iter.Seq[dsdb.GUID], unwanted func(Item) bool) (down []Item, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var entries []*entry
	for _, l := range q.lines {
		for guid := range accounts {
			if e := l.accounts[guid]; e != nil && !e.is(parked) && (e.is(shelved) || !l.leasedAccounts[guid]) {
				entries = append(entries, e)
			}
		}
	}
	items, err := q.read(entries)
	var off, back []*entry
	for i, item := range items {
		switch is := unwanted(item); {
		case is && !item.Shelved:
			off, down = append(off, entries[i]), append(down, item)
		case !is && item.Shelved:
			back = append(back, entries[i])
		}
	}
	if err = errors.Join(err, q.edit(off, (*Item).Shelve), q.edit(back, (*Item).unshelve)); err != nil {
		return nil, fmt.Errorf("shelving items: %w", err)
	}
	return down, nil
}

// Expire drops the items captured before a time, except those that are leased or parked, and returns them.
func (q *Queue) Expire(before time.Time) ([]Item, error) {
	captured := nanoseconds(before)
	return q.dropIf(func(l *line, e *entry) bool {
		return !e.is(parked) && e.captured < captured && !l.leasedAccounts[e.guid]
	})
}

// Forget drops the items that refer to a file, leased or not, and returns them.
func (q *Queue) Forget(file string) ([]Item, error) {
	which := fileDigest(file)
	return q.dropIf(func(_ *line, e *entry) bool { return e.file == which })
}

func (q *Queue) dropIf(condition func(*line, *entry) bool) ([]Item, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var matching []*entry
	for _, l := range q.lines {
		for _, e := range l.accounts {
			if condition(l, e) {
				matching = append(matching, e)
			}
		}
	}
	items, err := q.read(matching)
	if err != nil {
		return nil, fmt.Errorf("dropping items: %w", err)
	}
	return items, q.drop(matching)
}

func (q *Queue) drop(entries []*entry) error {
	if len(entries) == 0 {
		return nil
	}
	err := q.db.Update(func(tx boltfile.Tx) error {
		for _, e := range entries {
			if err := tx.Delete(bucket, e.key()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("dropping items: %w", err)
	}
	for _, e := range entries {
		q.remove(e)
	}
	return nil
}

// Ready reports whether Lease would give an item.
func (q *Queue) Ready(name string, proven, due time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line(name).pick(proven.Sub(q.epoch), due.Sub(q.epoch)) != nil
}

// Lease leases the target's next item: of those of this run that were never tried, and were proven not before proven, the one that was proven
// last; or else the one that is due for longest, not after due.
func (q *Queue) Lease(name string, proven, due time.Time) (lease Lease, ok bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.line(name)
	e := l.pick(proven.Sub(q.epoch), due.Sub(q.epoch))
	if e == nil {
		return Lease{}, false, nil
	}
	items, err := q.read([]*entry{e})
	if err != nil {
		return Lease{}, false, fmt.Errorf("leasing an item: %w", err)
	}
	l.take(e)
	return Lease{items[0], e}, true, nil
}

// Current reports whether the lease still stands for the newest change of its account.
func (q *Queue) Current(l Lease) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return l.entry.current()
}

// Stands reports whether the lease is Current, and Lease might give its item for these times, too.
func (q *Queue) Stands(l Lease, proven, due time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := l.entry
	fresh := !e.is(tried) && !e.waited && e.proven >= proven.Sub(q.epoch)
	return e.current() && (fresh || e.due <= due.Sub(q.epoch))
}

// Return returns leases, in one transaction, and does to their items what the results say, unless a newer one has taken the place. On an error
// none is returned.
func (q *Queue) Return(results ...Result) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := make([]Item, len(results))
	var changed []int
	for i, r := range results {
		if !r.lease.entry.current() {
			continue
		}
		changed, items[i] = append(changed, i), r.lease.Item
		if r.edit != nil {
			items[i].Shelved = false
			r.edit(&items[i])
		}
	}
	if len(changed) > 0 {
		err := q.db.Update(func(tx boltfile.Tx) error {
			for _, i := range changed {
				if err := write(tx, items[i], results[i].edit == nil); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("updating items: %w", err)
		}
	}
	for _, i := range changed {
		q.remove(results[i].lease.entry)
	}
	for _, r := range results {
		r.lease.entry.line.giveBack(r.lease.entry)
	}
	for _, i := range changed {
		if results[i].edit != nil {
			q.insert(results[i].lease.entry.line, q.entryOf(items[i]), items[i].Peers)
		}
	}
	return nil
}

func write(tx boltfile.Tx, item Item, gone bool) error {
	if gone {
		return tx.Delete(bucket, item.key())
	}
	return put(tx, item)
}

// Release returns a lease as if it had never been.
func (q *Queue) Release(l Lease) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.entry.line.giveBack(l.entry)
}

// Settler is an item that settles, as Rouse asks about it.
type Settler struct {
	Account dsdb.GUID
	Proven  time.Time
	Peers   []change.Peer
}

// Rouse makes those items that settle and are ready due now, in one transaction, and returns how many these were.
func (q *Queue) Rouse(ready func(Settler) bool) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var roused []*entry
	for _, l := range q.lines {
		for e, peers := range l.settling {
			if ready(Settler{e.guid, q.time(e.proven), peers}) {
				roused = append(roused, e)
			}
		}
	}
	if err := q.edit(roused, func(item *Item) { item.Settling, item.Due = false, time.Now() }); err != nil {
		return 0, fmt.Errorf("rousing items: %w", err)
	}
	return len(roused), nil
}

// edit changes items that are not leased, in one transaction.
func (q *Queue) edit(entries []*entry, change func(*Item)) error {
	if len(entries) == 0 {
		return nil
	}
	items, err := q.read(entries)
	if err != nil {
		return err
	}
	for i := range items {
		change(&items[i])
	}
	err = q.db.Update(func(tx boltfile.Tx) error {
		for _, item := range items {
			if err := put(tx, item); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, old := range entries {
		e := q.entryOf(items[i])
		e.waited = old.waited
		q.remove(old)
		q.insert(old.line, e, items[i].Peers)
	}
	return nil
}

// Next returns when the first of the target's items that wait is due; false if none waits.
func (q *Queue) Next(name string) (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	due, ok := q.line(name).next()
	if !ok {
		return time.Time{}, false
	}
	return q.time(due), true
}

// Wake receives after something changed that may let the target's next item be leased sooner. One receiver per target.
func (q *Queue) Wake(name string) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line(name).wake
}

// Needs reports whether an item refers to the file of that name.
func (q *Queue) Needs(file []byte) bool {
	which := digestOf(file)
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.files[which] > 0
}

// Counts says how many of a target's items are where: each is counted once.
type Counts struct {
	Waiting   int // for their first delivery, leased ones included
	Delivered int // and in the queue still, settling or due once more
	Parked    int
	Shelved   int
}

// Count returns how many items of the target there are.
func (q *Queue) Count(name string) Counts {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line(name).counts
}

// Waits reports whether an item of the account waits for its first delivery to the target.
func (q *Queue) Waits(guid dsdb.GUID, name string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.line(name).accounts[guid]
	return e != nil && e.waits()
}

// CountSince returns how many of the items that wait for their first delivery to the target, and are not shelved, were proven before a moment.
func (q *Queue) CountSince(name string, moment time.Time) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := moment.Sub(q.epoch)
	for _, e := range q.line(name).accounts {
		if e.waits() && e.proven < before {
			n++
		}
	}
	return n
}

// Paused returns until when, as an item that waits says, the target asked for a pause, and in which words.
func (q *Queue) Paused(name string) (until time.Time, why string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var entries []*entry
	for _, e := range q.line(name).accounts {
		if e.is(paused) {
			entries = append(entries, e)
		}
	}
	now := time.Now()
	for some := range slices.Chunk(entries, atATime) {
		items, err := q.read(some)
		if err != nil {
			return until, why, fmt.Errorf("looking for a pause: %w", err)
		}
		for _, i := range items {
			left := min(i.Resume.Sub(now), maxAhead)
			if i.Pause > 0 { // an older version's has none
				left = min(left, i.Pause)
			}
			if resume := now.Add(left); resume.After(until) {
				until, why = resume, i.Reason
			}
		}
	}
	return until, why, nil
}

func (i Item) key() []byte { return append(i.Account.GUID[:], i.Target...) }

func splitKey(key []byte) (guid dsdb.GUID, name string, ok bool) {
	if len(key) <= len(guid) {
		return guid, "", false
	}
	return dsdb.GUID(key[:len(guid)]), string(key[len(guid):]), true
}

func put(tx boltfile.Tx, item Item) error {
	return tx.PutHead(bucket, item.key(), headOf(item).marshal(), item)
}

// read reads the items of entries, in their order. Their times are those of the index.
func (q *Queue) read(entries []*entry) (items []Item, err error) {
	if len(entries) == 0 {
		return nil, nil
	}
	items = make([]Item, len(entries))
	err = q.db.View(func(tx boltfile.Tx) error {
		for i, e := range entries {
			found, err := tx.Get(bucket, e.key(), &items[i])
			if err != nil {
				return err
			}
			if !found {
				return fmt.Errorf("%w: an item is not where it was put", boltfile.ErrDamaged)
			}
			items[i].Due, items[i].Proven = q.time(e.due), q.time(e.proven)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return items, nil
}

// time returns a time of the index, with the time of day as it is counted now, if the clock has been set since the epoch.
func (q *Queue) time(sinceEpoch time.Duration) time.Time {
	now := time.Now()
	passed := now.Sub(q.epoch)
	if by := now.Round(0).Sub(q.epoch.Round(0)) - passed; by.Abs() < clockSlack {
		return q.epoch.Add(sinceEpoch)
	}
	return now.Add(sinceEpoch - passed)
}

func (q *Queue) line(name string) *line {
	l := q.lines[name]
	if l == nil {
		l = newLine(name)
		q.lines[name] = l
	}
	return l
}

// insert and remove keep index and file counts in step with what has been written.
func (q *Queue) insert(l *line, e *entry, peers []change.Peer) {
	if e.file != (digest{}) {
		q.files[e.file]++
	}
	l.insert(e, peers)
}

func (q *Queue) remove(e *entry) {
	if e.file != (digest{}) {
		if q.files[e.file]--; q.files[e.file] == 0 {
			delete(q.files, e.file)
		}
	}
	e.line.remove(e)
}
