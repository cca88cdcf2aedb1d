package integration

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// patience is how long a test waits for something that should take a moment: the machine may be small and busy.
const patience = 4 * time.Minute

// user is an account that exists in the domain and in both clouds.
type user struct {
	name string
	sent []string // what the clouds must have got, oldest first
}

var users atomic.Int32

// newUser creates an account, whose first password thereby arrives at both clouds.
func newUser(t *testing.T) *user {
	t.Helper()
	u := &user{name: fmt.Sprintf("user%02d", users.Add(1))}
	if err := company.Sandbox.AddUsers(ctx, lab.Mail(u.name)); err != nil {
		t.Fatal(err)
	}
	password := company.NewPassword()
	if err := company.DC.CreateUser(ctx, u.name, password); err != nil {
		t.Fatal(err)
	}
	u.arrives(t, password)
	return u
}

// password is the account's current one.
func (u *user) password() string { return u.sent[len(u.sent)-1] }

// changesBy sets a password by a route, which the directory has to take. Where the client gave up waiting, whether it did is seen by logging in.
func (u *user) changesBy(t *testing.T, route lab.Route, password string) {
	t.Helper()
	err := route.Change(ctx, u.name, u.password(), password)
	for tries := 1; err != nil && tries < 3; tries++ {
		if company.DC.Login(u.name, password) == nil {
			return
		}
		if !lab.AnswerLost(err) {
			break
		}
		err = route.Change(ctx, u.name, u.password(), password)
	}
	must(t, err)
}

// arrives waits until both clouds hold the password, and demands that they got exactly what they must have got, in order.
func (u *user) arrives(t *testing.T, password string) {
	t.Helper()
	u.sent = append(u.sent, password)
	u.waitFor(t, password)
	u.gotNothingElse(t)
}

// waitFor waits until both clouds hold the password.
func (u *user) waitFor(t *testing.T, password string) {
	t.Helper()
	for _, cloud := range lab.Clouds {
		u.waitAt(t, cloud, password)
	}
}

func (u *user) waitAt(t *testing.T, cloud sandbox.Cloud, password string) sandbox.Password {
	t.Helper()
	held := u.holds(t, cloud, password, patience)
	got := history(t, cloud, u.name)
	if !held {
		t.Fatalf("%s does not hold %s's password after %v; it was sent %d passwords", cloud, u.name, patience, len(got))
	}
	return got[len(got)-1]
}

// holds says whether a cloud holds the password, now or within a time.
func (u *user) holds(t *testing.T, cloud sandbox.Cloud, password string, within time.Duration) bool {
	t.Helper()
	held, err := company.Sandbox.Verify(ctx, cloud, lab.Mail(u.name), password, within)
	must(t, err)
	return held
}

// gotNothingElse demands that both clouds were sent what they must have been sent, and nothing besides. The same
// password twice in a row does no harm, but nothing in these tests is a reason for it.
func (u *user) gotNothingElse(t *testing.T) {
	t.Helper()
	for _, cloud := range lab.Clouds {
		got := history(t, cloud, u.name)
		if len(got) != len(u.sent) {
			t.Errorf("%s was sent %d passwords for %s, want %d", cloud, len(got), u.name, len(u.sent))
			continue
		}
		for i, password := range u.sent {
			if !is(t, got[i], password) {
				t.Errorf("%s: password %d of %s is another than expected", cloud, i, u.name)
			}
		}
	}
}

// never demands that a cloud was never sent that password.
func (u *user) never(t *testing.T, password string) {
	t.Helper()
	for _, cloud := range lab.Clouds {
		if slices.ContainsFunc(history(t, cloud, u.name), func(p sandbox.Password) bool { return is(t, p, password) }) {
			t.Errorf("%s was sent a password of %s that must never be sent", cloud, u.name)
		}
	}
}

// history is what a cloud was sent for the user, oldest first.
func history(t *testing.T, cloud sandbox.Cloud, name string) []sandbox.Password {
	t.Helper()
	held, err := company.Sandbox.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	u, ok := held.User(cloud, lab.Mail(name))
	if !ok {
		t.Fatalf("%s does not know %s", cloud, name)
	}
	return u.Passwords
}

// is says whether what a cloud holds is that password.
func is(t *testing.T, p sandbox.Password, password string) bool {
	t.Helper()
	same, err := lab.Is(p, password)
	must(t, err)
	return same
}

// verdict waits until serve has said its word on an account: so many events of that name, and no more.
func verdict(t *testing.T, event, account string, wanted int) {
	t.Helper()
	said := 0
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		said = serveLog.Count(func(e lab.Event) bool { return e.Name == event && e.Fields["account"] == account })
		if said >= wanted {
			break
		}
	}
	if said != wanted {
		t.Fatalf("serve said %q of %s %d times, want %d", event, account, said, wanted)
	}
}

// hookSaid returns the hook's answers about an account so far, oldest first: "accepted", "refused" or "failed". It waits until
// there are as many as are wanted.
func hookSaid(t *testing.T, account string, wanted int) []string {
	t.Helper()
	var said []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var err error
		said, err = company.DC.HookSaid(ctx, account)
		must(t, err)
		if len(said) >= wanted {
			return said
		}
	}
	t.Fatalf("the hook was asked about %s %d times, want %d", account, len(said), wanted)
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
