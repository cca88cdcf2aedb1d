package deliver

import (
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
)

const (
	// provenFor is how long the agent's proof is enough for a first attempt.
	provenFor = time.Minute
	// markFor is how old the watch mark may be.
	markFor = time.Minute
)

// watch knows until when the directory has been seen, and says what may be sent.
type watch struct {
	log *event.Log

	mu    sync.Mutex
	begun time.Time // when a mark was first missed
	asOf  time.Time // everything up to here has been applied to ledger and queue
	held  bool      // items are held back, and that has been said
}

// set notes a mark whose sightings have all been applied, and reports whether it is news.
func (w *watch) set(asOf, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if asOf.Equal(w.asOf) {
		return false
	}
	w.asOf = asOf
	if w.held && fresh(asOf, now) {
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
	proven = now.Add(-provenFor)
	if !fresh(w.asOf, now) {
		return proven, time.Time{}
	}
	if w.asOf.After(now) {
		return proven, now
	}
	return proven, w.asOf
}

// hold notes that an item that is due is held back. It returns when that may change without a new mark: never, if zero.
func (w *watch) hold(now time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if fresh(w.asOf, now) {
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

// fresh reports whether a mark is recent. One from the future is not: a clock was set back since.
func fresh(asOf, now time.Time) bool { return now.Sub(asOf).Abs() <= markFor }
