package watch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// resolveEvery is how often the peers are looked up by name: a DC may join, and one that was restored has another invocationId.
const resolveEvery = 30 * time.Second

// peers knows the other DCs that have forwarders of their own, and how far this one has heard them.
type peers struct {
	ids      map[string]dsdb.GUID // invocationIds by the name in capitals
	resolved time.Time
	heard    []hearing // the oldest first, one for each state of things
	asked    time.Time // last; by the time of day
}

type hearing struct {
	peers []change.Peer
	noted time.Time // when the DC had answered
}

// listen asks the DC how far it has heard the peers. A password changed later was changed after all that.
func (w *Watch) listen(ctx context.Context, dc Directory) ([]change.Peer, error) {
	if len(w.Peers) == 0 {
		return nil, nil
	}
	if w.peers.ids == nil || time.Since(w.peers.resolved) >= resolveEvery {
		controllers, err := dc.Controllers(ctx)
		if err != nil {
			return nil, fmt.Errorf("looking peers up: %w", err)
		}
		w.peers.ids, w.peers.resolved = map[string]dsdb.GUID{}, time.Now()
		for _, c := range controllers {
			w.peers.ids[strings.ToUpper(c.Name)] = c.InvocationID
		}
	}
	asked := time.Now()
	neighbours, err := dc.Neighbours(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking how far peers have been heard: %w", err)
	}
	now := make([]change.Peer, len(w.Peers))
	for i, name := range w.Peers {
		now[i] = change.Peer{Name: name, InvocationID: w.peers.ids[strings.ToUpper(name)]}
		n := slices.IndexFunc(neighbours, func(n directory.Neighbour) bool { return n.InvocationID == now[i].InvocationID })
		if n >= 0 && !now[i].InvocationID.IsZero() {
			now[i].USN, now[i].Heard = neighbours[n].USN, neighbours[n].Heard
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peers.note(now, asked, time.Now(), w.Lag)
	return now, nil
}

// note remembers what has been heard, and forgets what no capture that still waits for its proof can be older than. Of a peer that the
// DC hears by way of others it has no recent time; there a USN that rises is the sign.
func (p *peers) note(now []change.Peer, asked, answered time.Time, keep time.Duration) {
	var last []change.Peer
	if n := len(p.heard); n > 0 {
		last = p.heard[n-1].peers
	}
	same := last != nil
	for i, before := range last {
		heard := before.Heard
		if now[i].USN != before.USN || now[i].InvocationID != before.InvocationID {
			same, heard = false, p.asked
		}
		if before.USN > 0 && now[i].InvocationID == before.InvocationID && heard.After(now[i].Heard) {
			now[i].Heard = heard
		}
	}
	p.asked = asked.Round(0)
	if same {
		p.heard[len(p.heard)-1].peers = now
		return
	}
	p.heard = append(p.heard, hearing{now, answered})
	for len(p.heard) > 1 && answered.Sub(p.heard[1].noted) > keep {
		p.heard = p.heard[1:]
	}
}

// lastHeard returns how far the peers had been heard when the DC last told.
func (w *Watch) lastHeard() []change.Peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.peers.heard); n > 0 {
		return slices.Clone(w.peers.heard[n-1].peers)
	}
	return w.unknown()
}

func (w *Watch) unknown() (peers []change.Peer) {
	for _, name := range w.Peers {
		peers = append(peers, change.Peer{Name: name})
	}
	return peers
}

// PeersBefore returns how far the peers had been heard before a moment, at the least: with USN 0, if that is not known.
func (w *Watch) PeersBefore(moment time.Time) []change.Peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range slices.Backward(w.peers.heard) {
		if h.noted.Before(moment) {
			return slices.Clone(h.peers)
		}
	}
	return w.unknown()
}
