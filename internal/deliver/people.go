package deliver

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// What people ask for at the command line about single accounts: Queue, Retry, Drop and Why.

// Progress says in a word how far an item has come.
type Progress string

// How far an item can have come.
const (
	Pending  Progress = "waiting"
	Trying   Progress = "trying"   // a request is under way
	Settling Progress = "settling" // delivered, and goes once more when the peers have been heard
	Refused  Progress = "parked"   // only the account's next change helps
	Shelved  Progress = "shelved"  // the target does not want the account any more
)

// Underway reports whether the first delivery is still to come, if any.
func (p Progress) Underway() bool { return p == Pending || p == Trying || p == Shelved }

// Queued is an item of the queue.
type Queued struct {
	Account  string       `json:"account"`
	GUID     string       `json:"guid"`
	Target   string       `json:"target"`
	User     string       `json:"user"` // the account's name at the target
	State    Progress     `json:"state"`
	Stamp    dsdb.Stamp   `json:"stamp"`
	Captured time.Time    `json:"captured"`
	Due      time.Time    `json:"due,omitzero"`     // when it may be tried next; not of what is parked, shelved or settles
	Refused  time.Time    `json:"refused,omitzero"` // when it was parked
	Attempts int          `json:"attempts"`
	Class    target.Class `json:"class,omitempty"`  // of the last attempt
	Reason   string       `json:"reason,omitempty"` // likewise
	Sealed   bool         `json:"sealed"`           // its password is still here
}

func queued(i queue.Item, leased bool) Queued {
	q := Queued{
		Account: i.Account.SAMAccountName, GUID: i.Account.GUID.String(), Target: i.Target, User: i.User, State: Pending, Stamp: i.Stamp,
		Captured: i.Captured.Round(0), Due: i.Due.Round(0), Attempts: i.Attempts, Class: i.Class, Reason: i.Reason, Sealed: i.File != "",
	}
	switch {
	case i.Parked:
		q.State, q.Refused, q.Due = Refused, q.Due, time.Time{}
	case i.Settling:
		q.State, q.Due = Settling, time.Time{}
	case i.Shelved:
		q.State, q.Due = Shelved, time.Time{}
	case leased:
		q.State = Trying
	}
	return q
}

// Queue tells of all items, of one target if its name is not empty, the longest captured first. It may be called at any time, and holds no
// copy of them. An error of tell ends it and is returned as it is.
func (f *Forwarder) Queue(name string, tell func(Queued) error) error {
	return f.queue.Each(name, func(i queue.Item, leased bool) error { return tell(queued(i, leased)) })
}

// find returns the accounts that somebody means who names an objectGUID, an account, a user principal name or a name at a target: those
// for whom that says most. More than one have the same name.
func (f *Forwarder) find(name string) ([]dsdb.GUID, error) {
	name = strings.TrimSpace(name)
	if guid, err := dsdb.ParseGUID(name); err == nil {
		return []dsdb.GUID{guid}, nil
	}
	found, err := f.ledger.Find(name)
	if err != nil || name == "" {
		return nil, err
	}
	best := func() ledger.Kind { return slices.Min(slices.Collect(maps.Values(found))) }
	if len(found) > 0 && best() < ledger.ByUser { // what the queue could add says less
		return kin(found, best()), nil
	}
	then := map[dsdb.GUID]ledger.Kind{} // by what they were called then
	err = f.queue.Each("", func(i queue.Item, _ bool) error {
		switch k, ok := ledger.Kin(name, i.Account, i.User); {
		case !ok:
		case k != ledger.ByUser:
			then[i.Account.GUID] = k
		default:
			if _, known := found[i.Account.GUID]; !known {
				found[i.Account.GUID] = k
			}
		}
		return nil
	})
	if len(found) == 0 { // otherwise the ledger knows better; right after a start, it may not know yet
		found = then
	}
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return kin(found, best()), nil
}

// kin returns the accounts of a kind.
func kin(found map[dsdb.GUID]ledger.Kind, kind ledger.Kind) []dsdb.GUID {
	maps.DeleteFunc(found, func(_ dsdb.GUID, k ledger.Kind) bool { return k != kind })
	return slices.SortedFunc(maps.Keys(found), dsdb.GUID.Compare)
}

