package cloud

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

func serve(t *testing.T, handler http.HandlerFunc) (server *httptest.Server, caFile string) {
	t.Helper()
	server = httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(caFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return server, caFile
}

func client(t *testing.T, caFile string) *http.Client {
	t.Helper()
	c, err := Client(caFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func wantClass(t *testing.T, err error, want target.Class, text string) {
	t.Helper()
	if got := target.Classify(err); got != want || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("class %s, want %s with %q: %v", got, want, text, err)
	}
}

var vendor = Vendor{
	Read: func(body []byte) (code, message string) {
		code, message, _ = strings.Cut(string(body), ":")
		return code, message
	},
	Known:     func(code string) bool { return code == "known" },
	NoContent: http.MethodPatch,
}

// get asks a Strict transport once.
func get(t *testing.T, handler http.HandlerFunc) error {
	t.Helper()
	server, caFile := serve(t, handler)
	c := client(t, caFile)
	c.Transport = Strict(c.Transport, vendor)
	answer, err := c.Get(server.URL)
	if err == nil {
		err = answer.Body.Close()
	}
	return err
}

func TestRefusal(t *testing.T) {
	for _, tc := range []struct {
		status int
		body   string
		after  string
		want   target.Class
		text   string
	}{
		{200, "{}", "", target.Denied, "a proxy stands in between (status 200"}, // not said to be JSON
		{302, "known:x", "", target.Denied, "(status 302, known)"},
		{403, "", "", target.Denied, "a proxy stands in between (status 403)"},
		{403, "known:x", "", target.Temporary, "status 403, known"},
		{404, "", "", target.Denied, "the address is wrong"},
		{404, "known:x", "", target.Temporary, "status 404, known"},
		{429, "other:x", "", target.Throttled, "status 429, with a code that is not documented (retry after 2s)"},
		{429, "", "30", target.Throttled, "(retry after 30s)"},
		{429, "", "0", target.Throttled, "(retry after 2s)"},
		{500, "known:x", "", target.Temporary, "status 500, known"},
		{503, "known:x", "7", target.Throttled, "(retry after 7s)"},
		{503, "known:x", "soon", target.Temporary, "status 503, known"},
	} {
		err := get(t, func(w http.ResponseWriter, _ *http.Request) {
			if tc.after != "" {
				w.Header().Set("Retry-After", tc.after)
			}
			w.WriteHeader(tc.status)
			io.WriteString(w, tc.body)
		})
		wantClass(t, Classify(err), tc.want, tc.text)
		if refusal := Refused(err); refusal == nil || refusal.Status != tc.status || refusal.Says("X") != strings.HasSuffix(tc.body, ":x") {
			t.Errorf("%d %q: refusal %v", tc.status, tc.body, refusal)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "1": time.Second, " 120 ": 2 * time.Minute, "-1": 0, "1.5": 0, "99999999999999999999": 0,
		"Tue, 01 Sep 2026 12:05:00 GMT": 5 * time.Minute, "Tue, 01 Sep 2026 11:00:00 GMT": 0, "tomorrow": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// An endless answer is cut off, whether it is success or not.
func TestEndlessAnswer(t *testing.T) {
	for _, status := range []int{200, 500} {
		server, caFile := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			for chunk := make([]byte, 1<<16); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		})
		c := client(t, caFile)
		c.Transport = Strict(c.Transport, vendor)
		answer, err := c.Get(server.URL)
		if status == 500 {
			wantClass(t, Classify(err), target.Temporary, "status 500")
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, answer.Body); n != maxAnswer || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		answer.Body.Close()
	}
}

// kiota's bodies have no length and cannot be read twice.
func TestBodyHasLength(t *testing.T) {
	server, caFile := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.ContentLength != 5 || string(body) != "hello" {
			t.Errorf("length %d, body %q", r.ContentLength, body)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	c := client(t, caFile)
	c.Transport = Strict(c.Transport, vendor)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, server.URL, io.NopCloser(strings.NewReader("hello")))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
}

func TestTransportErrors(t *testing.T) {
	server, caFile := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	closed := httptest.NewServer(nil)
	closed.Close()
	expired, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		ctx    context.Context
		caFile string
		url    string
		want   target.Class
		text   string
	}{
		{"cut", t.Context(), caFile, server.URL, target.Temporary, "the connection broke"},
		{"nobody listens", t.Context(), caFile, closed.URL, target.Temporary, "connection refused"},
		{"no such host", t.Context(), caFile, "https://nowhere.invalid/", target.Temporary, "looking up the server's address"},
		{"too late", expired, caFile, server.URL, target.Temporary, "waiting for an answer: context deadline exceeded"},
		{"cancelled", cancelled, caFile, server.URL, target.Temporary, "context canceled"},
		{"unknown authority", t.Context(), "", server.URL, target.Denied, "signed by an unknown authority"},
		{"other host", t.Context(), caFile, "https://localhost:" + port, target.Denied, "made for another host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(tc.ctx, http.MethodGet, tc.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client(t, tc.caFile).Do(r)
			wantClass(t, Classify(err), tc.want, tc.text)
			if tc.ctx.Err() != nil && !errors.Is(Classify(err), tc.ctx.Err()) {
				t.Errorf("%v does not wrap the context's error", Classify(err))
			}
		})
	}
}

func TestProxy(t *testing.T) {
	for status, want := range map[int]target.Class{407: target.Denied, 403: target.Denied, 502: target.Temporary} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", status) }))
		address, err := url.Parse(proxy.URL)
		if err != nil {
			t.Fatal(err)
		}
		c := client(t, "")
		c.Transport.(*apart).asking.Proxy = http.ProxyURL(address)
		_, err = c.Get("https://example.com/")
		wantClass(t, Classify(err), want, fmt.Sprintf("proxy %s answered with status %d", address.Host, status))
		proxy.Close()
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	c := client(t, "").Transport.(*apart)
	for _, transport := range []*http.Transport{c.asking, c.sending} {
		if got := transport.TLSClientConfig.MinVersion; got != 0x0303 {
			t.Errorf("TLS %x, want 1.2", got)
		}
	}
}

// A question must not keep open a connection whose buffers hold a password. Each kind keeps its own.
func TestQuestionsKeepNoPassword(t *testing.T) {
	from := map[string]map[string]bool{}
	server, caFile := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if from[r.Method] == nil {
			from[r.Method] = map[string]bool{}
		}
		from[r.Method][r.RemoteAddr] = true
		w.WriteHeader(http.StatusNoContent)
	})
	c := client(t, caFile)
	for _, method := range []string{"PATCH", "", "PUT", "GET", "PATCH", "", "POST", "GET"} {
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	for _, method := range []string{"PATCH", "PUT", "POST"} {
		for addr := range from[method] {
			if len(from[method]) != 1 || from["GET"][addr] {
				t.Errorf("connections: %v", from)
			}
		}
	}
	if len(from["GET"]) != 1 {
		t.Errorf("connections: %v", from)
	}
}

func TestCheckURL(t *testing.T) {
	for address, fine := range map[string]bool{
		"https://example.com": true, "https://example.com/": true, "https://example.com:8443/": true,
		"http://example.com/": false, "example.com": false, "": false, "https://": false, "https://me:pw@example.com/": false,
		"https://example.com/?a": false, "https://example.com/#a": false, "https://exa mple.com/": false,
	} {
		if err := CheckURL("endpoint", address); (err == nil) != fine || err != nil && !strings.HasPrefix(err.Error(), "reading endpoint: ") {
			t.Errorf("%q: %v", address, err)
		}
	}
}
