package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/refusal"
)

// What the hook noted is counted within seconds, also while the directory is down, and does not get into anything's way.
func TestRefusalsAreCounted(t *testing.T) {
	test(t, func(s *site) {
		s.start()
		file := filepath.Join(s.state, "refused")
		r := refusal.Record{Time: time.Now(), Account: "alice", Policy: "default", Rules: []string{"length"}}
		if err := refusal.Append(file, r); err != nil {
			s.Fatal(err)
		}
		time.Sleep(countEvery + ms)
		if p := s.agent.Status().Refusals.Policies; len(p) != 1 || p[0].Passwords.Total != 1 || p[0].Rules[0].Rule != "length" {
			s.Errorf("counted %+v", p)
		}
		s.stop()
		if err := refusal.Append(file, r); err != nil {
			s.Fatal(err)
		}
		s.start()
		time.Sleep(countEvery + ms)
		if p := s.agent.Status().Refusals.Policies; len(p) != 1 || p[0].Passwords.Total != 2 || p[0].Passwords.Started != 1 {
			s.Errorf("after a restart: %+v", p)
		}

		// What cannot be read is said once.
		if err := os.Mkdir(file, 0o700); err != nil {
			s.Fatal(err)
		}
		time.Sleep(10 * countEvery)
		if n := s.events.Counters()["agent-trouble"]; n != 1 {
			s.Errorf("said %d times:\n%s", n, &s.log)
		}
	})
}
