// Package directory asks a Samba domain controller about accounts and their
// passwords: what it stores for one account, what changed since a USN, whether
// an LDAP filter matches, which password settings hold, which other DCs there
// are, and how far it has heard of their changes.
//
// Only the privileged LDAPI socket shows everything. There an unbound
// connection is SYSTEM and reads password hashes; the file system is what
// guards it, and only root gets through. Over LDAPS, with a bind, the same
// calls work for other programs, but no DC gives out hashes there.
//
// The package trusts the server it is connected to, as whoever reads hashes
// from a database must trust that database; but names and values that come
// from elsewhere are escaped before they become part of a filter. It only
// reads: nothing here changes the directory.
//
// What it does not solve: it answers for this DC, which knows only what has
// been replicated to it. And it does not reconnect: a caller that sees
// ErrUnavailable closes the DC and dials again, when it sees fit.
package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Errors that callers tell apart, with errors.Is.
var (
	// ErrNotFound: the directory has no such account, or only a deleted one;
	// of SelfWritable, no such attribute.
	ErrNotFound = errors.New("no such account")

	// ErrUnavailable: the DC cannot be reached, went away or did not answer in
	// time. Nothing is known; close, dial again, repeat.
	ErrUnavailable = errors.New("domain controller unavailable")

	// ErrNotPrivileged: the socket is the one for everybody, which answers
	// nothing without a bind, instead of ldap_priv/ldapi.
	ErrNotPrivileged = errors.New("not the privileged LDAPI socket")
)

// timeout bounds each exchange with the DC, a page of 500 accounts included.
const timeout = 30 * time.Second

// DC is a connection to one domain controller, or several to the same one
// (Widen). It is safe for concurrent use: requests share the connection and do
// not wait for each other's answers.
//
// Every call ends when its context does, and after 30 seconds without an
// answer at the latest.
type DC struct {
	lanes     []*lane // connections to it: one, or more after Widen
	base      string  // distinguished name of the domain
	encrypted bool    // TLS, or a local socket

	again func(context.Context) (*DC, error) // connects once more
}

// Dial connects to the DC at url: "ldapi:///var/lib/samba/private/ldap_priv/ldapi",
// the same with the path percent-encoded in place of the host, as OpenLDAP
// writes it ("ldapi://%2Fvar%2F…"), "ldaps://dc1.example.com" or "ldap://…".
//
// Over LDAPI it makes sure that the socket is the privileged one (else
// ErrNotPrivileged), and needs no Bind. A socket that is missing or that nobody
// listens at is ErrUnavailable; one that may not be opened is fs.ErrPermission.
// Certificates must be ones that the system trusts; for others see DialTLS.
func Dial(ctx context.Context, url string) (*DC, error) { return DialTLS(ctx, url, nil) }

// DialTLS is Dial with a TLS configuration for ldaps, for instance one that
// names a private CA. Where it names no server, the url's host is verified. The
// certificate that Samba makes for itself will not do (seen with 4.17): it has
// a negative serial number and no subject alternative name, which Go refuses.
func DialTLS(ctx context.Context, url string, config *tls.Config) (*DC, error) {
	dc, err := dial(ctx, url, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", url, err)
	}
	dc.again = func(ctx context.Context) (*DC, error) { return dial(ctx, url, config) }
	return dc, nil
}

func dial(ctx context.Context, url string, config *tls.Config) (*DC, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	scheme, address, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	conn, err := connect(ctx, scheme, address, config)
	if err != nil {
		return nil, err
	}
	return open(ctx, conn, scheme)
}

// open starts talking LDAP on a connection, which is its own from here on.
func open(ctx context.Context, conn net.Conn, scheme string) (*DC, error) {
	l := &lane{conn: ldap.NewConn(guarded{conn}, scheme == "ldaps")}
	l.conn.SetTimeout(timeout)
	l.conn.Start()
	dc := &DC{lanes: []*lane{l}, encrypted: scheme != "ldap"}
	if err := dc.greet(ctx, scheme == "ldapi"); err != nil {
		dc.Close()
		return nil, err
	}
	return dc, nil
}

// greet learns the base DN and, where that is to be expected, makes sure that
// this connection may read below it.
func (dc *DC) greet(ctx context.Context, privileged bool) error {
	root, err := dc.readOne(ctx, "", anything, "defaultNamingContext")
	if err != nil {
		return fmt.Errorf("reading rootDSE: %w", err)
	}
	dc.base = root.GetAttributeValue("defaultNamingContext")
	if dc.base == "" {
		return errors.New("reading rootDSE: no defaultNamingContext, so this is not a domain controller")
	}
	if !privileged {
		return nil
	}
	_, err = dc.readOne(ctx, dc.base, anything, noAttributes)
	if ldap.IsErrorWithCode(err, ldap.LDAPResultOperationsError) {
		return fmt.Errorf("%w (that is ldap_priv/ldapi in Samba's private dir)", ErrNotPrivileged)
	}
	return err
}

