// Package integration holds the promises of samba-pwsync, tried on a real Samba domain controller: every route by which a
// password changes, what must never be sent, and whether a password was left anywhere. `make integration` runs it.
//
// The tests share one domain controller, so each works with users of its own and most run side by side. Those that disturb
// everybody (a cloud that is down, a Samba that is restarted) run alone. The canary comes last: it reads what all the others wrote.
package integration

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/canary"
	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

var (
	company   *lab.Lab
	serveLog  *lab.Record
	processes *canary.Processes
	ctx       context.Context // ends at an interrupt: then every step fails at once, and the lab is removed
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	// A skip is a failure where it counts.
	required := os.Getenv("CI") == "true" || os.Getenv("PWSYNC_INTEGRATION") == "required"
	if !required && os.Getenv("PWSYNC_INTEGRATION") == "" {
		fmt.Println("skipped: needs Docker and a few minutes; make integration runs it")
		return 0
	}

	var stop context.CancelFunc
	ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	processes = canary.WatchProcesses(20 * time.Millisecond)
	defer processes.Stop()

	began := time.Now()
	var err error
	company, err = lab.Start(ctx, lab.Options{Progress: func(format string, args ...any) {
		fmt.Printf("lab, %4.1f s: %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}})
	if err != nil {
		fmt.Fprintf(os.Stderr, "starting the lab: %v\n", err)
		if !required {
			fmt.Println("skipped: the lab could not be started")
			return 0
		}
		return 1
	}
	defer func() {
		if err := company.Close(); err != nil {
			fmt.Fprintf(os.Stderr, "removing the lab: %v\n", err)
			code = 1
		}
	}()
	serveLog = company.DC.Record(ctx)
	if code = m.Run(); code != 0 {
		log, err := company.DC.Exec(ctx, "", "tail", "-n", "40", lab.ServeLog)
		fmt.Printf("the end of serve's log (%v):\n%s", err, log)
	}
	return code
}

// TestPromises is the order in which things are tried.
func TestPromises(t *testing.T) {
	t.Run("Directory", testDirectory)     // what samba/directory says of a real one
	t.Run("Arrives", testArrives)         // every route
	t.Run("NeverSent", testNeverSent)     // refused, forged, excluded
	t.Run("WhosePolicy", testWhosePolicy) // what the hook finds of each account, by unit, group and group within a group
	t.Run("Gate", testGate)               // the policy beyond length and complexity
	t.Run("CloudDown", testCloudDown)     // no old password overtakes a new one
	t.Run("ControllerDown", testDCDown)   // changes made while Samba does not run
	t.Run("Restored", testRestored)       // the directory goes back to a snapshot
	t.Run("RolesApart", testRolesApart)   // agent and forwarder as two services with two users
	t.Run("KeysRotated", testKeysRotated) // while changes wait; agent and forwarder together, and apart
	t.Run("Forgotten", testForgotten)     // what is left of passwords in serve's memory
	t.Run("ByAES256Key", testByAES256Key) // where no NT hash is stored
	t.Run("Drift", testDrift)             // what was not captured, or waits, is told, with the reason
	t.Run("Why", testWhy)                 // of one account, in a sentence; and what waits is tried or dropped
	t.Run("States", testStates)           // temporary passwords, disabled accounts, shared names
	t.Run("Audit", testAudit)             // the passwords that are there, judged by their hashes
	t.Run("WellBehaved", testWellBehaved) // what the clouds thought of our requests
	t.Run("LeftNowhere", testCanary)      // last: what all the others wrote
}
