package deliver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// Whoever notes what became of an attempt goes on when that is durable, whoever wrote it.
func TestBook(t *testing.T) {
	w := newWorld(t, "google")
	w.open()
	defer w.close()
	const n = 50
	var leases []queue.Lease
	for i := range byte(n) {
		c := w.change(i, 1, "google")
		item := queue.Item{
			Target: "google", User: user(i), Place: placeOf(c.Routes[0]), Account: c.Account, Stamp: c.Stamp, File: c.FileName(),
			Captured: c.Captured, Proven: c.Proven, Due: time.Now(),
		}
		if _, err := w.queue.Add(item); err != nil {
			t.Fatal(err)
		}
		lease, ok, err := w.queue.Lease("google", time.Time{}, time.Now())
		if !ok {
			t.Fatal("nothing to lease", err)
		}
		leases = append(leases, lease)
	}
	var writers sync.WaitGroup
	for _, lease := range leases {
		writers.Go(func() {
			outcome := ledger.Entry{
				Target: "google", User: lease.User, Place: lease.Place, Account: lease.Account, Stamp: lease.Stamp, Proven: lease.Proven,
				Class: target.Delivered, At: time.Now(),
			}
			if !w.f.write(t.Context(), &verdict{outcome: &outcome, result: lease.Done()}) {
				t.Error("it is not written")
			}
			last, err := w.ledger.Last("google", lease.Account.GUID)
			if err != nil || last.Class != target.Delivered || w.queue.Needs([]byte(lease.File)) {
				t.Errorf("it went on before it was written: %+v, %v", last, err)
			}
		})
	}
	writers.Wait()
	if items := w.items(); len(items) != 0 {
		t.Errorf("%d items are left", len(items))
	}

	// What cannot be written is tried for as long as there is time, and then it is not written for anybody.
	if err := w.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for range 3 {
		writers.Go(func() {
			if w.f.write(stopped, &verdict{outcome: &ledger.Entry{Target: "google", Account: account(1), Stamp: stamp(9), Class: target.Delivered}, result: leases[1].Done()}) {
				t.Error("it is said to be written")
			}
		})
	}
	writers.Wait()
	var err error
	if w.ledger, err = ledger.Open(filepath.Join(w.dir, "ledger.db"), w.log); err != nil {
		t.Fatal(err)
	}
}

// A crash may come after a change was queued for one target, and before the ledger knew of it; or the ledger is lost. The account's older password,
// which waits for another target, is not sent all the same.
func TestNewerOneIsKnownAfterACrash(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("ledger lost: ", lost), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "google", "entra")
				w.open()
				queued := func(version int, name string) {
					c := w.change(1, version, name)
					w.put(c)
					_, err := w.queue.Add(queue.Item{
						Target: name, User: c.Routes[0].User, Place: placeOf(c.Routes[0]), Account: c.Account, Stamp: c.Stamp, Capture: c.Capture,
						File: c.FileName(), Captured: c.Captured, Proven: c.Proven, Due: time.Now(),
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				queued(1, "entra")
				if err := w.f.tell(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
				queued(2, "google")
				if lost {
					w.f.queue.Told()
				}
				w.close()
				if lost {
					if err := os.Remove(filepath.Join(w.dir, "ledger.db")); err != nil {
						t.Fatal(err)
					}
				}
				w.watched()
				w.start()
				w.pass(5 * time.Second)
				w.places["google"].holds(1, 2)
				if asked := w.places["entra"].asked(); len(asked) != 0 {
					t.Errorf("entra was sent version %d", asked[0].version)
				}
				w.stop()
				w.unwatch()
			})
		})
	}
}
