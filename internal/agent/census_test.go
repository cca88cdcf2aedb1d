package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/agent/census"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/index"
)

// finds returns the policy and the targets that the hook finds, "unknown" if it finds nothing.
func (s *site) finds(name string) string {
	s.Helper()
	ix, err := index.Open(s.index())
	if err != nil {
		return err.Error()
	}
	defer ix.Close()
	e, found, err := ix.Find(name)
	if err != nil {
		s.Fatal(err)
	}
	if !found {
		return "unknown"
	}
	return e.Policy + ":" + strings.Join(e.Targets, ",")
}

func (s *site) expectFinds(name, want string) {
	s.Helper()
	if got := s.finds(name); got != want {
		s.Errorf("the hook finds of %s %q, want %q; log:\n%s", name, got, want, s.log.String())
	}
}

func TestIndexIsKept(t *testing.T) {
	test(t, func(s *site) {
		s.rules = &census.Rules{Wanted: true, Policies: []census.Policy{{Name: "odd", Filter: "(odd=1)"}}}
		alice, bob := s.create("alice", "Passw0rd"), s.create("bob", "Passw0rd", "odd=1", "protected=yes")
		s.start()
		s.after(time.Second)
		s.expectFinds("Alice", ":cloud")
		s.expectFinds("bob", "odd:")
		s.rename(alice, "alicia")
		s.remove(bob)
		s.after(census.Every)
		s.expectFinds("alice", "unknown")
		s.expectFinds("bob", "unknown")
		s.expectFinds("alicia", ":cloud")
		if p := s.agent.Status().Policies; !p.Kept || p.Accounts != 1 || p.Policies["default"] != 1 {
			t.Errorf("status is %+v", p)
		}

		// The file outlives the agent, the DC's absence, and an account that nobody has asked about.
		s.setDown(true)
		s.after(time.Minute)
		s.expectFinds("alicia", ":cloud")
		if p := s.agent.Status().Policies; p.Error == "" {
			t.Errorf("status is %+v", p)
		}
		s.stop()
		s.expectFinds("alicia", ":cloud")
		s.setDown(false)
		s.create("carol", "Passw0rd", "odd=1")
		s.start()
		s.after(time.Second)
		s.expectFinds("carol", "odd:cloud")
	})
}

// A filter that the DC does not answer in time holds up no proof, and not the watch.
func TestFilterThatIsNotAnswered(t *testing.T) {
	test(t, func(s *site) {
		s.rules = &census.Rules{Wanted: true, Policies: []census.Policy{{Name: "odd", Filter: "(odd=1)"}}}
		s.stuck = "(odd=1)"
		guid := s.create("alice", "Passw0rd")
		s.start()
		for range 20 {
			s.after(10 * time.Second)
			s.hook("alice", "N3wPassword")
			s.set(guid, "N3wPassword")
			s.tick()
			s.after(time.Second)
			if s.agent.Status().Directory.Error != "" || time.Since(s.agent.Status().Watch.Mark) > 2*time.Second {
				t.Fatalf("status is %+v", s.agent.Status())
			}
		}
		if n := s.agent.Status().Captures.Proven; n != 20 {
			t.Errorf("%d captures are proven", n)
		}
		if n := strings.Count(s.log.String(), "census-trouble"); n != 1 || strings.Contains(s.log.String(), "directory-down") {
			t.Errorf("said %d times; log:\n%s", n, s.log.String())
		}
	})
}

func TestNoIndex(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "Passw0rd")
		s.start()
		s.after(time.Minute)
		if p := s.agent.Status().Policies; p.Kept || s.samba.dials != 2 {
			t.Errorf("%d connections; status is %+v", s.samba.dials, p)
		}
	})
}
