package deliver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	// tornFor is how long a file may make no sense: its writer creates it under its final name.
	tornFor = 10 * time.Second
	// batch bounds how many changes are in memory at once, and in one transaction.
	batch = 256

	expireEvery = time.Minute
)

// intake looks at the folder at every tick until ctx ends.
func (f *Forwarder) intake(ctx context.Context, ticks <-chan struct{}) {
	var expired time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		f.try("looking at spool/outgoing", f.scan)
		if now := time.Now(); now.Sub(expired) >= expireEvery {
			f.try("expiring secrets", f.expire)
			expired = now
		}
	}
}

// try runs a step that the next tick repeats if it fails.
func (f *Forwarder) try(doing string, step func() error) {
	if err := step(); err != nil {
		f.log.ForwarderTrouble(doing, err)
		if errors.Is(err, boltfile.ErrDamaged) {
			f.fail(err)
		}
	}
}

// scan applies what lies in the folder. The order matters: the mark is read first, and counts only when all that it covers
// has been applied.
func (f *Forwarder) scan() error {
	mark, markErr := change.ReadMark(f.changes.Dir())
	applied, whole, err := f.applySightings()
	if err != nil {
		return err
	}
	if err := f.queueChanges(); err != nil {
		return err
	}
	if markErr == nil && whole && f.watch.set(mark.AsOf, time.Now()) {
		for _, l := range f.lanes {
			l.poke()
		}
	}
	for _, name := range applied { // last: each costs a few milliseconds that a change need not wait
		if err := f.sights.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// applySightings applies all files of sightings and returns their names. whole is false if one of them made no sense (yet): the mark
// may cover what it says.
func (f *Forwarder) applySightings() (applied []string, whole bool, err error) {
	names, err := f.sights.List()
	if err != nil {
		return nil, false, err
	}
	whole = true
	for _, name := range names {
		sightings, state := read(f, f.sights, name, change.ParseSightings)
		switch state {
		case good:
			if err := f.supersede(sightings...); err != nil {
				return nil, false, err
			}
			applied = append(applied, name)
		case unclear:
			whole = false
		}
	}
	return applied, whole, nil
}

// supersede notes stamps that the directory holds, and drops what is older.
func (f *Forwarder) supersede(sightings ...change.Sighting) error {
	if err := f.ledger.See(sightings...); err != nil {
		return err
	}
	newest := newestOf(sightings)
	dropped, err := f.queue.Supersede(newest)
	if err != nil {
		return err
	}
	f.superseded(dropped, newest)
	return nil
}

func newestOf(sightings []change.Sighting) map[dsdb.GUID]dsdb.Stamp {
	newest := make(map[dsdb.GUID]dsdb.Stamp, len(sightings))
	for _, s := range sightings {
		if s.Stamp.Compare(newest[s.Account.GUID]) > 0 {
			newest[s.Account.GUID] = s.Stamp
		}
	}
	return newest
}

func (f *Forwarder) superseded(items []queue.Item, newest map[dsdb.GUID]dsdb.Stamp) {
	for _, item := range items {
		if !item.Parked {
			f.log.Superseded(item.Target, item.Account, item.Stamp.Version, newest[item.Account.GUID].Version)
		}
		f.shred(item.File)
	}
}

// queueChanges queues the changes that no item refers to yet.
func (f *Forwarder) queueChanges() error {
	names, err := f.changes.List()
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, f.queue.Needs)
	for names := range slices.Chunk(names, batch) {
		if err := f.queueBatch(names); err != nil {
			return err
		}
	}
	return nil
}

func (f *Forwarder) queueBatch(names []string) error {
	var (
		seen  []change.Sighting
		items []queue.Item
		files []string
	)
	for _, name := range names {
		c, state := read(f, f.changes, name, change.Parse)
		if state != good {
			continue
		}
		wanted, err := f.items(name, c)
		if err != nil {
			return err
		}
		files = append(files, name)
		seen = append(seen, change.Sighting{Account: c.Account, Stamp: c.Stamp})
		items = append(items, wanted...)
		if len(wanted) > 0 {
			f.log.Queued(c)
		}
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
	f.superseded(replaced, newestOf(seen))
	if err := f.supersede(seen...); err != nil { // items for targets that do not want the account any more
		return err
	}
	for _, name := range files {
		f.shred(name)
	}
	return nil
}

// items returns what is to be queued for a change: an item for each target that does not have it yet.
func (f *Forwarder) items(file string, c change.Change) (items []queue.Item, err error) {
	newest, err := f.ledger.Newest(c.Account.GUID)
	if err != nil {
		return nil, err
	}
	now := time.Now()
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
			Target: route.Target, User: route.User, Account: c.Account, Stamp: c.Stamp, Capture: c.Capture, File: file,
			Captured: c.Captured, Proven: c.Proven, Due: now,
		}
		item.Account.UserPrincipalName = "" // the queue holds many items for long, and nobody asks them for it
		if item.Proven.After(now) {
			item.Proven = now // a clock that runs ahead must not make the proof last longer
		}
		switch {
		case c.Stamp.Compare(last.Stamp) <= 0:
		case c.Stamp.Compare(newest) < 0:
			f.log.Superseded(route.Target, c.Account, c.Stamp.Version, newest.Version)
		case now.Sub(c.Captured) > f.ttl:
			if err := f.expired(item); err != nil {
				return nil, err
			}
		default:
			items = append(items, item)
		}
	}
	return items, nil
}

// expire drops what has waited for too long.
func (f *Forwarder) expire() error {
	dropped, err := f.queue.Expire(time.Now().Add(-f.ttl))
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
	err := f.ledger.Record(ledger.Entry{
		Target: item.Target, User: item.User, Account: item.Account, Stamp: item.Stamp, Class: ledger.Expired, Reason: item.Reason,
		At: time.Now(), Attempts: item.Attempts,
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
	unclear       // it makes no sense, and may be being written
)

// read reads a file. One that has made no sense for too long is set aside.
func read[T any](f *Forwarder, s *spool.Spool, name string, parse func([]byte) (T, error)) (value T, _ found) {
	b, err := s.Read(name, change.MaxSize)
	if err == nil {
		value, err = parse(b)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		delete(f.torn, name)
		if err != nil {
			return value, gone
		}
		return value, good
	}
	since, known := f.torn[name]
	if !known {
		f.torn[name] = time.Now()
		return value, unclear
	}
	if time.Since(since) < tornFor {
		return value, unclear
	}
	delete(f.torn, name)
	f.setAside(s, name, fmt.Errorf("reading %s: %w", name, err))
	return value, gone
}
