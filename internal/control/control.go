// Package control lets the commands of samba-pwsync ask a running role how it is, and the forwarder to try or to drop what waits: GET
// and POST of JSON over HTTP on a Unix socket.
//
// Why a socket: the databases are locked while serve has them open, and what matters most (is the directory there, is the
// target up) is known to the process only.
//
// Whom it trusts: whoever can enter the role's folder (0700), so root and the role's own user, who could do all of it to the databases as
// well. A GET changes nothing, and nothing answers with a secret, because the roles' types for that hold none. What a POST can do is to
// hold passwords back, or to have them tried sooner: never to have another one sent. Who asks is root, and the forwarder may have been
// taken over: no error here holds a byte of what it answered, which a terminal might obey, and an answer is as long as an honest one can be
// and no longer, so that it costs no more memory than the answer about a large domain. What it says is the caller's to print with care.
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
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// ErrNotRunning means that nobody answers at the socket.
var ErrNotRunning = errors.New("not running")

var (
	// errNonsense stands for what the parsers of HTTP and JSON say, which may quote the answer.
	errNonsense = errors.New("the answer makes no sense")
	errBroken   = errors.New("the answer broke off")
	errTooMany  = errors.New("the answer has more pieces than there can be")
)

// What an answer may have in bytes, and in time. What is decoded takes many times the memory of a text that is made for that ("[{},{},…").
const (
	limit       = 4 << 20
	streamLimit = 1 << 30
	gatherLimit = 1 << 29 // where all of a stream is held
	pieceLimit  = 1 << 20
	patience    = 10 * time.Second
	// streamPatience is for some millions of pieces.
	streamPatience = 5 * time.Minute
)

// Stream is an answer that is too much to be held at once: it tells its pieces one after the other. Its error breaks the answer off, and
// so does tell's, which it is to return.
type Stream func(tell func(piece any) error) error

// Answer answers a question, which may have been asked about something: the result is encoded as JSON, or is a Stream.
type Answer func(about url.Values) (any, error)

// Listen opens the socket at path, for Serve: from then on a question waits for its answer. The socket of a process that died is replaced,
// so the caller must make sure that it is the only one (a lock).
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening control socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("opening control socket: %w", err)
	}
	return listener, nil
}

// Serve answers at the listener until ctx ends, and closes it. Each path of the map is a question. One that changes something begins with "POST ".
func Serve(ctx context.Context, listener net.Listener, answers map[string]Answer) error {
	mux := http.NewServeMux()
	for question, answer := range answers {
		if strings.HasPrefix(question, "/") {
			question = "GET " + question
		}
		mux.HandleFunc(question, func(w http.ResponseWriter, r *http.Request) {
			v, err := answer(r.URL.Query())
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			pieces, ok := v.(Stream)
			if !ok {
				pieces = func(tell func(any) error) error { return tell(v) }
			}
			if pieces(json.NewEncoder(w).Encode) != nil {
				panic(http.ErrAbortHandler) // so that nobody takes the answer for a whole one
			}
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

// Get asks the question at the socket path, "/why?account=liz", and decodes the answer. Error: ErrNotRunning.
func Get(ctx context.Context, path, question string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return ask(ctx, path, http.MethodGet, question, limit, func(body io.Reader) error { return json.NewDecoder(body).Decode(answer) })
}

// Post asks for something to be done, and decodes what came of it. After an error it may have been done all the same. Error: ErrNotRunning.
func Post(ctx context.Context, path, question string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, streamPatience)
	defer cancel()
	return ask(ctx, path, http.MethodPost, question, limit, func(body io.Reader) error { return json.NewDecoder(body).Decode(answer) })
}

// Each is Get where the answer is a Stream: it calls tell with each piece.
func Each[Piece any](ctx context.Context, path, question string, tell func(Piece)) error {
	return each(ctx, path, question, streamLimit, func(piece Piece) error { tell(piece); return nil })
}

// Gather is Each for who has to hold all pieces at once. It gives up at more than most, and at one that is not whole: what takes more memory
// than it has text.
func Gather[Piece any](ctx context.Context, path, question string, most int, whole func(Piece) bool) ([]Piece, error) {
	all := []Piece{}
	err := each(ctx, path, question, gatherLimit, func(piece Piece) error {
		switch {
		case !whole(piece):
			return errNonsense
		case len(all) == most:
			return errTooMany
		}
		all = append(all, piece)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// each calls tell with each piece. An error of tell ends it.
func each[Piece any](ctx context.Context, path, question string, limit int64, tell func(Piece) error) error {
	ctx, cancel := context.WithTimeout(ctx, streamPatience)
	defer cancel()
	return ask(ctx, path, http.MethodGet, question, limit, func(body io.Reader) error {
		rationed := &ration{Reader: body}
		decoder := json.NewDecoder(rationed)
		for {
			var piece Piece
			rationed.left = pieceLimit
			if err := decoder.Decode(&piece); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := tell(piece); err != nil {
				return err
			}
		}
	})
}

// ration is a Reader that gives no more than left bytes. A decoder holds a piece's text whole before it looks at it.
type ration struct {
	io.Reader
	left int
}

func (r *ration) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, &http.MaxBytesError{Limit: pieceLimit}
	}
	n, err := r.Reader.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

func ask(ctx context.Context, path, method, question string, limit int64, decode func(io.Reader) error) error {
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+question, nil)
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
	if err := decode(http.MaxBytesReader(nil, resp.Body, limit)); err != nil {
		return fmt.Errorf("asking %s: %w", path, ours(err))
	}
	return nil
}

// ours returns what is this side's in an error: the operating system's, the context's or a limit's, or else errNonsense.
func ours(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op
	}
	if long := (*http.MaxBytesError)(nil); errors.As(err, &long) {
		return fmt.Errorf("the answer, or a piece of it, is longer than %d bytes", long.Limit)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errBroken
	}
	for _, known := range []error{context.DeadlineExceeded, context.Canceled, errTooMany} {
		if errors.Is(err, known) {
			return known
		}
	}
	return errNonsense
}
