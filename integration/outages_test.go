package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// testCloudDown: while a cloud is down, passwords wait; what is sent afterwards is the current one and nothing else, and the
// other cloud never waits.
func testCloudDown(t *testing.T) {
	t.Run("changed twice meanwhile", testChangedTwice)
	t.Run("second change never captured", testSecondChangeNotCaptured)
	t.Run("answers lost", testAnswersLost)
	t.Run("account deleted and made anew", testMadeAnew)
}

func testChangedTwice(t *testing.T) {
	u := newUser(t)
	misbehave(t, sandbox.Google, "503")

	first, second := company.NewPassword(), company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", first))
	u.waitAt(t, sandbox.Microsoft, first)
	verdict(t, "queued", u.name, 2)
	must(t, company.DC.LDAPSReset(ctx, u.name, "", second))
	u.waitAt(t, sandbox.Microsoft, second)
	verdict(t, "queued", u.name, 3)

	must(t, company.Sandbox.Behave(ctx))
	u.waitAt(t, sandbox.Google, second)
	if got := history(t, sandbox.Google, u.name); len(got) != 2 {
		t.Errorf("Google was sent %d passwords, want the one from before its outage and the one after it", len(got))
	}
	if got := history(t, sandbox.Microsoft, u.name); len(got) != 3 {
		t.Errorf("Microsoft was sent %d passwords, want all 3", len(got))
	}
}

// The first change waits; the second one the hook never sees. So the first may not be sent any more, although nothing newer can be.
func testSecondChangeNotCaptured(t *testing.T) {
	u := newUser(t)
	for _, cloud := range lab.Clouds {
		misbehave(t, cloud, "503")
	}
	waiting := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", waiting))
	verdict(t, "queued", u.name, 2)

	said := len(hookSaid(t, u.name, 2))
	unseen := company.NewPassword()
	must(t, company.DC.WithoutComplexity(ctx, u.name, func() error { return company.DC.LDAPSReset(ctx, u.name, "", unseen) }))
	must(t, company.DC.Login(u.name, unseen))
	if len(hookSaid(t, u.name, said)) != said {
		t.Fatal("the hook saw the second change, so this test shows nothing")
	}

	must(t, company.Sandbox.Behave(ctx))
	verdict(t, "superseded", u.name, len(lab.Clouds))
	u.gotNothingElse(t)

	next := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", next))
	u.arrives(t, next)
	u.never(t, waiting)
}

// A cloud that sets the password and then breaks the connection is asked again; that must not undo a newer change.
func testAnswersLost(t *testing.T) {
	u := newUser(t)
	for _, cloud := range lab.Clouds {
		misbehave(t, cloud, "504-applied")
	}
	first, second := company.NewPassword(), company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", first))
	u.waitFor(t, first)
	must(t, company.DC.LDAPSReset(ctx, u.name, "", second))
	u.waitFor(t, second)
	must(t, company.Sandbox.Behave(ctx))

	next := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", next))
	u.waitFor(t, next)
	inOrder(t, u.name, []string{u.password(), first, second, next})
}

// The account whose password waits is deleted, and another one gets its name: the deleted one's password belongs to nobody.
func testMadeAnew(t *testing.T) {
	u := newUser(t)
	for _, cloud := range lab.Clouds {
		misbehave(t, cloud, "503")
	}
	waiting := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", waiting))
	verdict(t, "queued", u.name, 2)
	must(t, company.DC.DeleteUser(ctx, u.name))
	verdict(t, "account-gone", u.name, len(lab.Clouds))

	next := company.NewPassword()
	must(t, company.DC.CreateUser(ctx, u.name, next))
	must(t, company.Sandbox.Behave(ctx))
	u.arrives(t, next)
	u.never(t, waiting)
}

