package deliver

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// domain is some DCs that replicate as Samba does, each with an agent and a forwarder of its own, and the one cloud that these deliver to.
type domain struct {
	*testing.T
	settles bool // whether they are told of each other

	mu      sync.Mutex // guards all of it
	dcs     []*controller
	cut     map[[2]int]bool // whether the first cannot pull from the second
	cloud   map[string]int  // by user: the password it holds
	changes int
}

// controller is a DC. A password is a number, different at each change.
type controller struct {
	*world
	d        *domain
	n        int
	id       dsdb.GUID
	usn      uint64 // highestCommittedUSN
	accounts map[byte]held
	cursors  map[int]uint64    // by DC: up to which of its USNs everything has come here
	heard    map[int]time.Time // when it was last pulled from
	risen    time.Time         // when the USN last rose
	lag      time.Duration     // after that, until neighbours are notified
	notified map[int]uint64    // by DC
	period   time.Time         // when all neighbours are asked

	serving bool
	missed  map[byte]int // by account: the password that was captured while nothing served
	told    map[byte]dsdb.Stamp
	base    []change.Peer // as of the agent's last pass
	slow    time.Duration // of a request to the cloud
	offline bool          // the cloud cannot be reached from here
}

type held struct {
	stamp    dsdb.Stamp
	password int
}

const (
	notifyAfter   = 5 * time.Second // at the least
	periodicEvery = 5 * time.Minute
)

func newDomain(t *testing.T, n int, settles bool) *domain {
	d := &domain{T: t, settles: settles, cut: map[[2]int]bool{}, cloud: map[string]int{}}
	for i := range n {
		c := &controller{
			world: newWorld(t), d: d, n: i, id: dsdb.GUID{byte(i + 1)}, usn: 4000, lag: notifyAfter, accounts: map[byte]held{}, cursors: map[int]uint64{},
			heard: map[int]time.Time{}, notified: map[int]uint64{}, period: time.Now().Add(time.Duration(i+1) * 70 * time.Second), told: map[byte]dsdb.Stamp{}, missed: map[byte]int{},
		}
		c.targets = []Target{{Name: "cloud", Target: access{c}}}
		d.dcs = append(d.dcs, c)
	}
	for _, c := range d.dcs {
		c.serve()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		d.dcs[0].every(ctx, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			for _, c := range d.dcs {
				c.replicate()
				c.watch()
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
		for _, c := range d.dcs {
			c.kill()
		}
	})
	d.pass(time.Minute)
	return d
}

// set changes something of the domain.
func (d *domain) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

func (d *domain) pass(t time.Duration) {
	time.Sleep(t)
	synctest.Wait()
}

// sever cuts the ways between all DCs, or heals them.
func (d *domain) sever(cut bool) {
	for i := range d.dcs {
		for j := range d.dcs {
			d.cut[[2]int{i, j}] = cut
		}
	}
}

// serve and kill start and end agent and forwarder. The folders stay.
func (c *controller) serve() {
	c.start()
	c.d.set(func() {
		c.serving, c.base = true, nil
		for n, password := range c.missed {
			if c.accounts[n].password == password {
				c.prove(n)
			}
		}
		clear(c.missed)
	})
}

func (c *controller) kill() {
	serving := false
	c.d.set(func() { serving, c.serving = c.serving, false })
	if serving {
		c.stop()
	}
}

// replicate pulls from who has notified, and at times from all.
func (c *controller) replicate() {
	now := time.Now()
	periodic := !now.Before(c.period)
	if periodic {
		c.period = c.period.Add(periodicEvery)
	}
	for j, from := range c.d.dcs {
		if j == c.n || c.d.cut[[2]int{c.n, j}] {
			continue
		}
		told := from.notified[c.n] < from.usn && now.Sub(from.risen) >= from.lag && !c.d.cut[[2]int{j, c.n}]
		if periodic || told {
			from.notified[c.n] = from.usn
			c.pull(from)
		}
	}
}

// pull takes over what wins, in silence what loses, and the source's own highestCommittedUSN.
func (c *controller) pull(from *controller) {
	for n, theirs := range from.accounts {
		if theirs.stamp.Compare(c.accounts[n].stamp) > 0 {
			c.accounts[n] = theirs
			c.raise()
		}
	}
	for j, usn := range from.cursors {
		if j != c.n {
			c.cursors[j] = max(c.cursors[j], usn)
		}
	}
	c.cursors[from.n], c.heard[from.n] = from.usn, time.Now().Truncate(time.Second)
}

func (c *controller) raise() {
	c.usn++
	c.risen = time.Now()
}

// watch is a pass of the agent: sightings, then the mark.
func (c *controller) watch() {
	if !c.serving {
		return
	}
	began := time.Now()
	peers := c.peers()
	var seen []change.Sighting
	for n, h := range c.accounts {
		if !h.stamp.Equal(c.told[n]) {
			c.told[n] = h.stamp
			seen = append(seen, change.Sighting{Account: account(n), Stamp: h.stamp})
		}
	}
	if len(seen) > 0 {
		c.tell(seen...)
	}
	c.base = peers
	if err := change.WriteMark(c.outgoing(), change.Mark{AsOf: began, Host: fmt.Sprint("dc", c.n), InvocationID: c.id, Peers: peers}); err != nil {
		c.Error(err)
	}
}

// changes sets account n's password at the DC, whose agent proves it at once, or when it runs again.
func (c *controller) changes(n byte) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.d.changes++
	c.raise()
	c.accounts[n] = held{dsdb.Stamp{
		Version: c.accounts[n].stamp.Version + 1, Time: time.Now().UTC().Truncate(time.Second), InvocationID: c.id, USN: c.usn,
	}, c.d.changes}
	if c.serving {
		c.prove(n)
	} else {
		c.missed[n] = c.d.changes
	}
}

