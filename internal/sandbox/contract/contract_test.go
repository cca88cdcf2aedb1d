package contract

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGoogleIsCurrent compares the committed files with what the discovery
// document says in the version of Google's module that go.mod names.
func TestGoogleIsCurrent(t *testing.T) {
	mod, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`google\.golang\.org/api (v\S+)`).FindSubmatch(mod)
	if version == nil {
		t.Fatal("go.mod does not require google.golang.org/api")
	}
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(strings.TrimSpace(string(cache)), "google.golang.org", "api@"+string(version[1]), DiscoveryFile)
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run go mod download", err)
	}
	made, err := FromDiscovery(document)
	if err != nil {
		t.Fatal(err)
	}
	const again = "run go generate ./internal/sandbox/contract"
	if !bytes.Equal(made.Schema, googleUser) {
		t.Error("google-user.schema.json has drifted: " + again)
	}
	if !bytes.Equal(made.Routes, googleRoutes) {
		t.Error("google-routes.json has drifted: " + again)
	}
	source, err := os.ReadFile("google-SOURCE")
	if err != nil {
		t.Fatal(err)
	}
	for _, fact := range []string{string(version[1]), made.Revision, fmt.Sprintf("%x", sha256.Sum256(document))} {
		if !bytes.Contains(source, []byte(fact)) {
			t.Errorf("google-SOURCE lacks %s: %s", fact, again)
		}
	}
}

// TestMicrosoftIsAsGenerated: the CSDL is not here to compare with, but its
// SOURCE note knows the schema that was made of it.
func TestMicrosoftIsAsGenerated(t *testing.T) {
	source, err := os.ReadFile("microsoft-SOURCE")
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(microsoftUser)); !bytes.Contains(source, []byte(sum)) {
		t.Errorf("microsoft-user.schema.json (%s) was not made by the generator", sum)
	}
}

func TestFromCSDL(t *testing.T) {
	document, err := os.ReadFile("testdata/metadata.xml")
	if err != nil {
		t.Fatal(err)
	}
	made, err := FromCSDL(document)
	if err != nil {
		t.Fatal(err)
	}
	s := compile("sample", made.Schema)
	for body, want := range map[string]string{
		`{}`: "",
		`{"displayName":null,"deletedDateTime":"2026-01-01T00:00:00Z"}`:  "",
		`{"passwordProfile":{"password":"x"},"skills":["a"],"logins":7}`: "",
		`{"passwordProfile":null,"@odata.type":"#microsoft.graph.user"}`: "",
		`{"risk":"low","parent":{"parent":{"password":"x"}}}`:            "",
		`{"@odata.type":"#microsoft.graph.group"}`:                       "/@odata.type",
		`{"passwordprofile":{}}`:                                         "passwordprofile",
		`{"passwordProfile":{"password":7}}`:                             "/passwordProfile/password",
		`{"passwordProfile":{"forceChangePasswordNextLogin":false}}`:     "forceChangePasswordNextLogin",
		`{"skills":null}`:                      "/skills",
		`{"risk":"tiny"}`:                      "/risk",
		`{"logins":"7"}`:                       "/logins",
		`{"manager":{}}`:                       "manager",
		`{"elsewhere":true}`:                   "elsewhere",
		`{"parent":{"parent":{"secret":"x"}}}`: "secret",
	} {
		err := s.Check([]byte(body))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	if !s.Has("deletedDateTime") || s.Has("password") {
		t.Error("the schema does not know its properties")
	}
}

func TestGeneratorsRefuse(t *testing.T) {
	for _, document := range []string{"", "{}", `{"schemas":{"User":{}}}`, `{"schemas":7}`} {
		if _, err := FromDiscovery([]byte(document)); err == nil {
			t.Errorf("a discovery document %q was taken", document)
		}
	}
	for _, document := range []string{"", "<x/>",
		`<Edmx><DataServices><Schema Namespace="microsoft.graph"><EntityType Name="user"><Property Name="a" Type="graph.gone"/></EntityType></Schema></DataServices></Edmx>`} {
		if _, err := FromCSDL([]byte(document)); err == nil {
			t.Errorf("a CSDL %q was taken", document)
		}
	}
}

func TestCheck(t *testing.T) {
	const secret = "Correct-Horse-7"
	for _, c := range []struct {
		schema     *Schema
		body, want string
	}{
		{GoogleUser(), `{"password":"` + secret + `","changePasswordAtNextLogin":false}`, ""},
		{GoogleUser(), `{"password":"x","hashFunction":"crypt","name":{"givenName":"Liz"},"emails":[{}]}`, ""},
		{GoogleUser(), `{"suspended":null}`, ""},
		{GoogleUser(), `{"passwd":"` + secret + `"}`, "passwd"},
		{GoogleUser(), `{"Password":"` + secret + `"}`, "Password"},
		{GoogleUser(), `{"password":null}`, "/password"},
		{GoogleUser(), `{"password":["` + secret + `"]}`, "/password"},
		{GoogleUser(), `{"hashFunction":"` + secret + `"}`, "/hashFunction"},
		{GoogleUser(), `{"hashFunction":"CRYPT"}`, "/hashFunction"},
		{GoogleUser(), `{"isAdmin":true}`, "isAdmin"},
		{GoogleUser(), `{"changePasswordAtNextLogin":"false"}`, "/changePasswordAtNextLogin"},
		{GoogleUser(), `{"name":{"given":"Liz"}}`, "given"},
		{GoogleUser(), `{"password":"a","password":"` + secret + `"}`, "twice"},
		{GoogleUser(), `{"name":{"givenName":"a","givenName":"b"}}`, "twice"},
		{GoogleUser(), "{\"password\":\"\xff" + secret + "\"}", "UTF-8"},
		{GoogleUser(), ``, "empty"},
		{GoogleUser(), `{"password":"` + secret, "not JSON"},
		{GoogleUser(), `{"password":"a"}{}`, "not one JSON value"},
		{GoogleUser(), `["` + secret + `"]`, "/"},
		{GoogleUser(), `"` + secret + `"`, "/"},
		{MicrosoftUser(), `{"passwordProfile":{"password":"` + secret + `","forceChangePasswordNextSignIn":false}}`, ""},
		{MicrosoftUser(), `{"@odata.type":"#microsoft.graph.user","passwordProfile":{"forceChangePasswordNextSignInWithMfa":null}}`, ""},
		{MicrosoftUser(), `{"password":"` + secret + `"}`, "password"},
		{MicrosoftUser(), `{"passwordProfile":{"forceChangePasswordNextLogin":false}}`, "forceChangePasswordNextLogin"},
		{MicrosoftUser(), `{"passwordProfile":"` + secret + `"}`, "/passwordProfile"},
	} {
		err := c.schema.Check([]byte(c.body))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.body, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error holds the value: %v", err)
		}
	}
}
