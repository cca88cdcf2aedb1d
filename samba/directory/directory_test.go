package directory

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestParseURL(t *testing.T) {
	for url, want := range map[string]string{
		"ldapi:///var/lib/samba/private/ldap_priv/ldapi": "ldapi /var/lib/samba/private/ldap_priv/ldapi",
		"ldapi://%2Fvar%2Flib%2Fldap_priv%2fldapi":       "ldapi /var/lib/ldap_priv/ldapi",
		"ldapi://%2Fvar%2Flib%2Fldap_priv%2Fldapi/":      "ldapi /var/lib/ldap_priv/ldapi",
		"ldapi:///with%20space/100%25":                   "ldapi /with space/100%",
		"ldaps://dc1.example.com":                        "ldaps dc1.example.com:636",
		"ldaps://dc1.example.com:3269/":                  "ldaps dc1.example.com:3269",
		"ldap://[2001:db8::1]":                           "ldap [2001:db8::1]:389",
	} {
		scheme, address, err := parseURL(url)
		if got := scheme + " " + address; err != nil || got != want {
			t.Errorf("parseURL(%s) = %s, %v; want %s", url, got, err, want)
		}
	}
	for _, url := range []string{
		"", "ldapi", "/var/lib/samba/private/ldap_priv/ldapi", "ldapi://", "ldapi:///", "ldapi://relative/path",
		"ldapi:///bad%2", "ldaps://", "ldaps:///path", "ldaps://:636", "http://dc1", "ldaps://dc1/DC=example", "ldaps://user:pw@dc1",
	} {
		if scheme, address, err := parseURL(url); err == nil {
			t.Errorf("parseURL(%s) = %s %s, want an error", url, scheme, address)
		}
	}
}

// A socket without a DC behind it: trouble that may pass.
func TestDialUnavailable(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "ldapi")
	_, err := Dial(t.Context(), "ldapi://"+missing)
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("no socket: %v", err)
	}

	stale := filepath.Join(t.TempDir(), "ldapi")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(t.Context(), "ldapi://"+stale); !errors.Is(err, ErrUnavailable) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestDialForbidden(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	dialled := make(chan error, 1)
	go func() {
		if os.Getuid() == 0 { // to root nothing is forbidden, so this thread becomes nobody's; it ends with the goroutine
			runtime.LockOSThread()
			_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		}
		_, err := Dial(t.Context(), "ldapi://"+dir+"/ldapi")
		dialled <- err
	}()
	err := <-dialled
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrUnavailable) {
		t.Errorf("Dial = %v", err)
	}
}

func TestDialOrdinarySocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "ldapi")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go accept(l, &fake{ordinary: true})
	if _, err := Dial(t.Context(), "ldapi://"+socket); !errors.Is(err, ErrNotPrivileged) || errors.Is(err, ErrUnavailable) {
		t.Errorf("Dial = %v", err)
	}
}

func accept(l net.Listener, f *fake) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go f.serve(conn)
	}
}

func TestDialTLS(t *testing.T) {
	https := httptest.NewTLSServer(nil) // for its certificate, which is good for 127.0.0.1
	defer https.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: https.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go accept(l, &fake{password: "right"})
	url := "ldaps://" + l.Addr().String()

	if _, err := Dial(t.Context(), url); !errors.As(err, new(*tls.CertificateVerificationError)) || errors.Is(err, ErrUnavailable) {
		t.Errorf("with the system's CAs: %v", err)
	}
	ca := x509.NewCertPool()
	ca.AddCert(https.Certificate())
	dc, err := DialTLS(t.Context(), url, &tls.Config{RootCAs: ca})
	if err != nil {
		t.Fatal(err)
	}
	defer dc.Close()
	err = dc.Bind(t.Context(), "alice@example.test", []byte("wrong"))
	if !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) || errors.Is(err, ErrUnavailable) {
		t.Errorf("Bind with a wrong password: %v", err)
	}
	if err := dc.Bind(t.Context(), "alice@example.test", nil); err == nil {
		t.Error("Bind without a password, which LDAP takes for an anonymous one: want an error")
	}
	if err := dc.Bind(t.Context(), "alice@example.test", []byte("right")); err != nil {
		t.Errorf("Bind: %v", err)
	}
}

