package deliver

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// Status is a picture of the forwarder for people and for scripts.
type Status struct {
	Watch   WatchStatus    `json:"watch"`
	Targets []TargetStatus `json:"targets"` // in the order of the configuration
	Parked  []ParkedStatus `json:"parked"`  // the longest captured first, maxParked at most: Queue tells of all

	// Drift counts what Drift lists, by its reasons.
	Drift map[change.Reason]int `json:"drift"`
}

// WatchStatus says until when the directory has been seen.
type WatchStatus struct {
	AsOf  time.Time `json:"as_of,omitzero"`
	Fresh bool      `json:"fresh"`

	// Peers are the other DCs that have forwarders of their own; empty until the agent has told.
	Peers []PeerStatus `json:"peers"`
}

// PeerStatus says when the agent's DC last heard a peer.
type PeerStatus struct {
	Name  string    `json:"name"`
	Heard time.Time `json:"heard,omitzero"`
}

// TargetStatus is one target's.
type TargetStatus struct {
	Name          string        `json:"name"`
	State         State         `json:"state"`
	Since         time.Time     `json:"since,omitzero"`  // unless up
	Error         string        `json:"error,omitempty"` // unless up
	Waiting       int           `json:"waiting"`
	Settling      int           `json:"settling"` // delivered, and to be delivered once more when the peers have been heard
	Parked        int           `json:"parked"`
	Shelved       int           `json:"shelved"`                 // the target has stopped wanting these accounts: kept, and not sent unless it wants them again
	Delivered     int           `json:"delivered"`               // accounts whose last outcome that is
	Expired       int           `json:"expired"`                 // likewise: secret_ttl was over first
	Confirmed     int           `json:"confirmed"`               // accounts of which the target has shown that it holds what was delivered last
	Unconfirmable string        `json:"unconfirmable,omitempty"` // why it does not show that; empty: it does, or that is not known yet
	LastDelivered time.Time     `json:"last_delivered,omitzero"`
	Median        time.Duration `json:"median_ns,omitempty"` // from capture to delivery, of the last hundred since the start
}

// ParkedStatus is an item that only its account's next change can help.
type ParkedStatus struct {
	Target  string       `json:"target"`
	User    string       `json:"user"`
	Account string       `json:"account"`
	GUID    string       `json:"guid"`
	Version uint32       `json:"version"` // of the stamp
	Class   target.Class `json:"class"`
	Reason  string       `json:"reason"`
	Since   time.Time    `json:"since"`
}

// maxParked is more than a person reads. Where a cloud does not know most of a large domain, all of them are more than an answer holds.
const maxParked = 1000

// errEnough ends a walk.
var errEnough = errors.New("that is enough")

// Status returns the picture of this moment. It may be called at any time.
func (f *Forwarder) Status() Status {
	s := Status{Watch: f.watch.status(time.Now()), Targets: f.targets(), Parked: []ParkedStatus{}} // [] and not null for scripts
	s.Drift = f.countDrift()
	f.try("reading what is parked", func() error {
		err := f.queue.Parked(func(item queue.Item) error {
			if len(s.Parked) == maxParked {
				return errEnough
			}
			s.Parked = append(s.Parked, ParkedStatus{
				Target: item.Target, User: item.User, Account: item.Account.SAMAccountName, GUID: item.Account.GUID.String(),
				Version: item.Stamp.Version, Class: item.Class, Reason: item.Reason, Since: item.Due,
			})
			return nil
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	})
	return s
}

func (f *Forwarder) targets() []TargetStatus {
	targets, counts := []TargetStatus{}, f.ledger.Counts()
	for _, name := range f.names {
		l := f.lanes[name]
		t := TargetStatus{
			Name: name, Delivered: counts[name].Classes[target.Delivered], Expired: counts[name].Classes[ledger.Expired],
			Confirmed: counts[name].Confirmed, Unconfirmable: l.landings.why(), LastDelivered: counts[name].LastDelivered, Median: l.times.median(),
		}
		var err error
		if t.State, t.Since, err = l.health.status(); err != nil {
			t.Error = err.Error()
		}
		n := f.queue.Count(name)
		t.Waiting, t.Settling, t.Parked, t.Shelved = n.Waiting, n.Delivered, n.Parked, n.Shelved
		targets = append(targets, t)
	}
	return targets
}

// times remembers how long the last hundred deliveries took.
type times struct {
	mu   sync.Mutex
	last [100]time.Duration
	n    int
}

func (t *times) add(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last[t.n%len(t.last)] = d
	t.n++
}

func (t *times) median() time.Duration {
	t.mu.Lock()
	sorted := slices.Clone(t.last[:min(t.n, len(t.last))])
	t.mu.Unlock()
	if len(sorted) == 0 {
		return 0
	}
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}
