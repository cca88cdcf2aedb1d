package deliver

import (
	"errors"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
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
	failuresUntilDown = 5
	downFor           = 30 * time.Second

	firstProbe = 10 * time.Second // after the denial; also the least time between two probes
	maxProbe   = 5 * time.Minute
)

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
}

func newHealth(name string, log *event.Log) *health {
	h := &health{name: name, log: log}
	h.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:       downFor,
		ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failuresUntilDown },
		OnStateChange: h.changed,
		IsSuccessful:  func(err error) bool { return target.Classify(err) != target.Temporary },
		IsExcluded: func(err error) bool {
			class := target.Classify(err)
			return errors.Is(err, errUnused) || class == target.Denied || class == target.Throttled
		},
	})
	return h
}

func (h *health) changed(_ string, from, to gobreaker.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch to {
	case gobreaker.StateOpen:
		now := time.Now()
		h.downUntil = now.Add(downFor + time.Millisecond) // the breaker wants the pause exceeded
		if from == gobreaker.StateClosed {
			h.down = now
			h.log.TargetDown(h.name, h.err)
		}
	case gobreaker.StateClosed:
		h.down = time.Time{}
		h.log.TargetUp(h.name)
	}
}

// stopped returns what stops the target now, and until when; Up if nothing does. A denied target is to be probed then.
func (h *health) stopped(now time.Time) (State, time.Time) {
	open := h.breaker.State() == gobreaker.StateOpen
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !h.denied.IsZero():
		return Denied, h.probeDue
	case now.Before(h.resume):
		return Throttled, h.resume
	case open:
		return Down, h.downUntil
	default:
		return Up, time.Time{}
	}
}

// attempted notes the result of SetPassword. done is what the breaker gave for this attempt.
func (h *health) attempted(err error, done func(error)) {
	h.mu.Lock()
	now := time.Now()
	switch target.Classify(err) {
	case target.Delivered:
		h.probe = 0 // not at a good Check: if only SetPassword is denied, probes must grow rarer all the same
	case target.Temporary:
		h.err = err
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

// news says that a new change has come: the person who made it is waiting, and may be testing what was just repaired.
func (h *health) news() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if soonest := h.probed.Add(firstProbe); h.probeDue.After(soonest) {
		h.probeDue = soonest
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