func TestBindRefusesPlainText(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go accept(l, &fake{password: "right"})
	dc, err := Dial(t.Context(), "ldap://"+l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dc.Close()
	if err := dc.Bind(t.Context(), "alice", []byte("right")); err == nil {
		t.Error("Bind sent a password in clear text")
	}
}

// calls is every way to ask.
var calls = map[string]func(context.Context, *DC) error{
	"Root":          func(ctx context.Context, dc *DC) error { _, err := dc.Root(ctx); return err },
	"AccountByName": func(ctx context.Context, dc *DC) error { _, err := dc.AccountByName(ctx, "alice", nil); return err },
	"AccountByGUID": func(ctx context.Context, dc *DC) error {
		_, err := dc.AccountByGUID(ctx, dsdb.GUID{1}, nil)
		return err
	},
	"Matches":          func(ctx context.Context, dc *DC) error { _, err := dc.Matches(ctx, dsdb.GUID{1}, "(cn=*)"); return err },
	"Changed":          func(ctx context.Context, dc *DC) error { return dc.Changed(ctx, 1, nil, nil, nil) },
	"Accounts":         func(ctx context.Context, dc *DC) error { return dc.Accounts(ctx, "", nil, nil) },
	"Exists":           func(ctx context.Context, dc *DC) error { _, err := dc.Exists(ctx, "OU=People,"+fakeBase); return err },
	"PasswordSettings": func(ctx context.Context, dc *DC) error { _, err := dc.PasswordSettings(ctx); return err },
	"ResultantPSO":     func(ctx context.Context, dc *DC) error { _, _, err := dc.ResultantPSO(ctx, dsdb.GUID{1}); return err },
	"Controllers":      func(ctx context.Context, dc *DC) error { _, err := dc.Controllers(ctx); return err },
	"Neighbours":       func(ctx context.Context, dc *DC) error { _, err := dc.Neighbours(ctx); return err },
	"DirSync":          func(ctx context.Context, dc *DC) error { _, err := dc.DirSync(ctx, nil, nil, nil); return err },
	"Unhashed":         func(ctx context.Context, dc *DC) error { _, _, err := dc.Unhashed(ctx, 1); return err },
}

// "The connection is gone" must never look like "there is no such account",
// "no match" or "nothing has changed"; not at first, and not later either.
func TestUnavailable(t *testing.T) {
	for name, call := range calls {
		for how, answer := range map[string]*reply{
			"hangs up":    nil,
			"busy":        {code: ldap.LDAPResultBusy},
			"unavailable": {code: ldap.LDAPResultUnavailable},
			"time limit":  {code: ldap.LDAPResultTimeLimitExceeded},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				dc := dialFake(t, &fake{answer: func(search) *reply { return answer }})
				for range 3 {
					if err := call(t.Context(), dc); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
						t.Errorf("err = %v", err)
					}
				}
				dc.Close()
				if err := call(t.Context(), dc); !errors.Is(err, ErrUnavailable) {
					t.Errorf("after Close: %v", err)
				}
			})
		}
	}
}

// What the DC will answer again to the same question is no reason to dial anew: the next one would be held up.
func TestRefusedQuestion(t *testing.T) {
	for name, call := range calls {
		for how, code := range map[string]int{"operations error": ldap.LDAPResultOperationsError, "admin limit": ldap.LDAPResultAdminLimitExceeded} {
			t.Run(name+" "+how, func(t *testing.T) {
				dc := dialFake(t, &fake{answer: func(search) *reply { return &reply{code: code} }})
				if err := call(t.Context(), dc); err == nil || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
					t.Errorf("err = %v", err)
				}
			})
		}
	}
}

