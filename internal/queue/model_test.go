package queue

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// place is a target and account, the unit that the queue keeps apart.
type place struct {
	target  string
	account byte
}

type modelItem struct {
	version  int
	parked   bool
	sent     bool // delivered, and not for the last time
	settling bool
}

// name and moment are what an account is called with a version of its password, and when that was proven: three accounts share two
// names, and versions of different accounts alternate.
func (p place) name(version int) string {
	return fmt.Sprintf("%s name%d", p.target, (int(p.account)*version+version/3)%2)
}
func (p place) moment(version int) int { return 4*version + int(p.account) }
func (p place) item(version int) Item {
	i := item(p.target, p.account, version)
	i.Place, i.Proven = p.name(version), at(p.moment(version))
	return i
}

// rivals reports whether two items cannot be in the queue together, and newer which of them stays.
func rivals(p place, version int, other place, otherVersion int) bool {
	return p == other || p.name(version) == other.name(otherVersion)
}

func newer(p place, version int, other place, otherVersion int) bool {
	if p == other {
		return version > otherVersion
	}
	return p.moment(version) > other.moment(otherVersion)
}

// model is the queue as one would write it without files, heaps and leases: what lies in each place, and who holds it.
type model struct {
	q         *Queue
	path      string
	items     map[place]modelItem
	held      map[place]Lease
	leased    map[place]int // the last version that was leased
	delivered map[place]int
	seen      map[byte]int     // the newest version that superseded others
	claims    map[string]claim // by name: who was the last to be added for it
	last      map[string]claim // by name: who was leased last
}

type claim struct {
	place
	version int
}

// Any sequence of calls and restarts keeps the promises of the package comment.
func TestModel(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "queue") // thousands of transactions: the disk is no part of this test
	if err != nil {
		dir = t.TempDir()
	}
	defer os.RemoveAll(dir)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		m := &model{
			path:  filepath.Join(dir, fmt.Sprintf("%d.db", n)),
			items: map[place]modelItem{}, held: map[place]Lease{}, leased: map[place]int{}, delivered: map[place]int{}, seen: map[byte]int{},
			claims: map[string]claim{}, last: map[string]claim{},
		}
		m.open(t)
		defer func() { _, _ = m.q.Close(), os.Remove(m.path) }()
		t.Repeat(map[string]func(*rapid.T){
			"add":       m.add,
			"supersede": m.supersede,
			"lease":     m.lease,
			"done": func(t *rapid.T) {
				m.giveBack(t, func(l Lease) error { return m.q.Return(l.Done()) }, func(p place) {
					m.deliver(t, p)
					delete(m.items, p)
				})
			},
			"settle": func(t *rapid.T) {
				m.giveBack(t, func(l Lease) error { return m.q.Return(l.Settle()) }, func(p place) {
					m.deliver(t, p)
					m.items[p] = modelItem{version: m.items[p].version, sent: true, settling: true}
				})
			},
			"rouse": m.rouse,
			"retry": func(t *rapid.T) {
				m.giveBack(t, func(l Lease) error { return m.q.Return(l.Retry(at(7), target.Temporary, "later")) }, nil)
			},
			"release": func(t *rapid.T) {
				m.giveBack(t, func(l Lease) error { m.q.Release(l); return nil }, nil)
			},
			"park": func(t *rapid.T) {
				m.giveBack(t, func(l Lease) error { return m.q.Return(l.Park(target.NoUser, "who?")) },
					func(p place) {
						m.items[p] = modelItem{version: m.items[p].version, parked: true, sent: m.items[p].sent}
					})
			},
			"restart": func(t *rapid.T) {
				if err := m.q.Close(); err != nil {
					t.Fatal(err)
				}
				m.held = map[place]Lease{}
				m.open(t)
			},
			"": m.check,
		})
	})
}

// deliver holds of the first delivery of an item, and of one once more.
func (m *model) deliver(t *rapid.T, p place) {
	i := m.items[p]
	if i.version < m.delivered[p] || i.version == m.delivered[p] && !i.sent {
		t.Fatalf("%v: delivered version %d after %d", p, i.version, m.delivered[p])
	}
	m.delivered[p] = i.version
}

func (m *model) rouse(t *rapid.T) {
	account, want := accounts.Draw(t, "account"), 0
	for p, i := range m.items {
		if p.account == account && i.settling {
			m.items[p] = modelItem{version: i.version, sent: true}
			want++
		}
	}
	if n, err := m.q.Rouse(func(s Settler) bool { return s.Account == dsdb.GUID{account} }); err != nil || n != want {
		t.Fatalf("roused %d items instead of %d: %v", n, want, err)
	}
}

func (m *model) open(t *rapid.T) {
	q, err := Open(m.path, nil) // an undamaged file has no events
	if err != nil {
		t.Fatal(err)
	}
	m.q = q
}

var (
	targets  = rapid.SampledFrom([]string{"a", "b"})
	accounts = rapid.ByteRange(1, 3)
	versions = rapid.IntRange(1, 12)
)

