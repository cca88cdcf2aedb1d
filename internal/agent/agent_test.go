package agent

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/agent/census"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/docket"
	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/prooftest"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

var agentKey, forwarderKey = mustGenerate(), mustGenerate()

func mustGenerate() seal.PrivateKey {
	key, err := seal.Generate()
	if err != nil {
		panic(err)
	}
	return key
}

// site is an agent with its folders and its DC, inside a synctest bubble: time stands still while anything works.
type site struct {
	*testing.T
	*samba
	incoming, outgoing, state string
	log                       bytes.Buffer
	events                    *event.Log
	routes                    *route.Table
	byKey                     bool
	peers                     []string
	once                      bool          // with [directory] settle = false
	rules                     *census.Rules // nil: no index is kept

	byPassword bool   // what the hook puts into proof boxes
	upn        string // that Samba tells the hook

	agent *Agent
	ticks chan struct{}
	stop  func()
}

// test runs f in a bubble at a site where no agent runs yet.
func test(t *testing.T, f func(*site)) {
	dir := t.TempDir()
	for _, folder := range []string{"incoming", "outgoing", "agent"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	testIn(t, dir, f)
}

// testIn is test in a folder that has the site's.
func testIn(t *testing.T, dir string, f func(*site)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(24 * time.Hour) // so that yesterday is after 2000, where the bubble's clock begins
		s := &site{T: t, samba: newSamba(), incoming: dir + "/incoming", outgoing: dir + "/outgoing", state: dir + "/agent"}
		routes, err := route.New([]route.Target{{Name: "cloud", UserAttribute: "mail"}}, route.Scope{Exclude: "(adminCount=1)"})
		if err != nil {
			t.Fatal(err)
		}
		s.routes = routes
		s.events = event.New(slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		f(s)
		if s.stop != nil {
			s.stop()
		}
	})
}

func (s *site) start() {
	s.Helper()
	agent, err := New(Options{Incoming: s.incoming, Outgoing: s.outgoing, Refusals: filepath.Join(s.state, "refused"), StateDir: s.state, Key: agentKey, Dial: s.dial,
		Routes: s.routes, ByKey: s.byKey, Peers: s.peers, Settle: !s.once, Host: "dc1", Log: s.events, Index: s.index(),
		Rules: func() (census.Rules, error) { return *s.rules, nil }})
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.Context())
	var running sync.WaitGroup
	s.agent, s.ticks = agent, make(chan struct{}, 1)
	s.tick()
	running.Go(func() { agent.run(ctx, s.ticks) })
	s.stop = func() {
		cancel()
		running.Wait()
		s.stop = nil
	}
}

func (s *site) index() string {
	if s.rules == nil {
		return ""
	}
	return s.state + "/accounts.index"
}

func (s *site) tick() {
	select {
	case s.ticks <- struct{}{}:
	default:
	}
}

// captured is what the hook writes.
func (s *site) captured(account, password string) (capture.Header, []byte) {
	s.Helper()
	h := capture.Header{ID: capture.NewID(), Time: time.Now().UTC().Round(0), Host: "dc1", Account: account, UserPrincipalName: s.upn}
	raw, err := h.Marshal()
	if err != nil {
		s.Fatal(err)
	}
	content := box.EncodeNTHash([16]byte(hash(password)))
	if s.byPassword {
		content = box.EncodePassword([]byte(password))
	}
	proofBox, err1 := seal.Close(agentKey.Public(), capture.ProofInfo(raw), content)
	secretBox, err2 := seal.Close(forwarderKey.Public(), capture.SecretInfo(raw), []byte(password))
	if err := errors.Join(err1, err2); err != nil {
		s.Fatal(err)
	}
	return h, capture.Encode(raw, proofBox, secretBox)
}

// hookSure does as the hook does where Samba names the user principal name, which it does for nothing but a change.
func (s *site) hookSure(account, password string) {
	s.Helper()
	s.upn = account + "@corp.example"
	defer func() { s.upn = "" }()
	s.hook(account, password)
}

// hook does as the hook does.
func (s *site) hook(account, password string) capture.Header {
	s.Helper()
	h, file := s.captured(account, password)
	s.write(h.FileName(), file)
	return h
}

func (s *site) write(name string, b []byte) {
	s.Helper()
	if err := durable.Create(filepath.Join(s.incoming, name), b, 0o600); err != nil {
		s.Fatal(err)
	}
	if s.ticks != nil {
		s.tick()
	}
}

// after lets time pass and everything settle.
func (s *site) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *site) list(dir, suffix string) []string {
	s.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		s.Fatal(err)
	}
	return names
}

// changes returns what has been handed over, as "account=password", and checks what the forwarder relies on.
func (s *site) changes() []string {
	s.Helper()
	got := []string{}
	for _, file := range s.list(s.outgoing, change.Suffix) {
		b, err := os.ReadFile(file)
		if err != nil {
			s.Fatal(err)
		}
		c, err := change.Parse(b)
		if err != nil {
			s.Fatal(err)
		}
		h, err := capture.ParseHeader(c.Header)
		if err != nil {
			s.Fatal(err)
		}
		secret, err := seal.Open(forwarderKey, capture.SecretInfo(c.Header), c.SecretBox)
		if err != nil {
			s.Fatalf("secret box of %s: %v", file, err)
		}
		if h.ID.String() != c.Capture || !h.Time.Equal(c.Captured) || c.Stamp.IsZero() || c.Proven.After(time.Now()) {
			s.Errorf("change makes no sense: %+v", c)
		}
		got = append(got, c.Account.SAMAccountName+"="+string(secret.Bytes()))
	}
	slices.Sort(got)
	return got
}

// expect checks what has been handed over since the last call, as a forwarder that takes it.
func (s *site) expect(want ...string) {
	s.Helper()
	if want == nil {
		want = []string{}
	}
	slices.Sort(want)
	if got := s.changes(); !slices.Equal(got, want) {
		s.Errorf("handed over: %q, want %q; log:\n%s", got, want, s.log.String())
	}
	for _, file := range s.list(s.outgoing, change.Suffix) {
		if err := os.Remove(file); err != nil {
			s.Fatal(err)
		}
	}
}

func (s *site) expectWaiting(want int) {
	s.Helper()
	if got := len(s.list(s.incoming, capture.Suffix)); got != want {
		s.Errorf("%d captures lie in incoming, want %d; log:\n%s", got, want, s.log.String())
	}
	if got := s.agent.Status().Captures.Pending; got != want {
		s.Errorf("%d captures wait, want %d", got, want)
	}
}

func (s *site) expectEvents(want map[string]uint64) {
	s.Helper()
	counters := s.events.Counters()
	for name, n := range want {
		if counters[name] != n {
			s.Errorf("%d events %s, want %d; log:\n%s", counters[name], name, n, s.log.String())
		}
	}
}

// sighted returns the accounts whose stamps were passed on since the last call, in order.
func (s *site) sighted() []string {
	s.Helper()
	var names []string
	for _, file := range s.list(s.outgoing, change.SightingsSuffix) {
		b, err := os.ReadFile(file)
		if err != nil {
			s.Fatal(err)
		}
		seen, err := change.ParseSightings(filepath.Base(file), b)
		if err != nil {
			s.Fatal(err)
		}
		for _, one := range seen {
			if one.Wanted != nil {
				continue // see decided
			}
			what := fmt.Sprintf("%s@%d", one.Account.SAMAccountName, one.Stamp.Version)
			if one.Gone {
				what = one.Account.SAMAccountName + " gone"
			}
			if one.Reset {
				what += " reset"
			}
			if one.Whole {
				what = "whole"
			}
			names = append(names, what)
		}
		if err := os.Remove(file); err != nil {
			s.Fatal(err)
		}
	}
	return names
}

func (s *site) mark() change.Mark {
	s.Helper()
	m, err := change.ReadMark(s.outgoing)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Fatal(err)
	}
	return m
}

