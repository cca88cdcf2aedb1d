package cloud

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Vendor is how one vendor's server says no.
type Vendor struct {
	// Read finds code and message in the body of an error; both empty if the body is not the vendor's.
	Read func(body []byte) (code, message string)
	// Known reports whether code is one that the vendor documents. Others are not shown: an echoing server can put anything
	// in their place.
	Known func(code string) bool
	// NoContent is the method whose success is status 204. That of the others is 200 with JSON.
	NoContent string
}

// Refusal is an answer other than the one that was hoped for. It can be printed: it holds no text of the server.
type Refusal struct {
	Status     int
	Code       string        // one that the vendor documents, or empty
	RetryAfter time.Duration // what the server asked for; 0 if nothing
	Vendors    bool          // the body was the vendor's: not a proxy, nor another server at this address
	message    func() string // a func, because fmt prints unexported fields
}

func (r *Refusal) Error() string {
	switch {
	case r.Code != "":
		return fmt.Sprintf("status %d, %s", r.Status, r.Code)
	case r.Vendors:
		return fmt.Sprintf("status %d, with a code that is not documented", r.Status)
	}
	return fmt.Sprintf("status %d", r.Status)
}

// Says tells whether the server's message contains words, whatever the case.
func (r *Refusal) Says(words string) bool {
	return strings.Contains(strings.ToLower(r.message()), strings.ToLower(words))
}

// The most that is read of an answer. An honest one has a few hundred bytes.
const maxAnswer = 1 << 20

// Strict sends a request on to next, and returns a *Refusal as the error for every answer that is not success as the vendor
// defines it. So the vendor's library sees nothing that it could repeat, follow, quote, or take for success.
func Strict(next http.RoundTripper, vendor Vendor) http.RoundTripper { return &strict{next, vendor} }

type strict struct {
	next   http.RoundTripper
	vendor Vendor
}

func (s *strict) RoundTrip(r *http.Request) (*http.Response, error) {
	r, err := rewindable(r)
	if err != nil {
		return nil, err
	}
	answer, err := s.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	limited := io.LimitReader(answer.Body, maxAnswer)
	if s.vendor.succeeded(r.Method, answer) {
		answer.Body = readCloser{limited, answer.Body}
		return answer, nil
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(limited) // half an answer has a status, too
	refusal := &Refusal{Status: answer.StatusCode, RetryAfter: retryAfter(answer.Header, time.Now())}
	code, message := s.vendor.Read(text)
	refusal.Vendors = code != ""
	refusal.message = func() string { return message }
	if refusal.Vendors && s.vendor.Known(code) {
		refusal.Code = code
	}
	return nil, refusal
}

type readCloser struct {
	io.Reader
	io.Closer
}

func (v Vendor) succeeded(method string, answer *http.Response) bool {
	if method == v.NoContent {
		return answer.StatusCode == http.StatusNoContent
	}
	kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	return answer.StatusCode == http.StatusOK && err == nil && kind == "application/json"
}

// rewindable returns r with a body of known length that can be read twice. kiota's has neither: it would go out in chunks,
// and a kept connection that the server has just closed would be an error, where net/http takes another one by itself. (That
// is no repetition: nothing had been written yet.)
func rewindable(r *http.Request) (*http.Request, error) {
	if r.Body == nil || r.Body == http.NoBody || r.GetBody != nil {
		return r, nil
	}
	body, err := io.ReadAll(r.Body)
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return nil, fmt.Errorf("reading request: %w", err)
	}
	r = r.Clone(r.Context()) // a RoundTripper may not change what it was given
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
	r.ContentLength = int64(len(body))
	return r, nil
}

// retryAfter reads the header of that name, which has seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
