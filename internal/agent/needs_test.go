package agent

import (
	"os"
	"testing"
)

// A key is needed while a capture whose proof box is sealed to it waits.
func TestNeeds(t *testing.T) {
	test(t, func(s *site) {
		s.start()
		s.stop() // nobody takes in what comes now
		s.ticks = nil
		needs := func(want bool) {
			s.Helper()
			if got, err := s.agent.Needs(agentKey.Public().ID()); err != nil || got != want {
				s.Errorf("needed: %v, %v, want %v", got, err, want)
			}
		}
		needs(false)
		h := s.hook("alice", "Horse-Battery-1")
		needs(true)
		if got, err := s.agent.Needs(forwarderKey.Public().ID()); err != nil || got {
			s.Errorf("the forwarder's box makes the agent's key needed: %v, %v", got, err)
		}
		if err := os.Remove(s.incoming + "/" + h.FileName()); err != nil {
			s.Fatal(err)
		}
		needs(false)
		h, file := s.captured("alice", "Horse-Battery-1")
		s.write(h.FileName(), file[:100]) // still being written
		needs(true)
		if err := os.RemoveAll(s.incoming); err != nil {
			s.Fatal(err)
		}
		if _, err := s.agent.Needs(agentKey.Public().ID()); err == nil {
			s.Error("a folder that cannot be read needs nothing")
		}
	})
}