// prove hands over what the DC holds.
func (c *controller) prove(n byte) {
	proven := c.change(n, c.accounts[n].password, "cloud")
	proven.Stamp, proven.Peers = c.accounts[n].stamp, c.base
	if proven.Peers == nil && c.d.settles {
		proven.Peers = c.peers()
		for i := range proven.Peers {
			proven.Peers[i] = change.Peer{Name: proven.Peers[i].Name}
		}
	}
	c.put(proven)
}

// peers is how far the DC has heard the others.
func (c *controller) peers() (peers []change.Peer) {
	for j, other := range c.d.dcs {
		if j != c.n && c.d.settles {
			peers = append(peers, change.Peer{Name: fmt.Sprint("dc", j), InvocationID: other.id, USN: c.cursors[j], Heard: c.heard[j]})
		}
	}
	return peers
}

func (a access) LastChange(context.Context, target.User) (time.Time, error) {
	return time.Time{}, target.ErrCannotTell
}

// access is the cloud as one DC's forwarder reaches it.
type access struct{ c *controller }

func (a access) SetPassword(ctx context.Context, u target.User, s secret.Secret) error {
	password := versionOf(a.c, string(s.Bytes()))
	slow, offline := time.Duration(0), false
	a.c.d.set(func() { slow, offline = a.c.slow, a.c.offline })
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return ctx.Err()
	}
	if offline {
		return errDown
	}
	a.c.d.set(func() { a.c.d.cloud[u.Name] = password })
	return nil
}

func (a access) Check(context.Context) error           { return nil }
func (a access) Accepts(secret.Secret) []target.Reason { return nil }
func (a access) Close() error                          { return nil }

// verdict returns the accounts of which the cloud does not hold the password that AD settled on.
func (d *domain) verdict() (wrong []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.dcs {
		if !maps.Equal(c.accounts, d.dcs[0].accounts) {
			d.Errorf("the DCs have not settled: %v, %v", c.accounts, d.dcs[0].accounts)
		}
	}
	for n, h := range d.dcs[0].accounts {
		if got := d.cloud[user(n)]; got != h.password {
			wrong = append(wrong, fmt.Sprintf("%s: the cloud holds %d, AD %d (%v)", user(n), got, h.password, h.stamp))
		}
	}
	return wrong
}

// dust is how long everything takes to settle: one round in which all DCs ask each other, and another, and the forwarders' patience.
const dust = 2*periodicEvery + settleFor + time.Minute

