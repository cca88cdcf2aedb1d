package twodc

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// testElsewhere: what is changed on a DC without samba-pwsync is captured by nobody. What waits for the account on the other DC is
// dropped all the same, as soon as the change has been replicated; and drift names the DC.
func (d *domain) testElsewhere(t *testing.T) {
	u := newUser(t, d.Lab, d.dcs[1])
	must(t, d.Sandbox.Misbehave(ctx, sandbox.Google, sandbox.Fault{Kind: "503"}))
	t.Cleanup(func() { must(t, d.Sandbox.Behave(ctx)) })
	waiting := d.NewPassword()
	must(t, d.dcs[0].LDAPSReset(ctx, u.name, "", waiting))
	held, err := d.Sandbox.Verify(ctx, sandbox.Microsoft, lab.Mail(u.name), waiting, patience)
	must(t, err)
	if !held {
		t.Fatalf("%s does not hold the password that waits for %s", sandbox.Microsoft, sandbox.Google)
	}

	eventually(t, patience, "the other DC holds the change", func() bool { return d.dcs[1].Login(u.name, waiting) == nil })
	elsewhere := d.NewPassword()
	must(t, d.dcs[1].LDAPSReset(ctx, u.name, "", elsewhere))
	superseded := func(e lab.Event) bool { return e.Name == "superseded" && e.Fields["account"] == u.name }
	_, err = d.dcs[0].Eventually(timeout(t), superseded)
	must(t, err)
	must(t, d.Sandbox.Behave(ctx))

	eventually(t, patience, "drift names the other DC", func() bool {
		drift := drift(t, d.dcs[0], u.name)
		return len(drift) == len(lab.Clouds) && !slices.ContainsFunc(drift, func(e entry) bool {
			return e.Reason != change.AtOtherDC || e.DC != d.dcs[1].Short()
		})
	})
	state, err := d.Sandbox.State(ctx)
	must(t, err)
	for cloud, want := range map[sandbox.Cloud]int{sandbox.Google: 1, sandbox.Microsoft: 2} {
		if at, _ := state.User(cloud, lab.Mail(u.name)); len(at.Passwords) != want {
			t.Errorf("%s was sent %d passwords, want %d", cloud, len(at.Passwords), want)
		}
	}

	// The next change on a DC that has samba-pwsync ends it.
	must(t, d.dcs[0].LDAPSReset(ctx, u.name, "", d.NewPassword()))
	eventually(t, patience, "the drift is over", func() bool { return len(drift(t, d.dcs[0], u.name)) == 0 })
}

