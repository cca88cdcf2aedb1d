package sandbox_test

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// TestMicrosoftJudges shows for each rule a request that breaks it.
func TestMicrosoftJudges(t *testing.T) {
	sb := start(t, sandbox.Options{})
	c := entraClient(t, sb, "")
	liz := graphUser(sb, "liz@example.com")
	graph := sb.Microsoft.GraphURL + "/v1.0/"
	filter := func(f string) string { return graph + "users?$filter=" + url.QueryEscape(f) }
	for _, test := range []struct {
		method, url, body string
		header            []string
		status            int
		answer            string // what the client is told
		violation         string // what the judge notes
	}{
		{"PATCH", liz + "?$select=id", profile(good), nil, 400, "BadRequest", "$select"},
		{"PATCH", liz + "?force=true", profile(good), nil, 400, "BadRequest", `"force"`},
		{"PATCH", liz, profile(good), []string{"Content-Type", "application/x-www-form-urlencoded"}, 400, "BadRequest", "Content-Type"},
		{"PATCH", liz, profile(good), []string{"Content-Encoding", "gzip"}, 400, "BadRequest", "said to be gzip"},
		{"PATCH", liz, profile(good), []string{"Content-Encoding", "br"}, 400, "BadRequest", "Content-Encoding"},
		{"PATCH", liz, `{"passwordprofile":{}}`, nil, 400, "BadRequest", "passwordprofile"},
		{"PATCH", liz, `{"passwordProfile":{"forceChangePasswordNextLogin":false}}`, nil, 400, "BadRequest", "forceChangePasswordNextLogin"},
		{"PATCH", liz, `{"passwordProfile":{"password":"` + good, nil, 400, "BadRequest", "not JSON"},
		{"PATCH", liz, profile("Replaced-\uFFFD-7"), nil, 400, "Request_BadRequest", "U+FFFD"},
		{"PUT", liz, profile(good), nil, 400, "BadRequest", "no such route"},
		{"DELETE", liz, "", nil, 400, "BadRequest", "no such route"},
		{"GET", graph + "users/", "", nil, 400, "BadRequest", "no such route"},
		{"GET", liz + "/manager", "", nil, 400, "BadRequest", "no such route"},
		{"GET", graph + "groups", "", nil, 400, "Resource not found for the segment 'groups'.", "no such route"},
		{"GET", sb.Microsoft.GraphURL + "/beta/users", "", nil, 404, "", "no such route"},
		{"GET", liz, "{}", nil, 400, "BadRequest", "a GET has a body"},
		{"GET", liz + "?$select=id,mails", "", nil, 400, "Could not find a property named 'mails' on type 'microsoft.graph.user'.", "mails"},
		{"GET", liz + "?$select=id&$select=mail", "", nil, 400, "BadRequest", "twice"},
		{"GET", liz + "?a;b", "", nil, 400, "BadRequest", "query cannot be parsed"},
		{"GET", filter("startswith(mail,'l')"), "", nil, 400, "Request_UnsupportedQuery", "not of the form"},
		{"GET", filter("mail eq 'a' or mail eq 'b'"), "", nil, 400, "Request_UnsupportedQuery", "not of the form"},
		{"GET", filter("city eq 'Kiel'"), "", nil, 400, "Request_UnsupportedQuery", "city"},
		{"GET", graph + "users?$top=1000", "", nil, 400, "BadRequest", "$top"},
		{"GET", graph + "domains/example.com?$select=name", "", nil, 400, "Could not find a property named 'name'.", "name"},
	} {
		before := len(violations(sb))
		ask(t, c, test.method, test.url, test.body, test.header...).must(t, test.status, test.answer)
		after := violations(sb)
		if len(after) != before+1 || !strings.Contains(after[before], test.violation) {
			t.Errorf("%s %s: violations %q, want %q", test.method, test.url, after[before:], test.violation)
		}
	}
	for _, v := range sb.State().Violations {
		if strings.Contains(v.Reason, good) {
			t.Errorf("a violation holds the password: %v", v)
		}
	}
	if u, _ := sb.State().User(sandbox.Microsoft, "liz@example.com"); len(u.Passwords) != 0 {
		t.Errorf("a refused request set a password")
	}
}