const ms = time.Millisecond

func TestChangeIsHandedOverAsSoonAsItIsCommitted(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(5 * time.Minute)
		s.hook("ALICE", "new")
		s.after(60 * ms)
		s.expect()
		s.set(alice, "new")
		s.after(4 * ms)
		s.expect("alice=new")
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"proven": 1, "directory-up": 1, "directory-down": 0})
	})
}

func TestLateCommit(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.hook("alice", "new")
		s.after(110 * time.Second)
		s.expectWaiting(1)
		s.set(alice, "new")
		s.after(watchEvery + ms) // the watch sees it before the next look would be due
		s.expect("alice=new")
	})
}

func TestAccountThatIsBeingCreated(t *testing.T) {
	test(t, func(s *site) {
		s.start()
		s.hook("alice", "new")
		s.after(200 * ms)
		s.create("alice", "new")
		s.after(4 * ms)
		s.expect("alice=new")
		s.expectWaiting(0)
	})
}

// Samba refuses after the hook's 0: the password is one of the last few.
func TestRefusedByHistory(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		s.start()
		s.hook("alice", "older")
		s.after(119 * time.Second)
		s.expectWaiting(1)
		s.after(7 * time.Second)
		s.expectWaiting(0)
		s.expect()
		s.expectEvents(map[string]uint64{"proven": 0, "never-committed": 1})
	})
}

func TestForgedThenTheVictimsOwnChange(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.hook("alice", "forged")
		s.after(time.Second)
		s.hook("alice", "real")
		s.after(50 * ms)
		s.set(alice, "real")
		s.after(10 * time.Minute)
		s.expect("alice=real")
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"proven": 1, "never-committed": 1})
	})
}

func TestThereAndBack(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		for range 3 {
			for _, password := range []string{"A", "B"} {
				s.hook("alice", password)
				s.after(50 * ms)
				s.set(alice, password)
				s.after(4 * ms)
				s.expect("alice=" + password)
			}
		}
		s.expectWaiting(0)
	})
}

// Three changes while the agent was down: the first capture's password is current again, and the second's is not.
func TestThereAndBackWhileDown(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		for _, password := range []string{"A", "B", "A"} {
			s.hook("alice", password)
			s.after(50 * ms)
			s.set(alice, password)
		}
		s.start()
		s.after(10 * time.Minute)
		s.expect("alice=A") // once: both captures are of the same version
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"never-committed": 1})
	})
}

// A capture is proven for two versions, since the password was set once more: the forwarder may still have the first one's file.
func TestOneCaptureOfTwoVersions(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(time.Minute)
		s.hook("", "new")
		for range 2 {
			s.set(alice, "new")
			s.after(2 * time.Second)
		}
		s.expect("alice=new", "alice=new")
	})
}

func TestDirectoryDownAndUp(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		bob := s.create("bob", "old")
		s.start()
		s.after(time.Minute)
		s.hook("alice", "new")
		s.hook("bob", "never")
		s.after(10 * ms)
		s.setDown(true)
		s.hook("bob", "new")
		s.after(24 * time.Hour)
		s.expectWaiting(3)
		s.expectEvents(map[string]uint64{"directory-down": 1, "directory-up": 1})
		if up := s.agent.Status().Directory; up.Up || up.Error == "" || up.DC != "dc1.corp.example" || time.Since(up.Since) < 23*time.Hour {
			s.Errorf("status is %+v", up)
		}
		s.set(alice, "new")
		s.set(bob, "new")
		s.setDown(false)
		s.after(lastRedial + ms)
		s.expect("alice=new", "bob=new")
		s.after(time.Minute)
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"directory-down": 1, "directory-up": 2, "never-committed": 1})
		if !s.agent.Status().Directory.Up {
			s.Error("status says down")
		}

		// A short outage is over as soon as it is: the pauses begin anew.
		s.setDown(true)
		s.after(watchEvery + 10*ms)
		s.setDown(false)
		s.after(time.Second)
		s.expectEvents(map[string]uint64{"directory-down": 2, "directory-up": 3})
	})
}

// A DC that takes connections and answers no search on them is dialled no more often than one that is down, and is one outage.
func TestDirectoryLosesEachConnection(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "new")
		s.loseSearches(true)
		s.hook("alice", "new")
		s.start()
		s.after(5 * time.Minute)
		if _, _, dials := s.counts(); dials < 200 || dials > 400 {
			s.Errorf("%d dials in five minutes", dials)
		}
		s.expectEvents(map[string]uint64{"directory-down": 1, "directory-up": 1})
		s.loseSearches(false)
		s.after(2*lastRedial + ms)
		s.expect("alice=new")
		s.expectEvents(map[string]uint64{"directory-down": 1, "directory-up": 2})
	})
}

// Somebody has Samba ask the hook about a password again and again, by SamrValidatePassword, and it is the right one.
func TestCapturesOfOneVersionAreHandedOverOnce(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.hook("alice", "new")
		s.set(alice, "new")
		for range 100 {
			s.after(10 * ms)
			s.hook("alice", "new")
		}
		s.after(time.Second)
		s.expect("alice=new")
		s.after(10 * time.Minute)
		s.expect()
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"proven": 1, "repeated": 100})
	})
}

// Set once more is another version, also if the capture is held against the one before, because Samba has not committed yet.
func TestTheSamePasswordOnceMore(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		for range 3 {
			s.hook("alice", "new")
			s.after(50 * ms)
			s.set(alice, "new")
			s.after(time.Second + 4*ms)
			s.expect("alice=new")
		}
		s.after(10 * time.Minute)
		s.expect()
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"proven": 3, "never-committed": 0})
	})
}

// So it is where this process has not handed the version before over: it was proven before a restart, or is older than the agent.
func TestTheSamePasswordAfterAStart(t *testing.T) {
	for name, byPassword := range map[string]bool{"hash": false, "key": true} {
		t.Run(name, func(t *testing.T) {
			test(t, func(s *site) {
				s.storesNone, s.byPassword, s.byKey = byPassword, byPassword, byPassword
				alice := s.create("alice", "same")
				s.after(time.Minute)
				s.start()
				s.hook("alice", "same")
				s.after(50 * ms)
				s.expect()
				s.set(alice, "same")
				s.after(time.Second + 4*ms)
				if files := s.list(s.outgoing, change.Suffix); len(files) == 1 {
					b, _ := os.ReadFile(files[0])
					if c, err := change.Parse(b); err != nil || !c.Stamp.Equal(s.stamp(alice)) {
						s.Errorf("handed over as %v, %v; the directory holds %v", c.Stamp, err, s.stamp(alice))
					}
				}
				s.expect("alice=same")
				s.expectWaiting(0)
			})
		})
	}
}

// Who guesses a password that is not new has nothing sent, and nothing tells that the guess was right.
func TestRightGuess(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "right")
		s.after(time.Minute)
		s.start()
		s.hook("alice", "right")
		s.hook("alice", "wrong")
		s.after(time.Minute)
		s.expectWaiting(2)
		s.after(10 * time.Minute)
		s.expect()
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"never-committed": 2, "proven": 0, "repeated": 0})
	})
}

// Anybody may make a capture up for an account that has no password, such as Guest. That says nothing about the directory, least of all
// that the proof is to be by key, which shows passwords to the agent.
func TestForgedForAnAccountWithoutPassword(t *testing.T) {
	for name, byPassword := range map[string]bool{"hash": false, "key": true} {
		t.Run(name, func(t *testing.T) {
			test(t, func(s *site) {
				s.byPassword = byPassword
				guest := s.create("Guest", "")
				s.update(guest, func(a *directory.Account) { a.NTHash, a.SupplementalCredentials = nil, nil })
				s.after(time.Minute)
				s.start()
				s.hook("Guest", "guess")
				s.after(time.Minute)
				if basis := s.agent.Status().Directory.NTHash; basis != "unknown" {
					s.Errorf("status says %q", basis)
				}
				s.after(10 * time.Minute)
				s.expectWaiting(0)
				s.expectEvents(map[string]uint64{"hash-missing": 0, "unprovable": 0, "never-committed": 1})
			})
		})
	}
}

