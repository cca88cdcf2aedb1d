package cloud

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// Token is an access token. It opens more doors than a password, and is held like one.
type Token struct {
	Text    secret.Secret
	Expires time.Time
}

// Fetch asks for a new token, once. Its error has its class already.
type Fetch func(context.Context) (Token, error)

// Tokens holds the access token of one target: fetched when first needed, again shortly before it expires, and again when the
// server refuses it before its time. The vendors' own caches keep a token that the server has long revoked, and one of them
// makes callers wait for the token endpoint who have given up. Its methods may be called concurrently.
type Tokens struct {
	fetch Fetch
	turn  chan struct{} // held by who looks at, or fetches, the token: a lock that can be waited for with a context

	mu      sync.Mutex
	current Token
	renew   time.Time // when to ask for the next one
	refused int       // tokens in a row that the server did not take
}

// NewTokens returns an empty holder.
func NewTokens(fetch Fetch) *Tokens { return &Tokens{fetch: fetch, turn: make(chan struct{}, 1)} }

// Renew makes the next request ask for a new token: for a check that is to see what an administrator has just granted.
func (t *Tokens) Renew() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.renew = time.Time{}
}

// get returns a token that is good now.
func (t *Tokens) get(ctx context.Context) (Token, error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return Token{}, ctx.Err()
	}
	t.mu.Lock()
	current, renew := t.current, t.renew
	t.mu.Unlock()
	if time.Now().Before(renew) {
		return current, nil
	}
	fresh, err := t.fetch(ctx)
	if err != nil {
		return Token{}, &classified{fmt.Errorf("getting an access token: %w", err)}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current, t.renew = fresh, fresh.Expires.Add(-early(time.Until(fresh.Expires)))
	return fresh, nil
}

// early is how long before its end a token is replaced: long enough that it does not expire on the way.
func early(life time.Duration) time.Duration { return min(life/10, 5*time.Minute) }

// judge notes what the server thought of a token, and returns the error that this makes.
func (t *Tokens) judge(used Token, refusal *Refusal) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	same := string(used.Text.Bytes()) == string(t.current.Text.Bytes())
	if refusal == nil {
		if same {
			t.refused = 0
		}
		return nil
	}
	if same && !t.current.Text.IsZero() { // else: others have found out already
		t.current, t.renew = Token{}, time.Time{}
		t.refused++
	}
	if t.refused > 1 {
		return fmt.Errorf("%w: it does not take even a fresh access token (%v): check this machine's clock, and whether our account there is disabled", target.ErrDenied, refusal)
	}
	return target.RetryAfter(fmt.Errorf("the access token has been revoked or has expired (%v); the next attempt gets a new one", refusal), time.Second)
}

// Transport adds the token to each request for host, and nowhere else, and gives up a token that the server refuses. That
// request is not repeated: its error is temporary, or ErrDenied if the token before was refused as well.
func (t *Tokens) Transport(host string, next http.RoundTripper) http.RoundTripper {
	return &bearer{t, host, next}
}

type bearer struct {
	tokens *Tokens
	host   string
	next   http.RoundTripper
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != b.host || r.URL.Scheme != "https" {
		closeBody(r)
		return nil, &classified{fmt.Errorf("%w: the library asked another host than the one configured", target.ErrDenied)}
	}
	token, err := b.tokens.get(r.Context())
	if err != nil {
		closeBody(r)
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(token.Text.Bytes()))
	answer, err := b.next.RoundTrip(r)
	refusal := Refused(err)
	if refusal != nil && refusal.Status == http.StatusUnauthorized {
		return nil, &classified{b.tokens.judge(token, refusal)}
	}
	if err == nil || refusal != nil {
		_ = b.tokens.judge(token, nil) // it answered, so it took the token
	}
	return answer, err
}

// closeBody does what a RoundTripper owes its caller also where it fails early.
func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close() // of a request: nothing can be lost
	}
}