// TestMicrosoftRefuses shows what Graph refuses although the request is right.
func TestMicrosoftRefuses(t *testing.T) {
	sb := start(t, sandbox.Options{})
	for _, u := range []sandbox.User{
		{Name: "boss@example.com", Admin: true},
		{Name: "synced@example.com", Synced: true},
		{Name: "fed@fed.example.com", Federated: true},
		{Name: "also@fed.example.com"},
		{Name: "lax@example.com", PasswordPolicies: "DisableStrongPassword"},
		{Name: "poll@example.com", FamilyName: "Poll"},
	} {
		u.Cloud = sandbox.Microsoft
		add(t, sb, u)
	}
	c := entraClient(t, sb, "")
	patch := func(user, body string) answer { return ask(t, c, "PATCH", graphUser(sb, user), body) }

	patch("boss@example.com", profile(good)).must(t, 403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.", "request-id")
	patch("synced@example.com", profile(good)).must(t, 400, "Request_BadRequest", "on-premises mastered Directory Sync objects")
	patch("fed@fed.example.com", profile(good)).must(t, 400, "Request_BadRequest")
	patch("also@fed.example.com", profile(good)).must(t, 400, "Request_BadRequest")
	patch("nobody@example.com", profile(good)).must(t, 404, "Request_ResourceNotFound", "Resource 'nobody@example.com' does not exist")
	const complexity = "The specified password does not comply with password complexity requirements. Please provide a different password."
	for _, weak := range []string{"short-1", "correcthorse7", "Gänsefüßchen-8", "P@ssw0rd", "Example-2026!"} {
		patch("liz@example.com", profile(weak)).must(t, 400, "Request_BadRequest", complexity)
	}
	patch("lax@example.com", profile("correcthorse7")).must(t, 204)
	patch("poll@example.com", profile("Poll-Xyzzy-7")).must(t, 400, complexity)
	patch("liz@example.com", `{"displayName":"Liz"}`).must(t, 403, "Authorization_RequestDenied")
	patch("liz@example.com", `{"passwordProfile":{"forceChangePasswordNextSignIn":true}}`).must(t, 204)
	patch("liz@example.com", `{"passwordProfile":{"forceChangePasswordNextSignIn":true,"password":"`+good+`"}}`).must(t, 204)
	liz, _ := sb.State().User(sandbox.Microsoft, "liz@example.com")
	if len(liz.Passwords) != 1 || !liz.Passwords[0].MustChange {
		t.Errorf("passwords %v", liz.Passwords)
	}
	noViolations(t, sb)
}

// An access token says for whom it is and what the application may do.
func TestMicrosoftTokenHasClaims(t *testing.T) {
	sb := start(t, sandbox.Options{})
	secret, err := os.ReadFile(sb.EntraSecretFile)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {sb.ClientID}, "scope": {sb.Microsoft.GraphURL + "/.default"},
		"client_secret": {strings.TrimSpace(string(secret))},
	}
	a := ask(t, plain(sb), "POST", sb.Microsoft.AuthorityURL+sb.TenantID+"/oauth2/v2.0/token", form.Encode(),
		"Content-Type", "application/x-www-form-urlencoded").must(t, 200)
	var granted struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(a.body), &granted); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(granted.Token, ".")
	if len(parts) != 3 {
		t.Fatalf("the token has %d parts", len(parts))
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Audience string   `json:"aud"`
		Roles    []string `json:"roles"`
	}
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.Audience != sb.Microsoft.GraphURL || !slices.Contains(claims.Roles, "User-PasswordProfile.ReadWrite.All") {
		t.Errorf("claims %+v", claims)
	}
}

// TestMicrosoftEchoesIDs: what support would ask for is in header and body.
func TestMicrosoftEchoesIDs(t *testing.T) {
	sb := start(t, sandbox.Options{})
	a := ask(t, entraClient(t, sb, ""), "GET", graphUser(sb, "x@example.com"), "", "client-request-id", "4711").must(t, 404, `"client-request-id":"4711"`)
	if a.header.Get("client-request-id") != "4711" || !strings.Contains(a.body, a.header.Get("request-id")) {
		t.Errorf("header %v, body %s", a.header, a.body)
	}
}

func TestMicrosoftGzip(t *testing.T) {
	sb := start(t, sandbox.Options{})
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(profile(good)))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	ask(t, entraClient(t, sb, ""), "PATCH", graphUser(sb, "liz@example.com"), b.String(), "Content-Encoding", "gzip").must(t, 204)
	if !sb.Verify(sandbox.Microsoft, "liz@example.com", good) {
		t.Error("the password is not set")
	}
	noViolations(t, sb)
}

