package canary

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Processes watches the command line and the environment of every process of the machine, containers included, while tests run: a
// password there is gone when its process is, long before anybody looks.
//
// It samples, so a process that lives for less than the interval can slip through; many runs of the same program do not.
type Processes struct {
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	seen map[string]string // contents -> where first seen
}

// WatchProcesses starts watching.
func WatchProcesses(interval time.Duration) *Processes {
	ctx, stop := context.WithCancel(context.Background())
	p := &Processes{stop: stop, done: make(chan struct{}), seen: map[string]string{}}
	go func() {
		defer close(p.done)
		known := map[string]string{} // pid -> command line when the environment was read
		for ctx.Err() == nil {
			began := time.Now()
			known = p.sample(known)
			select {
			case <-ctx.Done():
			case <-time.After(max(interval, 3*time.Since(began))): // on a busy machine a quarter of a core at most
			}
		}
	}()
	return p
}

// Seen returns everything seen so far, by where it was seen first.
func (p *Processes) Seen() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := make(map[string]string, len(p.seen))
	for contents, where := range p.seen {
		seen[contents] = where
	}
	return seen
}

// Stop ends the watching.
func (p *Processes) Stop() {
	p.stop()
	<-p.done
}

func (p *Processes) sample(known map[string]string) map[string]string {
	now := make(map[string]string, len(known))
	proc, err := os.Open("/proc")
	if err != nil {
		return now
	}
	names, _ := proc.Readdirnames(-1)
	proc.Close()
	for _, pid := range names {
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		line := p.read(pid, "cmdline")
		now[pid] = line
		// The environment changes with the program, and so does the command line.
		if before, ok := known[pid]; !ok || before != line {
			p.read(pid, "environ")
		}
	}
	return now
}

func (p *Processes) read(pid, file string) string {
	path := filepath.Join("/proc", pid, file)
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return "" // gone already, a thread of the kernel, or not ours to read
	}
	contents := string(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.seen[contents]; !ok {
		p.seen[contents] = path
	}
	return contents
}
