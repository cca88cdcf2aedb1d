package agent

import (
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
)

func waiting(t *testing.T, account string) *pending {
	t.Helper()
	evidence, err := proof.Read(box.EncodeNTHash([16]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	h := capture.Header{ID: capture.NewID(), Time: time.Now(), Account: account}
	return &pending{file: h.FileName(), header: h, seen: time.Now(), evidence: evidence}
}

func (d *docket) turn() *subject {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _ := d.pick(time.Now())
	return s
}

func TestOneSearchAtATimeForEachName(t *testing.T) {
	d := newDocket(time.Minute)
	d.add(waiting(t, "alice"))
	alice := d.turn()
	d.add(waiting(t, "ALICE"))
	if s := d.turn(); s != nil {
		t.Fatalf("%q has its turn while it is looked at", s.name)
	}
	d.done(alice)
	if s := d.turn(); s != alice {
		t.Error("what came meanwhile does not have its turn at once")
	}
}

func TestNewestFirst(t *testing.T) {
	d := newDocket(time.Minute)
	for _, name := range []string{"alice", "bob", "carol"} {
		d.add(waiting(t, name))
	}
	d.moved([]mover{{name: "Bob"}})
	for _, want := range []string{"bob", "carol", "alice"} {
		if s := d.turn(); s == nil || s.name != want {
			t.Fatalf("not %s's turn: %+v", want, s)
		}
	}
	if s := d.turn(); s != nil {
		t.Errorf("%q has its turn twice", s.name)
	}
}

func TestNothingIsKeptOfWhatIsGone(t *testing.T) {
	d := newDocket(time.Minute)
	p := waiting(t, "alice")
	d.add(p)
	alice := d.turn()
	d.remove(p)
	d.done(alice)
	if len(d.files)+len(d.claims)+len(d.orphans)+len(d.waiting)+len(d.urgent) != 0 {
		t.Errorf("left: %+v", d)
	}
}
