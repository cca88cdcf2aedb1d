package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

var (
	start   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	forever = start.AddDate(100, 0, 0)
)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

func stamp(version int) dsdb.Stamp {
	return dsdb.Stamp{Version: uint32(version), Time: at(version), InvocationID: dsdb.GUID{9}, USN: uint64(version)}
}

// item is version version of account n's password for a target, captured, proven and due at second version.
func item(name string, n byte, version int) Item {
	return Item{
		Target: name, User: fmt.Sprintf("user%d", n), Place: fmt.Sprintf("%s user%d", name, n), Account: change.Account{GUID: dsdb.GUID{n}, SAMAccountName: fmt.Sprintf("user%d", n)},
		Stamp: stamp(version), Capture: fmt.Sprintf("c%d-%d", n, version), File: fmt.Sprintf("%d-%d.change", n, version),
		Captured: at(version), Proven: at(version), Due: at(version),
	}
}

func logTo(b *bytes.Buffer) *event.Log { return event.New(slog.New(slog.NewTextHandler(b, nil))) }

func open(t testing.TB, path string) *Queue {
	t.Helper()
	q, err := Open(path, logTo(new(bytes.Buffer)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func temp(t testing.TB) *Queue { return open(t, filepath.Join(t.TempDir(), "queue.db")) }

func add(t *testing.T, q *Queue, items ...Item) []Item {
	t.Helper()
	replaced, err := q.Add(items...)
	if err != nil {
		t.Fatal(err)
	}
	return replaced
}

// all returns all items, the longest captured first.
func all(t interface {
	Helper()
	Fatal(...any)
}, q *Queue) (items []Item) {
	t.Helper()
	if err := q.Each("", func(i Item, _ bool) error { items = append(items, i); return nil }); err != nil {
		t.Fatal(err)
	}
	return items
}

// text is the form in which times of the same moment are the same.
func text(t *testing.T, items []Item) string {
	t.Helper()
	for i := range items {
		items[i].Due, items[i].Proven = moment(items[i].Due), moment(items[i].Proven)
	}
	b, err := json.Marshal(items)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// moment forgets nanoseconds: the two clocks of a process are read one after the other.
func moment(t time.Time) time.Time { return t.UTC().Round(time.Microsecond) }

// lease leases whatever comes next.
func lease(t *testing.T, q *Queue, name string) Lease {
	t.Helper()
	l, ok, err := q.Lease(name, time.Time{}, forever)
	if !ok {
		t.Fatal("nothing to lease", err)
	}
	return l
}

// supersede says which versions accounts are at.
func supersede(t *testing.T, q *Queue, versions map[byte]int) []Item {
	t.Helper()
	newest := map[dsdb.GUID]dsdb.Stamp{}
	for n, version := range versions {
		newest[dsdb.GUID{n}] = stamp(version)
	}
	dropped, err := q.Supersede(maps.Keys(newest), slices.Values([]string(nil)), func(i Item) bool {
		return i.Stamp.Compare(newest[i.Account.GUID]) < 0
	})
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

func none(t *testing.T, q *Queue, name string) {
	t.Helper()
	if l, ok, err := q.Lease(name, time.Time{}, forever); ok || err != nil {
		t.Fatalf("leased %+v", l.Item)
	}
}

func TestNewestWins(t *testing.T) {
	q := temp(t)
	add(t, q, item("a", 1, 2), item("b", 1, 2))
	if replaced := add(t, q, item("a", 1, 1), item("a", 1, 2)); replaced != nil {
		t.Errorf("replaced %+v", replaced)
	}
	replaced := add(t, q, item("a", 1, 4), item("a", 1, 5), item("a", 1, 3))
	if len(replaced) != 1 || replaced[0].Stamp.Version != 2 {
		t.Errorf("replaced %+v", replaced)
	}
	if l := lease(t, q, "a"); l.Stamp.Version != 5 {
		t.Errorf("leased %+v", l.Item)
	}
	if l := lease(t, q, "b"); l.Stamp.Version != 2 {
		t.Errorf("leased %+v", l.Item)
	}
	for file, want := range map[string]bool{"1-1.change": false, "1-2.change": true, "1-3.change": false, "1-4.change": false, "1-5.change": true} {
		if got := q.Needs([]byte(file)); got != want {
			t.Errorf("Needs(%s) = %v", file, got)
		}
	}
}

// A lease of the old item neither finishes, nor delays, nor parks the new one, and keeps it waiting only until it is returned.
func TestReplacedWhileLeased(t *testing.T) {
	for name, giveBack := range map[string]func(*Queue, Lease) error{
		"Done":     func(q *Queue, l Lease) error { return q.Return(l.Done()) },
		"Retry":    func(q *Queue, l Lease) error { return q.Return(l.Retry(forever, target.Temporary, "x")) },
		"Postpone": func(q *Queue, l Lease) error { return q.Return(l.Postpone(target.Denied, "x")) },
		"Park":     func(q *Queue, l Lease) error { return q.Return(l.Park(target.NoUser, "x")) },
		"Release":  func(q *Queue, l Lease) error { q.Release(l); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			q := temp(t)
			add(t, q, item("a", 1, 1))
			old := lease(t, q, "a")
			if !q.Current(old) {
				t.Error("a lease stands for nothing")
			}
			add(t, q, item("a", 1, 2))
			none(t, q, "a")
			if q.Current(old) {
				t.Error("the lease of a replaced item still stands for something")
			}
			if err := giveBack(q, old); err != nil {
				t.Fatal(err)
			}
			l := lease(t, q, "a")
			if want := item("a", 1, 2); text(t, []Item{l.Item}) != text(t, []Item{want}) {
				t.Errorf("leased %+v, want %+v", l.Item, want)
			}
			none(t, q, "a")
		})
	}
}

func TestSupersededWhileLeased(t *testing.T) {
	q := temp(t)
	add(t, q, item("a", 1, 1))
	old := lease(t, q, "a")
	if dropped := supersede(t, q, map[byte]int{1: 2}); len(dropped) != 1 {
		t.Fatal(dropped)
	}
	add(t, q, item("a", 1, 3))
	none(t, q, "a")
	if err := q.Return(old.Retry(at(9), target.Temporary, "x")); err != nil {
		t.Fatal(err)
	}
	if l := lease(t, q, "a"); l.Stamp.Version != 3 || l.Attempts != 0 {
		t.Errorf("leased %+v", l.Item)
	}
}

func TestSupersede(t *testing.T) {
	q := temp(t)
	add(t, q, item("a", 1, 1), item("b", 1, 3), item("a", 2, 1), item("c", 1, 2))
	if err := q.Return(lease(t, q, "c").Park(target.Rejected, "no")); err != nil {
		t.Fatal(err)
	}
	if dropped := supersede(t, q, map[byte]int{1: 3, 7: 9}); len(dropped) != 2 {
		t.Errorf("dropped %+v", dropped)
	}
	left := all(t, q)
	if len(left) != 2 || left[0].Account.GUID != (dsdb.GUID{2}) || left[1].Target != "b" {
		t.Errorf("left: %+v", left)
	}
}

// A name passes from account 1 to account 2: what is proven later for it stays, whatever the order in which they come.
func TestOnePlaceOneItem(t *testing.T) {
	named := func(n byte, version, proven int, name string) Item {
		i := item("a", n, version)
		i.User, i.Place, i.Proven = name, "a "+name, at(proven)
		return i
	}
	old, now := named(1, 7, 10, "alice"), named(2, 1, 20, "alice")
	for name, order := range map[string][][]Item{
		"older first":                     {{old}, {now}},
		"newer first":                     {{now}, {old}},
		"both at once":                    {{old, now}},
		"and the other way":               {{now, old}},
		"the old one got another name":    {{old}, {named(1, 8, 15, "alicia"), now}},
		"the old one had it, and has not": {{old, named(1, 8, 15, "alicia"), named(2, 1, 5, "alice")}, {now}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "queue.db")
			q := open(t, path)
			for _, items := range order {
				add(t, q, items...)
			}
			for range 2 {
				for _, i := range all(t, q) {
					if i.User == "alice" && i.Account != now.Account {
						t.Errorf("alice's password waits as %+v", i)
					}
				}
				if !q.Needs([]byte(now.File)) || q.Needs([]byte(old.File)) {
					t.Errorf("needed: the new file %v, the old file %v", q.Needs([]byte(now.File)), q.Needs([]byte(old.File)))
				}
				if err := q.Close(); err != nil {
					t.Fatal(err)
				}
				q = open(t, path)
			}
		})
	}
}

// The account that has the name now waits until what is under way for the one before has ended.
func TestOnePlaceOneLease(t *testing.T) {
	q := temp(t)
	add(t, q, item("a", 1, 1))
	old := lease(t, q, "a")
	now := item("a", 2, 2)
	now.Place = old.Place
	if replaced := add(t, q, now); len(replaced) != 1 || q.Current(old) {
		t.Errorf("replaced %+v", replaced)
	}
	renamed := item("a", 1, 3) // the old one has another name, and still waits for its lease
	renamed.Place = "a renamed"
	add(t, q, renamed)
	none(t, q, "a")
	if err := q.Return(old.Retry(forever, target.Temporary, "x")); err != nil {
		t.Fatal(err)
	}
	leased := map[byte]int{}
	for range 2 {
		l := lease(t, q, "a")
		leased[l.Account.GUID[0]] = int(l.Stamp.Version)
	}
	if leased[1] != 3 || leased[2] != 2 {
		t.Errorf("leased %v", leased)
	}
	none(t, q, "a")
}

// Supersede looks at places, too, and leaves what is not outdated.
func TestSupersedePlace(t *testing.T) {
	q := temp(t)
	add(t, q, item("a", 1, 1), item("b", 1, 1), item("a", 2, 1), item("a", 3, 1))
	accounts, places := slices.Values([]dsdb.GUID{{3}, {7}}), slices.Values([]string{"a user1", "a user2", "a user7"})
	dropped, err := q.Supersede(accounts, places, func(i Item) bool { return i.Account.GUID != dsdb.GUID{2} })
	if err != nil || len(dropped) != 2 {
		t.Errorf("dropped %+v, %v", dropped, err)
	}
	if left := all(t, q); len(left) != 2 || left[0].Target != "b" || left[1].Account.GUID != (dsdb.GUID{2}) {
		t.Errorf("left: %+v", left)
	}
}

// The clock was set while nobody ran: nothing waits for longer than an hour because of that, and nothing is taken for just proven.
func TestReopenUnderAnotherClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	now := time.Now()
	ahead, behind := item("a", 1, 1), item("a", 2, 1)
	ahead.Due, ahead.Proven = now.Add(240*time.Hour), now.Add(240*time.Hour)
	behind.Due, behind.Proven = now.Add(-240*time.Hour), now.Add(-240*time.Hour)
	add(t, q, ahead, behind)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, path)
	opened := time.Now()
	if q.Ready("a", time.Time{}, time.Time{}) {
		t.Error("what was found at the start is as fresh as what was proven just now")
	}
	for _, i := range all(t, q) {
		if i.Due.After(opened.Add(time.Hour)) {
			t.Errorf("due %v", i.Due)
		}
		if i.Account == behind.Account && (!i.Due.UTC().Equal(behind.Due.UTC()) || !i.Proven.UTC().Equal(behind.Proven.UTC())) {
			t.Errorf("due %v, proven %v", i.Due, i.Proven)
		}
		for _, moment := range []time.Time{i.Due, i.Proven} {
			if !strings.Contains(moment.String(), " m=") {
				t.Errorf("%v is a time that moves when the clock is set", moment)
			}
		}
	}
}