func TestRestAfter(t *testing.T) {
	for pass, want := range map[time.Duration]time.Duration{
		0: watchEvery, 10 * ms: watchEvery - 10*ms, 400 * ms: 4 * time.Second, time.Minute: watchSeldom,
	} {
		if got := restAfter(pass); got != want {
			t.Errorf("after %v: %v, want %v", pass, got, want)
		}
	}
}

func TestDirectoryDownFromTheStart(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "new")
		s.setDown(true)
		s.hook("alice", "new")
		s.start()
		s.after(5 * time.Minute)
		if _, _, dials := s.counts(); dials < 300 || dials > 340 { // by two connections
			s.Errorf("%d dials in five minutes", dials)
		}
		s.expectWaiting(1)
		s.setDown(false)
		s.after(lastRedial + ms)
		s.expect("alice=new")
		s.expectEvents(map[string]uint64{"directory-down": 1, "directory-up": 1})
	})
}

// A search that was under way when the DC went away is no answer, also not to a capture that had its time.
func TestDirectoryGoesDownDuringTheLastLook(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		s.start()
		s.hook("alice", "new")
		s.after(100 * time.Second)
		s.slow(time.Minute)
		s.after(100 * time.Second)
		s.setDown(true)
		s.after(10 * time.Minute)
		s.expectWaiting(1)
		s.expectEvents(map[string]uint64{"capture-damaged": 0, "never-committed": 0})
	})
}

// What a search says that began before the capture was taken is no proof of it.
func TestProofIsYoungerThanTheCapture(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "new")
		s.slow(20 * ms)
		s.start()
		s.after(time.Second + 100*ms)
		s.hook("alice", "older")
		s.after(10 * ms)
		h := s.hook("alice", "new")
		s.after(100 * ms)
		files := s.list(s.outgoing, change.Suffix)
		if len(files) != 1 {
			s.Fatalf("%d changes", len(files))
		}
		b, err := os.ReadFile(files[0])
		if err != nil {
			s.Fatal(err)
		}
		if c, err := change.Parse(b); err != nil || c.Proven.Before(h.Time) {
			s.Errorf("captured at %v, proven at %v, %v", h.Time, c.Proven, err)
		}
	})
}

// An outage in the middle of handing over: the filter could not be asked.
func TestDirectoryGoesDownBetweenProofAndRoute(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(time.Minute)
		s.slow(10 * ms)
		s.set(alice, "new")
		s.hook("alice", "new")
		s.after(15 * ms) // the search is answered, the filter's is on its way
		s.setDown(true)
		s.after(time.Hour)
		s.expectWaiting(1)
		s.expect()
		s.setDown(false)
		s.after(lastRedial + time.Second)
		s.expect("alice=new")
		s.expectWaiting(0)
	})
}

func TestCrashAtEachStep(t *testing.T) {
	for name, prepare := range map[string]func(s *site, c change.Change, whole []byte){
		"before put":              func(*site, change.Change, []byte) {},
		"in the middle of put":    func(s *site, c change.Change, whole []byte) { s.leave(c.FileName(), whole[:len(whole)/2]) },
		"at the beginning of put": func(s *site, c change.Change, whole []byte) { s.leave(c.FileName(), nil) },
		"between put and remove":  func(s *site, c change.Change, whole []byte) { s.leave(c.FileName(), whole) },
		"under another stamp of the version": func(s *site, c change.Change, _ []byte) {
			c.Stamp.Time = c.Stamp.Time.Add(-time.Second)
			whole, _ := c.Marshal()
			s.leave(c.FileName(), whole)
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(s *site) {
				alice := s.create("alice", "old")
				s.set(alice, "new")
				s.hook("alice", "new")
				s.start()
				s.after(time.Second)
				left := s.list(s.outgoing, change.Suffix)
				b, err := os.ReadFile(left[0])
				if err != nil || len(left) != 1 {
					s.Fatal(left, err)
				}
				c, err := change.Parse(b)
				if err != nil {
					s.Fatal(err)
				}
				s.stop()

				// The same once more, as the crash leaves it.
				if err := os.Remove(left[0]); err != nil {
					s.Fatal(err)
				}
				again, file := s.captured("alice", "new")
				c.Capture, c.Captured = again.ID.String(), again.Time
				parsed, err := capture.Parse(file)
				if err != nil {
					s.Fatal(err)
				}
				c.Header, c.SecretBox = parsed.Raw, parsed.SecretBox
				whole, err := c.Marshal()
				if err != nil {
					s.Fatal(err)
				}
				s.write(again.FileName(), file)
				prepare(s, c, whole)
				s.start()
				s.after(time.Second)
				s.expectWaiting(0)
				for _, file := range s.list(s.outgoing, change.Suffix) {
					b, _ := os.ReadFile(file)
					if c, err := change.Parse(b); err != nil || !c.Stamp.Equal(s.stamp(alice)) {
						s.Errorf("%s is %v, %v", file, c.Stamp, err)
					}
				}
				s.expect("alice=new")
			})
		})
	}
}

func (s *site) leave(name string, b []byte) {
	s.Helper()
	if err := os.WriteFile(filepath.Join(s.outgoing, name), b, 0o600); err != nil {
		s.Fatal(err)
	}
}

func TestStopWhileCapturesWait(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.slow(10 * ms)
		s.start()
		s.hook("alice", "new")
		s.after(15 * ms)
		s.stop()
		s.set(alice, "new")
		s.start()
		s.after(time.Second)
		s.expect("alice=new")
	})
}

func TestDeletedAccount(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.hook("alice", "new")
		s.after(50 * ms)
		s.remove(alice)
		s.after(10 * time.Minute)
		s.expect()
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"never-committed": 1})
	})
}

func TestUnwantedAccounts(t *testing.T) {
	test(t, func(s *site) {
		s.create("admin", "new", "adminCount=1")
		s.create("root", "new", "protected=yes")
		s.create("service", "new", "mail=")
		s.start()
		s.hook("admin", "new")
		s.hook("root", "new")
		s.hook("service", "new")
		s.after(time.Second)
		s.expect()
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"unwanted": 3, "proven": 0, "never-committed": 0})
		for _, why := range []string{"the account matches exclude", "protected", "cloud: the account has no mail"} {
			if !strings.Contains(s.log.String(), why) {
				s.Errorf("the log does not say %q", why)
			}
		}
	})
}

func TestOneOfTwoTargets(t *testing.T) {
	test(t, func(s *site) {
		routes, err := route.New([]route.Target{{Name: "cloud", UserAttribute: "mail"}, {Name: "paper", UserAttribute: "fax"}}, route.Scope{})
		if err != nil {
			s.Fatal(err)
		}
		s.routes = routes
		s.create("alice", "new")
		s.start()
		s.hook("alice", "new")
		s.after(time.Second)
		s.expect("alice=new")
		s.expectEvents(map[string]uint64{"proven": 1, "skipped": 1, "unwanted": 0})
	})
}

