package watch

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// witnesses is how many accounts are remembered, over a new start, as they were when they had changed last.
const witnesses = 16

// witness is an account as it was: when this DC wrote it last, by its own USNs, and its password.
//
// Why: a directory that went back gives its USNs out a second time, under the same invocationId unless it was restored by the book. Whoever looks again only when they have come
// as far as before, because he was not running, say, would take it for the same. But what was written last is what it has lost, and these accounts are of that. What its peers
// give back to it has the same stamps as before, and other USNs.
type witness struct {
	GUID     dsdb.GUID  `json:"guid"`
	USN      uint64     `json:"usn"`
	Stamp    dsdb.Stamp `json:"stamp"`
	LocalUSN uint64     `json:"local_usn"` // under which this DC wrote the password
}

func witnessOf(a directory.Account) witness {
	return witness{a.GUID, a.USNChanged, a.Stamp, a.MetaData.PasswordUSN()}
}

// among returns the witnesses with another, if it is of the latest.
func among(some []witness, of witness) []witness {
	if len(some) == witnesses && of.USN < some[0].USN {
		return some
	}
	some = slices.DeleteFunc(some, func(other witness) bool { return other.GUID == of.GUID })
	some = append(some, of)
	slices.SortFunc(some, func(a, b witness) int { return cmp.Compare(a.USN, b.USN) })
	return slices.Delete(some, 0, max(0, len(some)-witnesses))
}

// wentBack asks the directory whether it still has what was written last.
func (w *Watch) wentBack(ctx context.Context, dc Directory) (bool, error) {
	back, err := lost(ctx, dc, w.latest)
	if err == nil || errors.Is(err, directory.ErrUnavailable) || ctx.Err() != nil {
		return back, err
	}
	// One that the DC cannot read, which fails a search, keeps the others from telling.
	for _, of := range w.latest {
		one, err := lost(ctx, dc, []witness{of})
		if errors.Is(err, directory.ErrUnavailable) || ctx.Err() != nil {
			return false, err
		}
		back = back || err == nil && one
	}
	return back, nil
}

// lost reports whether one of the accounts is there no more, not even as deleted, or is of before.
func lost(ctx context.Context, dc Directory, some []witness) (bool, error) {
	was, guids := map[dsdb.GUID]witness{}, []dsdb.GUID{}
	for _, of := range some {
		was[of.GUID], guids = of, append(guids, of.GUID)
	}
	older := false
	err := dc.Known(ctx, guids, func(a directory.Account) error {
		older = older || a.Unreadable == nil && witnessOf(a).before(was[a.GUID])
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

// before reports whether an account is as it was before it was as then, or what came in place of that. A DC only raises an object's USN; it writes a stamp once, and gives each version that is its own to one.
func (now witness) before(then witness) bool {
	switch {
	case now.USN < then.USN, now.Stamp.Compare(then.Stamp) < 0:
		return true
	case now.Stamp.Equal(then.Stamp):
		return now.LocalUSN != then.LocalUSN
	}
	return now.Stamp.Version == then.Stamp.Version && now.Stamp.InvocationID == then.Stamp.InvocationID
}