func TestRetryPostponePark(t *testing.T) {
	q := temp(t)
	add(t, q, item("a", 1, 1))
	if err := q.Return(lease(t, q, "a").Retry(at(100), target.Temporary, "timeout")); err != nil {
		t.Fatal(err)
	}
	if q.Ready("a", time.Time{}, at(99)) {
		t.Error("ready before it is due")
	}
	if due, ok := q.Next("a"); !ok || !due.Equal(at(100)) {
		t.Error(due, ok)
	}
	l, ok, _ := q.Lease("a", time.Time{}, at(100))
	if !ok || l.Attempts != 1 || l.Class != target.Temporary || l.Reason != "timeout" {
		t.Errorf("leased %v %+v", ok, l.Item)
	}
	if err := q.Return(l.Postpone(target.Denied, "expired")); err != nil {
		t.Fatal(err)
	}
	l = lease(t, q, "a")
	if l.Attempts != 1 || l.Class != target.Denied {
		t.Errorf("leased %+v", l.Item)
	}
	if err := q.Return(l.Park(target.NoUser, "unknown")); err != nil {
		t.Fatal(err)
	}
	none(t, q, "a")
	if q.Needs([]byte(l.File)) {
		t.Error("a parked item needs a file")
	}
	if got := q.Count("a"); got != (Counts{Parked: 1}) {
		t.Errorf("%+v", got)
	}
	if replaced := add(t, q, item("a", 1, 1)); replaced != nil {
		t.Error("the same change was queued again after it was parked")
	}
	add(t, q, item("a", 1, 2))
	if l := lease(t, q, "a"); l.Attempts != 0 || l.Class != "" || l.Parked {
		t.Errorf("leased %+v", l.Item)
	}
}