// A password that has to be changed at the next logon goes where it is to go, marked or not; the user's own that follows goes everywhere,
// unmarked. A disabled account's goes where it is to go.
func TestStateOfTheAccount(t *testing.T) {
	test(t, func(s *site) {
		targets := []route.Target{
			{Name: "all", UserAttribute: "mail"},
			{Name: "forced", UserAttribute: "mail", Temporary: route.ForceChange},
			{Name: "none", UserAttribute: "mail", Temporary: route.Skip, Disabled: route.Skip},
		}
		routes, err := route.New(targets, route.Scope{})
		if err != nil {
			s.Fatal(err)
		}
		s.routes = routes
		alice := s.create("alice", "old")
		s.installed()
		handedOver := func(want ...change.Route) {
			s.Helper()
			files := s.list(s.outgoing, change.Suffix)
			if len(files) != 1 {
				s.Fatalf("handed over: %q", files)
			}
			b, err := os.ReadFile(files[0])
			if err != nil {
				s.Fatal(err)
			}
			c, err := change.Parse(b)
			if err != nil || !slices.Equal(c.Routes, want) {
				s.Errorf("routes %v, %v, want %v", c.Routes, err, want)
			}
			if err := os.Remove(files[0]); err != nil {
				s.Fatal(err)
			}
		}
		become := func(password string, lastSet time.Time, uac uint32) {
			s.hook("alice", password)
			s.set(alice, password)
			s.update(alice, func(a *directory.Account) { a.PwdLastSet, a.UserAccountControl = lastSet, uac })
		}
		const mail = "alice@example.com"
		s.slow(10 * ms) // Samba commits password and pwdLastSet together
		become("temporary", time.Time{}, 0)
		s.after(time.Second)
		s.slow(0)
		handedOver(change.Route{Target: "all", User: mail}, change.Route{Target: "forced", User: mail, MustChange: true})
		s.after(enough)
		s.expectDecided("alice@2 of DC1 none:" + mail + ":temporary all:" + mail + ":lost forced:" + mail + ":lost")
		become("chosen", time.Now(), 0)
		s.after(time.Second)
		handedOver(change.Route{Target: "all", User: mail}, change.Route{Target: "forced", User: mail}, change.Route{Target: "none", User: mail})
		become("disabled", time.Now(), dsdb.UFAccountDisable)
		s.after(time.Second)
		s.decided()
		s.after(enough)
		s.expectDecided("alice@4 of DC1 none:" + mail + ":disabled all:" + mail + ":lost forced:" + mail + ":lost")
		s.update(alice, func(a *directory.Account) { a.UserAccountControl = 0 })
		s.after(enough)
		s.expectDecided("alice@4 of DC1 all:" + mail + ":lost forced:" + mail + ":lost none:" + mail + ":wanted-since")
	})
}

// Two accounts have one name at the target: neither is handed over, and who looks is told of the other one. Once one of them has another name,
// the next change goes.
func TestNameShared(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old", "mail=sales@example.com")
		bob := s.create("bob", "old", "mail=Sales@example.com")
		s.installed()
		s.hook("alice", "new")
		s.set(alice, "new")
		s.hook("bob", "new too")
		s.set(bob, "new too")
		s.after(time.Second)
		s.expect()
		s.after(enough)
		s.expectDecided("alice@2 of DC1 cloud:sales@example.com:name-shared (bob)", "bob@2 of DC1 cloud:Sales@example.com:name-shared (alice)")
		s.update(alice, func(a *directory.Account) { a.Attributes["mail"] = "alice@example.com" })
		s.hook("bob", "third")
		s.set(bob, "third")
		s.after(time.Second)
		s.expect("bob=third")
		s.after(enough)
		s.expectDecided("alice@2 of DC1 cloud:alice@example.com:wanted-since", "bob@3 of DC1 cloud:Sales@example.com:lost")
	})
}

// The capture names alice; before it is looked at she is called alicia.
func TestRenamedBetweenCaptureAndProof(t *testing.T) {
	for name, when := range map[string]struct{ hook, rename, after func(*site) }{
		"while the agent runs": {
			hook:   func(s *site) { s.slow(10 * ms) },
			rename: func(*site) {},
			after:  func(*site) {},
		},
		"while the agent is down": {
			hook:   func(s *site) { s.stop() },
			rename: func(*site) {},
			after:  func(s *site) { s.after(time.Hour); s.start() },
		},
		"while the DC does not answer": {
			hook:   func(*site) {},
			rename: func(s *site) { s.after(50 * ms); s.setDown(true) },
			after:  func(s *site) { s.after(time.Hour); s.slow(10 * ms); s.setDown(false) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(s *site) {
				alice := s.create("alice", "old")
				s.start()
				s.after(5 * time.Minute)
				when.hook(s)
				s.hook("alice", "new")
				when.rename(s)
				s.set(alice, "new")
				s.rename(alice, "alicia")
				when.after(s)
				s.after(4 * time.Second)
				s.expect("alicia=new")
				s.after(10 * time.Minute)
				s.expect()
				s.expectWaiting(0)
				s.expectEvents(map[string]uint64{"proven": 1, "never-committed": 0})
			})
		})
	}
}

// Samba before 4.11 tells no name.
func TestCapturesWithoutName(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		bob := s.create("bob", "old")
		s.create("carol", "same") // has had that password for long: nobody captured hers now
		s.start()
		s.after(5 * time.Minute)
		s.hook("", "one")
		s.after(50 * ms)
		s.set(alice, "one")
		s.after(10 * ms)
		s.expect("alice=one")

		// Two accounts get the same password at once. Each is served, by either capture.
		s.hook("", "same")
		s.hook("", "same")
		s.after(50 * ms)
		s.set(alice, "same")
		s.set(bob, "same")
		s.after(10 * ms)
		s.expect("alice=same", "bob=same")

		// Or one capture was lost: it serves both all the same.
		s.hook("", "twin")
		s.after(50 * ms)
		s.set(alice, "twin")
		s.set(bob, "twin")
		s.after(10 * ms)
		s.expect("alice=twin", "bob=twin")

		s.hook("", "forged")
		s.after(10 * time.Minute)
		s.expect()
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"never-committed": 1})
	})
}

// The agent dies after the watch saw the account and before the capture was proven.
func TestCaptureWithoutNameAfterACrash(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(5 * time.Minute)
		file := ""
		s.set(alice, "new")
		{
			h, b := s.captured("", "new")
			file = h.FileName()
			s.after(3 * time.Second)
			s.stop() // it has seen the stamp, and the capture was never noticed
			s.write(file, b)
		}
		s.sighted()
		s.start()
		s.after(time.Second)
		s.expect("alice=new")
		if _, scans, _ := s.counts(); s.scans[scans-1] == 0 {
			s.Error("the whole domain was read again")
		}
	})
}

// The hook runs where a change is made, so what was made elsewhere is no capture's of this DC, though the password may be the same. This
// DC is the one that it says it is: a restored one is another.
func TestCaptureWithoutNameIsOfAChangeMadeHere(t *testing.T) {
	for name, byKey := range map[string]bool{"by hash": false, "by key": true} {
		t.Run(name, func(t *testing.T) {
			test(t, func(s *site) {
				s.storesNone, s.byPassword = byKey, byKey
				alice, bob, carol := s.create("alice", "old"), s.create("bob", "old"), s.create("carol", "old")
				s.start()
				s.after(5 * time.Minute)
				elsewhere := func(guid dsdb.GUID, password string) {
					s.mu.Lock()
					own := s.invocation
					s.invocation = dc2
					s.mu.Unlock()
					s.set(guid, password)
					s.mu.Lock()
					s.invocation = own
					s.mu.Unlock()
				}
				for _, restored := range []bool{false, true} {
					if restored {
						s.mu.Lock()
						s.invocation = dsdb.GUID{0xdd}
						s.mu.Unlock()
						s.after(watchEvery)
					}
					s.mu.Lock()
					s.looks = nil
					s.mu.Unlock()
					s.hook("", "new")
					elsewhere(alice, "new")
					elsewhere(bob, "new")
					s.after(10 * time.Second)
					s.expect()
					if looks, _, _ := s.counts(); looks > 0 {
						s.Errorf("accounts that changed elsewhere were looked up: %q", s.looks)
					}
					s.set(carol, "new")
					s.after(watchEvery + ms)
					s.expect("carol=new")
					s.set(bob, "new") // here, and replaced from elsewhere before it was looked at
					elsewhere(bob, "new")
					s.after(10 * time.Minute)
					s.expect()
					s.expectWaiting(0)
				}
			})
		})
	}
}

