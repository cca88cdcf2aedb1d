// Package notify tells that a folder may have changed.
//
// A tick is a hint and nothing more: inotify queues overflow, and a file system may have none. So a tick also comes every
// interval, and once at the start, and the receiver always looks at the whole folder. It stands apart from internal/spool
// because the hook needs no notification, and pays at every start for what it links.
package notify

import (
	"context"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Dir sends on the returned channel when files in dir appear or change, and at least every interval. Ticks that nobody has
// taken yet merge into one. The channel is never closed; watching ends with ctx.
func Dir(ctx context.Context, dir string, every time.Duration) (<-chan struct{}, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("starting file notification: %w", err)
	}
	if err := watcher.Add(dir); err != nil {
		_ = watcher.Close()
		return nil, fmt.Errorf("watching %s: %w", dir, err)
	}
	ticks := make(chan struct{}, 1)
	ticks <- struct{}{}
	go func() {
		defer watcher.Close()
		timer := time.NewTicker(every)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-watcher.Events:
				if !e.Has(fsnotify.Create) && !e.Has(fsnotify.Write) && !e.Has(fsnotify.Rename) {
					continue // our own removals
				}
			case <-watcher.Errors: // an overflow: look at everything
			case <-timer.C:
			}
			select {
			case ticks <- struct{}{}:
			default:
			}
		}
	}()
	return ticks, nil
}
