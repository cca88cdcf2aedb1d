package watch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/checked"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// position is where the watch stands: everything up to USN has been passed on. USNs are one DC's own, and start anew when its
// database is restored; the invocationId says which they are of.
type position struct {
	InvocationID dsdb.GUID `json:"invocation_id"`
	USN          uint64    `json:"usn"`
}

// saved is what is kept of a position: Seen is of the last pass, and USN may lie before it. Files of earlier versions have no Seen, or no Latest.
type saved struct {
	position
	Seen   uint64    `json:"seen"`
	Latest []witness `json:"latest,omitempty"`
}

// load reads where the watch stood. Without that it begins anew, which is slow in a large domain and otherwise harmless.
func (w *Watch) load() error {
	if w.loaded {
		return nil
	}
	b, err := durable.ReadSmall(w.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading where the watch stood: %w", err)
	}
	var p saved
	if err == nil {
		text, err := checked.Text(b)
		if err == nil {
			err = json.Unmarshal(text, &p)
		}
		if err != nil {
			w.Log.PositionDamaged(w.File, err)
			p = saved{}
		}
	}
	w.mu.Lock()
	w.at = p.position
	w.mu.Unlock()
	w.seen, w.latest = max(p.USN, p.Seen), p.Latest
	w.loaded = true
	return nil
}

// save notes where the watch stands, but not beyond accounts that are still to be followed up: after a crash they are met once more,
// and so are those that captures without a name may belong to. A scan of the whole domain is noted at once, so that it is not repeated.
func (w *Watch) save(now bool) error {
	if !now && time.Since(w.savedAt) < min(w.Lag, saveEvery) {
		return nil
	}
	b, err := json.Marshal(saved{position{w.at.InvocationID, w.Follow.Floor(w.at.USN)}, w.seen, w.latest})
	if err != nil {
		return fmt.Errorf("encoding where the watch stands: %w", err)
	}
	if !bytes.Equal(b, w.saved) {
		if err := durable.Replace(w.File, checked.Wrap(b), 0o600); err != nil {
			return fmt.Errorf("noting where the watch stands: %w", err)
		}
		w.saved, w.savedAt = b, time.Now()
	}
	return nil
}

// Close notes where the watch stands, for the next start. No pass may be under way.
func (w *Watch) Close() {
	if w.at == (position{}) {
		return
	}
	if err := w.save(true); err != nil {
		w.Log.AgentTrouble("ending the watch", err)
	}
}
