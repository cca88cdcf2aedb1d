package compat

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// A row is a way to change a password, and what must come of it.
type row struct {
	group string // a heading in docs/compatibility.md
	name  string
	short bool   // tried in the short form, too
	stage *stage // nil: normal

	creates  bool                      // the change creates the account
	prepare  func(*cell) error         // makes the account what the row wants, after it was created
	password func(*lab.Lab) string     // draws the new password; nil: any
	again    bool                      // the new password is the account's first one
	change   func(*lab.DC) way         // the change itself
	then     func(*cell) error         // what happens right after it
	noLogin  bool                      // one cannot log in afterwards
	want     func(release int) verdict // by Samba's release, 13 for 4.13; nil: delivered
}

func (r *row) expected(release int) verdict {
	if r.want == nil {
		return both(delivered)
	}
	return r.want(release)
}

func always(o outcome) func(int) verdict { return func(int) verdict { return both(o) } }

// before gives one outcome on Samba before 4.release, another from then on.
func before(release int, o, since outcome) func(int) verdict {
	return func(r int) verdict {
		if r < release {
			return both(o)
		}
		return both(since)
	}
}

const invalidInfoClass = "NT_STATUS_INVALID_INFO_CLASS"

// notInEntra: Google takes the password, and Entra has rules of its own.
func notInEntra(int) verdict {
	return verdict{sandbox.Google: delivered, sandbox.Microsoft: drift("rejected")}
}