func TestMicrosoftReads(t *testing.T) {
	sb := start(t, sandbox.Options{})
	add(t, sb, sandbox.User{Cloud: sandbox.Microsoft, Name: "o'hara#ext#@example.com", ID: "0b1c", ImmutableID: "3q2+7w==", Synced: true})
	add(t, sb, sandbox.User{Cloud: sandbox.Microsoft, Name: "fed@fed.example.com", Federated: true})
	c := entraClient(t, sb, "")
	graph := sb.Microsoft.GraphURL + "/v1.0/"
	for filter, want := range map[string]int{
		"onPremisesImmutableId eq '3q2+7w=='":             1,
		"userPrincipalName eq 'O''Hara#EXT#@example.com'": 1,
		"mail eq 'liz@example.com'":                       1,
		"id eq '0b1c'":                                    1,
		"id eq 'liz@example.com'":                         0,
		"onPremisesImmutableId eq 'x'":                    0,
	} {
		a := ask(t, c, "GET", graph+"users?$count=true&$top=5&$select=id,onPremisesSyncEnabled&$filter="+url.QueryEscape(filter), "").must(t, 200).json(t)
		if got := a["value"].([]any); len(got) != want || a["@odata.count"] != float64(want) {
			t.Errorf("%s: %v", filter, a)
		}
	}
	ask(t, c, "GET", graphUser(sb, "o'hara#ext#@example.com")+"?$select=onPremisesSyncEnabled", "").must(t, 200, `"onPremisesSyncEnabled":true`)
	ask(t, c, "GET", graphUser(sb, "liz@example.com"), "").must(t, 200, "displayName", "businessPhones", "$metadata#users/$entity")
	ask(t, c, "GET", graph+"users", "").must(t, 200, "liz@example.com", "fed@fed.example.com")
	ask(t, c, "GET", graph+"domains/Example.com", "").must(t, 200, `"authenticationType":"Managed"`, `"id":"example.com"`)
	ask(t, c, "GET", graph+"domains/fed.example.com?$select=authenticationType", "").must(t, 200, `{"authenticationType":"Federated"}`)
	ask(t, c, "GET", graph+"domains/elsewhere.example", "").must(t, 404, "Request_ResourceNotFound")
	ask(t, c, "GET", graph+"organization?$select=id,displayName", "").must(t, 200, sb.TenantID, `"displayName":"example"`)
	noViolations(t, sb)
	if err := sb.AddUser(sandbox.User{Cloud: sandbox.Microsoft, Name: "f@example.com", Federated: true}); err == nil {
		t.Error("the tenant's own domain is federated")
	}
}

func TestMicrosoftBearer(t *testing.T) {
	sb := start(t, sandbox.Options{})
	url := graphUser(sb, "liz@example.com")
	ask(t, plain(sb), "GET", url, "").must(t, 401, "InvalidAuthenticationToken")
	ask(t, plain(sb), "GET", url, "", "Authorization", "Bearer x").must(t, 401, "InvalidAuthenticationToken")
	// Google's token is no good here.
	g := googleClient(t, sb, sb.Google.Subject, userScope)
	ask(t, g, "GET", url, "").must(t, 401, "InvalidAuthenticationToken")
	if v := violations(sb); len(v) != 3 || !strings.Contains(v[2], "another cloud") {
		t.Errorf("violations %q", v)
	}
}

