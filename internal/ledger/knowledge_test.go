package ledger

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func prove(t *testing.T, l *Ledger, proofs ...Proof) {
	t.Helper()
	if err := l.Prove(proofs...); err != nil {
		t.Fatal(err)
	}
}

// proof says that account n had this version and this place at a minute.
func proof(n byte, version, minute int, place string) Proof {
	return Proof{account(n), stamp(version), at(minute), []string{place}}
}

func newestOf(t *testing.T, l *Ledger, n byte) Newest {
	t.Helper()
	got, err := l.Newest(dsdb.GUID{n})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// What is proven later for a name counts, whichever account it is, in whatever order we learn of it.
func TestHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, _ := open(t, path)
	prove(t, l, proof(1, 5, 10, "google alice"))
	prove(t, l, proof(2, 1, 20, "google alice"), proof(2, 1, 20, "google bob"))
	prove(t, l, proof(1, 6, 15, "google alice")) // comes late
	_ = l.Close()
	l, _ = open(t, path)
	k, err := l.Known(proof(3, 1, 5, "google alice"), proof(1, 7, 30, "google bob"), proof(3, 1, 5, "entra alice"))
	if err != nil {
		t.Fatal(err)
	}
	for place, want := range map[string]byte{"google alice": 2, "google bob": 1, "entra alice": 3} {
		if got := k.Holders[place].Account.GUID[0]; got != want {
			t.Errorf("%s is account %d's, want %d", place, got, want)
		}
	}
	alice := k.Holders["google alice"]
	for _, c := range []struct {
		n      byte
		minute int
		want   bool
	}{
		{1, 15, true}, {1, 20, true}, {1, 21, false}, {2, 1, false},
	} {
		if got := alice.Outdates(dsdb.GUID{c.n}, at(c.minute)); got != c.want {
			t.Errorf("account %d, proven at %d: %v", c.n, c.minute, got)
		}
	}
	if (Holder{}).Outdates(dsdb.GUID{1}, start) || (Newest{}).Outdates(stamp(1), start) {
		t.Error("nothing is known, and something is outdated")
	}
	if got := newestOf(t, l, 1); got.Stamp.Version != 6 {
		t.Errorf("Known has written %+v", got)
	}
}

// An outcome tells who had the name, too: the last run may have ended before it said so otherwise.
func TestRecordNotesTheHolder(t *testing.T) {
	l := temp(t)
	record(t, l, outcome("a", 2, 4, target.Delivered))
	k, err := l.Known(Proof{account(1), stamp(9), at(3), []string{"a user2"}})
	if err != nil || !k.Holders["a user2"].Outdates(dsdb.GUID{1}, at(3)) {
		t.Errorf("%+v, %v", k, err)
	}
}

// Of an account that is gone nothing counts that was proven before, and everything that is proven after: it was undeleted.
func TestGone(t *testing.T) {
	l := temp(t)
	prove(t, l, proof(1, 5, 10, "google alice"))
	gone := change.Sighting{Account: account(1), Gone: true}
	see(t, l, at(20), gone)
	late := outcome("google", 1, 5, target.Delivered) // was under way
	late.Proven = at(10)
	record(t, l, late)
	prove(t, l, proof(1, 6, 19, "google alice")) // comes late
	if got := newestOf(t, l, 1); !got.Stamp.IsZero() || !got.Outdates(stamp(5), at(10)) || !got.Outdates(stamp(6), at(19)) || got.Outdates(stamp(6), at(21)) {
		t.Errorf("%+v", got)
	}
	if s, _, _ := versions(t, l, "google", 1); s != 0 {
		t.Errorf("settled %d", s)
	}
	prove(t, l, proof(1, 6, 21, "google alice"))
	see(t, l, at(20), gone) // once more, after a crash
	if got := newestOf(t, l, 1); got.Stamp.Version != 6 || got.Outdates(stamp(6), at(21)) {
		t.Errorf("%+v", got)
	}
}

