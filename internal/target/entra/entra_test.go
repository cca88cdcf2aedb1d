package entra_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/internal/target/entra"
	"github.com/samba-pwsync/samba-pwsync/internal/target/targettest"
)

func TestContract(t *testing.T) {
	users := []string{"liz@example.com", "bob@example.com", "eve_gmail.com#EXT#@example.com", "o'hara@example.com"}
	sb := start(t, users...)
	for _, u := range []sandbox.User{
		{Name: "root@example.com", Admin: true}, {Name: "fred@fed.example.com", Federated: true}, {Name: "sync@example.com", Synced: true},
	} {
		u.Cloud = sandbox.Microsoft
		if err := sb.AddUser(u); err != nil {
			t.Fatal(err)
		}
	}
	targettest.Run(t, targettest.Suite{
		Double:    targettest.Cloud(sb, sandbox.Microsoft),
		Users:     users,
		Strangers: []string{"nobody@example.com", "liz@elsewhere.example", "root@example.com", "fred@fed.example.com", "sync@example.com"},
		Faults:    map[string]target.Class{"Authorization_RequestDenied": target.NoUser, "claims-challenge": target.Throttled},
		New: func(t testing.TB, at *targettest.Server) target.Target {
			o := options(sb)
			if at != nil {
				o.AuthorityURL, o.GraphURL, o.CAFile = at.URL, at.URL, at.CAFile
			}
			return open(t, o)
		},
	})
}

func start(t *testing.T, names ...string) *sandbox.Sandbox {
	t.Helper()
	var users []sandbox.User
	for _, name := range names {
		users = append(users, sandbox.User{Cloud: sandbox.Microsoft, Name: name})
	}
	return targettest.StartSandbox(t, sandbox.Options{}, users...)
}

func options(sb *sandbox.Sandbox) entra.Options {
	return entra.Options{
		TenantID: sb.TenantID, ClientID: sb.ClientID, ClientSecretFile: sb.EntraSecretFile,
		AuthorityURL: sb.Microsoft.AuthorityURL, GraphURL: sb.Microsoft.GraphURL, CAFile: sb.CAFile,
	}
}

func open(t testing.TB, o entra.Options) *entra.Target {
	t.Helper()
	tgt, err := entra.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return tgt
}

func set(t *testing.T, tgt target.Target, user, password string) error {
	t.Helper()
	return tgt.SetPassword(t.Context(), target.User{Name: user}, secret.New([]byte(password)))
}

func wantClass(t *testing.T, err error, want target.Class, text string) {
	t.Helper()
	if got := target.Classify(err); got != want || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("class %s, want %s with %q: %v", got, want, text, err)
	}
}

const good = "Correct-Horse-7"

func TestCertificate(t *testing.T) {
	sb := start(t, "liz@example.com")
	o := options(sb)
	o.ClientSecretFile, o.ClientCertificateFile = "", sb.EntraCertificateFile
	tgt := open(t, o)
	if err := tgt.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := set(t, tgt, "liz@example.com", good); err != nil || !sb.Verify(sandbox.Microsoft, "liz@example.com", good) {
		t.Errorf("setting: %v", err)
	}
	if v := sb.State().Violations; len(v) > 0 {
		t.Errorf("violations: %v", v)
	}
}

// Whoever reads the error has to know why this one user stays behind.
func TestReasons(t *testing.T) {
	sb := start(t, "liz@example.com")
	for _, u := range []sandbox.User{{Name: "root@example.com", Admin: true}, {Name: "fred@fed.example.com", Federated: true}, {Name: "sync@example.com", Synced: true}} {
		u.Cloud = sandbox.Microsoft
		if err := sb.AddUser(u); err != nil {
			t.Fatal(err)
		}
	}
	tgt := open(t, options(sb))
	if err := set(t, tgt, "liz@example.com", good); err != nil {
		t.Fatal(err)
	}
	wantClass(t, set(t, tgt, "root@example.com", good), target.NoUser, "an administrator's account")
	wantClass(t, set(t, tgt, "fred@fed.example.com", good), target.NoUser, "its domain is federated")
	wantClass(t, set(t, tgt, "sync@example.com", good), target.NoUser, "synced by another agent")
	wantClass(t, set(t, tgt, "liz@example.com", "Password123"), target.Rejected, "banned passwords")
	if liz, _ := sb.State().User(sandbox.Microsoft, "liz@example.com"); liz.Passwords[0].MustChange {
		t.Error("the user has to choose another password")
	}
}