// An item that was tried, or proven too long ago, is leased only by its due time; the queue itself knows no clock.
func TestProvenAndDue(t *testing.T) {
	q := temp(t)
	add(t, q, item("a", 1, 10))
	for _, c := range []struct {
		proven, due time.Time
		want        bool
	}{
		{at(10), time.Time{}, true},
		{at(11), time.Time{}, false},
		{at(11), at(9), false},
		{at(11), at(10), true},
	} {
		if got := q.Ready("a", c.proven, c.due); got != c.want {
			t.Errorf("proven %v, due %v: ready %v", c.proven, c.due, got)
		}
	}
}

func TestFreshBeforeBacklog(t *testing.T) {
	q := temp(t)
	for n := range 3 {
		add(t, q, item("a", byte(100+n), 1))
		if err := q.Return(lease(t, q, "a").Retry(at(1), target.Temporary, "")); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 8 {
		add(t, q, item("a", byte(1+n), 2+n))
	}
	var order []byte
	for range 11 {
		order = append(order, lease(t, q, "a").Account.GUID[0])
	}
	none(t, q, "a")
	// Of the fresh ones the one that was proven last goes first: somebody waits for it.
	var fresh []byte
	for _, n := range order {
		if n < 100 {
			fresh = append(fresh, n)
		}
	}
	if want := []byte{8, 7, 6, 5, 4, 3, 2, 1}; !bytes.Equal(fresh, want) {
		t.Errorf("fresh ones went as %v", fresh)
	}
	// The first turn ended with an item that was tried, so that four fresh ones go first.
	for i, n := range order {
		if backlog := n >= 100; backlog != (i == 1 || i == 6 || i == 10) {
			t.Fatalf("order %v", order)
		}
	}
}

func TestExpireAndForget(t *testing.T) {
	q := temp(t)
	add(t, q, item("a", 1, 1), item("a", 2, 2), item("a", 3, 50), item("b", 1, 1))
	leased := lease(t, q, "b")
	dropped, err := q.Expire(at(10))
	if err != nil || len(dropped) != 2 {
		t.Errorf("expired %+v, %v", dropped, err)
	}
	if !q.Current(leased) {
		t.Error("an item expired while it was being sent")
	}
	if dropped, err := q.Forget("1-1.change"); err != nil || len(dropped) != 1 || q.Needs([]byte("1-1.change")) {
		t.Errorf("forgot %+v, %v", dropped, err)
	}
	if left := all(t, q); len(left) != 1 || left[0].Account.GUID != (dsdb.GUID{3}) {
		t.Errorf("left: %+v", left)
	}
}

func TestWake(t *testing.T) {
	q := temp(t)
	woken := func(name string) bool {
		select {
		case <-q.Wake(name):
			return true
		default:
			return false
		}
	}
	add(t, q, item("a", 1, 1))
	if !woken("a") || woken("b") {
		t.Error("Add wakes its target and no other")
	}
	l := lease(t, q, "a")
	add(t, q, item("a", 1, 2))
	if woken("a") {
		t.Error("woken for an item that cannot be leased")
	}
	if err := q.Return(l.Done()); err != nil || !woken("a") {
		t.Errorf("returning a lease did not wake: %v", err)
	}
}

// What was captured by a clock that was ahead expires like what was captured at the start.
func TestExpireWhatIsToCome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	i := item("a", 1, 1)
	i.Captured = time.Now().AddDate(1, 0, 0)
	add(t, q, i)
	_ = q.Close()
	q = open(t, path)
	if dropped, err := q.Expire(time.Now().Add(time.Second)); err != nil || len(dropped) != 1 {
		t.Errorf("%d expired: %v", len(dropped), err)
	}
}

