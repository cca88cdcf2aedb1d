package integration

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// testWhy: one cloud refuses the password and the other one is down. `why` tells that in a sentence, what waits is listed, tried at once when
// the cloud is back, and shredded when it is dropped.
func testWhy(t *testing.T) {
	u, other := newUser(t), newUser(t)
	u.why(t, "0", "delivered to entra ", "; delivered to google ", " after the change")

	must(t, company.Sandbox.Misbehave(ctx, sandbox.Google, sandbox.Fault{Kind: "503"}))
	t.Cleanup(func() { must(t, company.Sandbox.Behave(ctx)) })
	password := company.Remember(company.NewPassword() + "ü") // which Entra ID does not take
	must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
	must(t, company.DC.LDAPSReset(ctx, other.name, "", company.NewPassword()))
	u.why(t, "3", "entra refuses it: ", "; the user has to choose another", "and holds the one delivered ", "it waits for google, which is down since ")
	other.why(t, "3", "delivered to entra ", "; it waits for google, which is down since ")
	states := map[string]deliver.Progress{}
	for _, q := range queueOf(t, u.name) {
		states[q.Target] = q.State
		if q.Sealed != (q.Target == "google") {
			t.Errorf("queue says %+v", q)
		}
	}
	if states["google"] != deliver.Pending && states["google"] != deliver.Trying || states["entra"] != deliver.Refused || len(states) != 2 {
		t.Errorf("queue lists %v", states)
	}

	// Dropped: nothing of it arrives when the cloud is back, and it stays drift.
	if _, said := command(t, "queue drop "+other.name+" --target google"); !strings.HasPrefix(said, other.name+": dropped, for google") {
		t.Errorf("%q", said)
	}
	must(t, company.Sandbox.Behave(ctx))
	began := time.Now()
	// It may have been tried at the same moment by itself.
	if code, said := command(t, "queue retry --all"); code != "0" || !strings.HasPrefix(said, "1 change is tried now.\n") && !u.holds(t, sandbox.Google, password, 0) {
		t.Errorf("%s, %q", code, said)
	}
	u.waitAt(t, sandbox.Google, password)
	t.Logf("at google %v after queue retry", time.Since(began))
	u.why(t, "3", "delivered to google ", "; entra refuses it: ")
	other.why(t, "3", "; it was dropped from the queue for google ")
	other.drifts(t, "dropped")
	if n := len(history(t, sandbox.Google, other.name)); n != 1 {
		t.Errorf("google was sent %d passwords of %s", n, other.name)
	}
	if left := queueOf(t, other.name); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	u.mends(t)
	other.mends(t)
	u.why(t, "0", "delivered to entra ", "; delivered to google ")
	if code, said := command(t, "why nobody-of-that-name"); code != "1" || !strings.Contains(said, "no account of that name") {
		t.Errorf("%s, %q", code, said)
	}
}

// why waits until the verdict has these parts, by each of the account's names, and looks at the exit code.
func (u *user) why(t *testing.T, wanted string, parts ...string) {
	t.Helper()
	code, said := "", ""
	has := func(name string) bool {
		code, said = command(t, "why "+name)
		for _, part := range parts {
			if !strings.Contains(said, part) {
				return false
			}
		}
		return strings.HasPrefix(said, u.name+": ") && strings.Count(said, "\n") == 1 && code == wanted
	}
	for deadline := time.Now().Add(patience); !has(u.name); time.Sleep(300 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("why says, with exit code %s, not %s: %q, and not %q", code, wanted, said, parts)
		}
	}
	t.Log(strings.TrimSpace(said))
	if !has(lab.Mail(u.name)) {
		t.Errorf("by the name at the clouds, why says, with exit code %s: %q", code, said)
	}
}

// command runs samba-pwsync on the DC, and returns its exit code and what it said.
func command(t *testing.T, line string) (code, said string) {
	t.Helper()
	out, err := company.DC.Exec(ctx, "", "sh", "-c", "samba-pwsync "+line+" 2>&1; echo \"#$?\"")
	must(t, err)
	said, code, _ = strings.Cut(out, "#")
	return strings.TrimSpace(code), said
}

func queueOf(t *testing.T, account string) (of []deliver.Queued) {
	t.Helper()
	code, said := command(t, "queue list --json")
	var list struct{ Queue []deliver.Queued }
	if err := json.Unmarshal([]byte(said), &list); err != nil || code != "0" {
		t.Fatalf("queue list says, with exit code %s: %v, %s", code, err, said)
	}
	for _, q := range list.Queue {
		if q.Account == account {
			of = append(of, q)
		}
	}
	return of
}