// A crash leaves files of sightings that had been applied, and all of them are told again, from the first: what was seen before an account was
// deleted, or the directory went back, does not undo that.
func TestToldAgainFromTheFirst(t *testing.T) {
	l := temp(t)
	for range 2 {
		see(t, l, at(10), sighting(1, 5), sighting(2, 8))
		see(t, l, at(20), change.Sighting{Account: account(1), Gone: true}, change.Sighting{Account: account(2), Stamp: stamp(6), Reset: true})
	}
	if got := newestOf(t, l, 1); !got.Stamp.IsZero() || !got.Outdates(stamp(5), at(9)) {
		t.Errorf("the account is back: %+v", got)
	}
	if got := newestOf(t, l, 2); got.Stamp.Version != 6 || !got.Outdates(stamp(8), at(9)) || got.Outdates(stamp(7), at(21)) {
		t.Errorf("the directory's past is back: %+v", got)
	}
	see(t, l, at(30), sighting(1, 6), sighting(2, 7))
	if one, two := newestOf(t, l, 1), newestOf(t, l, 2); one.Stamp.Version != 6 || two.Stamp.Version != 7 {
		t.Errorf("what came later is missing: %+v, %+v", one, two)
	}
}

// An account was deleted by mistake, and the directory restored: the versions that were delivered before count no more.
func TestDeletedAndRestored(t *testing.T) {
	l := temp(t)
	record(t, l, outcome("google", 1, 8, target.Delivered))
	see(t, l, at(20), change.Sighting{Account: account(1), Gone: true})
	see(t, l, at(30), change.Sighting{Account: account(1), Stamp: stamp(5), Reset: true})
	if got, err := l.Last("google", dsdb.GUID{1}); err != nil || !got.Stamp.IsZero() {
		t.Errorf("version %d is in the way of those to come: %v", got.Stamp.Version, err)
	}
}

// The directory was restored to a state in which an account is deleted, and the account brought back there: its versions have been used before, whether
// its deletion had been seen before or not. But what is delivered after that stays, however often it is told.
func TestDeletedWhereItWasRestoredTo(t *testing.T) {
	for _, seen := range []bool{true, false} {
		l := temp(t)
		see(t, l, at(5), sighting(1, 8))
		record(t, l, outcome("google", 1, 8, target.Delivered))
		if seen {
			see(t, l, at(20), change.Sighting{Account: account(1), Gone: true})
		}
		see(t, l, at(30), change.Sighting{Whole: true})
		if got, err := l.Last("google", dsdb.GUID{1}); err != nil || !got.Stamp.IsZero() {
			t.Errorf("deletion seen before: %v: version %d is in the way of those to come: %v", seen, got.Stamp.Version, err)
		}
		next := outcome("google", 1, 5, target.Delivered)
		next.Proven = at(40)
		record(t, l, next)
		see(t, l, at(30), change.Sighting{Whole: true})
		if got, err := l.Last("google", dsdb.GUID{1}); err != nil || got.Stamp.Version != 5 {
			t.Errorf("deletion seen before: %v: version %d was delivered last: %v", seen, got.Stamp.Version, err)
		}
	}
}

// The clock was set back since an account was deleted: what is seen now is of later all the same.
func TestSeenAfterTheClockWasSetBack(t *testing.T) {
	l := temp(t)
	now := time.Now()
	see(t, l, now.Add(time.Hour), change.Sighting{Account: account(1), Gone: true})
	see(t, l, now, sighting(1, 6))
	if got := newestOf(t, l, 1); got.Stamp.Version != 6 {
		t.Errorf("%+v", got)
	}
}

// What a look noted that was dated by a clock which was ahead does not stand in the way of what is told after the clock was set back.
func TestBackAfterTheClockWasSetBack(t *testing.T) {
	l := temp(t)
	now := time.Now()
	reset := change.Sighting{Account: account(1), Stamp: stamp(8), Reset: true}
	see(t, l, now.Add(time.Hour), reset, change.Sighting{Whole: true})
	reset.Stamp = stamp(5)
	if k := see(t, l, now, reset); len(k.Back) != 1 || !k.Newest[dsdb.GUID{1}].Outdates(stamp(8), now.Add(-1)) {
		t.Errorf("the directory went back again: %+v", k)
	}
	if newestOf(t, l, 1).Stamp.IsZero() {
		t.Error("what a look shows is gone after it")
	}
	see(t, l, now.Add(time.Hour), change.Sighting{Account: account(1), Stamp: stamp(6), Reset: true})
	see(t, l, now.Add(time.Hour), change.Sighting{Whole: true}) // in another file of the same look
	if newestOf(t, l, 1).Stamp.IsZero() {
		t.Error("what a look shows that is dated in the future is gone after it")
	}
	see(t, l, now, change.Sighting{Whole: true})
	if !newestOf(t, l, 1).Stamp.IsZero() {
		t.Error("whom a later look does not show is still there")
	}
	see(t, l, now.Add(time.Hour), sighting(2, 8), change.Sighting{Account: account(2), Stamp: stamp(8), Reset: true})
	see(t, l, now, change.Sighting{Account: account(2), Gone: true})
	if got := newestOf(t, l, 2); !got.Stamp.IsZero() || !got.Outdates(stamp(8), now.Add(-1)) {
		t.Errorf("it is there still: %+v", got)
	}
}

