package deliver

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// Confirmed landing: some targets tell when they last saw a user's password change. Some time after a delivery they are asked, and the answer
// is noted in the ledger, for people: a cloud's "done" is its front's word, and that it shows in the user is another's.
//
// Nothing hangs on it. What is not confirmed is no alarm: clocks differ, clouds are slow to show what they did, somebody may have changed
// the password there since, and a restart forgets what was still to be asked. And it takes no request from a password: it is asked only
// out of the half of the target's rate that passwords leave.
const (
	// landingSlack is how far a target's clock may differ from ours.
	landingSlack = 5 * time.Second
	// maxLandings is how many deliveries may wait to be asked about; of more than that some are not.
	maxLandings = 1000
	// cannotTellFor is how long a target is not asked that cannot tell, or not us.
	cannotTellFor = time.Hour
)

// landingAfter is when it is asked, after the delivery or the last answer. Clouds show a write after seconds, or minutes.
var landingAfter = []time.Duration{10 * time.Second, time.Minute, 10 * time.Minute}

// landing is a delivery that is to be confirmed.
type landing struct {
	item         queue.Item
	began, ended time.Time // of the request; by the time of day
	asked        int       // how often
	due          time.Time
}

// landings are those of one target.
type landings struct {
	mu      sync.Mutex
	waiting []landing
	never   error     // why the target cannot be asked
	until   time.Time // when that is tried again
	wake    chan struct{}
}

func newLandings() *landings { return &landings{wake: make(chan struct{}, 1)} }

// add takes a delivery in, which began at a time and has just ended.
func (s *landings) add(item queue.Item, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Before(s.until) || len(s.waiting) >= maxLandings {
		return
	}
	item.Peers, item.Reason = nil, ""
	s.waiting = append(s.waiting, landing{item, began.Round(0), now.Round(0), 0, now.Add(landingAfter[0])})
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next takes out a landing that is due; if there is none, it returns when the first will be, zero if there is none.
func (s *landings) next(now time.Time) (l landing, due time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range s.waiting {
		if !l.due.After(now) {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return l, time.Time{}, true
		}
		if due.IsZero() || l.due.Before(due) {
			due = l.due
		}
	}
	return landing{}, due, false
}

// again puts a landing back; asked says whether the target gave an answer.
func (s *landings) again(l landing, asked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if asked {
		l.asked++
	}
	if l.asked == len(landingAfter) {
		return
	}
	l.due = time.Now().Add(landingAfter[l.asked])
	s.waiting = append(s.waiting, l)
}

// stop ends all asking for a while.
func (s *landings) stop(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting, s.never, s.until = nil, why, time.Now().Add(cannotTellFor)
}

// told notes that the target tells.
func (s *landings) told() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.never, s.until = nil, time.Time{}
}

// why says why deliveries cannot be confirmed; empty if they can, or that is not known.
func (s *landings) why() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.never == nil {
		return ""
	}
	return s.never.Error()
}

// confirm asks about landings until ctx ends.
func (l *lane) confirm(ctx context.Context) {
	for ctx.Err() == nil {
		now := time.Now()
		landed, due, ok := l.landings.next(now)
		switch {
		case ok && l.spare(now):
			l.ask(ctx, landed)
			continue
		case ok:
			l.landings.again(landed, false)
			continue
		}
		var alarm <-chan time.Time
		if !due.IsZero() {
			alarm = time.After(time.Until(due))
		}
		select {
		case <-ctx.Done():
		case <-alarm:
		case <-l.landings.wake:
		}
	}
}

// spare reports whether the target can be asked something that is no password, and takes it from its rate.
func (l *lane) spare(now time.Time) bool {
	if state, _ := l.health.stopped(now); state != Up {
		return false
	}
	if l.limiter.Limit() == rate.Inf {
		return true
	}
	return l.limiter.TokensAt(now) > float64(l.limiter.Burst())/2 && l.limiter.AllowN(now, 1)
}

func (l *lane) ask(ctx context.Context, landed landing) {
	asking, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	i := landed.item
	at, err := l.target.LastChange(asking, target.User{Name: i.User, SAMAccountName: i.Account.SAMAccountName})
	switch {
	case errors.Is(err, target.ErrCannotTell):
		l.landings.stop(err)
		return
	case err != nil:
		l.landings.again(landed, true)
		return
	}
	l.landings.told()
	switch {
	case at.Before(landed.began.Add(-landingSlack)):
		l.landings.again(landed, true)
	case at.After(landed.ended.Add(landingSlack)): // somebody else's, or our next one
	default:
		l.f.try("noting a landing", func() error { return l.f.ledger.Confirm(l.name, i.Account.GUID, i.Stamp, at) })
	}
}
