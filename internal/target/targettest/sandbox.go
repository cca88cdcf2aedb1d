package targettest

import (
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// StartSandbox runs both clouds' doubles for the length of a test.
func StartSandbox(t testing.TB, o sandbox.Options, users ...sandbox.User) *sandbox.Sandbox {
	t.Helper()
	sb, err := sandbox.Start(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, u := range users {
		if err := sb.AddUser(u); err != nil {
			t.Fatal(err)
		}
	}
	return sb
}

// Cloud is one cloud of a sandbox, as a Double.
func Cloud(sb *sandbox.Sandbox, cloud sandbox.Cloud) Double { return &double{sb, cloud} }

type double struct {
	sb    *sandbox.Sandbox
	cloud sandbox.Cloud
}

func (d *double) Misbehave(t testing.TB, f Fault) {
	t.Helper()
	if err := d.sb.Misbehave(d.cloud, sandbox.Fault{Kind: f.Kind, On: f.On, Times: f.Times, RetryAfter: f.RetryAfter, Delay: f.Delay}); err != nil {
		t.Fatal(err)
	}
}

func (d *double) Behave(t testing.TB) {
	t.Helper()
	if err := d.sb.Behave(); err != nil {
		t.Fatal(err)
	}
}

func (d *double) Verify(user, password string) bool { return d.sb.Verify(d.cloud, user, password) }

func (d *double) count(operation string) int {
	return d.sb.State().Requests[string(d.cloud)+" "+operation]
}

func (d *double) Writes() int {
	return d.count("users.update") + d.count("users.patch") + d.count("PATCH users/{id}")
}

func (d *double) Logins() int { return d.count("token") }

func (d *double) Trapped() int { return len(d.sb.State().Trapped) }

func (d *double) Violations() []string {
	var reasons []string
	for _, v := range d.sb.State().Violations {
		if v.Cloud == d.cloud {
			reasons = append(reasons, v.Request+": "+v.Reason)
		}
	}
	return reasons
}
