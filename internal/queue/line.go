package queue

import (
	"container/heap"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// line is the index of one target's items. An item lies in one of two heaps while it can be leased, and in none while it is
// parked, settles, or its account or place is leased.
type line struct {
	index
	leasedAccounts map[dsdb.GUID]bool // also while the leased item has been replaced or dropped
	leasedPlaces   map[string]bool
	fresh          byDue // never tried, and not found at the start
	later          byDue // tried, or too long ago proven for a first attempt without asking
	turn           int   // leases of fresh items since the last other one
	parked         int
	delivered      int // that are not parked, settling or due once more
	wake           chan struct{}
}

func newLine() *line {
	return &line{index: newIndex(), leasedAccounts: map[dsdb.GUID]bool{}, leasedPlaces: map[string]bool{}, wake: make(chan struct{}, 1)}
}

// index finds the items of one target. No two have the same account or the same place.
type index struct {
	accounts map[dsdb.GUID]*entry
	places   map[string]*entry
}

func newIndex() index { return index{map[dsdb.GUID]*entry{}, map[string]*entry{}} }

func (x index) add(e *entry) {
	x.accounts[e.item.Account.GUID] = e
	x.places[e.item.Place] = e
}

func (x index) delete(e *entry) {
	delete(x.accounts, e.item.Account.GUID)
	delete(x.places, e.item.Place)
}

// rivals returns the entries that cannot be there together with an item.
func (x index) rivals(item Item) (rivals []*entry) {
	account, place := x.accounts[item.Account.GUID], x.places[item.Place]
	if account != nil {
		rivals = append(rivals, account)
	}
	if place != nil && place != account {
		rivals = append(rivals, place)
	}
	return rivals
}

// entry is one item in the index. A changed item is a new entry: what a lease points at tells whether it is still current.
type entry struct {
	item   Item
	waited bool // since the last run, so that its proof is not fresh whatever the clock says
	line   *line
	heap   *byDue // where it lies, nil if nowhere
	pos    int
}

func (e *entry) current() bool { return e.line.accounts[e.item.Account.GUID] == e }

func (l *line) insert(e *entry) {
	e.line = l
	l.add(e)
	l.count(e, 1)
	l.offer(e)
}

func (l *line) remove(e *entry) {
	l.delete(e)
	l.count(e, -1)
	e.leaveHeap()
}

func (l *line) count(e *entry, by int) {
	switch {
	case e.item.Parked:
		l.parked += by
	case !e.item.Delivered.IsZero():
		l.delivered += by
	}
}

// offer makes an entry leasable, unless it is parked or settles, or its account or its place is leased.
func (l *line) offer(e *entry) {
	if e.heap != nil || e.item.Parked || e.item.Settling || l.leasedAccounts[e.item.Account.GUID] || l.leasedPlaces[e.item.Place] {
		return
	}
	if e.item.Class == "" && !e.waited {
		e.enter(&l.fresh)
	} else {
		e.enter(&l.later)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// pick returns the entry to be leased next, or nil.
func (l *line) pick(proven, due time.Time) *entry {
	for len(l.fresh) > 0 && l.fresh[0].item.Proven.Before(proven) {
		e := l.fresh[0]
		e.leaveHeap()
		e.enter(&l.later)
	}
	backlog := len(l.later) > 0 && !l.later[0].item.Due.After(due)
	switch {
	case len(l.fresh) > 0 && !(backlog && l.turn >= freshTurns):
		return l.fresh[0]
	case backlog:
		return l.later[0]
	default:
		return nil
	}
}

// take leases what pick returned.
func (l *line) take(e *entry) {
	if e.heap == &l.fresh {
		l.turn++
	} else {
		l.turn = 0
	}
	e.leaveHeap()
	l.leasedAccounts[e.item.Account.GUID] = true
	l.leasedPlaces[e.item.Place] = true
}

// giveBack ends the lease of an entry's account and place, and offers what waits there now.
func (l *line) giveBack(e *entry) {
	delete(l.leasedAccounts, e.item.Account.GUID)
	delete(l.leasedPlaces, e.item.Place)
	for _, now := range l.rivals(e.item) {
		l.offer(now)
	}
}

func (l *line) next() (time.Time, bool) {
	switch {
	case len(l.fresh) > 0:
		return l.fresh[0].item.Due, true
	case len(l.later) > 0:
		return l.later[0].item.Due, true
	default:
		return time.Time{}, false
	}
}

func (e *entry) enter(h *byDue) {
	e.heap = h
	heap.Push(h, e)
}

func (e *entry) leaveHeap() {
	if e.heap != nil {
		heap.Remove(e.heap, e.pos)
		e.heap = nil
	}
}

// byDue is a heap, the longest due first.
type byDue []*entry

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].item.Due.Before(h[j].item.Due) }
func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}
func (h *byDue) Push(x any) {
	e := x.(*entry)
	e.pos = len(*h)
	*h = append(*h, e)
}
func (h *byDue) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
