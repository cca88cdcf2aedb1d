package integration

import (
	"testing"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// testRolesApart: agent and forwarder run as two services, the forwarder without root's rights; what changes still arrives, and
// the forwarder's user reaches neither the directory nor what the hook leaves for the agent.
func testRolesApart(t *testing.T) {
	must(t, company.DC.SplitServe(ctx))
	joined := false
	t.Cleanup(func() {
		if !joined {
			must(t, company.DC.JoinServe(ctx))
		}
	})

	user, err := company.DC.Exec(ctx, "", "sh", "-c", `ps -o user:20= -p "$(cat /etc/service/samba-pwsync-forwarder/supervise/pid)"`)
	must(t, err)
	if user != lab.ForwarderUser+"\n" {
		t.Fatalf("the forwarder runs as %q", user)
	}
	u := newUser(t)
	password := company.NewPassword()
	must(t, company.DC.KPasswd(ctx, u.name, u.password(), password))
	u.arrives(t, password)

	for _, path := range []string{lab.LDAPI, lab.StateDir + "/spool/incoming/.", lab.StateDir + "/keys/agent.key"} {
		asForwarder := []string{"setpriv", "--reuid=" + lab.ForwarderUser, "--clear-groups", "--regid=" + lab.ForwarderUser, "test", "-r", path}
		if _, err := company.DC.Exec(ctx, "", "test", "-e", path); err != nil {
			t.Errorf("%s is not there, so this shows nothing: %v", path, err)
		}
		if _, err := company.DC.Exec(ctx, "", asForwarder...); err == nil {
			t.Errorf("the forwarder's user can read %s", path)
		}
	}

	// And back.
	joined = true
	must(t, company.DC.JoinServe(ctx))
	next := company.NewPassword()
	must(t, company.DC.KPasswd(ctx, u.name, password, next))
	u.arrives(t, next)
}
