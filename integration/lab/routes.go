package lab

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/go-ldap/ldap/v3"
	krb5client "github.com/jcmturner/gokrb5/v8/client"
	krb5config "github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/krberror"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Route is a way by which a password changes.
type Route struct {
	Name   string
	Own    bool // the user changes it, knowing the old one; else an administrator sets it
	NTLM   bool // it needs the NT hash of the user's old password
	Change func(ctx context.Context, user, old, password string) error
}

// Routes lists every way by which the password of an existing account changes.
func (dc *DC) Routes() []Route {
	return []Route{
		{Name: "samba-tool user setpassword", Change: dc.SetPasswordLocal},
		{Name: "samba-tool user setpassword -H ldap://", Change: dc.SetPasswordLDAP},
		{Name: "smbpasswd -r", Own: true, NTLM: true, Change: dc.SMBPasswd},
		{Name: "kpasswd", Own: true, Change: dc.KPasswd},
		{Name: "LDAPS unicodePwd replace", Change: dc.LDAPSReset},
		{Name: "LDAPS unicodePwd delete and add", Own: true, Change: dc.LDAPSChange},
	}
}

var answerLost = regexp.MustCompile(`NT_STATUS_IO_TIMEOUT|transport connection is now disconnected`)

// AnswerLost says whether a route's error is that of a client which gave up waiting for the DC, as on a busy machine: the DC goes on all the same.
func AnswerLost(err error) bool { return err != nil && answerLost.MatchString(err.Error()) }

// Mail is the mail address that CreateUser gives a user.
func Mail(user string) string { return user + "@" + MailDomain }

// CreateUser creates an account with a password and a mail address, with samba-tool on the DC.
func (dc *DC) CreateUser(ctx context.Context, user, password string) error {
	_, err := dc.Exec(ctx, twice(password), "samba-tool", "user", "create", user, "--mail-address="+Mail(user))
	return err
}

// DeleteUser deletes an account, with samba-tool on the DC.
func (dc *DC) DeleteUser(ctx context.Context, user string) error {
	_, err := dc.Exec(ctx, "", "samba-tool", "user", "delete", user)
	return err
}

// LDAPSDelete deletes an account over LDAPS, as an administrator.
func (dc *DC) LDAPSDelete(user string) error {
	return dc.ldaps("Administrator", dc.administrator, func(conn *ldap.Conn) error {
		return conn.Del(ldap.NewDelRequest(userDN(user), nil))
	})
}

// SetPasswordLocal is an administrator's samba-tool on the DC itself: it opens the database without the daemons.
func (dc *DC) SetPasswordLocal(ctx context.Context, user, _, password string) error {
	_, err := dc.Exec(ctx, twice(password), "samba-tool", "user", "setpassword", user)
	return err
}

// SetPasswordLDAP is an administrator's samba-tool over the network, logged in with Kerberos.
func (dc *DC) SetPasswordLDAP(ctx context.Context, user, _, password string) error {
	_, err := dc.Exec(ctx, twice(password), "env", "KRB5CCNAME="+adminCache,
		"samba-tool", "user", "setpassword", user, "-H", "ldap://"+dc.Host, "-k", "yes")
	return err
}

// SMBPasswd is the user's own change over SMB (SamrChangePasswordUser).
func (dc *DC) SMBPasswd(ctx context.Context, user, old, password string) error {
	_, err := dc.Exec(ctx, old+"\n"+twice(password), "smbpasswd", "-D", "0", "-s", "-r", dc.Host, "-U", user)
	return err
}

// KPasswd is the user's own change over Kerberos.
func (dc *DC) KPasswd(ctx context.Context, user, old, password string) error {
	_, err := dc.Exec(ctx, old+"\n"+twice(password), "kpasswd", user)
	return err
}

// LDAPSReset is an administrator's reset from another machine, as a self-service portal or Windows does it.
func (dc *DC) LDAPSReset(_ context.Context, user, _, password string) error {
	return dc.ldaps("Administrator", dc.administrator, func(conn *ldap.Conn) error {
		change := ldap.NewModifyRequest(userDN(user), nil)
		change.Replace("unicodePwd", []string{unicodePwd(password)})
		return conn.Modify(change)
	})
}

// LDAPSChange is the user's own change from another machine.
func (dc *DC) LDAPSChange(_ context.Context, user, old, password string) error {
	return dc.ldaps(user, old, func(conn *ldap.Conn) error {
		change := ldap.NewModifyRequest(userDN(user), nil)
		change.Delete("unicodePwd", []string{unicodePwd(old)})
		change.Add("unicodePwd", []string{unicodePwd(password)})
		return conn.Modify(change)
	})
}

// SetAttribute replaces the values of an attribute of a user, as an administrator; none removes it.
func (dc *DC) SetAttribute(_ context.Context, user, attribute string, values ...string) error {
	return dc.ldaps("Administrator", dc.administrator, func(conn *ldap.Conn) error {
		change := ldap.NewModifyRequest(userDN(user), nil)
		if len(values) == 0 {
			change.Delete(attribute, nil)
		} else {
			change.Replace(attribute, values)
		}
		return conn.Modify(change)
	})
}

