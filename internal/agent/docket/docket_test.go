package docket

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/prooftest"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func waiting(t testing.TB, account string) Pending {
	t.Helper()
	return pending(t, account, box.EncodeNTHash([16]byte{1}))
}

var key = sync.OnceValue(func() seal.PrivateKey {
	key, err := seal.Generate()
	if err != nil {
		panic(err)
	}
	return key
})

func pending(t testing.TB, account string, content []byte) Pending {
	t.Helper()
	h := capture.Header{ID: capture.NewID(), Time: time.Now(), Account: account}
	evidence, err := proof.Open(key(), prooftest.Capture(t, key().Public(), h, content))
	if err != nil {
		t.Fatal(err)
	}
	return Pending{File: h.FileName(), Header: h, Seen: time.Now(), Evidence: evidence}
}

var here = dsdb.GUID{0xdc} // this DC

// changed is the stamp of a change that was made here.
func changed(at time.Time) dsdb.Stamp { return dsdb.Stamp{Version: 1, Time: at, InvocationID: here} }

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
	d.Done(alice, false)
	if s := d.turn(); s != alice {
		t.Error("what came meanwhile does not have its turn at once")
	}
}

func TestNewestFirst(t *testing.T) {
	d := New(time.Minute)
	for _, name := range []string{"alice", "bob", "carol"} {
		d.Add(waiting(t, name))
	}
	d.Moved(here, []Mover{{Name: "Bob"}})
	for _, want := range []string{"bob", "carol", "alice"} {
		if s := d.turn(); s == nil || s.Name != want {
			t.Fatalf("not %s's turn: %+v", want, s)
		}
	}
	if s := d.turn(); s != nil {
		t.Errorf("%q has its turn twice", s.Name)
	}
}

// Somebody makes captures up without end, and not one of those in the right name waits until the accounts were held against them.
func TestClaimsBeforeOrphans(t *testing.T) {
	d, now := New(time.Minute), time.Now()
	names := []string{"alice", "bob", "carol"}
	for _, name := range names {
		d.Add(waiting(t, name))
		d.Done(d.turn(), false)
	}
	orphans(t, d, now.Add(-time.Second), make([]time.Duration, 10)...)
	var movers []Mover
	for i, name := range names {
		movers = append(movers, Mover{GUID: dsdb.GUID{byte(i + 1)}, Name: name, Stamp: changed(now), Seen: now})
	}
	d.Moved(here, movers)
	var turns []string
	for s := d.turn(); s != nil; s = d.turn() {
		turns = append(turns, s.Name)
	}
	if want := []string{"carol", "bob", "alice", "", "", ""}; !slices.Equal(turns, want) {
		t.Errorf("the turns are %q, want %q", turns, want)
	}
}

func TestNothingIsKeptOfWhatIsGone(t *testing.T) {
	d := New(time.Minute)
	p := waiting(t, "alice")
	d.Add(p)
	alice := d.turn()
	d.Remove(Finding{entry: d.files[p.File]})
	d.Done(alice, false)
	if len(d.files)+len(d.claims)+len(d.orphans)+len(d.waiting)+len(d.urgent) != 0 {
		t.Errorf("left: %+v", d)
	}
}

// While the disk is full no pass of the watch is completed, and each tells once more who moved.
func TestToldAgainAndAgain(t *testing.T) {
	d, now := New(time.Minute), time.Now()
	alice := Mover{GUID: dsdb.GUID{1}, Name: "alice", Stamp: changed(now), Seen: now}
	again := alice
	again.Stamp.Version++
	for range 100 {
		d.Moved(here, []Mover{alice})
		d.Moved(here, []Mover{again})
	}
	if len(d.recent) != 2 {
		t.Errorf("%d are kept", len(d.recent))
	}
	d.PassComplete(now)
	d.Moved(here, []Mover{again})
	d.PassComplete(now.Add(2 * time.Minute))
	if len(d.recent)+len(d.told) != 0 {
		t.Errorf("left: %+v, %+v", d.recent, d.told)
	}
}