// What AD settles on is what the cloud holds in the end, and without settling it is not.
func TestTheWinnerHasTheLastWord(t *testing.T) {
	for name, story := range map[string]struct {
		dcs  int
		tell func(d *domain, a, b *controller)
	}{
		"changed at once, and the loser is slow": {2, func(d *domain, a, b *controller) {
			d.set(func() { a.slow = 3 * time.Second })
			a.changes(1)
			d.pass(1100 * time.Millisecond)
			b.changes(1)
		}},
		"the later change loses": {2, func(d *domain, a, b *controller) {
			d.set(func() { d.sever(true) })
			b.changes(1)
			d.pass(time.Minute)
			b.changes(1)
			d.pass(20 * time.Minute)
			a.changes(1) // of a lower version
			d.pass(time.Minute)
			d.set(func() { d.sever(false) })
		}},
		"what the winner knew of is sent late": {2, func(d *domain, a, b *controller) {
			d.set(func() { a.offline = true })
			a.changes(1)
			d.pass(time.Minute) // b has it now
			d.set(func() { d.sever(true) })
			b.changes(1)
			d.pass(time.Minute)
			d.set(func() { a.offline = false })
			d.pass(20 * time.Minute)
			d.set(func() { d.sever(false) })
		}},
		"the winner's forwarder is killed": {2, func(d *domain, a, b *controller) {
			d.set(func() { a.slow = 3 * time.Second })
			a.changes(1)
			d.pass(1100 * time.Millisecond)
			b.changes(1)
			d.pass(10 * time.Second)
			b.kill()
			d.pass(20 * time.Minute)
			b.serve()
		}},
		"the winner's queue is lost": {2, func(d *domain, a, b *controller) {
			d.set(func() { a.slow = 3 * time.Second })
			a.changes(1)
			d.pass(1100 * time.Millisecond)
			b.changes(1)
			d.pass(10 * time.Second)
			b.kill()
			if err := os.Remove(filepath.Join(b.dir, "queue.db")); err != nil {
				d.Fatal(err)
			}
			b.serve()
		}},
		"the cloud is away when the winner is to speak": {2, func(d *domain, a, b *controller) {
			d.set(func() { a.slow = 3 * time.Second })
			a.changes(1)
			d.pass(1100 * time.Millisecond)
			b.changes(1)
			d.pass(10 * time.Second)
			d.set(func() { b.offline = true })
			d.pass(20 * time.Minute)
			d.set(func() { b.offline = false })
		}},
		"the loser's DC hears nobody, and is heard": {2, func(d *domain, a, b *controller) {
			d.set(func() { d.cut[[2]int{a.n, b.n}] = true })
			b.changes(1)
			d.pass(time.Minute)
			b.changes(1)
			d.pass(20 * time.Minute)
			a.changes(1)
			d.pass(20 * time.Minute)
			d.set(func() { d.cut[[2]int{a.n, b.n}] = false })
		}},
		"the loser speaks until it hears": {2, func(d *domain, a, b *controller) {
			d.set(func() { d.sever(true) })
			b.changes(1)
			b.changes(1)
			a.changes(2)
			d.pass(time.Minute)
			d.set(func() { d.cut[[2]int{b.n, a.n}] = false })
			for heard := false; !heard; d.set(func() { heard = b.cursors[a.n] == a.usn }) {
				d.pass(time.Second)
			}
			d.pass(peerLag - 10*time.Second)
			a.changes(1) // of a lower version
			d.pass(5 * time.Second)
			d.set(func() { d.sever(false) })
		}},
		"three of them": {3, func(d *domain, a, b *controller) {
			d.set(func() { a.slow = 3 * time.Second })
			d.dcs[2].changes(1)
			a.changes(1)
			d.pass(1100 * time.Millisecond)
			b.changes(1)
		}},
	} {
		for _, settles := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", name, settles), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDomain(t, story.dcs, settles)
					story.tell(d, d.dcs[0], d.dcs[1])
					d.pass(dust)
					if wrong := d.verdict(); settles != (len(wrong) == 0) {
						t.Errorf("settling: %v; wrong: %q\n%s", settles, wrong, d.dcs[1].text)
					}
					for _, c := range d.dcs {
						c.settled()
					}
				})
			})
		}
	}
}

