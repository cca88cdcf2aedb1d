package google_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/internal/target/google"
	"github.com/samba-pwsync/samba-pwsync/internal/target/targettest"
)

func TestContract(t *testing.T)          { contract(t, google.CryptSHA512) }
func TestContractCleartext(t *testing.T) { contract(t, google.Cleartext) }

func contract(t *testing.T, format string) {
	users := []string{"liz@example.com", "bob@example.com", "eve+x@example.com", "o'hara@example.com"}
	sb := start(t, sandbox.Options{}, users...)
	if err := sb.AddUser(sandbox.User{Cloud: sandbox.Google, Name: "root@example.com", Admin: true}); err != nil {
		t.Fatal(err)
	}
	targettest.Run(t, targettest.Suite{
		Double:    targettest.Cloud(sb, sandbox.Google),
		Users:     users,
		Strangers: []string{"nobody@example.com", "liz@elsewhere.example", "root@example.com"},
		Faults: map[string]target.Class{
			"userRateLimitExceeded": target.Throttled, "quotaExceeded": target.Throttled, "domainCannotUseApis": target.Denied,
			"accessNotConfigured": target.Denied, "insufficientPermissions": target.Denied, "forbidden": target.Forbidden,
		},
		New: func(t testing.TB, at *targettest.Server) target.Target {
			o := options(sb)
			o.PasswordFormat = format
			if at != nil {
				o.Endpoint, o.CAFile = at.URL, at.CAFile
				o.CredentialsFile = credentials(t, sb, sb.Google.TokenURL, at.URL+"/token")
			}
			return open(t, o)
		},
	})
}

func start(t *testing.T, o sandbox.Options, names ...string) *sandbox.Sandbox {
	t.Helper()
	var users []sandbox.User
	for _, name := range names {
		users = append(users, sandbox.User{Cloud: sandbox.Google, Name: name})
	}
	return targettest.StartSandbox(t, o, users...)
}

func options(sb *sandbox.Sandbox) google.Options {
	return google.Options{
		CredentialsFile: sb.GoogleCredentialsFile, Subject: sb.Google.Subject, Endpoint: sb.Google.URL, CAFile: sb.CAFile,
	}
}

func open(t testing.TB, o google.Options) *google.Target {
	t.Helper()
	tgt, err := google.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return tgt
}

// credentials is the sandbox's credentials file with something else in it.
func credentials(t testing.TB, sb *sandbox.Sandbox, old, new string) string {
	t.Helper()
	text, err := os.ReadFile(sb.GoogleCredentialsFile)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), old, new, 1)
	if changed == string(text) {
		t.Fatalf("there is no %q in the credentials file", old)
	}
	file := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func set(t *testing.T, tgt target.Target, user, password string) error {
	t.Helper()
	return tgt.SetPassword(t.Context(), target.User{Name: user}, secret.New([]byte(password)))
}

const good = "Correct-Horse-7"

// A hash whose salt is used twice tells who has the same password as yesterday, or as somebody else.
func TestEachHashHasItsOwnSalt(t *testing.T) {
	sb := start(t, sandbox.Options{}, "liz@example.com")
	tgt := open(t, options(sb))
	for range 20 {
		if err := set(t, tgt, "liz@example.com", good); err != nil {
			t.Fatal(err)
		}
	}
	liz, _ := sb.State().User(sandbox.Google, "liz@example.com")
	seen := map[string]bool{}
	for _, p := range liz.Passwords {
		salt, ok := strings.CutPrefix(p.Value, "$6$rounds=10000$")
		salt, _, _ = strings.Cut(salt, "$")
		if !ok || p.Hash != "crypt" || len(salt) != 16 || seen[salt] {
			t.Errorf("hash %s", p.Value)
		}
		seen[salt] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d different salts, want 20", len(seen))
	}
}

// What is sent is the password and nothing else of the user. That no other has to be chosen at the next login is said, since
// Google keeps what an update leaves out: the user has just chosen this one, whatever an administrator asked for before.
func TestBody(t *testing.T) {
	sb := start(t, sandbox.Options{})
	for format, want := range map[string]string{
		google.Cleartext:   `^{"changePasswordAtNextLogin":false,"password":"Correct-Horse-7"}$`,
		google.CryptSHA512: `^{"changePasswordAtNextLogin":false,"hashFunction":"crypt","password":"\$6\$rounds=10000\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{86}"}$`,
	} {
		var body string
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if r.URL.Path == "/token" {
				io.WriteString(w, `{"access_token": "x", "token_type": "Bearer", "expires_in": 3600}`)
				return
			}
			text, _ := io.ReadAll(r.Body)
			body = strings.TrimSpace(string(text))
			io.WriteString(w, `{"id": "1"}`)
		}))
		o := options(sb)
		o.PasswordFormat, o.Endpoint, o.CAFile = format, server.URL, filepath.Join(t.TempDir(), "ca.pem")
		o.CredentialsFile = credentials(t, sb, sb.Google.TokenURL, server.URL+"/token")
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		if err := os.WriteFile(o.CAFile, certificate, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := set(t, open(t, o), "liz@example.com", good); err != nil {
			t.Error(err)
		}
		if !regexp.MustCompile(want).MatchString(body) {
			t.Errorf("%s: sent %s", format, body)
		}
		server.Close()
	}
}

