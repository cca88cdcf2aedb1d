// Package control lets `samba-pwsync status` ask a running role how it is: GET of JSON over HTTP on a Unix socket.
//
// Why a socket: the databases are locked while serve has them open, and what matters most (is the directory there, is the
// target up) is known to the process only.
//
// Whom it trusts: whoever can enter the role's folder (0700), so root and the role's own user. It only answers questions; it
// changes nothing and shows no secret, because the roles' Status types hold none. Who asks is root, and the forwarder may have been
// taken over: no error here holds a byte of what it answered, which a terminal might obey. What an answer says is the caller's
// to print with care.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// ErrNotRunning means that nobody answers at the socket.
var ErrNotRunning = errors.New("not running")

// errNonsense stands for what the parsers of HTTP and JSON say, which may quote the answer.
var errNonsense = errors.New("the answer makes no sense")

const limit = 64 << 20 // bytes of an answer

// Serve answers at the socket path until ctx ends. Each path of the map is a question; its func's result is the answer.
// The socket of a process that died is replaced, so the caller must make sure that it is the only one (a lock).
func Serve(ctx context.Context, path string, answers map[string]func() (any, error)) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("opening control socket: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(context.WithoutCancel(ctx), "unix", path)
	if err != nil {
		return fmt.Errorf("opening control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return fmt.Errorf("opening control socket: %w", err)
	}
	mux := http.NewServeMux()
	for question, answer := range answers {
		mux.HandleFunc("GET "+question, func(w http.ResponseWriter, _ *http.Request) {
			v, err := answer()
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving control socket: %w", err)
	}
	return nil
}

// Get asks the question at the socket path and decodes the answer. Error: ErrNotRunning.
func Get(ctx context.Context, path, question string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://control"+question, nil)
	if err != nil {
		return fmt.Errorf("asking %s: %w", path, err)
	}
	resp, err := client.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("asking %s: %w", path, ours(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking %s: it answers with status %d", path, resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, limit)).Decode(answer); err != nil {
		return fmt.Errorf("asking %s: %w", path, ours(err))
	}
	return nil
}

// ours returns what is this side's in an error: the operating system's or the context's, or else errNonsense.
func ours(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op
	}
	for _, known := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, known) {
			return known
		}
	}
	return errNonsense
}
