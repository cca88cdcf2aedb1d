package docket

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Finding is a capture that an answer calls for doing something about.
type Finding struct {
	Pending
	Verdict proof.Verdict
	Overdue bool // it had its time: unless it is current, it goes
	News    bool // for the first time nothing can be proven
	Orphan  bool
	Matched bool // the directory held it before, as an orphan
	Earlier bool // it was taken before this docket was made: another process may have proven it

	skipped bool // its key cannot be made now
	entry   *entry
}

// Judge holds captures against the answer of a search: the account and what it can be compared by, or the error of having none.
// Captures that came after the search began wait for the next. Where it finds some whose key is not made yet, the caller makes it,
// or tells by Skip that it cannot, and asks again about the same answer.
func (d *Docket) Judge(s *Subject, account directory.Account, stored proof.Stored, err error, began time.Time) []Finding {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case s.GUID.IsZero():
		return d.judgeClaims(s, account, stored, err, began)
	case err == nil:
		return d.judgeOrphans(s, account, stored, began)
	default:
		return nil
	}
}

// judgeClaims judges all captures that claim the name.
func (d *Docket) judgeClaims(s *Subject, account directory.Account, stored proof.Stored, err error, began time.Time) (findings []Finding) {
	var underived []Finding
	complete := d.complete(began)
	going := 0
	for _, e := range s.captures {
		if e.Seen.After(began) {
			continue
		}
		until, considered, first := began, true, e.met.IsZero()
		switch {
		case err == nil:
			delete(d.orphans, e)
			e.failures = 0
			if first {
				e.met = account.Stamp
			}
		case errors.Is(err, directory.ErrNotFound):
			d.orphan(e)
			e.failures = 0
			until, considered = complete, d.passed.After(d.orphans[e])
		default:
			// After an outage the first look comes when the time is over: one that is refused says nothing yet. Those of before do not count.
			if proof.Overdue(began.Sub(e.Header.Time), began.Sub(e.Seen), d.timeout) {
				e.failures++
			}
			considered = e.failures >= failuresUntilOverdue
		}
		f := d.finding(e)
		f.Overdue = considered && proof.Overdue(until.Sub(e.Header.Time), until.Sub(e.Seen), d.timeout)
		if err == nil {
			d.compare(&f, s, stored, began, e.precedes(account.Stamp))
		}
		if f.Verdict == proof.Current && !first && !e.proven && !e.Header.Doubtful() {
			d.learn(began.Sub(e.Seen))
		}
		e.proven = e.proven || f.Verdict == proof.Current
		if f.Verdict == proof.Underived { // nothing has been said of it yet
			if !f.skipped {
				underived = append(underived, f)
			}
			continue
		}
		if f.Overdue && f.Verdict != proof.Current {
			if going == dismissals {
				s.again = true
				continue
			}
			going++
		}
		if f.Verdict == proof.Current || f.Overdue || f.News {
			findings = append(findings, f)
		}
	}
	slices.SortFunc(underived, func(a, b Finding) int { return b.Seen.Compare(a.Seen) })
	return append(findings, s.afford(underived)...)
}

// precedes reports whether the change that the stamp names may be the capture's. One that the account had before is not, though the
// password is the same: either Samba has still to commit the change, which will be a version of its own, or somebody has made the capture up
// and guessed right, which is not to be told by anything that follows. The times tell, and if the clock was set, that the stamp moved.
func (e *entry) precedes(stamp dsdb.Stamp) bool {
	return !stamp.Time.Before(e.Header.Time.Add(-clockSlack)) || !stamp.Equal(e.met)
}

// afford returns the first captures whose keys may still be made in this turn. For the others there will be another.
func (s *Subject) afford(underived []Finding) []Finding {
	n := min(len(underived), s.budget)
	s.budget -= n
	s.again = s.again || n < len(underived)
	return underived[:n]
}

