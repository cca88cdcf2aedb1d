package deliver

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// State says whether a target takes passwords, in one word.
type State string

// The states.
const (
	Up        State = "up"
	Denied    State = "denied"    // it refuses us; Check is tried until it does not
	Throttled State = "throttled" // it asked for a pause
	Down      State = "down"      // it failed again and again; one item is tried after a pause
)

const (
	// After so many temporary failures in a row the target is down, if they are of several accounts; of one alone it takes more, as they may be
	// that account's.
	failuresUntilDown      = 5
	failuresOfOneUntilDown = 10

	firstDown = 30 * time.Second // at most, before the first item is tried again
	maxDown   = 10 * time.Minute
	// breakerPause is the breaker's own, which is over when ours is: the breaker counts, and lets one item through; for how long none is
	// tried is for us to say, as its pauses do not grow.
	breakerPause = time.Millisecond

	firstProbe = 10 * time.Second // after the denial; also the least time between two probes
	maxProbe   = 5 * time.Minute
)

// forbiddenUntilDenied is for how many accounts in a row the target may forbid what it allows for none, before that is taken to be about us.
const forbiddenUntilDenied = 3

// errUnused tells the breaker that the attempt it allowed was not made.
var errUnused = errors.New("no attempt was made")

// health knows what stops a target as a whole. While something does, no item is tried and none loses an attempt.
type health struct {
	name    string
	log     *event.Log
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]

	// The breaker calls changed with its own lock held: mu is never held while the breaker is called.
	mu        sync.Mutex
	err       error     // the last one that was the target's, and not an account's
	denied    time.Time // since when; zero: it is not
	probe     time.Duration
	probed    time.Time
	probeDue  time.Time
	throttled time.Time // since when
	resume    time.Time // when the throttling ends
	down      time.Time // since when; zero: it is not
	downUntil time.Time
	downSoon  time.Time // until then at least, if a new change comes
	downs     int       // how many pauses in a row
	failing   dsdb.GUID // whose attempt was the first of the temporary failures in a row; zero: there is none
	several   bool      // another account's failed since

	// Of those whose password the target does not let us set (target.ErrForbidden).
	forbidden map[dsdb.GUID]time.Time // since when
	inARow    int                     // how many of them, since a password was last taken
	lastTaken time.Time               // when that was
	checkedAt time.Time               // when one of them last had us look whether it is about us
}

func newHealth(name string, log *event.Log) *health {
	h := &health{name: name, log: log, forbidden: map[dsdb.GUID]time.Time{}}
	h.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:       breakerPause,
		ReadyToTrip:   h.isDown,
		OnStateChange: h.changed,
		IsSuccessful:  func(err error) bool { return target.Classify(err) != target.Temporary },
		IsExcluded: func(err error) bool {
			class := target.Classify(err)
			return errors.Is(err, errUnused) || class == target.Denied || class == target.Throttled
		},
	})
	return h
}

func (h *health) isDown(c gobreaker.Counts) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return c.ConsecutiveFailures >= failuresUntilDown && h.several || c.ConsecutiveFailures >= failuresOfOneUntilDown
}

func (h *health) changed(_ string, from, to gobreaker.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch to {
	case gobreaker.StateOpen:
		now, random := time.Now(), rand.Float64()
		h.downUntil, h.downSoon = now.Add(downPause(h.downs, random)), now.Add(downPause(0, random))
		h.downs++
		if from == gobreaker.StateClosed {
			h.down = now
			h.log.TargetDown(h.name, h.err)
		}
	case gobreaker.StateClosed:
		h.down, h.downUntil, h.downSoon, h.downs = time.Time{}, time.Time{}, time.Time{}, 0
		h.log.TargetUp(h.name)
	}
}

// stopped returns what stops the target now, and until when; Up if nothing does. A denied target is to be probed then.
func (h *health) stopped(now time.Time) (State, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !h.denied.IsZero():
		return Denied, h.probeDue
	case now.Before(h.resume):
		return Throttled, h.resume
	case now.Before(h.downUntil):
		return Down, h.downUntil
	default:
		return Up, time.Time{}
	}
}

