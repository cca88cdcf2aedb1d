package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// testDrift: what a target wants and does not have is listed by `samba-pwsync drift`, with the reason, until it arrives or nobody wants it
// any more; and nothing else is.
func testDrift(t *testing.T) {
	t.Run("before the installation", testDriftBeforeInstallation)
	t.Run("not captured", testDriftNotCaptured)
	t.Run("complexity off in the domain", testDriftComplexityOff)
	t.Run("one account", func(t *testing.T) {
		t.Run("complexity off in a PSO", func(t *testing.T) { t.Parallel(); testDriftPSO(t) })
		t.Run("only a hash set", func(t *testing.T) { t.Parallel(); testDriftHashOnly(t) })
		t.Run("wanted since", func(t *testing.T) { t.Parallel(); testDriftWantedSince(t) })
		t.Run("no such user", func(t *testing.T) { t.Parallel(); testDriftParked(t) })
		t.Run("not wanted", func(t *testing.T) { t.Parallel(); testDriftUnwanted(t) })
	})
	t.Run("a cloud is down, busy, or denies", testDriftWaiting)
}

// The user of before the installation, too, arrives with the next change.
func testDriftBeforeInstallation(t *testing.T) {
	newUser(t) // serve is up when this one's password has arrived
	u := &user{name: lab.Veteran}
	must(t, company.Sandbox.AddUsers(ctx, lab.Mail(u.name)))
	u.drifts(t, "before-installation", "before-installation")
	u.mends(t)
}

// The hook lacks a key: it cannot store what it is shown, and by on_capture_error = "accept" the change goes on.
func testDriftNotCaptured(t *testing.T) {
	const key = lab.StateDir + "/keys/agent.pub"
	u := newUser(t)
	move := func(from, to string) {
		t.Helper()
		_, err := company.DC.Exec(ctx, "", "mv", from, to)
		must(t, err)
	}
	move(key, key+".away")
	err := company.DC.LDAPSReset(ctx, u.name, "", company.NewPassword())
	move(key+".away", key)
	must(t, err)
	u.drifts(t, "not-captured", "not-captured")
	if d := driftOf(t, u.name)[0]; d.DC != "DC1" || d.User != lab.Mail(u.name) || d.Stamp.Version < 2 || time.Since(d.Seen) > time.Hour {
		t.Errorf("drift says %+v", d)
	}
	u.mends(t)
}

func testDriftComplexityOff(t *testing.T) {
	complexity := func(what string) {
		t.Helper()
		_, err := company.DC.Exec(ctx, "", "samba-tool", "domain", "passwordsettings", "set", "--complexity="+what)
		must(t, err)
	}
	u := newUser(t)
	complexity("off")
	t.Cleanup(func() { complexity("on") })
	must(t, company.DC.LDAPSReset(ctx, u.name, "", company.NewPassword()))
	u.drifts(t, "complexity-off", "complexity-off")
	if d := driftOf(t, u.name)[0]; d.Detail != "the domain" {
		t.Errorf("drift says %+v", d)
	}
	complexity("on")

	// It goes when the account does.
	must(t, company.DC.DeleteUser(ctx, u.name))
	u.drifts(t)
}

func testDriftPSO(t *testing.T) {
	u := newUser(t)
	must(t, company.DC.WithoutComplexity(ctx, u.name, func() error {
		if err := company.DC.LDAPSReset(ctx, u.name, "", company.NewPassword()); err != nil {
			return err
		}
		u.drifts(t, "complexity-off", "complexity-off")
		return nil
	}))
	if d := driftOf(t, u.name)[0]; d.Detail != "password settings object simple-"+u.name {
		t.Errorf("drift says %+v", d)
	}
	u.mends(t)
}

func testDriftHashOnly(t *testing.T) {
	u := newUser(t)
	password := company.NewPassword()
	must(t, company.DC.SetHash(ctx, u.name, password))
	u.drifts(t, "hash-only", "hash-only")
	u.gotNothingElse(t)
	u.mends(t)
}