func TestSilence(t *testing.T) {
	silent := func(search) *reply { return &reply{silent: true} }
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dc := dialFake(t, &fake{answer: silent})
				start := time.Now()
				if err := call(t.Context(), dc); !errors.Is(err, ErrUnavailable) {
					t.Errorf("err = %v", err)
				}
				if d := time.Since(start); d != timeout {
					t.Errorf("waited %v", d)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start = time.Now()
				if err := call(ctx, dc); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnavailable) {
					t.Errorf("with a deadline: %v", err)
				}
				if d := time.Since(start); d != time.Second {
					t.Errorf("with a deadline: waited %v", d)
				}
			})
		})
	}
}

// A DC that does not even read must not block anybody for longer.
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		start := time.Now()
		dc, err := open(t.Context(), ours, "ldapi")
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("open = %v, %v", dc, err)
		}
		if d := time.Since(start); d > 2*timeout {
			t.Errorf("waited %v", d)
		}
	})
}

func TestRoot(t *testing.T) {
	var asked search
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		asked = s
		return &reply{entries: []*ldap.Entry{ldap.NewEntry(s.base, map[string][]string{"invocationId": {strings.Repeat("i", 16)}})}}
	}})
	root, err := dc.Root(t.Context())
	want := Root{
		BaseDN: fakeBase, DomainName: "example.test", DNSHostName: "dc1.example.test", ServerName: "DC1",
		HighestUSN: 4113, DomainFunctionality: 4, InvocationID: dsdb.GUID([]byte(strings.Repeat("i", 16))),
	}
	if err != nil || root != want || asked.base != fakeService {
		t.Errorf("Root = %+v, %v after reading %s; want %+v", root, err, asked.base, want)
	}
}

func TestExists(t *testing.T) {
	const people = "OU=People," + fakeBase
	var answer *reply
	var asked search
	dc := dialFake(t, &fake{answer: func(s search) *reply { asked = s; return answer }})
	for _, tc := range []struct {
		name   string
		answer *reply
		exists bool
		fails  bool
	}{
		{"there", &reply{entries: []*ldap.Entry{ldap.NewEntry(people, nil)}}, true, false},
		{"not there", &reply{code: ldap.LDAPResultNoSuchObject}, false, false},
		{"hidden", &reply{}, false, false},
		{"no DN", &reply{code: ldap.LDAPResultInvalidDNSyntax}, false, true},
	} {
		answer = tc.answer
		exists, err := dc.Exists(t.Context(), people)
		if exists != tc.exists || (err != nil) != tc.fails || asked.base != people {
			t.Errorf("%s: %v, %v after reading %s", tc.name, exists, err, asked.base)
		}
	}
}

// user is an entry as a DC gives it out.
func user(t *testing.T, name string, id byte) *ldap.Entry {
	t.Helper()
	meta, err := os.ReadFile("../dsdb/testdata/created.bin")
	if err != nil {
		t.Fatal(err)
	}
	return ldap.NewEntry("CN="+name+",CN=Users,"+fakeBase, map[string][]string{
		"objectGUID":           {string(append(make([]byte, 15), id))},
		"sAMAccountName":       {name},
		"userPrincipalName":    {name + "@example.test"},
		"unicodePwd":           {strings.Repeat("h", 16)},
		"replPropertyMetaData": {string(meta)},
		"uSNChanged":           {"4113"},
		"userAccountControl":   {"-2147483136"}, // LDAP's way to write 0x80000200
		"pwdLastSet":           {"134398317371920490"},
		"mail":                 {name + "@example.com", "second@example.com"},

		"supplementalCredentials": {strings.Repeat("h", 100)},
	})
}

