// Package ballast looks after the disk below a role's folder: it says how it is, and keeps room to recover.
//
// What: a file of some megabytes, the ballast, lies in the folder. When the disk is full, or nearly, it is removed: databases need room also to delete, and
// the hook has some for the next passwords, until a person has made more. It is made again when there is plenty.
//
// How: every few seconds a file is made, written and removed in the folder, which tells whatever may be wrong: no blocks, no inodes, a quota, a file system
// that the kernel has made read-only. From time to time, and always in trouble, it is synced too, for what a disk cannot write shows only then.
//
// Bytes: a file of zeros, or of nothing that was ever written.
//
// What it does not solve: whoever fills the disk fills the ballast's room as well. And others' rooms: only the file system of this folder is looked at.
package ballast

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
)

const (
	file = "ballast"

	every     = 5 * time.Second
	syncEvery = time.Minute

	// nearly is how much room has to be left, in bytes, for the ballast to stay; of a smaller one a quarter of its size.
	nearly = 4 << 20
)

// Condition says in a word how the disk is.
type Condition string

// The conditions.
const (
	Well     Condition = "well"
	Low      Condition = "low"       // nearly full: the ballast has been removed, or there is no room for it
	Full     Condition = "full"      // no block or inode can be had, or a quota is used up
	ReadOnly Condition = "read-only" // as the kernel makes a file system that it finds damaged
	Broken   Condition = "broken"    // it answers with another error
)

// Options are what a Keeper needs.
type Options struct {
	Dir  string // the role's folder
	Size int64  // of the ballast, in bytes; 0: none, and only the disk is looked at
	Log  *event.Log
}

// Keeper is made by New.
type Keeper struct {
	o      Options
	synced time.Time // when a sync was last tried

	mu     sync.Mutex
	status Status
}

// Status says how the disk is.
type Status struct {
	Condition Condition `json:"condition"`
	Since     time.Time `json:"since"`
	Error     string    `json:"error,omitempty"` // unless well or low
	Free      int64     `json:"free"`            // bytes that we could use
	Ballast   int64     `json:"ballast"`         // bytes that are kept
	Wanted    int64     `json:"ballast_wanted"`  // bytes that are to be
}

// New returns a keeper that has not looked yet.
func New(o Options) *Keeper {
	return &Keeper{o: o, status: Status{Condition: Well, Since: time.Now(), Wanted: o.Size}}
}

// ErrMountedAnew means that a file system that was read-only can be written again: most likely it was mounted anew, and what this process has
// open is of the old one.
var ErrMountedAnew = errors.New("the disk was read-only, and is not any more: a new start is needed to use it")

// Run looks again and again until ctx ends, and then returns nil. The error is ErrMountedAnew: the process should end, and be started again.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		was := k.Status().Condition
		if k.Look(); was == ReadOnly && k.Status().Condition != ReadOnly {
			return ErrMountedAnew
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

// Status may be called at any time.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// Look looks once, and removes or makes the ballast as the disk is. It is not called concurrently.
func (k *Keeper) Look() {
	path := filepath.Join(k.o.Dir, file)
	was := k.Status().Condition
	err := k.probe(was != Well)
	now, free := condition(err), Free(k.o.Dir)
	low := min(nearly, k.o.Size/4)
	if now == Well && free < low {
		now = Low
	}
	kept, errBallast := size(path)
	switch {
	case kept > 0 && (now == Full || now == Low || kept != k.o.Size):
		if errBallast = durable.Remove(path); errBallast == nil && now != Well {
			k.o.Log.BallastReleased(kept, free)
		}
		kept, _ = size(path)
	case kept == 0 && k.o.Size > 0 && now == Well && free > 2*k.o.Size+low:
		if _, err := os.Lstat(path); err == nil { // of 0 bytes
			_ = durable.Remove(path)
		}
		errBallast = durable.Reserve(path, k.o.Size)
		kept, _ = size(path)
	}
	if now == Well && k.o.Size > 0 && kept == 0 && errBallast == nil && Free(k.o.Dir) <= 2*k.o.Size+low {
		now = Low // nobody has made room since it was removed, or there never was enough
	}
	if now == Well && errBallast != nil {
		now, err = Broken, errBallast
	}
	k.note(now, err, free, kept)
}

func (k *Keeper) note(now Condition, err error, free, kept int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.status.Condition
	k.status.Free, k.status.Ballast, k.status.Error = free, kept, ""
	if err != nil {
		k.status.Error = err.Error()
	}
	if now == was {
		return
	}
	k.status.Condition, k.status.Since = now, time.Now()
	if now == Well {
		k.o.Log.DiskWell(k.o.Dir)
	} else {
		k.o.Log.DiskTrouble(k.o.Dir, string(now), k.status.Error, free)
	}
}

func (k *Keeper) probe(sync bool) error {
	if sync = sync || time.Since(k.synced) >= syncEvery; sync {
		k.synced = time.Now()
	}
	return durable.Probe(k.o.Dir, sync)
}

// condition says what an error of the disk means.
func condition(err error) Condition {
	switch {
	case err == nil:
		return Well
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return Full
	case errors.Is(err, syscall.EROFS):
		return ReadOnly
	default:
		return Broken
	}
}

// IsTrouble reports whether an error is the disk's, and may pass by itself or by somebody making room: no file is to blame for it.
func IsTrouble(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Free returns how many bytes a file system has for us; -1 if it does not say.
func Free(dir string) int64 {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return -1
	}
	blocks := s.Bavail
	if os.Geteuid() == 0 {
		blocks = s.Bfree // some are kept for root
	}
	return int64(blocks) * s.Bsize
}

// See says how the disk below a folder looks from outside, without writing to it: for when no role runs that would know.
func See(dir string) (Condition, error) {
	const readOnly = 1 // ST_RDONLY
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return Broken, fmt.Errorf("asking the file system: %w", err)
	}
	switch {
	case s.Flags&readOnly != 0:
		return ReadOnly, nil
	case s.Bavail == 0 && Free(dir) == 0, s.Files > 0 && s.Ffree == 0:
		return Full, nil
	}
	return Well, nil
}

// size returns how many bytes a file has, as blocks of its own.
func size(path string) (int64, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking at the ballast: %w", err)
	}
	return info.Size(), nil
}
