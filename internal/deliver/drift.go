package deliver

import (
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// The reasons that the forwarder adds to the agent's (change.Reason), for passwords that wait. Those that were tried to no avail have
// the class of the outcome for a reason: no-user, rejected, expired, name-taken.
const (
	Waiting      change.Reason = "waiting"
	TargetDenied change.Reason = "denied"
	TargetDown   change.Reason = "down"
)

// soon is how long a password may wait before that counts as drift, while its target is up.
const soon = time.Minute

// Drift is one account's password that the directory holds, and a target that wants it does not.
type Drift struct {
	Account           string        `json:"account"` // sAMAccountName
	GUID              string        `json:"guid"`    // objectGUID
	UserPrincipalName string        `json:"user_principal_name,omitempty"`
	Target            string        `json:"target"`
	User              string        `json:"user"` // the account's name at the target
	Reason            change.Reason `json:"reason"`
	Detail            string        `json:"detail,omitempty"`
	Stamp             dsdb.Stamp    `json:"stamp"`
	Seen              time.Time     `json:"seen"`         // when the directory was seen to hold it
	DC                string        `json:"dc,omitempty"` // where it was changed, if that is known
}

// Drift tells of all drift of this moment, a peer's too, in no order: in a large domain it may be all accounts, and too much to be held at
// once. It may be called at any time. An error of tell ends it and is returned as it is.
func (f *Forwarder) Drift(tell func(Drift) error) error {
	waiting, late := f.waiting(f.queue.Items(), f.targets()) // first: what is delivered from here on is no gap by the time it is looked for
	for _, d := range late {
		if err := tell(d); err != nil {
			return err
		}
	}
	return f.ledger.Gaps(func(g ledger.Gap) error {
		if f.lanes[g.Target] == nil || waiting[need{g.Account.GUID, g.Target}] {
			return nil
		}
		return tell(Drift{
			Account: g.Account.SAMAccountName, GUID: g.Account.GUID.String(), UserPrincipalName: g.Account.UserPrincipalName,
			Target: g.Target, User: g.User, Reason: g.Reason, Detail: g.Detail, Stamp: g.Stamp, Seen: g.Seen, DC: g.DC,
		})
	})
}

// countDrift counts what Drift lists, without looking at the disk.
func (f *Forwarder) countDrift(items []queue.Item, targets []TargetStatus) map[change.Reason]int {
	counts := map[change.Reason]int{}
	waiting, late := f.waiting(items, targets)
	f.ledger.EachGap(func(guid dsdb.GUID, target string, reason change.Reason) {
		if f.lanes[target] != nil && !waiting[need{guid, target}] {
			counts[reason]++
		}
	})
	for _, d := range late {
		counts[d.Reason]++
	}
	return counts
}

// need is an account's of a target.
type need struct {
	guid   dsdb.GUID
	target string
}

// waiting returns whose password waits for which target, and those that have waited for too long.
func (f *Forwarder) waiting(items []queue.Item, targets []TargetStatus) (waiting map[need]bool, late []Drift) {
	waiting = map[need]bool{}
	states := map[string]TargetStatus{}
	for _, t := range targets {
		states[t.Name] = t
	}
	for _, i := range items {
		t, configured := states[i.Target]
		if i.Parked || !i.Delivered.IsZero() || !configured {
			continue
		}
		waiting[need{i.Account.GUID, i.Target}] = true
		reason, detail := Waiting, i.Reason
		switch t.State {
		case Denied:
			reason, detail = TargetDenied, t.Error
		case Down:
			reason, detail = TargetDown, t.Error
		case Throttled:
			detail = t.Error
		default:
			if time.Since(i.Proven) < soon {
				continue
			}
		}
		late = append(late, Drift{
			Account: i.Account.SAMAccountName, GUID: i.Account.GUID.String(), Target: i.Target, User: i.User,
			Reason: reason, Detail: detail, Stamp: i.Stamp, Seen: i.Proven.Round(0),
		})
	}
	return waiting, late
}
