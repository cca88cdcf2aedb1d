package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
)

const (
	// tornFor is how long a file may make no sense: its writer creates it under its final name.
	tornFor = 10 * time.Second
	// batch bounds how many changes are in memory at once, and in one transaction.
	batch = 256

	expireEvery = time.Minute
	// sureAfter is how long after the start, and after the clock was set, nothing expires.
	sureAfter = time.Hour

	// sweepEvery is how often the ledger is swept, and keepGone how long it remembers who is gone: as long as a directory keeps tombstones, in
	// which time whatever waits has long expired.
	sweepEvery = 24 * time.Hour
	keepGone   = 180 * 24 * time.Hour
)

// sweep has the ledger forget what is over, until ctx ends. A start is busy enough without it.
func (f *Forwarder) sweep(ctx context.Context) {
	for pause := time.Minute; ; pause = sweepEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		f.try("forgetting accounts that are gone", func() error {
			n, err := f.ledger.Sweep(time.Now().Add(-max(keepGone, 2*f.ttl)))
			if n > 0 {
				f.log.Swept(n)
			}
			return errors.Join(err, f.ledger.Rest()) // it has read all of it
		})
	}
}

// intake looks at the folder at every tick until ctx ends.
func (f *Forwarder) intake(ctx context.Context, ticks <-chan struct{}) {
	var expired time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		began := time.Now()
		f.try("looking at spool/outgoing", f.scan)
		took := time.Since(began)
		if now := time.Now(); now.Sub(expired) >= expireEvery {
			f.try("expiring secrets", f.expire)
			f.try("giving memory back", func() error { return errors.Join(f.queue.Rest(), f.ledger.Rest()) })
			maps.DeleteFunc(f.undated, func(_ string, met time.Time) bool { return now.Sub(met) > sureAfter }) // no look takes as long
			expired = now
		}
		// With a hundred thousand files a look takes tenths of a second, and hints come several times in one: four parts of five are for others.
		select {
		case <-ctx.Done():
		case <-time.After(min(4*took, 2*scanEvery)):
		}
	}
}

// try runs a step that the next tick repeats if it fails.
func (f *Forwarder) try(doing string, step func() error) {
	err := step()
	f.trouble(doing, "", err)
	if errors.Is(err, boltfile.ErrDamaged) {
		f.fail(err)
	}
}

// scan applies what lies in the folder. The order matters: the mark is read first, and counts only when all that it covers
// has been applied; and of a change that is listed, all sightings that the agent wrote before it are applied before it is queued.
func (f *Forwarder) scan() error {
	if err := f.putBack(time.Now()); err != nil { // before anything is held against what was noted while the clock was ahead
		return err
	}
	mark, markErr := change.ReadMark(f.changes.Dir())
	awaits, askErr := f.awaitsAll() // after the mark, which the agent writes when it has answered
	changes, err := f.changes.New(f.queue.Needs)
	if err != nil {
		return err
	}
	applied, whole, err := f.applySightings()
	if err != nil {
		return err
	}
	if err := f.queueChanges(changes); err != nil {
		return err
	}
	f.begun = true
	marked := markErr == nil || errors.Is(markErr, fs.ErrNotExist)
	if marked && whole && !awaits && f.watch.set(mark, time.Now()) {
		if err := f.rouse(); err != nil {
			return err
		}
		for _, l := range f.lanes {
			l.poke()
		}
	}
	for _, name := range applied { // last: each costs a few milliseconds that a change need not wait
		if err := f.sights.Discard(name); err != nil {
			return err
		}
	}
	return askErr
}

// queueChanges queues changes, to which no item refers yet.
func (f *Forwarder) queueChanges(names []string) error {
	if err := f.tell(); err != nil { // which failed, if there is anything to tell
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		if f.isStuck(name) {
			f.setAside(f.changes, name, nil) // why has been said
			return true
		}
		return false
	})
	for names := range slices.Chunk(names, batch) {
		if err := f.queueBatch(names); err != nil {
			return err
		}
	}
	return nil
}