// Long after the change, and with the watch's position lost: the whole domain is read, and the stamp's time finds the account.
func TestCaptureWithoutNameAndPosition(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		for n := range 50 {
			s.create(fmt.Sprint("other", n), "new")
		}
		s.after(24 * time.Hour)
		s.hook("", "new")
		s.after(50 * ms)
		s.set(alice, "new")
		s.after(24 * time.Hour)
		s.start()
		s.after(5 * time.Second)
		s.expect("alice=new")
		if looks, _, _ := s.counts(); looks > 3 {
			s.Errorf("%d accounts were looked up", looks)
		}
		s.after(time.Minute)
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"proven": 1, "never-committed": 0})
	})
}

// Somebody has the hook asked about a password that he guesses, and gives no name. It is carol's, whose change nobody captured: she
// had it before, so it is no change of hers, also when the agent must look at all who moved because of older captures.
func TestForgedWithoutName(t *testing.T) {
	test(t, func(s *site) {
		carol := s.create("carol", "old")
		s.start()
		s.after(5 * time.Minute)
		s.hook("", "older forgery")
		s.after(5 * time.Second)
		s.set(carol, "guessed")
		s.after(5 * time.Second)
		s.hook("", "guessed")
		s.after(5 * time.Second)
		s.expect()
		s.stop()
		s.start()
		s.after(5 * time.Second)
		s.mu.Lock()
		looks := slices.Clone(s.looks)
		s.mu.Unlock()
		if !slices.Contains(looks, carol.String()) {
			s.Error("carol was not looked at, so this test shows nothing")
		}
		s.after(10 * time.Minute)
		s.expect()
		s.expectWaiting(0)
	})
}

// A disk that fails at the wrong moment: what was proven without a name is tried again as what has one.
func TestOrphanCannotBeHandedOver(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(time.Minute)
		h := s.hook("", "new")
		name := change.Change{Capture: h.ID.String(), Captured: h.Time, Stamp: dsdb.Stamp{Version: 2}}.FileName()
		blocked := filepath.Join(s.outgoing, strings.TrimSuffix(name, change.Suffix)+"-"+alice.String()+change.Suffix)
		if err := os.MkdirAll(filepath.Join(blocked, "not empty"), 0o700); err != nil {
			s.Fatal(err)
		}
		s.after(50 * ms)
		s.set(alice, "new")
		s.after(30 * time.Second)
		s.expectWaiting(1)
		s.expectEvents(map[string]uint64{"agent-trouble": 1, "proven": 0})
		if err := os.RemoveAll(blocked); err != nil {
			s.Fatal(err)
		}
		s.after(6 * time.Second)
		s.expect("alice=new")
		s.after(10 * time.Minute)
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"proven": 1, "never-committed": 0})
	})
}

// An orphan that was proven waits a while for a twin. If the agent is restarted meanwhile, and the password is replaced, nobody can
// say any more that it was.
func TestProvenOrphanAfterARestart(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(5 * time.Minute)
		s.hook("", "first")
		s.after(50 * ms)
		s.set(alice, "first")
		s.after(time.Second)
		s.expect("alice=first")
		s.set(alice, "second") // by a route that the hook does not see
		s.stop()
		s.start()
		s.after(10 * time.Minute)
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"proven": 1, "unclaimed": 1, "never-committed": 0})
	})
}

// An outage longer than the timeout: the accounts that moved meanwhile are looked at before the capture is given up.
func TestCaptureWithoutNameOverAnOutage(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(5 * time.Minute)
		s.slow(5 * ms)
		s.hook("", "new")
		s.after(20 * ms)
		s.setDown(true)
		s.set(alice, "new")
		s.after(time.Hour)
		s.setDown(false)
		s.after(lastRedial + time.Second)
		s.expect("alice=new")
		s.after(time.Minute)
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"never-committed": 0})
	})
}

// The same if the capture was taken while the DC did not answer: nobody knew it when the account was seen moving.
func TestCaptureWithoutNameDuringAnOutage(t *testing.T) {
	for name, slow := range map[string]time.Duration{"the DC is down": 0, "the DC is slow": time.Minute} {
		t.Run(name, func(t *testing.T) {
			test(t, func(s *site) {
				alice := s.create("alice", "old")
				s.start()
				s.after(5 * time.Minute)
				s.setDown(slow == 0)
				s.slow(slow)
				s.after(10 * time.Second)
				s.hook("", "new")
				s.after(50 * ms)
				s.set(alice, "new")
				s.after(time.Hour)
				s.setDown(false)
				s.slow(5 * ms)
				s.after(10 * time.Minute)
				s.expect("alice=new")
				s.expectWaiting(0)
				s.expectEvents(map[string]uint64{"never-committed": 0})
			})
		})
	}
}

func TestNoHashIsStored(t *testing.T) {
	test(t, func(s *site) {
		s.storesNone = true
		s.create("alice", "new")
		s.start()
		if got := s.agent.Status().Directory.NTHash; got != "unknown" {
			s.Errorf("at first, hashes are %s", got)
		}
		s.hook("alice", "new")
		s.after(time.Second)
		s.expectWaiting(1)
		s.expectEvents(map[string]uint64{"hash-missing": 1, "unprovable": 0})
		if got := s.agent.Status().Directory.NTHash; got != "missing" {
			s.Errorf("then, hashes are %s", got)
		}
		s.after(10 * time.Minute)
		s.expectWaiting(0)
		s.expect()
		s.expectEvents(map[string]uint64{"hash-missing": 1, "unprovable": 1, "never-committed": 0})
	})
}

// Where no NT hash is stored, the AES256 key is compared, if the capture holds the password.
func TestProvenByKey(t *testing.T) {
	test(t, func(s *site) {
		bob := s.create("bob", "old") // of before
		s.storesNone, s.byPassword = true, true
		alice := s.create("alice", "old")
		s.start()
		s.hook("alice", "new")
		s.after(time.Second)
		s.expect()
		s.set(alice, "new")
		s.after(6 * time.Second)
		s.expect("alice=new")
		if got := s.agent.Status().Directory.NTHash; got != proof.AES256 {
			s.Errorf("the basis is %q", got)
		}

		s.hook("alice", "guess")
		s.after(3 * time.Minute)
		s.expect()
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"never-committed": 1, "hash-missing": 0, "unprovable": 0})

		s.storesNone = false
		s.hook("bob", "new")
		s.set(bob, "new")
		s.after(6 * time.Second)
		s.expect("bob=new")
		if got := s.agent.Status().Directory.NTHash; got != proof.NTHash {
			s.Errorf("the basis is %q", got)
		}
	})
}

// The salt is that of the name which the account had when its password was set.
func TestProvenByKeyAfterRenaming(t *testing.T) {
	test(t, func(s *site) {
		s.storesNone, s.byPassword = true, true
		alice := s.create("alice", "old")
		s.hook("alice", "new")
		s.set(alice, "new")
		s.rename(alice, "alicia")
		s.start()
		s.after(6 * time.Second)
		s.expect("alicia=new")
		s.rename(alice, "alice")
		s.hook("alice", "newer")
		s.set(alice, "newer")
		s.after(6 * time.Second)
		s.expect("alice=newer")
	})
}

func TestProvenByKeyWithoutName(t *testing.T) {
	test(t, func(s *site) {
		s.storesNone, s.byPassword = true, true
		alice, bob := s.create("alice", "old"), s.create("bob", "old")
		s.create("carol", "old")
		s.start()
		s.after(time.Minute)
		s.hook("", "same")
		s.set(alice, "same")
		s.hook("", "guess")
		s.hook("", "same")
		s.set(bob, "same")
		s.after(10 * time.Second)
		s.expect("alice=same", "bob=same")
		s.after(3 * time.Minute)
		s.expect()
		s.expectWaiting(0)
	})
}

