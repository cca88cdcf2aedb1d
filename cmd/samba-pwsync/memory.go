package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

const (
	// forgetEvery is how often what was secret is overwritten while there is work.
	forgetEvery = 10 * time.Second
	// forgetFor is for how long after the last use of a key something secret may become garbage: half a minute in which a target may take its
	// time, as long again as package cloud keeps an idle connection, whose buffers hold what was sent last (questions do not keep it open: they
	// have others), and one more turn. In the agent, confirm_timeout comes on top, after which it asks about the change once more, and gets a hash.
	forgetFor = time.Minute
)

// forget overwrites what is left of secrets in memory, until ctx ends.
//
// Our own buffers are cleared when they have been used. But the vendors' libraries make strings and JSON of a password, net/http and
// crypto/tls keep buffers, and the LDAP library copies hashes; nobody can clear those. They are garbage within moments, or when an idle
// connection is closed, and Go overwrites garbage when it collects it if clobberfree is set (cleanEnvironment). By itself it
// collects when the memory has doubled, or every two minutes. So for a while after a key was used, it is made to collect: twice, because what
// lies in a sync.Pool survives one collection; and free memory, where stacks were, goes back to the kernel, which gives out zeros.
//
// What it does not reach: a password that is under way; and what a stack or a register holds until it is used again.
func forget(ctx context.Context, parts []*part) {
	ticker := time.NewTicker(forgetEvery)
	defer ticker.Stop()
	var seen uint64
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var used uint64
		window := forgetFor
		for _, p := range parts {
			used += p.keys.ring.Used()
			if p.keys.role == roleAgent {
				window += p.keys.keep
			}
		}
		if used != seen {
			seen, last = used, time.Now()
		}
		if !last.IsZero() && time.Since(last) < window {
			runtime.GC()
			debug.FreeOSMemory()
		}
	}
}