// "forbidden" may be about us or about the one user: the answer does not tell, and Check may.
func TestForbidden(t *testing.T) {
	sb := start(t, sandbox.Options{}, "liz@example.com")
	tgt := open(t, options(sb))
	if err := sb.Misbehave(sandbox.Google, sandbox.Fault{Kind: "forbidden"}); err != nil {
		t.Fatal(err)
	}
	wantClass(t, set(t, tgt, "liz@example.com", good), target.Forbidden, "Reset password")
	wantClass(t, tgt.Check(t.Context()), target.Denied, "Reset password")
	if err := sb.Behave(); err != nil {
		t.Fatal(err)
	}
	reads := sb.State().Requests["google users.get"]
	wantClass(t, set(t, tgt, "liz@elsewhere.example", good), target.Forbidden, "no such address")
	if n := sb.State().Requests["google users.get"] - reads; n != 0 {
		t.Errorf("SetPassword made %d requests besides", n)
	}
	if err := tgt.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func wantClass(t *testing.T, err error, want target.Class, text string) {
	t.Helper()
	if got := target.Classify(err); got != want || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("class %s, want %s with %q: %v", got, want, text, err)
	}
}

// Without a subject the service account needs a role of its own.
func TestWithoutSubject(t *testing.T) {
	for _, role := range []bool{true, false} {
		t.Run(fmt.Sprint(role), func(t *testing.T) {
			sb := start(t, sandbox.Options{ServiceAccountAdmin: role}, "liz@example.com")
			o := options(sb)
			o.Subject = ""
			tgt := open(t, o)
			check, write := tgt.Check(t.Context()), set(t, tgt, "liz@example.com", good)
			if role && (check != nil || write != nil || !sb.Verify(sandbox.Google, "liz@example.com", good)) {
				t.Errorf("check: %v; write: %v", check, write)
			}
			if !role {
				wantClass(t, check, target.Denied, "assign an administrator role")
				wantClass(t, write, target.Forbidden, "Reset password")
			}
			if v := sb.State().Violations; len(v) > 0 {
				t.Errorf("violations: %v", v)
			}
		})
	}
}

func TestAdvice(t *testing.T) {
	sb := start(t, sandbox.Options{}, "liz@example.com")
	for _, tc := range []struct{ kind, on, want string }{
		{"accessNotConfigured", "read", "enable the Admin SDK API"},
		{"domainCannotUseApis", "read", "allow API access"},
		{"insufficientPermissions", "read", "grant the scope https://www.googleapis.com/auth/admin.directory.user"},
		{"404", "read", "subject is not a user"},
		{"unauthorized-client", "token", "domain-wide delegation"},
		{"invalid-grant", "token", "clock"},
		{"invalid-client", "token", "disabled or deleted"},
	} {
		if err := sb.Misbehave(sandbox.Google, sandbox.Fault{Kind: tc.kind, On: tc.on}); err != nil {
			t.Fatal(err)
		}
		wantClass(t, open(t, options(sb)).Check(t.Context()), target.Denied, tc.want)
		if err := sb.Behave(); err != nil {
			t.Fatal(err)
		}
	}
}

// A new key takes effect with the next token, without a restart.
func TestCredentialsAreReadAnew(t *testing.T) {
	sb := start(t, sandbox.Options{})
	o := options(sb)
	o.CredentialsFile = credentials(t, sb, `"client_email"`, `"client_email" `)
	tgt := open(t, o)
	if err := os.Remove(o.CredentialsFile); err != nil {
		t.Fatal(err)
	}
	wantClass(t, tgt.Check(t.Context()), target.Denied, "reading credentials_file")
	text, err := os.ReadFile(sb.GoogleCredentialsFile)
	if err == nil {
		err = os.WriteFile(o.CredentialsFile, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := tgt.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWrongConfiguration(t *testing.T) {
	sb := start(t, sandbox.Options{})
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*google.Options){
		"reading credentials_file: it is not set":          func(o *google.Options) { o.CredentialsFile = "" },
		"reading credentials_file: open /nowhere: no such": func(o *google.Options) { o.CredentialsFile = "/nowhere" },
		"it is not the JSON key of a service account":      func(o *google.Options) { o.CredentialsFile = garbage },
		"private_key in credentials_file: it is damaged": func(o *google.Options) {
			o.CredentialsFile = credentials(t, sb, "PRIVATE KEY-----\\n", "PRIVATE KEY-----\\nAAAA")
		},
		"private_key in credentials_file: it is not in PEM": func(o *google.Options) { o.CredentialsFile = credentials(t, sb, "BEGIN", "BEGUN") },
		"token_uri in credentials_file: it has to be of the form https://": func(o *google.Options) {
			o.CredentialsFile = credentials(t, sb, sb.Google.TokenURL, "http://127.0.0.1/token")
		},
		"reading endpoint: it has to be of the form https://host/": func(o *google.Options) { o.Endpoint = "http://127.0.0.1/" },
		`it is neither "crypt-sha512" nor "cleartext"`:             func(o *google.Options) { o.PasswordFormat = "md5" },
		"holds no certificate in PEM form":                         func(o *google.Options) { o.CAFile = garbage },
	} {
		o := options(sb)
		change(&o)
		if _, err := google.New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got: %v", want, err)
		}
	}
}

// What the directory demands of the user is passed on, and taken back with the next password.
func TestMustChange(t *testing.T) {
	sb := start(t, sandbox.Options{}, "liz@example.com")
	tgt := open(t, options(sb))
	for _, must := range []bool{true, false} {
		password := secret.New([]byte(good))
		err := tgt.SetPassword(t.Context(), target.User{Name: "liz@example.com", MustChange: must}, password)
		password.Destroy()
		if err != nil {
			t.Fatal(err)
		}
		u, _ := sb.State().User(sandbox.Google, "liz@example.com")
		if held, _ := u.Current(); held.MustChange != must {
			t.Errorf("the user has to choose another password: %t, want %t", held.MustChange, must)
		}
	}
}