func TestAccountByName(t *testing.T) {
	var asked search
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		asked = s
		return &reply{entries: []*ldap.Entry{user(t, "alice", 1)}}
	}})
	a, err := dc.AccountByName(t.Context(), "al*ice)(", []string{"MAIL", "telephoneNumber"})
	if err != nil {
		t.Fatal(err)
	}
	if want := `(&(sAMAccountName=al\2aice\29\28)(sAMAccountType=805306368))`; asked.base != fakeBase || asked.filter != want {
		t.Errorf("searched %s below %s, want %s", asked.filter, asked.base, want)
	}
	for _, attr := range []string{"unicodePwd", "replPropertyMetaData", "MAIL", "telephoneNumber"} {
		if !slices.Contains(asked.attrs, attr) {
			t.Errorf("asked for %q, not for %s", asked.attrs, attr)
		}
	}
	if a.DN != "CN=alice,CN=Users,"+fakeBase || a.GUID != (dsdb.GUID{15: 1}) || a.SAMAccountName != "alice" ||
		a.UserPrincipalName != "alice@example.test" || string(a.NTHash) != strings.Repeat("h", 16) ||
		a.Stamp.Version != 2 || a.Stamp.USN != 4113 || a.USNChanged != 4113 || a.UserAccountControl != 0x80000200 ||
		!a.PwdLastSet.Equal(time.Date(2026, 11, 22, 14, 35, 37, 192_049_000, time.UTC)) {
		t.Errorf("AccountByName = %+v, %v, %s", a, a.PwdLastSet, a.DN)
	}
	if len(a.Attributes) != 1 || a.Attributes["MAIL"] != "alice@example.com" {
		t.Errorf("Attributes = %q", a.Attributes)
	}
}

func TestAccountByNameTwice(t *testing.T) {
	dc := dialFake(t, &fake{answer: func(search) *reply {
		return &reply{entries: []*ldap.Entry{user(t, "alice", 1), user(t, "alice", 2)}}
	}})
	if a, err := dc.AccountByName(t.Context(), "alice", nil); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("AccountByName = %v, %v; want an error of its own", a, err)
	}
}

func TestAccountByGUID(t *testing.T) {
	found := &reply{entries: []*ldap.Entry{user(t, "alice", 1)}}
	var asked search
	dc := dialFake(t, &fake{answer: func(s search) *reply { asked = s; return found }})
	a, err := dc.AccountByGUID(t.Context(), dsdb.GUID{15: 1}, nil)
	if err != nil || a.SAMAccountName != "alice" || len(a.NTHash) != 16 {
		t.Errorf("AccountByGUID = %v, %v", a, err)
	}
	if want := "<GUID=00000000-0000-0000-0000-000000000001>"; asked.base != want {
		t.Errorf("read %s, want %s", asked.base, want)
	}
	for _, found = range []*reply{{}, {code: ldap.LDAPResultNoSuchObject}} {
		if a, err := dc.AccountByGUID(t.Context(), dsdb.GUID{15: 1}, nil); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnavailable) {
			t.Errorf("AccountByGUID = %v, %v; want ErrNotFound", a, err)
		}
	}
}

func TestDecodeAccountRefuses(t *testing.T) {
	for attribute, values := range map[string][]string{
		"objectGUID":           {"", "short"},
		"uSNChanged":           {"", "many"},
		"userAccountControl":   {"0x200"},
		"pwdLastSet":           {"yesterday", "9223372036854775808"},
		"unicodePwd":           {"fifteen bytes.."},
		"replPropertyMetaData": {"\x01"},
	} {
		for _, value := range values {
			entry := user(t, "alice", 1)
			for _, a := range entry.Attributes {
				if a.Name == attribute {
					*a = *ldap.NewEntryAttribute(attribute, []string{value})
				}
			}
			a, err := decodeAccount(entry, nil)
			if err == nil || !strings.Contains(err.Error(), attribute) {
				t.Errorf("%s of %q: %v, %v; want an error that names it", attribute, value, a, err)
			}
		}
	}
}

