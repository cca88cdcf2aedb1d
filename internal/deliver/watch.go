package deliver

import (
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
)

const (
	// provenFor is how long the agent's proof is enough for a first attempt. After that a look of the watch has to come, which
	// costs a second or two where there is an agent.
	provenFor = 10 * time.Second
	// markFor is how old the watch mark may be.
	markFor = time.Minute
	// clockSlack is how far the two clocks (see watch) may part between two looks at them.
	clockSlack = time.Second
)

// watch knows until when the directory has been seen, and says what may be sent.
//
// There are two clocks. The agent writes the time of day, which can be set, forwards and backwards. A process also has a clock
// that nobody sets, but that stands still while the machine sleeps (package time, "monotonic"). So what the agent wrote becomes a time of
// the second when it is read, and is compared as that from then on; and when the two clocks part, nothing from before counts any more:
// neither mark nor proof. Both come anew within a second or two, if there is an agent.
//
// For the same reason a mark that was there when we started counts for nothing: the clock may have been set since it was written.
type watch struct {
	log *event.Log

	mu      sync.Mutex
	begun   time.Time // when a mark was first missed
	known   bool      // a mark has been read, or there was none
	mark    time.Time // the last one, as the agent wrote it
	asOf    time.Time // everything up to here has been applied to ledger and queue
	held    bool      // items are held back, and that has been said
	looked  time.Time // at the clocks
	steady  time.Time // since when they have agreed; zero: since the start
	doubted time.Time // when it was last noticed that something may not be known
	back    time.Time // the time of day, as it is counted now, at the last look before the clock was set back; zero: it was not, or past was called since

	heard map[string][]hearing // by peer, as the last mark has them; the oldest first. See settle.go
}

// look compares the clocks.
func (w *watch) look(now time.Time) {
	passed := now.Sub(w.looked)
	switch by := now.Round(0).Sub(w.looked.Round(0)) - passed; {
	case w.looked.IsZero():
	case passed < 0:
		return // another lane was quicker
	case by.Abs() > clockSlack:
		w.steady, w.begun, w.asOf, w.heard = now, now, time.Time{}, nil
		if before := now.Round(0).Add(-passed); by < 0 && (w.back.IsZero() || before.Before(w.back)) {
			w.back = before
		}
		w.log.ClockSet(by)
	}
	w.looked = now
}

// set notes a mark (zero: there is none) whose sightings have all been applied, and reports whether more may be sent now.
func (w *watch) set(m change.Mark, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look(now)
	news := w.known && !m.AsOf.Equal(w.mark)
	w.known, w.mark = true, m.AsOf
	age := now.Sub(m.AsOf.Round(0)) // by the time of day
	if !news || age < 0 {           // it was set back since the mark was written
		return false
	}
	w.asOf = now.Add(-age)
	w.hear(m.Peers, now)
	if w.held && w.fresh(now) {
		w.held = false
		w.log.WatchFresh()
	}
	return true
}

// window returns what may be sent now: items never tried that were proven not before proven, and the others that were due
// not after due. An item that waited is sent only if everything has been seen up to a moment after it became due.
func (w *watch) window(now time.Time) (proven, due time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look(now)
	proven = now.Add(-provenFor)
	for _, since := range []time.Time{w.steady, w.doubted} {
		if proven.Before(since) {
			proven = since
		}
	}
	if !w.fresh(now) {
		return proven, time.Time{}
	}
	return proven, w.asOf
}

// setBack returns the time of day, as it is counted now, before which the clock was ahead; zero if past was called since.
func (w *watch) setBack(now time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look(now)
	return w.back
}

// past notes that what was of a time to come has been dealt with.
func (w *watch) past(back time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.back.Equal(back) {
		w.back = time.Time{}
	}
}

// steadySince returns since when the clocks have agreed; zero: since the start.
func (w *watch) steadySince(now time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look(now)
	return w.steady
}

// doubt has no mark count that was read so far, nor a proof of before.
func (w *watch) doubt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.asOf, w.begun, w.doubted = time.Time{}, now, now
}

// covers reports whether everything has been seen up to a moment.
func (w *watch) covers(moment time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.asOf.Before(moment)
}

// hold notes that an item that is due is held back. It returns when that may change without a new mark: never, if zero.
func (w *watch) hold(now time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fresh(now) {
		return w.asOf.Add(markFor + time.Millisecond) // by then a new mark has come, or the watch is stale
	}
	if w.begun.IsZero() {
		w.begun = now
	}
	if patience := w.begun.Add(markFor); now.Before(patience) {
		return patience // the agent may be starting, as we are
	}
	if !w.held {
		w.held = true
		w.log.WatchStale(w.asOf)
	}
	return time.Time{}
}

// status returns until when the directory has been seen, and whether that is recent.
func (w *watch) status(now time.Time) WatchStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look(now)
	return WatchStatus{AsOf: w.asOf, Fresh: w.fresh(now), Peers: w.peers()}
}

func (w *watch) fresh(now time.Time) bool { return now.Sub(w.asOf) <= markFor }