// A capture with the hash and one with the password wait for the same account: the setting was changed in between.
func TestBothKindsWait(t *testing.T) {
	test(t, func(s *site) {
		s.storesNone = true
		alice := s.create("alice", "old")
		s.start()
		s.hook("alice", "new")
		s.after(time.Second)
		s.byPassword = true
		s.hook("alice", "newer")
		s.set(alice, "newer")
		s.after(10 * time.Second)
		s.expect("alice=newer")
		s.expectEvents(map[string]uint64{"hash-missing": 1})
		if !strings.Contains(s.log.String(), `set [directory] proof = \"aes256\"`) {
			s.Errorf("no advice in the log:\n%s", s.log.String())
		}
	})
}

// The box is opened anew for the key, and the disk does not give it.
func TestNoKeyCanBeMade(t *testing.T) {
	test(t, func(s *site) {
		s.storesNone, s.byPassword = true, true
		alice := s.create("alice", "old")
		s.setDown(true)
		s.start()
		h := s.hook("alice", "new")
		s.set(alice, "new")
		s.after(time.Second)
		file := filepath.Join(s.incoming, h.FileName())
		if err := errors.Join(os.Rename(file, file+".away"), os.Symlink(h.FileName(), file)); err != nil {
			s.Fatal(err)
		}
		s.setDown(false)
		s.after(10 * time.Minute)
		s.expect()
		s.expectEvents(map[string]uint64{"agent-trouble": 1, "never-committed": 0})
		if err := errors.Join(os.Remove(file), os.Rename(file+".away", file)); err != nil {
			s.Fatal(err)
		}
		s.after(10 * time.Second)
		s.expect("alice=new")
		s.expectWaiting(0)
	})
}

// A DC that answers, but not the question, proves nothing in either direction: what is certainly of a change is kept for a human. Of others anybody can
// have any number made.
func TestRefusedSearch(t *testing.T) {
	test(t, func(s *site) {
		s.refuses = map[string]bool{"odd": true}
		s.start()
		doubtful := s.hook("odd", "new")
		s.hookSure("odd", "new")
		s.after(119 * time.Second)
		s.expectWaiting(2)
		s.after(17 * time.Second) // until it has been refused three times since
		s.expectWaiting(0)
		aside := s.list(filepath.Join(s.incoming, "damaged"), capture.Suffix)
		if len(aside) != 1 || filepath.Base(aside[0]) == doubtful.FileName() {
			s.Errorf("set aside: %q", aside)
		}
		s.expectEvents(map[string]uint64{"capture-damaged": 1, "unanswered": 1, "never-committed": 0})
		if c := s.agent.Status().Captures; c.Damaged != 1 || c.Unanswered != 1 {
			s.Errorf("status: %+v", c)
		}
		if !strings.Contains(s.log.String(), "event=unanswered capture="+doubtful.ID.String()) || !strings.Contains(s.log.String(), "LDAP result 1") {
			s.Errorf("log:\n%s", s.log.String())
		}
	})
}

// A DC that refuses all looks right before a long outage, and the first one after it: the time of what waited is over, and it is proven all the same.
func TestRefusedOnceAfterAnOutage(t *testing.T) {
	test(t, func(s *site) {
		refuse := func(refuses bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refuses = map[string]bool{"alice": refuses}
		}
		alice := s.create("alice", "old")
		s.start()
		s.after(time.Second)
		refuse(true)
		s.hookSure("alice", "new")
		s.set(alice, "new")
		s.after(time.Second)
		s.setDown(true)
		s.after(time.Hour)
		before, _, _ := s.counts()
		s.setDown(false)
		for looks := before; looks == before; looks, _, _ = s.counts() {
			s.after(100 * time.Millisecond)
		}
		s.expectWaiting(1)
		refuse(false)
		s.after(10 * time.Second)
		s.expect("alice=new")
		s.expectWaiting(0)
	})
}

// Somebody floods the DC with captures in the name of an account that cannot be looked up: neither disk nor log fill.
func TestFloodInTheNameOfAnAccountThatCannotBeLookedUp(t *testing.T) {
	test(t, func(s *site) {
		s.refuses = map[string]bool{"odd": true}
		s.start()
		const n = 1000
		for range n {
			s.hook("odd", "new")
		}
		s.after(10 * time.Minute)
		s.expectWaiting(0)
		if aside := s.list(filepath.Join(s.incoming, "damaged"), ""); len(aside) != 0 {
			s.Errorf("%d captures are set aside", len(aside))
		}
		s.expectEvents(map[string]uint64{"unanswered": n})
		if lines := strings.Count(s.log.String(), "event=unanswered"); lines > 300 {
			s.Errorf("%d lines", lines)
		}
	})
}

// However many captures nobody can make sense of, no more than so many are kept for a human, and no more than so many lines are written.
func TestTooManySetAside(t *testing.T) {
	test(t, func(s *site) {
		aside := filepath.Join(s.incoming, "damaged")
		if err := os.Mkdir(aside, 0o700); err != nil {
			s.Fatal(err)
		}
		for n := range maxAside - 1 {
			if err := os.WriteFile(filepath.Join(aside, fmt.Sprint(n, capture.Suffix)), nil, 0o600); err != nil {
				s.Fatal(err)
			}
		}
		s.start()
		const n = 300
		for range n {
			h, _ := s.captured("alice", "new")
			s.write(h.FileName(), make([]byte, capture.MaxSize+1))
		}
		s.after(time.Minute)
		s.expectWaiting(0)
		if got := len(s.list(aside, "")); got != maxAside {
			s.Errorf("%d files are set aside", got)
		}
		s.expectEvents(map[string]uint64{"capture-damaged": 1, "aside-full": n - 1, "agent-trouble": 0})
		if c := s.agent.Status().Captures; c.Damaged != 1 || c.AsideFull != n-1 {
			s.Errorf("status: %+v", c)
		}
		if lines := strings.Count(s.log.String(), "event=aside-full"); lines > 150 {
			s.Errorf("%d lines", lines)
		}
	})
}

func TestThousandsWaitAtTheStart(t *testing.T) {
	test(t, func(s *site) {
		var newest string
		for range batch + 44 {
			newest = s.hook("alice", "new").FileName()
			s.after(ms)
		}
		s.start()
		s.after(0)
		s.expectWaiting(batch + 44)
		s.stop()

		agent := s.idle()
		if n, err := agent.scan(s.Context(), map[string]time.Time{}); err != nil || n != batch || !agent.docket.Holds(newest) {
			s.Errorf("%d captures were taken in at once, the newest among them: %v", n, agent.docket.Holds(newest))
		}
	})
}

// idle returns an agent of the site that does nothing by itself.
func (s *site) idle() *Agent {
	s.Helper()
	agent, err := New(Options{Incoming: s.incoming, Outgoing: s.outgoing, Refusals: filepath.Join(s.state, "refused"), StateDir: s.state, Key: agentKey, Routes: s.routes, Log: s.events})
	if err != nil {
		s.Fatal(err)
	}
	return agent
}

// The newest captures are taken in first, in whatever order the folder got them, and each look goes on where the one before ended.
func TestNewestCapturesAreTakenInFirst(t *testing.T) {
	test(t, func(s *site) {
		var names []string
		var files [][]byte
		for range 2*batch + 10 {
			h, b := s.captured("", "new")
			names, files = append(names, h.FileName()), append(files, b)
			s.after(ms)
		}
		for n := range names {
			n = n * 7 % len(names) // which has no factor 7
			s.write(names[n], files[n])
		}
		agent := s.idle()
		for from := len(names); from > 0; {
			n, err := agent.scan(s.Context(), map[string]time.Time{})
			if want := min(batch, from); err != nil || n != want {
				s.Fatalf("%d captures were taken in at once, want %d: %v", n, want, err)
			}
			from -= n
			for i, name := range names {
				if agent.docket.Holds(name) != (i >= from) {
					s.Fatalf("of %d captures, the newest %d are to be known; number %d is: %v", len(names), len(names)-from, i, agent.docket.Holds(name))
				}
			}
		}
	})
}

