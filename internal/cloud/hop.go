package cloud

import (
	"context"
	"net/http"
)

// Hop is one exchange with a token endpoint, for libraries that wrap its error in text (where errors.As finds nothing) or
// forget the caller's context: it sends under the one, and keeps the other.
type Hop struct {
	ctx  context.Context
	next http.RoundTripper
	err  error
}

// NewHop returns a Hop over next whose requests end with ctx.
func NewHop(ctx context.Context, next http.RoundTripper) *Hop { return &Hop{ctx: ctx, next: next} }

// RoundTrip implements http.RoundTripper.
func (h *Hop) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := h.next.RoundTrip(r.WithContext(h.ctx))
	h.err = err
	return answer, err
}

// Err is how the last request failed; nil if it did not, or if there was none.
func (h *Hop) Err() error { return h.err }

// Do sends a request through h, without the redirects of an http.Client.
func (h *Hop) Do(r *http.Request) (*http.Response, error) { return h.RoundTrip(r) }
