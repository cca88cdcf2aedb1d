package docket

import (
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Moved takes in what a pass of the watch finds, as it finds it, and the DC's invocationId. A pass that fails is repeated, and tells it
// again.
func (d *Docket) Moved(own dsdb.GUID, movers []Mover) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.own = own
	var oldest time.Time // orphan
	for e := range d.orphans {
		if oldest.IsZero() || e.Header.Time.Before(oldest) {
			oldest = e.Header.Time
		}
	}
	for _, m := range movers {
		if !oldest.IsZero() && d.mayBeOf(m, oldest) {
			d.lookUp(m)
		}
		if it := (told{m.GUID, m.Stamp.Version, m.Stamp.USN}); m.Stamp.InvocationID == own && !d.told[it] {
			d.told[it] = true
			d.recent = append(d.recent, m)
		}
	}
	for _, m := range movers { // before all these: made-up orphans are many, and each may cost a key
		if claim := d.claims[strings.ToLower(m.Name)]; claim != nil {
			d.hurry(claim)
		}
	}
}

// PassComplete ends a pass of the watch that began at that time. Captures that became orphans meanwhile are held against the
// accounts that moved before.
func (d *Docket) PassComplete(began time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// A DC that answers slowly may show that an account moved long before it answers about the capture.
	oldest, unasked := d.unasked()
	kept := d.recent[:0]
	for _, m := range d.recent {
		if !d.newOrphan.IsZero() && d.mayBeOf(m, d.newOrphan) {
			d.lookUp(m)
		}
		if began.Sub(m.Seen) < d.timeout || unasked && d.mayBeOf(m, oldest) {
			kept = append(kept, m)
		}
	}
	clear(d.recent[len(kept):])
	d.recent = kept
	clear(d.told)
	d.newOrphan = time.Time{}
	d.passed = began
}

// unasked returns when the oldest capture was taken that may still become an orphan, and whether there is one.
func (d *Docket) unasked() (oldest time.Time, found bool) {
	for _, e := range d.files {
		if _, orphan := d.orphans[e]; !orphan && (!found || e.Header.Time.Before(oldest)) {
			oldest, found = e.Header.Time, true
		}
	}
	return oldest, found
}

// mayBeOf reports whether the change that moved the account can be that of a capture taken at a time: the hook runs on the DC that makes
// the change and comes before the stamp, and the stamp before the watch sees it. So a capture that somebody makes up, of a password that
// he guesses, is held against no account that had it before, or got it elsewhere; nor has it such accounts looked up.
func (d *Docket) mayBeOf(m Mover, captured time.Time) bool {
	earliest := captured.Add(-clockSlack)
	return m.Stamp.InvocationID == d.own && !m.Stamp.Time.Before(earliest) && !m.Seen.Before(earliest)
}

func (d *Docket) lookUp(m Mover) {
	s := d.movers[m.GUID]
	if s == nil {
		s = &Subject{GUID: m.GUID, changed: m.Stamp.Time, place: -1}
		d.movers[m.GUID] = s
	}
	if s.newest.Before(m.Seen) {
		s.newest = m.Seen
	}
	d.hurry(s)
}