// SetHash writes the NT hash of a password into the DC's database, past Samba's password module, as migrations do: nobody is told the
// password.
func (dc *DC) SetHash(ctx context.Context, user, password string) error {
	hash := dsdb.NTHash(utf16le(password))
	ldif := fmt.Sprintf("dn: %s\nchangetype: modify\nreplace: unicodePwd\nunicodePwd:: %s\n", userDN(user), base64.StdEncoding.EncodeToString(hash[:]))
	_, err := dc.Exec(ctx, ldif, "ldbmodify", "-d", "0", "-H", "/var/lib/samba/private/sam.ldb", "--controls=local_oid:1.3.6.1.4.1.7165.4.3.12:1")
	return err
}

// WithoutComplexity puts a user under a fine-grained password policy without complexity, for as long as do runs: Samba does not
// show the hook what that user's password is changed to.
func (dc *DC) WithoutComplexity(ctx context.Context, user string, do func() error) error {
	pso := "simple-" + user
	run := func(args ...string) error {
		_, err := dc.Exec(ctx, "", append([]string{"samba-tool", "domain", "passwordsettings", "pso"}, args...)...)
		return err
	}
	if err := run("create", pso, "10", "--complexity=off", "--min-pwd-age=0"); err != nil {
		return fmt.Errorf("creating a password policy: %w", err)
	}
	if err := run("apply", pso, user); err != nil {
		return fmt.Errorf("applying a password policy: %w", err)
	}
	err := do()
	if e := run("delete", pso); e != nil {
		err = errors.Join(err, fmt.Errorf("deleting a password policy: %w", e))
	}
	return err
}

// A Session is an administrator's open LDAPS connection: for those who want to time a change and not a login.
type Session struct{ conn *ldap.Conn }

// Administrator logs in over LDAPS.
func (dc *DC) Administrator() (*Session, error) {
	conn, err := dc.login("Administrator", dc.administrator)
	if err != nil {
		return nil, err
	}
	return &Session{conn}, nil
}

// Reset sets a user's password.
func (s *Session) Reset(user, password string) error {
	change := ldap.NewModifyRequest(userDN(user), nil)
	change.Replace("unicodePwd", []string{unicodePwd(password)})
	return s.conn.Modify(change)
}

// Create adds an account with a password and a mail address, in one request.
func (s *Session) Create(user, password string) error {
	add := ldap.NewAddRequest(userDN(user), nil)
	for attribute, value := range map[string]string{
		"objectClass": "user", "sAMAccountName": user, "userPrincipalName": user + "@" + strings.ToLower(Realm), "mail": Mail(user),
		"userAccountControl": "512", "unicodePwd": unicodePwd(password),
	} {
		add.Attribute(attribute, []string{value})
	}
	return s.conn.Add(add)
}

// Close ends the connection.
func (s *Session) Close() error { return s.conn.Close() }

// Login says whether one can log in to the domain with that password: a Kerberos AS exchange from outside. The Kerberos library gives an
// answer five seconds, and a busy DC may take longer: that no answer came is none, and one asks again, for two minutes.
func (dc *DC) Login(user, password string) error {
	config, err := krb5config.NewFromString(fmt.Sprintf("[libdefaults]\n default_realm = %[1]s\n dns_lookup_kdc = false\n"+
		" udp_preference_limit = 1\n[realms]\n %[1]s = {\n  kdc = %[2]s:88\n }\n", Realm, dc.IP))
	if err != nil {
		return fmt.Errorf("preparing a login: %w", err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		c := krb5client.NewWithPassword(user, Realm, password, config, krb5client.DisablePAFXFAST(true))
		err := c.Login()
		c.Destroy()
		if err == nil {
			return nil
		}
		why, ok := errors.AsType[krberror.Krberror](err)
		if !ok || why.RootCause != krberror.NetworkingError || time.Now().After(deadline) {
			return fmt.Errorf("logging in as %s: %w", user, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// ValidatePassword has an ordinary user ask the DC, over ncacn_ip_tcp with sealing, whether a password would do for somebody
// else. The DC runs the hook for it, under the victim's name, and changes nothing.
func (dc *DC) ValidatePassword(ctx context.Context, user, userPassword, victim, password string) error {
	out, err := dc.Exec(ctx, userPassword+"\n"+password+"\n", "validate-password", user, victim)
	if err == nil && trim(out) != "0" {
		err = fmt.Errorf("asking the DC about a password: status %s", trim(out))
	}
	return err
}

func (dc *DC) ldaps(user, password string, do func(*ldap.Conn) error) error {
	conn, err := dc.login(user, password)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(conn)
}

func (dc *DC) login(user, password string) (*ldap.Conn, error) {
	conn, err := ldap.DialURL("ldaps://"+dc.IP+":636", ldap.DialWithTLSConfig(dc.tls))
	if err != nil {
		return nil, fmt.Errorf("connecting to the DC: %w", err)
	}
	conn.SetTimeout(2 * time.Minute) // hundreds of changes at once wait for each other
	if err := conn.Bind(user+"@"+strings.ToLower(Realm), password); err != nil {
		conn.Close()
		return nil, fmt.Errorf("binding as %s: %w", user, err)
	}
	return conn, nil
}

func userDN(user string) string { return "CN=" + ldap.EscapeDN(user) + ",CN=Users," + BaseDN }

// unicodePwd is the attribute's form on the wire: UTF-16LE, in quotes ([MS-ADTS] 3.1.1.3.1.5).
func unicodePwd(password string) string { return string(utf16le(`"` + password + `"`)) }

func utf16le(s string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

// twice is what a program reads that asks for a new password and for its repetition.
func twice(password string) string { return password + "\n" + password + "\n" }
