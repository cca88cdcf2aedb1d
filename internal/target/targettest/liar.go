package targettest

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// liar is a server that hands out tokens to everybody, and answers all else with what it was sent.
type liar struct {
	*httptest.Server

	mu       sync.Mutex
	lie      func(w http.ResponseWriter, body string)
	sent     []string // secrets of the last write: the password as it stood in the body
	requests []string // since the last lie was set, but for those for a token
	odd      []string // requests that asked for, or used, a compression
}

// newLiar starts one, and writes its certificate to a file.
func newLiar(t testing.TB) (*liar, *Server) {
	l := &liar{}
	l.Server = httptest.NewTLSServer(l)
	t.Cleanup(l.Close)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.Certificate().Raw})
	if err := os.WriteFile(caFile, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	return l, &Server{l.URL, caFile}
}

// with makes the next answers that lie.
func (l *liar) with(lie func(w http.ResponseWriter, body string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lie, l.sent, l.requests = lie, nil, nil
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if l.login(w, r) {
		return
	}
	l.mu.Lock()
	l.requests = append(l.requests, r.Method)
	if r.Header.Get("Accept-Encoding") != "" || r.Header.Get("Content-Encoding") != "" {
		l.odd = append(l.odd, r.Method)
	}
	var change struct {
		Password string
		Profile  struct{ Password string } `json:"passwordProfile"`
	}
	if json.Unmarshal(body, &change) == nil {
		l.sent = append(l.sent, change.Password+change.Profile.Password)
	}
	lie := l.lie
	l.mu.Unlock()
	lie(w, string(body))
}

// login is what the token endpoints of both vendors have to answer for their libraries to go on.
func (l *liar) login(w http.ResponseWriter, r *http.Request) bool {
	switch tenant, openID := strings.CutSuffix(r.URL.Path, "/v2.0/.well-known/openid-configuration"); {
	case openID:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"token_endpoint": %q, "authorization_endpoint": %[1]q, "issuer": %q}`, l.URL+tenant+"/token", l.URL+tenant+"/v2.0")
	case strings.HasSuffix(r.URL.Path, "/token"):
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token": "e30.e30.e30", "token_type": "Bearer", "expires_in": 3600}`)
	default:
		return false
	}
	return true
}

// lies are the places where a server can put what it was sent.
func lies() map[string]func(w http.ResponseWriter, body string) {
	all := map[string]func(w http.ResponseWriter, body string){
		"status line": func(w http.ResponseWriter, body string) { raw(w, "HTTP/1.1 "+body+"\r\n\r\n") },
		"no HTTP":     func(w http.ResponseWriter, body string) { raw(w, body+"\r\n\r\n") },
		"header line": func(w http.ResponseWriter, body string) { raw(w, "HTTP/1.1 400 no\r\n"+body+"\r\n\r\n") },
		"length": func(w http.ResponseWriter, body string) {
			raw(w, "HTTP/1.1 400 no\r\nContent-Length: "+body+"\r\n\r\n")
		},
		"encoding": func(w http.ResponseWriter, body string) {
			raw(w, "HTTP/1.1 400 no\r\nTransfer-Encoding: "+body+"\r\n\r\n")
		},
	}
	for _, status := range []int{200, 201, 202, 302, 307, 400, 401, 403, 404, 405, 409, 412, 429, 500, 503, 504} {
		answer := func(where, kind string, text func(body string) string) {
			all[fmt.Sprint(status, " ", where)] = func(w http.ResponseWriter, body string) {
				w.Header().Set("Content-Type", kind)
				w.WriteHeader(status)
				io.WriteString(w, text(body))
			}
		}
		answer("text", "text/plain", func(body string) string { return body })
		answer("no JSON", "application/json", func(body string) string { return "{" + body })
		answer("the same JSON", "application/json", func(body string) string { return body })
		answer("message", "application/json", func(body string) string {
			return errorJSON("Request_BadRequest", "invalid", body)
		})
		answer("code", "application/json", func(body string) string { return errorJSON(body, body, "no") })
		answer("password as code", "application/json", func(body string) string {
			return errorJSON(marrow, marrow, "no")
		})
		// JSON that is no object, or none. A decoder makes nil of "null", and says nothing.
		for _, text := range []string{"null", "", "[]", "0", `""`, "true", `[null]`, "{}"} {
			answer(fmt.Sprintf("JSON %q", text), "application/json", func(string) string { return text })
		}
		all[fmt.Sprint(status, " headers")] = func(w http.ResponseWriter, body string) {
			encoded := base64.StdEncoding.EncodeToString([]byte(body))
			w.Header().Set("Location", "https://example.com/"+encoded)
			w.Header().Set("Retry-After", body)
			w.Header().Set("X-Echo", body)
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+encoded+`", error="insufficient_claims", claims="`+encoded+`"`)
			w.Header().Set("Content-Type", body)
			w.WriteHeader(status)
		}
		// kiota looks for quotes here, and panics where there are none.
		all[fmt.Sprint(status, " claims without quotes")] = func(w http.ResponseWriter, body string) {
			w.Header().Set("WWW-Authenticate", "Bearer claims=none")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
		}
	}
	return all
}

// errorJSON is an error in the form of either vendor.
func errorJSON(code, reason, message string) string {
	text, _ := json.Marshal(map[string]any{"error": map[string]any{ // strings: cannot fail
		"code": code, "message": message, "status": reason, "errors": []any{map[string]any{"reason": reason, "message": message}},
	}})
	return string(text)
}

// raw answers with text as it is.
func raw(w http.ResponseWriter, text string) {
	connection, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err) // HTTP/1.1: cannot fail
	}
	io.WriteString(connection, text)
	connection.Close()
}

// neverEchoes: whatever the server puts where, the error can be shown to everybody; and it is an error. To a question it may be taken for an
// answer.
func (s Suite) neverEchoes(t *testing.T) {
	l, at := newLiar(t)
	for name, lie := range lies() {
		t.Run(name, func(t *testing.T) {
			tgt := s.New(t, at)
			defer tgt.Close()
			l.with(lie)
			err := s.attempt(t, tgt, s.Users[0], canaryFor(tgt))
			if err == nil {
				t.Error("the target took this for success")
			}
			checked := tgt.Check(t.Context())
			_, asked := tgt.LastChange(t.Context(), target.User{Name: s.Users[0]})
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(l.sent) == 0 || l.sent[0] == "" {
				t.Fatal("the server got no password to echo: this test proves nothing")
			}
			for _, err := range []error{err, checked, asked} {
				mustNotLeak(t, err, append(l.sent, canary)...)
			}
			writes := 0
			for _, method := range l.requests {
				if method == http.MethodPut || method == http.MethodPatch {
					writes++
				}
			}
			if writes != 1 {
				t.Errorf("%d attempts, want 1", writes)
			}
			if status, _, ok := strings.Cut(name, " "); ok && (status == "302" || status == "307" || status == "201") {
				s.mustBe(t, err, target.Denied)
			}
		})
	}
	if len(l.odd) > 0 {
		t.Errorf("requests with compression: %q", l.odd)
	}
}
