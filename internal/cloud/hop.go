package cloud

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// Hop is one exchange with a token endpoint, for libraries that wrap its error in text (where errors.As finds nothing) or
// forget the caller's context: it sends under the one, and keeps the other. It sends nothing to another host than the
// configured one: the endpoint is shown the credential, and the environment can lead a library elsewhere.
type Hop struct {
	ctx  context.Context
	host string
	next http.RoundTripper
	err  error
}

// NewHop returns a Hop over next to host (with a port, if it is not 443), whose requests end with ctx.
func NewHop(ctx context.Context, host string, next http.RoundTripper) *Hop {
	return &Hop{ctx: ctx, host: host, next: next}
}

// RoundTrip implements http.RoundTripper.
func (h *Hop) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" || !strings.EqualFold(r.URL.Host, h.host) {
		closeBody(r)
		h.err = &classified{fmt.Errorf("%w: the library asked another host for an access token than %s, the one configured", target.ErrDenied, h.host)}
		return nil, h.err
	}
	answer, err := h.next.RoundTrip(r.WithContext(h.ctx))
	h.err = err
	return answer, err
}

// Err is how the last request failed; nil if it did not, or if there was none.
func (h *Hop) Err() error { return h.err }

// Do sends a request through h, without the redirects of an http.Client.
func (h *Hop) Do(r *http.Request) (*http.Response, error) { return h.RoundTrip(r) }