var rows = slices.Concat(
	inGroup("By Samba's tools",
		&row{name: "samba-tool user create", short: true, creates: true, change: creating},
		&row{name: "samba-tool user setpassword", short: true, change: via((*lab.DC).SetPasswordLocal)},
		&row{name: "… -H ldap://", change: via((*lab.DC).SetPasswordLDAP)},
		&row{name: "… --must-change-at-next-login", change: via((*lab.DC).SetPasswordMustChange), noLogin: true},
		&row{name: "samba-tool user password", change: via((*lab.DC).SambaToolPassword)},
		&row{name: "smbpasswd -r, by the user", short: true, change: via((*lab.DC).SMBPasswd)},
		&row{name: "smbpasswd, by root on the DC", change: via((*lab.DC).SMBPasswdLocal)},
		&row{name: "pdbedit, by root on the DC", change: via((*lab.DC).PDBEdit)},
		&row{name: "kpasswd, by the user", short: true, change: via((*lab.DC).KPasswd)},
		&row{name: "net ads password, by an admin", change: via((*lab.DC).NetADSPassword)},
		&row{name: "net ads password, by the user", change: via((*lab.DC).NetADSPasswordOwn),
			want: always(notOffered("KDC can't fulfill requested option"))},
		&row{name: "net rpc password, by an admin", change: via((*lab.DC).NetRPCPassword)},
		&row{name: "net rpc password, by the user", change: via((*lab.DC).NetRPCPasswordOwn), want: always(notOffered("Access is denied"))},
	),
	inGroup("By LDAP",
		&row{name: "unicodePwd replace", short: true, change: reset},
		&row{name: "unicodePwd delete and add", short: true, change: via((*lab.DC).LDAPSChange)},
		&row{name: "unicodePwd with a new account", creates: true, change: via((*lab.DC).LDAPSCreate)},
		&row{name: "unicodePwd replace, LDAPI", change: attribute((*lab.DC).LDAPIReplace, "unicodePwd")},
		&row{name: "userPassword replace", change: attribute((*lab.DC).LDAPSReplace, "userPassword"), want: always(notSent("no password"))},
		&row{name: "userPassword replace, fUserPwdSupport", stage: userPasswords, change: attribute((*lab.DC).LDAPSReplace, "userPassword")},
		&row{name: "userPassword change, fUserPwdSupport", stage: userPasswords, change: attribute((*lab.DC).LDAPSDeleteAdd, "userPassword")},
		&row{name: "clearTextPassword replace, LDAPS", change: attribute((*lab.DC).LDAPSReplace, "clearTextPassword")},
		&row{name: "clearTextPassword replace, LDAPI", change: attribute((*lab.DC).LDAPIReplace, "clearTextPassword")},
		&row{name: "clearTextPassword replace, sam.ldb", change: attribute((*lab.DC).LDBReplace, "clearTextPassword")},
		&row{name: "Password Modify (RFC 3062)", change: via((*lab.DC).LDAPPasswordModify), want: always(notOffered("Protocol Error"))},
	),
	inGroup("By SAMR, as Windows and other programs do it",
		&row{name: "SetUserInfo level 18 (hash)", short: true, change: setUserInfo(18), noLogin: true, want: always(drift("hash-only"))},
		&row{name: "SetUserInfo level 21 (hash)", change: setUserInfo(21), noLogin: true, want: always(drift("hash-only"))},
		&row{name: "SetUserInfo level 23", change: setUserInfo(23)},
		&row{name: "SetUserInfo level 24", change: setUserInfo(24)},
		&row{name: "SetUserInfo level 25", change: setUserInfo(25)},
		&row{name: "SetUserInfo level 26", change: setUserInfo(26)},
		&row{name: "SetUserInfo level 31 (AES)", change: setUserInfo(31),
			want: before(17, notOffered(invalidInfoClass), delivered)},
		&row{name: "SetUserInfo level 32 (AES)", change: setUserInfo(32),
			want: before(17, notOffered("SAMR has no level 32 here"), delivered)},
		&row{name: "ChangePasswordUser", change: changePasswordUser(""), want: always(notOffered("NT_STATUS_NOT_IMPLEMENTED"))},
		&row{name: "ChangePasswordUser2", change: changePasswordUser("2")},
		&row{name: "ChangePasswordUser3", short: true, change: changePasswordUser("3")},
		&row{name: "ChangePasswordUser4 (AES)", change: changePasswordUser("4"),
			want: before(17, notOffered("command not found: chgpasswd4"), delivered)},
	),
	inGroup("Accounts in special states",
		&row{name: "must change, then kpasswd", short: true, prepare: mustChange, change: via((*lab.DC).KPasswd)},
		&row{name: "must change, then at the login (kinit)", prepare: mustChange, change: via((*lab.DC).KInitExpired)},
		&row{name: "must change, then smbpasswd -r", prepare: mustChange, change: via((*lab.DC).SMBPasswd)},
		&row{name: "must change, then LDAPS", prepare: mustChange, change: via((*lab.DC).LDAPSChange),
			want: always(notOffered("Invalid Credentials"))},
		&row{name: "disabled, reset", short: true, prepare: state("userAccountControl", "514"), change: reset, noLogin: true},
		&row{name: "expired, reset", prepare: state("accountExpires", longAgo), change: reset, noLogin: true},
		&row{name: "locked, reset", prepare: lockOut, change: reset, noLogin: true},
		&row{name: "reset to the password that it has", short: true, again: true, change: reset},
		&row{name: "complexity off in its policy (PSO)", short: true, prepare: withoutComplexity, change: reset,
			want: always(drift("complexity-off password settings object simple-"))},
		&row{name: "complexity off in the domain", stage: simple, change: reset, want: always(drift("complexity-off the domain"))},
	),
	inGroup("Between capture and proof, while the agent does not run",
		&row{name: "nothing else", short: true, stage: held, change: reset},
		&row{name: "renamed", short: true, stage: held, change: reset, then: rename},
		&row{name: "moved", stage: held, change: reset, then: move},
		&row{name: "disabled", stage: held, change: reset, then: set("userAccountControl", "514"), noLogin: true},
		&row{name: "expired", stage: held, change: reset, then: state("accountExpires", longAgo), noLogin: true},
		&row{name: "locked", stage: held, change: reset, then: lockOut, noLogin: true},
		&row{name: "deleted", short: true, stage: held, change: reset, then: remove, noLogin: true,
			want: always(notSent("the account is gone"))},
		&row{name: "renamed, its name given to another", short: true, stage: held, change: reset, then: replace, noLogin: true,
			want: always(drift("not-captured"))},
		&row{name: "its name at the clouds removed", stage: held, change: reset, then: set("userPrincipalName"),
			want: always(notSent("has no userPrincipalName"))},
	),
	inGroup("What must not be sent",
		&row{name: "refused by the policy: too short", short: true, password: tooShort, change: reset,
			want: always(notSent("refused by the policy"))},
		&row{name: "refused by the policy: too simple", password: (*lab.Lab).NewSimplePassword, change: via((*lab.DC).KPasswd),
			want: always(notSent("refused by the policy"))},
		&row{name: "refused by the history", short: true, prepare: changedOnce, again: true, change: via((*lab.DC).KPasswd),
			want: always(notSent("refused by Samba after the hook"))},
		&row{name: "forged with SamrValidatePassword", short: true, password: (*lab.Lab).NewForgeablePassword, change: forge,
			want: always(notSent("never the account's"))},
		&row{name: "a domain administrator", short: true, prepare: promote, change: reset, want: always(notSent("protected"))},
		&row{name: "no name at the clouds", prepare: set("userPrincipalName"), change: reset,
			want: always(notSent("has no userPrincipalName"))},
	),
	alphabets(),
)

// reset is an administrator's, over LDAPS: where a row is about something else than the way of the change.
var reset = via((*lab.DC).LDAPSReset)

// inGroup puts rows under a heading.
func inGroup(name string, rows ...*row) []*row {
	for _, r := range rows {
		r.group = name
	}
	return rows
}