// All stamps are told anew, and meanwhile passwords are delivered: those stay, and what was delivered of the directory's past goes.
func TestBackBesideDeliveries(t *testing.T) {
	l := temp(t)
	before, since := outcome("google", 1, 6, target.Delivered), outcome("google", 2, 6, target.Delivered)
	before.Proven, since.Proven = at(19), at(21)
	record(t, l, before, since)
	see(t, l, at(20), change.Sighting{Account: account(1), Stamp: stamp(5), Reset: true}, change.Sighting{Account: account(2), Stamp: stamp(5), Reset: true})
	if _, delivered, _ := versions(t, l, "google", 1); delivered != 0 {
		t.Errorf("of the past, version %d counts as delivered", delivered)
	}
	if _, delivered, _ := versions(t, l, "google", 2); delivered != 6 {
		t.Errorf("what was delivered since the look began is forgotten: %d", delivered)
	}
	see(t, l, at(20), change.Sighting{Whole: true})
	if last, err := l.Last("google", dsdb.GUID{2}); err != nil || last.Stamp.Version != 6 {
		t.Errorf("the outcome of what was proven since the look began is forgotten: %+v, %v", last, err)
	}
	see(t, l, at(30), change.Sighting{Whole: true})
	if last, err := l.Last("google", dsdb.GUID{2}); err != nil || !last.Stamp.IsZero() {
		t.Errorf("of whom the directory does not have, version %d is in the way of those to come: %v", last.Stamp.Version, err)
	}
}

// What was delivered while the clock was ahead is forgotten where the directory went back since: those versions come again.
func TestBackFromWhatIsToCome(t *testing.T) {
	l := temp(t)
	now := time.Now()
	ahead := outcome("google", 1, 8, target.Delivered)
	ahead.Proven = now.Add(time.Hour)
	record(t, l, ahead)
	see(t, l, now, change.Sighting{Account: account(1), Stamp: stamp(5), Reset: true})
	if last, err := l.Last("google", dsdb.GUID{1}); err != nil || !last.Stamp.IsZero() {
		t.Errorf("version %d is in the way of those to come: %v", last.Stamp.Version, err)
	}
}

// The directory was restored: the old versions 6 to 8 are void, and the next changes have these versions again.
func TestBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, _ := open(t, path)
	record(t, l, outcome("google", 1, 8, target.Delivered), outcome("entra", 1, 4, target.Rejected), outcome("google", 2, 3, target.Delivered))
	reset := func(n byte, version int) change.Sighting {
		return change.Sighting{Account: account(n), Stamp: stamp(version), Reset: true}
	}
	k := see(t, l, at(20), reset(1, 5), reset(2, 3))
	if len(k.Back) != 1 || k.Back[0].Account != account(1) || k.Back[0].From.Version != 8 || k.Back[0].To.Version != 5 {
		t.Errorf("went back: %+v", k.Back)
	}
	got := k.Newest[dsdb.GUID{1}]
	for _, c := range []struct {
		version, minute int
		want            bool
	}{
		{4, 30, true},  // superseded
		{5, 10, false}, // what the directory holds again
		{8, 10, true},  // what it does not hold any more
		{6, 19, true},
		{6, 21, false}, // what came after
		{8, 21, false},
	} {
		if got := got.Outdates(stamp(c.version), at(c.minute)); got != c.want {
			t.Errorf("version %d, proven at %d: %v", c.version, c.minute, got)
		}
	}
	if got := newestOf(t, l, 2); got.Outdates(stamp(3), at(10)) || !got.Outdates(stamp(4), at(19)) {
		t.Errorf("an account that did not go back: %+v", got)
	}
	late := outcome("entra", 1, 7, target.Delivered) // was under way
	record(t, l, late)
	prove(t, l, proof(1, 8, 8, "google alice"))
	for name, want := range map[string]int{"google": 0, "entra": 4} {
		if settled, _, newest := versions(t, l, name, 1); settled != want || newest != 5 {
			t.Errorf("%s: settled %d, newest %d", name, settled, newest)
		}
	}
	if n := l.Counts()["google"].Classes[target.Delivered]; n != 1 {
		t.Errorf("%d accounts delivered", n)
	}

	next := outcome("google", 1, 6, target.Delivered)
	next.Proven = at(21)
	record(t, l, next)
	if k := see(t, l, at(20), reset(1, 5)); k.Back != nil { // once more, after a crash
		t.Errorf("went back once more: %+v", k.Back)
	}
	if settled, delivered, newest := versions(t, l, "google", 1); settled != 6 || delivered != 6 || newest != 6 {
		t.Errorf("settled %d, delivered %d, newest %d", settled, delivered, newest)
	}
	if k := see(t, l, at(40), reset(1, 5)); len(k.Back) != 1 { // restored again
		t.Errorf("went back: %+v", k.Back)
	}
	_ = l.Close()
	l, _ = open(t, path)
	if settled, _, newest := versions(t, l, "google", 1); settled != 0 || newest != 5 {
		t.Errorf("settled %d, newest %d", settled, newest)
	}
}