func TestAdvice(t *testing.T) {
	sb := start(t)
	for kind, want := range map[string]string{
		"invalid-client":      "does not hold the secret's value",
		"expired-secret":      "the client secret has expired",
		"unknown-certificate": "the certificate is not registered",
		"invalid-grant":       "Conditional Access",
	} {
		if err := sb.Misbehave(sandbox.Microsoft, sandbox.Fault{Kind: kind, On: "token"}); err != nil {
			t.Fatal(err)
		}
		wantClass(t, open(t, options(sb)).Check(t.Context()), target.Denied, want)
		if err := sb.Behave(); err != nil {
			t.Fatal(err)
		}
	}
	for want, change := range map[string]func(*entra.Options){
		"no application with this client_id": func(o *entra.Options) { o.ClientID = "00000000-0000-0000-0000-000000000000" },
		"no tenant with this tenant_id":      func(o *entra.Options) { o.TenantID = "elsewhere.example" },
	} {
		o := options(sb)
		change(&o)
		wantClass(t, open(t, o).Check(t.Context()), target.Denied, want)
	}
}

// A new secret takes effect with the next token, without a restart.
func TestSecretIsReadAnew(t *testing.T) {
	sb := start(t)
	o := options(sb)
	o.ClientSecretFile = filepath.Join(t.TempDir(), "secret")
	write := func(text []byte) {
		if err := os.WriteFile(o.ClientSecretFile, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("old\n"))
	tgt := open(t, o)
	wantClass(t, tgt.Check(t.Context()), target.Denied, "does not hold the secret's value")
	text, err := os.ReadFile(sb.EntraSecretFile)
	if err != nil {
		t.Fatal(err)
	}
	write(text)
	if err := tgt.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWrongConfiguration(t *testing.T) {
	sb := start(t)
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, tc := range []struct {
		want   string
		change func(*entra.Options)
	}{
		{"reading tenant_id and client_id", func(o *entra.Options) { o.TenantID = "" }},
		{"reading tenant_id and client_id", func(o *entra.Options) { o.ClientID = "" }},
		{"exactly one of", func(o *entra.Options) { o.ClientCertificateFile = sb.EntraCertificateFile }},
		{"exactly one of", func(o *entra.Options) { o.ClientSecretFile = "" }},
		{"open /nowhere: no such file", func(o *entra.Options) { o.ClientSecretFile = "/nowhere" }},
		{"has to hold the secret's value and nothing else", func(o *entra.Options) { o.ClientSecretFile = file("") }},
		{"has to hold the secret's value and nothing else", func(o *entra.Options) { o.ClientSecretFile = file("a\nb\n") }},
		{"a certificate and its unencrypted RSA key", func(o *entra.Options) { o.ClientSecretFile, o.ClientCertificateFile = "", file("garbage") }},
		{"tenant_id has to be a GUID or a domain", func(o *entra.Options) { o.TenantID = "a/b" }},
		{"reading authority_url", func(o *entra.Options) { o.AuthorityURL = "https://user@127.0.0.1/" }},
		{"reading graph_url", func(o *entra.Options) { o.GraphURL = "http://127.0.0.1/" }},
		{"holds no certificate in PEM form", func(o *entra.Options) { o.CAFile = file("garbage") }},
	} {
		o := options(sb)
		tc.change(&o)
		if _, err := entra.New(o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("want %q, got: %v", tc.want, err)
		}
	}
}

// A 403 for one user is the user's trouble where the token says that we may write, and the target's where it does not. The
// double's tokens cannot be read, so here is a server whose tokens can.
func TestWhoseFault(t *testing.T) {
	const permission = "User-PasswordProfile.ReadWrite.All"
	const userAdministrator = "fe930be7-5e62-47db-91af-98c3a49a38b1"
	type step struct {
		allowed bool // what the server does with the write
		want    target.Class
	}
	denied, noUser, fine := step{false, target.Forbidden}, step{false, target.NoUser}, step{true, target.Delivered}
	for _, tc := range []struct {
		name   string
		claims map[string]any
		steps  []step
		check  target.Class // after them
	}{
		{"permission", map[string]any{"aud": "x", "roles": []string{"User.Read.All", permission}}, []step{noUser, fine, noUser}, target.Delivered},
		{"role", map[string]any{"aud": "x", "wids": []string{userAdministrator}}, []step{noUser, fine, noUser}, target.Delivered},
		{"neither", map[string]any{"aud": "x", "roles": []string{"User.ReadWrite.All"}}, []step{denied, denied}, target.Denied},
		{"neither, and nothing refused", map[string]any{"aud": "x"}, nil, target.Delivered},
		{"role in a unit, which no token shows", map[string]any{"aud": "x"}, []step{fine, noUser}, target.Delivered},
		{"opaque token", nil, []step{denied, fine, noUser}, target.Delivered},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := &graph{token: "opaque"}
			if tc.claims != nil {
				text, err := json.Marshal(tc.claims)
				if err != nil {
					t.Fatal(err)
				}
				g.token = "e30." + base64.RawURLEncoding.EncodeToString(text) + ".e30"
			}
			tgt := g.open(t)
			for i, s := range tc.steps {
				g.allowed = s.allowed
				text := ""
				if s.want == target.Forbidden {
					text = permission
				}
				if err := set(t, tgt, "liz@example.com", good); s.want == target.Delivered && err != nil {
					t.Errorf("step %d: %v", i, err)
				} else {
					wantClass(t, err, s.want, text)
				}
			}
			if got := target.Classify(tgt.Check(t.Context())); got != tc.check {
				t.Errorf("check: %s, want %s", got, tc.check)
			}
		})
	}
}

