package ledger

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestSweep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, _ := open(t, path)
	// 1 was deleted long ago, 2 just now, 3 is there; they had names, and of 3 nothing was heard for long.
	for n, place := range map[byte]string{1: "google old", 2: "google just", 3: "google alice"} {
		prove(t, l, proof(n, 5, int(n), place))
		if err := l.Record(Entry{Target: "google", Account: account(n), Stamp: stamp(5), Proven: at(int(n)), Place: place, Class: target.Rejected, At: at(int(n))}); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(n byte, when time.Time) {
		t.Helper()
		if _, err := l.See(when, change.Sighting{Account: account(n), Gone: true}); err != nil {
			t.Fatal(err)
		}
	}
	gone(1, at(10))
	gone(2, at(30))

	sweep := func(before time.Time, want int) {
		t.Helper()
		if n, err := l.Sweep(before); n != want || err != nil {
			t.Fatalf("%d accounts, want %d; %v", n, want, err)
		}
	}
	expect := func(what string, newest, outcomes, holders int) {
		t.Helper()
		got := [3]int{}
		for n := range byte(4) {
			if newestOf(t, l, n).Account.GUID != (dsdb.GUID{}) {
				got[0]++
			}
			entries, err := l.Entries(dsdb.GUID{n})
			if err != nil {
				t.Fatal(err)
			}
			got[1] += len(entries)
		}
		k, err := l.Known(Proof{Places: []string{"google old", "google just", "google alice"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range k.Holders {
			if h.Account.GUID != (dsdb.GUID{}) {
				got[2]++
			}
		}
		if got != [3]int{newest, outcomes, holders} || l.Counts()["google"].Classes[target.Rejected] != outcomes {
			t.Errorf("%s: newest, outcomes, holders %v, counted %v", what, got, l.Counts())
		}
	}
	expect("before", 3, 3, 3)
	sweep(at(1), 0)
	expect("too early", 3, 3, 3)
	sweep(at(20), 0) // noted by this process just now, by which nothing is old
	expect("names only", 3, 3, 0)
	sweep(time.Now().Add(time.Minute), 2)
	expect("who is gone", 1, 1, 0)
	_ = l.Close()
	l, _ = open(t, path)
	expect("after a restart", 1, 1, 0)

	// One that comes back is new.
	prove(t, l, proof(1, 7, 50, "google old"))
	if n := newestOf(t, l, 1); n.Stamp.Version != 7 || n.Outdates(stamp(7), at(50)) {
		t.Errorf("%+v", n)
	}
}

// What was said of an account between the look and the deleting stays, however many there are.
func TestSweepMany(t *testing.T) {
	l, _ := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	var seen []change.Sighting
	for n := range 3 * sweepAtATime {
		a := change.Account{GUID: dsdb.GUID{1, byte(n), byte(n >> 8)}, SAMAccountName: fmt.Sprint("user", n)}
		seen = append(seen, change.Sighting{Account: a, Gone: true})
	}
	if _, err := l.See(at(1), seen...); err != nil {
		t.Fatal(err)
	}
	back := seen[0].Account
	rows := []swept{{newest, back.GUID[:]}, {newest, seen[1].Account.GUID[:]}}
	if err := l.Prove(Proof{Account: back, Stamp: stamp(9), Proven: at(5)}); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	if n, err := l.sweep(rows, later); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := l.Sweep(later); n != len(seen)-2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := l.Newest(back.GUID); n.Stamp.Version != 9 || err != nil {
		t.Errorf("%+v, %v", n, err)
	}
}