func (f *Forwarder) queueBatch(names []string) error {
	var (
		now     = time.Now()
		files   []string
		changes []change.Change
		proofs  []ledger.Proof
		items   []queue.Item
	)
	for _, name := range names {
		c, state := read(f, f.changes, name, parseChange)
		if state != good {
			continue
		}
		c.Proven = proven(c, now)
		p := ledger.Proof{Account: c.Account, Stamp: c.Stamp, Proven: c.Proven}
		for _, route := range c.Routes {
			p.Places = append(p.Places, placeOf(route))
		}
		files, changes, proofs = append(files, name), append(changes, c), append(proofs, p)
	}
	k, err := f.ledger.Known(proofs...)
	if err != nil {
		return err
	}
	var done []string
	for i, c := range changes {
		if !f.watch.covers(c.Proven) && !f.overdue(c.Captured, now) {
			old, err := f.looksOld(c, k)
			if err != nil {
				return err
			}
			if old {
				// It came late; or the directory went back, and we have not been told; or a clock that was ahead then says that it was proven before.
				// Its file waits until we know.
				continue
			}
		}
		wanted, err := f.items(files[i], c, k, now)
		if err != nil {
			return err
		}
		items, done = append(items, wanted...), append(done, files[i])
		if len(wanted) > 0 {
			f.log.Queued(c)
		}
	}
	// Items for targets that do not want the account any more; and what a directory that went back does not hold, which a crash may have left there: it looks
	// newer than what has come since.
	if err := f.supersede(k, nil); err != nil {
		return err
	}
	// One transaction stands between a change and its first attempt; all else is done behind the lanes' backs.
	replaced, err := f.queue.Add(items...)
	if err != nil {
		return err
	}
	for _, item := range items {
		l := f.lanes[item.Target]
		l.health.news()
		l.poke()
	}
	for _, item := range replaced {
		f.dropped(item, k)
		f.shred(item.File)
	}
	if err := f.ledger.Prove(proofs...); err != nil {
		return err
	}
	f.queue.Told()
	for _, name := range done {
		f.shred(name)
	}
	return nil
}

// looksOld reports whether something newer than a change is known, in the directory or at a target.
func (f *Forwarder) looksOld(c change.Change, k ledger.Knowledge) (bool, error) {
	if k.Newest[c.Account.GUID].Outdates(c.Stamp, c.Proven) {
		return true, nil
	}
	for _, route := range c.Routes {
		last, err := f.ledger.Last(route.Target, c.Account.GUID)
		if err != nil || c.Stamp.Compare(last.Stamp) < 0 {
			return true, err
		}
	}
	return false, nil
}

// parseChange reads the change that belongs into the file of that name. Error: change.ErrDamaged.
func parseChange(name string, b []byte) (change.Change, error) {
	c, err := change.Parse(b)
	if err == nil && !c.Belongs(name) {
		err = fmt.Errorf("%w: it is the change %s", change.ErrDamaged, c.FileName())
	}
	return c, err
}

// proven returns when a change was proven, as a time of this process (see watch). If that is not yet, the clock was set back since, and
// nobody knows how long ago it was: too long for an attempt without a look at the directory.
func proven(c change.Change, now time.Time) time.Time {
	age := now.Sub(c.Proven)
	if age < 0 {
		age = 2 * provenFor
	}
	return now.Add(-age)
}

// items returns what is to be queued for a change: an item for each target that does not have it yet.
func (f *Forwarder) items(file string, c change.Change, k ledger.Knowledge, now time.Time) (items []queue.Item, err error) {
	for _, route := range c.Routes {
		if f.lanes[route.Target] == nil {
			f.log.UnknownTarget(route.Target, c.Account)
			continue
		}
		last, err := f.ledger.Last(route.Target, c.Account.GUID)
		if err != nil {
			return nil, err
		}
		item := queue.Item{
			Target: route.Target, User: route.User, Place: placeOf(route), Account: c.Account, Stamp: c.Stamp, Capture: c.Capture, File: file,
			Captured: c.Captured, Proven: c.Proven, Due: now, Peers: c.Peers, MustChange: route.MustChange,
		}
		item.Account.UserPrincipalName = "" // the queue holds many items for long, and nobody asks them for it
		if unwanted(item, k) {
			item.Shelve()
		}
		switch order := c.Stamp.Compare(last.Stamp); {
		case order == 0 && !f.resettles(&item, last): // done, and its file was not shredded; or proven twice
		case outdated(item, k):
			f.dropped(item, k)
		case order < 0: // the newest stamp was lost to the disk
			f.log.Superseded(item.Target, item.Account, item.Stamp.Version, last.Stamp.Version)
		case f.overdue(c.Captured, now):
			if err := f.expired(item); err != nil {
				return nil, err
			}
		default:
			if item.Shelved {
				f.log.Shelved(item.Target, item.Account)
			}
			items = append(items, item)
		}
	}
	return items, nil
}

