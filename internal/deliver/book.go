package deliver

import (
	"context"
	"sync"

	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
)

// book writes down what attempts led to, all that have ended meanwhile in one transaction: each waits for the disk, and some hundred attempts
// may end in a second. The ledger comes first, for all of them: whatever a crash leaves in the queue is then known to be done. Nobody goes on
// before what he noted is durable.
type book struct {
	turn chan struct{} // full while somebody writes

	mu      sync.Mutex
	waiting []*verdict
}

// verdict is what an attempt led to.
type verdict struct {
	outcome *ledger.Entry // nil: none that is final, or it is in the ledger already
	result  queue.Result

	written chan struct{} // closed when somebody has tried to write it
	ok      bool
}

// write writes a verdict, and whatever others wait to have written, and reports whether its own was. It tries for as long as persist does.
func (f *Forwarder) write(ctx context.Context, v *verdict) bool {
	v.written = make(chan struct{})
	f.book.mu.Lock()
	f.book.waiting = append(f.book.waiting, v)
	f.book.mu.Unlock()
	select {
	case <-v.written:
		return v.ok
	case f.book.turn <- struct{}{}:
	}
	defer func() { <-f.book.turn }()

	f.book.mu.Lock()
	all := f.book.waiting
	f.book.waiting = nil
	f.book.mu.Unlock()
	var outcomes []ledger.Entry
	var results []queue.Result
	for _, v := range all {
		if results = append(results, v.result); v.outcome != nil {
			outcomes = append(outcomes, *v.outcome)
		}
	}
	ok := len(outcomes) == 0 || f.persist(ctx, "recording outcomes", func() error { return f.ledger.Record(outcomes...) })
	ok = ok && f.persist(ctx, "updating the queue", func() error { return f.queue.Return(results...) })
	for _, v := range all {
		v.ok = ok
		close(v.written)
	}
	return v.ok
}
