package deliver

import (
	"testing"
	"testing/synctest"
	"time"
)

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
