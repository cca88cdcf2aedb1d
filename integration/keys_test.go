package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/canary"
	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// testKeysRotated: keys are exchanged while changes wait for clouds that are down. What was sealed to the old keys arrives, as does what
// comes after; nobody restarts anything; and when the agent's old key has had its time, it is gone.
func testKeysRotated(t *testing.T) {
	t.Run("one service", func(t *testing.T) { rotated(t) })
	t.Run("two services", func(t *testing.T) {
		must(t, company.DC.SplitServe(ctx))
		defer func() { must(t, company.DC.JoinServe(ctx)) }()
		rotated(t)
		forgotten(t)
		if left := retiredKeys(t, "agent"); len(left) != 0 {
			waitUntil(t, "the agent's old keys are destroyed", patience, func() bool { return len(retiredKeys(t, "agent")) == 0 })
		}
		if left := retiredKeys(t, "forwarder"); len(left) != 2 {
			t.Errorf("of the forwarder's old keys %v are there: secret_ttl is not over", left)
		}
		user, err := company.DC.Exec(ctx, "", "sh", "-c", "stat -c %U "+lab.StateDir+"/keys/forwarder.key "+lab.StateDir+"/keys/forwarder-retired/*")
		must(t, err)
		if user != strings.Repeat(lab.ForwarderUser+"\n", 3) {
			t.Errorf("the forwarder's keys belong to %q", user)
		}
	})
}

func rotated(t *testing.T) {
	t.Helper()
	early, late, split := newUser(t), newUser(t), newUser(t)
	for _, cloud := range lab.Clouds {
		misbehave(t, cloud, "503")
	}
	waiting, after := company.NewPassword(), company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, early.name, "", waiting))
	verdict(t, "queued", early.name, 2)

	said, err := company.DC.Exec(ctx, "", "samba-pwsync", "key", "rotate")
	must(t, err)
	t.Log(said)
	must(t, company.DC.LDAPSReset(ctx, late.name, "", after))
	verdict(t, "queued", late.name, 2)
	must(t, company.Sandbox.Behave(ctx))
	early.arrives(t, waiting)
	late.arrives(t, after)

	between := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, split.name, "", between))
	split.arrives(t, between)
	if len(retiredKeys(t, "forwarder")) == 0 {
		t.Error("the forwarder's old key is gone before secret_ttl is over")
	}
}

func retiredKeys(t *testing.T, role string) []string {
	t.Helper()
	out, err := company.DC.Exec(ctx, "", "ls", lab.StateDir+"/keys/"+role+"-retired")
	must(t, err)
	return strings.Fields(out)
}

// testForgotten: soon after the last delivery no password, nor the hash of one, is left in the memory of serve.
func testForgotten(t *testing.T) {
	u := newUser(t)
	for range 10 {
		password := company.NewPassword()
		must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
		u.arrives(t, password)
	}
	forgotten(t)
}

// forgotten scans every process of serve until there is nothing left of any password but one copy where there is a forwarder (on the stack of a
// goroutine, which nobody clears). How long that took is logged: less than a minute, on a machine that has time.
func forgotten(t *testing.T) {
	t.Helper()
	search, err := canary.New(company.Passwords())
	must(t, err)
	for began := time.Now(); ; time.Sleep(3 * time.Second) {
		var found []canary.Finding
		pids, err := company.DC.HostPIDs(ctx, "samba-pwsync serve")
		must(t, err)
		agents, err := company.DC.HostPIDs(ctx, "samba-pwsync serve --role agent")
		must(t, err)
		if len(pids) == 0 {
			t.Fatal("no serve runs")
		}
		text, tooMany := "", false
		for _, pid := range pids {
			f, size, err := search.ScanMemory(pid)
			must(t, err)
			if size < 1<<20 {
				t.Fatalf("only %d bytes of memory were seen", size)
			}
			found = append(found, f...)
			tooMany = tooMany || len(f) > 1 || len(f) == 1 && slices.Contains(agents, pid)
			text += fmt.Sprintf(" %d in %d MB", len(f), size>>20)
		}
		t.Logf("%2.0f s: copies of %d passwords:%s", time.Since(began).Seconds(), len(company.Passwords()), text)
		if !tooMany {
			return
		}
		if time.Since(began) > patience {
			for _, f := range found {
				t.Log(f)
			}
			t.Fatal("passwords are left in memory")
		}
	}
}

func waitUntil(t *testing.T, what string, patience time.Duration, done func() bool) {
	t.Helper()
	for began := time.Now(); !done(); time.Sleep(time.Second) {
		if time.Since(began) > patience {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}