// overdue reports whether what was captured then has waited for too long, by a clock that can be trusted in that.
func (f *Forwarder) overdue(captured, now time.Time) bool {
	return f.sure(now) && now.Sub(captured) > f.ttl
}

// sure reports whether the clock has not been set for a while, nor have we just started. A clock that is ahead for some minutes, as at a boot before
// the time of day is known, would shred at once all that waits. A secret_ttl that is shorter than that while is not more than doubled.
func (f *Forwarder) sure(now time.Time) bool {
	since := f.watch.steadySince(now)
	if since.Before(f.started) {
		since = f.started
	}
	return now.Sub(since) >= min(sureAfter, f.ttl)
}

// expire drops what has waited for too long.
func (f *Forwarder) expire() error {
	now := time.Now()
	if !f.sure(now) {
		return nil
	}
	dropped, err := f.queue.Expire(now.Add(-f.ttl))
	if err != nil {
		return err
	}
	for _, item := range dropped {
		if err := f.expired(item); err != nil {
			return err // the intake meets its file again
		}
		f.shred(item.File)
	}
	return nil
}

func (f *Forwarder) expired(item queue.Item) error {
	switch {
	case item.Shelved: // nobody lacks it
		f.log.ShelvedExpired(item.Target, item.Account)
		return nil
	case !item.Delivered.IsZero():
		f.log.Unsettled(item.Target, item.Account)
		return nil
	}
	err := f.ledger.Record(ledger.Entry{
		Target: item.Target, User: item.User, Place: item.Place, Account: item.Account, Stamp: item.Stamp, Proven: item.Proven, Captured: item.Captured,
		Class: ledger.Expired, Reason: item.Reason, At: time.Now(), Attempts: item.Attempts,
	})
	if err == nil {
		f.log.Expired(item.Target, item.Account)
	}
	return err
}

// What read found.
type found int

const (
	good    found = iota
	gone          // shredded, or set aside now
	unclear       // it makes no sense, and may be being written; or the disk does not give it
)

// read reads a file. One that has made no sense for too long is set aside. That the disk does not give it says nothing about it: that is
// said once, and the next look tries again. But sightings that are empty, and that we may not read, are an agent's that was killed between making the file and making
// it ours: no mark would ever count beside them.
func read[T any](f *Forwarder, s *spool.Spool, name string, parse func(name string, b []byte) (T, error)) (value T, _ found) {
	b, err := s.Read(name, change.MaxSize)
	if err == nil {
		value, err = parse(name, b)
	}
	switch {
	case err == nil:
		f.forget(name)
		return value, good
	case errors.Is(err, fs.ErrNotExist):
		f.forget(name)
		return value, gone
	case !errors.Is(err, change.ErrDamaged) && !errors.Is(err, spool.ErrTooLarge) && !(s == f.sights && errors.Is(err, fs.ErrPermission) && isEmpty(s, name)):
		if !f.unread[name] {
			f.unread[name] = true
			f.log.ChangeUnreadable(name, err)
		}
		return value, unclear
	}
	since, known := f.torn[name]
	if !known {
		f.torn[name] = time.Now()
		return value, unclear
	}
	if time.Since(since) < tornFor {
		return value, unclear
	}
	if s == f.sights {
		if !f.askedAt.After(since) { // what it says is asked for first: the next look sets it aside
			f.askForAll()
			return value, unclear
		}
		f.undated[lookOf(name)] = since // whom it showed is not gone for that
	}
	if s == f.changes && onlyZeros(b) {
		f.shred(name)
		f.forget(name)
		return value, gone
	}
	f.setAside(s, name, fmt.Errorf("reading %s: %w", name, err))
	if f.isStuck(name) {
		return value, unclear
	}
	f.forget(name)
	return value, gone
}

func isEmpty(s *spool.Spool, name string) bool {
	info, err := os.Lstat(filepath.Join(s.Dir(), name))
	return err == nil && info.Size() == 0
}

// onlyZeros reports whether that is what a crash leaves between the overwriting of a file and its removal: nothing is missing.
func onlyZeros(b []byte) bool { return len(b) > 0 && len(bytes.Trim(b, "\x00")) == 0 }

func (f *Forwarder) forget(name string) {
	delete(f.torn, name)
	delete(f.unread, name)
}