// A permission that is granted while the target is denied shows in the next token, and Check asks for that.
func TestGrantIsSeen(t *testing.T) {
	g := &graph{token: "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"aud":"x"}`)) + ".e30"}
	tgt := g.open(t)
	wantClass(t, set(t, tgt, "liz@example.com", good), target.Forbidden, "grant the application")
	wantClass(t, tgt.Check(t.Context()), target.Denied, "grant the application")
	g.token = "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"aud":"x","roles":["User-PasswordProfile.ReadWrite.All"]}`)) + ".e30"
	g.allowed = true
	if err := tgt.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := set(t, tgt, "liz@example.com", good); err != nil {
		t.Error(err)
	}
}

// A role for an administrative unit alone is none of the token's. If the first password ever is of a user outside, Check holds the token against
// us; but not for ever.
func TestRoleInAUnit(t *testing.T) {
	g := &graph{token: "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"aud":"x"}`)) + ".e30"}
	tgt := g.open(t)
	wantClass(t, set(t, tgt, "outside@example.com", good), target.Forbidden, "grant the application")
	for range 3 {
		wantClass(t, tgt.Check(t.Context()), target.Denied, "grant the application")
	}
	if err := tgt.Check(t.Context()); err != nil {
		t.Error(err)
	}
	g.allowed = true
	if err := set(t, tgt, "inside@example.com", good); err != nil {
		t.Error(err)
	}
	g.allowed = false
	wantClass(t, set(t, tgt, "outside@example.com", good), target.NoUser, "")
	for range 5 {
		if err := tgt.Check(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// An administrator's password is refused for that one user, also where it is the first that is ever sent: the token says that
// the application may set passwords.
func TestAdministratorFirst(t *testing.T) {
	sb := start(t, "liz@example.com")
	if err := sb.AddUser(sandbox.User{Cloud: sandbox.Microsoft, Name: "root@example.com", Admin: true}); err != nil {
		t.Fatal(err)
	}
	tgt := open(t, options(sb))
	wantClass(t, set(t, tgt, "root@example.com", good), target.NoUser, "")
	if err := set(t, tgt, "liz@example.com", good); err != nil {
		t.Error(err)
	}
}

// The environment can have the libraries ask another host for the token. That host is not shown the client secret.
func TestNoOtherAuthority(t *testing.T) {
	for _, name := range []string{"AZURE_REGIONAL_AUTHORITY_NAME", "MSAL_FORCE_REGION"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "westeurope")
			sb := start(t, "liz@example.com")
			wantClass(t, open(t, options(sb)).Check(t.Context()), target.Denied, "another host for an access token")
		})
	}
}

// graph is authority and Graph with one answer.
type graph struct {
	token   string
	allowed bool
	user    string // its answer to whoever asks for a user; empty: nobody may
	url     string
}

func (g *graph) open(t *testing.T) *entra.Target {
	server := httptest.NewTLSServer(g)
	t.Cleanup(server.Close)
	g.url = server.URL
	dir := t.TempDir()
	files := map[string][]byte{"secret": []byte("x"), "ca": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return open(t, entra.Options{TenantID: sandbox.TenantID, ClientID: sandbox.ClientID, ClientSecretFile: filepath.Join(dir, "secret"),
		AuthorityURL: g.url, GraphURL: g.url, CAFile: filepath.Join(dir, "ca")})
}

func (g *graph) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
		fmt.Fprintf(w, `{"token_endpoint": "%s/token", "authorization_endpoint": "%[1]s/authorize", "issuer": "%[1]s/%s/v2.0"}`, g.url, sandbox.TenantID)
	case strings.HasSuffix(r.URL.Path, "/token"):
		fmt.Fprintf(w, `{"access_token": %q, "token_type": "Bearer", "expires_in": 3600}`, g.token)
	case r.Method == http.MethodPatch && g.allowed:
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodGet && g.user != "":
		io.WriteString(w, strings.TrimSpace(g.user))
	default: // also for GET: the application may see nobody, and need not
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges to complete the operation."}}`)
	}
}

// What the directory demands of the user is passed on, and taken back with the next password.
func TestMustChange(t *testing.T) {
	sb := start(t, "liz@example.com")
	tgt := open(t, options(sb))
	for _, must := range []bool{true, false} {
		password := secret.New([]byte(good))
		err := tgt.SetPassword(t.Context(), target.User{Name: "liz@example.com", MustChange: must}, password)
		password.Destroy()
		if err != nil {
			t.Fatal(err)
		}
		u, _ := sb.State().User(sandbox.Microsoft, "liz@example.com")
		if held, _ := u.Current(); held.MustChange != must {
			t.Errorf("the user has to choose another password: %t, want %t", held.MustChange, must)
		}
	}
}

// A delivery shows in the user, if the application may read users.
func TestLastChange(t *testing.T) {
	const name = "eve_gmail.com#EXT#@example.com"
	sb := start(t, name)
	tgt := open(t, options(sb))
	if _, err := tgt.LastChange(t.Context(), target.User{}); err != nil {
		t.Error(err)
	}
	before, err := tgt.LastChange(t.Context(), target.User{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // Graph counts whole seconds
	began := time.Now()
	if err := set(t, tgt, name, good); err != nil {
		t.Fatal(err)
	}
	after, err := tgt.LastChange(t.Context(), target.User{Name: name})
	if err != nil || !after.After(before) || after.Before(began.Add(-2*time.Second)) || after.After(time.Now()) {
		t.Errorf("%v, then %v, %v; it is %v", before, after, err, began)
	}
	_, err = tgt.LastChange(t.Context(), target.User{Name: "nobody@example.com"})
	wantClass(t, err, target.NoUser, "")
	if err := sb.Misbehave(sandbox.Microsoft, sandbox.Fault{Kind: "Authorization_RequestDenied", On: "read"}); err != nil {
		t.Fatal(err)
	}
	if _, err := tgt.LastChange(t.Context(), target.User{Name: name}); !errors.Is(err, target.ErrCannotTell) || !strings.Contains(err.Error(), "User.Read.All") {
		t.Error(err)
	}
	if v := sb.State().Violations; len(v) > 0 {
		t.Errorf("violations: %v", v)
	}
}

// Where the token says that the application may not read users, it is not tried.
func TestLastChangeByTheToken(t *testing.T) {
	for claims, tells := range map[string]bool{
		`{"aud":"x","roles":["User-PasswordProfile.ReadWrite.All"]}`:                 false,
		`{"aud":"x","roles":["User-PasswordProfile.ReadWrite.All","User.Read.All"]}`: true,
		`{"aud":"x","wids":["fe930be7-5e62-47db-91af-98c3a49a38b1"]}`:                true,
	} {
		g := &graph{token: "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".e30", allowed: true}
		tgt := g.open(t)
		if err := tgt.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := tgt.LastChange(t.Context(), target.User{}); (err == nil) != tells || err != nil && !errors.Is(err, target.ErrCannotTell) {
			t.Errorf("%s: %v", claims, err)
		}
	}
}

// Whatever stands where the user should, it is no time.
func TestLastChangeOfNothing(t *testing.T) {
	for answer, cannotTell := range map[string]bool{
		" ": true, "null": true, "{}": true, `{"lastPasswordChangeDateTime": null}`: true, // " " is no body at all
		"[]": true, "0": true, `""`: true, "true": true, "[null]": true,
		"{": false, `{"lastPasswordChangeDateTime": 7}`: false, `{"lastPasswordChangeDateTime": "yesterday"}`: false,
	} {
		g := &graph{token: "opaque", user: answer}
		at, err := g.open(t).LastChange(t.Context(), target.User{Name: "liz@example.com"})
		if err == nil || errors.Is(err, target.ErrCannotTell) != cannotTell || !at.IsZero() {
			t.Errorf("%q: %v, %v", answer, at, err)
		}
	}
}
