package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/agent/docket"
	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
)

const (
	// unfinished is how long a file that is no whole capture may still be being written; the hook ends itself after 5 s.
	unfinished = 15 * time.Second
	// batch is how many captures are taken in before the folder is listed again: opening a box takes a fraction of a millisecond,
	// and a fresh capture shall not wait behind thousands of old ones.
	batch = 256
	// pruneEvery is how often it is looked which captures are gone from the folder.
	pruneEvery = time.Second
	// scanShare is how much longer than a scan took it is until the next one, up to scanRest: with thousands of files in the folder, listing them for each new
	// one would keep a processor of the DC's busy.
	scanShare = 2
	scanRest  = 50 * time.Millisecond
	// maxAside is how many captures are kept for a human, who looks at a few: there are ways to have any number made that nobody can make sense of.
	maxAside = capture.MaxDoubtful
)

// takeIn brings captures from the folder to the docket, the newest first, until ctx ends.
func (a *Agent) takeIn(ctx context.Context, ticks <-chan struct{}) {
	torn := map[string]time.Time{} // files that were no whole capture, and since when
	healthy := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		for more := true; more; {
			began := time.Now()
			taken, err := a.scan(ctx, torn)
			if err != nil && healthy {
				a.log.AgentTrouble("reading captures", err)
			}
			healthy = err == nil
			if more = taken == batch; !more {
				time.Sleep(min(scanShare*time.Since(began), scanRest))
			}
		}
	}
}

// scan takes in at most a batch, and returns how many it was. It also forgets those whose files are gone, now and then. The error is the disk's; the captures that it concerns will be met by
// the next scan.
func (a *Agent) scan(ctx context.Context, torn map[string]time.Time) (taken int, trouble error) {
	listed := time.Now()
	files, err := a.incoming.List()
	if err != nil {
		return 0, err
	}
	if listed.Sub(a.pruned) >= pruneEvery {
		a.pruned = listed
		for name, n := range a.docket.Prune(files, listed) {
			a.log.Crowded(name, n)
		}
	}
	for file := range torn {
		if _, found := slices.BinarySearch(files, file); !found {
			delete(torn, file)
		}
	}
	for _, file := range slices.Backward(files) {
		if taken == batch || ctx.Err() != nil {
			break
		}
		if a.docket.Holds(file) {
			continue
		}
		p, err := a.open(file)
		switch {
		case err == nil:
			delete(torn, file)
			a.docket.Add(p)
			a.floods.Came(p.Header.Account, !p.Header.Doubtful())
			taken++
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, capture.ErrDamaged) && stillWritten(torn, file):
		case isAny(err, capture.ErrDamaged, spool.ErrTooLarge, seal.ErrOtherKey, seal.ErrDamaged, box.ErrUnknown):
			delete(torn, file)
			a.setAside(file, "", err)
		default:
			trouble = cmp.Or(trouble, err)
		}
	}
	return taken, trouble
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// stillWritten reports whether a torn file may become whole. It counts from when the file was first met, since the file's own time
// comes from a clock that may jump.
func stillWritten(torn map[string]time.Time, file string) bool {
	since, met := torn[file]
	if !met {
		since = time.Now()
		torn[file] = since
	}
	return time.Since(since) < unfinished
}

// open reads a capture and what is in its proof box. Its boxes are not kept: a flood of captures must not fill the memory.
func (a *Agent) open(file string) (docket.Pending, error) {
	c, err := a.read(file)
	if err != nil {
		return docket.Pending{}, err
	}
	evidence, err := proof.Open(a.key, c)
	if err != nil {
		return docket.Pending{}, err
	}
	return docket.Pending{File: file, Header: c.Header, Seen: time.Now(), Evidence: evidence}, nil
}

// Needs reports whether a capture that waits is sealed to the agent's key of that name. One that makes no sense counts: it may still be
// being written, and is set aside soon.
func (a *Agent) Needs(key seal.KeyID) (bool, error) {
	files, err := a.incoming.List()
	if err != nil {
		return false, err
	}
	for _, file := range files {
		c, err := a.read(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case isAny(err, capture.ErrDamaged, spool.ErrTooLarge):
			return true, nil
		case err != nil:
			return false, err
		}
		if id, ok := seal.SealedTo(c.ProofBox); !ok || id == key {
			return true, nil
		}
	}
	return false, nil
}

func (a *Agent) read(file string) (capture.Capture, error) {
	b, err := a.incoming.Read(file, capture.MaxSize)
	if err != nil {
		return capture.Capture{}, err
	}
	c, err := capture.Parse(b)
	if err != nil {
		return capture.Capture{}, fmt.Errorf("reading %s: %w", file, err)
	}
	if c.FileName() != file { // a disk can also give the contents of another file
		return capture.Capture{}, fmt.Errorf("reading %s: %w: it is the capture %s", file, capture.ErrDamaged, c.ID)
	}
	return c, nil
}

// setAside moves a capture away that makes no sense, or shreds it where too many have been moved away already, and reports whether the disk let it. Where not, that
// is said once, and the next look tries again. account is what the capture claims, if that is known.
func (a *Agent) setAside(file, account string, cause error) bool {
	aside, err := a.incoming.Damaged()
	full := len(aside) >= maxAside
	switch {
	case err != nil:
	case full:
		err = a.incoming.Remove(file)
	default:
		err = a.incoming.SetAside(file)
	}
	a.stuckMu.Lock()
	said := a.stuck[file]
	if err == nil {
		delete(a.stuck, file)
	} else {
		a.stuck[file] = true
	}
	a.stuckMu.Unlock()
	switch {
	case err == nil && full:
		a.log.AsideFull(file, account, cause)
	case err == nil:
		a.log.CaptureDamaged(file, account, cause)
	case !said:
		a.log.AgentTrouble("setting a capture aside", err)
	}
	return err == nil
}
