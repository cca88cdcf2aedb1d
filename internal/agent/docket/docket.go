// Package docket holds the captures that wait for their proof, and decides whom to ask the directory about next.
//
// Captures are gathered by the account name that they claim, so that one search serves them all. A Subject is one search: a
// claimed name, or an account that the watch saw moving. It has its turn
//
//   - at once when it is new, and when the watch saw the account's password move; the newest of these first, so that no flood
//     keeps a fresh one waiting;
//   - else after a pause that grows with the age of its newest capture (proof.Pause), whoever is due first. A second look so soon that the DC has hardly ever committed
//     by then is left out: each costs the DC some of the time in which it could.
//
// While more than a crowd of captures wait that may be nobody's change (capture.Header.Doubtful), those make nobody ask again and again: each such subject has its turn
// when it is new, and when the watch saw its account's password move, and else seldom. So a flood costs the DC a search or two for each capture, and captures that are
// certainly of a change are looked for as eagerly as ever.
//
// Orphans are captures whose name the directory does not know: Samba gave none, the account is not committed yet, it was
// renamed, or there never was one. An account whose password moved after the capture, by a change that was made on this DC, where the
// hook ran, may be an orphan's: those that the watch saw are looked up by GUID, and whose hash is the same is right, provably. If two
// have that password, both are served; so an orphan that was proven stays until its time is over. Samba holds its one write lock from the hook to the commit, so captures
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
	"container/heap"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
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

	doubtful  int                  // how many of files are
	orphans   map[*entry]time.Time // since when
	newOrphan time.Time            // when the oldest capture was taken that has become an orphan since the watch's last pass; zero if none
	recent    []Mover              // oldest first; moved on this DC
	told      map[told]bool        // which of recent came since the watch's last complete pass
	own       dsdb.GUID            // the DC's invocationId
	passed    time.Time            // when the watch's last complete pass began
	paired    pair                 // the last account that was found to an orphan
	usual     time.Duration        // about how long after a capture is seen the DC has committed it, or less

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
	proven   bool // the directory held it; it stays until that is handed over
	matched  bool // the directory held it; it is kept since it is an orphan
	failures int  // looks in a row that the DC refused since its time was over

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
	certain  int               // how many of them are certainly of a change
	newest   time.Time         // when the newest of them was first seen (not the doubtful of a crowd), or the watch last saw the account moving
	changed  time.Time         // by the earliest stamp with which the watch saw that

	// It is waiting, urgent or being looked at.
	due     time.Time
	place   int // in Docket.waiting; -1 elsewhere
	urgent  bool
	looking bool
	again   bool      // something happened while it was looked at
	soon    bool      // another doubtful one came while it was looked at
	looked  time.Time // when its last turn began

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

// told is what makes a Mover news.
type told struct {
	guid    dsdb.GUID
	version uint32
	usn     uint64
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
	// crowd is how many doubtful captures are no flood: as many as a busy DC without names, or an import of accounts without user principal names, may have waiting.
	crowd = 256
	// crowdPause is for how long a subject of doubtful captures waits in a crowd for its next turn, and arrivalPause after its last one, if another such came.
	// Captures without a name are one subject, and their turn is what has the watch look.
	crowdPause   = 30 * time.Second
	arrivalPause = 100 * time.Millisecond
	namelessRest = 25 * time.Millisecond
	// failuresUntilOverdue is how many looks in a row the DC has to refuse, at the least, until a capture is given up whose time is over.
	failuresUntilOverdue = 3
	// usualMost is as long as a second look is put off at the most.
	usualMost = 300 * time.Millisecond
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
		told:    map[told]bool{},
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
	d.files[p.File] = e
	if p.Header.Doubtful() {
		d.doubtful++
	} else {
		claim.certain++
	}
	if d.isCrowd(claim) && p.Seen.Sub(claim.looked) < arrivalPause {
		d.soon(claim)
		return
	}
	claim.newest = p.Seen
	d.hurry(claim)
}

// isCrowd reports whether a subject's captures are all doubtful, and too many such wait to ask about each again and again.
func (d *Docket) isCrowd(s *Subject) bool {
	return d.doubtful > crowd && s.GUID.IsZero() && s.certain == 0
}