func TestDamagedCaptures(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "new")
		s.start()
		torn, whole := s.captured("alice", "new")
		s.write(torn.FileName(), whole[:100])
		later, rest := s.captured("alice", "new")
		s.write(later.FileName(), rest[:100])
		flipped, b := s.captured("alice", "new")
		b[len(b)/3] ^= 1
		s.write(flipped.FileName(), b)
		s.after(10 * time.Second)
		s.expectEvents(map[string]uint64{"capture-damaged": 1}) // a flipped bit does not heal

		// One is finished at last; the other never is.
		if err := os.WriteFile(filepath.Join(s.incoming, later.FileName()), rest, 0o600); err != nil {
			s.Fatal(err)
		}
		s.tick()
		s.after(ms)
		s.expect("alice=new")
		s.after(10 * time.Second)
		s.tick()
		s.after(ms)
		s.expectWaiting(0)
		if got := len(s.list(filepath.Join(s.incoming, "damaged"), "")); got != 2 {
			s.Errorf("%d files are set aside", got)
		}
		s.expectEvents(map[string]uint64{"capture-damaged": 2, "proven": 1})
	})
}

func TestTornFilesAreForgottenWithTheirFiles(t *testing.T) {
	test(t, func(s *site) {
		s.start()
		s.stop()
		h, b := s.captured("alice", "new")
		s.write(h.FileName(), b[:100])
		torn := map[string]time.Time{}
		_, err1 := s.agent.scan(s.Context(), torn)
		if len(torn) != 1 {
			s.Errorf("%d torn files are known", len(torn))
		}
		if err := os.Remove(filepath.Join(s.incoming, h.FileName())); err != nil {
			s.Fatal(err)
		}
		_, err2 := s.agent.scan(s.Context(), torn)
		if len(torn) != 0 {
			s.Errorf("%d torn files are known after they are gone", len(torn))
		}
		if err := errors.Join(err1, err2); err != nil {
			s.Error(err)
		}
	})
}

func TestHugeFileIsSetAside(t *testing.T) {
	test(t, func(s *site) {
		s.start()
		h, _ := s.captured("alice", "new")
		s.write(h.FileName(), make([]byte, capture.MaxSize+1))
		s.after(ms)
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"capture-damaged": 1})
	})
}

// A disk that cannot be read says nothing about captures: they are tried again, and it is said once.
func TestFolderCannotBeRead(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		away := s.incoming + ".away"
		if err := os.Rename(s.incoming, away); err != nil {
			s.Fatal(err)
		}
		for range 3 {
			s.tick()
			s.after(scanEvery)
		}
		s.expectEvents(map[string]uint64{"agent-trouble": 1})
		if err := os.Rename(away, s.incoming); err != nil {
			s.Fatal(err)
		}
		s.hook("alice", "new")
		s.set(alice, "new")
		s.after(4 * ms)
		s.expect("alice=new")
	})
}

func TestCaptureOfAnotherKey(t *testing.T) {
	test(t, func(s *site) {
		s.start()
		mine := agentKey
		agentKey = mustGenerate()
		h, b := s.captured("alice", "new")
		agentKey = mine
		s.write(h.FileName(), b)
		s.after(ms)
		s.expectWaiting(0)
		if !strings.Contains(s.log.String(), seal.ErrOtherKey.Error()) {
			s.Errorf("log:\n%s", s.log.String())
		}
	})
}

// The wall clock is set while captures wait, so their times lie far away in either direction.
func TestClockJumps(t *testing.T) {
	for name, jump := range map[string]time.Duration{"ahead": -24 * time.Hour, "back": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			test(t, func(s *site) {
				alice := s.create("alice", "old")
				s.start()
				for _, password := range []string{"new", "never"} {
					h := capture.Header{ID: capture.NewID(), Time: time.Now().Add(jump).UTC().Round(0), Host: "dc1", Account: "alice"}
					raw, _ := h.Marshal()
					proofBox, err1 := seal.Close(agentKey.Public(), capture.ProofInfo(raw), box.EncodeNTHash([16]byte(hash(password))))
					secretBox, err2 := seal.Close(forwarderKey.Public(), capture.SecretInfo(raw), []byte(password))
					if err1 != nil || err2 != nil {
						s.Fatal(err1, err2)
					}
					s.write(h.FileName(), capture.Encode(raw, proofBox, secretBox))
				}
				s.after(10 * time.Second)
				s.set(alice, "new")
				s.after(2 * time.Second)
				s.expect("alice=new")
				s.expectWaiting(1)
				s.after(3 * time.Minute)
				s.expectWaiting(0)
			})
		})
	}
}

// ghost is the evidence of a password that nobody has.
func (s *site) ghost() proof.Evidence {
	s.Helper()
	evidence, err := proof.Open(agentKey, prooftest.Capture(s.T, agentKey.Public(), capture.Header{}, box.EncodeNTHash([16]byte{1})))
	if err != nil {
		s.Fatal(err)
	}
	return evidence
}

// forge has captures that nobody will ever prove taken in, with a file each, as after the hook.
func (s *site) forge(n int, name func(n int) string) {
	s.Helper()
	ghost := s.ghost()
	for i := range n {
		h := capture.Header{ID: capture.NewID(), Time: time.Now(), Account: name(i)}
		s.agent.docket.Add(docket.Pending{File: h.FileName(), Header: h, Seen: time.Now(), Evidence: ghost})
		if err := os.WriteFile(filepath.Join(s.incoming, h.FileName()), nil, 0o600); err != nil {
			s.Fatal(err)
		}
	}
}

// served waits until what is wanted has been handed over, and nothing else.
func (s *site) served(within time.Duration, want string) {
	s.Helper()
	for waited := time.Duration(0); len(s.changes()) == 0; waited += ms {
		if waited > within {
			s.Fatalf("%s did not arrive within %v", want, within)
		}
		s.after(ms)
	}
	s.expect(want)
}

// 4,000 captures that nobody will ever prove, each in another name, and a DC that works off a thousand searches a second.
func TestFloodDelaysNobody(t *testing.T) {
	test(t, func(s *site) {
		alice, bob, plain := s.create("alice", "old"), s.create("bob", "old"), s.create("plain", "old")
		s.slow(ms)
		s.start()
		s.after(time.Second)
		s.forge(2000, func(n int) string { return fmt.Sprint("ghost", n) })
		s.hookSure("alice", "new")
		s.hook("plain", "new")
		s.after(5 * ms)
		s.forge(2000, func(n int) string { return fmt.Sprint("spectre", n) })
		s.after(5 * time.Second) // until each has had its first look
		// One that looks like those of the flood has its turn when the watch sees the account; so has a certain one that has waited for long.
		s.set(plain, "new")
		s.set(alice, "new")
		for waited := time.Duration(0); len(s.changes()) < 2; waited += ms {
			if waited > watchEvery+maxLooks*8*ms {
				s.Fatalf("%q after %v", s.changes(), waited)
			}
			s.after(ms)
		}
		s.expect("alice=new", "plain=new")

		// A fresh capture has its look at once, flood or not. The line before it, and before each of the three questions
		// about its routes, is what the DC is already working on.
		s.set(bob, "new")
		before, _, _ := s.counts()
		s.hook("bob", "new")
		for len(s.changes()) == 0 {
			s.after(ms)
			if looks, _, _ := s.counts(); looks-before > 4*maxLooks {
				s.Fatalf("%d looks, and bob has not been served", looks-before)
			}
		}
		s.expect("bob=new")

		// The flood itself costs the DC a look when it comes, and one every half minute.
		before, _, _ = s.counts()
		s.after(90 * time.Second)
		if looks, _, _ := s.counts(); looks-before > 5*4000 {
			s.Errorf("%d looks for 4,000 captures", looks-before)
		}
	})
}