// alphabets is every kind of password over three ways that encode it differently: UTF-16 in LDAP, UTF-8 in Kerberos, an encrypted
// buffer in SAMR.
func alphabets() (all []*row) {
	for _, route := range []struct {
		name   string
		change func(*lab.DC) way
	}{
		{"LDAPS", reset}, {"kpasswd", via((*lab.DC).KPasswd)}, {"smbpasswd -r", via((*lab.DC).SMBPasswd)},
	} {
		for _, kind := range kinds {
			var want func(int) verdict
			if !kind.ascii {
				want = notInEntra
			}
			all = append(all, &row{group: "Passwords, by " + route.name, name: kind.name, short: kind.name == "emoji",
				change: route.change, password: kind.draw, want: want})
		}
	}
	return all
}

// via makes a row's change of one of the lab's routes.
func via(method func(*lab.DC, context.Context, string, string, string) error) func(*lab.DC) way {
	return func(dc *lab.DC) way {
		return func(ctx context.Context, user, old, password string) error {
			return method(dc, ctx, user, old, password)
		}
	}
}

func attribute(method func(*lab.DC, string) func(context.Context, string, string, string) error, name string) func(*lab.DC) way {
	return func(dc *lab.DC) way { return method(dc, name) }
}

func setUserInfo(level int) func(*lab.DC) way {
	return func(dc *lab.DC) way { return dc.SetUserInfo(level) }
}

func changePasswordUser(number string) func(*lab.DC) way {
	return func(dc *lab.DC) way { return dc.ChangePasswordUser(number) }
}

func creating(dc *lab.DC) way {
	return func(ctx context.Context, user, _, password string) error { return dc.CreateUser(ctx, user, password) }
}

// forge has the user ask, in his own name and with his own password, whether a password would do for him.
func forge(dc *lab.DC) way {
	return func(ctx context.Context, user, old, password string) error {
		return dc.ValidatePassword(ctx, user, old, user, password)
	}
}

func tooShort(l *lab.Lab) string { return l.Remember(l.NewPassword()[:7]) } // Samba's own minimum is 7

// Steps before a change.

func mustChange(c *cell) error { return c.column.set(c.account, c.dc().SetPasswordMustChange) }

func changedOnce(c *cell) error { return c.column.set(c.account, c.dc().LDAPSReset) }

// state puts the account into a state in which nobody can log in.
func state(attribute, value string) func(*cell) error {
	return func(c *cell) error {
		if err := c.dc().SetAttribute(ctx, c.account.name, attribute, value); err != nil {
			return err
		}
		return c.cannotLogIn()
	}
}

const longAgo = "127818648000000000" // in the year 2006

func lockOut(c *cell) error {
	const since1601 = 116444736000000000 // the Unix epoch, in the directory's units of 100 ns
	now := fmt.Sprint(time.Now().UnixNano()/100 + since1601)
	if err := c.dc().SetSystemAttribute(ctx, c.account.name, "lockoutTime", now); err != nil {
		return err
	}
	return c.cannotLogIn()
}

func (c *cell) cannotLogIn() error {
	if c.dc().Login(c.account.name, c.account.password()) == nil {
		return fmt.Errorf("%s can still log in, so this shows nothing", c.account.name)
	}
	return nil
}

func set(attribute string, values ...string) func(*cell) error {
	return func(c *cell) error { return c.dc().SetAttribute(ctx, c.account.name, attribute, values...) }
}

func promote(c *cell) error {
	return c.dc().SambaTool(ctx, "group", "addmembers", "Domain Admins", c.account.name)
}

func withoutComplexity(c *cell) error {
	pso := "simple-" + c.account.name
	if err := c.dc().SambaTool(ctx, "domain", "passwordsettings", "pso", "create", pso, "10", "--complexity=off", "--min-pwd-age=0"); err != nil {
		return err
	}
	return c.dc().SambaTool(ctx, "domain", "passwordsettings", "pso", "apply", pso, c.account.name)
}

// Steps between the change and its proof.

func rename(c *cell) error {
	name := c.account.name + "-renamed"
	err := c.dc().Rename(ctx, c.account.name, name)
	c.account.name = name
	return err
}

func move(c *cell) error { return c.dc().Move(ctx, c.account.name, "moved-"+c.account.name) }

func remove(c *cell) error { return c.dc().DeleteUser(ctx, c.account.name) }

// replace gives the account another name, at the clouds too, and the old one to a new account, whose own password is captured as well.
func replace(c *cell) error {
	name, mail := c.account.name, c.account.mail
	if err := rename(c); err != nil {
		return err
	}
	c.account.mail = lab.Mail(c.account.name)
	if err := c.column.lab.Sandbox.AddUsers(ctx, c.account.mail); err != nil {
		return err
	}
	if err := c.dc().SetAttribute(ctx, c.account.name, "userPrincipalName", lab.UserPrincipalName(c.account.name)); err != nil {
		return err
	}
	successor := &account{name: name, mail: mail}
	c.column.add(successor)
	c.others = append(c.others, successor)
	return c.dc().CreateUser(ctx, name, successor.attempt(c.column.lab.NewPassword()).password)
}
