package deliver

import (
	"slices"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// Settling: several DCs of a domain have a forwarder each, and change the same account before they have heard of each other. Each DC
// proves its own change, and its forwarder sends it. Then AD settles on one of them, and the targets hold the one that was sent last.
// The loser's DC gets to know, but has not got the password. The winner's has it, and learns nothing: the loser leaves no trace there.
//
// So whoever may be the winner speaks last. A delivered change of a DC that has peers stays in the queue, with its file, until no
// peer's forwarder sends anything older any more, and is then delivered once more, under all the usual rules: what AD did not settle on
// has been superseded by then.
//
// When is that? Once a DC holds a change, its forwarder begins no attempt with an older one for longer than a look at the directory
// counts. And when has the peer's DC got the change? It cannot be asked. But where a DC hears a peer, the peer hears it too, within peerLag.
// And whatever a DC applies raises its highestCommittedUSN, which it tells with its next answer to a pull: while that has not risen
// since before the change, it has not got the change.
//
// So what is not covered: a peer's DC that makes changes and is heard for more than peerLag without hearing this one, and one whose
// way was up for seconds only, in one direction; a peer's forwarder that stood still for that long between its last look and its request (a
// suspended machine); and a peer that does not name this DC as its peer.
//
// Nor can it be told that the peer's forwarder has nothing older. So each change goes twice; not more often, and only once where it has
// waited for its target so long that the first delivery is the last word. So it is of a password that the user has to change at the target: once it is
// there he may, and a second delivery would overwrite his own.
const (
	// peerLag is how long a peer may take to hear of a change, from when it was heard itself. Samba notifies after 5 seconds; the rest is
	// for a connection that was lost, and is tried again at intervals that grow.
	peerLag = time.Minute
	// settleFor is how long after a peer was heard the last attempt with anything older has ended.
	settleFor = peerLag + markFor + attemptTimeout
)

// hearing is a peer as a mark had it.
type hearing struct {
	change.Peer
	heard time.Time // Peer.Heard as a time of this process
	noted time.Time // when the mark was read
}

// hear notes what a mark says of the peers. Of a peer it keeps the newest hearing of those that are settleFor old, and all that came
// after it: whatever is true of an older one is true of that.
func (w *watch) hear(peers []change.Peer, now time.Time) {
	heard := make(map[string][]hearing, len(peers))
	for _, p := range peers {
		known := w.heard[p.Name]
		age := now.Sub(p.Heard.Round(0)) // by the time of day
		if n := len(known); age >= 0 && (n == 0 || !known[n-1].says(p)) {
			known = append(known, hearing{p, now.Add(-age), now})
		}
		for len(known) > 1 && now.Sub(known[1].noted) >= settleFor {
			known = known[1:]
		}
		heard[p.Name] = known
	}
	w.heard = heard
}

func (h hearing) says(p change.Peer) bool {
	return h.InvocationID == p.InvocationID && h.USN == p.USN && h.Heard.Equal(p.Heard)
}

// lastWord reports whether no peer's forwarder sends anything any more that is older than a change of that proof, before which the peers had been
// heard so far. Of peers that have left the configuration nothing is expected.
func (w *watch) lastWord(proven time.Time, peers []change.Peer, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look(now)
	if w.asOf.IsZero() {
		return len(peers) == 0
	}
	return !slices.ContainsFunc(peers, func(before change.Peer) bool {
		known, configured := w.heard[before.Name]
		return configured && !(len(known) > 0 && known[0].has(proven, before) && now.Sub(known[0].noted) >= settleFor)
	})
}

// lastWord reports whether a delivery of the item that begins now is the last one.
func (f *Forwarder) lastWord(i queue.Item, now time.Time) bool {
	return i.MustChange || f.watch.lastWord(i.Proven, i.Peers, now)
}

// has reports whether the peer may have heard of a change, of which it had not before.
func (h hearing) has(proven time.Time, before change.Peer) bool {
	return h.heard.After(proven) && (h.InvocationID != before.InvocationID || h.USN > before.USN)
}

// peers returns the peers of the last mark, sorted by name.
func (w *watch) peers() []PeerStatus {
	peers := []PeerStatus{}
	for name, known := range w.heard {
		p := PeerStatus{Name: name}
		if n := len(known); n > 0 {
			p.Heard = known[n-1].Heard
		}
		peers = append(peers, p)
	}
	slices.SortFunc(peers, func(a, b PeerStatus) int { return strings.Compare(a.Name, b.Name) })
	return peers
}

// rouse makes due what has settled.
func (f *Forwarder) rouse() error {
	now := time.Now()
	_, err := f.queue.Rouse(func(s queue.Settler) bool { return f.watch.lastWord(s.Proven, s.Peers, now) })
	return err
}

// resettles makes an item of a change that was delivered, but that the queue has lost, settle again, and reports whether it is to.
func (f *Forwarder) resettles(item *queue.Item, last ledger.Entry) bool {
	if f.begun || len(item.Peers) == 0 || item.MustChange || last.Class != target.Delivered || !last.Stamp.Equal(item.Stamp) {
		return false
	}
	item.Delivered, item.Settling, item.Class = last.DeliveredAt, true, target.Delivered
	return true
}
