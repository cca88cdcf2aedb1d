package deliver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/crash"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	diskAccounts = 4
	tooManyCalls = 60_000 // of half an hour: more would be turning in circles
	finalAlarms  = "alarms "
)

// diskHolds are the versions that the directory holds at the end. That of account 2 nobody captured.
var diskHolds = map[byte]int{1: 2, 2: 2, 3: 2, 4: 1}

// lifeOnABadDisk is a life of a forwarder in a folder whose disk is ill for some time: half an hour later all is as it has to be.
func lifeOnABadDisk(t *testing.T, dir string) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		w.dir = dir
		var err error
		if w.key, err = seal.LoadPrivate(filepath.Join(dir, "forwarder.key")); err != nil {
			t.Fatal(err)
		}
		for name, p := range w.places {
			p.answers(func(_ context.Context, user, password string) error {
				crash.Say(fmt.Sprintf("sent %s %s %d", name, user, versionOf(t, password)))
				return nil
			})
		}
		late := filepath.Join(dir, "late") // a change that the agent has not stored yet
		if _, err := os.Stat(w.outgoing()); err != nil {
			w.mkdir()
			for n := byte(1); n <= diskAccounts; n++ {
				w.sight(n, 1)
				w.put(w.change(n, 1, "google", "entra"))
			}
			w.sight(1, 2)
			w.put(w.change(1, 2, "google", "entra"))
			w.sight(2, 2)
			if err := os.WriteFile(late, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		crash.Say(crash.Begin)
		w.start()
		ctx, cancel := context.WithCancel(context.Background())
		var agent sync.WaitGroup
		agent.Go(func() { // an agent that tries everything again
			c := w.change(3, 2, "google", "entra")
			b, _ := c.Marshal()
			w.every(ctx, func() {
				now := time.Now()
				if _, err := os.Stat(late); err == nil && w.f.sights.Put(change.SightingsFile(now, fmt.Sprint(now.UnixNano())), sightingsOf(now, 3, 2)) == nil &&
					(w.f.changes.Put(c.FileName(), b) == nil || exists(filepath.Join(w.outgoing(), c.FileName()))) {
					_ = os.Remove(late)
				}
				asked, _ := w.f.asks.List()
				if len(asked) > 0 && w.f.sights.Put(change.SightingsFile(now, "all"), allSightings()) != nil {
					return
				}
				for _, name := range asked {
					if w.f.asks.Discard(name) != nil {
						return
					}
				}
				_ = change.WriteMark(w.outgoing(), change.Mark{AsOf: now, Host: "dc1", InvocationID: dsdb.GUID{9}})
			})
		})
		restarts := 0
		for end := time.Now().Add(30 * time.Minute); time.Now().Before(end); {
			select {
			case err := <-w.ended:
				if restarts++; !errors.Is(err, boltfile.ErrDamaged) || restarts > 2 {
					t.Fatalf("ended with %v, for time %d", err, restarts)
				}
				w.halt()
				_, _ = w.queue.Close(), w.ledger.Close()
				w.unlock("queue.db")
				w.unlock("ledger.db")
				w.start()
			case <-time.After(time.Second):
			}
		}
		cancel()
		agent.Wait()
		synctest.Wait()
		w.settled()
		for _, p := range w.places {
			p.inOrder()
		}
		alarms := 0
		for name, n := range w.log.Counters() {
			if slices.Contains([]string{"forwarder-trouble", "change-unreadable", "state-damaged", "values-damaged", "watch-stale", "change-damaged", "waiting-for-disk"}, name) {
				alarms += int(n)
			}
		}
		crash.Say(fmt.Sprint(finalAlarms, alarms))
		w.stop()
	})
}

func sightingsOf(at time.Time, n byte, version int) []byte {
	b, _ := change.MarshalSightings("", []change.Sighting{{Account: account(n), Stamp: stamp(version)}})
	return b
}

