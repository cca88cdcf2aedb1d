package sandbox_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/GehirnInc/crypt/sha512_crypt"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

const (
	userScope     = "https://www.googleapis.com/auth/admin.directory.user"
	readonlyScope = "https://www.googleapis.com/auth/admin.directory.user.readonly"
	good          = "Correct-Horse-7"
)

// start runs a sandbox with the user liz for the length of a test.
func start(t *testing.T, o sandbox.Options) *sandbox.Sandbox {
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
	add(t, sb, sandbox.User{Name: "liz@example.com", Aliases: []string{"elizabeth@example.com"}})
	return sb
}

func add(t *testing.T, sb *sandbox.Sandbox, u sandbox.User) {
	t.Helper()
	if err := sb.AddUser(u); err != nil {
		t.Fatal(err)
	}
}

// violations gives the reasons of the requests that broke the contract.
func violations(sb *sandbox.Sandbox) []string {
	var reasons []string
	for _, v := range sb.State().Violations {
		reasons = append(reasons, v.Reason)
	}
	return reasons
}

func noViolations(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	if v := violations(sb); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

// plain is a client that trusts the sandbox and follows no redirect.
func plain(sb *sandbox.Sandbox) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: sb.CertPool()}, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// googleClient signs in with the credentials file, as the target does.
func googleClient(t *testing.T, sb *sandbox.Sandbox, subject string, scopes ...string) *http.Client {
	t.Helper()
	credentials, err := os.ReadFile(sb.GoogleCredentialsFile)
	if err != nil {
		t.Fatal(err)
	}
	config, err := google.JWTConfigFromJSON(credentials, scopes...)
	if err != nil {
		t.Fatal(err)
	}
	config.Subject = subject
	c := config.Client(context.WithValue(t.Context(), oauth2.HTTPClient, plain(sb)))
	c.CheckRedirect = plain(sb).CheckRedirect
	return c
}

// entra is a client with a token source of Microsoft's own library.
type entra struct {
	*http.Client
	credential azcore.TokenCredential
	graph      string
}

func entraClient(t *testing.T, sb *sandbox.Sandbox, secret string) *entra {
	t.Helper()
	if secret == "" {
		text, err := os.ReadFile(sb.EntraSecretFile)
		if err != nil {
			t.Fatal(err)
		}
		secret = strings.TrimSpace(string(text))
	}
	credential, err := azidentity.NewClientSecretCredential(sb.TenantID, sb.ClientID, secret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: azureOptions(sb), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	return &entra{plain(sb), credential, sb.Microsoft.GraphURL}
}

func azureOptions(sb *sandbox.Sandbox) azcore.ClientOptions {
	return azcore.ClientOptions{
		Transport: plain(sb),
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: sb.Microsoft.AuthorityURL},
		Retry:     policy.RetryOptions{MaxRetries: -1},
	}
}

func (e *entra) Do(r *http.Request) (*http.Response, error) {
	token, err := e.credential.GetToken(r.Context(), policy.TokenRequestOptions{Scopes: []string{e.graph + "/.default"}})
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token.Token)
	return e.Client.Do(r)
}

type doer interface {
	Do(*http.Request) (*http.Response, error)
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   string
}

func send(t *testing.T, c doer, method, url, body string, header ...string) (answer, error) {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := c.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(response.Body); err != nil {
		return answer{}, err
	}
	return answer{response.StatusCode, response.Header, b.String()}, nil
}