// judgeOrphans finds the orphan that is an account's change. One is enough: any other that proves the same holds the same password,
// and is another account's, or somebody made it up.
func (d *Docket) judgeOrphans(s *Subject, account directory.Account, stored proof.Stored, began time.Time) []Finding {
	for i, e := range d.candidates(s, account, began) {
		f := d.finding(e)
		if d.compare(&f, s, stored, began, true); i >= orphansByKey && d.basis == proof.AES256 {
			return nil
		}
		switch f.Verdict {
		case proof.Underived:
			if !f.skipped {
				return s.afford([]Finding{f})
			}
		case proof.Current:
			e.matched = true
			d.paired = pair{account.USNChanged, e.Header.Time}
			return []Finding{f}
		case proof.Unprovable: // with any other one, too
			if f.News {
				return []Finding{f}
			}
			return nil
		}
	}
	return nil
}

// candidates returns the orphans that may be an account's change, the likeliest first.
func (d *Docket) candidates(s *Subject, account directory.Account, began time.Time) []*entry {
	m := Mover{Stamp: account.Stamp, Seen: s.newest}
	type candidate struct {
		*entry
		unlikely int
		inTime   int64
	}
	later, near := account.USNChanged > d.paired.usn, m.Stamp.Time.Add(-nearby)
	var found []candidate
	for e := range d.orphans {
		taken := e.Header.Time
		if e.Seen.After(began) || !d.mayBeOf(m, taken) {
			continue
		}
		c := candidate{entry: e, inTime: taken.UnixNano()}
		if !later {
			c.inTime = -c.inTime
		}
		switch {
		case e.matched:
			c.unlikely = 3
		case taken.Before(near):
			c.unlikely = 2
		case taken.After(d.paired.taken) != later:
			c.unlikely = 1
		}
		found = append(found, c)
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.unlikely, b.unlikely), cmp.Compare(a.inTime, b.inTime))
	})
	all := make([]*entry, len(found))
	for i, c := range found {
		all[i] = c.entry
	}
	return all
}

func (d *Docket) finding(e *entry) Finding {
	_, orphan := d.orphans[e]
	return Finding{Pending: e.Pending, Verdict: proof.NotYet, Orphan: orphan, Matched: e.matched,
		Earlier: e.Header.Time.Before(d.began), entry: e}
}

// compare judges a capture; changed says whether what is stored may be of its change. If not, it proves nothing, nor does it tell whether
// anything will be provable: it may be an account's that has no password.
func (d *Docket) compare(f *Finding, s *Subject, stored proof.Stored, began time.Time, changed bool) {
	f.skipped = f.entry.skipped.Equal(began)
	if f.Evidence.HasPassword() && !s.keys { // it came after they could have been asked for
		f.Verdict, f.skipped, s.again = proof.Underived, true, true
		return
	}
	verdict := f.Evidence.Judge(stored)
	if !changed && verdict != proof.Underived {
		return
	}
	d.basis = f.Evidence.Basis(stored)
	f.Verdict = verdict
	if f.Verdict == proof.Unprovable {
		f.News, f.entry.noHash = !f.entry.noHash, true
	}
}

// Skip tells that the key could not be made that Judge asked for, about the answer to the search that began at that time.
func (d *Docket) Skip(f Finding, began time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.entry.skipped = began
}

func (d *Docket) orphan(e *entry) {
	if _, already := d.orphans[e]; already {
		return
	}
	d.orphans[e] = time.Now()
	if d.newOrphan.IsZero() || e.Header.Time.Before(d.newOrphan) {
		d.newOrphan = e.Header.Time
	}
}

// complete returns until when every account that moved has been held against the orphans, for a search that began at that time. An
// orphan's time is not over before; nor before a pass of the watch that began when it was one, for what moved before that is held
// against it at the end of one.
func (d *Docket) complete(began time.Time) time.Time {
	if d.passed.Before(began) {
		began = d.passed
	}
	for _, s := range d.movers {
		if s.changed.Before(began) {
			began = s.changed
		}
	}
	return began
}
