package lab

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// What follows drives the rarer ways by which a password changes: Samba's other tools, SAMR calls, raw writes to the directory.
// All have the form of Route.Change. A refusal is an error that holds Samba's own words.

// Where ldbmodify and ldbsearch find the directory: the DC's database itself, without its daemons, and the privileged socket.
var (
	samFile  = "/var/lib/samba/private/sam.ldb"
	ldapiURL = "ldapi://" + strings.ReplaceAll(LDAPI, "/", "%2F")
)

// What rpcclient would not take as it is, and how it and net say that a call failed: their exit codes do not.
var (
	special  = regexp.MustCompile(`[^A-Za-z0-9]`)
	rpcError = regexp.MustCompile(`result was \S+|command not found.*`)
	netError = regexp.MustCompile(`Password change failed.*`)
)

// SetPasswordMustChange is SetPasswordLocal of a password that the user must replace at the next logon.
func (dc *DC) SetPasswordMustChange(ctx context.Context, user, _, password string) error {
	_, err := dc.Exec(ctx, twice(password), "samba-tool", "user", "setpassword", user, "--must-change-at-next-login")
	return err
}

// SambaToolPassword is the user's own change with samba-tool.
func (dc *DC) SambaToolPassword(ctx context.Context, user, old, password string) error {
	return dc.atPrompts(ctx, old, password, "samba-tool", "user", "password", "-U", user, "--ipaddress="+dc.IP)
}

// SMBPasswdLocal is smbpasswd as root on the DC itself.
func (dc *DC) SMBPasswdLocal(ctx context.Context, user, _, password string) error {
	_, err := dc.Exec(ctx, twice(password), "smbpasswd", "-D", "0", "-s", user)
	return err
}

// PDBEdit is pdbedit as root on the DC itself.
func (dc *DC) PDBEdit(ctx context.Context, user, _, password string) error {
	_, err := dc.Exec(ctx, twice(password), "pdbedit", "-d", "0", "-t", "-a", "-u", user)
	return err
}

// KInitExpired is the user's login with a password that must be replaced; kinit asks for the new one.
func (dc *DC) KInitExpired(ctx context.Context, user, old, password string) error {
	return dc.atPrompts(ctx, old, password, "kinit", "-c", "MEMORY:", user)
}

// NetADSPassword is an administrator's `net ads password`: Kerberos' own protocol for setting another's password (RFC 3244).
func (dc *DC) NetADSPassword(ctx context.Context, user, _, password string) error {
	return dc.netADSPassword(ctx, "Administrator", dc.administrator, user, password)
}

// NetADSPasswordOwn is `net ads password` in the user's own name.
func (dc *DC) NetADSPasswordOwn(ctx context.Context, user, old, password string) error {
	return dc.netADSPassword(ctx, user, old, user, password)
}

// The net of 4.13 takes the password of the one who logs in from a file only.
func (dc *DC) netADSPassword(ctx context.Context, as, asPassword, user, password string) error {
	login := fmt.Sprintf("username=%s\npassword=%s\ndomain=%s\n\n", as, asPassword, Domain)
	out, err := dc.Exec(ctx, login+answers("", password), "bash", "-c", `
		umask 077; file=$(mktemp -p /dev/shm); trap 'rm "$file"' EXIT
		while read -r line && [ -n "$line" ]; do printf '%s\n' "$line"; done >"$file"
		at-prompts net ads password "$1" -A "$file"`, "net", user)
	if why := netError.FindString(out); err == nil && why != "" { // and exit code 0
		return errors.New(why)
	}
	return said(err)
}

// NetRPCPassword is an administrator's `net rpc password`.
func (dc *DC) NetRPCPassword(ctx context.Context, user, _, password string) error {
	return dc.atPrompts(ctx, dc.administrator, password, "net", "rpc", "password", user, "-U", "Administrator", "-S", dc.Host)
}

// NetRPCPasswordOwn is `net rpc password` in the user's own name.
func (dc *DC) NetRPCPasswordOwn(ctx context.Context, user, old, password string) error {
	return dc.atPrompts(ctx, old, password, "net", "rpc", "password", user, "-U", user, "-S", dc.Host)
}

