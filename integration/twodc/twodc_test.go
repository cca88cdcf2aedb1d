// Package twodc tries samba-pwsync where a domain has more than one domain controller: two of different Samba versions, each with a
// hook and a forwarder of its own, whose line to each other breaks and heals; and a read-only one.
//
// PWSYNC_DCS names the Debian suites of the two (default: "bullseye forky", the oldest and the newest Samba). PWSYNC_ROUNDS is how many
// rounds are tried (default: 20), PWSYNC_SEED what they are drawn from.
package twodc

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// patience is how long a test waits for something that should take moments: the machine may be small and busy, and where DCs do not hear of
// each other at once, they ask only every five minutes.
const patience = 7 * time.Minute

var ctx context.Context // ends at an interrupt: then every step fails at once, and the lab is removed

func TestMain(m *testing.M) {
	if os.Getenv("CI") != "true" && os.Getenv("PWSYNC_INTEGRATION") == "" {
		fmt.Println("skipped: needs Docker and some minutes; make integration runs it")
		return
	}
	var stop context.CancelFunc
	ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := m.Run()
	stop()
	os.Exit(code)
}

// domain is a lab with two writable DCs.
type domain struct {
	*lab.Lab
	dcs [2]*lab.DC
}

// TestTwoControllers begins with samba-pwsync on the first DC alone, and ends with it on both.
func TestTwoControllers(t *testing.T) {
	t.Parallel() // most of it is waiting
	suites := strings.Fields(setting("PWSYNC_DCS", "bullseye forky"))
	if len(suites) != 2 {
		t.Fatalf("PWSYNC_DCS names %d suites, want 2", len(suites))
	}
	d := &domain{Lab: start(t, suites[0])}
	d.dcs[0] = d.DC
	var err error
	d.dcs[1], err = d.Join(ctx, lab.JoinOptions{Suite: suites[1], Progress: progress(t)})
	must(t, err)
	t.Run("Elsewhere", d.testElsewhere)
	t.Run("AgentStopped", d.testAgentStopped)
	if t.Run("Rounds", d.testRounds) {
		t.Run("Peer", d.testPeer)
	}
}

func start(t *testing.T, suite string) *lab.Lab {
	t.Helper()
	l, err := lab.Start(ctx, lab.Options{Suite: suite, Progress: progress(t)})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func progress(t *testing.T) func(string, ...any) {
	return func(format string, args ...any) { t.Logf("lab: "+format, args...) }
}

// peered is the configuration of a DC beside one that has a forwarder, too.
func peered(other *lab.DC) string { return lab.DefaultConfig + "peers = [\"" + other.Short() + "\"]\n" }

// busy is what a DC's samba-pwsync still has to do.
type busy struct {
	Captures  int
	Agent     *struct{}
	Forwarder *struct {
		Targets []struct{ Waiting, Settling int }
	}
}

func (b busy) done() bool {
	if b.Captures > 0 || b.Agent == nil || b.Forwarder == nil {
		return false
	}
	for _, target := range b.Forwarder.Targets {
		if target.Waiting+target.Settling > 0 {
			return false
		}
	}
	return true
}

func askStatus(t *testing.T, dc *lab.DC) busy {
	t.Helper()
	out, err := dc.Exec(ctx, "", "samba-pwsync", "status", "--json") // ends with 3 when something needs attention
	var b busy
	if json.Unmarshal([]byte(out), &b) != nil {
		t.Logf("asking %s for its status: %v", dc.Host, err)
		return busy{} // with nobody to tell; it is asked again
	}
	return b
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// eventually waits until something is so.
func eventually(t *testing.T, patience time.Duration, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(time.Second) {
		if ctx.Err() != nil || time.Now().After(deadline) {
			t.Fatalf("after %v it is still not so that %s", patience, what)
		}
	}
}

// timeout is the context of something that should take moments.
func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(ctx, patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
