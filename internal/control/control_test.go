package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func serve(ctx context.Context, path string, answers map[string]Answer) error {
	listener, err := Listen(path)
	if err != nil {
		return err
	}
	return Serve(ctx, listener, answers)
}

// first repeats a question until the server, which starts meanwhile, is there.
func first(t *testing.T, path, question string, answer any) error {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Millisecond) {
		if err := Get(t.Context(), path, question, answer); !errors.Is(err, ErrNotRunning) || time.Now().After(deadline) {
			return err
		}
	}
}

func TestServeAndGet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	for range 2 { // the second time over the socket that the first left behind
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- serve(ctx, path, map[string]Answer{
				"/status": func(url.Values) (any, error) { return map[string]int{"waiting": 3}, nil },
				"/broken": func(url.Values) (any, error) { return nil, errors.New("disk on fire") },
			})
		}()
		var got map[string]int
		if err := first(t, path, "/status", &got); err != nil || got["waiting"] != 3 {
			t.Errorf("got %v, %v", got, err)
		}
		if err := first(t, path, "/broken", &got); err == nil || !strings.Contains(err.Error(), "500") {
			t.Errorf("broken: %v", err)
		}
		if err := first(t, path, "/unknown", &got); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("unknown: %v", err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("socket: %v, %v", info, err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// What changes something is not done by a question, and neither answers for the other.
func TestPost(t *testing.T) {
	path, done := filepath.Join(t.TempDir(), "control.sock"), []string{}
	go serve(t.Context(), path, map[string]Answer{
		"/look":      func(about url.Values) (any, error) { return about["account"], nil },
		"POST /drop": func(about url.Values) (any, error) { done = append(done, about.Get("account")); return len(done), nil },
	})
	var who []string
	if err := first(t, path, "/look?account=a%26b+c%00&account=ü", &who); err != nil || len(who) != 2 || who[0] != "a&b c\x00" || who[1] != "ü" {
		t.Errorf("%q, %v", who, err)
	}
	var n int
	if err := Post(t.Context(), path, "/drop?account=liz", &n); err != nil || n != 1 || len(done) != 1 || done[0] != "liz" {
		t.Errorf("%d, %q, %v", n, done, err)
	}
	if err := Get(t.Context(), path, "/drop?account=liz", &n); err == nil || len(done) != 1 {
		t.Errorf("a question did it: %q, %v", done, err)
	}
	if err := Post(t.Context(), path, "/look", &who); err == nil {
		t.Error("a question was posted")
	}
	if err := Post(t.Context(), path+".none", "/drop", nil); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
}

// A large domain's drift is more than fits into one answer. One that breaks off, or is without end, is no answer.
func TestStream(t *testing.T) {
	const large = limit>>20 + 10 // pieces, of as much as one may have: a mebibyte with two quotes and a newline
	path := filepath.Join(t.TempDir(), "control.sock")
	piece := strings.Repeat("x", pieceLimit-3)
	stream := func(n int, end error) func(url.Values) (any, error) {
		return func(url.Values) (any, error) {
			return Stream(func(tell func(any) error) error {
				for range n {
					if err := tell(piece); err != nil {
						return err
					}
				}
				return end
			}), nil
		}
	}
	go serve(t.Context(), path, map[string]Answer{
		"/none": stream(0, nil), "/large": stream(large, nil),
		"/broken": stream(3, errors.New("disk on fire")), "/broken-at-once": stream(0, errors.New("disk on fire")),
	})
	if err := first(t, path, "/none", new(string)); err == nil {
		t.Error("nothing is one answer")
	}
	for question, want := range map[string]struct {
		pieces int
		err    error
	}{"/none": {0, nil}, "/large": {large, nil}, "/broken": {3, errBroken}, "/broken-at-once": {0, errNonsense}} {
		n := 0
		err := Each(t.Context(), path, question, func(got string) {
			if n++; got != piece {
				t.Errorf("%s: piece %d has %d bytes", question, n, len(got))
			}
		})
		if n != want.pieces || !errors.Is(err, want.err) {
			t.Errorf("%s: %d pieces, %v; want %d, %v", question, n, err, want.pieces, want.err)
		}
	}
	if err := Get(t.Context(), path, "/large", new(string)); err != nil {
		t.Errorf("the first piece alone: %v", err)
	}
	for _, limit := range []int64{1, 1<<20 - 2, 1 << 20} {
		var all []string
		err := ask(t.Context(), path, "GET", "/large", limit, func(body io.Reader) error {
			for decoder := json.NewDecoder(body); ; {
				if err := decoder.Decode(new(string)); err != nil {
					return err
				}
				all = append(all, "")
			}
		})
		if err == nil || !strings.Contains(err.Error(), "longer than") || len(all) > 1 {
			t.Errorf("%d bytes at most: %d pieces, %v", limit, len(all), err)
		}
	}
}

// What is told by a forwarder that was taken over costs who asks no more memory than an honest answer: not by its length, nor by the number
// of its pieces, nor by pieces that say nothing.
func TestAnswersThatAreMadeToFillMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	many := func(text string, n int) Answer {
		return func(url.Values) (any, error) {
			return Stream(func(tell func(any) error) error {
				for range n {
					if err := tell(json.RawMessage(text)); err != nil {
						return err
					}
				}
				return nil
			}), nil
		}
	}
	go serve(t.Context(), path, map[string]Answer{
		"/list": func(url.Values) (any, error) {
			return json.RawMessage("[" + strings.Repeat("{},", limit/3) + "{}]"), nil
		},
		"/three": many(`{"Name": "liz"}`, 3),
		"/empty": many("{}", 1<<20),
		"/long":  many(`{"Name": "`+strings.Repeat("x", pieceLimit)+`"}`, 1),
		"/endless": func(url.Values) (any, error) {
			return Stream(func(tell func(any) error) error {
				for {
					if err := tell(json.RawMessage(`{"Name": "liz"}`)); err != nil {
						return err
					}
				}
			}), nil
		},
	})
	type person struct{ Name string }
	if err := first(t, path, "/list", &[]person{}); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a list of nothing: %v", err)
	}
	whole := func(p person) bool { return p.Name != "" }
	for question, want := range map[string]struct {
		most int
		err  string
	}{
		"/three": {3, ""}, "/three?": {2, errTooMany.Error()}, "/empty": {1 << 30, errNonsense.Error()}, "/long": {1 << 30, "longer than"}, "/endless": {1000, errTooMany.Error()},
	} {
		all, err := Gather(t.Context(), path, question, want.most, whole)
		if want.err == "" && (err != nil || len(all) != 3 || all[2].Name != "liz") || want.err != "" && (err == nil || !strings.Contains(err.Error(), want.err)) {
			t.Errorf("%s: %d pieces, %v; want %q", question, len(all), err, want.err)
		}
	}
	if err := Each(t.Context(), path, "/long", func(person) {}); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a long piece: %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead") // left behind by a process that was killed
	listener, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"no socket": filepath.Join(dir, "none"), "no folder": filepath.Join(dir, "none", "none"), "a dead socket": dead,
	} {
		if err := Get(t.Context(), path, "/status", nil); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A forwarder that was taken over answers what it likes; the one who asks is root, at a terminal.
func TestErrorsQuoteNoAnswer(t *testing.T) {
	const escape = "\x1b]0;owned\a"
	path := filepath.Join(t.TempDir(), "control.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	answers := map[string]string{
		"a status line":     "HTTP/1.1 500 " + escape + "\r\nContent-Length: 0\r\n\r\n",
		"the body":          "HTTP/1.1 500 x\r\nContent-Length: 11\r\n\r\n" + escape,
		"no HTTP":           escape + "\r\n\r\n",
		"a header":          "HTTP/1.1 200 OK\r\n" + escape + "\r\n\r\n",
		"a length":          "HTTP/1.1 200 OK\r\nContent-Length: " + escape + "\r\n\r\n",
		"a redirect":        "HTTP/1.1 302 x\r\nLocation: http://" + escape + "/\r\nContent-Length: 0\r\n\r\n",
		"no JSON":           "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + escape,
		"JSON that is none": "HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{\"when\":\"\\u001b]0;owned\\a\"}",
		"nothing":           "",
	}
	for name, answer := range answers {
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte(answer))
		}()
		var got struct{ When time.Time }
		err := Get(t.Context(), path, "/status", &got)
		if err == nil || strings.Contains(err.Error(), "owned") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %q", name, err)
		}
	}
}

// A process that is stopped while it starts leaves neither an error nor a socket.
func TestServeStoppedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := serve(ctx, path, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestErrorsNameTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := serve(t.Context(), filepath.Join(path, "control.sock"), nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("serving below a file: %v", err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 200))
	if err := Get(t.Context(), long, "/status", nil); err == nil || errors.Is(err, ErrNotRunning) || strings.Contains(err.Error(), "http://") {
		t.Errorf("a path that no socket can have: %v", err)
	}
}
