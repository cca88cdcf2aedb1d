package cloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// throttlePause is for a server that says "too much" and not until when. It is the second step of the back-off that Google
// asks for (1, 2, 4, … seconds); the forwarder makes it longer from attempt to attempt.
const throttlePause = 2 * time.Second

// Classify gives a failed call its class and a text that anybody may read, as far as both vendors agree. A target looks first
// for the refusals that have a meaning of its vendor's own.
func Classify(err error) error {
	if known := (*classified)(nil); errors.As(err, &known) {
		return known
	}
	if refusal := Refused(err); refusal != nil {
		return classifyRefusal(refusal)
	}
	return classifyTransport(err)
}

// Refused returns the answer that a call got if that is its error; nil if there was none, or if it was a token endpoint's.
func Refused(err error) *Refusal {
	refusal := (*Refusal)(nil)
	if known := (*classified)(nil); errors.As(err, &known) || !errors.As(err, &refusal) {
		return nil
	}
	return refusal
}

func classifyRefusal(r *Refusal) error {
	switch {
	case r.Status < 400, !r.Vendors && (r.Status == http.StatusForbidden || r.Status == http.StatusNotFound):
		return fmt.Errorf("%w: the address is wrong, or a proxy stands in between (%v)", target.ErrDenied, r)
	case r.Status == http.StatusTooManyRequests:
		return Throttled(r)
	case r.RetryAfter > 0:
		return target.RetryAfter(r, r.RetryAfter)
	default:
		return r
	}
}

// Throttled is the class of a refusal that says: too much.
func Throttled(r *Refusal) error {
	if r.RetryAfter > 0 {
		return target.RetryAfter(r, r.RetryAfter)
	}
	return target.RetryAfter(r, throttlePause)
}

// classified marks an error whose class and text are ours. It finds its way back through whatever the vendor's library
// wraps around it.
type classified struct{ error }

func (c *classified) Unwrap() error { return c.error }

// classifyTransport is for a call that got no answer. Only texts that are known to be made on this machine are kept: net/http
// quotes what it cannot read.
func classifyTransport(err error) error {
	var (
		proxy     *proxyError
		untrusted *tls.CertificateVerificationError
		dns       *net.DNSError
		op        *net.OpError
		timeout   net.Error
	)
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("waiting for an answer: %w", context.DeadlineExceeded)
	case errors.As(err, &proxy) && proxy.status < 500:
		return fmt.Errorf("%w: %v: check HTTPS_PROXY, and what the proxy lets through", target.ErrDenied, proxy)
	case errors.As(err, &proxy):
		return proxy
	case errors.As(err, &untrusted):
		return fmt.Errorf("%w: the server's certificate is not trusted (%s): the address is wrong, a proxy stands in between, or ca_file is needed",
			target.ErrDenied, whyUntrusted(untrusted.Err))
	case errors.As(err, &dns):
		return fmt.Errorf("looking up the server's address: %w", dns)
	case errors.As(err, &op):
		return fmt.Errorf("talking to the server: %w", op)
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("waiting for an answer: timeout")
	default:
		return errors.New("the connection broke before there was a usable answer")
	}
}

func whyUntrusted(err error) string {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &authority):
		return "signed by an unknown authority"
	case errors.As(err, &host):
		return "made for another host"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "expired, or not valid yet"
	default:
		return "not valid"
	}
}
