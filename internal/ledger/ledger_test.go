package ledger

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }

func stamp(version int) dsdb.Stamp {
	if version == 0 {
		return dsdb.Stamp{}
	}
	return dsdb.Stamp{Version: uint32(version), Time: start, InvocationID: dsdb.GUID{9}, USN: uint64(version)}
}

func account(n byte) change.Account {
	return change.Account{GUID: dsdb.GUID{n}, SAMAccountName: fmt.Sprintf("user%d", n)}
}

func outcome(name string, n byte, version int, class target.Class) Entry {
	return Entry{
		Target: name, User: account(n).SAMAccountName, Place: name + " " + account(n).SAMAccountName, Account: account(n), Stamp: stamp(version),
		Proven: at(version), Class: class, At: at(version), Attempts: 1,
	}
}

func open(t *testing.T, path string) (*Ledger, *event.Log) {
	t.Helper()
	log := event.New(slog.New(slog.DiscardHandler))
	l, err := Open(path, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, log
}

func temp(t *testing.T) *Ledger {
	l, _ := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	return l
}

func record(t *testing.T, l *Ledger, entries ...Entry) {
	t.Helper()
	for _, e := range entries {
		if err := l.Record(e); err != nil {
			t.Fatal(err)
		}
	}
}

func see(t *testing.T, l *Ledger, at time.Time, sightings ...change.Sighting) Knowledge {
	t.Helper()
	k, err := l.See(at, sightings...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sighting(n byte, version int) change.Sighting {
	return change.Sighting{Account: account(n), Stamp: stamp(version)}
}

func versions(t *testing.T, l *Ledger, name string, n byte) (settled, delivered, newest int) {
	t.Helper()
	last, err := l.Last(name, dsdb.GUID{n})
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.DeliveredStamp(name, dsdb.GUID{n})
	if err != nil {
		t.Fatal(err)
	}
	w, err := l.Newest(dsdb.GUID{n})
	if err != nil {
		t.Fatal(err)
	}
	return int(last.Stamp.Version), int(d.Version), int(w.Stamp.Version)
}

func TestRecord(t *testing.T) {
	for _, c := range []struct {
		name                       string
		entries                    []Entry
		settled, delivered, newest int
		class                      target.Class
	}{
		{"nothing", nil, 0, 0, 0, ""},
		{"delivered", []Entry{outcome("a", 1, 3, target.Delivered)}, 3, 3, 3, target.Delivered},
		{"another account and target", []Entry{outcome("a", 2, 3, target.Delivered), outcome("b", 1, 2, target.Delivered)}, 0, 0, 2, ""},
		{"refused", []Entry{outcome("a", 1, 3, target.Rejected)}, 3, 0, 3, target.Rejected},
		{"refused after a delivery", []Entry{outcome("a", 1, 3, target.Delivered), outcome("a", 1, 4, target.NoUser)}, 4, 3, 4, target.NoUser},
		{"an older refusal comes late", []Entry{outcome("a", 1, 4, target.Delivered), outcome("a", 1, 3, Expired)}, 4, 4, 4, target.Delivered},
		{"an older delivery comes late", []Entry{outcome("a", 1, 5, target.Rejected), outcome("a", 1, 4, target.Delivered)}, 5, 4, 5, target.Rejected},
		{"older deliveries never win", []Entry{outcome("a", 1, 5, target.Delivered), outcome("a", 1, 4, target.Delivered)}, 5, 5, 5, target.Delivered},
		{"delivered at last", []Entry{outcome("a", 1, 5, Expired), outcome("a", 1, 5, target.Delivered)}, 5, 5, 5, target.Delivered},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := temp(t)
			record(t, l, c.entries...)
			settled, delivered, newest := versions(t, l, "a", 1)
			if settled != c.settled || delivered != c.delivered || newest != c.newest {
				t.Errorf("settled %d, delivered %d, newest %d", settled, delivered, newest)
			}
			var class target.Class
			entries, err := l.Entries(dsdb.GUID{1})
			for _, e := range entries {
				if e.Target == "a" {
					class = e.Class
				}
			}
			if err != nil || class != c.class {
				t.Errorf("class %q, %v", class, err)
			}
		})
	}
}

// In whatever order outcomes and sightings come, stamps only grow.
func TestStampsOnlyGrow(t *testing.T) {
	l := temp(t)
	random := rand.New(rand.NewPCG(1, 2))
	var settled, delivered, newest int
	for range 300 {
		version := 1 + random.IntN(40)
		switch random.IntN(3) {
		case 0:
			record(t, l, outcome("a", 1, version, target.Delivered))
			settled, delivered, newest = max(settled, version), max(delivered, version), max(newest, version)
		case 1:
			record(t, l, outcome("a", 1, version, target.Rejected))
			settled, newest = max(settled, version), max(newest, version)
		case 2:
			see(t, l, start, sighting(1, version), sighting(1, version/2))
			newest = max(newest, version)
		}
		if s, d, n := versions(t, l, "a", 1); s != settled || d != delivered || n != newest {
			t.Fatalf("settled %d, delivered %d, newest %d; want %d, %d, %d", s, d, n, settled, delivered, newest)
		}
	}
}

func TestSeeWritesOnlyNews(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, _ := open(t, path)
	writes := func(version int) bool {
		t.Helper()
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		see(t, l, start, sighting(1, version), sighting(1, version))
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return !bytes.Equal(before, after)
	}
	if !writes(3) {
		t.Error("a new stamp was not written")
	}
	if writes(3) || writes(2) {
		t.Error("a known stamp was written again")
	}
}

func TestCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, _ := open(t, path)
	record(t, l,
		outcome("a", 1, 1, target.Delivered), outcome("a", 2, 7, target.Delivered), outcome("a", 1, 2, target.Rejected),
		outcome("a", 3, 1, target.Delivered), outcome("a", 3, 2, target.Delivered), outcome("b", 1, 2, target.NoUser))
	for range 2 {
		counts := l.Counts()
		a, b := counts["a"], counts["b"]
		if a.Classes[target.Delivered] != 2 || a.Classes[target.Rejected] != 1 || b.Classes[target.NoUser] != 1 || b.Classes[target.Delivered] != 0 {
			t.Errorf("counts %+v", counts)
		}
		if !a.LastDelivered.Equal(at(7)) || !b.LastDelivered.IsZero() {
			t.Errorf("last delivered %v, %v", a.LastDelivered, b.LastDelivered)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, _ = open(t, path)
	}
}

func TestDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, _ := open(t, path)
	record(t, l, outcome("a", 1, 3, target.Delivered), outcome("a", 2, 3, target.Delivered))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reopen := func(b []byte) (*Ledger, map[string]uint64) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, log := open(t, path)
		return l, log.Counters()
	}
	l, events := reopen(bytes.ReplaceAll(b, []byte(`"user":"user1","place"`), []byte(`"user":"user3","place"`)))
	if s, d, n := versions(t, l, "a", 1); s != 0 || d != 0 || n != 3 || events["values-damaged"] != 1 {
		t.Errorf("settled %d, delivered %d, newest %d, events %v", s, d, n, events)
	}
	if s, d, _ := versions(t, l, "a", 2); s != 3 || d != 3 {
		t.Errorf("settled %d, delivered %d", s, d)
	}
	_ = l.Close()
	l, events = reopen(bytes.Repeat([]byte("noise"), 5000))
	if s, _, n := versions(t, l, "a", 2); s != 0 || n != 0 || events["state-damaged"] != 1 {
		t.Errorf("settled %d, newest %d, events %v", s, n, events)
	}
	record(t, l, outcome("a", 1, 1, target.Delivered))
}

