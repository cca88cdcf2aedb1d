package queue

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// line is the index of one target's items. An item lies in one of two orders while it can be leased, and in none while it is
// parked, shelved, settles, or its account or place is leased. No two have the same account or the same place.
type line struct {
	name           string
	accounts       map[dsdb.GUID]*entry
	places         map[digest]*entry
	leasedAccounts map[dsdb.GUID]bool // also while the leased item has been replaced or dropped
	leasedPlaces   map[digest]bool
	fresh          byProof // never tried, and not found at the start
	later          byDue   // tried, or too long ago proven for a first attempt without asking
	turn           int     // leases of fresh items since the last other one
	counts         Counts
	settling       map[*entry][]change.Peer // what Rouse asks for, each second
	wake           chan struct{}
}

func newLine(name string) *line {
	return &line{
		name: name, accounts: map[dsdb.GUID]*entry{}, places: map[digest]*entry{}, leasedAccounts: map[dsdb.GUID]bool{}, leasedPlaces: map[digest]bool{},
		settling: map[*entry][]change.Peer{}, wake: make(chan struct{}, 1),
	}
}

// rivals returns the entries that cannot be there together with another of this account and place.
func (l *line) rivals(guid dsdb.GUID, place digest) (rivals []*entry) {
	account, holder := l.accounts[guid], l.places[place]
	if account != nil {
		rivals = append(rivals, account)
	}
	if holder != nil && holder != account {
		rivals = append(rivals, holder)
	}
	return rivals
}

func (e *entry) current() bool { return e.line.accounts[e.guid] == e }

// insert takes an entry in; peers are its item's.
func (l *line) insert(e *entry, peers []change.Peer) {
	e.line = l
	l.accounts[e.guid], l.places[e.place] = e, e
	if e.is(settling) {
		l.settling[e] = peers
	}
	l.count(e, 1)
	l.offer(e)
}

func (l *line) remove(e *entry) {
	delete(l.accounts, e.guid)
	delete(l.places, e.place)
	delete(l.settling, e)
	l.count(e, -1)
	l.withdraw(e)
}

func (l *line) count(e *entry, by int) {
	switch {
	case e.is(parked):
		l.counts.Parked += by
	case e.is(delivered):
		l.counts.Delivered += by
	case e.is(shelved):
		l.counts.Shelved += by
	default:
		l.counts.Waiting += by
	}
}

// offer makes an entry leasable, unless it is parked, shelved or settles, or its account or its place is leased.
func (l *line) offer(e *entry) {
	if e.in != nowhere || e.is(parked|shelved|settling) || l.leasedAccounts[e.guid] || l.leasedPlaces[e.place] {
		return
	}
	if !e.is(tried) && !e.waited {
		l.fresh.add(e)
	} else {
		heap.Push(&l.later, e)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// withdraw is the opposite of offer.
func (l *line) withdraw(e *entry) {
	switch e.in {
	case inFresh:
		l.fresh.remove(e)
	case inLater:
		heap.Remove(&l.later, int(e.pos))
	}
}

// pick returns the entry to be leased next, or nil.
func (l *line) pick(proven, due time.Duration) *entry {
	for len(l.fresh) > 0 && l.fresh[0].proven < proven {
		e := l.fresh[0]
		l.fresh.remove(e)
		heap.Push(&l.later, e)
	}
	backlog := len(l.later) > 0 && l.later[0].due <= due
	switch {
	case len(l.fresh) > 0 && !(backlog && l.turn >= freshTurns):
		return l.fresh[len(l.fresh)-1]
	case backlog:
		return l.later[0]
	default:
		return nil
	}
}

// take leases what pick returned.
func (l *line) take(e *entry) {
	if e.in == inFresh {
		l.turn++
	} else {
		l.turn = 0
	}
	l.withdraw(e)
	l.leasedAccounts[e.guid] = true
	l.leasedPlaces[e.place] = true
}

// giveBack ends the lease of an entry's account and place, and offers what waits there now.
func (l *line) giveBack(e *entry) {
	delete(l.leasedAccounts, e.guid)
	delete(l.leasedPlaces, e.place)
	for _, now := range l.rivals(e.guid, e.place) {
		l.offer(now)
	}
}

// next returns when the first of the items that wait is due, since the queue's epoch.
func (l *line) next() (time.Duration, bool) {
	switch {
	case len(l.fresh) > 0:
		return l.fresh[0].due, true
	case len(l.later) > 0:
		return l.later[0].due, true
	default:
		return 0, false
	}
}

// byProof is sorted, the last proven last, and that one goes first: whoever has just changed a password is waiting for it, and what cannot be sent
// at once is no worse off behind others. After a few seconds it belongs to the backlog, where the first goes first.
type byProof []*entry

func (f *byProof) add(e *entry) {
	at, _ := f.search(e.proven)
	*f = slices.Insert(*f, at, e)
	e.in = inFresh
}

func (f *byProof) remove(e *entry) {
	at, _ := f.search(e.proven)
	for (*f)[at] != e { // of several proven at the same time
		at++
	}
	if e.in = nowhere; at > 0 {
		*f = slices.Delete(*f, at, at+1)
		return
	}
	(*f)[0] = nil
	*f = (*f)[1:]
}

func (f *byProof) search(proven time.Duration) (int, bool) {
	return slices.BinarySearchFunc(*f, proven, func(e *entry, proven time.Duration) int { return cmp.Compare(e.proven, proven) })
}

// byDue is a heap, the longest due first.
type byDue []*entry

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due < h[j].due }
func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = int32(i), int32(j)
}
func (h *byDue) Push(x any) {
	e := x.(*entry)
	e.pos, e.in = int32(len(*h)), inLater
	*h = append(*h, e)
}
func (h *byDue) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last], e.in = nil, nowhere
	*h = (*h)[:last]
	return e
}
