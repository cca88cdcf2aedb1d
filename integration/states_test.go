package integration

import (
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// testStates: what becomes of a password that has to be changed at the next logon, and of a disabled account's, is each target's to say; and
// of two accounts with one name there neither is sent.
func testStates(t *testing.T) {
	must(t, company.DC.WriteConfig(ctx, lab.DefaultConfig))
	_, err := company.DC.Exec(ctx, "", "sed", "-i",
		`-e/^\[target.google\]/a temporary = "force-change"\ndisabled = "skip"`, `-e/^\[target.entra\]/a temporary = "skip"`,
		`-es/"userPrincipalName"/"mail"/`, lab.ConfigFile) // which two accounts may have alike
	must(t, err)
	must(t, company.DC.StopServe(ctx))
	must(t, company.DC.StartServe(ctx))
	t.Cleanup(func() { must(t, company.DC.Configure(ctx, lab.DefaultConfig)) })
	t.Run("temporary", func(t *testing.T) { t.Parallel(); testTemporary(t) })
	t.Run("disabled", func(t *testing.T) { t.Parallel(); testDisabled(t) })
	t.Run("two accounts with one name", func(t *testing.T) { t.Parallel(); testNameShared(t) })
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
