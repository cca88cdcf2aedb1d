package sandbox_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// setter sets liz's password at one cloud, as often as wanted.
type setter struct {
	t     *testing.T
	sb    *sandbox.Sandbox
	cloud sandbox.Cloud
	c     doer
}

func setters(t *testing.T, sb *sandbox.Sandbox) []setter {
	return []setter{
		{t, sb, sandbox.Google, googleClient(t, sb, sb.Google.Subject, userScope)},
		{t, sb, sandbox.Microsoft, entraClient(t, sb, "")},
	}
}

func (s setter) url(user string) string {
	if s.cloud == sandbox.Google {
		return googleUser(s.sb, user)
	}
	return graphUser(s.sb, user)
}

func (s setter) set(user, password string) (answer, error) {
	s.t.Helper()
	if s.cloud == sandbox.Google {
		return send(s.t, s.c, "PUT", s.url(user), quoteFields("password", password))
	}
	return send(s.t, s.c, "PATCH", s.url(user), profile(password))
}

func (s setter) misbehave(f sandbox.Fault) {
	s.t.Helper()
	if err := s.sb.Misbehave(s.cloud, f); err != nil {
		s.t.Fatal(err)
	}
}

// works sets a password and fails the test if that does not work.
func (s setter) works(user, password string) {
	s.t.Helper()
	a, err := s.set(user, password)
	if err != nil {
		s.t.Fatal(err)
	}
	if a.status != map[sandbox.Cloud]int{sandbox.Google: 200, sandbox.Microsoft: 204}[s.cloud] || !s.sb.Verify(s.cloud, user, password) {
		s.t.Errorf("%s: setting a password: %d %s", s.cloud, a.status, a.body)
	}
}

// TestFaults orders each fault that is told by its answer.
func TestFaults(t *testing.T) {
	sb := start(t, sandbox.Options{})
	type words struct {
		status  int
		words   string
		applied bool
	}
	both := map[string]words{
		"500":         {500, "", false},
		"502":         {502, "<!DOCTYPE html>", false},
		"503":         {503, "", false},
		"504":         {504, "", false},
		"504-applied": {504, "", true},
		"echo":        {400, good, false},
	}
	own := map[sandbox.Cloud]map[string]words{
		sandbox.Google: {
			"401":                     {401, "authError", false},
			"404":                     {404, "Resource Not Found: userKey", false},
			"409":                     {409, "conflict", false},
			"412":                     {412, "User creation is not complete.", false},
			"429":                     {429, "rateLimitExceeded", false},
			"userRateLimitExceeded":   {403, `"reason":"userRateLimitExceeded"`, false},
			"quotaExceeded":           {403, `"reason":"quotaExceeded"`, false},
			"forbidden":               {403, `"reason":"forbidden"`, false},
			"domainCannotUseApis":     {403, `"reason":"domainCannotUseApis"`, false},
			"accessNotConfigured":     {403, `"reason":"accessNotConfigured"`, false},
			"insufficientPermissions": {403, `"reason":"insufficientPermissions"`, false},
		},
		sandbox.Microsoft: {
			"401":                         {401, "InvalidAuthenticationToken", false},
			"404":                         {404, "Request_ResourceNotFound", false},
			"409":                         {409, "Directory_ConcurrencyViolation", false},
			"412":                         {412, "PreconditionFailed", false},
			"429":                         {429, `"code":"TooManyRequests"`, false},
			"Authorization_RequestDenied": {403, "Insufficient privileges", false},
		},
	}
	tested := map[sandbox.Cloud]map[string]bool{}
	for _, s := range setters(t, sb) {
		s.works("liz@example.com", "Before-the-storm-1")
		tested[s.cloud] = map[string]bool{}
		for _, faults := range []map[string]words{both, own[s.cloud]} {
			for kind, want := range faults {
				tested[s.cloud][kind] = true
				s.misbehave(sandbox.Fault{Kind: kind, Times: 1, RetryAfter: 1500 * time.Millisecond})
				a, err := s.set("liz@example.com", good)
				if err != nil {
					t.Fatalf("%s %s: %v", s.cloud, kind, err)
				}
				if a.status != want.status || !strings.Contains(a.body, want.words) {
					t.Errorf("%s %s: %d %s", s.cloud, kind, a.status, a.body)
				}
				if a.header.Get("Retry-After") != "2" {
					t.Errorf("%s %s: Retry-After is %q", s.cloud, kind, a.header.Get("Retry-After"))
				}
				if sb.Verify(s.cloud, "liz@example.com", good) != want.applied {
					t.Errorf("%s %s: applied: %t", s.cloud, kind, !want.applied)
				}
				s.works("liz@example.com", "Before-the-storm-1") // the fault is over
			}
		}
	}
	noViolations(t, sb)

	elsewhere := map[string]bool{ // faults that the tests below order
		"redirect": true, "slow": true, "cut": true, "cut-applied": true, "expired-token": true, "short-token": true,
		"invalid-grant": true, "invalid-client": true, "unauthorized-client": true, "claims-challenge": true,
		"expired-secret": true, "unknown-certificate": true,
	}
	for cloud, names := range tested {
		kinds, err := sandbox.Kinds(cloud)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range kinds {
			if !names[k.Name] && !elsewhere[k.Name] {
				t.Errorf("no test orders %s %s", cloud, k.Name)
			}
		}
	}
}