// testAgentStopped: while a password waits for a cloud, the agent is stopped, and the password is changed on the DC without samba-pwsync. The cloud
// comes back, and the forwarder knows only that nobody has looked at the directory for a while: nothing is sent, in however long a time, and whoever asks. The
// agent comes back, and what waited is dropped.
func (d *domain) testAgentStopped(t *testing.T) {
	u := newUser(t, d.Lab, d.dcs[1])
	must(t, d.dcs[0].SplitServe(ctx))
	t.Cleanup(func() { must(t, d.dcs[0].JoinServe(ctx)) })
	for _, cloud := range lab.Clouds {
		must(t, d.Sandbox.Misbehave(ctx, cloud, sandbox.Fault{Kind: "503"}))
	}
	t.Cleanup(func() { must(t, d.Sandbox.Behave(ctx)) })
	waiting := d.NewPassword()
	must(t, d.dcs[0].LDAPSReset(ctx, u.name, "", waiting))
	tried := func(e lab.Event) bool { return e.Name == "retry" && e.Fields["account"] == u.name }
	_, err := d.dcs[0].Eventually(timeout(t), tried)
	must(t, err)

	must(t, d.dcs[0].StopService(ctx, lab.Agent))
	stopped := time.Now()
	eventually(t, patience, "the other DC holds the change", func() bool { return d.dcs[1].Login(u.name, waiting) == nil })
	must(t, d.dcs[1].LDAPSReset(ctx, u.name, "", d.NewPassword()))
	stale := func(e lab.Event) bool { return e.Name == "watch-stale" && e.Time.After(stopped) }
	minutes, cancel := context.WithTimeout(ctx, 5*patience) // one after the agent's last mark, and when the next attempt is due
	defer cancel()
	_, err = d.dcs[0].Eventually(minutes, stale)
	must(t, err)
	before := d.sent(t, u)
	must(t, d.Sandbox.Behave(ctx))
	for range 5 {
		_, err := d.dcs[0].Exec(ctx, "", "samba-pwsync", "queue", "retry", "--all")
		must(t, err)
		time.Sleep(2 * time.Second) // for what must not happen
	}
	if after := d.sent(t, u); after != before {
		t.Errorf("the clouds were sent %v passwords while nobody looked at the directory, and %v before", after, before)
	}

	must(t, d.dcs[0].StartService(ctx, lab.Agent))
	for _, cloud := range []string{"google", "entra"} {
		superseded := func(e lab.Event) bool {
			return e.Name == "superseded" && e.Fields["account"] == u.name && e.Fields["target"] == cloud
		}
		_, err := d.dcs[0].Eventually(timeout(t), superseded)
		must(t, err)
	}
	eventually(t, patience, "drift names the other DC", func() bool {
		drift := drift(t, d.dcs[0], u.name)
		return len(drift) == len(lab.Clouds) && !slices.ContainsFunc(drift, func(e entry) bool {
			return e.Reason != change.AtOtherDC || e.DC != d.dcs[1].Short()
		})
	})
	if after := d.sent(t, u); after != before {
		t.Errorf("the clouds were sent %v passwords, and %v before the agent was stopped", after, before)
	}

	// And the next one arrives, with nothing before it.
	u.password, u.sent = d.NewPassword(), u.sent+1
	must(t, d.dcs[0].LDAPSReset(ctx, u.name, "", u.password))
	u.isEverywhere(t)
}

// sent is how many passwords of a user each cloud took.
func (d *domain) sent(t *testing.T, u *user) (n [2]int) {
	t.Helper()
	state, err := d.Sandbox.State(ctx)
	must(t, err)
	for i, cloud := range lab.Clouds {
		at, _ := state.User(cloud, lab.Mail(u.name))
		n[i] = len(at.Passwords)
	}
	return n
}

// testPeer: what is changed on a peer is delivered from there, and is no drift here.
func (d *domain) testPeer(t *testing.T) {
	u := newUser(t, d.Lab, d.dcs[1])
	u.password, u.sent = d.NewPassword(), u.sent+1
	must(t, d.dcs[1].LDAPSReset(ctx, u.name, "", u.password))
	eventually(t, patience, "the change is known to be the peer's", func() bool {
		drift := drift(t, d.dcs[0], u.name, "--all")
		return len(drift) == len(lab.Clouds) && !slices.ContainsFunc(drift, func(e entry) bool { return e.Reason != change.AtPeer })
	})
	for _, dc := range d.dcs {
		if drift := drift(t, dc, u.name); len(drift) > 0 {
			t.Errorf("%s reports drift: %+v", dc.Host, drift)
		}
	}
	u.isEverywhere(t)
}

// entry is one of drift's.
type entry struct {
	Account string
	Reason  change.Reason
	DC      string
}

// drift is what `samba-pwsync drift` on a DC says of an account.
func drift(t *testing.T, dc *lab.DC, account string, flags ...string) []entry {
	t.Helper()
	out, err := dc.Exec(ctx, "", append([]string{"samba-pwsync", "drift", "--json"}, flags...)...) // ends with 3 when something is listed
	var report struct{ Drift []entry }
	if json.Unmarshal([]byte(out), &report) != nil {
		t.Fatalf("asking %s for drift: %v", dc.Host, err)
	}
	return slices.DeleteFunc(report.Drift, func(e entry) bool { return e.Account != account })
}
