// Package cloud is the HTTP under the vendors' libraries: what the targets google and entra share, and nothing of either.
//
// What: one client that asks once (Client), one reader of answers that stands before the library's own (Strict), one access
// token that can be given up (Tokens), and the class of an error that has none of the vendor's (Classify).
//
// Why: the libraries are made for programs that want an answer at almost any price. They repeat requests, follow redirects,
// compress bodies, quote answers in their errors, and one takes any 3xx for success. A password tool wants one attempt, to
// one host, and an error that can be shown to everybody. So what was answered is taken from the wire, by Strict, and the
// texts of the libraries' errors are never read.
//
// Whom it trusts: the certificate authorities of the system, or only those in ca_file; the usual HTTPS_PROXY and NO_PROXY,
// which see host names and nothing else. No server is trusted to leave out of its answer what it was asked: of an error's
// body only a code is kept, and only if it is one that the vendor documents.
//
// What it does not solve: net/http and crypto/tls keep copies of what they send until a connection has been idle for 20 s, and the garbage
// collector has run (cmd/samba-pwsync makes it run, and overwrite what it frees). Questions, which come long after the last password, have
// connections of their own, so that they do not keep those open.
package cloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Timeout is how long one call may take as a whole, token included. Both vendors answer within one or two seconds, or hardly
// ever.
const Timeout = 30 * time.Second

// idle is how long a connection is kept that nothing is sent over. Its buffers hold what was sent last: a password, for as long.
const idle = 20 * time.Second

// Client returns a client that asks once: it follows no redirect and asks for no compression. It keeps connections, so that
// the next password does not wait for a handshake. caFile, if not empty, holds the only certificate authorities to trust.
func Client(caFile string) (*http.Client, error) {
	roots, err := readRoots(caFile)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport:     &apart{asking: transport(roots), sending: transport(roots)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func transport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: proxyAnswer,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  Timeout,
		IdleConnTimeout:        idle,
		MaxIdleConnsPerHost:    16, // more than a target has workers
		DisableCompression:     true,
		ForceAttemptHTTP2:      true, // which a TLS configuration of one's own switches off otherwise
	}
}

// apart has connections for what only asks, and others for what sends something: the buffers of those hold passwords, and are given up when
// they have been idle. A question now and then, minutes after the last password, would keep them.
type apart struct{ asking, sending *http.Transport }

// RoundTrip implements http.RoundTripper.
func (a *apart) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet || r.Method == "" {
		return a.asking.RoundTrip(r)
	}
	return a.sending.RoundTrip(r)
}

// CloseIdleConnections is what http.Client looks for.
func (a *apart) CloseIdleConnections() {
	a.asking.CloseIdleConnections()
	a.sending.CloseIdleConnections()
}

func readRoots(caFile string) (*x509.CertPool, error) {
	if caFile == "" {
		return nil, nil // the system's
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("reading ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("reading ca_file: %s holds no certificate in PEM form", caFile)
	}
	return roots, nil
}

// proxyAnswer keeps the status of a proxy that does not let us through; net/http would keep its words only.
func proxyAnswer(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy.Host, answer.StatusCode}
}

type proxyError struct {
	host   string
	status int
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("proxy %s answered with status %d", e.host, e.status)
}

// CheckURL says what is wrong with the address of a server that is to receive secrets. key is its name in the configuration.
func CheckURL(key, address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return fmt.Errorf("reading %s: %w", key, errors.Unwrap(err))
	case u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("reading %s: it has to be of the form https://host/", key)
	}
	return nil
}

// IsName reports whether name can stand in a URL's path and be what it was: not empty, nor "..", nor with a line break.
func IsName(name string) bool {
	return strings.Trim(name, ".") != "" && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) })
}
