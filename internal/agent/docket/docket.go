// Package docket holds the captures that wait for their proof, and decides whom to ask the directory about next.
//
// Captures are gathered by the account name that they claim, so that one search serves them all. A Subject is one search: a
// claimed name, or an account that the watch saw moving. It has its turn
//
//   - at once when it is new, and when the watch saw the account's password move; the newest of these first, so that no flood
//     keeps a fresh one waiting;
//   - else after a pause that grows with the age of its newest capture (proof.Pause), whoever is due first.
//
// Orphans are captures whose name the directory does not know: Samba gave none, the account is not committed yet, it was
// renamed, or there never was one. An account whose password moved after the capture, by a change that was made on this DC, where the
// hook ran, may be an orphan's: those that the watch saw are looked up by GUID, and whose hash is the same is right, provably. If two have that password, both are served; so an orphan
// that was proven stays until its time is over. Samba holds its one write lock from the hook to the commit, so captures
// are in the order of the changes: the orphan that is tried first is usually the right one, and an account needs only one.
//
// Where an account has to be compared by its AES256 key, a capture's key has to be made first, which takes a millisecond or two:
// Judge asks for the newest first, or the likeliest orphan, and in one turn for a few only, so that no flood holds up a fresh one.
//
// Whom it trusts: what the directory answered. What a capture claims chooses the search, and nothing else.
//
// What it does not solve: everything is in memory. After a restart the captures are read from their folder again.
package docket

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Docket is made by New. Its methods may be called concurrently.
type Docket struct {
	timeout time.Duration
	wake    chan struct{} // holds one token when Next should look again

	mu      sync.Mutex
	files   map[string]*entry
	claims  map[string]*Subject    // by name, in lower case; "" for captures without one
	movers  map[dsdb.GUID]*Subject // lookups by GUID that are not finished
	urgent  []*Subject             // the last one has the next turn; stale entries are skipped
	waiting byDue                  // the one due first on top

	orphans   map[*entry]time.Time // since when
	newOrphan time.Time            // when the oldest capture was taken that has become an orphan since the watch's last pass; zero if none
	recent    []Mover              // oldest first; moved on this DC
	own       dsdb.GUID            // the DC's invocationId
	passed    time.Time            // when the watch's last complete pass began
	paired    pair                 // the last account that was found to an orphan

	began time.Time

	basis proof.Basis // of the last comparison
}

// Pending is a capture that waits for its proof.
type Pending struct {
	File     string // its name in the spool
	Header   capture.Header
	Seen     time.Time // when this process first saw it, by a clock that does not jump
	Evidence proof.Evidence
}

type entry struct {
	Pending
	claim *Subject

	noHash   bool // that nothing can be proven has been said
	troubled bool // that it cannot be handed over has been said
	matched  bool // the directory held it; it is kept since it is an orphan

	skipped time.Time // when the search began for which no key could be made of it

	met dsdb.Stamp // of the account that it claims, when that was first looked up
}

// pair is what shows where in the order of changes a capture stands.
type pair struct {
	usn   uint64
	taken time.Time
}

// Subject is one search to be made, again and again: by GUID if that is not zero, else by Name. An empty name stands for captures
// without one, of which the directory cannot be asked: the watch is to make a pass.
type Subject struct {
	Name string
	GUID dsdb.GUID

	captures map[string]*entry // that claim the name, by file
	newest   time.Time         // when the newest of them was first seen, or the watch last saw the account moving
	changed  time.Time         // by the earliest stamp with which the watch saw that

	// It is waiting, urgent or being looked at.
	due     time.Time
	place   int // in Docket.waiting; -1 elsewhere
	urgent  bool
	looking bool
	again   bool // something happened while it was looked at

	// Of the turn that it has.
	keys   bool // the search asks for the account's keys
	budget int  // how many more keys may be made
}

// Mover is an account whose password stamp the watch saw moving.
type Mover struct {
	GUID  dsdb.GUID
	Name  string
	Stamp dsdb.Stamp
	Seen  time.Time
}

const (
	// clockSlack is how far two readings of this machine's wall clock may lie apart by its being set. Stamps count whole seconds.
	clockSlack = 2 * time.Second
	// nearby is how long before its change's stamp a capture was probably taken.
	nearby = 2 * time.Second
	// dismissals bounds how many captures go that had their time before others have their turn: to shred one takes milliseconds.
	dismissals = 32
	// keysATurn bounds how many keys are made for a subject before others have their turn.
	keysATurn = 64
	// orphansByKey bounds how many orphans are held against an account by its key: so many are not near a change by themselves.
	orphansByKey = 256
)

// New returns an empty docket; timeout is how long a capture may wait for its proof.
func New(timeout time.Duration) *Docket {
	return &Docket{
		timeout: timeout,
		wake:    make(chan struct{}, 1),
		files:   map[string]*entry{},
		claims:  map[string]*Subject{},
		movers:  map[dsdb.GUID]*Subject{},
		orphans: map[*entry]time.Time{},
		began:   time.Now(),
		basis:   "unknown",
	}
}

// Holds reports whether a capture's file is known.
func (d *Docket) Holds(file string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[file] != nil
}