// TestMicrosoftCertificate signs in with the certificate, through Microsoft's
// own library.
func TestMicrosoftCertificate(t *testing.T) {
	sb := start(t, sandbox.Options{})
	text, err := os.ReadFile(sb.EntraCertificateFile)
	if err != nil {
		t.Fatal(err)
	}
	certificates, key, err := azidentity.ParseCertificates(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	credential, err := azidentity.NewClientCertificateCredential(sb.TenantID, sb.ClientID, certificates, key,
		&azidentity.ClientCertificateCredentialOptions{ClientOptions: azureOptions(sb), DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	c := &entra{plain(sb), credential, sb.Microsoft.GraphURL}
	ask(t, c, "PATCH", graphUser(sb, "liz@example.com"), profile(good)).must(t, 204)
	noViolations(t, sb)
}

func TestMicrosoftSecret(t *testing.T) {
	sb := start(t, sandbox.Options{})
	_, err := send(t, entraClient(t, sb, "wrong"), "GET", graphUser(sb, "liz@example.com"), "")
	if err == nil || !strings.Contains(err.Error(), "AADSTS7000215") {
		t.Errorf("error %v", err)
	}
	noViolations(t, sb)
}

// TestMicrosoftGrant shows for each rule of the token endpoint a request that
// breaks it. Two right ones come first.
func TestMicrosoftGrant(t *testing.T) {
	sb := start(t, sandbox.Options{})
	text, err := os.ReadFile(sb.EntraCertificateFile)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(text)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	ours := parsed.(*rsa.PrivateKey)
	certificate, _ := pem.Decode(rest)
	sum := sha256.Sum256(certificate.Bytes)
	print := base64.RawURLEncoding.EncodeToString(sum[:])
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := sb.Microsoft.AuthorityURL + sb.TenantID + "/oauth2/v2.0/token"
	now := time.Now().Unix()
	right := map[string]any{"iss": sb.ClientID, "sub": sb.ClientID, "aud": endpoint, "jti": "1", "nbf": now, "exp": now + 600}
	claims := func(name string, value any) map[string]any {
		m := maps.Clone(right)
		m[name] = value
		return m
	}
	assert := func(key *rsa.PrivateKey, algorithm string, claims any, print string) url.Values {
		return url.Values{
			"grant_type": {"client_credentials"}, "client_id": {sb.ClientID}, "scope": {sb.Microsoft.GraphURL + "/.default"},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {sign(t, key, algorithm, "", claims, "x5t#S256", print)},
		}
	}
	but := func(name string, values ...string) url.Values {
		form := assert(ours, "PS256", right, print)
		form[name] = values
		return form
	}
	for _, test := range []struct {
		name     string
		form     url.Values
		status   int
		answer   string
		violates bool
	}{
		{"PS256", assert(ours, "PS256", right, print), 200, "access_token", false},
		{"RS256", assert(ours, "RS256", claims("aud", []string{endpoint}), print+"="), 200, "access_token", false},
		{"public scope", but("scope", "https://graph.microsoft.com/.default openid profile offline_access"), 200, "access_token", false},
		{"key", assert(other, "PS256", right, print), 401, "AADSTS700027", false},
		{"thumbprint", assert(ours, "PS256", right, "x"), 401, "AADSTS700027", false},
		{"none", assert(nil, "none", right, print), 401, "AADSTS700027", false},
		{"issuer", assert(ours, "PS256", claims("iss", "x"), print), 401, "AADSTS700027", false},
		{"subject", assert(ours, "PS256", claims("sub", "x"), print), 401, "AADSTS700027", false},
		{"audience", assert(ours, "PS256", claims("aud", sb.Microsoft.AuthorityURL), print), 401, "AADSTS700027", false},
		{"two audiences", assert(ours, "PS256", claims("aud", []string{endpoint, "x"}), print), 401, "AADSTS700027", false},
		{"no jti", assert(ours, "PS256", claims("jti", ""), print), 401, "AADSTS700027", false},
		{"expired", assert(ours, "PS256", claims("exp", now-600), print), 401, "AADSTS700027", false},
		{"not yet", assert(ours, "PS256", claims("nbf", now+600), print), 401, "AADSTS700027", false},
		{"claims", assert(ours, "PS256", claims("exp", "never"), print), 401, "AADSTS700027", false},
		{"no JWS", but("client_assertion", "x"), 401, "AADSTS700027", false},
		{"no proof", but("client_assertion_type"), 401, "AADSTS7000218", true},
		{"client", but("client_id", "x"), 400, "AADSTS700016", false},
		{"grant", but("grant_type", "password"), 400, "unsupported_grant_type", true},
		{"no scope", but("scope", "openid"), 400, "AADSTS1002012", true},
		{"scope", but("scope", "User.ReadWrite.All"), 400, "AADSTS1002012", true},
		{"two scopes", but("scope", "https://graph.microsoft.com/.default https://vault.azure.net/.default"), 400, "AADSTS1002012", true},
		{"resource", but("scope", "https://vault.azure.net/.default"), 400, "AADSTS500011", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(violations(sb))
			ask(t, plain(sb), "POST", endpoint, test.form.Encode(), "Content-Type", "application/x-www-form-urlencoded").must(t, test.status, test.answer)
			if v := violations(sb)[before:]; (len(v) == 1) != test.violates || len(v) > 1 {
				t.Errorf("violations %q", v)
			}
		})
	}
	before := len(violations(sb))
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	ask(t, plain(sb), "POST", endpoint, "{}").must(t, 400, "invalid_request")
	ask(t, plain(sb), "POST", endpoint, "%", form...).must(t, 400, "invalid_request")
	ask(t, plain(sb), "GET", sb.Microsoft.AuthorityURL+"other.example/v2.0/.well-known/openid-configuration", "").must(t, 400, "AADSTS90002")
	ask(t, plain(sb), "PUT", sb.Microsoft.AuthorityURL+"example.com/v2.0/.well-known/openid-configuration", "{}").must(t, 400)
	if v := violations(sb); len(v) != before+4 {
		t.Errorf("violations %q", v[before:])
	}
	ask(t, plain(sb), "GET", sb.Microsoft.AuthorityURL+"example.com/v2.0/.well-known/openid-configuration", "").must(t, 200, "/example.com/oauth2/v2.0/token")
}
