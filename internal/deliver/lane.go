package deliver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// lane delivers to one target. Lanes share queue and ledger, and nothing that waits for a target.
type lane struct {
	f       *Forwarder
	name    string
	target  target.Target
	health  *health
	limiter *rate.Limiter
	slots   chan struct{} // one for each attempt under way
	wake    chan struct{}
	times   times

	landings *landings

	// What waited for the target to come back waits for one look at the directory more: next's own.
	was  State
	back time.Time
}

func newLane(f *Forwarder, t Target) *lane {
	limit := rate.Inf
	if t.Rate > 0 {
		limit = rate.Limit(t.Rate)
	}
	workers := t.Workers
	if workers <= 0 {
		workers = defaultWorkers
	}
	return &lane{
		f: f, name: t.Name, target: guarded{t.Target}, health: newHealth(t.Name, f.log),
		limiter: rate.NewLimiter(limit, max(1, int(t.Rate))), // a burst of what one second allows
		slots:   make(chan struct{}, workers),
		wake:    make(chan struct{}, 1),
		was:     Up,

		landings: newLandings(),
	}
}

// run delivers until ctx ends, and returns when no attempt is under way. attempts is the context of the attempts.
func (l *lane) run(ctx, attempts context.Context) {
	var underWay sync.WaitGroup
	defer underWay.Wait()
	underWay.Go(func() { l.confirm(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case l.slots <- struct{}{}:
		}
		lease, done, ok := l.next(ctx)
		if !ok {
			return
		}
		underWay.Go(func() {
			l.attempt(ctx, attempts, lease, done)
			<-l.slots
			l.poke()
		})
	}
}

// next waits until an item may be tried, and leases it; false if ctx ended. done must be called with the attempt's result.
func (l *lane) next(ctx context.Context) (lease queue.Lease, done func(error), ok bool) {
	token := false
	for ctx.Err() == nil {
		now := time.Now()
		state, until := l.health.stopped(now)
		if state == Up && l.was != Up {
			l.back = now
		}
		l.was = state
		proven, due := l.f.watch.window(now)
		if proven.Before(l.back) {
			proven = l.back
		}
		if due.Before(l.back) {
			due = time.Time{}
		}
		switch {
		case state == Denied && !until.After(now):
			l.check(ctx)
		case state != Up:
			l.sleep(ctx, until)
		case !l.f.queue.Ready(l.name, proven, due):
			l.sleep(ctx, l.readyAt(now))
		case !token:
			token = l.limiter.Wait(ctx) == nil // and look again: it may have taken long
		default:
			done, err := l.breaker()
			if err != nil {
				l.sleep(ctx, time.Time{}) // until the attempt that probes has ended
				continue
			}
			lease, ok, err := l.f.queue.Lease(l.name, proven, due)
			if ok {
				return lease, done, true
			}
			done(errUnused)
			if err != nil {
				l.f.try("leasing an item", func() error { return err })
				l.sleep(ctx, now.Add(scanEvery))
			}
		}
	}
	return queue.Lease{}, nil, false
}

func (l *lane) breaker() (func(error), error) { return l.health.breaker.Allow() }

// readyAt returns when an item may become ready by the passing of time alone; zero if none will.
func (l *lane) readyAt(now time.Time) time.Time {
	due, waits := l.f.queue.Next(l.name)
	if waits && !due.After(now) {
		return l.f.watch.hold(now)
	}
	return due
}

// sleep returns at until (zero: never), or when something has changed.
func (l *lane) sleep(ctx context.Context, until time.Time) {
	var alarm <-chan time.Time
	if !until.IsZero() {
		alarm = time.After(time.Until(until))
	}
	select {
	case <-ctx.Done():
	case <-alarm:
	case <-l.wake:
	case <-l.f.queue.Wake(l.name):
	}
}

// poke makes sleep return.
func (l *lane) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	l.health.checked(l.target.Check(ctx))
}

// attempt tries the leased item once and returns the lease.
func (l *lane) attempt(ctx, attempts context.Context, lease queue.Lease, done func(error)) {
	f, item := l.f, lease.Item
	if !f.wanted(ctx, lease) {
		done(errUnused)
		return
	}
	lastWord := f.lastWord(item, time.Now())
	password, err := f.open(item)
	if err != nil {
		done(errUnused)
		f.unreadable(ctx, lease, err)
		return
	}
	if proven, due := f.watch.window(time.Now()); !f.queue.Stands(lease, proven, due) { // the disk may have taken its time
		password.Destroy()
		done(errUnused)
		f.queue.Release(lease)
		return
	}
	began := time.Now()
	setting, cancel := context.WithTimeout(attempts, attemptTimeout)
	err = l.target.SetPassword(setting, target.User{Name: item.User, SAMAccountName: item.Account.SAMAccountName, MustChange: item.MustChange}, password)
	cancel()
	password.Destroy()
	if err != nil && attempts.Err() != nil {
		// Given up because we stop: nobody knows the outcome. As if it had never been tried; the next start tries again.
		done(errUnused)
		f.queue.Release(lease)
		return
	}
	err, users := l.whoseFault(attempts, item.Account.GUID, err)
	l.health.attempted(item.Account.GUID, err, done)
	l.conclude(ctx, lease, err, lastWord, users)
	if err == nil {
		l.landings.add(item, began)
	}
}

