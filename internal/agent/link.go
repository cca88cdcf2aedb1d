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

// link is the connection to the DC: there is one, or everybody waits for one.
type link struct {
	dial func(context.Context) (Directory, error)
	log  *event.Log

	mu    sync.Mutex
	dc    Directory     // nil while down
	turn  chan struct{} // closed when dc changes
	since time.Time     // of being up or down
	host  string
	err   error // why it is down; nil before the first attempt
}

func newLink(dial func(context.Context) (Directory, error), log *event.Log) *link {
	return &link{dial: dial, log: log, turn: make(chan struct{}), since: time.Now()}
}

// keep dials whenever there is no connection, until ctx ends.
func (l *link) keep(ctx context.Context) {
	pause := firstRedial
	for ctx.Err() == nil {
		l.mu.Lock()
		up, turn := l.dc != nil, l.turn
		l.mu.Unlock()
		if up {
			pause = firstRedial
			select {
			case <-turn:
			case <-ctx.Done():
			}
			continue
		}
		if err := l.connect(ctx); err != nil && ctx.Err() == nil {
			l.down(err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, lastRedial)
		}
	}
}

// connect dials and asks one question: a socket that accepts is no DC that answers.
func (l *link) connect(ctx context.Context) error {
	dc, err := l.dial(ctx)
	if err != nil {
		return err
	}
	root, err := dc.Root(ctx)
	if err != nil {
		_ = dc.Close() // it never worked
		return fmt.Errorf("greeting the DC: %w", err)
	}
	l.up(dc, root.DNSHostName)
	return nil
}

func (l *link) up(dc Directory, host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.host = host
	l.set(dc, nil)
	l.log.DirectoryUp(host)
}

// down notes a failed attempt. Each outage is one event, however many attempts it takes.
func (l *link) down(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.log.DirectoryDown(err)
	}
	l.err = err
}

// lost gives a connection up that did not answer. Several callers may find that out about the same one.
func (l *link) lost(dc Directory, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dc != dc {
		return
	}
	_ = dc.Close() // it is lost anyway
	l.set(nil, err)
	l.log.DirectoryDown(err)
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