// Whatever happens to accounts, ways, clouds and forwarders: when all are well again, and the dust has settled, the cloud holds what AD
// settled on.
func TestTheWinnerHasTheLastWordWhateverHappens(t *testing.T) {
	wrong := map[bool]int{}
	for seed := range uint64(8) {
		for _, settles := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d/%v", seed, settles), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					random := rand.New(rand.NewPCG(seed, 3))
					d := newDomain(t, 2+random.IntN(2), settles)
					d.live(random, 150)
					d.pass(dust)
					found := d.verdict()
					wrong[settles] += len(found)
					if settles && len(found) > 0 {
						t.Errorf("wrong: %q", found)
					}
					for _, c := range d.dcs {
						c.settled()
					}
				})
			})
		}
	}
	t.Logf("passwords that were wrong in the end: %d, without settling %d", wrong[true], wrong[false])
	if wrong[false] == 0 {
		t.Error("without settling nothing went wrong: this test sees nothing")
	}
}

// live lets so many things happen, and then makes everything well.
func (d *domain) live(random *rand.Rand, events int) {
	whole, wholeSince := true, time.Now()
	for range events {
		d.pass(time.Duration(random.Int64N(int64(10 * time.Second))))
		c := d.dcs[random.IntN(len(d.dcs))]
		switch n := random.IntN(100); {
		case n < 40:
			c.changes(byte(1 + random.IntN(10)))
		case n < 65: // at the same time
			account := byte(1 + random.IntN(10))
			for _, i := range random.Perm(len(d.dcs)) {
				d.dcs[i].changes(account)
				time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
			}
		case n < 72:
			if whole && time.Since(wholeSince) < peerLag {
				continue // such a way does not lead anywhere
			}
			whole, wholeSince = !whole, time.Now()
			d.set(func() { d.sever(!whole) })
		case n < 80:
			d.set(func() { c.offline = !c.offline })
		case n < 90:
			d.set(func() { c.slow = time.Duration(random.Int64N(int64(5 * time.Second))) })
		case n < 95:
			d.set(func() { c.lag = notifyAfter + time.Duration(random.Int64N(int64(20*time.Second))) })
		default:
			serving := false
			if d.set(func() { serving = c.serving }); serving {
				c.kill()
			} else {
				c.serve()
			}
		}
	}
	for _, c := range d.dcs {
		serving := false
		d.set(func() { serving, c.offline = c.serving, false })
		if !serving {
			c.serve()
		}
	}
	d.set(func() { d.sever(false) })
}