// orphans fills a docket with captures without a name, taken so long after a moment, and says so of each.
func orphans(t testing.TB, d *Docket, began time.Time, taken ...time.Duration) (entries []*entry) {
	t.Helper()
	for _, after := range taken {
		p := waiting(t, "")
		p.Header.Time, p.Seen = began.Add(after), began.Add(after)
		d.Add(p)
		entries = append(entries, d.files[p.File])
	}
	s := d.turn()
	d.Judge(s, directory.Account{}, proof.Stored{}, directory.ErrNotFound, time.Now())
	d.Done(s, false)
	d.Moved(here, nil)
	return entries
}

// 192 changes, 50 ms apart, and each capture holds another password. The directory's answers come in order, backwards, or as sixteen
// searches at a time bring them; the capture that is tried first is mostly the right one. With proofs that take milliseconds
// each, that is the difference between a second and a minute and a half.
func TestCapturesAreTriedInTheOrderOfTheChanges(t *testing.T) {
	const n = 192
	sixteen := func(i int) int { return i/16*16 + i%16*5%16 }
	for name, c := range map[string]struct {
		order func(i int) int
		tries int
	}{
		"in order":           {func(i int) int { return i }, n},
		"backwards":          {func(i int) int { return n - 1 - i }, 2 * n},
		"sixteen at a time":  {sixteen, 5 * n},
		"sixteen, backwards": {func(i int) int { return n - 1 - sixteen(i) }, 5 * n},
	} {
		t.Run(name, func(t *testing.T) {
			d := New(time.Hour)
			var taken []time.Duration
			for i := range n {
				taken = append(taken, time.Duration(i)*50*time.Millisecond)
			}
			captures := orphans(t, d, time.Now().Add(-time.Minute), taken...)
			tries := 0
			for i := range n {
				i = c.order(i)
				committed := captures[i].Header.Time.Add(20 * time.Millisecond)
				account := directory.Account{USNChanged: uint64(4000 + 5*i), Stamp: changed(committed.Truncate(time.Second))}
				at := slices.Index(d.candidates(&Subject{newest: committed}, account, time.Now()), captures[i])
				if at < 0 {
					t.Fatalf("capture %d is not tried", i)
				}
				tries += at + 1
				captures[i].matched = true
				d.paired = pair{account.USNChanged, captures[i].Header.Time}
			}
			if tries > c.tries {
				t.Errorf("%d changes took %d tries, want at most %d", n, tries, c.tries)
			}
		})
	}
}