func TestFaultCut(t *testing.T) {
	sb := start(t, sandbox.Options{})
	for _, s := range setters(t, sb) {
		s.works("liz@example.com", "Before-the-storm-1")
		for kind, applied := range map[string]bool{"cut": false, "cut-applied": true} {
			s.misbehave(sandbox.Fault{Kind: kind, Times: 1})
			if a, err := s.set("liz@example.com", good); err == nil {
				t.Errorf("%s %s: answered %d", s.cloud, kind, a.status)
			}
			if sb.Verify(s.cloud, "liz@example.com", good) != applied {
				t.Errorf("%s %s: applied: %t", s.cloud, kind, !applied)
			}
			s.works("liz@example.com", "Before-the-storm-1")
		}
	}
}

func TestFaultSlow(t *testing.T) {
	sb := start(t, sandbox.Options{})
	for _, s := range setters(t, sb) {
		s.works("liz@example.com", "Before-the-storm-1") // has a token
		const delay = 30 * time.Millisecond
		s.misbehave(sandbox.Fault{Kind: "slow", Times: 1, Delay: delay})
		before := time.Now()
		s.works("liz@example.com", good)
		if took := time.Since(before); took < delay {
			t.Errorf("%s: took %v", s.cloud, took)
		}
		s.misbehave(sandbox.Fault{Kind: "503", Times: 1, Delay: delay})
		before = time.Now()
		if a, err := s.set("liz@example.com", good); err != nil || a.status != 503 || time.Since(before) < delay {
			t.Errorf("%s: %d %v after %v", s.cloud, a.status, err, time.Since(before))
		}

		// Who gives up while the cloud waits has set nothing.
		s.misbehave(sandbox.Fault{Kind: "slow", Times: 1, Delay: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		request, err := http.NewRequestWithContext(ctx, "GET", s.url("liz@example.com"), nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { _, err := s.c.Do(request); done <- err }()
		if err := sb.Wait(t.Context(), func(s sandbox.State) bool { return len(s.Faults) == 0 }); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; err == nil {
			t.Errorf("%s: answered", s.cloud)
		}
		s.works("liz@example.com", good)
	}
}

// TestFaultRedirect shows that the trap sees what a careless client gives away.
func TestFaultRedirect(t *testing.T) {
	sb := start(t, sandbox.Options{})
	for _, s := range setters(t, sb) {
		s.misbehave(sandbox.Fault{Kind: "redirect"})
		a, err := s.set("liz@example.com", good)
		if err != nil || a.status != 307 {
			t.Fatalf("%s: %d, %v", s.cloud, a.status, err)
		}
		there, err := url.Parse(a.header.Get("Location"))
		if here, _ := url.Parse(s.url("x")); err != nil || there.Hostname() == here.Hostname() {
			t.Errorf("%s: redirected to %s", s.cloud, there)
		}
		if trapped := sb.State().Trapped; len(trapped) != 0 {
			t.Errorf("%s: a careful client was trapped: %v", s.cloud, trapped)
		}
	}
	if sb.Verify(sandbox.Google, "liz@example.com", good) {
		t.Error("a redirected request was applied")
	}
	careless := googleClient(t, sb, sb.Google.Subject, userScope)
	careless.CheckRedirect = nil
	ask(t, careless, "PUT", googleUser(sb, "liz@example.com"), quoteFields("password", good)).must(t, 200)
	trapped := sb.State().Trapped
	if len(trapped) != 1 || !trapped[0].Authorization || trapped[0].BodyBytes == 0 || !trapped[0].Secret() {
		t.Errorf("trapped %v", trapped)
	}
	if err := sb.Behave(); err != nil {
		t.Fatal(err)
	}
	setters(t, sb)[0].works("liz@example.com", good)
}

func TestFaultTokens(t *testing.T) {
	sb := start(t, sandbox.Options{})
	for i, s := range setters(t, sb) {
		s.works("liz@example.com", good)
		s.misbehave(sandbox.Fault{Kind: "expired-token", Times: 1})
		for range 2 { // and stays expired
			if a, err := s.set("liz@example.com", good); err != nil || a.status != 401 {
				t.Errorf("%s: %d, %v", s.cloud, a.status, err)
			}
		}
		if s.cloud == sandbox.Microsoft {
			s = setters(t, sb)[i] // with a new token
			s.misbehave(sandbox.Fault{Kind: "claims-challenge", Times: 1})
			a, err := s.set("liz@example.com", good)
			if err != nil || a.status != 401 || !strings.Contains(a.header.Get("Www-Authenticate"), "insufficient_claims") {
				t.Errorf("challenge: %d %v, %v", a.status, a.header, err)
			}
			if a, err := s.set("liz@example.com", good); err != nil || a.status != 401 {
				t.Errorf("a challenged token is taken: %d, %v", a.status, err)
			}
		}
		setters(t, sb)[i].works("liz@example.com", good)
		s = setters(t, sb)[i]
		s.misbehave(sandbox.Fault{Kind: "short-token", Times: 1, Delay: time.Nanosecond})
		if a, err := s.set("liz@example.com", good); err != nil || a.status != 401 {
			t.Errorf("%s: a token that lived for a nanosecond: %d, %v", s.cloud, a.status, err)
		}
	}
	noViolations(t, sb)

	if err := sb.Misbehave(sandbox.Microsoft, sandbox.Fault{Kind: "short-token"}); err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(sb.EntraSecretFile)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {sb.ClientID}, "client_secret": {strings.TrimSpace(string(secret))}, "scope": {sb.Microsoft.GraphURL + "/.default"}}
	ask(t, plain(sb), "POST", sb.Microsoft.AuthorityURL+sb.TenantID+"/oauth2/v2.0/token", form.Encode(), "Content-Type", "application/x-www-form-urlencoded").must(t, 200, `"expires_in":5`)
}

func TestFaultTokenEndpoint(t *testing.T) {
	sb := start(t, sandbox.Options{})
	for cloud, kinds := range map[sandbox.Cloud]map[string]string{
		sandbox.Google: {
			"invalid-grant": "invalid_grant", "invalid-client": "invalid_client", "unauthorized-client": "unauthorized_client",
			"401": "invalid_client", "429": "rate_limit_exceeded", "500": "internal_failure", "503": "temporarily_unavailable",
			"504": "Gateway Timeout", "502": "Error 502", "redirect": "307", "echo": "assertion=", "cut": "",
		},
		sandbox.Microsoft: {
			"invalid-grant": "AADSTS53003", "invalid-client": "AADSTS7000215", "expired-secret": "AADSTS7000222",
			"unknown-certificate": "AADSTS700027", "401": "AADSTS7000215", "429": "AADSTS90055", "500": "AADSTS90020",
			"503": "AADSTS90033", "504": "504", "502": "Error 502", "redirect": "307", "echo": "client_secret=", "cut": "",
		},
	} {
		for kind, words := range kinds {
			for _, s := range setters(t, sb) {
				if s.cloud != cloud {
					continue
				}
				s.misbehave(sandbox.Fault{Kind: kind, On: "token"})
				if a, err := s.set("liz@example.com", good); err == nil || !strings.Contains(err.Error(), words) {
					t.Errorf("%s %s: %d, %v", cloud, kind, a.status, err)
				}
				if err := sb.Behave(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	noViolations(t, sb)
}

// TestFaultLimits: a fault strikes whom, where and how often it was told to.
func TestFaultLimits(t *testing.T) {
	for i := range 2 { // clouds
		sb := start(t, sandbox.Options{})
		add(t, sb, sandbox.User{Name: "bob@example.com"})
		s := setters(t, sb)[i]
		status := func(user string) int {
			t.Helper()
			a, err := s.set(user, good)
			if err != nil {
				t.Fatal(err)
			}
			return a.status
		}
		s.misbehave(sandbox.Fault{Kind: "503", User: "Elizabeth@example.com", Times: 2})
		s.works("bob@example.com", good)
		if status("liz@example.com") != 503 || status("elizabeth@example.com") != 503 {
			t.Errorf("%s: liz was spared", s.cloud)
		}
		s.works("liz@example.com", good)

		s.misbehave(sandbox.Fault{Kind: "503", User: "nobody@example.com"})
		if status("nobody@example.com") != 503 {
			t.Errorf("%s: an unknown user was spared", s.cloud)
		}
		s.works("liz@example.com", good)

		s.misbehave(sandbox.Fault{Kind: "500", On: "read"})
		s.works("liz@example.com", good)
		ask(t, s.c, "GET", s.url("liz@example.com"), "").must(t, 500)
		s.misbehave(sandbox.Fault{Kind: "503", On: "write"})
		ask(t, s.c, "GET", s.url("liz@example.com"), "").must(t, 500)
		if status("liz@example.com") != 503 {
			t.Errorf("%s: writes were spared", s.cloud)
		}
		if err := sb.Behave(); err != nil {
			t.Fatal(err)
		}
		s.works("liz@example.com", good)
		ask(t, s.c, "GET", s.url("liz@example.com"), "").must(t, 200)
		noViolations(t, sb)

		// What is malformed is judged before a fault strikes, and uses none up.
		s.misbehave(sandbox.Fault{Kind: "503", Times: 1})
		if a := ask(t, s.c, "GET", s.url("liz@example.com")+"?x=y", ""); a.status != 400 {
			t.Errorf("%s: %d", s.cloud, a.status)
		}
		if status("liz@example.com") != 503 {
			t.Errorf("%s: the fault was used up", s.cloud)
		}
		if len(violations(sb)) != 1 {
			t.Errorf("%s: violations %q", s.cloud, violations(sb))
		}
	}
}

func TestFaultRefused(t *testing.T) {
	sb := start(t, sandbox.Options{})
	for _, test := range []struct {
		cloud sandbox.Cloud
		fault sandbox.Fault
		want  string
	}{
		{"amazon", sandbox.Fault{Kind: "503"}, "no cloud"},
		{sandbox.Google, sandbox.Fault{Kind: "Authorization_RequestDenied"}, "google has no fault"},
		{sandbox.Microsoft, sandbox.Fault{Kind: "quotaExceeded"}, "microsoft has no fault"},
		{sandbox.Google, sandbox.Fault{Kind: "503", On: "update"}, "token, read and write"},
		{sandbox.Google, sandbox.Fault{Kind: "503", Times: -1}, "negative"},
		{sandbox.Google, sandbox.Fault{Kind: "slow"}, "needs a delay"},
	} {
		if err := sb.Misbehave(test.cloud, test.fault); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v", test.fault, err)
		}
	}
	if f := sb.State().Faults; len(f) != 0 {
		t.Errorf("faults %v", f)
	}
}

// TestRestart: what a client was given is good after a restart.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	sb, err := sandbox.Start(dir, sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	add(t, sb, sandbox.User{Name: "liz@example.com"})
	old := setters(t, sb)
	for _, s := range old {
		s.works("liz@example.com", good)
		s.misbehave(sandbox.Fault{Kind: "503", Times: 1})
	}
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}

	again, err := sandbox.Start(dir, sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, s := range old {
		s.sb = again
		if !again.Verify(s.cloud, "liz@example.com", good) {
			t.Errorf("%s has forgotten the password", s.cloud)
		}
		if a, err := s.set("liz@example.com", good); err != nil || a.status != 503 {
			t.Errorf("%s: %d, %v", s.cloud, a.status, err)
		}
		s.works("liz@example.com", "After-the-storm-1")
	}
	if r := again.State().Requests; r["google token"] != 0 || r["microsoft token"] != 0 {
		t.Errorf("new tokens were needed: %v", r)
	}
	noViolations(t, again)
}

// TestControl does over the socket what the other tests do in process.
func TestControl(t *testing.T) {
	sb := start(t, sandbox.Options{})
	socket := t.TempDir() + "/control.sock"
	if err := os.WriteFile(socket, nil, 0o600); err != nil { // left by an earlier run
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sb.Control(ctx, socket) }()
	c := sandbox.NewClient(socket)
	for { // until it listens
		if _, err := c.State(ctx); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info, err)
	}

	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.AddUser(ctx, sandbox.User{Name: "bob@example.com", Cloud: sandbox.Google}))
	must(c.Misbehave(ctx, sandbox.Google, sandbox.Fault{Kind: "503", Times: 1, Delay: time.Millisecond}))
	s, err := c.State(ctx)
	must(err)
	want, got := sb.State(), s
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if string(a) != string(b) || len(s.Faults) != 1 {
		t.Errorf("state over the socket\n%s\nin process\n%s", b, a)
	}
	must(c.Behave(ctx))
	if held, err := c.Verify(ctx, sandbox.Google, "bob@example.com", good, 0); held || err != nil {
		t.Errorf("held %t, %v", held, err)
	}
	if held, err := c.Verify(ctx, sandbox.Google, "bob@example.com", good, time.Millisecond); held || err != nil {
		t.Errorf("held %t, %v", held, err)
	}
	waited := make(chan bool, 1)
	go func() {
		held, _ := c.Verify(ctx, sandbox.Google, "bob@example.com", good, time.Minute)
		waited <- held
	}()
	setters(t, sb)[0].works("bob@example.com", good)
	if !<-waited {
		t.Error("waiting for a password did not see it")
	}
	must(c.RemoveUser(ctx, sandbox.Google, "bob@example.com"))
	for name, err := range map[string]error{
		"removing user: google has no":   c.RemoveUser(ctx, sandbox.Google, "bob@example.com"),
		"is no mail address":             c.AddUser(ctx, sandbox.User{Name: "bob"}),
		"google has liz":                 c.AddUser(ctx, sandbox.User{Name: "liz@example.com"}),
		"no fault":                       c.Misbehave(ctx, sandbox.Google, sandbox.Fault{Kind: "x"}),
		"asking the sandbox at /nowhere": sandbox.NewClient("/nowhere").Behave(ctx),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %q", err, name)
		}
	}
	cancel()
	must(<-done)
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left behind")
	}
}

