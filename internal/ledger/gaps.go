package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Gap is a target that wants an account's password and does not have the one that the directory holds.
type Gap struct {
	Account change.Account
	change.WantedRoute
	Stamp dsdb.Stamp
	Seen  time.Time // when we learned of the stamp
	DC    string    // where the password was changed; empty: unknown
}

// lacks is what is kept in memory of an account's gaps: "target\x00reason" of each, one in a line. Thousands of accounts lack the same, and share
// one text.
type lacks = unique.Handle[string]

func lacksOf(gaps []Gap) lacks {
	var lines []string
	for _, g := range gaps {
		lines = append(lines, g.Target+"\x00"+string(g.Reason))
	}
	return unique.Make(strings.Join(lines, "\n"))
}

// lacksNothing is what an account lacks that lacks nothing.
var lacksNothing = lacksOf(nil)

// wholeKey stands in the bucket "gaps" once all are there; no objectGUID is as short.
const wholeKey = "whole"

// loadGaps remembers an account's gaps at the start.
func (l *Ledger) loadGaps(key, head []byte) error {
	if len(key) != len(dsdb.GUID{}) {
		return errors.New("a gap is nobody's")
	}
	l.gaps[dsdb.GUID(key)] = unique.Make(string(head))
	return nil
}

// writeGaps writes the gaps of those whom a draft has learned of, where they are others than before, and returns them for remember.
func (l *Ledger) writeGaps(d *draft) (map[dsdb.GUID]lacks, error) {
	lacking := map[dsdb.GUID]lacks{}
	for guid := range d.learned {
		gaps, err := gapsOf(d.tx, guid, d.Newest[guid])
		if err != nil {
			return nil, err
		}
		now := lacksOf(gaps)
		if before, known := l.gaps[guid]; known && before == now || !known && now == lacksNothing {
			continue
		}
		if err := putGaps(d.tx, guid, now); err != nil {
			return nil, err
		}
		lacking[guid] = now
	}
	return lacking, nil
}

func putGaps(tx boltfile.Tx, guid dsdb.GUID, l lacks) error {
	if l == lacksNothing {
		return tx.Delete(gaps, guid[:])
	}
	return tx.PutHead(gaps, guid[:], []byte(l.Value()), struct{}{})
}

// remember keeps gaps in memory that have been written.
func (l *Ledger) remember(lacking map[dsdb.GUID]lacks) {
	for guid, now := range lacking {
		if now == lacksNothing {
			delete(l.gaps, guid)
		} else {
			l.gaps[guid] = now
		}
	}
}

// recount finds all gaps anew, where what is written of them is not to be relied upon.
func (l *Ledger) recount() error {
	clear(l.gaps)
	accounts := map[dsdb.GUID]bool{}
	err := l.db.View(func(tx boltfile.Tx) error {
		note := func(key, _ []byte) error {
			accounts[dsdb.GUID(key)] = true
			return nil
		}
		return errors.Join(tx.Prefix(newest, nil, note), tx.Prefix(outcomes, nil, note))
	})
	if err != nil {
		return err
	}
	if err := l.db.Update(func(tx boltfile.Tx) error { return tx.Clear(gaps) }); err != nil {
		return err
	}
	for some := range slices.Chunk(slices.Collect(maps.Keys(accounts)), gapsAtATime) {
		var lacking map[dsdb.GUID]lacks
		err := l.db.Update(func(tx boltfile.Tx) (err error) {
			d := newDraft(tx)
			for _, guid := range some {
				if _, err := d.newestOf(guid); err != nil {
					return err
				}
				d.learned[guid] = true
			}
			lacking, err = l.writeGaps(d)
			return err
		})
		if err != nil {
			return err
		}
		l.remember(lacking)
	}
	return l.db.Update(func(tx boltfile.Tx) error { return tx.Put(gaps, []byte(wholeKey), struct{}{}) })
}

// gaps returns what the targets lack of the newest password of an account, whose outcomes these are. Before the agent has said who
// wants it, only those targets are known for certain that had it and did not take it.
func (n Newest) gaps(outcomes []Entry) (gaps []Gap) {
	if n.Wanted == nil {
		for _, e := range outcomes {
			if e.Class != target.Delivered && !n.Outdates(e.Stamp, e.Proven) {
				gaps = append(gaps, Gap{n.Account, e.gap(change.Route{Target: e.Target, User: e.User}), e.Stamp, n.Seen, ""})
			}
		}
		return gaps
	}
	for _, r := range n.Wanted.Routes {
		at := slices.IndexFunc(outcomes, func(e Entry) bool { return e.Target == r.Target && e.Stamp.Compare(n.Stamp) >= 0 })
		if at >= 0 && outcomes[at].Class == target.Delivered {
			continue
		}
		if at >= 0 {
			r = outcomes[at].gap(r.Route)
		}
		gaps = append(gaps, Gap{n.Account, r, n.Stamp, n.Seen, n.Wanted.DC})
	}
	return gaps
}

// gap is what an outcome says about a target that did not take the password.
func (e Entry) gap(r change.Route) change.WantedRoute {
	return change.WantedRoute{Route: r, Reason: change.Reason(e.Class), Detail: e.Reason}
}