func TestWhoseCaptureItMayBe(t *testing.T) {
	captured := time.Date(2026, 1, 1, 12, 0, 0, 900e6, time.UTC)
	for name, c := range map[string]struct {
		changed, seen time.Duration // since the capture
		at            dsdb.GUID
		want          bool
	}{
		"changed and seen right after":                {time.Second, time.Second, here, true},
		"the stamp's second began before the capture": {-900 * time.Millisecond, 0, here, true},
		"changed long after":                          {time.Hour, time.Hour, here, true},
		"changed before":                              {-3 * time.Second, 0, here, false},
		"seen before":                                 {0, -3 * time.Second, here, false},
		"changed on another DC":                       {time.Second, time.Second, dsdb.GUID{2}, false},
	} {
		d := New(time.Minute)
		d.Moved(here, nil)
		m := Mover{Stamp: dsdb.Stamp{Time: captured.Add(c.changed), InvocationID: c.at}, Seen: captured.Add(c.seen)}
		if got := d.mayBeOf(m, captured); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// However many have had their time, the search that finds it is not held up by shredding them all.
func TestFewAreDismissedAtATime(t *testing.T) {
	d := New(time.Second)
	orphans(t, d, time.Now().Add(-time.Hour), make([]time.Duration, 10*dismissals)...)
	d.PassComplete(time.Now())
	s := d.claims[""]
	for left := 10 * dismissals; left > 0; left -= dismissals {
		findings := d.Judge(s, directory.Account{}, proof.Stored{}, directory.ErrNotFound, time.Now())
		if len(findings) != dismissals {
			t.Fatalf("%d are dismissed at once, of %d", len(findings), left)
		}
		if s.again != (left > dismissals) {
			t.Fatalf("%d are left, and the search is to be repeated at once: %v", left-dismissals, s.again)
		}
		s.again = false
		for _, f := range findings {
			d.Remove(f)
		}
	}
}

// keyed is an account of which the directory stores a key, and no NT hash.
func keyed(at time.Time) directory.Account {
	return directory.Account{Stamp: changed(at),
		SupplementalCredentials: prooftest.SupplementalCredentials(make([]byte, 32), "salt", 1)}
}

// Keys are made of the newest captures first, and of few in one turn. Those whose time is over do not go before they were compared.
func TestKeysAreMadeOfFewAtATime(t *testing.T) {
	const n = 2*keysATurn + 1
	d, began := New(time.Second), time.Now()
	for i := range n {
		p := pending(t, "alice", box.EncodePassword([]byte("x")))
		p.Seen = began.Add(time.Duration(i-n) * time.Hour)
		d.Add(p)
	}
	s, account := d.turn(), keyed(began)
	var seen []time.Time
	for _, want := range []int{keysATurn, keysATurn, 1} {
		if !d.NeedsKeys(s) {
			t.Fatal("the search does not ask for keys")
		}
		s.again = false
		findings := d.Judge(s, account, proof.Of(account), nil, began)
		asked := 0
		for _, f := range findings {
			if f.Verdict == proof.Underived {
				asked++
				seen = append(seen, f.Seen)
				d.Skip(f, time.Time{})
				if err := f.Evidence.Derive(key(), prooftest.Capture(t, key().Public(), f.Header, box.EncodePassword([]byte("x"))), proof.Of(account)); err != nil {
					t.Fatal(err)
				}
			} else if !f.Overdue {
				t.Errorf("%+v is neither to be compared nor over", f)
			} else {
				d.Remove(f)
			}
		}
		if asked != want || s.again != (len(seen) < n) {
			t.Errorf("asked for %d keys, and again %v; want %d", asked, s.again, want)
		}
		for _, f := range d.Judge(s, account, proof.Of(account), nil, began) {
			if f.Verdict == proof.Underived && s.budget > 0 {
				t.Error("asked twice for a key")
			} else if f.Overdue {
				d.Remove(f)
			}
		}
	}
	if !slices.IsSortedFunc(seen, func(a, b time.Time) int { return b.Compare(a) }) {
		t.Error("not the newest first")
	}
	if len(d.files) > 0 {
		t.Errorf("%d are left", len(d.files))
	}
}

// However many captures without a name there are, an account's change has but so many keys made, and one from elsewhere none at all.
func TestOrphansByKeyAreBounded(t *testing.T) {
	for at, want := range map[dsdb.GUID]int{here: orphansByKey, {2}: 0} {
		d := New(time.Hour)
		d.Moved(here, nil)
		for range orphansByKey + 10 {
			d.orphan(&entry{Pending: pending(t, "", box.EncodePassword([]byte("x")))})
		}
		s, account, asked := &Subject{GUID: dsdb.GUID{1}, newest: time.Now(), place: -1}, keyed(time.Now()), 0
		account.Stamp.InvocationID = at
		for again := true; again; again = s.again {
			s.again = false
			if !d.NeedsKeys(s) {
				t.Fatal("the search does not ask for keys")
			}
			for range keysATurn + 1 {
				for _, f := range d.Judge(s, account, proof.Of(account), nil, time.Now()) {
					asked++
					if err := f.Evidence.Derive(key(), prooftest.Capture(t, key().Public(), f.Header, box.EncodePassword([]byte("x"))), proof.Of(account)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if asked != want {
			t.Errorf("%d keys were made for a change on %s, want %d", asked, at, want)
		}
	}
}

// A DC that answers slowly: the account was seen moving long before it answered that nobody has the capture's name.
func TestMoversAreKeptForWhoHasNotBeenAskedAbout(t *testing.T) {
	d := New(time.Minute)
	capture := waiting(t, "")
	d.Add(capture)
	mover := Mover{GUID: dsdb.GUID{1}, Stamp: changed(time.Now()), Seen: time.Now()}
	d.Moved(here, []Mover{mover})
	d.PassComplete(mover.Seen.Add(time.Hour))
	d.Judge(d.turn(), directory.Account{}, proof.Stored{}, directory.ErrNotFound, time.Now())
	d.PassComplete(mover.Seen.Add(2 * time.Hour))
	if d.movers[mover.GUID] == nil {
		t.Error("the account that moved is not looked up")
	}
	if d.PassComplete(mover.Seen.Add(3 * time.Hour)); len(d.recent) > 0 {
		t.Error("it is remembered for ever")
	}
}

// What a change costs the agent while 10,000 captures wait that somebody made up.
func BenchmarkJudgeOrphans(b *testing.B) {
	d := New(time.Hour)
	now := time.Now()
	taken := make([]time.Duration, 10_000)
	for i := range taken {
		taken[i] = -time.Duration(i) * 5 * time.Millisecond
	}
	orphans(b, d, now, taken...)
	account := directory.Account{USNChanged: 4000, NTHash: make([]byte, 16), Stamp: changed(now)}
	stored := proof.Of(account)
	for b.Loop() {
		if d.Judge(&Subject{GUID: dsdb.GUID{1}, newest: now}, account, stored, nil, now.Add(time.Second)) != nil {
			b.Fatal("a made-up capture is the account's password")
		}
	}
}

// The docket learns how long the DC takes to commit, and asks little before.
func TestLooksAreFewBeforeTheDCHasCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(time.Minute)
		change := func(takes time.Duration) (looks int, late time.Duration) {
			const search = time.Millisecond
			hash := [16]byte{1}
			before := directory.Account{Stamp: dsdb.Stamp{Version: 1, Time: time.Now().Add(-time.Hour)}}
			p := pending(t, "alice", box.EncodeNTHash([16]byte{1}))
			p.Header.UserPrincipalName = "alice@example.com"
			d.Add(p)
			for {
				s := d.turn()
				if s == nil {
					time.Sleep(time.Millisecond)
					continue
				}
				began, account := time.Now(), before
				looks++
				if time.Since(p.Seen) >= takes {
					account = directory.Account{Stamp: dsdb.Stamp{Version: 2, Time: time.Now()}, NTHash: hash[:]}
				}
				time.Sleep(search)
				for _, f := range d.Judge(s, account, proof.Of(account), nil, began) {
					if f.Verdict != proof.Current {
						t.Fatalf("verdict %v", f.Verdict)
					}
					d.Remove(f)
					d.Done(s, false)
					return looks, began.Sub(p.Seen) - takes
				}
				d.Done(s, false)
			}
		}
		many, _ := change(70 * time.Millisecond)
		for range 10 {
			change(70 * time.Millisecond)
		}
		few, late := change(70 * time.Millisecond)
		if many < 15 || few > 6 || late > 5*time.Millisecond {
			t.Errorf("%d looks at first, and %d in the end, which were %v late", many, few, late)
		}
		// A quick one among slow ones is late once, and not by more than the slow ones take; then it is not any more.
		if _, late := change(20 * time.Millisecond); late > 50*time.Millisecond {
			t.Errorf("a quicker change is found %v late", late)
		}
		for range 8 {
			change(20 * time.Millisecond)
		}
		if _, late := change(20 * time.Millisecond); late > 5*time.Millisecond {
			t.Errorf("the ninth is found %v late", late)
		}
		// A DC that was very slow for a while does not make anybody wait for longer than the bound.
		for range 50 {
			change(5 * time.Second)
		}
		if _, late := change(20 * time.Millisecond); late > usualMost {
			t.Errorf("after a slow DC %v late", late)
		}
	})
}