// Add takes a capture in that it does not hold; it has its turn at once.
func (d *Docket) Add(p Pending) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := strings.ToLower(p.Header.Account)
	claim := d.claims[key]
	if claim == nil {
		claim = &Subject{Name: p.Header.Account, captures: map[string]*entry{}, place: -1}
		d.claims[key] = claim
	}
	e := &entry{Pending: p, claim: claim}
	claim.captures[p.File] = e
	claim.newest = p.Seen
	d.files[p.File] = e
	d.hurry(claim)
}

// Remove forgets a capture whose fate is sealed. Its evidence is wiped.
func (d *Docket) Remove(f Finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, f.entry.File)
	delete(d.orphans, f.entry)
	delete(f.entry.claim.captures, f.entry.File) // Done forgets the claim itself
	f.entry.Evidence.Wipe()
}

// FirstTrouble reports whether this is the first time that it is asked about a capture: a full disk is worth one line each.
func (d *Docket) FirstTrouble(f Finding) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !f.entry.troubled
	f.entry.troubled = true
	return first
}

// Next waits for a subject whose turn it is. The caller looks at it and then calls Done or Unanswered; meanwhile nobody else gets
// it. The error is ctx's.
func (d *Docket) Next(ctx context.Context) (*Subject, error) {
	for {
		d.mu.Lock()
		s, wait := d.pick(time.Now())
		d.mu.Unlock()
		if s != nil {
			return s, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-d.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (d *Docket) pick(now time.Time) (s *Subject, wait time.Duration) {
	for len(d.urgent) > 0 {
		last := len(d.urgent) - 1
		s, d.urgent[last] = d.urgent[last], nil
		d.urgent = d.urgent[:last]
		if s.urgent { // else it was hurried twice and has had its turn
			s.urgent, s.looking = false, true
			return s, 0
		}
	}
	if len(d.waiting) == 0 {
		return nil, time.Hour
	}
	if wait = d.waiting[0].due.Sub(now); wait > 0 {
		return nil, wait
	}
	s = heap.Pop(&d.waiting).(*Subject)
	s.looking = true
	return s, 0
}

// hurry gives a subject the next turn.
func (d *Docket) hurry(s *Subject) {
	if s.looking {
		s.again = true
		return
	}
	if s.place >= 0 {
		heap.Remove(&d.waiting, s.place)
	}
	s.urgent = true
	d.urgent = append(d.urgent, s)
	d.wakeUp()
}

func (d *Docket) wakeUp() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Unanswered puts a subject back that the directory gave no answer about.
func (d *Docket) Unanswered(s *Subject) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.looking, s.again = false, false
	d.hurry(s)
}

// Done puts a subject back after an answer; unfinished if a proven capture could not be handed over.
func (d *Docket) Done(s *Subject, unfinished bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	again := s.again
	s.looking, s.again = false, false
	mover := !s.GUID.IsZero()
	switch {
	case again && (len(s.captures) > 0 || mover):
		d.hurry(s)
	case len(s.captures) > 0 || mover && unfinished:
		now := time.Now()
		s.due = now.Add(proof.Pause(now.Sub(s.newest)))
		heap.Push(&d.waiting, s)
		if s.place == 0 {
			d.wakeUp()
		}
	case mover:
		delete(d.movers, s.GUID)
	default:
		delete(d.claims, strings.ToLower(s.Name))
	}
}

// NeedsKeys reports whether the search is to ask for the account's keys as well.
func (d *Docket) NeedsKeys(s *Subject) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	about := maps.Values(s.captures)
	if !s.GUID.IsZero() {
		about = maps.Keys(d.orphans)
	}
	s.keys, s.budget = false, keysATurn
	for e := range about {
		s.keys = s.keys || e.Evidence.HasPassword()
	}
	return s.keys
}

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
		until, considered := began, true
		switch {
		case err == nil:
			delete(d.orphans, e)
			if e.met.IsZero() {
				e.met = account.Stamp
			}
		case errors.Is(err, directory.ErrNotFound):
			d.orphan(e)
			until, considered = complete, d.passed.After(d.orphans[e])
		}
		f := d.finding(e)
		f.Overdue = considered && proof.Overdue(until.Sub(e.Header.Time), until.Sub(e.Seen), d.timeout)
		if err == nil {
			d.compare(&f, s, stored, began, e.precedes(account.Stamp))
		}
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

// Moved takes in what a pass of the watch finds, as it finds it, and the DC's invocationId.
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
		if m.Stamp.InvocationID == own {
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

// Waiting returns how many captures wait and when the oldest of them was first seen.
func (d *Docket) Waiting() (n int, oldest time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.files {
		if oldest.IsZero() || e.Seen.Before(oldest) {
			oldest = e.Seen
		}
	}
	return len(d.files), oldest
}

// Basis tells by what the last comparison was made, or why it could not be; "unknown" before the first.
func (d *Docket) Basis() proof.Basis {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.basis
}

// byDue is a heap, the subject that is due first on top.
type byDue []*Subject

func (q byDue) Len() int           { return len(q) }
func (q byDue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q byDue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *byDue) Push(s any) {
	s.(*Subject).place = len(*q)
	*q = append(*q, s.(*Subject))
}

func (q *byDue) Pop() any {
	last := len(*q) - 1
	s := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	s.place = -1
	return s
}