// attempted notes the result of SetPassword for an account. done is what the breaker gave for this attempt.
func (h *health) attempted(account dsdb.GUID, err error, done func(error)) {
	h.mu.Lock()
	now := time.Now()
	switch target.Classify(err) {
	case target.Delivered:
		h.probe = 0 // not at a good Check: if only SetPassword is denied, probes must grow rarer all the same
		h.failing, h.several = dsdb.GUID{}, false
	case target.NoUser, target.Rejected, target.Forbidden:
		h.failing, h.several = dsdb.GUID{}, false
	case target.Temporary:
		h.err = err
		h.several = h.several || h.failing != dsdb.GUID{} && h.failing != account
		if h.failing == (dsdb.GUID{}) {
			h.failing = account
		}
	case target.Denied:
		h.err = err
		if h.denied.IsZero() {
			h.denied, h.probed = now, now
			h.postponeProbe(now)
			h.log.TargetDenied(h.name, err)
		}
	case target.Throttled:
		h.err = err
		if !now.Before(h.resume) {
			h.throttled = now
		}
		if resume := now.Add(min(target.Delay(err), maxAsked)); resume.After(h.resume) {
			h.resume = resume
		}
	}
	h.mu.Unlock()
	done(err)
}

// taken notes that the target took an account's password.
func (h *health) taken(account dsdb.GUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.forbidden, account)
	h.inARow, h.lastTaken = 0, time.Now()
}

// forbids notes that the target does not let us set an account's password. It returns for how many accounts in a row that is so, and whether
// it is so for this one while the target has taken another's.
func (h *health) forbids(account dsdb.GUID) (accounts int, others bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	since, known := h.forbidden[account]
	switch {
	case !known:
		h.forbidden[account] = time.Now()
		h.inARow++
	case h.lastTaken.After(since) && h.inARow == 0: // and for nobody else the opposite since: we may just have lost a permission
		delete(h.forbidden, account)
		return 0, true
	}
	return h.inARow, false
}

// checkAgain reports whether Check is to be asked because of a password that was forbidden: its last answer to that counts for a while.
func (h *health) checkAgain() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if !h.checkedAt.IsZero() && now.Sub(h.checkedAt) < firstProbe {
		return false
	}
	h.checkedAt = now
	return true
}

// checked notes the result of a probe of a target that denied access.
func (h *health) checked(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.probed = now
	if err != nil {
		h.err = err
		h.postponeProbe(now)
		return
	}
	h.denied = time.Time{}
	h.log.TargetUp(h.name)
}

func (h *health) postponeProbe(now time.Time) {
	h.probe = min(max(2*h.probe, firstProbe), maxProbe)
	h.probeDue = now.Add(h.probe)
}

// news says that a new change has come: the person who made it is waiting, and may be testing what was just repaired. So pauses only grow
// while nobody does anything.
func (h *health) news() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if soonest := h.probed.Add(firstProbe); h.probeDue.After(soonest) {
		h.probeDue = soonest
	}
	if h.downUntil.After(h.downSoon) {
		h.downUntil = h.downSoon
	}
}

// hurry ends a pause that is ours, because a person says so. One that the target asked for stays.
func (h *health) hurry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.probeDue.After(now) {
		h.probeDue = now
	}
	if soonest := now.Add(2 * breakerPause); h.downUntil.After(soonest) {
		h.downUntil = soonest
	}
}

// resumes notes what the last run left: until when the target had asked for a pause.
func (h *health) resumes(at time.Time, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at.After(h.resume) {
		h.throttled, h.resume, h.err = time.Now(), at, why
	}
}

// status returns the state for people: since when, and why.
func (h *health) status() (state State, since time.Time, err error) {
	state, _ = h.stopped(time.Now())
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case state == Denied:
		return Denied, h.denied, h.err
	case state == Throttled:
		return Throttled, h.throttled, h.err
	case !h.down.IsZero(): // also while one item is being tried
		return Down, h.down, h.err
	default:
		return Up, time.Time{}, nil
	}
}