// The directory went back while the clock was ahead, and the clock was set back since: what is proven now is of later all the same.
func TestProvenAfterTheClockWasSetBack(t *testing.T) {
	l := temp(t)
	now := time.Now()
	see(t, l, now.Add(time.Hour), change.Sighting{Account: account(1), Stamp: stamp(5), Reset: true})
	if got := newestOf(t, l, 1); got.Outdates(stamp(6), now) || !got.Outdates(stamp(4), now) {
		t.Errorf("%+v", got)
	}
	prove(t, l, Proof{account(1), stamp(6), now, nil})
	if got := newestOf(t, l, 1); got.Stamp.Version != 6 {
		t.Errorf("%+v", got)
	}
}

// Who had a name, by a clock that was ahead, had it before now.
func TestPast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, _ := open(t, path)
	now := time.Now()
	prove(t, l, Proof{account(1), stamp(1), now.Add(time.Hour), []string{"google alice"}}, Proof{account(1), stamp(1), now.Add(-time.Hour), []string{"google other"}})
	holder := func(place string, proven time.Time) byte {
		t.Helper()
		k, err := l.Known(Proof{account(2), stamp(1), proven, []string{place}})
		if err != nil {
			t.Fatal(err)
		}
		return k.Holders[place].Account.GUID[0]
	}
	if holder("google alice", now) != 1 {
		t.Error("this shows nothing")
	}
	if void, err := l.Past(now, now.Add(-time.Second)); err != nil || void {
		t.Fatal(void, err)
	}
	see(t, l, now.Add(time.Hour), change.Sighting{Account: account(3), Gone: true})
	if void, err := l.Past(now, now.Add(-time.Second)); err != nil || !void {
		t.Errorf("an account was deleted at a time that is still to come, and that is not said: %v", err)
	}
	for proven, want := range map[time.Time]byte{now: 2, now.Add(-time.Second): 1} {
		if got := holder("google alice", proven); got != want {
			t.Errorf("proven at %v: account %d, want %d", proven, got, want)
		}
	}
	if holder("google other", now.Add(-30*time.Minute)) != 2 || holder("google other", now.Add(-2*time.Hour)) != 1 {
		t.Error("what was of the past has another time now")
	}
	prove(t, l, Proof{account(1), stamp(1), now.Add(time.Hour), []string{"google alice"}})
	_ = l.Close()
	l, _ = open(t, path)
	if holder("google alice", time.Now()) != 2 {
		t.Error("after a start, the name is still its former owner's")
	}
}

func TestVoidOf(t *testing.T) {
	void := at(7).Add(5)
	for _, n := range []Newest{
		{Account: account(1), Stamp: stamp(1), Seen: at(3), Void: void},
		{Account: change.Account{SAMAccountName: "\"void\":\"2001-01-01T00:00:00Z\""}, Void: void},
		{Account: change.Account{SAMAccountName: "\"void\":\"2001-01-01T00:00:00Z\""}},
		{},
	} {
		value, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := voidOf(value); !got.Equal(n.Void) {
			t.Errorf("%s: %v", value, got)
		}
	}
}
