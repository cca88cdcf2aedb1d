package queue

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// What people ask for at the command line.

// Each tells of all items, of one target if name is not empty, the longest captured first, and whether they are leased. It holds but a few
// of them at a time, as they may be many, and no lock while it tells: what comes meanwhile is not told, what goes may not be. An error of tell ends it and is
// returned as it is.
func (q *Queue) Each(name string, tell func(i Item, leased bool) error) error {
	return q.each(name, func(*entry) bool { return true }, tell)
}

// Parked tells of the items that are parked, the longest captured first.
func (q *Queue) Parked(tell func(Item) error) error {
	return q.each("", func(e *entry) bool { return e.is(parked) }, func(i Item, _ bool) error { return tell(i) })
}

// Waiting tells of the items that wait for their first delivery, and are not shelved, the longest captured first.
func (q *Queue) Waiting(tell func(Item) error) error {
	return q.each("", (*entry).waits, func(i Item, _ bool) error { return tell(i) })
}

func (q *Queue) each(name string, which func(*entry) bool, tell func(i Item, leased bool) error) (err error) {
	q.mu.Lock()
	var all []*entry
	for of, l := range q.lines {
		if name != "" && name != of {
			continue
		}
		for _, e := range l.accounts {
			if which(e) {
				all = append(all, e)
			}
		}
	}
	q.mu.Unlock()
	slices.SortFunc(all, byCapture)
	if len(all) > atATime {
		defer func() {
			if failed := q.db.Rest(); failed != nil {
				err = errors.Join(err, failed)
			}
		}()
	}
	for some := range slices.Chunk(all, atATime) {
		items, leased, err := q.still(some, which)
		if err != nil {
			return fmt.Errorf("reading items: %w", err)
		}
		for n, i := range items {
			if err := tell(i, leased[n]); err != nil {
				return err
			}
		}
	}
	return nil
}

func byCapture(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.captured, b.captured), a.guid.Compare(b.guid), cmp.Compare(a.line.name, b.line.name))
}

// still reads the items of entries that are there still, or what has become of the same account's meanwhile.
func (q *Queue) still(entries []*entry, which func(*entry) bool) (items []Item, leased []bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var now []*entry
	for _, e := range entries {
		if e = e.line.accounts[e.guid]; e != nil && which(e) {
			now, leased = append(now, e), append(leased, e.line.leasedAccounts[e.guid])
		}
	}
	items, err = q.read(now)
	return items, leased, err
}

// Of returns an account's items, sorted by target, and for which targets they are leased.
func (q *Queue) Of(guid dsdb.GUID) (items []Item, leased map[string]bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	leased = map[string]bool{}
	var entries []*entry
	for _, name := range slices.Sorted(maps.Keys(q.lines)) {
		if e := q.lines[name].accounts[guid]; e != nil {
			entries = append(entries, e)
			leased[name] = q.lines[name].leasedAccounts[guid]
		}
	}
	items, err = q.read(entries)
	if err != nil {
		return nil, nil, fmt.Errorf("reading items: %w", err)
	}
	return items, leased, nil
}

// Hurry makes those items due now that match, wait for another attempt and are not leased, and returns how many these were. It takes
// its time where they are many, and holds nobody up for longer than a thousand take.
func (q *Queue) Hurry(match func(account dsdb.GUID, target string) bool) (n int, err error) {
	now := time.Since(q.epoch)
	late := func(e *entry) bool { return e.in != nowhere && e.due > now && match(e.guid, e.line.name) }
	q.mu.Lock()
	var all []*entry
	for _, l := range q.lines {
		for _, e := range l.accounts {
			if late(e) {
				all = append(all, e)
			}
		}
	}
	q.mu.Unlock()
	for some := range slices.Chunk(all, atATime) {
		done, err := q.hurry(some, late)
		if n += done; err != nil {
			return n, fmt.Errorf("making items due: %w", err)
		}
	}
	return n, nil
}

func (q *Queue) hurry(some []*entry, late func(*entry) bool) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var due []*entry
	for _, e := range some {
		if e.current() && late(e) { // it may have gone, or be leased, by now
			due = append(due, e)
		}
	}
	if err := q.edit(due, func(item *Item) { item.Due = time.Now() }); err != nil {
		return 0, err
	}
	return len(due), nil
}