// ask is send for requests that must be answered.
func ask(t *testing.T, c doer, method, url, body string, header ...string) answer {
	t.Helper()
	a, err := send(t, c, method, url, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return a
}

func (a answer) must(t *testing.T, status int, parts ...string) answer {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %s", a.status, status, a.body)
	}
	for _, part := range parts {
		if !strings.Contains(a.body, part) {
			t.Errorf("answer lacks %q: %s", part, a.body)
		}
	}
	return a
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

func googleUser(sb *sandbox.Sandbox, key string) string {
	return sb.Google.URL + "admin/directory/v1/users/" + url.PathEscape(key)
}

func graphUser(sb *sandbox.Sandbox, key string) string {
	return sb.Microsoft.GraphURL + "/v1.0/users/" + url.PathEscape(key)
}

func quote(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}

func profile(password string) string {
	return `{"passwordProfile":{"password":` + quote(password) + `,"forceChangePasswordNextSignIn":false}}`
}

func crypt(t *testing.T, password string) string {
	t.Helper()
	hash, err := sha512_crypt.New().Generate([]byte(password), []byte("$6$rounds=1000$saltsalt"))
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

func TestGoogleSetsPassword(t *testing.T) {
	sb := start(t, sandbox.Options{})
	c := googleClient(t, sb, sb.Google.Subject, userScope)

	read := ask(t, c, "GET", googleUser(sb, "ELIZABETH@example.com"), "").must(t, 200).json(t)
	if read["primaryEmail"] != "liz@example.com" || read["isAdmin"] != false {
		t.Errorf("user is %v", read)
	}
	body := `{"password":` + quote(crypt(t, good)) + `,"hashFunction":"crypt","changePasswordAtNextLogin":false}`
	a := ask(t, c, "PUT", googleUser(sb, read["id"].(string))+"?alt=json&prettyPrint=false", body).must(t, 200)
	if strings.Contains(a.body, "$6$") {
		t.Error("the answer holds the hash")
	}
	if !sb.Verify(sandbox.Google, "liz@example.com", good) {
		t.Error("Google does not hold the password")
	}
	if sb.Verify(sandbox.Google, "liz@example.com", good+"!") {
		t.Error("Google holds any password")
	}
	if sb.Verify(sandbox.Microsoft, "liz@example.com", good) {
		t.Error("Microsoft holds Google's password")
	}

	ask(t, c, "PATCH", googleUser(sb, "liz@example.com"), `{"password":"Gänsefüßchen\u003c8"}`).must(t, 200)
	if !sb.Verify(sandbox.Google, "elizabeth@example.com", "Gänsefüßchen<8") {
		t.Error("Google does not hold the clear password")
	}
	s := sb.State()
	liz, _ := s.User(sandbox.Google, "liz@example.com")
	if len(liz.Passwords) != 2 || !sandbox.Matches(sandbox.Google, liz.Passwords[0], good) {
		t.Errorf("history is %v", liz.Passwords)
	}
	if p := liz.Passwords[0]; p.Applied.Before(p.Requested) || p.Requested.IsZero() {
		t.Errorf("requested %v, applied %v", p.Requested, p.Applied)
	}
	if n := s.Requests["google token"]; n != 1 {
		t.Errorf("%d tokens were asked for", n)
	}
	if s.Requests["google users.update"] != 1 || s.Requests["google users.patch"] != 1 || liz.Requests != 3 {
		t.Errorf("requests %v, of liz %d", s.Requests, liz.Requests)
	}
	noViolations(t, sb)
}

func TestMicrosoftSetsPassword(t *testing.T) {
	sb := start(t, sandbox.Options{})
	c := entraClient(t, sb, "")
	before := ask(t, c, "GET", graphUser(sb, "liz@example.com")+"?$select=id,lastPasswordChangeDateTime,onPremisesSyncEnabled", "").must(t, 200).json(t)
	if _, all := before["displayName"]; all || before["onPremisesSyncEnabled"] != nil {
		t.Errorf("selected %v", before)
	}
	a := ask(t, c, "PATCH", graphUser(sb, before["id"].(string)), profile(good)).must(t, 204)
	if a.body != "" || a.header.Get("Request-Id") == "" {
		t.Errorf("answer %q, header %v", a.body, a.header)
	}
	if !sb.Verify(sandbox.Microsoft, "liz@example.com", good) || sb.Verify(sandbox.Microsoft, "liz@example.com", "x") {
		t.Error("Microsoft does not hold the password")
	}
	if s := sb.State(); s.Requests["microsoft token"] != 1 || s.Requests["microsoft PATCH users/{id}"] != 1 {
		t.Errorf("requests %v", s.Requests)
	}
	noViolations(t, sb)
}
