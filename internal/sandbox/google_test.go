package sandbox_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// TestGoogleJudges shows for each rule a request that breaks it.
func TestGoogleJudges(t *testing.T) {
	sb := start(t, sandbox.Options{})
	c := googleClient(t, sb, sb.Google.Subject, userScope)
	liz := googleUser(sb, "liz@example.com")
	users := sb.Google.URL + "admin/directory/v1/users"
	set := `{"password":"` + good + `"}`
	for _, test := range []struct {
		method, url, body string
		header            []string
		status            int
		answer            string // what the client is told
		violation         string // what the judge notes
	}{
		{"PUT", liz + "?force=true", set, nil, 400, "badRequest", `"force"`},
		{"PUT", liz + "?prettyPrint=no", set, nil, 400, "badRequest", "prettyPrint is not a boolean"},
		{"PUT", liz + "?alt=xml", set, nil, 400, "badRequest", "alt is not one of"},
		{"PUT", liz + "?alt=json&alt=json", set, nil, 400, "badRequest", "twice"},
		{"PUT", liz + "?access_token=x", set, nil, 400, "badRequest", "in the URL"},
		{"PUT", liz + "?a;b", set, nil, 400, "badRequest", "query cannot be parsed"},
		{"PUT", liz + "?projection=full", set, nil, 400, "badRequest", `"projection"`},
		{"PUT", liz, set, []string{"Content-Type", "text/plain"}, 400, "badRequest", "Content-Type"},
		{"PUT", liz, set, []string{"Content-Type", "application/json; charset=latin1"}, 400, "badRequest", "Content-Type"},
		{"PUT", liz, `{"passwd":"` + good + `"}`, nil, 400, "badRequest", "passwd"},
		{"PUT", liz, `{"password":7}`, nil, 400, "badRequest", "/password"},
		{"PUT", liz, `{"password":"` + good, nil, 400, "badRequest", "not JSON"},
		{"PUT", liz, `{"hashFunction":"crypt"}`, nil, 400, "badRequest", "without a password"},
		{"PUT", liz, `{"hashFunction":"crypt","password":"` + good + `"}`, nil, 400, "Invalid Password", "crypt"},
		{"PUT", liz, `{"password":"replaced \ufffd here"}`, nil, 400, "Invalid Password", "U+FFFD"},
		{"PUT", liz, strings.Repeat(" ", 1<<20) + set, nil, 400, "badRequest", "cannot be read"},
		{"POST", liz, set, nil, 404, "notFound", "no such route"},
		{"DELETE", liz, "", nil, 404, "notFound", "no such route"},
		{"GET", liz + "/aliases", "", nil, 404, "notFound", "no such route"},
		{"GET", users + "/", "", nil, 404, "notFound", "no such route"},
		{"PUT", users, set, nil, 404, "notFound", "no such route"},
		{"GET", sb.Google.URL, "", nil, 404, "notFound", "no such route"},
		{"GET", liz, set, nil, 400, "badRequest", "a GET has a body"},
		{"GET", liz + "?fields=id,", "", nil, 400, "Invalid field selection", "cannot be parsed"},
		{"GET", liz + "?fields=id,mail", "", nil, 400, "Invalid field selection mail", "names mail"},
		{"GET", users, "", nil, 400, "Bad Request", "either customer or domain"},
		{"GET", users + "?customer=my_customer&maxResults=501", "", nil, 400, "badRequest", "maxResults"},
		{"GET", users + "?customer=my_customer&fields=users(mail)", "", nil, 400, "Invalid field selection mail", "names mail"},
		{"GET", users + "?customer=my_customer&fields=user", "", nil, 400, "Invalid field selection user", "names user"},
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
	if u, _ := sb.State().User(sandbox.Google, "liz@example.com"); len(u.Passwords) != 0 {
		t.Errorf("a refused request set a password")
	}
}

// TestGoogleRefuses shows what Google refuses although the request is right.
func TestGoogleRefuses(t *testing.T) {
	sb := start(t, sandbox.Options{})
	add(t, sb, sandbox.User{Cloud: sandbox.Google, Name: "boss@example.com", Admin: true})
	add(t, sb, sandbox.User{Cloud: sandbox.Google, Name: "gone@example.com", Suspended: true})
	c := googleClient(t, sb, sb.Google.Subject, userScope)
	set := `{"password":"` + good + `"}`
	put := func(user, body string) answer { return ask(t, c, "PUT", googleUser(sb, user), body) }

	put("boss@example.com", set).must(t, 403, `"reason":"forbidden"`, "Not Authorized to access this resource/api")
	put("nobody@example.com", set).must(t, 404, `"reason":"notFound"`, "Resource Not Found: userKey")
	put("117", set).must(t, 404, `"reason":"notFound"`)
	put("liz@elsewhere.example", set).must(t, 403, `"reason":"forbidden"`)
	put("liz@example.com", `{"password":"1234567"}`).must(t, 400, `"reason":"invalid"`, "Invalid Password")
	put("liz@example.com", quoteFields("password", strings.Repeat("ä", 101))).must(t, 400, "Invalid Password")
	put("liz@example.com", quoteFields("password", strings.Repeat("ä", 100))).must(t, 200)
	put("liz@example.com", `{"suspended":true}`).must(t, 403, `"reason":"forbidden"`)
	put("liz@example.com", `{"changePasswordAtNextLogin":true}`).must(t, 200)

	super := googleClient(t, sb, "boss@example.com", userScope)
	ask(t, super, "PUT", googleUser(sb, "boss@example.com"), set).must(t, 200)
	nobody := googleClient(t, sb, "liz@example.com", userScope)
	ask(t, nobody, "GET", googleUser(sb, "liz@example.com"), "").must(t, 403, `"reason":"forbidden"`)
	itself := googleClient(t, sb, "", userScope)
	ask(t, itself, "GET", googleUser(sb, "liz@example.com"), "").must(t, 403, `"reason":"forbidden"`)
	noViolations(t, sb)
	for _, subject := range []string{"stranger@example.com", "gone@example.com"} {
		if _, err := send(t, googleClient(t, sb, subject, userScope), "GET", googleUser(sb, "liz@example.com"), ""); err == nil || !strings.Contains(err.Error(), "Invalid email or User ID") {
			t.Errorf("%s: %v", subject, err)
		}
	}
	noViolations(t, sb)
}

// What an update does not name stays as it was.
func TestGooglePatches(t *testing.T) {
	sb := start(t, sandbox.Options{})
	c := googleClient(t, sb, sb.Google.Subject, userScope)
	for i, test := range []struct {
		more string // beside the password
		want bool   // must it be changed at the next login
	}{
		{"", false}, {`,"changePasswordAtNextLogin":true`, true}, {"", true}, {`,"changePasswordAtNextLogin":false`, false}, {"", false},
	} {
		ask(t, c, "PUT", googleUser(sb, "liz@example.com"), `{"password":"`+good+`"`+test.more+`}`).must(t, 200)
		liz, _ := sb.State().User(sandbox.Google, "liz@example.com")
		if got, _ := liz.Current(); len(liz.Passwords) != i+1 || got.MustChange != test.want {
			t.Errorf("after update %d: %d passwords, the last must be changed: %v", i, len(liz.Passwords), got.MustChange)
		}
	}
	noViolations(t, sb)
}

func quoteFields(name, value string) string { return `{"` + name + `":` + quote(value) + `}` }

func TestGoogleServiceAccountAdmin(t *testing.T) {
	sb := start(t, sandbox.Options{ServiceAccountAdmin: true})
	c := googleClient(t, sb, "", userScope)
	ask(t, c, "PUT", googleUser(sb, "liz@example.com"), `{"password":"`+good+`"}`).must(t, 200)
	noViolations(t, sb)
}

func TestGoogleScope(t *testing.T) {
	sb := start(t, sandbox.Options{})
	c := googleClient(t, sb, sb.Google.Subject, readonlyScope)
	ask(t, c, "GET", googleUser(sb, "liz@example.com"), "").must(t, 200)
	noViolations(t, sb)
	ask(t, c, "PUT", googleUser(sb, "liz@example.com"), `{"password":"`+good+`"}`).must(t, 403, "insufficientPermissions")
	if v := violations(sb); len(v) != 1 || !strings.Contains(v[0], "scope") {
		t.Errorf("violations %q", v)
	}
}

func TestGoogleBearer(t *testing.T) {
	sb := start(t, sandbox.Options{})
	c := plain(sb)
	for _, header := range []string{"", "Bearer", "Bearer x", "Basic eDp4", "Bearer sandbox.e30.e30", "Bearer sandbox.!.!"} {
		a := ask(t, c, "GET", googleUser(sb, "liz@example.com"), "", "Authorization", header)
		a.must(t, 401, `"reason":"authError"`, "Invalid Credentials")
		if a.header.Get("Www-Authenticate") == "" {
			t.Error("no WWW-Authenticate")
		}
	}
	if v := violations(sb); len(v) != 6 {
		t.Errorf("violations %q", v)
	}
}

func TestGoogleList(t *testing.T) {
	sb := start(t, sandbox.Options{})
	for i := range 5 {
		add(t, sb, sandbox.User{Cloud: sandbox.Google, Name: fmt.Sprintf("u%d@other.example", i)})
	}
	c := googleClient(t, sb, sb.Google.Subject, readonlyScope)
	list := sb.Google.URL + "admin/directory/v1/users?orderBy=email&fields=nextPageToken,users(id,primaryEmail,aliases)"
	var found []string
	for page, pages := "", 0; pages == 0 || page != ""; pages++ {
		a := ask(t, c, "GET", list+"&customer=my_customer&maxResults=3&pageToken="+url.QueryEscape(page), "").must(t, 200).json(t)
		page, _ = a["nextPageToken"].(string)
		for _, u := range a["users"].([]any) {
			found = append(found, u.(map[string]any)["primaryEmail"].(string))
		}
		if pages > 5 {
			t.Fatal("the list does not end")
		}
	}
	want := "liz@example.com pwsync-admin@example.com u0@other.example u1@other.example u2@other.example u3@other.example u4@other.example"
	if got := strings.Join(found, " "); got != want {
		t.Errorf("found %s", got)
	}
	ask(t, c, "GET", list+"&domain=other.example&sortOrder=DESCENDING&maxResults=1", "").must(t, 200, "u4@other.example")
	ask(t, c, "GET", list+"&domain=elsewhere.example", "").must(t, 404, "Domain not found.")
	ask(t, c, "GET", list+"&customer=C1", "").must(t, 404, "Domain not found.")
	ask(t, c, "GET", list+"&customer=my_customer&pageToken=x", "").must(t, 400, "invalid")
	ask(t, c, "GET", list+"&customer=my_customer&query=email:liz*", "").must(t, 501)
	noViolations(t, sb)
}

// TestGoogleGrant shows for each rule of the token endpoint an assertion that
// breaks it. A right one comes first.
func TestGoogleGrant(t *testing.T) {
	sb := start(t, sandbox.Options{})
	text, err := os.ReadFile(sb.GoogleCredentialsFile)
	if err != nil {
		t.Fatal(err)
	}
	var credentials map[string]string
	if err := json.Unmarshal(text, &credentials); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(credentials["private_key"]))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	ours := parsed.(*rsa.PrivateKey)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	right := map[string]any{
		"iss": credentials["client_email"], "sub": sb.Google.Subject, "scope": userScope,
		"aud": sb.Google.TokenURL, "iat": now, "exp": now + 3600,
	}
	with := func(name string, value any) map[string]any {
		m := maps.Clone(right)
		m[name] = value
		return m
	}
	id := credentials["private_key_id"]
	for _, test := range []struct {
		name      string
		assertion string
		status    int
		answer    string
		violates  bool
	}{
		{"right", sign(t, ours, "RS256", id, right), 200, "access_token", false},
		{"key", sign(t, other, "RS256", id, right), 400, "Invalid JWT Signature.", true},
		{"key id", sign(t, ours, "RS256", "x", right), 400, "Invalid JWT Signature.", true},
		{"algorithm", sign(t, ours, "PS256", id, right), 400, "Invalid JWT Signature.", true},
		{"none", sign(t, nil, "none", id, right), 400, "Invalid JWT Signature.", true},
		{"issuer", sign(t, ours, "RS256", id, with("iss", "x@y")), 400, "account not found", true},
		{"audience", sign(t, ours, "RS256", id, with("aud", "https://oauth2.googleapis.com/token")), 400, "Failed audience check", true},
		{"scope", sign(t, ours, "RS256", id, with("scope", "")), 400, "invalid_scope", true},
		{"foreign scope", sign(t, ours, "RS256", id, with("scope", userScope+" https://mail.google.com/")), 401, "unauthorized_client", true},
		{"too long", sign(t, ours, "RS256", id, with("exp", now+3601)), 400, "short-lived token", false},
		{"expired", sign(t, ours, "RS256", id, with("exp", now-1)), 400, "short-lived token", false},
		{"future", sign(t, ours, "RS256", id, with("iat", now+60)), 400, "short-lived token", false},
		{"principal", sign(t, ours, "RS256", id, with("prn", "x@example.com")), 400, "prn", true},
		{"subject", sign(t, ours, "RS256", id, with("sub", "x@example.com")), 400, "Invalid email or User ID", false},
		{"claims", sign(t, ours, "RS256", id, with("iat", "now")), 400, "invalid_grant", true},
		{"two parts", "e30.e30", 400, "invalid_grant", true},
		{"header", "!.e30.e30", 400, "invalid_grant", true},
		{"header not JSON", "eA.e30.e30", 400, "invalid_grant", true},
		{"payload", "e30.!.e30", 400, "invalid_grant", true},
		{"signature", "e30.e30.!", 400, "invalid_grant", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(violations(sb))
			form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {test.assertion}}
			ask(t, plain(sb), "POST", sb.Google.TokenURL, form.Encode(), "Content-Type", "application/x-www-form-urlencoded").must(t, test.status, test.answer)
			if v := violations(sb)[before:]; (len(v) == 1) != test.violates || len(v) > 1 {
				t.Errorf("violations %q", v)
			}
		})
	}
	before := len(violations(sb))
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	ask(t, plain(sb), "POST", sb.Google.TokenURL, "{}").must(t, 400, "invalid_request")
	ask(t, plain(sb), "GET", sb.Google.TokenURL, "").must(t, 400, "invalid_request")
	ask(t, plain(sb), "POST", sb.Google.TokenURL, "%", form...).must(t, 400, "invalid_request")
	ask(t, plain(sb), "POST", sb.Google.TokenURL, "grant_type=password", form...).must(t, 400, "unsupported_grant_type")
	if v := violations(sb); len(v) != before+4 {
		t.Errorf("violations %q", v[before:])
	}
}

// sign makes a JWS without the library under test.
func sign(t *testing.T, key *rsa.PrivateKey, algorithm, id string, claims any, header ...string) string {
	t.Helper()
	head := map[string]string{"alg": algorithm, "typ": "JWT", "kid": id}
	for i := 0; i < len(header); i += 2 {
		head[header[i]] = header[i+1]
	}
	var parts []string
	for _, v := range []any{head, claims} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(text))
	}
	signed := strings.Join(parts, ".")
	digest := sha256.Sum256([]byte(signed))
	var signature []byte
	var err error
	switch algorithm {
	case "RS256":
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	case "PS256":
		signature, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}
