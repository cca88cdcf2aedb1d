package agent

import (
	"container/heap"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// docket holds the captures that wait, and decides whom to ask the directory about next.
//
// Captures are gathered by the account name that they claim, so that one search serves them all. A subject is one search: a
// claimed name, or an account that the watch saw moving. It has its turn
//
//   - at once when it is new, and when the watch saw the account's password move; the newest of these first, so that no flood
//     keeps a fresh one waiting;
//   - else after a pause that grows with the age of its newest capture (proof.Pause), whoever is due first.
//
// Orphans are captures whose name the directory does not know: Samba gave none, the account is not committed yet, it was
// renamed, or there never was one. Any account whose password moved after the capture may be an orphan's: those that the watch saw
// are looked up by GUID, and whose hash is the same is right, provably. If two have that password, both are served; so an orphan
// that was proven stays until its time is over.
type docket struct {
	timeout time.Duration
	wake    chan struct{} // holds one token when next should look again

	mu      sync.Mutex
	files   map[string]*pending
	claims  map[string]*subject    // by name, in lower case; "" for captures without one
	movers  map[dsdb.GUID]*subject // lookups by GUID that are not finished
	urgent  []*subject             // the last one has the next turn; stale entries are skipped
	waiting byDue                  // the one due first on top

	orphans   map[*pending]struct{}
	newOrphan time.Time // when the oldest capture was taken that has become an orphan since the watch's last pass; zero if none
	recent    []mover   // oldest first
	passed    time.Time // when the watch's last complete pass began

	hashes string // see DirectoryStatus.NTHash
}

// pending is a capture that waits for its proof. Its fields but the last three never change.
type pending struct {
	file     string
	header   capture.Header
	seen     time.Time // when this process first saw it, by a clock that does not jump
	evidence proof.Evidence
	claim    *subject

	noHash   bool                     // that nothing can be proven has been said
	troubled bool                     // that it cannot be handed over has been said
	matched  map[dsdb.GUID]dsdb.Stamp // what it was proven for, kept since it is an orphan
}

// subject is one search to be made, again and again. It is waiting, urgent or being looked at.
type subject struct {
	name string    // to look up by
	guid dsdb.GUID // to look up by instead, unless it is zero

	captures map[string]*pending // that claim the name
	newest   time.Time           // when the newest of them was first seen

	due     time.Time
	place   int // in docket.waiting; -1 elsewhere
	urgent  bool
	looking bool
	again   bool // something happened while it was looked at
}

// mover is an account whose password stamp the watch saw moving.
type mover struct {
	guid    dsdb.GUID
	name    string
	changed time.Time // by the stamp
	seen    time.Time
}

const (
	// clockSlack is how far two readings of this machine's wall clock may lie apart by its being set.
	clockSlack = 2 * time.Second
	// stampSlack is the same between a capture and the stamp of its change, which may be written long after a slow script began.
	stampSlack = time.Minute
)

func newDocket(timeout time.Duration) *docket {
	return &docket{
		timeout: timeout,
		wake:    make(chan struct{}, 1),
		files:   map[string]*pending{},
		claims:  map[string]*subject{},
		movers:  map[dsdb.GUID]*subject{},
		orphans: map[*pending]struct{}{},
		hashes:  "unknown",
	}
}

func (d *docket) holds(file string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[file] != nil
}

// add takes a capture in; it has its turn at once.
func (d *docket) add(p *pending) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := strings.ToLower(p.header.Account)
	claim := d.claims[key]
	if claim == nil {
		claim = &subject{name: p.header.Account, captures: map[string]*pending{}, place: -1}
		d.claims[key] = claim
	}
	p.claim = claim
	claim.captures[p.file] = p
	claim.newest = p.seen
	d.files[p.file] = p
	d.hurry(claim)
}

// remove forgets a capture whose fate is sealed.
func (d *docket) remove(p *pending) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, p.file)
	delete(d.orphans, p)
	delete(p.claim.captures, p.file) // done forgets the claim itself
	p.evidence.Wipe()
}

// matched notes that an orphan has been proven for an account.
func (d *docket) matched(p *pending, account directory.Account) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.matched == nil {
		p.matched = map[dsdb.GUID]dsdb.Stamp{}
	}
	p.matched[account.GUID] = account.Stamp
}

// firstTrouble reports whether this is the first time that it is asked about a capture: a full disk is worth one line each.
func (d *docket) firstTrouble(p *pending) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !p.troubled
	p.troubled = true
	return first
}

