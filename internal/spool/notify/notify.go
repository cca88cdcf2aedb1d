// Package notify tells that a folder may have changed.
//
// A tick is a hint and nothing more: inotify queues overflow, a file system may have none, and the kernel gives each user only so many
// instances and watches. So a tick also comes every interval, and once at the start, and the receiver always looks at the whole folder. It stands apart from internal/spool
// because the hook needs no notification, and pays at every start for what it links.
package notify

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Dir sends on the returned channel when files in dir appear or change, and at least every interval. Ticks that nobody has
// taken yet merge into one. The channel is never closed; watching ends with ctx. Where the kernel has no notification for us, only the interval is
// left. Error: the folder cannot be looked at.
func Dir(ctx context.Context, dir string, every time.Duration) (<-chan struct{}, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("watching %s: %w", dir, err)
	}
	events, failures, stop := watch(dir)
	ticks := make(chan struct{}, 1)
	ticks <- struct{}{}
	go func() {
		defer stop()
		timer := time.NewTicker(every)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-events:
				if !e.Has(fsnotify.Create) && !e.Has(fsnotify.Write) && !e.Has(fsnotify.Rename) {
					continue // our own removals
				}
			case <-failures: // an overflow: look at everything
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

// watch returns channels that never send if there is no notification.
func watch(dir string) (events <-chan fsnotify.Event, failures <-chan error, stop func()) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, nil, func() {}
	}
	if err := watcher.Add(dir); err != nil {
		_ = watcher.Close()
		return nil, nil, func() {}
	}
	return watcher.Events, watcher.Errors, func() { _ = watcher.Close() }
}
