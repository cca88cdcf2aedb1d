package watch

import (
	"cmp"
	"context"
	"slices"

	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// witnesses is how many accounts are remembered, over a new start, with the stamps that were passed on last.
const witnesses = 16

// witness is an account and the stamp that it had.
//
// Why: a directory that went back gives its USNs out a second time, under the same invocationId unless it was restored by the book. Whoever looks again only when they have come
// as far as before, because he was not running, say, would take it for the same. But what went back is what came last, and these accounts are of that.
type witness struct {
	GUID  dsdb.GUID  `json:"guid"`
	Stamp dsdb.Stamp `json:"stamp"`
}

// bearWitness adds an account to the latest, or takes it out if it has no stamp.
func (w *Watch) bearWitness(of witness) {
	w.latest = slices.DeleteFunc(w.latest, func(other witness) bool { return other.GUID == of.GUID })
	if !of.Stamp.IsZero() {
		w.latest = append(w.latest, of)
	}
	w.latest = slices.Delete(w.latest, 0, max(0, len(w.latest)-witnesses))
}

// newest returns the witnesses of all stamps: after a look at all accounts nothing tells which changed last but the time that the DCs gave it.
func newest(stamps map[dsdb.GUID]dsdb.Stamp) (latest []witness) {
	for guid, stamp := range stamps {
		if stamp.IsZero() {
			continue
		}
		if latest = append(latest, witness{guid, stamp}); len(latest) >= 2*witnesses {
			latest = lastOf(latest)
		}
	}
	return lastOf(latest)
}

func lastOf(some []witness) []witness {
	slices.SortFunc(some, func(a, b witness) int {
		return cmp.Or(a.Stamp.Time.Compare(b.Stamp.Time), cmp.Compare(a.Stamp.USN, b.Stamp.USN))
	})
	return slices.Delete(some, 0, max(0, len(some)-witnesses))
}

// wentBack asks the directory whether it still has what was passed on last: these accounts, alive or deleted, and no older passwords of them, nor others under a version that the same
// DC had given out.
func (w *Watch) wentBack(ctx context.Context, dc Directory) (bool, error) {
	was, guids := map[dsdb.GUID]dsdb.Stamp{}, []dsdb.GUID{}
	for _, of := range w.latest {
		was[of.GUID], guids = of.Stamp, append(guids, of.GUID)
	}
	older := false
	err := dc.Known(ctx, guids, func(a directory.Account) error {
		if a.Unreadable == nil && before(a.Stamp, was[a.GUID]) {
			older = true
		}
		delete(was, a.GUID)
		return nil
	}, func(guid dsdb.GUID, _ string) error {
		delete(was, guid)
		return nil
	})
	if err != nil {
		return false, err
	}
	return older || len(was) > 0, nil
}

// before reports whether a stamp is one of before another of the same account, or stands in its place.
func before(now, then dsdb.Stamp) bool {
	return now.Compare(then) < 0 || now.Version == then.Version && now.InvocationID == then.InvocationID && !now.Equal(then)
}
