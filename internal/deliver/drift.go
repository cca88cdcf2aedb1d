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
	late := f.lateness()
	err := f.queue.Waiting(func(i queue.Item) error {
		l, configured := late[i.Target]
		if !configured || !i.Proven.Before(l.since) {
			return nil
		}
		d := Drift{
			Account: i.Account.SAMAccountName, GUID: i.Account.GUID.String(), Target: i.Target, User: i.User,
			Reason: l.reason, Detail: i.Reason, Stamp: i.Stamp, Seen: i.Proven.Round(0),
		}
		if l.detail != "" {
			d.Detail = l.detail
		}
		return tell(d)
	})
	if err != nil {
		return err
	}
	waiting := map[need]bool{}
	return f.ledger.Gaps(func(accounts []dsdb.GUID) { // first: what is delivered from here on is no gap by the time it is looked for
		clear(waiting)
		for _, guid := range accounts {
			for _, name := range f.names {
				waiting[need{guid, name}] = f.queue.Waits(guid, name)
			}
		}
	}, func(g ledger.Gap) error {
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
func (f *Forwarder) countDrift() map[change.Reason]int {
	counts := map[change.Reason]int{}
	f.ledger.EachGap(func(guid dsdb.GUID, target string, reason change.Reason) {
		if f.lanes[target] != nil && !f.queue.Waits(guid, target) {
			counts[reason]++
		}
	})
	for name, l := range f.lateness() {
		if n := f.queue.CountSince(name, l.since); n > 0 {
			counts[l.reason] += n
		}
	}
	return counts
}

// need is an account's of a target.
type need struct {
	guid   dsdb.GUID
	target string
}

// late says what of a target's waiting passwords is drift: what was proven before since, and why.
type late struct {
	since  time.Time
	reason change.Reason
	detail string // empty: the item's own
}

// lateness returns that for each target.
func (f *Forwarder) lateness() map[string]late {
	all, now := map[string]late{}, time.Now()
	for _, t := range f.targets() {
		l := late{now.Add(time.Hour), Waiting, t.Error} // whenever it was proven
		switch t.State {
		case Denied:
			l.reason = TargetDenied
		case Down:
			l.reason = TargetDown
		case Throttled:
		default:
			l.since, l.detail = now.Add(-soon), ""
		}
		all[t.Name] = l
	}
	return all
}
