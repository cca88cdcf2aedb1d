package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	watchEvery = time.Second
	sightings  = 500 // in one file, at most
)

// watch passes on each account's password stamp: all of them once, then those that move.
//
// It follows uSNChanged, which the DC raises with every write to an account, and reads highestCommittedUSN before it searches:
// Samba shows that number only after the writes up to it, so what a search misses has a higher one. The stamps go out first, the
// mark after them, and where the watch stands is noted last: a crash repeats stamps, which is harmless, and skips none.
type watch struct {
	spool  *spool.Spool
	file   string // where the position is kept
	host   string
	lag    time.Duration
	docket *docket
	log    *event.Log

	passing chan struct{} // holds a token during a pass, which guards what follows
	loaded  bool
	stamps  map[dsdb.GUID]dsdb.Stamp // as last passed on by this process
	saved   position                 // on disk
	held    position                 // where the watch stood at heldAt: the next to be saved
	heldAt  time.Time

	mu   sync.Mutex
	at   position
	mark time.Time
}

// position is where the watch stands: everything up to USN has been passed on. USNs are one DC's own, and start anew when its
// database is restored; the invocationId says which they are of.
type position struct {
	InvocationID dsdb.GUID `json:"invocation_id"`
	USN          uint64    `json:"usn"`
}

func newWatch(spool *spool.Spool, file, host string, lag time.Duration, docket *docket, log *event.Log) *watch {
	return &watch{
		spool: spool, file: file, host: host, lag: lag, docket: docket, log: log,
		passing: make(chan struct{}, 1),
		stamps:  map[dsdb.GUID]dsdb.Stamp{},
	}
}

// follow makes a pass every second, while the DC answers, until ctx ends. While it does not, no mark is written, and the
// forwarder sees the watch grow stale.
func (a *Agent) follow(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	healthy := true
	for {
		dc, err := a.link.get(ctx)
		if err != nil {
			return
		}
		err = a.watch.pass(ctx, dc)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, directory.ErrUnavailable):
			a.link.lost(dc, err)
		case err != nil && healthy:
			a.log.AgentTrouble("watching the directory", err)
		}
		healthy = err == nil
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// pass looks once and passes on what moved. It may be called concurrently and repeated after any error.
func (w *watch) pass(ctx context.Context, dc Directory) error {
	select {
	case w.passing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.passing }()
	if err := w.load(); err != nil {
		return err
	}
	began := time.Now()
	root, err := dc.Root(ctx)
	if err != nil {
		return fmt.Errorf("watching: %w", err)
	}
	now := position{root.InvocationID, root.HighestUSN}
	anew := now.InvocationID != w.at.InvocationID || now.USN < w.at.USN
	switch {
	case anew:
		clear(w.stamps)
		err = w.passOn(ctx, dc, 0)
	case now != w.at:
		err = w.passOn(ctx, dc, w.at.USN+1)
	}
	if err != nil {
		return fmt.Errorf("watching: %w", err)
	}
	w.docket.passComplete(began)
	if err := change.WriteMark(w.spool.Dir(), change.Mark{AsOf: began, Host: w.host, InvocationID: now.InvocationID}); err != nil {
		return err
	}
	w.mu.Lock()
	w.at, w.mark = now, began
	w.mu.Unlock()
	return w.save(began, anew)
}

// passOn passes on the stamps of all accounts that changed since a USN and whose stamp is not the one passed on last.
func (w *watch) passOn(ctx context.Context, dc Directory, fromUSN uint64) error {
	var seen []change.Sighting
	var moved []mover
	flush := func() error {
		if len(seen) == 0 {
			return nil
		}
		if err := w.put(seen); err != nil {
			return err
		}
		for _, s := range seen {
			w.stamps[s.Account.GUID] = s.Stamp
		}
		w.log.Sighted(len(seen))
		w.docket.moved(moved)
		seen, moved = nil, nil
		return nil
	}
	err := dc.Changed(ctx, fromUSN, nil, func(a directory.Account) error {
		if a.Stamp.Equal(w.stamps[a.GUID]) { // both are zero if the account never had a password
			return nil
		}
		seen = append(seen, change.Sighting{Account: identity(a), Stamp: a.Stamp})
		moved = append(moved, mover{guid: a.GUID, name: a.SAMAccountName, changed: a.Stamp.Time, seen: time.Now()})
		if len(seen) < sightings {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// put stores sightings, in more than one file if extremely long names make that necessary.
func (w *watch) put(seen []change.Sighting) error {
	b, err := change.MarshalSightings(seen)
	if err != nil {
		return fmt.Errorf("encoding sightings: %w", err)
	}
	if half := len(seen) / 2; len(b) > change.MaxSize && half > 0 {
		if err := w.put(seen[:half]); err != nil {
			return err
		}
		return w.put(seen[half:])
	}
	return w.spool.Put(fmt.Sprintf("%020d-%s%s", time.Now().UnixNano(), rand.Text(), change.SightingsSuffix), b)
}

// load reads where the watch stood. Without that it begins anew, which is slow in a large domain and otherwise harmless.
func (w *watch) load() error {
	if w.loaded {
		return nil
	}
	b, err := durable.ReadSmall(w.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading where the watch stood: %w", err)
	}
	var p position
	if err == nil && json.Unmarshal(b, &p) != nil {
		p = position{}
	}
	w.mu.Lock()
	w.at = p
	w.mu.Unlock()
	w.saved, w.held, w.loaded = p, p, true
	return nil
}

// save notes where the watch stood a while ago (as long as captures may wait), not where it stands: after a crash the accounts that
// captures without a name may belong to are seen moving once more. A scan of the whole domain is noted at once, so that it is not
// repeated.
func (w *watch) save(now time.Time, anew bool) error {
	if anew {
		w.held = w.at
	} else if now.Sub(w.heldAt) < w.lag {
		return nil
	}
	if w.held != w.saved {
		b, err := json.Marshal(w.held)
		if err != nil {
			return fmt.Errorf("encoding where the watch stands: %w", err)
		}
		if err := durable.Replace(w.file, b, 0o600); err != nil {
			return fmt.Errorf("noting where the watch stands: %w", err)
		}
		w.saved = w.held
	}
	w.held, w.heldAt = w.at, now
	return nil
}

func (w *watch) status() WatchStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return WatchStatus{Mark: w.mark, InvocationID: w.at.InvocationID, USN: w.at.USN}
}
