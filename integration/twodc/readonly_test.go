package twodc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// TestReadOnly: what becomes of a change that is asked of a read-only DC. It has no samba-pwsync, but the hook's line in smb.conf, as a
// copied smb.conf would: so one sees when its Samba runs the hook.
//
// The writable DC is not older than Samba 4.22: the KDC of 4.17 aborts when a read-only DC shows it a ticket.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	suite := setting("PWSYNC_RODC", "forky")
	l := start(t, suite)
	rodc, err := l.Join(ctx, lab.JoinOptions{Name: "rodc", Suite: suite, ReadOnly: true, Progress: progress(t)})
	must(t, err)

	t.Run("Check", func(t *testing.T) { checkSaysNo(t, rodc) })
	t.Run("Routes", func(t *testing.T) { changesAt(t, l, rodc) })
}

// changesAt tries every route at the read-only DC.
func changesAt(t *testing.T, l *lab.Lab, rodc *lab.DC) {
	for _, route := range []struct {
		name   string
		change func(ctx context.Context, user, old, password string) error
		cached bool   // the read-only DC is trusted with the user's secret
		says   string // part of the refusal; "": the change is forwarded to the writable DC
		hook   int    // how often the read-only DC runs its hook, for nothing
	}{
		{"kpasswd", rodc.KPasswd, false, "", 0},
		{"kpasswd, secret cached", rodc.KPasswd, true, "", 0},
		{"smbpasswd -r", rodc.SMBPasswd, false, "current password is not correct", 0},
		{"smbpasswd -r, secret cached", rodc.SMBPasswd, true, "The requested operation was unsuccessful", 1},
		{"samba-tool user setpassword", rodc.SetPasswordLocal, false, "Invalid LDB reply type 1", 1},
		{"samba-tool user setpassword -H ldap://", rodc.SetPasswordLDAP, false, "LDAP_REFERRAL", 1},
		{"LDAPS unicodePwd replace", rodc.LDAPSReset, false, "Referral", 1},
		{"LDAPS unicodePwd delete and add", rodc.LDAPSChange, false, "The old password specified doesn't match", 0},
		{"LDAPS unicodePwd delete and add, secret cached", rodc.LDAPSChange, true, "Referral", 1},
	} {
		t.Run(route.name, func(t *testing.T) {
			t.Parallel()
			user := newUser(t, l, rodc)
			if route.cached {
				must(t, rodc.Cache(ctx, l.DC, user.name))
			}
			password := l.NewPassword()
			err := route.change(ctx, user.name, user.password, password)
			for deadline := time.Now().Add(5 * time.Minute); isUnregistered(err) && time.Now().Before(deadline); time.Sleep(2 * time.Second) {
				_, _ = rodc.Exec(ctx, "", "samba_spnupdate") // which Samba itself runs every ten minutes, and may have run too early
				err = route.change(ctx, user.name, user.password, password)
			}
			if route.says == "" {
				must(t, err)
				user.password, user.sent = password, user.sent+1
			} else if err == nil || !strings.Contains(err.Error(), route.says) {
				t.Errorf("the read-only DC's answer: %v; want %q", err, route.says)
			}
			user.isEverywhere(t)
			said, err := rodc.HookSaid(ctx, user.name)
			must(t, err)
			if len(said) != route.hook {
				t.Errorf("the read-only DC ran the hook %d times, want %d", len(said), route.hook)
			}
		})
	}
}

// isUnregistered reports whether the writable DC has not heard of the read-only one's services yet.
func isUnregistered(err error) bool {
	return err != nil && strings.Contains(err.Error(), "is not registered with our KDC")
}

// checkSaysNo: check tells whoever installs samba-pwsync on a read-only DC.
func checkSaysNo(t *testing.T, rodc *lab.DC) {
	_, err := rodc.Exec(ctx, "", "sh", "-c", "samba-pwsync init >/dev/null && samba-pwsync check --connect")
	exit, ok := errors.AsType[*lab.ExitError](err)
	if !ok || !strings.Contains(exit.Output, "FAULT      this is a read-only domain controller") {
		t.Errorf("check on a read-only DC: %v", err)
	}
	_, err = rodc.Exec(ctx, "", "rm", "-r", lab.StateDir, lab.ConfigFile)
	must(t, err)
}

var users atomic.Int32

// user is an account that both DCs and both clouds know.
type user struct {
	name, password string
	lab            *lab.Lab
	sent           int // passwords that each cloud has been sent
}

func newUser(t *testing.T, l *lab.Lab, dcs ...*lab.DC) *user {
	t.Helper()
	u := &user{name: fmt.Sprintf("user%02d", users.Add(1)), password: l.NewPassword(), lab: l}
	must(t, l.Sandbox.AddUsers(ctx, lab.Mail(u.name)))
	must(t, l.DC.CreateUser(ctx, u.name, u.password))
	u.sent++
	for _, dc := range dcs {
		eventually(t, patience, dc.Host+" knows "+u.name, func() bool { return dc.Login(u.name, u.password) == nil })
	}
	u.isEverywhere(t)
	return u
}

// isEverywhere demands that the domain and both clouds hold the user's password, and that nothing else was sent.
func (u *user) isEverywhere(t *testing.T) {
	t.Helper()
	must(t, u.lab.DC.Login(u.name, u.password))
	for _, cloud := range lab.Clouds {
		held, err := u.lab.Sandbox.Verify(ctx, cloud, lab.Mail(u.name), u.password, patience)
		must(t, err)
		if !held {
			t.Fatalf("%s does not hold the password of %s", cloud, u.name)
		}
	}
	state, err := u.lab.Sandbox.State(ctx)
	must(t, err)
	for _, cloud := range lab.Clouds {
		if at, _ := state.User(cloud, lab.Mail(u.name)); len(at.Passwords) != u.sent {
			t.Errorf("%s was sent %d passwords of %s, want %d", cloud, len(at.Passwords), u.name, u.sent)
		}
	}
}