// hurry gives a subject the next turn. d.mu is held.
func (d *docket) hurry(s *subject) {
	if s.looking {
		s.again = true
		return
	}
	if s.place >= 0 {
		heap.Remove(&d.waiting, s.place)
	}
	s.urgent = true
	d.urgent = append(d.urgent, s)
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// next waits for a subject whose turn it is. The caller looks at it and then calls done or unanswered. The error is ctx's.
func (d *docket) next(ctx context.Context) (*subject, error) {
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

func (d *docket) pick(now time.Time) (s *subject, wait time.Duration) {
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
	s = heap.Pop(&d.waiting).(*subject)
	s.looking = true
	return s, 0
}

// unanswered puts a subject back that the directory gave no answer about.
func (d *docket) unanswered(s *subject) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.looking, s.again = false, false
	d.hurry(s)
}

// done puts a subject back after an answer.
func (d *docket) done(s *subject) {
	d.mu.Lock()
	defer d.mu.Unlock()
	again := s.again
	s.looking, s.again = false, false
	switch {
	case again && (len(s.captures) > 0 || !s.guid.IsZero()):
		d.hurry(s)
	case len(s.captures) > 0:
		now := time.Now()
		s.due = now.Add(proof.Pause(now.Sub(s.newest)))
		heap.Push(&d.waiting, s)
		if s.place == 0 {
			select {
			case d.wake <- struct{}{}:
			default:
			}
		}
	case !s.guid.IsZero():
		delete(d.movers, s.guid)
	default:
		delete(d.claims, strings.ToLower(s.name))
	}
}

// finding is a capture that an answer calls for doing something about.
type finding struct {
	*pending
	verdict proof.Verdict
	overdue bool // it had its time: unless it is current, it goes
	news    bool // for the first time nothing can be proven
	orphan  bool
	proven  bool // before, as an orphan
}

// judge holds the captures that a search is about against its answer: the account, or the error of having none. Captures that
// came after the search began wait for the next.
func (d *docket) judge(s *subject, account directory.Account, err error, began time.Time) (findings []finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.hashes = "stored"
		if len(account.NTHash) == 0 {
			d.hashes = "missing"
		}
	}
	consider := func(p *pending) {
		if p.seen.After(began) {
			return
		}
		f := finding{pending: p, verdict: proof.NotYet, overdue: d.overdue(p, began), proven: len(p.matched) > 0}
		if err == nil && !(f.proven && p.matched[account.GUID].Equal(account.Stamp)) {
			f.verdict = p.evidence.Judge(account.NTHash, account.Stamp)
		}
		if f.verdict == proof.Unprovable {
			f.news, p.noHash = !p.noHash, true
		}
		_, f.orphan = d.orphans[p]
		if f.verdict == proof.Current || f.overdue || f.news {
			findings = append(findings, f)
		}
	}
	if !s.guid.IsZero() {
		if err == nil {
			for p := range d.orphans {
				consider(p)
			}
		}
		return findings
	}
	for _, p := range s.captures {
		switch {
		case err == nil:
			delete(d.orphans, p)
		case errors.Is(err, directory.ErrNotFound):
			d.orphan(p)
		}
		consider(p)
	}
	return findings
}

func (d *docket) orphan(p *pending) {
	if _, already := d.orphans[p]; already {
		return
	}
	d.orphans[p] = struct{}{}
	if d.newOrphan.IsZero() || p.header.Time.Before(d.newOrphan) {
		d.newOrphan = p.header.Time
	}
}

// overdue reports whether a capture had its time when a search began. An orphan's is not over before all accounts that moved
// until then have been looked up.
func (d *docket) overdue(p *pending, began time.Time) bool {
	if _, orphan := d.orphans[p]; orphan {
		if len(d.movers) > 0 {
			return false
		}
		if d.passed.Before(began) {
			began = d.passed
		}
	}
	return proof.Overdue(began.Sub(p.header.Time), began.Sub(p.seen), d.timeout)
}

// moved takes in what a pass of the watch finds, as it finds it.
func (d *docket) moved(movers []mover) {
	d.mu.Lock()
	defer d.mu.Unlock()
	oldest := time.Time{}
	for p := range d.orphans {
		if oldest.IsZero() || p.header.Time.Before(oldest) {
			oldest = p.header.Time
		}
	}
	for _, m := range movers {
		if claim := d.claims[strings.ToLower(m.name)]; claim != nil {
			d.hurry(claim)
		}
		if !oldest.IsZero() && m.mayBelongTo(oldest) {
			d.lookUp(m.guid)
		}
	}
	d.recent = append(d.recent, movers...)
}

// passComplete ends a pass of the watch that began at that time. Captures that became orphans meanwhile are held against the
// accounts that moved before.
func (d *docket) passComplete(began time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.recent[:0]
	for _, m := range d.recent {
		if !d.newOrphan.IsZero() && m.mayBelongTo(d.newOrphan) {
			d.lookUp(m.guid)
		}
		if began.Sub(m.seen) < d.timeout {
			kept = append(kept, m)
		}
	}
	clear(d.recent[len(kept):])
	d.recent = kept
	d.newOrphan = time.Time{}
	d.passed = began
}

// mayBelongTo reports whether the change that moved the account can be that of a capture taken at a time: the hook comes before
// the commit, and the commit before the watch sees it. That keeps captures that somebody makes up from having accounts looked
// up that moved long before.
func (m mover) mayBelongTo(captured time.Time) bool {
	return !m.changed.Before(captured.Add(-stampSlack)) && !m.seen.Before(captured.Add(-clockSlack))
}

func (d *docket) lookUp(guid dsdb.GUID) {
	s := d.movers[guid]
	if s == nil {
		s = &subject{guid: guid, place: -1}
		d.movers[guid] = s
	}
	d.hurry(s)
}

func (d *docket) status() CaptureStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := CaptureStatus{Pending: len(d.files)}
	for _, p := range d.files {
		if s.Oldest.IsZero() || p.seen.Before(s.Oldest) {
			s.Oldest = p.seen
		}
	}
	return s
}

func (d *docket) hashStatus() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hashes
}

// byDue is a heap, the subject that is due first on top.
type byDue []*subject

func (q byDue) Len() int           { return len(q) }
func (q byDue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q byDue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *byDue) Push(s any) {
	s.(*subject).place = len(*q)
	*q = append(*q, s.(*subject))
}

func (q *byDue) Pop() any {
	last := len(*q) - 1
	s := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	s.place = -1
	return s
}