// whoseFault finds out what an error means that is target.ErrForbidden: one user that it is about never stops the target. If Check is refused
// too, or the same is so for several accounts and for none the opposite, it is ours (target.ErrDenied). If the target has taken another
// account's password since it first refused this one's, it is the user's, for good. Until one of them is known the item waits.
func (l *lane) whoseFault(attempts context.Context, account dsdb.GUID, err error) (_ error, users bool) {
	if target.Classify(err) != target.Forbidden {
		if err == nil {
			l.health.taken(account)
		}
		return err, false
	}
	if l.health.checkAgain() {
		ctx, cancel := context.WithTimeout(attempts, attemptTimeout)
		defer cancel()
		if check := l.target.Check(ctx); check != nil {
			return check, false // also if it cannot be asked now: then nobody is to blame yet
		}
	}
	switch accounts, others := l.health.forbids(account); {
	case others:
		return err, true
	case accounts >= forbiddenUntilDenied:
		return fmt.Errorf("%w: for each of the last %d accounts: %v", target.ErrDenied, accounts, err), false
	}
	return err, false
}

// conclude writes down what an attempt led to. The ledger comes first: whatever a crash leaves in the queue is then known to be
// done; and the secret goes last: as long as anything is not written, it can be sent again.
func (l *lane) conclude(ctx context.Context, lease queue.Lease, err error, lastWord, users bool) {
	f, item, now, class := l.f, lease.Item, time.Now(), target.Classify(err)
	a := event.Attempt{
		Target: l.name, User: item.User, Account: item.Account, Capture: item.Capture, Version: item.Stamp.Version,
		Number: item.Attempts + 1, Took: now.Sub(item.Captured),
	}
	if class != target.Delivered && !f.queue.Current(lease) {
		f.queue.Release(lease) // a newer change has taken the place: how this one failed matters to nobody
		return
	}
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	outcome := ledger.Entry{
		Target: l.name, User: item.User, Place: item.Place, Account: item.Account, Stamp: item.Stamp, Proven: item.Proven, Class: class,
		Reason: reason, At: now, Attempts: a.Number, Captured: item.Captured,
	}
	final := class == target.Delivered || class == target.NoUser || class == target.Rejected || class == target.Forbidden && users
	switch {
	case final:
		switch {
		case class != target.Delivered:
			f.log.Parked(a, class, err)
		case item.Delivered.IsZero():
			f.log.Delivered(a)
			l.times.add(a.Took)
		default:
			f.log.Confirmed(a)
		}
		f.finish(ctx, lease, &outcome, class, reason, lastWord)
	case class == target.Denied:
		f.write(ctx, &verdict{result: lease.Postpone(class, reason)})
		f.reshelve(ctx, item.Account.GUID)
	default:
		asked := target.Delay(err)
		due := now.Add(delay(item.Attempts, asked, rand.Float64()))
		f.log.Retry(a, class, due, err)
		result := lease.Retry(due, class, reason)
		if class == target.Throttled {
			result = lease.Throttle(due, now.Add(min(asked, maxAsked)), reason)
		}
		f.write(ctx, &verdict{result: result})
		f.reshelve(ctx, item.Account.GUID)
	}
}

// unreadable returns the lease of an item whose password could not be had.
func (f *Forwarder) unreadable(ctx context.Context, lease queue.Lease, why error) {
	if !f.queue.Current(lease) {
		f.queue.Release(lease) // a newer change has come, and the file was shredded under our hands
		return
	}
	damaged := errors.Is(why, change.ErrDamaged) || errors.Is(why, spool.ErrTooLarge) || errors.Is(why, seal.ErrDamaged) || errors.Is(why, seal.ErrOtherKey)
	if !damaged && !errors.Is(why, errGone) {
		f.log.ForwarderTrouble("reading a change", why)
		due := time.Now().Add(delay(lease.Attempts, 0, rand.Float64()))
		f.write(ctx, &verdict{result: lease.Retry(due, target.Temporary, why.Error())})
		return
	}
	if damaged {
		f.setAside(f.changes, lease.File, why)
	}
	f.persist(ctx, "dropping items", func() error {
		items, err := f.queue.Forget(lease.File)
		for _, item := range items {
			if !damaged {
				f.log.SecretLost(lease.File, item.Target, item.Account)
			}
		}
		return err
	})
	f.queue.Release(lease)
}
