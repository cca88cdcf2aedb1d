// Package floods notices that somebody has Samba ask about passwords again and again, and tells in whose name.
//
// What: Came counts a password that the hook was asked about; Look begins and ends floods, which Status lists and the log names, once each.
//
// Why: SamrValidatePassword, which any domain user may call in anybody's name, runs the hook and changes nothing. What comes of it is never sent, and
// costs no more than a bounded part of the disk (internal/capture) and of the log (internal/event); but it is an attack, or a program that runs wild, on a
// domain controller that pays for it, and somebody should know.
//
// How: counts of the minute that runs. An account's own password does not change a hundred times a minute; and all passwords of a domain together not more
// often than a DC has time for, which takes some 65 ms for each.
//
// What it does not solve: who it is. SamrValidatePassword leaves no trace of its caller in the hook; Samba's log does (docs/operating.md). And it knows nothing of
// before its process started.
package floods

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
)

const (
	// PerAccount and PerDC are how many in a minute are no flood: in one account's name, and in names of which none is flooded by itself, or without one.
	PerAccount = 100
	PerDC      = 1500

	// over is for how long it is quiet before a flood is over.
	over = 5 * time.Minute
	// names bounds of how many names a minute is counted, and floods how many are told apart; what comes beyond is counted as one.
	names  = 5000
	floods = 20
)

// Flood is one that goes on, or was over less than five minutes ago.
type Flood struct {
	Account string    `json:"account"` // in whose name; empty: in many, or without one
	Since   time.Time `json:"since"`
	Last    time.Time `json:"last"`
	Count   uint64    `json:"count"`
}

// Book is made by New. Its methods may be called concurrently.
type Book struct {
	log *event.Log

	mu     sync.Mutex
	minute int64
	counts map[string]uint64 // of this minute, by account in lower case
	others uint64            // of this minute, in names that have no count
	going  map[string]*Flood // by account in lower case
}

// New returns an empty book.
func New(log *event.Log) *Book {
	return &Book{log: log, counts: map[string]uint64{}, going: map[string]*Flood{}}
}

// Came counts a password that Samba asked about in an account's name. certain means that the account's password was really about to be changed.
func (b *Book) Came(account string, certain bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if minute := now.Unix() / 60; minute != b.minute {
		b.minute, b.others = minute, 0
		clear(b.counts)
	}
	key := strings.ToLower(account)
	if f := b.going[key]; f != nil && key != "" {
		f.Count++
		f.Last = now
		return
	}
	if key != "" && (b.counts[key] > 0 || len(b.counts) < names) {
		b.counts[key]++
		if n := b.counts[key]; n > PerAccount && b.begin(account, n, now) {
			b.others -= min(n, b.others) // told by itself from here on
			return
		}
	}
	if certain {
		return
	}
	b.others++
	switch f := b.going[""]; {
	case f != nil:
		f.Count++
		if b.others > PerDC {
			f.Last = now
		}
	case b.others > PerDC:
		b.begin("", b.others, now)
	}
}

// begin reports whether there is room for one more.
func (b *Book) begin(account string, n uint64, now time.Time) bool {
	if len(b.going) == floods && account != "" {
		return false
	}
	b.going[strings.ToLower(account)] = &Flood{Account: account, Since: now.Truncate(time.Minute), Last: now, Count: n}
	b.log.Flood(account, n)
	return true
}

// Look ends floods that are over. To be called every few seconds.
func (b *Book) Look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, f := range b.going {
		if time.Since(f.Last) >= over {
			delete(b.going, key)
			b.log.FloodOver(f.Account, f.Count, f.Last.Sub(f.Since))
		}
	}
}

// Status returns the floods, the largest first.
func (b *Book) Status() []Flood {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := []Flood{}
	for _, f := range b.going {
		all = append(all, *f)
	}
	slices.SortFunc(all, func(x, y Flood) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), strings.Compare(x.Account, y.Account))
	})
	return all
}