// testDCDown: samba-tool on the DC changes passwords also when Samba does not run. The capture waits until the directory
// can be asked.
func testDCDown(t *testing.T) {
	u := newUser(t)
	must(t, company.DC.StopSamba(ctx))
	password := company.NewPassword()
	err := company.DC.SetPasswordLocal(ctx, u.name, "", password)
	hookSaid(t, u.name, 2)
	must(t, company.DC.StartSamba(ctx))
	must(t, err)
	u.arrives(t, password)
	must(t, company.DC.Login(u.name, password))
}

// testRestored: the directory goes back to a snapshot, twice: while serve runs, and while it does not. Versions are used anew then.
func testRestored(t *testing.T) {
	t.Run("before serve's eyes", func(t *testing.T) { testWentBack(t, company.DC.Restore) })
	t.Run("while serve is stopped", func(t *testing.T) {
		testWentBack(t, func(ctx context.Context) error {
			return errors.Join(company.DC.StopServe(ctx), company.DC.Restore(ctx), company.DC.StartServe(ctx))
		})
	})
}

func testWentBack(t *testing.T, restore func(context.Context) error) {
	same, delivered, waiting, gone := newUser(t), newUser(t), newUser(t), newUser(t)
	must(t, company.DC.Snapshot(ctx))

	second := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, delivered.name, "", second))
	delivered.arrives(t, second)
	must(t, company.DC.DeleteUser(ctx, gone.name))
	made := &user{name: fmt.Sprintf("user%02d", users.Add(1))} // after the snapshot
	must(t, company.Sandbox.AddUsers(ctx, lab.Mail(made.name)))
	for _, cloud := range lab.Clouds {
		misbehave(t, cloud, "503")
	}
	past := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, waiting.name, "", past))
	verdict(t, "queued", waiting.name, 2)
	pastToo := company.NewPassword()
	must(t, company.DC.CreateUser(ctx, made.name, pastToo))
	verdict(t, "queued", made.name, 1)

	must(t, restore(ctx))
	verdict(t, "rolled-back", waiting.name, len(lab.Clouds))
	verdict(t, "account-gone", made.name, len(lab.Clouds))
	verdict(t, "directory-went-back", delivered.name, 1)
	verdict(t, "directory-went-back", same.name, 0)
	must(t, company.Sandbox.Behave(ctx))

	for _, u := range []*user{same, waiting, gone, delivered} {
		must(t, company.DC.Login(u.name, u.sent[0]))
		next := company.NewPassword()
		must(t, company.DC.LDAPSReset(ctx, u.name, "", next))
		u.arrives(t, next)
		u.drifts(t)
	}
	waiting.never(t, past)
	next := company.NewPassword()
	must(t, company.DC.CreateUser(ctx, made.name, next))
	made.arrives(t, next)
	made.never(t, pastToo)
}

func misbehave(t *testing.T, cloud sandbox.Cloud, fault string) {
	t.Helper()
	must(t, company.Sandbox.Misbehave(ctx, cloud, sandbox.Fault{Kind: fault}))
	t.Cleanup(func() { must(t, company.Sandbox.Behave(ctx)) })
}

// inOrder demands that a cloud was sent passwords of that list only, and never an older one after a newer one. It may have missed
// some: a newer change replaces one that still waits.
func inOrder(t *testing.T, name string, passwords []string) {
	t.Helper()
	for _, cloud := range lab.Clouds {
		newest := 0
		for n, sent := range history(t, cloud, name) {
			which := -1
			for i, password := range passwords {
				if is(t, sent, password) {
					which = i
				}
			}
			switch {
			case which < 0:
				t.Errorf("%s: password %d sent for %s is none that was set", cloud, n, name)
			case which < newest:
				t.Errorf("%s: for %s, change %d was sent after change %d", cloud, name, which, newest)
			}
			newest = max(newest, which)
		}
		if newest != len(passwords)-1 {
			t.Errorf("%s: for %s, the newest change sent was %d of %d", cloud, name, newest, len(passwords)-1)
		}
	}
}