// SetUserInfo returns the SAMR call SamrSetInformationUser2 ([MS-SAMR] 3.1.5.6.4) of a level, as an administrator. Levels 18 and
// 21 carry a hash and no password.
func (dc *DC) SetUserInfo(level int) func(ctx context.Context, user, old, password string) error {
	if level == 32 { // rpcclient does not know it
		return func(ctx context.Context, user, _, password string) error {
			_, err := dc.Exec(ctx, password+"\n", "env", "KRB5CCNAME="+adminCache, "set-user-info-32", user)
			return said(err)
		}
	}
	return func(ctx context.Context, user, _, password string) error {
		return dc.rpcclient(ctx, "setuserinfo2", user, fmt.Sprint(level), password)
	}
}

// ChangePasswordUser returns a SAMR call of the user's own: "" for SamrChangePasswordUser, or the number in the name of one of its
// successors.
func (dc *DC) ChangePasswordUser(number string) func(ctx context.Context, user, old, password string) error {
	return func(ctx context.Context, user, old, password string) error {
		return dc.rpcclient(ctx, "chgpasswd"+number, user, old, password)
	}
}

// rpcclient runs one command of Samba's rpcclient. It reads commands from stdin, and in them a backslash takes the meaning from
// whatever follows.
func (dc *DC) rpcclient(ctx context.Context, command ...string) error {
	for i, word := range command {
		command[i] = special.ReplaceAllString(word, `\$0`)
	}
	out, err := dc.Exec(ctx, strings.Join(command, " ")+"\n", "env", "KRB5CCNAME="+adminCache, "rpcclient", "-k", dc.Host)
	if err != nil {
		return said(err)
	}
	if why := rpcError.FindString(out); why != "" {
		return errors.New(why)
	}
	return nil
}

// LDAPSReplace returns an administrator's write of any attribute that may hold a password, over LDAPS.
func (dc *DC) LDAPSReplace(attribute string) func(ctx context.Context, user, old, password string) error {
	return func(ctx context.Context, user, _, password string) error {
		return dc.SetAttribute(ctx, user, attribute, encoded(attribute, password))
	}
}

// LDAPSDeleteAdd returns a user's own change of such an attribute, over LDAPS.
func (dc *DC) LDAPSDeleteAdd(attribute string) func(ctx context.Context, user, old, password string) error {
	return func(_ context.Context, user, old, password string) error {
		return dc.ldaps(user, old, func(conn *ldap.Conn) error {
			change := ldap.NewModifyRequest(userDN(user), nil)
			change.Delete(attribute, []string{encoded(attribute, old)})
			change.Add(attribute, []string{encoded(attribute, password)})
			return conn.Modify(change)
		})
	}
}

// LDAPPasswordModify is the user's own change with LDAP's extended operation for it (RFC 3062).
func (dc *DC) LDAPPasswordModify(_ context.Context, user, old, password string) error {
	return dc.ldaps(user, old, func(conn *ldap.Conn) error {
		_, err := conn.PasswordModify(ldap.NewPasswordModifyRequest("", old, password))
		return err
	})
}

// UserPrincipalName is what CreateUser and LDAPSCreate give an account.
func UserPrincipalName(user string) string { return user + "@" + strings.ToLower(Realm) }

// LDAPSCreate creates an account with a password and a mail address in one LDAP request, as an administrator.
func (dc *DC) LDAPSCreate(_ context.Context, user, _, password string) error {
	s, err := dc.Administrator()
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Create(user, password)
}

// LDAPIReplace returns root's write of an attribute over the privileged socket.
func (dc *DC) LDAPIReplace(attribute string) func(ctx context.Context, user, old, password string) error {
	return func(ctx context.Context, user, _, password string) error {
		return dc.ldbmodify(ctx, ldapiURL, user, attribute, encoded(attribute, password))
	}
}

// LDBReplace returns root's write of an attribute into the DC's database, without its daemons.
func (dc *DC) LDBReplace(attribute string) func(ctx context.Context, user, old, password string) error {
	return func(ctx context.Context, user, _, password string) error {
		return dc.ldbmodify(ctx, samFile, user, attribute, encoded(attribute, password))
	}
}

