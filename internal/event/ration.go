package event

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Some events anybody in the domain can bring about as often as he likes (SamrValidatePassword). Each is counted; but a minute has a limited number of
// their lines, and what comes beyond is told in one line for each account when the minute is over.
const (
	rationLines = 100  // a minute, of all such events together
	rationSaid  = 10   // lines that tell of more, the largest first; the rest are one more
	rationNames = 1000 // that are told apart in a minute
)

type ration struct {
	minute  int64
	written int
	more    map[untold]int
}

// untold is what was counted and not written.
type untold struct {
	level               slog.Level
	event, text, whence string // whence is the account that was claimed
}

// rationed is write for such an event. name is the account that it claims.
func (l *Log) rationed(level slog.Level, event, text, name string, attrs ...slog.Attr) {
	l.Summarise()
	u := untold{level, event, text, name}
	l.mu.Lock()
	if l.ration.written >= rationLines {
		l.counters[event]++
		if _, known := l.ration.more[u]; !known && len(l.ration.more) >= rationNames {
			u.whence = ""
		}
		l.ration.more[u]++
		l.mu.Unlock()
		return
	}
	l.ration.written++
	l.mu.Unlock()
	l.write(level, event, text, append(attrs, slog.String("account", name))...)
}

// Summarise tells what was counted and not written in a minute that is over. To be called every few seconds: nothing else may happen that would.
func (l *Log) Summarise() {
	l.mu.Lock()
	now := time.Now().Unix() / 60
	if now == l.ration.minute {
		l.mu.Unlock()
		return
	}
	more := l.ration.more
	l.ration = ration{minute: now, more: map[untold]int{}}
	l.mu.Unlock()

	var all []untold
	for u := range more {
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b untold) int {
		return cmp.Or(cmp.Compare(more[b], more[a]), strings.Compare(a.event, b.event), strings.Compare(a.whence, b.whence))
	})
	tell := func(u untold, attrs ...slog.Attr) {
		l.log.LogAttrs(context.Background(), u.level, u.text, append([]slog.Attr{slog.String("event", u.event)}, attrs...)...)
	}
	rest := map[untold]int{} // without accounts
	names := map[untold]int{}
	for i, u := range all {
		if i < rationSaid {
			tell(u, slog.Int("more", more[u]), slog.String("account", u.whence))
			continue
		}
		n := more[u]
		u.whence = ""
		rest[u] += n
		names[u]++
	}
	for u, n := range rest {
		tell(u, slog.Int("more", n), slog.Int("accounts", names[u]))
	}
}