// Close ends the connection; calls that wait for an answer get ErrUnavailable.
func (dc *DC) Close() error {
	var errs []error
	for _, l := range dc.lanes {
		errs = append(errs, l.conn.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing LDAP connection: %w", err)
	}
	return nil
}

// Bind authenticates by a simple bind; user is a DN, DOMAIN\name or
// name@domain. It refuses to send the password unencrypted. Over the
// privileged LDAPI socket there is no need of it, and one would give up the
// rights of SYSTEM.
func (dc *DC) Bind(ctx context.Context, user string, password []byte) error {
	if !dc.encrypted {
		return errors.New("binding: the connection is not encrypted, use ldaps")
	}
	_, err := await(ctx, func() (struct{}, error) {
		return struct{}{}, dc.lanes[0].conn.Bind(user, string(password))
	})
	if err != nil {
		return fmt.Errorf("binding as %s: %w", user, err)
	}
	return nil
}

// ValidateFilter reports whether filter is a well-formed LDAP search filter
// (RFC 4515). Whether its attributes exist only the DC knows; to LDAP, one
// that does not exist simply never matches.
func ValidateFilter(filter string) error {
	if _, err := ldap.CompileFilter(filter); err != nil {
		return fmt.Errorf("compiling LDAP filter %q: %w", filter, err)
	}
	return nil
}

// parseURL returns the scheme and, for ldapi, the socket's path, otherwise
// host:port.
func parseURL(s string) (scheme, address string, err error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		return "", "", errors.New("not an LDAP URL")
	}
	if scheme == "ldapi" { // net/url refuses %2F in a host
		path, err := url.PathUnescape(rest)
		if err != nil {
			return "", "", fmt.Errorf("decoding socket path: %w", err)
		}
		if !strings.HasPrefix(path, "/") || path == "/" {
			return "", "", errors.New("an ldapi URL needs the socket's absolute path")
		}
		return scheme, strings.TrimSuffix(path, "/"), nil
	}
	port, known := map[string]string{"ldap": "389", "ldaps": "636"}[scheme]
	if !known {
		return "", "", fmt.Errorf("scheme %q is none of ldapi, ldaps, ldap", scheme)
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", "", err
	}
	if u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return "", "", errors.New("an LDAP URL needs a host and nothing more than a port")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	return scheme, net.JoinHostPort(u.Hostname(), port), nil
}

func connect(ctx context.Context, scheme, address string, config *tls.Config) (conn net.Conn, err error) {
	switch scheme {
	case "ldapi":
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", address)
	case "ldap":
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
	case "ldaps":
		conn, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	}
	switch {
	case err == nil || errors.Is(err, context.Canceled):
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w (only root may use the privileged socket)", err)
	case errors.As(err, new(*tls.CertificateVerificationError)):
		// dialling again would not help
	default:
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return conn, err
}

// guarded does for a connection what go-ldap does not.
type guarded struct{ net.Conn }

// Read clears what it is given before it waits. That is go-ldap's buffer, in
// which the last answer, with somebody's hash in it, would lie until the next.
func (c guarded) Read(b []byte) (int, error) {
	clear(b[:min(len(b), bufferSize)])
	return c.Conn.Read(b)
}

// bufferSize is that of go-ldap's buffer, which is bufio's usual one. More than
// that it reads into memory of its own, once.
const bufferSize = 4096

// Write fails, and the connection with it, if the DC does not take the bytes off
// within the timeout. Without it go-ldap would wait forever, whatever the context
// of the call.
func (c guarded) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		c.Close() // a half-written message cannot be taken up again
	}
	return n, err
}

const (
	noAttributes = "1.1"             // asks for none (RFC 4511, 4.5.1.8)
	anything     = "(objectClass=*)" // matches every object
)

// readOne reads the object named base if filter matches it; ErrNotFound if
// there is no such object or it does not match.
func (dc *DC) readOne(ctx context.Context, base, filter string, attrs ...string) (*ldap.Entry, error) {
	result, err := dc.search(ctx, &ldap.SearchRequest{
		BaseDN: base, Scope: ldap.ScopeBaseObject, Filter: filter, Attributes: attrs,
	})
	if err != nil {
		return nil, err
	}
	if len(result.Entries) != 1 {
		return nil, ErrNotFound
	}
	return result.Entries[0], nil
}

// search runs one search to its end: with several lanes on whichever answers
// first, unless it is one page of several, whose cookies may be about one
// connection. It uses go-ldap's synchronous Search,
// for SearchAsync reports a search on a closed connection as an empty one, and
// "the connection is gone" must never look like "there is no such account".
func (dc *DC) search(ctx context.Context, request *ldap.SearchRequest) (*ldap.SearchResult, error) {
	if len(dc.lanes) > 1 && ldap.FindControl(request.Controls, ldap.ControlTypePaging) == nil && ldap.FindControl(request.Controls, ldap.ControlTypeDirSync) == nil {
		return dc.race(ctx, request)
	}
	return await(ctx, func() (*ldap.SearchResult, error) { return dc.lanes[0].conn.Search(request) })
}

// await runs one exchange until it ends or ctx does, and sorts its errors. An
// exchange left behind ends by its own timeout or with the connection.
func await[T any](ctx context.Context, exchange func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	done := make(chan answer, 1)
	go func() {
		value, err := exchange()
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		if a.err != nil {
			return none, classify(a.err)
		}
		return a.value, nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// classify tells an answer of the DC from having none. go-ldap gives its own
// troubles codes from 200 up, or none at all (a failed write, for instance).
//
// busy, unavailable and timeLimitExceeded (by a lock that was not given in time,
// too) are of the moment, and say nothing about what was asked. Two codes are
// not among them, though they may be of the moment as well: operationsError is
// also what Samba says about a record that it cannot read, or to a request that
// it does not understand, and adminLimitExceeded to one that is too much for its
// settings. Those come again with the same question, and whoever dialled anew
// because of them would have one account hold up all the others.
func classify(err error) error {
	var answer *ldap.Error
	switch {
	case !errors.As(err, &answer):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case answer.ResultCode == ldap.LDAPResultNoSuchObject:
		return ErrNotFound
	}
	switch answer.ResultCode {
	case ldap.LDAPResultBusy, ldap.LDAPResultUnavailable, ldap.LDAPResultTimeLimitExceeded, ldap.ErrorNetwork,
		ldap.ErrorUnexpectedMessage, ldap.ErrorUnexpectedResponse, ldap.ErrorMalformedPacket:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