func TestDecodeAccountOfLittle(t *testing.T) {
	entry := ldap.NewEntry("CN=x", map[string][]string{"objectGUID": {strings.Repeat("g", 16)}, "uSNChanged": {"7"}})
	a, err := decodeAccount(entry, []string{"mail", credentialsAttribute})
	if err != nil || a.NTHash != nil || a.SupplementalCredentials != nil || a.MetaData != nil || !a.Stamp.IsZero() || !a.PwdLastSet.IsZero() || len(a.Attributes) != 0 || a.USNChanged != 7 {
		t.Errorf("decodeAccount = %v, %v", a, err)
	}
}

// However an Account gets into a log, its hash and its keys must not.
func TestAccountPrinted(t *testing.T) {
	a, err := decodeAccount(user(t, "alice", 1), []string{credentialsAttribute})
	if err != nil || len(a.SupplementalCredentials) != 100 || len(a.Attributes) != 0 {
		t.Fatalf("%d bytes of credentials, attributes %q, %v", len(a.SupplementalCredentials), a.Attributes, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "account", a)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "account", &a)
	if text := log.String(); strings.Contains(text, "aGho") || strings.Contains(text, "hhhh") || strings.Count(text, "alice") < 2 {
		t.Errorf("slog: %s", text) // aGho is base64 for hhh
	}
	for _, format := range []string{"%d", "%x", "%o", "%b"} { // of no sense, so nobody vets them
		if text := fmt.Sprintf(format, a); strings.Contains(text, "104 104") || strings.Contains(text, "686868") || strings.Contains(text, "150 150") || strings.Contains(text, "1101000 1101000") {
			t.Errorf("%s: %s", format, text)
		}
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, value := range []any{a, &a, []Account{a}, map[string]Account{"a": a}, struct{ A Account }{a}} {
			text := fmt.Sprintf(format, value)
			if strings.Contains(text, "hhhh") || strings.Contains(text, "104 104") || strings.Contains(text, "0x68, 0x68") {
				t.Errorf("%s: %s", format, text)
			}
			if !strings.Contains(text, "alice") {
				t.Errorf("%s does not name the account: %s", format, text)
			}
		}
	}
}

func TestMatches(t *testing.T) {
	var answer *reply
	var asked search
	dc := dialFake(t, &fake{answer: func(s search) *reply { asked = s; return answer }})
	for want, answer1 := range map[bool]*reply{true: {entries: []*ldap.Entry{ldap.NewEntry("CN=x", nil)}}, false: {}} {
		answer = answer1
		if got, err := dc.Matches(t.Context(), dsdb.GUID{1}, "(mail=*)"); err != nil || got != want || asked.filter != "(mail=*)" {
			t.Errorf("Matches = %v, %v after %+v; want %v", got, err, asked, want)
		}
	}
	answer = &reply{code: ldap.LDAPResultNoSuchObject}
	if got, err := dc.Matches(t.Context(), dsdb.GUID{1}, "(mail=*)"); got || !errors.Is(err, ErrNotFound) {
		t.Errorf("Matches without such an object = %v, %v", got, err)
	}
	answer = &reply{entries: []*ldap.Entry{ldap.NewEntry("CN=x", nil)}}
	if got, err := dc.Matches(t.Context(), dsdb.GUID{1}, "mail=*"); got || err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("Matches of a malformed filter = %v, %v", got, err)
	}
}

func TestValidateFilter(t *testing.T) {
	for filter, valid := range map[string]bool{
		"(mail=*)": true, "(&(objectClass=user)(!(adminCount=1)))": true, "(memberOf:1.2.840.113556.1.4.1941:=CN=x)": true,
		"": false, "mail=*": false, "(mail=*": false, "(mail=*))": false, "(mail=*)(cn=*)": false, "(&)x": false,
	} {
		if err := ValidateFilter(filter); (err == nil) != valid {
			t.Errorf("ValidateFilter(%q) = %v", filter, err)
		}
	}
}