// Two captures of one version, one named and one not, are met by two searches at a time. Only one of them is handed over.
func TestOneOfTwoAtATime(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(5 * time.Minute)
		s.slow(ms)
		s.hook("", "new")
		s.hook("alice", "new")
		s.after(200 * ms)
		s.set(alice, "new")
		s.after(10 * time.Minute)
		s.expect("alice=new")
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"proven": 1})
	})
}

// 4,000 captures without a name that nobody will ever prove: neither one that is real nor one with a name waits for them.
func TestFloodWithoutName(t *testing.T) {
	test(t, func(s *site) {
		alice, bob := s.create("alice", "old"), s.create("bob", "old")
		s.slow(ms)
		s.start()
		s.after(5 * time.Minute)
		nobody := func(int) string { return "" }
		s.forge(2000, nobody)
		s.hook("", "new")
		s.forge(2000, nobody)
		s.after(50 * ms)
		s.set(alice, "new")
		s.served(100*ms, "alice=new")

		s.set(bob, "bobs")
		s.hookSure("bob", "bobs")
		s.served(20*ms, "bob=bobs")

		// Also while those of the flood have had their time.
		s.after(DefaultConfirmTimeout - 200*ms)
		s.set(alice, "newer")
		s.hook("", "newer")
		s.served(100*ms, "alice=newer")
		s.after(10 * time.Minute)
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"never-committed": 4000})
		if n := strings.Count(s.log.String(), "event=never-committed"); n > 250 {
			s.Errorf("%d lines about them", n)
		}
	})
}

// Captures in one name cost few searches for all of them, and the real one among them waits for none.
func TestFloodInOneName(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		s.after(time.Second)
		for range 300 {
			s.hook("alice", "forged")
		}
		s.hookSure("alice", "new")
		s.set(alice, "new")
		s.after(4 * ms)
		s.expect("alice=new")
		before, _, _ := s.counts()
		for range 1000 {
			s.hook("alice", "forged")
			s.after(3 * ms)
		}
		if looks, _, _ := s.counts(); looks-before > 40 { // one each 100 ms
			s.Errorf("%d looks while 1,000 came", looks-before)
		}
		s.hook("alice", "newer") // as of an account without a user principal name
		s.set(alice, "newer")
		s.after(watchEvery + ms)
		s.expect("alice=newer")
		if floods := s.agent.Status().Floods; len(floods) != 1 || floods[0].Account != "alice" || floods[0].Count < 1300 {
			s.Errorf("the floods are %+v", floods)
		}
		before, _, _ = s.counts()
		s.after(10 * time.Minute)
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"never-committed": 1300, "flood": 1, "flood-over": 1})
		if looks, _, _ := s.counts(); looks-before > 150 {
			s.Errorf("%d looks", looks-before)
		}
		if floods := s.agent.Status().Floods; len(floods) != 0 {
			s.Errorf("the floods are %+v", floods)
		}
	})
}

// What the hook shreds to make room is forgotten, and told.
func TestShreddedByTheHook(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "old")
		s.start()
		s.after(time.Second)
		first, second := s.hook("alice", "forged"), s.hook("ghost", "forged")
		kept := s.hook("alice", "again")
		s.after(10 * time.Second)
		for _, h := range []capture.Header{first, second} {
			if err := os.Remove(filepath.Join(s.incoming, h.FileName())); err != nil {
				s.Fatal(err)
			}
		}
		s.after(2 * pruneEvery)
		s.tick()
		s.after(ms)
		s.expectWaiting(1)
		s.expectEvents(map[string]uint64{"crowded": 2, "never-committed": 0})
		if !s.agent.docket.Holds(kept.FileName()) {
			s.Error("the wrong one was forgotten")
		}
		s.after(5 * time.Minute)
		s.expectWaiting(0)
		s.expectEvents(map[string]uint64{"crowded": 2, "never-committed": 1})
	})
}

// Made-up names do not have accounts looked up that moved before.
func TestOrphansCostNoLooksAtOthers(t *testing.T) {
	test(t, func(s *site) {
		var guids []dsdb.GUID
		for n := range 1000 {
			guids = append(guids, s.create(fmt.Sprint("user", n), "old"))
		}
		s.start()
		s.after(time.Minute)
		for _, guid := range guids {
			s.set(guid, "new")
		}
		s.after(5 * time.Second)
		for range 10 {
			s.hook("nobody", "x")
			s.after(2 * time.Second)
		}
		for _, looked := range s.looks {
			if looked != "nobody" {
				s.Fatalf("%s was looked up", looked)
			}
		}
	})
}

func TestFolderCannotBeWritten(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "new")
		s.start()
		s.after(time.Second)
		blocked := s.outgoing + ".away"
		if err := os.Rename(s.outgoing, blocked); err != nil {
			s.Fatal(err)
		}
		s.hook("alice", "new")
		s.after(10 * time.Minute)
		s.expectWaiting(1)                                                                       // proven: it is kept, however long that takes
		s.expectEvents(map[string]uint64{"agent-trouble": 3, "proven": 0, "never-committed": 0}) // proof, watch and followup
		if err := os.Rename(blocked, s.outgoing); err != nil {
			s.Fatal(err)
		}
		s.after(6 * time.Second)
		s.expect("alice=new")
		s.expectWaiting(0)
	})
}

func TestFileTakenAway(t *testing.T) {
	test(t, func(s *site) {
		alice := s.create("alice", "old")
		s.start()
		h := s.hook("alice", "new")
		s.after(10 * ms)
		if err := os.Remove(filepath.Join(s.incoming, h.FileName())); err != nil {
			s.Fatal(err)
		}
		s.set(alice, "new")
		s.after(time.Second)
		s.expect()
		s.expectWaiting(0)
	})
}

func TestNoHashInTheLog(t *testing.T) {
	test(t, func(s *site) {
		s.create("alice", "Correct-Horse-9")
		s.start()
		s.hook("alice", "Correct-Horse-9")
		s.hook("alice", "Wrong-Horse-9")
		s.hook("", "Lost-Horse-9")
		s.after(10 * time.Minute)
		s.expect("alice=Correct-Horse-9")
		for _, password := range []string{"Correct-Horse-9", "Wrong-Horse-9", "Lost-Horse-9"} {
			h := hash(password)
			for _, shape := range []string{password, string(h), hex.EncodeToString(h), strings.ToUpper(hex.EncodeToString(h)), fmt.Sprint(h)} {
				if strings.Contains(s.log.String(), shape) {
					s.Errorf("the log holds %q", shape)
				}
			}
		}
	})
}

func TestNewRefusesMissingFolders(t *testing.T) {
	dir := t.TempDir()
	for _, o := range []Options{{Incoming: dir + "/missing", Outgoing: dir}, {Incoming: dir, Outgoing: dir + "/missing"}} {
		if _, err := New(o); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v: %v", o.Incoming, err)
		}
	}
}

// Run itself, with real notification: outside a bubble, where time is real.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	s := &site{T: t, samba: newSamba(), incoming: dir, outgoing: t.TempDir(), state: t.TempDir()}
	s.events = event.New(slog.New(slog.DiscardHandler))
	s.create("alice", "new")
	routes, err := route.New([]route.Target{{Name: "cloud", UserAttribute: "mail"}}, route.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := New(Options{Incoming: s.incoming, Outgoing: s.outgoing, Refusals: filepath.Join(s.state, "refused"), StateDir: s.state, Key: agentKey, Dial: s.dial,
		Routes: routes, Host: "dc1", Log: s.events})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- agent.Run(ctx) }()
	s.hook("alice", "new")
	for deadline := time.Now().Add(3 * time.Minute); agent.Status().Captures.Proven == 0; time.Sleep(ms) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was handed over")
		}
	}
	s.expect("alice=new")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