// What one forwarder does with one change, step by step.
func TestSettling(t *testing.T) {
	const base, risen = 4000, 4001
	peer := func(usn uint64, heard time.Time) change.Peer {
		return change.Peer{Name: "dc2", InvocationID: dsdb.GUID{2}, USN: usn, Heard: heard}
	}
	run := func(name string, then func(t *testing.T, w *world, p *place, hear func(...change.Peer))) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "cloud")
				w.ttl = time.Hour
				var mu sync.Mutex
				peers := []change.Peer{peer(base, time.Now())}
				hear := func(heard ...change.Peer) {
					mu.Lock()
					peers = heard
					mu.Unlock()
					w.pass(2 * time.Second)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				w.start()
				go w.every(ctx, func() {
					mu.Lock()
					defer mu.Unlock()
					if err := change.WriteMark(w.outgoing(), change.Mark{AsOf: time.Now(), Peers: peers}); err != nil {
						w.Error(err)
					}
				})
				w.pass(5 * time.Second)
				c := w.change(1, 2, "cloud")
				c.Peers = []change.Peer{peer(base, time.Now())}
				w.put(c)
				w.pass(2 * time.Second)
				if s := w.status("cloud"); s.Settling != 1 || s.Waiting != 0 || s.Delivered != 1 || len(w.files()) != 1 {
					t.Fatalf("after the delivery: %+v, files %q", s, w.files())
				}
				then(t, w, w.places["cloud"], hear)
				cancel()
				w.stop()
			})
		})
	}
	asked := func(t *testing.T, p *place, want int) {
		t.Helper()
		if got := len(p.asked()); got != want {
			t.Errorf("delivered %d times, want %d", got, want)
		}
	}
	run("heard, and given time to hear", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		hear(peer(risen, time.Now()))
		w.pass(settleFor - 5*time.Second)
		asked(t, p, 1)
		w.pass(8 * time.Second)
		asked(t, p, 2)
		w.happened("delivered", 1)
		w.happened("confirmed", 1)
		w.settled()
		again := w.change(1, 2, "cloud") // proven twice
		again.Peers = []change.Peer{peer(base, time.Now())}
		w.put(again)
		w.pass(2 * settleFor)
		asked(t, p, 2)
		w.settled()
	})
	run("heard before the change", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		hear(peer(risen, time.Now().Add(-10*time.Second)))
		w.pass(2 * settleFor)
		asked(t, p, 1)
	})
	run("heard, and without the change", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		for range 10 {
			hear(peer(base, time.Now()))
			w.pass(time.Minute)
		}
		asked(t, p, 1)
	})
	run("heard again and again", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		for usn := range uint64(settleFor/(3*time.Second) + 2) { // more often than in settleFor
			hear(peer(risen+usn, time.Now()))
			w.pass(time.Second)
		}
		w.pass(5 * time.Second)
		asked(t, p, 2)
	})
	run("restored", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		anew := peer(10, time.Now())
		anew.InvocationID = dsdb.GUID{3}
		hear(anew)
		w.pass(settleFor + 5*time.Second)
		asked(t, p, 2)
	})
	run("one of two", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		w.sight(1, 3)
		w.pass(2 * time.Second)
		c := w.change(1, 3, "cloud")
		c.Peers = []change.Peer{peer(base, time.Now()), {Name: "dc3", InvocationID: dsdb.GUID{4}, USN: 7}}
		w.put(c)
		hear(peer(risen, time.Now().Add(time.Second)), change.Peer{Name: "dc3"})
		w.pass(2 * settleFor)
		asked(t, p, 2)
		hear(peer(risen, time.Now()), change.Peer{Name: "dc3", InvocationID: dsdb.GUID{4}, USN: 8, Heard: time.Now()})
		w.pass(settleFor + 5*time.Second)
		asked(t, p, 3)
		w.settled()
	})
	run("no peer any more", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		hear()
		w.pass(2 * time.Second)
		asked(t, p, 2)
		w.settled()
	})
	run("superseded", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		w.sight(1, 3)
		w.pass(2 * time.Second)
		hear(peer(risen, time.Now()))
		w.pass(2 * settleFor)
		asked(t, p, 1)
		w.settled()
		w.happened("superseded", 0)
	})
	run("never heard", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		w.pass(w.ttl + 2*time.Minute)
		asked(t, p, 1)
		w.settled()
		w.happened("unsettled", 1)
		w.happened("expired", 0)
		if s := w.status("cloud"); s.Delivered != 1 || s.Expired != 0 {
			t.Errorf("it counts as %+v", s)
		}
	})
	run("gone at the target", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		p.fails(target.ErrNoUser)
		hear(peer(risen, time.Now()))
		w.pass(settleFor + 5*time.Second)
		asked(t, p, 2)
		if s := w.status("cloud"); s.Settling != 0 || s.Parked != 1 {
			t.Errorf("it counts as %+v", s)
		}
		w.settled()
	})
	run("it waited for its target so long that its first delivery is the last word", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		p.fails(errDown)
		c := w.change(2, 1, "cloud")
		c.Peers = []change.Peer{peer(base, time.Now())}
		w.put(c)
		hear(peer(risen, time.Now().Add(time.Second)))
		w.pass(settleFor + 5*time.Second)
		p.fails(nil)
		w.pass(maxDelay + time.Minute)
		w.settled()
		w.happened("delivered", 2)
		w.happened("confirmed", 1) // the first account's
	})
	run("the user has to change it at the target", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		c := w.change(2, 1, "cloud")
		c.Peers = []change.Peer{peer(base, time.Now())}
		c.Routes[0].MustChange = true
		w.put(c)
		w.pass(2 * time.Second)
		asked(t, p, 2)
		if s := w.status("cloud"); s.Settling != 1 || s.Delivered != 2 {
			t.Errorf("it counts as %+v", s)
		}
		w.stop()
		w.put(c) // was not shredded
		w.start()
		hear(peer(risen, time.Now().Add(time.Second)))
		w.pass(settleFor + 5*time.Second)
		asked(t, p, 3) // the first account's
		w.settled()
	})
	run("the target is away", func(t *testing.T, w *world, p *place, hear func(...change.Peer)) {
		p.fails(errDown)
		hear(peer(risen, time.Now()))
		w.pass(2 * settleFor)
		if s := w.status("cloud"); s.Settling != 1 || s.Waiting != 0 {
			t.Errorf("it counts as %+v", s)
		}
		p.fails(nil)
		w.pass(maxDelay + time.Minute)
		p.holds(1, 2)
		w.happened("confirmed", 1)
		w.settled()
	})
}