// Retried is what came of Retry.
type Retried struct {
	Accounts []string `json:"accounts"` // objectGUIDs of those who were meant; with more than one nothing was done
	Due      int      `json:"due"`      // made due now, or due already
	Trying   int      `json:"trying"`
	Settling int      `json:"settling"`
	Parked   int      `json:"parked"` // which have no password any more

	// Paused are targets that asked for a pause, until when. That is kept.
	Paused map[string]time.Time `json:"paused"`
}

// Retry makes what waits due now: an account's items, or if account is empty all; of one target if its name is not empty. A target that
// denied access or was down is tried now.
func (f *Forwarder) Retry(account, name string) (Retried, error) {
	r := Retried{Accounts: []string{}, Paused: map[string]time.Time{}}
	var only dsdb.GUID
	if account != "" {
		guids, err := f.find(account)
		for _, guid := range guids {
			r.Accounts = append(r.Accounts, guid.String())
		}
		if err != nil || len(guids) != 1 {
			return r, err
		}
		only = guids[0]
	}
	_, err := f.queue.Hurry(func(guid dsdb.GUID, target string) bool {
		return (account == "" || guid == only) && (name == "" || target == name)
	})
	if err != nil {
		return r, err
	}
	hurried, now := map[string]bool{}, time.Now()
	count := func(i queue.Item, leased bool) error {
		switch queued(i, leased).State {
		case Shelved:
			return nil
		case Refused:
			r.Parked++
			return nil
		case Settling:
			r.Settling++
			return nil
		case Trying:
			r.Trying++
		default:
			r.Due++
		}
		hurried[i.Target] = true
		return nil
	}
	if account == "" {
		err = f.queue.Each(name, count)
	} else if items, leased, ofErr := f.queue.Of(only); ofErr == nil {
		for _, i := range items {
			if name == "" || i.Target == name {
				_ = count(i, leased[i.Target])
			}
		}
	} else {
		err = ofErr
	}
	for name := range hurried {
		if l := f.lanes[name]; l != nil {
			l.health.hurry()
			l.poke()
			if state, until := l.health.stopped(now); state == Throttled {
				r.Paused[name] = until.Round(0)
			}
		}
	}
	return r, err
}

// Gone is what came of Drop.
type Gone struct {
	Accounts []string `json:"accounts"` // objectGUIDs of those who were meant; with more than one nothing was done
	Dropped  []Queued `json:"dropped"`  // as they were
	Kept     []string `json:"kept"`     // targets for which the account's password is kept
}

// Drop takes an account's items out of the queue, those of one target if its name is not empty, and shreds the password if no target is
// left that needs it. What was not delivered stays drift. Of a request that is under way the password may arrive all the same, which the
// ledger then says.
func (f *Forwarder) Drop(account, name string) (Gone, error) {
	g := Gone{Accounts: []string{}, Dropped: []Queued{}, Kept: []string{}}
	guids, err := f.find(account)
	for _, guid := range guids {
		g.Accounts = append(g.Accounts, guid.String())
	}
	if err != nil || len(guids) != 1 {
		return g, err
	}
	guid := guids[0]
	items, leased, err := f.queue.Of(guid)
	if err != nil {
		return g, err
	}
	for _, i := range items {
		if name != "" && i.Target != name {
			continue
		}
		if !i.Parked && i.Delivered.IsZero() { // of the others the ledger has the outcome
			err := f.ledger.Record(ledger.Entry{
				Target: i.Target, User: i.User, Place: i.Place, Account: i.Account, Stamp: i.Stamp, Proven: i.Proven, Captured: i.Captured,
				Class: ledger.Dropped, Reason: i.Reason, At: time.Now(), Attempts: i.Attempts,
			})
			if err != nil {
				return g, err
			}
		}
		// Only this one: a newer one may have come meanwhile.
		dropped, err := f.queue.Supersede(slices.Values([]dsdb.GUID{guid}), slices.Values([]string(nil)), func(now queue.Item) bool {
			return now.Target == i.Target && now.Stamp.Equal(i.Stamp)
		})
		if err != nil {
			return g, err
		}
		for _, d := range dropped {
			f.log.Dropped(d.Target, d.Account, d.Stamp.Version)
			f.shred(d.File)
			g.Dropped = append(g.Dropped, queued(d, leased[d.Target]))
		}
	}
	items, _, err = f.queue.Of(guid)
	for _, i := range items {
		if i.File != "" {
			g.Kept = append(g.Kept, i.Target)
		}
	}
	return g, err
}