// The exclusion of a user ends after his change was captured, and not sent.
func testDriftWantedSince(t *testing.T) {
	u := newUser(t)
	must(t, company.DC.SetAttribute(ctx, u.name, "adminCount", "1"))
	must(t, company.DC.LDAPSReset(ctx, u.name, "", company.NewPassword()))
	verdict(t, "unwanted", u.name, 1)
	must(t, company.DC.SetAttribute(ctx, u.name, "adminCount", "0"))
	u.drifts(t, "wanted-since", "wanted-since")
	u.mends(t)
}

// The clouds know no such user.
func testDriftParked(t *testing.T) {
	u := &user{name: fmt.Sprintf("user%02d", users.Add(1))}
	must(t, company.DC.CreateUser(ctx, u.name, company.NewPassword()))
	u.drifts(t, "no-user", "no-user")
	must(t, company.Sandbox.AddUsers(ctx, lab.Mail(u.name)))
	u.mends(t)
}

// An account that no target wants is not listed, whatever becomes of its password.
func testDriftUnwanted(t *testing.T) {
	u := newUser(t)
	must(t, company.DC.SetAttribute(ctx, u.name, "adminCount", "1"))
	must(t, company.DC.SetHash(ctx, u.name, company.NewPassword()))
	other := newUser(t)
	must(t, company.DC.SetHash(ctx, other.name, company.NewPassword()))
	other.drifts(t, "hash-only", "hash-only")
	time.Sleep(2 * time.Second) // the next batch, if it was not in the same
	if got := driftOf(t, u.name); len(got) > 0 {
		t.Errorf("drift lists %+v", got)
	}
	other.mends(t)
}

func testDriftWaiting(t *testing.T) {
	for _, c := range []struct {
		cloud  sandbox.Cloud
		fault  sandbox.Fault
		reason string
		at     int // of entra and google
	}{
		{sandbox.Google, sandbox.Fault{Kind: "429", RetryAfter: 20 * time.Second}, "waiting", 1},
		{sandbox.Google, sandbox.Fault{Kind: "accessNotConfigured"}, "denied", 1},
		{sandbox.Microsoft, sandbox.Fault{Kind: "503"}, "down", 0},
	} {
		t.Run(c.fault.Kind, func(t *testing.T) {
			u, other := newUser(t), newUser(t) // by one alone, the cloud is not down so soon
			must(t, company.Sandbox.Misbehave(ctx, c.cloud, c.fault))
			t.Cleanup(func() { must(t, company.Sandbox.Behave(ctx)) })
			password := company.NewPassword()
			must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
			must(t, company.DC.LDAPSReset(ctx, other.name, "", company.NewPassword()))
			u.drifts(t, c.reason)
			if got := driftOf(t, u.name)[0].Target; got != []string{"entra", "google"}[c.at] {
				t.Errorf("it is listed for %s", got)
			}
			must(t, company.Sandbox.Behave(ctx))
			u.waitFor(t, password)
			u.drifts(t)
		})
	}
}

// drifts waits until drift lists the account for these reasons, in the order of the targets' names, and for no other.
func (u *user) drifts(t *testing.T, reasons ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(300 * time.Millisecond) {
		got = nil
		for _, d := range driftOf(t, u.name) {
			got = append(got, string(d.Reason))
		}
		if slices.Equal(got, reasons) {
			return
		}
	}
	t.Fatalf("drift lists %s for %q, want %q", u.name, got, reasons)
}

// mends changes the password once more: that arrives, and drift lists the account no longer.
func (u *user) mends(t *testing.T) {
	t.Helper()
	password := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
	u.waitFor(t, password)
	u.drifts(t)
}

// driftOf is what drift lists of an account. Its exit code has to fit the whole list.
func driftOf(t *testing.T, account string) (of []deliver.Drift) {
	t.Helper()
	said, err := company.DC.Exec(ctx, "", "sh", "-c", `samba-pwsync drift --json; echo $?`)
	must(t, err)
	text, code, _ := strings.Cut(strings.TrimSuffix(said, "\n"), "\n}\n")
	var list struct{ Drift []deliver.Drift }
	must(t, json.Unmarshal([]byte(text+"}"), &list))
	if want := map[bool]string{true: "3", false: "0"}[len(list.Drift) > 0]; code != want {
		t.Errorf("drift lists %d, and its exit code is %s", len(list.Drift), code)
	}
	for _, d := range list.Drift {
		if d.Account == account {
			of = append(of, d)
		}
	}
	return of
}