// askedAnew is how long the same answer is no news: when it was given decides on what was proven in between.
const askedAnew = time.Hour

// decide takes in who wants the newest password of an account. What was said of a stamp before is kept, as it was nearer to the change,
// but where it was changed depends on the configuration, and the account's state is that of today.
func (d *draft) decide(at time.Time, s change.Sighting) error {
	known, err := d.newestOf(s.Account.GUID)
	if err != nil || s.Stamp.IsZero() || s.Stamp.Compare(known.Stamp) != 0 {
		return err
	}
	if at.Before(known.Asked) && !known.Asked.After(time.Now()) { // told again, after a later answer
		return nil
	}
	decided := known
	decided.Account, decided.Asked = s.Account, at
	decided.Wanted = &change.Wanted{DC: s.Wanted.DC, Routes: slices.Clone(s.Wanted.Routes)}
	if before := known.Wanted; before != nil {
		for i, r := range decided.Wanted.Routes {
			at := slices.IndexFunc(before.Routes, func(b change.WantedRoute) bool { return b.Target == r.Target })
			switch {
			case r.Reason == change.AtPeer || r.Reason == change.AtOtherDC || r.Reason.OfState():
			case at >= 0 && before.Routes[at].Reason.OfState():
				if r.Reason == change.Lost || r.Reason == change.NotCaptured {
					decided.Wanted.Routes[i].Reason, decided.Wanted.Routes[i].Detail = change.WantedSince, ""
				}
			case at >= 0 && (before.Routes[at].Reason == change.AtPeer || before.Routes[at].Reason == change.AtOtherDC):
			case at >= 0:
				decided.Wanted.Routes[i].Reason, decided.Wanted.Routes[i].Detail = before.Routes[at].Reason, before.Routes[at].Detail
			case r.Reason == change.Lost || r.Reason == change.NotCaptured: // it did not want the account, and by now nobody knows more
				decided.Wanted.Routes[i].Reason, decided.Wanted.Routes[i].Detail = change.WantedSince, ""
			}
		}
		recent := !known.Asked.After(time.Now()) && at.Sub(known.Asked) < askedAnew
		if recent && known.Account == decided.Account && before.DC == decided.Wanted.DC && slices.Equal(before.Routes, decided.Wanted.Routes) {
			return nil
		}
	}
	outcomes, err := outcomesOf(d.tx, known.Account.GUID)
	if err != nil {
		return err
	}
	old := known.gaps(outcomes)
	for _, g := range decided.gaps(outcomes) {
		if !slices.ContainsFunc(old, func(o Gap) bool { return o.Target == g.Target }) {
			d.Gaps = append(d.Gaps, g)
		}
	}
	d.keep(decided)
	return nil
}

// EachGap tells of each gap, in no order and without looking at the disk.
func (l *Ledger) EachGap(tell func(guid dsdb.GUID, target string, reason change.Reason)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for guid, gaps := range l.gaps {
		for line := range strings.SplitSeq(gaps.Value(), "\n") {
			target, reason, _ := strings.Cut(line, "\x00")
			tell(guid, target, change.Reason(reason))
		}
	}
}

// gapsAtATime is how many accounts are read in one transaction: the file grows while one is open.
const gapsAtATime = 256

// Gaps tells of each gap, in no order; they may be too many to be held at once. It calls next with some accounts before it reads what these
// lack, and tells of it. An error of tell ends it and is returned as it is.
func (l *Ledger) Gaps(next func(accounts []dsdb.GUID), tell func(Gap) error) error {
	l.mu.Lock()
	guids := make([]dsdb.GUID, 0, len(l.gaps))
	for guid := range l.gaps {
		guids = append(guids, guid)
	}
	l.mu.Unlock()
	for some := range slices.Chunk(guids, gapsAtATime) {
		next(some)
		var gaps []Gap
		err := l.db.View(func(tx boltfile.Tx) error {
			for _, guid := range some {
				var n Newest
				if _, err := tx.Get(newest, guid[:], &n); err != nil {
					return err
				}
				found, err := gapsOf(tx, guid, n)
				if err != nil {
					return err
				}
				gaps = append(gaps, found...)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("reading who lacks a password: %w", err)
		}
		for _, g := range gaps {
			if err := tell(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// gapsOf returns the gaps of an account, of which n is known; nothing, where the disk damaged that.
func gapsOf(tx boltfile.Tx, guid dsdb.GUID, n Newest) ([]Gap, error) {
	outcomes, err := outcomesOf(tx, guid)
	if err != nil {
		return nil, err
	}
	if n.Account.GUID.IsZero() && len(outcomes) > 0 {
		n.Account = outcomes[0].Account
	}
	return n.gaps(outcomes), nil
}

func outcomesOf(tx boltfile.Tx, guid dsdb.GUID) (entries []Entry, err error) {
	err = tx.Prefix(outcomes, guid[:], func(_, value []byte) error {
		var e Entry
		if err := json.Unmarshal(value, &e); err != nil {
			return err
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}
