package agent

import (
	"testing"
	"time"
)

func TestWhy(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(5 * time.Minute)
		for _, name := range []string{"alice", "ALICE", alice.String()} {
			k := s.agent.Why(s.Context(), name)
			if !k.Found || k.Account != "alice" || k.GUID != alice || k.Error != "" || k.Captures != 0 || k.Undecided || len(k.Targets) != 1 || k.Targets[0].Target != "cloud" ||
				k.Stamp.IsZero() || k.Since.IsZero() || !k.Directory.Up {
				t.Errorf("%s: %+v", name, k)
			}
		}
		if k := s.agent.Why(s.Context(), "bob"); k.Found || k.Error != "" {
			t.Errorf("%+v", k)
		}

		// A capture waits, also one of an account that is not there (yet).
		s.hook("Alice", "new")
		s.hook("bob", "new")
		s.after(100 * ms)
		for _, name := range []string{"alice", alice.String(), "Bob"} {
			if k := s.agent.Why(s.Context(), name); k.Captures != 1 || k.Oldest.IsZero() {
				t.Errorf("%s: %+v", name, k)
			}
		}
		before := s.agent.Why(s.Context(), "alice").Stamp
		s.set(alice, "new")
		s.after(2 * time.Second)
		if k := s.agent.Why(s.Context(), "alice"); k.Captures != 0 || !k.Undecided || k.Stamp.Compare(before) <= 0 {
			t.Errorf("%+v", k)
		}

		// A DC that does not answer holds nobody up.
		s.setDown(true)
		s.after(time.Minute)
		began := time.Now()
		if k := s.agent.Why(s.Context(), "alice"); k.Found || k.Error == "" || k.Directory.Up || time.Since(began) > 0 {
			t.Errorf("%+v after %v", k, time.Since(began))
		}
	})
}

func TestEscaped(t *testing.T) {
	if got := escaped("a*)ü"); got != `\61\2a\29\c3\bc` {
		t.Error(got)
	}
}
