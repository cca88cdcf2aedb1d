// Package proof judges captures: is the captured password the account's current one?
//
// What: Evidence is the content of an opened proof box; Judge compares it with what the directory stores. Pause and Overdue
// say how long a capture may wait for its proof.
//
// Why: a check password script that answered 0 proves nothing. Afterwards Samba can still refuse the change (history), and any
// domain user can have the script run with somebody else's name and a password of his choice (SamrValidatePassword). The
// directory alone knows, and it is asked by comparing hashes, never by a login attempt: nobody gets locked out.
//
// Whom it trusts: the directory, and nobody else. Where a capture comes from and what it claims has no weight here.
//
// What it does not solve: where the directory stores no NT hash (`nt hash store = never`) nothing can be proven this way; that
// is a verdict of its own.
package proof

import (
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Verdict is the answer of one look.
type Verdict string

// The verdicts. That a password never becomes current shows only by waiting: see Overdue.
const (
	Current    Verdict = "current"    // the directory holds the captured password now
	NotYet     Verdict = "not yet"    // it holds another one: not committed yet, refused, forged, or replaced since
	Unprovable Verdict = "unprovable" // it stores nothing that could be compared
)

// Evidence is the NT hash of a captured password. It hangs behind a func, so that fmt prints an address and no hash, also where
// the Evidence is a field of something else.
type Evidence struct {
	hash func() []byte
}

// Read takes over the content of an opened proof box; the caller wipes the content. Error: box.ErrUnknown.
func Read(content []byte) (Evidence, error) {
	hash, err := box.Decode(content)
	if err != nil {
		return Evidence{}, fmt.Errorf("reading proof: %w", err)
	}
	return Evidence{func() []byte { return hash[:] }}, nil
}

// Judge compares with what one search found of an account: its stored hash (unicodePwd, nil if there is none) and the stamp that
// goes with it. The comparison takes the same time wherever the hashes differ.
func (e Evidence) Judge(stored []byte, stamp dsdb.Stamp) Verdict {
	switch {
	case len(stored) != len(e.hash()) || stamp.IsZero():
		return Unprovable
	case subtle.ConstantTimeCompare(stored, e.hash()) == 1:
		return Current
	default:
		return NotYet
	}
}

// Wipe overwrites the hash, for every copy of e. Nothing is to be judged with it afterwards.
func (e Evidence) Wipe() { clear(e.hash()) }

const (
	eager      = 300 * time.Millisecond // most changes are committed by then
	firstPause = 3 * time.Millisecond
	lastPause  = 5 * time.Second

	// settle is how long a capture is kept at least after it was first seen, however old its time says it is: the clock may have
	// been set, or the machine suspended, while Samba's transaction was open. Samba gives the script 10 s.
	settle = 15 * time.Second
)

// Pause says when to look again after a look that proved nothing; waited is the time since the capture was first seen. It is 3 ms
// at first; from 300 ms on it grows with half of what passed since, which makes each pause 1.5 times the one before.
func Pause(waited time.Duration) time.Duration {
	return min(firstPause+max(0, waited-eager)/2, lastPause)
}

// Overdue reports whether a capture has had its time: age since the hook took it by the wall clock, which may jump or lie in the
// future, waited since it was first seen by a clock that does not jump.
func Overdue(age, waited, timeout time.Duration) bool {
	return waited >= timeout || age >= timeout && waited >= min(settle, timeout)
}