func TestPasswordSettings(t *testing.T) {
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		if s.base == fakeBase && !strings.Contains(s.filter, "msDS-PasswordSettings") {
			return &reply{entries: []*ldap.Entry{ldap.NewEntry(s.base, map[string][]string{
				"pwdProperties": {"16"}, "minPwdLength": {"7"}, "pwdHistoryLength": {"24"}})}}
		}
		return &reply{entries: []*ldap.Entry{ldap.NewEntry("CN=kiosk", map[string][]string{
			"cn": {"kiosk"}, "msDS-PasswordSettingsPrecedence": {"10"}, "msDS-PasswordComplexityEnabled": {"TRUE"},
			"msDS-MinimumPasswordLength": {"12"}, "msDS-PasswordHistoryLength": {"5"}, "msDS-PasswordReversibleEncryptionEnabled": {"TRUE"},
		})}}
	}})
	s, err := dc.PasswordSettings(t.Context())
	kiosk := FineGrained{Name: "kiosk", Precedence: 10, Complexity: true, MinLength: 12, HistoryLength: 5, Reversible: true}
	if err != nil || s.Complexity || !s.Reversible || s.MinLength != 7 || s.HistoryLength != 24 || !slices.Equal(s.FineGrained, []FineGrained{kiosk}) {
		t.Errorf("PasswordSettings = %+v, %v", s, err)
	}
}

// Settings that cannot be read must not pass for switched off.
func TestPasswordSettingsUnreadable(t *testing.T) {
	dc := dialFake(t, &fake{answer: func(s search) *reply {
		return &reply{entries: []*ldap.Entry{ldap.NewEntry(s.base, map[string][]string{"minPwdLength": {"7"}, "pwdHistoryLength": {"24"}})}}
	}})
	if s, err := dc.PasswordSettings(t.Context()); err == nil || !strings.Contains(err.Error(), "pwdProperties") {
		t.Errorf("PasswordSettings = %+v, %v", s, err)
	}
}

func TestNames(t *testing.T) {
	for dn, want := range map[string]string{
		"DC=example,DC=test": "example.test", "dc=one": "one", "": "", "not a DN": "", "CN=x,DC=a,DC=b": "a.b",
	} {
		if got := domainName(dn); got != want {
			t.Errorf("domainName(%q) = %q, want %q", dn, got, want)
		}
	}
	for dn, want := range map[string]string{"CN=DC1,CN=Servers,DC=x": "DC1", "": "", "not a DN": ""} {
		if got := firstName(dn); got != want {
			t.Errorf("firstName(%q) = %q, want %q", dn, got, want)
		}
	}
}

func FuzzDecodeAccount(f *testing.F) {
	meta, err := os.ReadFile("../dsdb/testdata/created.bin")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(strings.Repeat("g", 16)), meta, []byte(strings.Repeat("h", 16)), "4113", "512", "134398317371920490")
	f.Add([]byte(strings.Repeat("g", 16)), []byte{}, []byte{}, "0", "", "")
	f.Add([]byte("short"), []byte{1}, []byte("fifteen bytes.."), "-1", "0x200", "9223372036854775808")
	f.Fuzz(func(t *testing.T, guid, meta, hash []byte, usn, control, set string) {
		a, err := decodeAccount(ldap.NewEntry("CN=x", map[string][]string{
			"objectGUID": {string(guid)}, "replPropertyMetaData": {string(meta)}, "unicodePwd": {string(hash)},
			"uSNChanged": {usn}, "userAccountControl": {control}, "pwdLastSet": {set},
		}), nil)
		if err != nil {
			return
		}
		if len(guid) != 16 || len(hash) != 0 && len(hash) != 16 || !bytes.Equal(a.NTHash, hash) || a.Stamp.IsZero() && a.MetaData != nil && hasPassword(a.MetaData) {
			t.Errorf("%x, %x became %v", guid, hash, a)
		}
		if _, err := json.Marshal(a); err != nil {
			t.Errorf("%v cannot be written as JSON: %v", a, err)
		}
	})
}

func hasPassword(m dsdb.MetaData) bool {
	stamp, ok := m.Password()
	return ok && !stamp.IsZero()
}