// What is shelved is not leased, hurried or counted as waiting, over a start too, until it is taken back; what is leased or parked is not shelved, and the account's next change is another item.
func TestShelve(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	shelve := func(unwanted bool, want int) {
		t.Helper()
		accounts := []dsdb.GUID{{1}, {2}, {3}, {4}, {9}}
		shelved, err := q.Shelve(slices.Values(accounts), func(Item) bool { return unwanted })
		if err != nil || len(shelved) != want {
			t.Errorf("shelved %d, want %d: %v", len(shelved), want, err)
		}
	}
	add(t, q, item("a", 4, 1))
	if err := q.Return(lease(t, q, "a").Park(target.NoUser, "unknown")); err != nil {
		t.Fatal(err)
	}
	add(t, q, item("a", 3, 1))
	leased := lease(t, q, "a")
	add(t, q, item("a", 1, 1), item("b", 1, 1), item("a", 2, 1))
	shelve(true, 3)
	shelve(true, 0)
	if err := q.Return(leased.Retry(at(1), target.Temporary, "busy")); err != nil {
		t.Fatal(err)
	}
	shelve(true, 1)
	for range 2 {
		if _, ok := q.Next("a"); ok || q.Ready("a", start, forever) || q.Ready("b", start, forever) {
			t.Error("it may be leased")
		}
		if n, err := q.Hurry(func(dsdb.GUID, string) bool { return true }); n != 0 || err != nil {
			t.Errorf("hurried %d: %v", n, err)
		}
		if q.Waits(dsdb.GUID{1}, "a") || q.CountSince("a", forever) != 0 {
			t.Error("it counts as waiting")
		}
		if got := q.Count("a"); got != (Counts{Parked: 1, Shelved: 3}) {
			t.Errorf("counted: %+v", got)
		}
		if err := q.Waiting(func(i Item) error { return fmt.Errorf("%+v", i) }); err != nil {
			t.Errorf("it is listed as waiting: %v", err)
		}
		_ = q.Close()
		q = open(t, path)
	}
	add(t, q, item("a", 2, 2))
	if l := lease(t, q, "a"); l.Account.GUID != (dsdb.GUID{2}) || l.Shelved {
		t.Errorf("%+v", l.Item)
	} else if err := q.Return(l.Done()); err != nil {
		t.Fatal(err)
	}
	shelve(false, 0)
	for range 2 {
		if l := lease(t, q, "a"); l.Shelved || l.Class != target.Temporary {
			t.Errorf("%+v", l.Item)
		} else if err := q.Return(l.Shelve()); err != nil {
			t.Fatal(err)
		}
	}
	if q.Ready("a", start, forever) {
		t.Error("what was shelved when it was to be sent may be leased")
	}
	if err := q.Return(lease(t, q, "b").Done()); err != nil {
		t.Fatal(err)
	}
	if dropped, err := q.Expire(forever); err != nil || len(dropped) != 2 || !dropped[0].Shelved {
		t.Errorf("expired: %+v, %v", dropped, err)
	}
}