func TestWaitGivesUp(t *testing.T) {
	sb := start(t, sandbox.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sb.Wait(ctx, func(sandbox.State) bool { return false }); err == nil {
		t.Error("waited for what never comes")
	}
}

// TestFiles: what the folder holds is for its owner only, and tells a client
// where it will find it.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	sb, err := sandbox.Start(dir, sandbox.Options{ClientDir: "/etc/clouds", Names: []string{"clouds.test", "127.0.0.1"}, Domain: "corp.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
	targets, err := os.ReadFile(sb.TargetsFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`credentials_file = "/etc/clouds/google-credentials.json"`, `subject          = "pwsync-admin@corp.example"`,
		`endpoint         = "https://clouds.test:`, `client_secret_file = "/etc/clouds/entra-client-secret"`,
		`graph_url          = "https://clouds.test:`, `user_domain        = "corp.example"`,
	} {
		if !strings.Contains(string(targets), line) {
			t.Errorf("targets.toml lacks %s:\n%s", line, targets)
		}
	}
	secret, err := os.ReadFile(sb.EntraSecretFile)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(targets), strings.TrimSpace(string(secret))) {
		t.Error("targets.toml holds the secret")
	}
	// The certificate is good for the first name and for this machine.
	u, err := url.Parse(sb.Google.URL)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, plain(sb), "GET", "https://127.0.0.1:"+u.Port()+"/", "").must(t, 404)
	c := plain(sb)
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = "clouds.test"
	ask(t, c, "GET", "https://127.0.0.1:"+u.Port()+"/", "").must(t, 404)
	c = plain(sb)
	c.Transport.(*http.Transport).TLSClientConfig.ServerName = "accounts.google.com"
	if _, err := send(t, c, "GET", "https://127.0.0.1:"+u.Port()+"/", ""); err == nil {
		t.Error("the certificate is good for any name")
	}
}
