package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Newest is the newest password version that the directory is known to hold for an account.
type Newest struct {
	Account change.Account `json:"account"`
	Stamp   dsdb.Stamp     `json:"stamp"`         // zero: none, the account is gone
	Seen    time.Time      `json:"seen"`          // when we learned of it
	Void    time.Time      `json:"void,omitzero"` // the account was deleted, or the directory went back, before then
	Wanted  *change.Wanted `json:"wanted,omitempty"`
	Asked   time.Time      `json:"asked,omitzero"` // when the directory was asked who wants it, and the answer became Wanted
}

// Outdates reports whether a password of the account is not current any more: a newer one is known; or it was proven before the account
// was deleted, or the directory went back, and has not been seen there since. A Void that is still to come says nothing, as in See.
func (n Newest) Outdates(stamp dsdb.Stamp, proven time.Time) bool {
	return stamp.Compare(n.Stamp) < 0 || n.voids(stamp, proven)
}

// voidOf returns Void of a Newest as it is written. It decodes nothing else: a start asks that of all accounts.
func voidOf(value []byte) (void time.Time) {
	if _, rest, found := bytes.Cut(value, []byte(`"void":"`)); found { // in a text, a quotation mark has a backslash before it
		text, _, _ := bytes.Cut(rest, []byte(`"`))
		_ = void.UnmarshalText(text)
	}
	return void
}

// Unwants reports whether a target does not want a password of the account any more, by an answer of after its proof. before says whether it did not before: that
// holds until an answer says that it wants the account under the name that it had there, which may be another's by now, and in the state that it is in.
func (n Newest) Unwants(to change.Route, stamp dsdb.Stamp, proven time.Time, before bool) bool {
	if n.Wanted == nil || !stamp.Equal(n.Stamp) {
		return before
	}
	for _, r := range n.Wanted.Routes {
		if r.Target == to.Target {
			return before && (r.Reason.OfState() || !strings.EqualFold(r.User, to.User))
		}
	}
	return before || n.Asked.After(proven) && !n.Asked.After(time.Now())
}

func (n Newest) voids(stamp dsdb.Stamp, proven time.Time) bool {
	return stamp.Compare(n.Stamp) > 0 && proven.Before(n.Void) && !n.Void.After(time.Now())
}

// voidBefore reports whether Void is of before a look that began at a time: by the order of the two, or since it was noted before the clock was set back.
func (n Newest) voidBefore(at time.Time) bool {
	return n.Void.Before(at) || !n.Void.Equal(at) && n.Void.After(time.Now())
}

// Holder is the account that last had a place.
type Holder struct {
	Account change.Account `json:"account"`
	Proven  time.Time      `json:"proven"` // when it was seen to have it
}

// Outdates reports whether another account has had the place since.
func (h Holder) Outdates(guid dsdb.GUID, proven time.Time) bool {
	return h.Account.GUID != guid && !proven.After(h.Proven)
}