// What is read of the queue has the time of day as it is counted now, however the clock was set since the start: it is held against what others note.
func TestTimesAfterTheClockWasSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		q := temp(t)
		q.epoch = trial.ClockSet(q.epoch, -by)
		now := time.Now()
		i := item("google", 1, 1)
		i.Proven, i.Due = now.Add(-time.Second), now
		add(t, q, i)
		lease, ok, err := q.Lease("google", now.Add(-time.Minute), now)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if got := lease.Proven.Round(0).Sub(now.Round(0)); (got + time.Second).Abs() > time.Second/2 {
			t.Errorf("clock set by %v: proven %v from now, want a second ago", by, got)
		}
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	add(t, q, item("a", 1, 1), item("b", 1, 1), item("a", 2, 2), item("a", 3, 3))
	if err := q.Return(lease(t, q, "b").Retry(at(30), target.Throttled, "busy")); err != nil {
		t.Fatal(err)
	}
	if err := q.Return(lease(t, q, "a").Park(target.NoUser, "unknown")); err != nil {
		t.Fatal(err)
	}
	if err := q.Return(lease(t, q, "a").Done()); err != nil {
		t.Fatal(err)
	}
	lease(t, q, "a") // lost by the restart
	want := all(t, q)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, path)
	if got := all(t, q); len(got) != 3 || text(t, got) != text(t, want) {
		t.Errorf("came back as\n%s, want\n%s", text(t, got), text(t, want))
	}
	if l := lease(t, q, "a"); l.Account.GUID != (dsdb.GUID{1}) {
		t.Errorf("leased %+v", l.Item)
	}
}

func TestDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	add(t, q, item("a", 1, 1), item("a", 2, 1))
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reopen := func(b []byte) (*Queue, map[string]uint64) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		log := logTo(new(bytes.Buffer))
		q, err := Open(path, log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = q.Close() })
		return q, log.Counters()
	}
	q, events := reopen(bytes.ReplaceAll(b, []byte(`"user":"user1"`), []byte(`"user":"admin"`)))
	if items := all(t, q); len(items) != 1 || items[0].User != "user2" || events["values-damaged"] != 1 {
		t.Errorf("items %+v, events %v", items, events)
	}
	_ = q.Close()
	q, events = reopen(bytes.Repeat([]byte("noise"), 5000))
	if items := all(t, q); len(items) != 0 || events["state-damaged"] != 1 {
		t.Errorf("items %+v, events %v", items, events)
	}
	add(t, q, item("a", 1, 1))
	if names, _ := filepath.Glob(path + ".corrupt-*"); len(names) != 1 {
		t.Errorf("set aside: %v", names)
	}
	if _, err := Open(path, logTo(new(bytes.Buffer))); !errors.Is(err, boltfile.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
}

// What no Add writes: two items for one place. One of them is dropped, and found again in spool/outgoing.
func TestTwoItemsForOnePlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	db, _, err := boltfile.Open(path, bucket)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx boltfile.Tx) error {
		one, other := item("a", 1, 1), item("a", 2, 1)
		other.Place = one.Place
		return errors.Join(tx.Put(bucket, one.key(), one), tx.Put(bucket, other.key(), other))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	q := open(t, path)
	lease(t, q, "a")
	none(t, q, "a")
	if items := all(t, q); len(items) != 1 {
		t.Errorf("%+v", items)
	}
}

// 100,000 changes may wait while both targets are down over a weekend.
func TestManyItemsStaySmall(t *testing.T) {
	q := temp(t)
	const n = 5000
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	items := make([]Item, n)
	for i := range items {
		items[i] = item("a", 0, i+1)
		items[i].Account.GUID = dsdb.GUID{byte(i), byte(i >> 8), 1}
		items[i].Place = fmt.Sprintf("a user%d@example.com", i)
	}
	add(t, q, items...)
	clear(items)
	each := float64(heap()-before) / n
	if all(t, q)[0].Stamp.Version != 1 { // and so q is alive until here
		t.Error("lost an item")
	}
	t.Logf("%.0f bytes an item", each)
	if each > 350 {
		t.Errorf("%.0f bytes an item: 100,000 would take %.0f MB", each, each/10)
	}
}