// allSightings is what an agent tells that is asked for all.
func allSightings() []byte {
	all := []change.Sighting{{Whole: true}}
	for n, version := range diskHolds {
		all = slices.Insert(all, 0, change.Sighting{Account: account(n), Stamp: stamp(version), Reset: true})
	}
	b, _ := change.MarshalSightings("", all)
	return b
}

// theAgents reports whether a call may be the agent's of the test, which says nothing.
func theAgents(call string) bool {
	return strings.Contains(call, "mark") || strings.Contains(call, "late") || strings.HasSuffix(call, change.Suffix) || strings.HasSuffix(call, change.SightingsSuffix)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Each system call by which the forwarder, its queue and its ledger read, write or sync something fails, once or for some time, is late, or is the last.
// What the directory holds arrives at both targets, in order and nothing else, once the disk is well; the process goes on by itself (it is started anew if it was
// killed), does not turn in circles, and of any trouble that lasts there is an alarm.
func TestDiskFaults(t *testing.T) {
	if dir, ok := crash.Inside(); ok {
		runtime.GOMAXPROCS(runtime.NumCPU())
		lifeOnABadDisk(t, dir)
		return
	}
	run := trial.Start(t, "disk-forwarder", 4)
	key, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	pem, err := key.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	life := func(dir string, fault crash.Fault) crash.Endured {
		e, err := crash.Endure(crash.Self(t, "TestDiskFaults", dir), dir, fault, true)
		if err != nil {
			t.Fatal(err)
		}
		if !e.Killed && e.Exit != 0 {
			t.Errorf("%v (%q): exit %d: %s", fault, e.Hit, e.Exit, e.Output)
		}
		return e
	}
	folder := func() string {
		dir := crash.Folder(t)
		if err := os.WriteFile(filepath.Join(dir, "forwarder.key"), pem, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	each := life(folder(), crash.Fault{First: 1 << 30}).Calls
	within := 250 // what comes later is the mark only, again and again
	hit, alarmed := 0, 0
	for n := range run.N {
		fault := crash.RandomFault(run.Rand, within, true)
		if n%4 == 0 { // some go through the calls one by one
			fault = crash.Fault{First: n / 4 * max(1, within/max(1, run.N/4)) % within, Calls: 1, Errno: []syscall.Errno{syscall.ENOSPC, syscall.EIO}[n/4%2]}
		}
		dir := folder()
		e := life(dir, fault)
		said := e.Said
		if e.Killed {
			said = append(said, life(dir, crash.Fault{First: 1 << 30}).Said...)
		}
		if len(e.Hit) > 0 {
			hit++
		}
		what := fmt.Sprintf("%v (%q)", fault, e.Hit)
		if e.Calls > tooManyCalls {
			t.Errorf("%s: %d calls in half an hour, without a fault %d", what, e.Calls, each)
		}
		last := map[string]int{}
		for _, line := range said {
			var place, user string
			var version int
			if _, err := fmt.Sscanf(line, "sent %s %s %d", &place, &user, &version); err == nil {
				if version < last[place+user] {
					run.OutOfOrder("%s: %s after %d", what, line, last[place+user])
				}
				last[place+user] = version
			}
		}
		for account, version := range diskHolds {
			for _, place := range []string{"google", "entra"} {
				got := last[place+user(account)]
				if account == 2 && got == 1 {
					run.Wrong("%s: version 1 of %s, which the directory does not hold", what, user(account))
				}
				if account != 2 && got != version {
					run.Lost("%s: %s holds version %d of %s, the directory %d", what, place, got, user(account), version)
				}
			}
		}
		if alarm := !slices.Contains(said, finalAlarms+"0"); alarm {
			alarmed++
		} else if fault.Effect == crash.Fail && len(e.Hit) == 20 && !slices.ContainsFunc(e.Hit, theAgents) {
			t.Errorf("%s: no alarm", what)
		}
		if t.Failed() {
			break
		}
		run.Trial(1)
	}
	run.Note("%d calls of a run, %d runs met a fault, %d told of it", each, hit, alarmed)
	if hit < run.N/2 {
		t.Errorf("%d of %d met a fault, %d told of it: the test proves nothing", hit, run.N, alarmed)
	}
}
