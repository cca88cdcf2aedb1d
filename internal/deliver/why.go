package deliver

import (
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Stories is what the forwarder knows of the accounts that a name means: none, one, or several that have the same.
type Stories struct {
	Accounts []Story     `json:"accounts"`
	Watch    WatchStatus `json:"watch"`
}

// Story is all that the forwarder knows of an account.
type Story struct {
	Account           string        `json:"account"` // sAMAccountName
	GUID              dsdb.GUID     `json:"guid"`    // objectGUID
	UserPrincipalName string        `json:"user_principal_name,omitempty"`
	Stamp             dsdb.Stamp    `json:"stamp,omitzero"` // the newest that the directory is known to hold
	Seen              time.Time     `json:"seen,omitzero"`  // when we learned of it
	Gone              bool          `json:"gone,omitempty"` // the account was deleted, or cannot be read
	DC                string        `json:"dc,omitempty"`   // where the password was changed, if that is known
	Decided           bool          `json:"decided"`        // the agent has told which targets want the account
	Targets           []TargetStory `json:"targets"`        // all that are configured
}

// TargetStory is what is known of an account at a target.
type TargetStory struct {
	Target string    `json:"target"`
	State  State     `json:"state"`           // the target's
	Since  time.Time `json:"since,omitzero"`  // unless up
	Error  string    `json:"error,omitempty"` // unless up
	Next   time.Time `json:"next,omitzero"`   // unless up: when it is looked at again, at the latest

	User   string `json:"user,omitempty"` // the account's name there
	Wanted bool   `json:"wanted"`         // as far as is known

	Delivered *Delivery     `json:"delivered,omitempty"` // what the target holds from us
	Outcome   *Outcome      `json:"outcome,omitempty"`   // the last one
	Queued    *Queued       `json:"queued,omitempty"`    // what is in the queue for it
	Missing   change.Reason `json:"missing,omitempty"`   // why the target lacks the newest password, if it does and nothing waits
	Detail    string        `json:"detail,omitempty"`
}

// Delivery is a password that a target holds from us.
type Delivery struct {
	Stamp   dsdb.Stamp    `json:"stamp"`
	At      time.Time     `json:"at"`               // the last time that it was delivered
	FirstAt time.Time     `json:"first_at"`         // the same, but where it settled
	Took    time.Duration `json:"took_ns,omitzero"` // from its capture until then; 0: not known
	Newest  bool          `json:"newest"`           // the directory is not known to hold a newer one

	// Confirmed is when the target saw that password change, by its clock; zero where it has not shown that, or cannot.
	Confirmed time.Time `json:"confirmed,omitzero"`
}

// Outcome is how the last change ended that was tried, or dropped untried.
type Outcome struct {
	Class    target.Class `json:"class"`
	Reason   string       `json:"reason,omitempty"`
	Stamp    dsdb.Stamp   `json:"stamp"`
	At       time.Time    `json:"at"`
	Attempts int          `json:"attempts"`
}

// Why tells all that is known of the account with that objectGUID, sAMAccountName, user principal name or name at a target. It may be
// called at any time.
func (f *Forwarder) Why(account string) (Stories, error) {
	s := Stories{Accounts: []Story{}, Watch: f.watch.status(time.Now())}
	guids, err := f.find(account)
	if err != nil {
		return s, err
	}
	for _, guid := range guids {
		story, known, err := f.story(guid)
		if err != nil {
			return s, err
		}
		if known {
			s.Accounts = append(s.Accounts, story)
		}
	}
	return s, nil
}

func (f *Forwarder) story(guid dsdb.GUID) (s Story, known bool, err error) {
	items, leased, err := f.queue.Of(guid) // first: what is delivered from here on is in the ledger by the time that it is asked
	if err != nil {
		return s, false, err
	}
	told, err := f.ledger.Story(guid)
	if err != nil {
		return s, false, err
	}
	who := told.Newest.Account
	switch {
	case !who.GUID.IsZero():
		known = true
	case len(items) > 0:
		who, known = items[0].Account, true
	case len(told.Outcomes) > 0:
		who, known = told.Outcomes[0].Account, true
	}
	s = Story{
		Account: who.SAMAccountName, GUID: guid, UserPrincipalName: who.UserPrincipalName, Stamp: told.Newest.Stamp, Seen: told.Newest.Seen,
		Gone: !told.Newest.Account.GUID.IsZero() && told.Newest.Stamp.IsZero(), Targets: []TargetStory{},
	}
	if w := told.Newest.Wanted; w != nil {
		s.DC, s.Decided = w.DC, true
	}
	for _, name := range f.names {
		t := f.at(name, told)
		for _, i := range items {
			if i.Target == name {
				q := queued(i, leased[name])
				t.Queued, t.User = &q, i.User
				if q.State.Underway() {
					t.Missing, t.Detail, t.Wanted = "", "", !i.Shelved
				}
			}
		}
		s.Targets = append(s.Targets, t)
	}
	return s, known, nil
}

// at is what the ledger tells of an account at a target.
func (f *Forwarder) at(name string, told ledger.Story) TargetStory {
	h, now := f.lanes[name].health, time.Now()
	t := TargetStory{Target: name}
	var why error
	if t.State, t.Since, why = h.status(); why != nil {
		t.Error = why.Error()
	}
	if _, until := h.stopped(now); until.After(now) {
		t.Next = until.Round(0)
	}
	for _, e := range told.Outcomes {
		if e.Target != name {
			continue
		}
		t.User = e.User
		t.Outcome = &Outcome{e.Class, e.Reason, e.Stamp, e.At, e.Attempts}
		if !e.Delivered.IsZero() {
			t.Delivered = &Delivery{e.Delivered, e.DeliveredAt, e.FirstAt, e.Took, e.Delivered.Compare(told.Newest.Stamp) >= 0, e.Confirmed}
			if e.FirstAt.IsZero() {
				t.Delivered.FirstAt = e.DeliveredAt
			}
			t.Wanted = t.Delivered.Newest
		}
	}
	if w := told.Newest.Wanted; w != nil {
		at := slices.IndexFunc(w.Routes, func(r change.WantedRoute) bool { return r.Target == name })
		if t.Wanted = at >= 0; t.Wanted {
			t.User = w.Routes[at].User
		}
	}
	for _, g := range told.Gaps {
		if g.Target == name {
			t.Missing, t.Detail, t.Wanted = g.Reason, g.Detail, true
		}
	}
	return t
}
