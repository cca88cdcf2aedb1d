package integration

import (
	"testing"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// testNeverSent: what the directory does not prove to be the account's current password is sent nowhere.
//
// That nothing was sent is shown twice: serve gives its verdict on the capture, and after the user's next real change, which does
// arrive, the clouds have been sent that change and nothing else.
func testNeverSent(t *testing.T) {
	t.Run("refused by the policy", func(t *testing.T) { t.Parallel(); testRefusedByPolicy(t) })
	t.Run("refused by the password history", func(t *testing.T) { t.Parallel(); testRefusedByHistory(t, company.DC.Routes()) })
	t.Run("forged with SamrValidatePassword", func(t *testing.T) { t.Parallel(); testForged(t, newUser(t)) })
	t.Run("excluded account", func(t *testing.T) { t.Parallel(); testExcluded(t) })
	t.Run("administrator", func(t *testing.T) { t.Parallel(); testAdministrator(t) })
}

func testRefusedByPolicy(t *testing.T) {
	for name, password := range map[string]string{
		"too short":  company.Remember(company.NewPassword()[:7]), // Samba's own minimum is 7
		"too long":   company.Remember(company.NewPassword() + "abc"),
		"too simple": company.NewSimplePassword(),
	} {
		for _, route := range company.DC.Routes() {
			t.Run(name+", "+route.Name, func(t *testing.T) {
				t.Parallel()
				u := newUser(t)
				if err := route.Change(ctx, u.name, u.password(), password); err == nil {
					t.Fatal("the change was not refused")
				}
				if said := hookSaid(t, u.name, 2); said[1] != "refused" {
					t.Errorf("the hook %s the password, so something else refused it", said[1])
				}
				must(t, company.DC.Login(u.name, u.password()))

				next := company.NewPassword()
				u.changesBy(t, route, next)
				u.arrives(t, next)
			})
		}
	}
}

// The hook accepts the password, and after it Samba refuses the change.
func testRefusedByHistory(t *testing.T, routes []lab.Route) {
	for _, route := range routes {
		if !route.Own {
			continue // an administrator's reset does not ask the history
		}
		t.Run(route.Name, func(t *testing.T) {
			t.Parallel()
			u := newUser(t)
			old := u.password()
			current := company.NewPassword()
			u.changesBy(t, route, current)
			u.arrives(t, current)

			if err := route.Change(ctx, u.name, current, old); err == nil {
				t.Fatal("the change was not refused")
			}
			if said := hookSaid(t, u.name, 3); said[2] != "accepted" {
				t.Errorf("the hook %s the password; this test wants Samba to refuse what the hook accepted", said[2])
			}
			verdict(t, "never-committed", u.name, 1)
			must(t, company.DC.Login(u.name, current))

			next := company.NewPassword()
			u.changesBy(t, route, next)
			u.arrives(t, next)
		})
	}
}

// Any user of the domain can make the DC run the hook in anybody's name, with a password of his choice.
func testForged(t *testing.T, mallory *user) {
	victim := newUser(t)
	forged := 0
	forge := func() string {
		t.Helper()
		password := company.NewForgeablePassword()
		must(t, company.DC.ValidatePassword(ctx, mallory.name, mallory.password(), victim.name, password))
		forged++
		if said := hookSaid(t, victim.name, 1+forged); said[forged] != "accepted" {
			t.Fatalf("the hook %s the forged password, so this test shows nothing", said[forged])
		}
		return password
	}

	atOnce := forge()
	verdict(t, "never-committed", victim.name, 1)
	victim.gotNothingElse(t)

	// Waiting for the victim's next real change, which must not confirm it.
	waiting := []string{forge(), forge()}
	next := company.NewPassword()
	must(t, company.DC.KPasswd(ctx, victim.name, victim.password(), next))
	victim.arrives(t, next)
	verdict(t, "never-committed", victim.name, 3)
	victim.gotNothingElse(t)

	for _, password := range append(waiting, atOnce) {
		victim.never(t, password)
		if company.DC.Login(victim.name, password) == nil {
			t.Error("one can log in with a forged password")
		}
	}
}

// [directory] exclude = "(adminCount=1)" in the lab's configuration.
func testExcluded(t *testing.T) {
	u := newUser(t)
	must(t, company.DC.SetAttribute(ctx, u.name, "adminCount", "1"))
	password := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
	verdict(t, "unwanted", u.name, 1)
	must(t, company.DC.Login(u.name, password))
	u.gotNothingElse(t)
	u.never(t, password)

	// Neither when the exclusion ends: the password that was not sent is gone. The next change is sent.
	must(t, company.DC.SetAttribute(ctx, u.name, "adminCount", "0"))
	next := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", next))
	u.arrives(t, next)
}

// Samba sets adminCount on nobody who joins Domain Admins; an administrator is one all the same.
func testAdministrator(t *testing.T) {
	u := newUser(t)
	group := func(what string) {
		t.Helper()
		_, err := company.DC.Exec(ctx, "", "samba-tool", "group", what, "Domain Admins", u.name)
		must(t, err)
	}
	group("addmembers")
	password := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
	verdict(t, "unwanted", u.name, 1)
	u.gotNothingElse(t)

	group("removemembers")
	next := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", next))
	u.arrives(t, next)
	u.never(t, password)
}