func TestEachAndOf(t *testing.T) {
	q := temp(t)
	add(t, q, item("a", 1, 3), item("b", 1, 3), item("a", 2, 1))
	leased := lease(t, q, "b")
	told := func(name string) (list []string) {
		err := q.Each(name, func(i Item, leased bool) error {
			list = append(list, fmt.Sprintf("%s %d %v", i.Target, i.Account.GUID[0], leased))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got, want := told(""), []string{"a 2 false", "a 1 false", "b 1 true"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := told("b"), []string{"b 1 true"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := told("none"); len(got) != 0 {
		t.Errorf("%q", got)
	}
	enough, n := errors.New("enough"), 0
	if err := q.Each("", func(Item, bool) error { n++; return enough }); err != enough || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
	items, under, _ := q.Of(dsdb.GUID{1})
	if len(items) != 2 || items[0].Target != "a" || under["a"] || !under["b"] {
		t.Errorf("%+v, %v", items, under)
	}
	q.Release(leased)
	if _, under, _ := q.Of(dsdb.GUID{1}); under["b"] {
		t.Error("a lease that was returned is told")
	}
}

func TestHurry(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "queue") // thousands of transactions: the disk is no part of this test
	if err != nil {
		dir = t.TempDir()
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "queue.db")
	q := open(t, path)
	const n = 2*atATime + 10
	var items []Item
	for i := range n {
		items = append(items, Item{Target: "a", Place: fmt.Sprint(i), Account: change.Account{GUID: dsdb.GUID{byte(i), byte(i >> 8), 1}}, Stamp: stamp(1), File: fmt.Sprint(i), Captured: at(i), Proven: time.Now()})
	}
	add(t, q, items...)
	forever := time.Now().Add(50 * time.Minute)
	for range n {
		l, ok, _ := q.Lease("a", time.Time{}, time.Now())
		if !ok {
			t.Fatal("nothing is due")
		}
		if err := q.Return(l.Retry(forever, target.Temporary, "x")); err != nil {
			t.Fatal(err)
		}
	}
	mine := dsdb.GUID{3, 0, 1}
	if done, err := q.Hurry(func(account dsdb.GUID, _ string) bool { return account == mine }); err != nil || done != 1 {
		t.Fatalf("%d, %v", done, err)
	}
	l, ok, _ := q.Lease("a", time.Now(), time.Now())
	if !ok || l.Account.GUID != mine || l.Attempts != 1 {
		t.Fatalf("leased %+v", l)
	}
	anybody := func(dsdb.GUID, string) bool { return true }
	if done, err := q.Hurry(anybody); err != nil || done != n-1 { // not what is leased
		t.Fatalf("%d, %v", done, err)
	}
	if err := q.Return(l.Park(target.NoUser, "who?")); err != nil {
		t.Fatal(err)
	}
	if done, err := q.Hurry(anybody); err != nil || done != 0 {
		t.Fatalf("%d once more, %v", done, err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, path)
	for range n - 1 {
		if _, ok, _ := q.Lease("a", time.Now(), time.Now()); !ok {
			t.Fatal("it is not due any more after a restart")
		}
	}
}

// What the ledger may not have been told of is known after a crash: what was added since Told, as far as it is there still.
func TestUntold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	untold := func() (list []string) {
		items, err := q.Untold()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range items {
			list = append(list, fmt.Sprintf("%s%d@%d", i.Target, i.Account.GUID[0], i.Stamp.Version))
		}
		slices.Sort(list)
		return list
	}
	wants := func(when string, want ...string) {
		t.Helper()
		if got := untold(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	crash := func() {
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		q = open(t, path)
	}
	wants("at first")
	add(t, q, item("a", 1, 1))
	add(t, q, item("a", 2, 1), item("b", 2, 1))
	wants("added in two steps", "a1@1", "a2@1", "b2@1")
	crash()
	wants("after a crash", "a1@1", "a2@1", "b2@1")
	q.Told()
	wants("told")
	add(t, q, item("b", 3, 1))
	supersede(t, q, map[byte]int{2: 2})
	add(t, q, item("a", 1, 2))
	crash()
	wants("after another crash", "a1@2", "b3@1")
}

// An older version wrote items without a head.
func TestItemsOfAnOlderVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	settles := item("b", 2, 2)
	settles.Settling, settles.Delivered, settles.Peers = true, at(3), []change.Peer{{Name: "DC2"}}
	add(t, q, item("a", 1, 1), settles)
	want := all(t, q)
	err := q.db.Update(func(tx boltfile.Tx) error {
		for _, i := range want {
			if err := tx.Put(bucket, i.key(), i); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, q.Close()); err != nil {
		t.Fatal(err)
	}
	q = open(t, path)
	if got := all(t, q); text(t, got) != text(t, want) {
		t.Errorf("came back as\n%s, want\n%s", text(t, got), text(t, want))
	}
	if !q.Needs([]byte("1-1.change")) || q.Needs([]byte("1-2.change")) {
		t.Error("it does not know its files")
	}
	n, err := q.Rouse(func(s Settler) bool { return len(s.Peers) == 1 && s.Peers[0].Name == "DC2" && s.Proven.Equal(at(2)) })
	if n != 1 || err != nil {
		t.Errorf("%d are roused, %v", n, err)
	}
}

// Several results are written together, and one whose item has been replaced does not matter to the others.
func TestReturnSeveral(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	for n := range 4 {
		add(t, q, item("a", byte(n), 1))
	}
	var leases []Lease
	for range 4 {
		leases = append(leases, lease(t, q, "a"))
	}
	by := func(n byte) Lease {
		return leases[slices.IndexFunc(leases, func(l Lease) bool { return l.Account.GUID == dsdb.GUID{n} })]
	}
	add(t, q, item("a", 2, 2))
	if err := q.Return(by(0).Done(), by(1).Park(target.NoUser, "who?"), by(2).Done(), by(3).Throttle(at(9), time.Now().Add(time.Minute), "busy")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // in memory, and on the disk
		var list []string
		for _, i := range all(t, q) {
			list = append(list, fmt.Sprint(i.Account.GUID[0], i.Stamp.Version, i.Parked, i.Attempts))
		}
		if want := []string{"1 1 true 1", "3 1 false 1", "2 2 false 0"}; !slices.Equal(list, want) {
			t.Errorf("%q, want %q", list, want)
		}
		if until, why, err := q.Paused("a"); err != nil || why != "busy" || time.Until(until) < time.Second || time.Until(until) > time.Minute {
			t.Errorf("paused until %v, %q, %v", until, why, err)
		}
		if n := q.CountSince("a", at(2)); n != 1 || !q.Waits(dsdb.GUID{3}, "a") || q.Waits(dsdb.GUID{1}, "a") || q.Waits(dsdb.GUID{0}, "a") {
			t.Errorf("%d wait since then", n)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		q = open(t, path)
	}
}

// A lease stands as long as its item is the newest, and would be leased still.
func TestStands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	add(t, q, item("a", 1, 10))
	lease := func() Lease {
		t.Helper()
		l, ok, err := q.Lease("a", at(0), forever)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		return l
	}
	check := func(what string, l Lease, proven, due int, want bool) {
		t.Helper()
		if got := q.Stands(l, at(proven), at(due)); got != want {
			t.Errorf("%s, proven since %d, due until %d: %v", what, proven, due, got)
		}
	}
	l := lease()
	check("never tried", l, 10, 0, true)
	check("never tried", l, 11, 9, false)
	check("never tried", l, 11, 10, true)
	if err := q.Return(l.Retry(at(20), target.Temporary, "")); err != nil {
		t.Fatal(err)
	}
	l = lease()
	check("tried", l, 0, 19, false)
	check("tried", l, 0, 20, true)
	q.Release(l)
	_ = q.Close()
	q = open(t, path)
	l = lease()
	check("found at the start", l, 0, 0, false)
	add(t, q, item("a", 1, 11))
	check("replaced", l, 0, 1000, false)
	q.Release(l)
}

// A pause that was noted while the clock was ahead is no longer than the target asked for.
func TestPauseOfAClockThatWasAhead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	throttled := item("a", 1, 1)
	throttled.Class, throttled.Reason = target.Throttled, "busy"
	throttled.Resume, throttled.Pause = time.Now().Add(time.Hour), 3*time.Second
	add(t, q, throttled)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, path)
	if until, _, err := q.Paused("a"); err != nil || time.Until(until) > 3*time.Second || time.Until(until) < time.Second {
		t.Errorf("paused until %v, %v", until, err)
	}
}

// What was proven by a clock that was ahead was proven before this run: whoever gets its name now has it.
func TestProofOfAClockThatWasAhead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := open(t, path)
	ahead := item("a", 1, 1)
	ahead.Proven = time.Now().Add(time.Hour)
	add(t, q, ahead)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, path)
	if got := all(t, q)[0].Proven; got.After(time.Now()) {
		t.Errorf("proven at %v", got)
	}
	next := item("a", 2, 1)
	next.Place, next.Proven = ahead.Place, time.Now()
	if replaced := add(t, q, next); len(replaced) != 1 {
		t.Errorf("replaced %d items", len(replaced))
	}
}
