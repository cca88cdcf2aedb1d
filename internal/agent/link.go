package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
)

const (
	firstRedial = 20 * time.Millisecond
	lastRedial  = 2 * time.Second
)

// link is a connection to the DC: there is one, or everybody waits for one.
type link struct {
	dial func(context.Context) (Directory, error)
	log  *event.Log // nil: says nothing

	mu    sync.Mutex
	dc    Directory     // nil while down
	turn  chan struct{} // closed when dc changes
	since time.Time     // of being up or down
	host  string
	err   error // why it is down; nil before the first attempt

	outage bool // that the DC does not answer has been said, and not yet taken back
	shaky  bool // the last connection did not last
}

func newLink(dial func(context.Context) (Directory, error), log *event.Log) *link {
	return &link{dial: dial, log: log, turn: make(chan struct{}), since: time.Now()}
}

// keep dials whenever there is no connection, until ctx ends. A DC that takes connections and loses them at once is dialled as
// seldom as one that takes none.
func (l *link) keep(ctx context.Context) {
	pause := firstRedial
	rest := func() {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, lastRedial)
	}
	for ctx.Err() == nil {
		turn, err := l.connect(ctx)
		if err != nil {
			if ctx.Err() == nil {
				l.down(err)
				rest()
			}
			continue
		}
		select {
		case <-turn:
			l.mu.Lock()
			l.shaky = true
			l.mu.Unlock()
			rest()
			continue
		case <-ctx.Done():
			return
		case <-time.After(lastRedial):
		}
		pause = firstRedial
		l.lasted()
		select {
		case <-turn:
		case <-ctx.Done():
		}
	}
}

// connect dials and asks one question: a socket that accepts is no DC that answers. lost is closed when the connection is.
func (l *link) connect(ctx context.Context) (lost <-chan struct{}, err error) {
	dc, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	root, err := dc.Root(ctx)
	if err != nil {
		_ = dc.Close() // it never worked
		return nil, fmt.Errorf("greeting the DC: %w", err)
	}
	return l.up(dc, root.DNSHostName), nil
}

func (l *link) up(dc Directory, host string) (lost <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.host = host
	l.set(dc, nil)
	if !l.shaky {
		l.sayUp()
	}
	return l.turn
}

// lasted notes that the connection is a sound one.
func (l *link) lasted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shaky = false
	if l.dc != nil && l.outage {
		l.sayUp()
	}
}

func (l *link) sayUp() {
	l.outage = false
	if l.log != nil {
		l.log.DirectoryUp(l.host)
	}
}

func (l *link) sayDown(err error) {
	if l.log != nil && !l.outage {
		l.log.DirectoryDown(err)
	}
	l.outage = true
}

// down notes a failed attempt. Each outage is one event, however many attempts it takes.
func (l *link) down(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sayDown(err)
	l.err = err
}

// lost gives a connection up that did not answer. Several callers may find that out about the same one.
func (l *link) lost(dc Directory, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dc == nil || l.dc != dc {
		return
	}
	_ = dc.Close() // it is lost anyway
	l.sayDown(err)
	l.set(nil, err)
}

// suspect gives up the connection that there is, if any.
func (l *link) suspect(err error) {
	l.mu.Lock()
	dc := l.dc
	l.mu.Unlock()
	l.lost(dc, err)
}

func (l *link) set(dc Directory, err error) {
	l.dc, l.err, l.since = dc, err, time.Now()
	close(l.turn)
	l.turn = make(chan struct{})
}

// get returns the connection, and waits for one while there is none. The error is ctx's.
func (l *link) get(ctx context.Context) (Directory, error) {
	for {
		l.mu.Lock()
		dc, turn := l.dc, l.turn
		l.mu.Unlock()
		if dc != nil {
			return dc, nil
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// now returns the connection; nil if there is none.
func (l *link) now() Directory {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dc
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dc != nil {
		_ = l.dc.Close() // nothing waits for an answer any more
	}
}

func (l *link) status() DirectoryStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := DirectoryStatus{Up: l.dc != nil, Since: l.since, DC: l.host}
	if l.err != nil {
		s.Error = l.err.Error()
	}
	return s
}
