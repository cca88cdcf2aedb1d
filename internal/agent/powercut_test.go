package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/checked"
	"github.com/samba-pwsync/samba-pwsync/internal/crash"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const crowd = 4 // accounts that change their passwords

// runIn is an agent's life in a folder: captures are taken, unless an earlier life of it did, the directory commits, and they are handed over. Its time
// begins anew each time, and the directory does the same at the same moments.
func runIn(t *testing.T, dir string) {
	for name, key := range map[string]*seal.PrivateKey{"agent.key": &agentKey, "forwarder.key": &forwarderKey} {
		var err error
		if *key, err = seal.LoadPrivate(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	testIn(t, dir, func(s *site) {
		var guids []dsdb.GUID
		for n := range crowd {
			guids = append(guids, s.create(fmt.Sprint("user", n), "old"))
		}
		s.after(time.Hour)
		taken, err := os.ReadFile(filepath.Join(dir, "taken")) // outlives the captures
		if err != nil {
			s.Fatal(err)
		}
		if len(taken) == 0 {
			for n := range crowd {
				h := s.hook(fmt.Sprint("user", n), fmt.Sprint("new", n))
				crash.Say("taken " + h.ID.String())
			}
			if err := os.WriteFile(filepath.Join(dir, "taken"), []byte("all"), 0o600); err != nil {
				s.Fatal(err)
			}
		}
		s.after(time.Second)
		for n, guid := range guids {
			s.set(guid, fmt.Sprint("new", n))
		}
		s.start()
		s.after(3 * time.Second)
		for n := range crowd {
			if got := s.stamp(guids[n]); got.Version != 2 {
				s.Errorf("version %d", got.Version)
			}
		}
		if len(taken) == 0 { // else one that was being shredded may be there as zeros, until it is set aside
			s.expectWaiting(0)
		}
	})
}

// The power is cut at any moment of a hand-over, in some recordings after the agent had been killed and started again. Each capture is in incoming
// still, or its change in outgoing, whole. And whatever the watch's
// mark covers has been passed on.
func TestPowerCut(t *testing.T) {
	if dir, ok := crash.Inside(); ok {
		runIn(t, dir)
		return
	}
	run := trial.Start(t, "handover", 3000)
	var traces []*crash.Trace
	for n := range max(12, min(200, run.N/500)) {
		dir := crash.Folder(t)
		for name, key := range map[string]seal.PrivateKey{"agent.key": agentKey, "forwarder.key": forwarderKey} {
			pem, err := key.MarshalPEM()
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), pem, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, folder := range []string{"incoming", "outgoing", "agent"} {
			if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "taken"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		trace, err := crash.New(dir)
		if err != nil {
			t.Fatal(err)
		}
		for kills := n % 3; kills >= 0; kills-- {
			kill := -1
			if kills > 0 {
				kill = 5*crowd + run.Rand.IntN(100) // not before all captures have been taken
			}
			if _, err := trace.Run(crash.Self(t, "TestPowerCut", dir), kill); err != nil {
				t.Fatal(err)
			}
			if err := trace.Check(); err != nil {
				t.Fatal(err)
			}
		}
		traces = append(traces, trace)
	}
	run.Note("%d recordings", len(traces))
	crash.Hold(t, run, traces, handedOver(), crash.FileSync, crash.FolderSync)
}

// handedOver returns a check of what a power cut left.
func handedOver() func(crash.State) error {
	memo := map[string]string{} // contents are few, and opening boxes takes long
	ask := func(content []byte, open func() (string, error)) string {
		id, known := memo[string(content)]
		if !known {
			id, _ = open()
			memo[string(content)] = id
		}
		return id
	}
	return func(state crash.State) error {
		have, passed := map[string]bool{}, map[dsdb.GUID]uint32{}
		for path, content := range state.Files {
			switch {
			case strings.HasPrefix(path, "incoming/"):
				have[ask(content, func() (string, error) {
					c, err := capture.Parse(content)
					if err != nil {
						return "", err
					}
					_, err1 := seal.Open(agentKey, capture.ProofInfo(c.Raw), c.ProofBox)
					_, err2 := seal.Open(forwarderKey, capture.SecretInfo(c.Raw), c.SecretBox)
					return c.ID.String(), errors.Join(err1, err2)
				})] = true
			case strings.HasSuffix(path, change.Suffix):
				have[ask(content, func() (string, error) {
					c, err := change.Parse(content)
					if err != nil {
						return "", err
					}
					_, err = seal.Open(forwarderKey, capture.SecretInfo(c.Header), c.SecretBox)
					return c.Capture, err
				})] = true
			case strings.HasSuffix(path, change.SightingsSuffix):
				sightings, _ := change.ParseSightings(filepath.Base(path), content)
				for _, s := range sightings {
					passed[s.Account.GUID] = max(passed[s.Account.GUID], s.Stamp.Version)
				}
			}
		}
		var mark change.Mark
		text, err := checked.Text(state.Files["outgoing/mark"])
		if err == nil && json.Unmarshal(text, &mark) == nil {
			for n := range crowd { // the directory had committed everything before the agent looked
				if guid := (dsdb.GUID{byte(n), 0, 0xac}); passed[guid] < 2 {
					return fmt.Errorf("the mark covers user%d, and version %d was passed on", n, passed[guid])
				}
			}
		}
		for _, what := range state.Said {
			if id, ok := strings.CutPrefix(what, "taken "); ok && !have[id] {
				return fmt.Errorf("the capture %s is lost", id)
			}
		}
		return nil
	}
}
