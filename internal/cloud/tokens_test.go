package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// mint counts and hands out tokens that live for an hour.
type mint struct {
	mu    sync.Mutex
	count int
	err   error
	delay time.Duration
}

func (m *mint) fetch(ctx context.Context) (Token, error) {
	select {
	case <-time.After(m.delay):
	case <-ctx.Done():
		return Token{}, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return Token{}, m.err
	}
	m.count++
	return Token{secret.New(fmt.Append(nil, "token", m.count)), time.Now().Add(time.Hour)}, nil
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// ask sends one request with a token of tokens to a server that answers as next does.
func ask(ctx context.Context, tokens *Tokens, next roundTrip) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://example.com/", nil)
	if err != nil {
		return err
	}
	_, err = tokens.Transport("example.com", next).RoundTrip(r)
	return err
}

func fine(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK}, nil
}

func unauthorized(*http.Request) (*http.Response, error) {
	return nil, &Refusal{Status: http.StatusUnauthorized}
}

func TestTokenIsRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mint{}
		tokens := NewTokens(m.fetch)
		for _, step := range []struct {
			wait time.Duration
			want string
		}{{0, "token1"}, {54 * time.Minute, "token1"}, {time.Minute, "token2"}, {10 * time.Hour, "token3"}} {
			time.Sleep(step.wait)
			err := ask(t.Context(), tokens, func(r *http.Request) (*http.Response, error) {
				if got := r.Header.Get("Authorization"); got != "Bearer "+step.want {
					t.Errorf("%s, want %s", got, step.want)
				}
				return fine(r)
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}

func TestEarly(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{time.Hour: 5 * time.Minute, 10 * time.Second: time.Second, 0: 0} {
		if got := early(life); got != want {
			t.Errorf("%v: %v, want %v", life, got, want)
		}
	}
}

func TestRefusedTokens(t *testing.T) {
	m := &mint{}
	tokens := NewTokens(m.fetch)
	temporary := func(next roundTrip) {
		t.Helper()
		wantClass(t, Classify(ask(t.Context(), tokens, next)), target.Throttled, "the access token has been revoked or has expired")
	}
	ok := func() {
		t.Helper()
		if err := ask(t.Context(), tokens, fine); err != nil {
			t.Error(err)
		}
	}
	temporary(unauthorized)
	ok()
	temporary(unauthorized)
	wantClass(t, Classify(ask(t.Context(), tokens, unauthorized)), target.Denied, "does not take even a fresh access token")
	wantClass(t, Classify(ask(t.Context(), tokens, unauthorized)), target.Denied, "")
	ok()
	temporary(unauthorized)
	// Any other answer shows that the token was taken.
	if err := ask(t.Context(), tokens, func(*http.Request) (*http.Response, error) { return nil, &Refusal{Status: 503} }); Refused(err) == nil {
		t.Error(err)
	}
	temporary(unauthorized)
	if m.count != 6 {
		t.Errorf("%d tokens, want 6", m.count)
	}
}

// Calls that were under way with the same token find it refused together. That is one refusal.
func TestRefusedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := NewTokens((&mint{}).fetch)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				err := ask(t.Context(), tokens, func(r *http.Request) (*http.Response, error) {
					time.Sleep(time.Second)
					return unauthorized(r)
				})
				wantClass(t, Classify(err), target.Throttled, "")
			})
		}
		all.Wait()
		if err := ask(t.Context(), tokens, fine); err != nil {
			t.Error(err)
		}
	})
}

func TestOneFetchForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mint{delay: 10 * time.Second}
		tokens := NewTokens(m.fetch)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if err := ask(t.Context(), tokens, fine); err != nil {
					t.Error(err)
				}
			})
		}
		hurried, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := ask(hurried, tokens, fine); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		all.Wait()
		if m.count != 1 {
			t.Errorf("%d tokens, want 1", m.count)
		}
	})
}

// An error of the token endpoint keeps its class and its words, and is not taken for an answer to the call.
func TestFetchFails(t *testing.T) {
	m := &mint{err: fmt.Errorf("%w: the key is gone", target.ErrDenied)}
	tokens := NewTokens(m.fetch)
	err := ask(t.Context(), tokens, fine)
	wantClass(t, Classify(fmt.Errorf("a library wrote this: %w", err)), target.Denied, "getting an access token: access denied by the target: the key is gone")
	m.err = &Refusal{Status: 400, Vendors: true}
	if err := ask(t.Context(), tokens, fine); Refused(err) != nil || target.Classify(Classify(err)) != target.Temporary {
		t.Errorf("%v", err)
	}
	m.err = nil
	if err := ask(t.Context(), tokens, fine); err != nil {
		t.Error(err)
	}
}

func TestRenew(t *testing.T) {
	m := &mint{}
	tokens := NewTokens(m.fetch)
	for want := 1; want <= 3; want++ {
		tokens.Renew()
		if err := ask(t.Context(), tokens, fine); err != nil || m.count != want {
			t.Errorf("%d tokens, want %d, %v", m.count, want, err)
		}
	}
}

// A token goes to one host, over TLS.
func TestTokenStaysAtItsHost(t *testing.T) {
	for _, address := range []string{"https://example.org/", "https://example.com:444/", "http://example.com/"} {
		m := &mint{}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewTokens(m.fetch).Transport("example.com", roundTrip(func(*http.Request) (*http.Response, error) {
			t.Error("the request was sent")
			return nil, errors.New("sent")
		})).RoundTrip(r)
		wantClass(t, Classify(err), target.Denied, "another host")
		if m.count > 0 {
			t.Error("a token was fetched")
		}
	}
}

// What proves who we are goes to one host, over TLS.
func TestHopStaysAtItsHost(t *testing.T) {
	for address, goes := range map[string]bool{
		"https://login.example.com/token":     true,
		"https://Login.example.com/token":     true, // names of hosts know no case
		"https://west.login.example.com/":     false,
		"https://login.example.com:444/":      false,
		"https://login.example.com@evil.org/": false,
		"http://login.example.com/":           false,
	} {
		sent := false
		hop := NewHop(t.Context(), "login.example.com", roundTrip(func(r *http.Request) (*http.Response, error) {
			sent = true
			return fine(r)
		}))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader("client_secret=x"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = hop.Do(r)
		if sent != goes || (err == nil) != goes {
			t.Errorf("%s: sent %v, %v", address, sent, err)
		}
		if !goes {
			wantClass(t, Classify(hop.Err()), target.Denied, "another host for an access token than login.example.com")
		}
	}
}