// soon gives a subject a turn that was looked at a moment ago.
func (d *Docket) soon(s *Subject) {
	due := s.looked.Add(arrivalPause)
	if s.Name == "" {
		due = s.looked.Add(namelessRest)
	}
	switch {
	case s.looking:
		s.soon = true
	case s.place >= 0 && due.Before(s.due):
		s.due = due
		heap.Fix(&d.waiting, s.place)
		d.wakeUp()
	}
}

// Remove forgets a capture whose fate is sealed. Its evidence is wiped.
func (d *Docket) Remove(f Finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(f.entry) // Done forgets the claim itself
}

// forget takes an entry out, unless it is already.
func (d *Docket) forget(e *entry) {
	if d.files[e.File] != e {
		return
	}
	delete(d.files, e.File)
	delete(d.orphans, e)
	delete(e.claim.captures, e.File)
	if e.Header.Doubtful() {
		d.doubtful--
	} else {
		e.claim.certain--
	}
	e.Evidence.Wipe()
}

// Prune forgets the captures whose files are not there any more, because the hook shredded them to make room, and returns how many that were by the names that they
// claim. files are those of the folder, sorted; a capture that came since they were listed is not among them and stays.
func (d *Docket) Prune(files []string, listed time.Time) (gone map[string]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gone = map[string]int{}
	for _, e := range d.files {
		if _, found := slices.BinarySearch(files, e.File); found || !e.Seen.Before(listed) || e.claim.looking {
			continue
		}
		d.forget(e)
		gone[e.Header.Account]++
		if claim := e.claim; len(claim.captures) == 0 {
			if claim.place >= 0 {
				heap.Remove(&d.waiting, claim.place)
			}
			claim.urgent = false // what stands for it there is skipped
			delete(d.claims, strings.ToLower(claim.Name))
		}
	}
	return gone
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
			s.urgent, s.looking, s.looked = false, true, now
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
	s.looking, s.looked = true, now
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
	s.looking, s.again, s.soon = false, false, false
	d.hurry(s)
}

// Done puts a subject back after an answer; unfinished if a proven capture could not be handed over.
func (d *Docket) Done(s *Subject, unfinished bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	again, soon := s.again, s.soon
	s.looking, s.again, s.soon = false, false, false
	mover := !s.GUID.IsZero()
	switch {
	case again && (len(s.captures) > 0 || mover):
		d.hurry(s)
	case soon && len(s.captures) > 0 && !d.isCrowd(s): // any more
		s.newest = time.Now()
		d.hurry(s)
	case len(s.captures) > 0 || mover && unfinished:
		now := time.Now()
		s.due = now.Add(d.pause(s, now, soon))
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

// pause is for how long a subject that has had its turn waits for the next; soon if another capture came meanwhile.
func (d *Docket) pause(s *Subject, now time.Time, soon bool) time.Duration {
	waited := now.Sub(s.newest)
	pause := proof.Pause(waited)
	switch {
	case !d.isCrowd(s):
		if s.GUID.IsZero() && s.Name != "" {
			pause = max(pause, d.usual*4/5-waited)
		}
	case s.Name == "":
		pause = max(pause, namelessRest)
	case soon:
		pause = arrivalPause
	default:
		pause = max(pause, min(crowdPause, d.timeout/4))
	}
	return pause
}

// learn takes in how long after it was seen a capture was found to be committed. What is quicker than usual counts at once, what is slower little by little: a look too
// many costs a millisecond, and one too late somebody's time.
func (d *Docket) learn(took time.Duration) {
	took = min(took, usualMost)
	if d.usual > 0 && took > d.usual {
		took = d.usual + (took-d.usual)/8
	}
	d.usual = took
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

// Claims returns how many captures wait that claim the name, and when the oldest of them was first seen.
func (d *Docket) Claims(name string) (n int, oldest time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	claim := d.claims[strings.ToLower(name)]
	if claim == nil || name == "" {
		return 0, oldest
	}
	for _, e := range claim.captures {
		if oldest.IsZero() || e.Seen.Before(oldest) {
			oldest = e.Seen
		}
	}
	return len(claim.captures), oldest
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