// Past has what was proven when, by now, that is still to come, count as proven at a time: the clock was ahead then, and has been set back
// since. Otherwise whoever gets one of these names next would be taken for its former owner until the clock is there again.
// void says that an account was deleted, or the directory went back, at a time that is still to come: what was proven before that cannot be told.
func (l *Ledger) Past(now, at time.Time) (void bool, err error) {
	future := map[string]Holder{}
	err = l.db.View(func(tx boltfile.Tx) error {
		return errors.Join(tx.Prefix(holders, nil, func(key, value []byte) error {
			var h Holder
			err := json.Unmarshal(value, &h)
			if h.Proven.After(now) {
				future[string(key)] = Holder{h.Account, at}
			}
			return err
		}), tx.Prefix(newest, nil, func(_, value []byte) error {
			void = void || voidOf(value).After(now)
			return nil
		}))
	})
	if err == nil && len(future) > 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		err = l.db.Update(func(tx boltfile.Tx) error {
			for place, past := range future {
				var h Holder
				_, err := tx.Get(holders, []byte(place), &h)
				if err == nil && h.Account.GUID == past.Account.GUID && h.Proven.After(now) { // still
					err = tx.Put(holders, []byte(place), past)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return false, fmt.Errorf("noting who had a name before the clock was set back: %w", err)
	}
	return void, nil
}

// Proof is what a proven change says about the directory.
type Proof struct {
	Account change.Account
	Stamp   dsdb.Stamp
	Proven  time.Time
	Places  []string
}

// Knowledge is what is known of some accounts and places.
type Knowledge struct {
	Newest  map[dsdb.GUID]Newest
	Holders map[string]Holder // by place
	Back    []Back            // what See changed
	Gaps    []Gap             // that See learned of
	Refused bool              // See was told of a newer password, or a deletion, of before an account was deleted, or the directory went back, and left it out
}

// Back says that the directory holds an older password of an account than it did.
type Back struct {
	Account  change.Account
	From, To dsdb.Stamp
}

// See notes what the directory holds, as the agent wrote it down at a time, and returns what is then known of these accounts. It writes
// in one transaction, and not at all if all is known.
//
// That an account is gone, or that the directory went back, is noted once, however often it is told: what has come since then stays.
// What was seen before that is no news either: after a crash all files that were not removed are told again, from the first. A Void that is
// still to come is of before the clock was set back, and says nothing about before and after; what is told now came later.
// Who wants an account was asked beside the watch, so what is told with that of a stamp may be of before then, and is no news.
func (l *Ledger) See(at time.Time, sightings ...change.Sighting) (Knowledge, error) {
	k, err := l.learn(func(d *draft) error {
		for _, s := range sightings {
			if err := d.see(at, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Knowledge{}, fmt.Errorf("recording stamps: %w", err)
	}
	return k, nil
}

// Prove notes what proven changes say, in one transaction.
func (l *Ledger) Prove(proofs ...Proof) error {
	if _, err := l.learn(func(d *draft) error { return d.prove(proofs...) }); err != nil {
		return fmt.Errorf("recording proofs: %w", err)
	}
	return nil
}

// Known returns what would be known of these accounts and places after Prove; it writes nothing.
func (l *Ledger) Known(proofs ...Proof) (k Knowledge, err error) {
	err = l.db.View(func(tx boltfile.Tx) error {
		d := newDraft(tx)
		k = d.Knowledge
		return d.prove(proofs...)
	})
	if err != nil {
		return Knowledge{}, fmt.Errorf("reading what is known: %w", err)
	}
	return k, nil
}

// Newest returns the newest password version known of an account; the zero Newest if none is.
func (l *Ledger) Newest(guid dsdb.GUID) (n Newest, err error) {
	err = l.db.View(func(tx boltfile.Tx) (err error) {
		n, err = newDraft(tx).newestOf(guid)
		return err
	})
	if err != nil {
		return Newest{}, fmt.Errorf("reading newest stamp: %w", err)
	}
	return n, nil
}

// learn runs teach, and once more in a writing transaction if that brought news.
func (l *Ledger) learn(teach func(*draft) error) (k Knowledge, err error) {
	news := false
	err = l.db.View(func(tx boltfile.Tx) error {
		d := newDraft(tx)
		err := teach(d)
		k, news = d.Knowledge, len(d.news) > 0
		return err
	})
	if err != nil || !news {
		return k, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var forgotten []Entry
	var lacking map[dsdb.GUID]lacks
	err = l.db.Update(func(tx boltfile.Tx) error {
		d := newDraft(tx)
		if err := teach(d); err != nil {
			return err
		}
		k = d.Knowledge
		if err := d.write(); err != nil {
			return err
		}
		if forgotten, err = d.forget(); err != nil {
			return err
		}
		lacking, err = l.writeGaps(d)
		return err
	})
	if err != nil {
		return Knowledge{}, err
	}
	l.remember(lacking)
	for _, e := range forgotten {
		l.count(e, Entry{})
	}
	return k, nil
}

// draft is knowledge in the making: what a transaction reads, and what is new.
type draft struct {
	Knowledge
	tx      boltfile.Tx
	news    []row
	learned map[dsdb.GUID]bool // whose Newest is news
	reset   []reset
}

// reset says that a directory that went back holds a stamp of an account (zero: it does not have the account), by a look that began at a time.
type reset struct {
	account dsdb.GUID
	stamp   dsdb.Stamp
	at      time.Time
}

type row struct {
	bucket string
	key    []byte
	value  any
}

func newDraft(tx boltfile.Tx) *draft {
	return &draft{Knowledge: Knowledge{Newest: map[dsdb.GUID]Newest{}, Holders: map[string]Holder{}}, tx: tx, learned: map[dsdb.GUID]bool{}}
}

func (d *draft) newestOf(guid dsdb.GUID) (n Newest, err error) {
	n, known := d.Newest[guid]
	if !known {
		_, err = d.tx.Get(newest, guid[:], &n)
		d.Newest[guid] = n
	}
	return n, err
}

func (d *draft) holderOf(place string) (h Holder, err error) {
	h, known := d.Holders[place]
	if !known {
		_, err = d.tx.Get(holders, []byte(place), &h)
		d.Holders[place] = h
	}
	return h, err
}

func (d *draft) setNewest(n Newest) {
	n.Seen = time.Now()
	d.keep(n)
}

func (d *draft) keep(n Newest) {
	d.Newest[n.Account.GUID] = n
	d.learned[n.Account.GUID] = true
	d.news = append(d.news, row{newest, n.Account.GUID[:], n})
}

func (d *draft) see(at time.Time, s change.Sighting) error {
	if s.Whole {
		return d.missing(at)
	}
	known, err := d.newestOf(s.Account.GUID)
	if err != nil {
		return err
	}
	if s.Gone {
		s.Stamp = dsdb.Stamp{}
	}
	switch back := s.Stamp.Compare(known.Stamp) < 0; {
	case (s.Gone || s.Reset) && known.voidBefore(at):
		n := Newest{Account: s.Account, Stamp: s.Stamp, Void: at}
		if !s.Gone && s.Stamp.Equal(known.Stamp) { // until the directory is asked again
			n.Wanted, n.Asked = known.Wanted, known.Asked
		}
		d.setNewest(n)
		if s.Reset { // also of an account that had been deleted: its outcomes are there
			d.reset = append(d.reset, reset{s.Account.GUID, s.Stamp, at})
		}
		if s.Reset && back {
			d.Back = append(d.Back, Back{s.Account, known.Stamp, s.Stamp})
		}
	case s.Stamp.Compare(known.Stamp) > 0 && !(at.Before(known.Void) && (s.Wanted != nil || !known.Void.After(time.Now()))):
		d.setNewest(Newest{Account: s.Account, Stamp: s.Stamp, Void: known.Void})
	case at.Before(known.Void) && !s.Stamp.Equal(known.Stamp) && (s.Gone || !back):
		d.Refused = true
	}
	if s.Wanted != nil {
		return d.decide(at, s)
	}
	return nil
}

// missing notes that those accounts are gone that were not seen in a directory that went back, and was looked at from that time on. Should one of
// them be brought back there, its versions will have been used before, whether it was known to be gone or not: its outcomes go as well.
func (d *draft) missing(at time.Time) error {
	var missing []change.Account
	err := d.tx.Prefix(newest, nil, func(_, value []byte) error {
		var n Newest
		if err := json.Unmarshal(value, &n); err != nil {
			return err
		}
		if drafted, ok := d.Newest[n.Account.GUID]; ok {
			n = drafted
		}
		if n.voidBefore(at) {
			missing = append(missing, n.Account)
		}
		return nil
	})
	for _, a := range missing {
		d.setNewest(Newest{Account: a, Void: at})
		d.reset = append(d.reset, reset{account: a.GUID, at: at})
	}
	return err
}

func (d *draft) prove(proofs ...Proof) error {
	for _, p := range proofs {
		known, err := d.newestOf(p.Account.GUID)
		if err != nil {
			return err
		}
		switch order := p.Stamp.Compare(known.Stamp); {
		case order > 0 && !known.voids(p.Stamp, p.Proven):
			d.setNewest(Newest{Account: p.Account, Stamp: p.Stamp, Void: known.Void})
		case order == 0 && known.Account.UserPrincipalName == "" && p.Account.UserPrincipalName != "":
			// An outcome was quicker than the proof of its own change, and what waits in the queue does not keep that name.
			known.Account = p.Account
			d.keep(known)
		}
		for _, place := range p.Places {
			h, err := d.holderOf(place)
			if err != nil {
				return err
			}
			if now := time.Now(); p.Proven.Round(0).After(now) { // by a clock that was ahead, before now
				p.Proven = now.Round(0)
			}
			if p.Proven.After(h.Proven) {
				h = Holder{p.Account, p.Proven}
				d.Holders[place] = h
				d.news = append(d.news, row{holders, []byte(place), h})
			}
		}
	}
	return nil
}

func (d *draft) write() error {
	for _, r := range d.news {
		if err := d.tx.Put(r.bucket, r.key, r.value); err != nil {
			return err
		}
	}
	return nil
}

// forget deletes the outcomes of what the directory has gone back from, and returns them: the versions that come now have been used
// before. What was proven since the look began is of the directory as it is now, and stays; what was proven when, by now, that is still to come, may be of either.
func (d *draft) forget() (forgotten []Entry, err error) {
	now := time.Now()
	for _, r := range d.reset {
		err := d.tx.Prefix(outcomes, r.account[:], func(_, value []byte) error {
			var e Entry
			if err := json.Unmarshal(value, &e); err != nil {
				return err
			}
			if e.Stamp.Compare(r.stamp) > 0 && (!e.Proven.After(r.at) || e.Proven.After(now)) {
				forgotten = append(forgotten, e)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, e := range forgotten {
		if err := d.tx.Delete(outcomes, entryKey(e.Account.GUID, e.Target)); err != nil {
			return nil, err
		}
	}
	return forgotten, nil
}