// SetSystemAttribute replaces an attribute that only the DC itself may write.
func (dc *DC) SetSystemAttribute(ctx context.Context, user, attribute, value string) error {
	return dc.ldbmodify(ctx, samFile, user, attribute, value)
}

func (dc *DC) ldbmodify(ctx context.Context, url, user, attribute, value string) error {
	ldif := fmt.Sprintf("dn: %s\nchangetype: modify\nreplace: %s\n%[2]s:: %s\n",
		userDN(user), attribute, base64.StdEncoding.EncodeToString([]byte(value)))
	_, err := dc.Exec(ctx, ldif, "ldbmodify", "-d", "0", "-H", url)
	return said(err)
}

// Rename gives an account another sAMAccountName and CN. Its userPrincipalName, by which the clouds know it, stays.
func (dc *DC) Rename(ctx context.Context, user, name string) error {
	if err := dc.SetAttribute(ctx, user, "sAMAccountName", name); err != nil {
		return err
	}
	return dc.moveTo(user, "CN="+ldap.EscapeDN(name), "")
}

// Move moves an account into an organisational unit, which is made if need be.
func (dc *DC) Move(_ context.Context, user, unit string) error {
	dn := "OU=" + ldap.EscapeDN(unit) + "," + BaseDN
	err := dc.ldaps("Administrator", dc.administrator, func(conn *ldap.Conn) error {
		add := ldap.NewAddRequest(dn, nil)
		add.Attribute("objectClass", []string{"organizationalUnit"})
		return conn.Add(add)
	})
	if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists) {
		return err
	}
	return dc.moveTo(user, "CN="+ldap.EscapeDN(user), dn)
}

func (dc *DC) moveTo(user, rdn, parent string) error {
	return dc.ldaps("Administrator", dc.administrator, func(conn *ldap.Conn) error {
		return conn.ModifyDN(ldap.NewModifyDNRequest(userDN(user), rdn, true, parent))
	})
}

// SambaTool runs samba-tool as root on the DC.
func (dc *DC) SambaTool(ctx context.Context, args ...string) error {
	_, err := dc.Exec(ctx, "", append([]string{"samba-tool"}, args...)...)
	return err
}

// Version is Samba's, as the DC tells it: "4.17.12-Debian".
func (dc *DC) Version(ctx context.Context) (string, error) {
	out, err := dc.Exec(ctx, "", "samba", "-V")
	if err != nil {
		return "", fmt.Errorf("asking for Samba's version: %w", err)
	}
	return strings.TrimPrefix(trim(out), "Version "), nil
}

// encoded is a password as an attribute holds it on the wire.
func encoded(attribute, password string) string {
	switch attribute {
	case "unicodePwd":
		return unicodePwd(password)
	case "clearTextPassword":
		return string(utf16le(password))
	}
	return password
}

// atPrompts runs a command that asks on a terminal: for the password of the one who logs in, and for the new one, which it may have
// repeated.
func (dc *DC) atPrompts(ctx context.Context, login, password string, command ...string) error {
	_, err := dc.Exec(ctx, answers(login, password), append([]string{"env", "KRB5CCNAME=MEMORY:", "at-prompts"}, command...)...)
	return said(err)
}

func answers(login, password string) string {
	var b strings.Builder
	for _, words := range []string{"new password", "retype", "verify", "again"} {
		fmt.Fprintf(&b, "%s\t%s\n", words, password)
	}
	fmt.Fprintf(&b, "\t%s\n", login)
	return b.String()
}

// said leaves of a failed command's output the last line that is no debug message: why it failed.
func said(err error) error {
	exit, ok := errors.AsType[*ExitError](err)
	if !ok {
		return err
	}
	lines := strings.FieldsFunc(exit.Output, func(r rune) bool { return r == '\n' || r == '\r' })
	why := ""
	for _, line := range lines {
		if line = strings.TrimSpace(line); line != "" {
			why = line
		}
	}
	return &ExitError{Command: exit.Command, Code: exit.Code, Output: why}
}
