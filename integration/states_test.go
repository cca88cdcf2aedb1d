package integration

import (
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// testStates: what becomes of a password that has to be changed at the next logon, and of a disabled account's, is each target's to say; of two accounts
// with one name there neither is sent; and what a target has stopped wanting while it waited is not.
func testStates(t *testing.T) {
	must(t, company.DC.WriteConfig(ctx, lab.DefaultConfig))
	_, err := company.DC.Exec(ctx, "", "sed", "-i",
		`-e/^\[target.google\]/a temporary = "force-change"\ndisabled = "skip"\nfilter = "(!(description=not for google))"`, `-e/^\[target.entra\]/a temporary = "skip"`,
		`-es/"userPrincipalName"/"mail"/`, lab.ConfigFile) // which two accounts may have alike
	must(t, err)
	must(t, company.DC.StopServe(ctx))
	must(t, company.DC.StartServe(ctx))
	t.Cleanup(func() { must(t, company.DC.Configure(ctx, lab.DefaultConfig)) })
	t.Run("not wanted any more", testNotWantedAnyMore)
	t.Run("temporary", func(t *testing.T) { t.Parallel(); testTemporary(t) })
	t.Run("disabled", func(t *testing.T) { t.Parallel(); testDisabled(t) })
	t.Run("two accounts with one name", func(t *testing.T) { t.Parallel(); testNameShared(t) })
}

func testNotWantedAnyMore(t *testing.T) {
	u := newUser(t)
	first, password := u.password(), company.NewPassword()
	must(t, company.Sandbox.Misbehave(ctx, sandbox.Google, sandbox.Fault{Kind: "503"}))
	t.Cleanup(func() { must(t, company.Sandbox.Behave(ctx)) })
	must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
	u.waitAt(t, sandbox.Microsoft, password)
	must(t, company.DC.SetAttribute(ctx, u.name, "description", "not for google"))
	verdict(t, "shelved", u.name, 1)
	u.why(t, "0", "delivered to entra ", "; google does not want the account any more; ")
	must(t, company.Sandbox.Behave(ctx))
	if code, said := command(t, "queue retry --all"); code != "0" {
		t.Errorf("%s, %q", code, said)
	}
	if u.holds(t, sandbox.Google, password, 10*time.Second) || !u.holds(t, sandbox.Google, first, 0) {
		t.Error("google was sent what it does not want")
	}
	u.drifts(t)
	must(t, company.DC.SetAttribute(ctx, u.name, "description", "for all again"))
	u.waitAt(t, sandbox.Google, password)
	u.why(t, "0", "delivered to entra ", "; delivered to google ")
}

func testTemporary(t *testing.T) {
	u := newUser(t)
	first := u.password()
	temporary := company.NewPassword()
	must(t, company.DC.SetPasswordMustChange(ctx, u.name, "", temporary))
	if held := u.waitAt(t, sandbox.Google, temporary); !held.MustChange {
		t.Error("Google does not demand another password")
	}
	verdict(t, "skipped", u.name, 1)
	u.waitAt(t, sandbox.Microsoft, first)
	u.drifts(t)
	own := company.NewPassword()
	must(t, company.DC.KInitExpired(ctx, u.name, temporary, own))
	for _, cloud := range lab.Clouds {
		if held := u.waitAt(t, cloud, own); held.MustChange {
			t.Errorf("%s demands another password still", cloud)
		}
	}
}

func testDisabled(t *testing.T) {
	u := newUser(t)
	first := u.password()
	must(t, company.DC.SetAttribute(ctx, u.name, "userAccountControl", "514"))
	password := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
	u.waitAt(t, sandbox.Microsoft, password)
	verdict(t, "skipped", u.name, 1)
	u.waitAt(t, sandbox.Google, first)
	u.drifts(t)
	must(t, company.DC.SetAttribute(ctx, u.name, "userAccountControl", "512"))
	u.drifts(t, "wanted-since")
}

func testNameShared(t *testing.T) {
	a, b := newUser(t), newUser(t)
	must(t, company.DC.SetAttribute(ctx, b.name, "mail", lab.Mail(a.name)))
	for _, u := range []*user{a, b} {
		must(t, company.DC.LDAPSReset(ctx, u.name, "", company.NewPassword()))
		verdict(t, "unwanted", u.name, 1)
		u.gotNothingElse(t)
		u.drifts(t, "name-shared", "name-shared")
	}
	if d := driftOf(t, a.name)[0]; d.Detail != b.name || time.Since(d.Seen) > time.Hour {
		t.Errorf("drift says %+v", d)
	}
	must(t, company.DC.SetAttribute(ctx, b.name, "mail", lab.Mail(b.name)))
	for _, u := range []*user{a, b} {
		u.mends(t)
	}
}
