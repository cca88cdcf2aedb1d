package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

var dc2 = dsdb.GUID{2}

// hears sets how far the DC has heard dc2.
func (s *site) hears(usn uint64, heard time.Time) {
	s.samba.mu.Lock()
	defer s.samba.mu.Unlock()
	s.controllers = []directory.Controller{{Name: "DC1", InvocationID: s.invocation}, {Name: "DC2", InvocationID: dc2}}
	s.neighbours = []directory.Neighbour{{InvocationID: dsdb.GUID{7}, USN: 99}, {InvocationID: dc2, USN: usn, Heard: heard}}
}

// proven returns the one change that was handed over.
func (s *site) proven() change.Change {
	s.Helper()
	files := s.list(s.outgoing, change.Suffix)
	if len(files) != 1 {
		s.Fatalf("%d changes were handed over", len(files))
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		s.Fatal(err)
	}
	c, err := change.Parse(b)
	if err != nil {
		s.Fatal(err)
	}
	return c
}

func expectPeers(t *testing.T, got []change.Peer, want ...change.Peer) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b change.Peer) bool {
		return a.Name == b.Name && a.InvocationID == b.InvocationID && a.USN == b.USN && a.Heard.Equal(b.Heard)
	}) {
		t.Errorf("peers are %+v, want %+v", got, want)
	}
}

func TestNoPeers(t *testing.T) {
	t.Run("none configured", func(t *testing.T) { testNobodyAwaited(t, nil) })
	t.Run("settle = false", func(t *testing.T) { testNobodyAwaited(t, []string{"dc2"}) })
}

func testNobodyAwaited(t *testing.T, peers []string) {
	test(t, func(s *site) {
		s.peers, s.once = peers, true
		s.hears(10, time.Now())
		alice := s.create("alice", "old")
		s.start()
		s.after(time.Minute)
		s.hook("alice", "new")
		s.set(alice, "new")
		s.after(time.Minute)
		expectPeers(t, s.proven().Peers)
		expectPeers(t, s.mark().Peers)
	})
}

// A change carries what had been heard before the capture, and what a peer did after that is not among it, however long the proof takes.
func TestPeersBeforeTheCapture(t *testing.T) {
	test(t, func(s *site) {
		s.samba.mu.Lock()
		s.latency = 200 * ms
		s.samba.mu.Unlock()
		first := time.Now()
		s.hears(10, first)
		alice := s.create("alice", "old")
		s.peers = []string{"dc2", "DC3"}
		s.start()
		s.after(time.Minute)
		for i := range 20 { // at every moment of a pass
			password := fmt.Sprint("new", i)
			s.hook("alice", password)
			later := time.Now()
			s.hears(11+uint64(i), later)
			s.after(3 * time.Second)
			s.set(alice, password)
			s.after(10 * time.Second)
			expectPeers(t, s.proven().Peers, change.Peer{Name: "dc2", InvocationID: dc2, USN: 10 + uint64(i), Heard: first}, change.Peer{Name: "DC3"})
			expectPeers(t, s.mark().Peers, change.Peer{Name: "dc2", InvocationID: dc2, USN: 11 + uint64(i), Heard: later}, change.Peer{Name: "DC3"})
			s.expect("alice=" + password)
			first = later
			s.after(130*time.Second + time.Duration(i)*53*ms)
		}
	})
}

func TestPeersBeforeTheFirstPass(t *testing.T) {
	test(t, func(s *site) {
		s.hears(10, time.Now())
		alice := s.create("alice", "old")
		s.hook("alice", "new")
		s.set(alice, "new")
		s.after(time.Second)
		s.peers = []string{"dc2"}
		s.start()
		s.after(time.Minute)
		expectPeers(t, s.proven().Peers, change.Peer{Name: "dc2"})
	})
}

// Where the DC does not tell how far it has heard the peers, only the last word waits for that: the watch goes on, and captures of which nothing
// came are dismissed, those without a name, too.
func TestPeersThatCannotBeAskedFor(t *testing.T) {
	unreadable := errors.New("LDAP result 80")
	test(t, func(s *site) {
		s.peers = []string{"dc2"}
		s.create("alice", "old")
		s.set(s.create("bob", "old"), "older")
		s.unreadable = unreadable
		s.start()
		s.after(time.Minute)
		expectPeers(t, s.mark().Peers, change.Peer{Name: "dc2"})
		for range 5 {
			s.hook("", "guess")
			s.hook("nobody", "guess")
			s.hook("alice", "guess")
		}
		s.after(5 * time.Minute)
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"agent-trouble": 2}) // and the reasons of drift

		s.mu.Lock()
		s.unreadable = nil
		s.mu.Unlock()
		heard := time.Now()
		s.hears(10, heard)
		s.after(time.Minute)
		expectPeers(t, s.mark().Peers, change.Peer{Name: "dc2", InvocationID: dc2, USN: 10, Heard: heard})
		s.mu.Lock()
		s.unreadable = unreadable
		s.mu.Unlock()
		s.hears(11, heard.Add(time.Second))
		s.after(10 * time.Minute)
		if age := time.Since(s.mark().AsOf); age > time.Minute {
			s.Errorf("the mark is %v old", age)
		}
		expectPeers(t, s.mark().Peers, change.Peer{Name: "dc2", InvocationID: dc2, USN: 10, Heard: heard})
		s.expectEvents(map[string]uint64{"agent-trouble": 3})
	})
}

func TestPeerThatJoins(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		s.peers = []string{"dc2"}
		s.start()
		s.after(time.Minute)
		expectPeers(t, s.mark().Peers, change.Peer{Name: "dc2"})
		joined := time.Now()
		s.hears(10, joined)
		s.after(time.Minute)
		expectPeers(t, s.mark().Peers, change.Peer{Name: "dc2", InvocationID: dc2, USN: 10, Heard: joined})
	})
}

// Of a peer that the DC hears by way of others the DC has no recent time.
func TestPeerHeardByWayOfOthers(t *testing.T) {
	test(t, func(s *site) {
		never := time.Unix(0, 0)
		s.hears(10, never)
		s.create("alice", "old")
		s.peers = []string{"dc2"}
		s.start()
		s.after(10 * time.Minute)
		expectPeers(t, s.mark().Peers, change.Peer{Name: "dc2", InvocationID: dc2, USN: 10, Heard: never})
		s.hears(11, never)
		s.after(time.Minute)
		got := s.mark().Peers
		if age := time.Since(got[0].Heard); got[0].USN != 11 || age < time.Minute-2*watchEvery || age > time.Minute+2*watchEvery {
			t.Errorf("it was heard %v ago: %+v", age, got)
		}
	})
}
