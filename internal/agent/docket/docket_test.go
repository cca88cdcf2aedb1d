package docket

import (
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
)

func waiting(t *testing.T, account string) Pending {
	t.Helper()
	evidence, err := proof.Read(box.EncodeNTHash([16]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	h := capture.Header{ID: capture.NewID(), Time: time.Now(), Account: account}
	return Pending{File: h.FileName(), Header: h, Seen: time.Now(), Evidence: evidence}
}

func (d *Docket) turn() *Subject {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _ := d.pick(time.Now())
	return s
}

func TestOneSearchAtATimeForEachName(t *testing.T) {
	d := New(time.Minute)
	d.Add(waiting(t, "alice"))
	alice := d.turn()
	d.Add(waiting(t, "ALICE"))
	if s := d.turn(); s != nil {
		t.Fatalf("%q has its turn while it is looked at", s.Name)
	}
	d.Done(alice)
	if s := d.turn(); s != alice {
		t.Error("what came meanwhile does not have its turn at once")
	}
}

func TestNewestFirst(t *testing.T) {
	d := New(time.Minute)
	for _, name := range []string{"alice", "bob", "carol"} {
		d.Add(waiting(t, name))
	}
	d.Moved([]Mover{{Name: "Bob"}})
	for _, want := range []string{"bob", "carol", "alice"} {
		if s := d.turn(); s == nil || s.Name != want {
			t.Fatalf("not %s's turn: %+v", want, s)
		}
	}
	if s := d.turn(); s != nil {
		t.Errorf("%q has its turn twice", s.Name)
	}
}

func TestNothingIsKeptOfWhatIsGone(t *testing.T) {
	d := New(time.Minute)
	p := waiting(t, "alice")
	d.Add(p)
	alice := d.turn()
	d.Remove(Finding{entry: d.files[p.File]})
	d.Done(alice)
	if len(d.files)+len(d.claims)+len(d.orphans)+len(d.waiting)+len(d.urgent) != 0 {
		t.Errorf("left: %+v", d)
	}
}
