package ledger

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// sweepAtATime is how many rows are deleted in one transaction, which nothing else can be noted beside.
const sweepAtATime = 256

// swept is a row that may go.
type swept struct {
	bucket string
	key    []byte
}

// Sweep forgets of what nothing can hang any more: all about accounts that were gone before a time, and who had a name before then and has not been
// proven to have it since. It returns how many accounts these were. Whatever waits must have been proven after that time: an
// older password would not be known for outdated any more.
func (l *Ledger) Sweep(before time.Time) (accounts int, err error) {
	var old []swept
	err = l.db.View(func(tx boltfile.Tx) error {
		for _, bucket := range []string{newest, holders} {
			err := tx.Prefix(bucket, nil, func(key, value []byte) error {
				going, err := isOver(bucket, value, before)
				if going {
					old = append(old, swept{bucket, slices.Clone(key)})
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	for rows := range slices.Chunk(old, sweepAtATime) {
		if err != nil {
			break
		}
		var n int
		n, err = l.sweep(rows, before)
		accounts += n
	}
	if err != nil {
		return accounts, fmt.Errorf("forgetting accounts that are gone: %w", err)
	}
	return accounts, nil
}

// sweep deletes those rows that may still go.
func (l *Ledger) sweep(rows []swept, before time.Time) (accounts int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var forgotten []Entry
	var gone map[dsdb.GUID]lacks
	err = l.db.Update(func(tx boltfile.Tx) error {
		forgotten, gone = nil, map[dsdb.GUID]lacks{}
		for _, r := range rows {
			var value json.RawMessage
			found, err := tx.Get(r.bucket, r.key, &value)
			if err != nil {
				return err
			}
			if !found {
				continue
			}
			if going, err := isOver(r.bucket, value, before); err != nil {
				return err
			} else if !going { // there is news of it
				continue
			}
			if err := tx.Delete(r.bucket, r.key); err != nil {
				return err
			}
			if r.bucket != newest {
				continue
			}
			guid := dsdb.GUID(r.key)
			entries, err := outcomesOf(tx, guid)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if err := tx.Delete(outcomes, entryKey(guid, e.Target)); err != nil {
					return err
				}
			}
			if err := putGaps(tx, guid, lacksNothing); err != nil {
				return err
			}
			forgotten = append(forgotten, entries...)
			gone[guid] = lacksNothing
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, e := range forgotten {
		l.count(e, Entry{})
	}
	l.remember(gone)
	return len(gone), nil
}

// isOver reports whether a row is of an account that was gone, or of a name that was last proven, before a time.
func isOver(bucket string, value []byte, before time.Time) (bool, error) {
	if bucket == holders {
		var h Holder
		err := json.Unmarshal(value, &h)
		return h.Proven.Before(before), err
	}
	var n Newest
	err := json.Unmarshal(value, &n)
	return n.Stamp.IsZero() && n.Void.Before(before) && n.Seen.Before(before), err
}
