package deliver

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// running runs a forwarder as it is: with the folder's notifications, on the real clock.
func (w *world) running() {
	w.Helper()
	w.open()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- w.f.Run(ctx) }()
	w.stop = func() {
		w.Helper()
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
		w.close()
	}
}

// The same as TestOrder with real parallelism, for the race detector.
func TestRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU()))
	w := newWorld(t, "google", "entra")
	const accounts, versions = 10, 8
	var waiting sync.WaitGroup
	for _, p := range w.places {
		waiting.Add(accounts)
		p.answers(func(_ context.Context, _, password string) error {
			time.Sleep(rand.N(5 * time.Millisecond))
			if versionOf(t, password) == versions {
				waiting.Done()
			}
			return nil
		})
	}
	w.running()
	var agents sync.WaitGroup
	for n := range byte(accounts) {
		agents.Go(func() {
			for version := range versions {
				w.put(w.change(n, version+1, "google", "entra"))
				if version%3 == 0 {
					w.sight(n, version+1)
				}
			}
		})
	}
	w.mark(time.Now())
	agents.Wait()
	waiting.Wait()
	_ = w.f.Status()
	w.stop()
	w.running() // so that what the stop left is cleared away
	w.stop()
	for _, p := range w.places {
		p.inOrder()
		for n := range byte(accounts) {
			p.holds(n, versions)
		}
	}
	w.happened("forwarder-trouble", 0)
}

// How long a change takes from the folder to both targets, on an idle forwarder and whatever disk $TMPDIR is on.
func BenchmarkLatency(b *testing.B) {
	w := newWorld(b, "google", "entra")
	w.dir = b.TempDir()
	w.mkdir()
	asked := make(chan struct{})
	for _, p := range w.places {
		p.answers(func(context.Context, string, string) error { asked <- struct{}{}; return nil })
	}
	w.running()
	version := 0
	for b.Loop() {
		version++
		w.put(w.change(byte(version), version, "google", "entra"))
		<-asked
		<-asked
	}
	w.stop()
}