// What is counted, and who lacks what, is known after a start without looking at every value; and if what says so is lost, by looking.
func TestReopenedKnowsWhatItCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, _ := open(t, path)
	if !l.Lost() {
		t.Error("a new file is taken for a whole one")
	}
	if err := l.Record(outcome("a", 1, 1, target.Delivered), outcome("b", 1, 1, target.Rejected), outcome("a", 2, 1, target.Delivered)); err != nil {
		t.Fatal(err)
	}
	if err := l.Confirm("a", account(1).GUID, stamp(1), at(5)); err != nil {
		t.Fatal(err)
	}
	see(t, l, at(9), wanted(3, 2, change.NotCaptured, "a", "b"), wanted(4, 2, change.NotCaptured, "a", "b"))
	record(t, l, outcome("b", 4, 2, target.Delivered))
	counts, gaps := fmt.Sprint(l.Counts()), fmt.Sprint(lacking(t, l))
	if want := "[b user1@1 rejected a user3@2 not-captured b user3@2 not-captured a user4@2 not-captured]"; gaps != want {
		t.Fatalf("%s, want %s", gaps, want)
	}
	reopen := func(lost bool) {
		t.Helper()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, _ = open(t, path)
		if l.Lost() != lost {
			t.Errorf("lost: %v", !lost)
		}
		if got := fmt.Sprint(l.Counts()["a"].Classes, l.Counts()["b"].Classes, l.Counts()["a"].Confirmed, l.Counts()["a"].LastDelivered.Equal(at(1))); got != "map[delivered:2] map[delivered:1 rejected:1] 1 true" {
			t.Errorf("counted %s, before %s", got, counts)
		}
		if got := fmt.Sprint(lacking(t, l)); got != gaps {
			t.Errorf("%s, want %s", got, gaps)
		}
	}
	reopen(false)
	if err := l.db.Update(func(tx boltfile.Tx) error { return tx.Clear("gaps") }); err != nil {
		t.Fatal(err)
	}
	reopen(true)
	reopen(false)
	see(t, l, at(10), wanted(3, 2, change.NotCaptured)) // nobody wants it any more
	gaps = fmt.Sprint(lacking(t, l))
	reopen(false)
}
