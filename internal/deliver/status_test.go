package deliver

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Where a cloud knows none of a large domain's users, the picture has the first of them, and how many they are.
func TestStatusOfManyParked(t *testing.T) {
	w := newWorld(t, "google")
	w.open()
	defer w.close()
	var items []queue.Item
	for n := range maxParked + 3 {
		items = append(items, queue.Item{
			Target: "google", Place: fmt.Sprint(n), Account: change.Account{GUID: dsdb.GUID{byte(n), byte(n >> 8), 1}, SAMAccountName: fmt.Sprint(n)},
			Stamp: stamp(1), Captured: time.Unix(int64(n), 0), Class: target.NoUser, Parked: true,
		})
	}
	if _, err := w.queue.Add(items...); err != nil {
		t.Fatal(err)
	}
	s := w.f.Status()
	if len(s.Parked) != maxParked || s.Parked[0].Account != "0" || s.Targets[0].Parked != maxParked+3 {
		t.Errorf("%d are listed, of %d", len(s.Parked), s.Targets[0].Parked)
	}
	w.happened("forwarder-trouble", 0)
}

// An expired password stays in the picture until its account's next one has been delivered.
func TestStatusCountsTheExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "google", "entra")
		w.ttl = 20 * time.Minute
		p := w.places["google"]
		p.fails(errDown)
		w.start()
		w.watched()
		want := func(delivered, expired int) {
			t.Helper()
			google, entra := w.f.Status().Targets[0], w.f.Status().Targets[1]
			if google.Delivered != delivered || google.Expired != expired || entra.Expired != 0 {
				t.Errorf("%+v, %+v; want %d delivered and %d expired at google", google, entra, delivered, expired)
			}
		}
		w.put(w.change(1, 1, "google", "entra"))
		w.pass(15 * time.Minute)
		want(0, 0)
		w.pass(10 * time.Minute)
		want(0, 1)
		p.fails(nil)
		w.put(w.change(1, 2, "google", "entra"))
		w.pass(quiet)
		want(1, 0)
		w.unwatch()
		w.stop()
	})
}
