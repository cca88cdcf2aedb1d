package ledger

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestFind(t *testing.T) {
	l := temp(t)
	named := func(n byte, name, principal string) change.Sighting {
		s := sighting(n, 1)
		s.Account.SAMAccountName, s.Account.UserPrincipalName = name, principal
		return s
	}
	routed := named(3, "carol", "")
	routed.Wanted = &change.Wanted{Routes: []change.WantedRoute{{Route: change.Route{Target: "a", User: "Office@Example.com"}}}}
	see(t, l, at(1), named(1, "Ánna", "anna@corp.example"), named(2, "bob", "Ánna"), routed, named(4, "dora <d&d>", ""), named(5, "eve", ""))
	e := outcome("a", 2, 1, target.Delivered)
	e.User, e.Account.SAMAccountName = "office@example.com", "robert" // as he was called then
	record(t, l, e)
	see(t, l, at(2), change.Sighting{Account: change.Account{GUID: dsdb.GUID{5}, SAMAccountName: "eve"}, Gone: true})
	for name, want := range map[string]map[dsdb.GUID]Kind{
		"ánNA":               {{1}: ByAccount, {2}: ByPrincipal},
		"anna@corp.example":  {{1}: ByPrincipal},
		"office@example.com": {{2}: ByUser, {3}: ByUser},
		"DORA <D&D>":         {{4}: ByAccount},
		"eve":                {{5}: ByAccount},
		"robert":             {},
		"corp":               {},
		"":                   {},
		"guid":               {},
		`","`:                {},
	} {
		if got, err := l.Find(name); err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: %v, %v; want %v", name, got, err, want)
		}
	}
	// The name of one who is gone is another's now.
	see(t, l, at(3), named(6, "Eve", ""))
	if got, err := l.Find("eve"); err != nil || !maps.Equal(got, map[dsdb.GUID]Kind{{6}: ByAccount}) {
		t.Errorf("%v, %v", got, err)
	}
}

// An outcome may be noted before the proof of its change is, and the forwarder's queue keeps no user principal name.
func TestOutcomeBeforeItsProof(t *testing.T) {
	full := account(1)
	full.UserPrincipalName = "user1@example.com"
	l := temp(t)
	prove := func(a change.Account, version int) {
		t.Helper()
		if err := l.Prove(Proof{Account: a, Stamp: stamp(version), Proven: at(version)}); err != nil {
			t.Fatal(err)
		}
		if found, err := l.Find(full.UserPrincipalName); err != nil || !maps.Equal(found, map[dsdb.GUID]Kind{full.GUID: ByPrincipal}) {
			t.Errorf("after the proof of version %d: %v, %v", version, found, err)
		}
	}
	record(t, l, outcome("a", 1, 3, target.Rejected))
	prove(full, 3)
	prove(account(1), 3) // as at a start, of what waits
	prove(full, 2)       // which does not make an old version the newest
	if _, _, newest := versions(t, l, "a", 1); newest != 3 {
		t.Errorf("the newest is %d", newest)
	}
}

func TestStory(t *testing.T) {
	l := temp(t)
	if s, err := l.Story(dsdb.GUID{1}); err != nil || len(s.Outcomes)+len(s.Gaps) != 0 || !s.Newest.Account.GUID.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	see(t, l, at(1), wanted(1, 3, change.Lost, "a", "b"))
	record(t, l, outcome("a", 1, 3, target.Delivered), outcome("b", 1, 3, Dropped))
	s, err := l.Story(dsdb.GUID{1})
	if err != nil || s.Newest.Stamp.Version != 3 || len(s.Outcomes) != 2 || len(s.Gaps) != 1 || s.Gaps[0].Reason != change.Reason(Dropped) {
		t.Errorf("%+v, %v", s, err)
	}
}

// How long a delivery took is of the first time that it was delivered, and stays known when another outcome follows.
func TestTook(t *testing.T) {
	l := temp(t)
	delivered := func(version, captured, at int) Entry {
		e := outcome("a", 1, version, target.Delivered)
		e.Captured, e.At = start.Add(time.Duration(captured)*time.Second), start.Add(time.Duration(at)*time.Second)
		return e
	}
	refused := outcome("a", 1, 4, target.Rejected)
	for _, c := range []struct {
		e    Entry
		took time.Duration
		last int
	}{
		{delivered(2, 10, 13), 3 * time.Second, 13},
		{delivered(2, 10, 400), 3 * time.Second, 400}, // settled
		{delivered(3, 500, 501), time.Second, 501},
		{refused, time.Second, 501},
		{delivered(2, 10, 600), time.Second, 501}, // came late
		{delivered(5, 700, 690), 0, 690},          // the clock was set back
	} {
		record(t, l, c.e)
		got, err := l.Last("a", dsdb.GUID{1})
		if err != nil || got.Took != c.took || !got.DeliveredAt.Equal(start.Add(time.Duration(c.last)*time.Second)) {
			t.Errorf("after %+v: took %v, delivered at %v, %v", c.e, got.Took, got.DeliveredAt, err)
		}
	}
}

// What a version wrote that did not keep how long a delivery took is read as before.
func TestOlderEntry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, _ := open(t, path)
	_ = l.Close()
	db, _, err := boltfile.Open(path, outcomes, newest, holders)
	if err != nil {
		t.Fatal(err)
	}
	old := json.RawMessage(`{"target":"a","user":"user1","place":"a user1","account":{"guid":"00000001-0000-0000-0000-000000000000","sam_account_name":"user1"},` +
		`"stamp":{"version":3,"time":"2026-03-01T12:00:00Z","invocation_id":"00000009-0000-0000-0000-000000000000","usn":3},"proven":"2026-03-01T12:03:00Z",` +
		`"class":"delivered","at":"2026-03-01T12:03:00Z","attempts":1,` +
		`"delivered":{"version":3,"time":"2026-03-01T12:00:00Z","invocation_id":"00000009-0000-0000-0000-000000000000","usn":3},"delivered_at":"2026-03-01T12:03:00Z"}`)
	key := entryKey(dsdb.GUID{1}, "a")
	if err := db.Update(func(tx boltfile.Tx) error { return tx.Put(outcomes, key, old) }); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	l, log := open(t, path)
	e, err := l.Last("a", dsdb.GUID{1})
	if err != nil || e.Delivered.Version != 3 || !e.DeliveredAt.Equal(at(3)) || e.Took != 0 || !e.FirstAt.IsZero() || len(log.Counters()) > 0 {
		t.Errorf("%+v, %v, %v", e, err, log.Counters())
	}
	if got, err := l.Find("user1"); err != nil || got[dsdb.GUID{1}] != ByUser {
		t.Errorf("%v, %v", got, err)
	}
	record(t, l, outcome("a", 1, 4, target.Rejected))
	if e, _ := l.Last("a", dsdb.GUID{1}); e.Class != target.Rejected || e.Delivered.Version != 3 {
		t.Errorf("%+v", e)
	}
}
