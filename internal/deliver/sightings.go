package deliver

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// What the agent tells of the directory: stamps, who wants whom, and whether that can be held against what is known already. The intake's.

// putBack has the ledger take for past what was noted while the clock was ahead, if it has been set back since.
func (f *Forwarder) putBack(now time.Time) error {
	back := f.watch.setBack(now)
	if back.IsZero() {
		return nil
	}
	void, err := f.ledger.Past(now, back)
	if err != nil {
		return err
	}
	if void {
		f.askForAll()
	}
	f.watch.past(back)
	return nil
}

// askForAll has the next look ask the agent for the stamps of all accounts. Until it has told them, no mark counts.
func (f *Forwarder) askForAll() {
	if !f.lost {
		f.lost = true
		f.watch.doubt()
	}
}

// awaitsAll asks the agent for the stamps of all accounts, if some were lost, and reports whether its answer is still to come.
func (f *Forwarder) awaitsAll() (bool, error) {
	if f.lost {
		now := time.Now()
		f.asking = true
		if err := f.asks.Put(change.AskFile(now, rand.Text()), nil); err != nil {
			return true, fmt.Errorf("asking the agent for all stamps: %w", err)
		}
		f.lost, f.askedAt = false, now
		f.log.AskedForAll()
	}
	if !f.asking { // nobody else asks
		return false, nil
	}
	names, err := f.asks.List()
	f.asking = err != nil || len(names) > 0
	return f.asking, err
}

// applySightings applies all files of sightings and returns their names. whole is false if one of them made no sense (yet), or could not
// be read: the mark may cover what it says.
func (f *Forwarder) applySightings() (applied []string, whole bool, err error) {
	names, err := f.sights.New(nil)
	if err != nil {
		return nil, false, err
	}
	whole = true
	for _, name := range names {
		sightings, state := read(f, f.sights, name, change.ParseSightings)
		now := time.Now()
		look := f.written(name, now)
		asked := f.askedAt.After(look.met)
		switch {
		case state == good && look.undated && (look.ahead || slices.ContainsFunc(sightings, func(s change.Sighting) bool { return s.Reset || s.Whole })):
			// What was proven before the look, and what since, cannot be told, or whom the rest of it shows. So what the directory holds is asked for, and
			// what this says goes only then.
			if asked {
				applied = append(applied, name)
			} else {
				f.askForAll()
				whole = false
			}
		case state == good && !whole && slices.ContainsFunc(sightings, func(s change.Sighting) bool { return s.Whole }):
			// Whom the files before it show cannot be told yet.
		case state == good:
			refused, err := f.sight(look.at, sightings)
			if err != nil {
				return nil, false, err
			}
			if refused && look.undated && !asked { // what it was held against may have been noted while the clock was ahead
				f.askForAll()
				whole = false
			} else {
				applied = append(applied, name)
			}
		case state == unclear:
			whole = false
		}
	}
	return applied, whole, nil
}

// look is what is known of when a look of the agent's began.
type look struct {
	at      time.Time // when; but not later than met
	ahead   bool      // it is dated at a time that is still to come: the clock was set back since
	undated bool      // what was proven before it, and what since, cannot be told, or a part of it is missing
	met     time.Time // of an undated one: when its first file was
}

// written returns what is known of the look that a file is of, which its name begins with. Its date cannot be held against other times where the clock was
// set since, or may have been, since it was before we started.
func (f *Forwarder) written(name string, now time.Time) (l look) {
	id := lookOf(name)
	nanoseconds, err := strconv.ParseInt(id, 10, 64)
	l.at = time.Unix(0, nanoseconds)
	if err != nil {
		l.at = now
	}
	l.ahead = l.at.After(now)
	if l.met, l.undated = f.undated[id]; !l.undated && (l.ahead || l.at.Before(f.dated(now))) {
		l.met, l.undated = now, true
		f.undated[id] = now
	}
	if l.ahead {
		l.at = l.met
	}
	return l
}

func lookOf(name string) string {
	id, _, _ := strings.Cut(name, "-")
	return id
}

// dated returns since when what the agent writes can be held against other times: since the start, or since the clock was set.
func (f *Forwarder) dated(now time.Time) time.Time {
	since := f.watch.steadySince(now)
	if since.Before(f.started) {
		since = f.started
	}
	return now.Round(0).Add(-now.Sub(since))
}

// sight notes what the directory holds, as the agent wrote it down at a time, and drops what is outdated. What is refused is older than what is known of a
// deletion, or of a directory that went back.
func (f *Forwarder) sight(at time.Time, sightings []change.Sighting) (refused bool, err error) {
	k, err := f.ledger.See(at, sightings...)
	if err != nil {
		return false, err
	}
	for _, b := range k.Back {
		f.log.DirectoryWentBack(b.Account, b.From.Version, b.To.Version)
	}
	for _, g := range k.Gaps {
		f.log.Lacks(g.Account, g.Target, g.Reason, g.Detail)
	}
	gone := map[dsdb.GUID]bool{}
	for _, s := range sightings {
		gone[s.Account.GUID] = s.Gone && k.Newest[s.Account.GUID].Stamp.IsZero() // what is told again, after a crash, may be over
	}
	if err := f.supersede(k, gone); err != nil {
		return false, err
	}
	return k.Refused, f.shelve(k, sightings)
}

// shelve keeps what waits from targets that do not want it any more, and lets go what they want again, as far as the agent has told of that.
func (f *Forwarder) shelve(k ledger.Knowledge, sightings []change.Sighting) error {
	told := map[dsdb.GUID]bool{}
	for _, s := range sightings {
		if s.Wanted != nil {
			told[s.Account.GUID] = true
		}
	}
	return f.shelveOf(maps.Keys(told), k)
}

func (f *Forwarder) shelveOf(accounts iter.Seq[dsdb.GUID], k ledger.Knowledge) error {
	shelved, err := f.queue.Shelve(accounts, func(i queue.Item) bool { return unwanted(i, k) })
	for _, item := range shelved {
		f.log.Shelved(item.Target, item.Account)
	}
	return err
}

// reshelve does so with an item that was leased when the agent told.
func (f *Forwarder) reshelve(ctx context.Context, guid dsdb.GUID) {
	f.persist(ctx, "shelving items", func() error {
		n, err := f.ledger.Newest(guid)
		if err != nil {
			return err
		}
		return f.shelveOf(slices.Values([]dsdb.GUID{guid}), ledger.Knowledge{Newest: map[dsdb.GUID]ledger.Newest{guid: n}})
	})
}

// unwanted reports whether, as far as is known, an item's target does not want it any more.
func unwanted(i queue.Item, k ledger.Knowledge) bool {
	return k.Newest[i.Account.GUID].Unwants(change.Route{Target: i.Target, User: i.User}, i.Stamp, i.Proven, i.Shelved)
}
