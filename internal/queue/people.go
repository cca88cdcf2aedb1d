package queue

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// What people ask for at the command line.

// Each tells of all items, of one target if name is not empty, the longest captured first, and whether they are leased. It holds no copy
// of them, as they may be many, and no lock while it tells: what changes meanwhile is told as it was. An error of tell ends it and is
// returned as it is.
func (q *Queue) Each(name string, tell func(i Item, leased bool) error) error {
	type row struct {
		*entry
		leased bool
	}
	q.mu.Lock()
	var rows []row
	for of, l := range q.lines {
		if name != "" && name != of {
			continue
		}
		for _, e := range l.accounts {
			rows = append(rows, row{e, l.leasedAccounts[e.item.Account.GUID]})
		}
	}
	q.mu.Unlock()
	slices.SortFunc(rows, func(a, b row) int { return byCapture(&a.item, &b.item) }) // an entry's item never changes
	for _, r := range rows {
		if err := tell(r.item, r.leased); err != nil {
			return err
		}
	}
	return nil
}

func byCapture(a, b *Item) int {
	return cmp.Or(a.Captured.Compare(b.Captured), cmp.Compare(a.Capture, b.Capture), cmp.Compare(a.Target, b.Target))
}

// Of returns an account's items, sorted by target, and for which targets they are leased.
func (q *Queue) Of(guid dsdb.GUID) (items []Item, leased map[string]bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	leased = map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(q.lines)) {
		if e := q.lines[name].accounts[guid]; e != nil {
			items = append(items, e.item)
			leased[name] = q.lines[name].leasedAccounts[guid]
		}
	}
	return items, leased
}

// hurried is how many items are written in one transaction that becomes no bigger the more wait.
const hurried = 1024

// Hurry makes those items due now that match, wait for another attempt and are not leased, and returns how many these were. It takes
// its time where they are many, and holds nobody up for longer than a thousand take.
func (q *Queue) Hurry(match func(Item) bool) (n int, err error) {
	now := time.Now()
	late := func(e *entry) bool {
		i := &e.item
		return !i.Parked && !i.Settling && i.Due.After(now) && e.heap != nil && match(*i)
	}
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
	for some := range slices.Chunk(all, hurried) {
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
	var old, due []*entry
	for _, e := range some {
		if e.current() && late(e) { // it may have gone, or be leased, by now
			item := e.item
			item.Due = time.Now()
			old, due = append(old, e), append(due, &entry{item: item, waited: e.waited})
		}
	}
	if err := q.replace(old, due); err != nil {
		return 0, err
	}
	return len(due), nil
}