func (m *model) add(t *rapid.T) {
	var items []Item
	before := maps.Clone(m.items)
	for range rapid.IntRange(1, 3).Draw(t, "how many") {
		p := place{targets.Draw(t, "target"), accounts.Draw(t, "account")}
		version := versions.Draw(t, "version")
		c, claimed := m.claims[p.name(version)]
		if _, there := m.items[p]; !there && version < m.leased[p] || version <= m.delivered[p] || version < m.seen[p.account] ||
			claimed && c.account != p.account && newer(c.place, c.version, p, version) {
			continue // the ledger keeps these from the queue
		}
		if !claimed || newer(p, version, c.place, c.version) {
			m.claims[p.name(version)] = claim{p, version}
		}
		items = append(items, p.item(version))
		wins := true
		for _, there := range []map[place]modelItem{before, m.items} {
			for other, i := range there {
				wins = wins && (!rivals(p, version, other, i.version) || newer(p, version, other, i.version))
			}
		}
		if wins {
			maps.DeleteFunc(m.items, func(other place, i modelItem) bool { return rivals(p, version, other, i.version) })
			m.items[p] = modelItem{version: version}
		}
	}
	if _, err := m.q.Add(items...); err != nil {
		t.Fatal(err)
	}
}

func (m *model) supersede(t *rapid.T) {
	account, version := accounts.Draw(t, "account"), versions.Draw(t, "version")
	m.seen[account] = max(m.seen[account], version)
	want := 0
	for p, i := range m.items {
		if p.account == account && i.version < version {
			delete(m.items, p)
			want++
		}
	}
	dropped, err := m.q.Supersede(slices.Values([]dsdb.GUID{{account}}), slices.Values([]string(nil)), func(i Item) bool {
		return i.Stamp.Compare(stamp(version)) < 0
	})
	if err != nil || len(dropped) != want {
		t.Fatalf("dropped %d items instead of %d: %v", len(dropped), want, err)
	}
}

func (m *model) lease(t *rapid.T) {
	name := targets.Draw(t, "target")
	can := false
	for p, i := range m.items {
		busy := false
		for other, l := range m.held {
			busy = busy || rivals(p, i.version, other, int(l.Stamp.Version))
		}
		can = can || p.target == name && !i.parked && !i.settling && !busy
	}
	l, ok, err := m.q.Lease(name, time.Time{}, forever)
	if err != nil {
		t.Fatal(err)
	}
	if ok != can {
		t.Fatalf("leased: %v, possible: %v", ok, can)
	}
	if !ok {
		return
	}
	p := place{name, l.Account.GUID[0]}
	version := int(l.Stamp.Version)
	if _, held := m.held[p]; held {
		t.Fatalf("%v: leased twice at once", p)
	}
	if i := m.items[p]; i.parked || i.settling || i.version != version {
		t.Fatalf("%v: leased version %d, there is %+v", p, version, i)
	}
	for other, l := range m.held {
		if rivals(p, version, other, int(l.Stamp.Version)) {
			t.Fatalf("%v and %v are leased at once", p, other)
		}
	}
	if version < m.leased[p] {
		t.Fatalf("%v: leased version %d after %d", p, version, m.leased[p])
	}
	if last, ok := m.last[p.name(version)]; ok && last.account != p.account && newer(last.place, last.version, p, version) {
		t.Fatalf("%s: leased %v version %d after %v", p.name(version), p, version, last)
	}
	m.held[p], m.leased[p], m.last[p.name(version)] = l, version, claim{p, version}
}

// giveBack returns a held lease; effect is what that does to the item if the lease still stands for it.
func (m *model) giveBack(t *rapid.T, call func(Lease) error, effect func(place)) {
	var held []place
	for _, name := range []string{"a", "b"} {
		for account := range byte(4) {
			if _, ok := m.held[place{name, account}]; ok {
				held = append(held, place{name, account})
			}
		}
	}
	if len(held) == 0 {
		t.Skip("no lease")
	}
	p := rapid.SampledFrom(held).Draw(t, "lease")
	l := m.held[p]
	delete(m.held, p)
	if m.items[p].version == int(l.Stamp.Version) && effect != nil {
		effect(p)
	}
	if err := call(l); err != nil {
		t.Fatal(err)
	}
}

func (m *model) check(t *rapid.T) {
	items := all(t, m.q)
	if len(items) != len(m.items) {
		t.Fatalf("%d items, want %d", len(items), len(m.items))
	}
	files := map[string]bool{}
	for _, i := range items {
		p := place{i.Target, i.Account.GUID[0]}
		if want := m.items[p]; want.version != int(i.Stamp.Version) || want.parked != i.Parked || i.Parked != (i.File == "") ||
			want.settling != i.Settling || want.sent == i.Delivered.IsZero() {
			t.Fatalf("%v: %+v, want %+v", p, i, want)
		}
		files[i.File] = true
	}
	for _, name := range []string{"a", "b"} {
		var want Counts
		for p, i := range m.items {
			switch {
			case p.target != name:
			case i.parked:
				want.Parked++
			case i.sent:
				want.Delivered++
			default:
				want.Waiting++
			}
		}
		if got := m.q.Count(name); got != want {
			t.Fatalf("%s: counts %+v, want %+v", name, got, want)
		}
	}
	for account := range byte(4) {
		for version := range 13 {
			if file := item("", account, version).File; m.q.Needs([]byte(file)) != files[file] {
				t.Fatalf("Needs(%s) = %v", file, !files[file])
			}
		}
	}
	for p, l := range m.held {
		if want := m.items[p].version == int(l.Stamp.Version); m.q.Current(l) != want {
			t.Fatalf("%v: Current = %v", p, !want)
		}
	}
}
