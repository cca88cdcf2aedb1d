// Package microsoft is a double of what samba-pwsync uses of Microsoft: Entra's
// token endpoint for applications, and users, domains and organization of
// Microsoft Graph v1.0.
//
// It judges each request against Microsoft's own CSDL, a password against the
// rules that Microsoft documents, and answers in Graph's own errors. The tenant
// has one application with a secret and a certificate, which may read users and
// write password profiles and nothing else. Authority and Graph share a host.
//
// It knows filters of the form "property eq 'value'" only, no batches, no
// $expand and no throttling of its own: that is a fault, told to it. Microsoft's
// global list of banned passwords is not published; a few stand in for it.
package microsoft

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/contract"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/misbehave"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/token"
)

// Kinds are the faults that Microsoft can have.
var Kinds = append([]misbehave.Kind{
	{Name: "Authorization_RequestDenied", On: api, Help: "403: not allowed; the token says that the application is, so it is this user"},
	{Name: "claims-challenge", On: api, Help: "401: continuous access evaluation wants a new token"},
	{Name: "expired-secret", On: []string{misbehave.Token}, Help: "AADSTS7000222: the client secret has expired"},
	{Name: "unknown-certificate", On: []string{misbehave.Token}, Help: "AADSTS700027: the certificate is not registered"},
}, misbehave.Common...)

var api = []string{misbehave.Read, misbehave.Write}

// maxBody is more than any honest request needs.
const maxBody = 1 << 20

// A Server answers as Microsoft does.
type Server struct {
	Store *state.Store
	Mint  *token.Mint

	TenantID    string
	ClientID    string
	Secret      string
	Certificate *x509.Certificate
	// URL is https://host:port, of authority and Graph alike.
	URL string

	// Trap is where redirects lead.
	Trap string
}

// A call is a request that was judged and may be answered.
type call struct {
	operation string // "PATCH users/{id}"
	point     string
	key       string // of the user or the domain in the path
	request   *http.Request
	id        string // request-id
	query     url.Values
	body      []byte
	received  time.Time
	bearer    token.Bearer
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := call{request: r, id: NewID(), received: time.Now()}
	w.Header().Set("request-id", c.id)
	if id := r.Header.Get("client-request-id"); id != "" {
		w.Header().Set("client-request-id", id)
	}
	var err error
	if c.body, err = readBody(w, r); err != nil {
		s.violate(c, err.Error()).Write(w)
		return
	}
	if !strings.HasPrefix(r.URL.Path, "/v1.0/") {
		s.authority(w, c)
		return
	}
	refused := s.judge(&c)
	if c.operation != "" {
		s.Store.Count(state.Microsoft, c.operation, c.key)
	}
	if refused != nil {
		refused.Write(w)
		return
	}
	s.answer(w, c, func() misbehave.Reply { return s.apply(c) })
}

// readBody also undoes gzip, which Microsoft's client libraries may apply. A
// body that only claims to be compressed is an error, as it is in the real one.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("the body cannot be read: %w", err)
	}
	switch r.Header.Get("Content-Encoding") {
	case "":
		return body, nil
	case "gzip":
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, errors.New("the body is said to be gzip and is not")
		}
		if body, err = io.ReadAll(io.LimitReader(z, maxBody)); err != nil {
			return nil, errors.New("the body is said to be gzip and is not")
		}
		return body, nil
	}
	return nil, errors.New("the Content-Encoding is neither absent nor gzip")
}

// answer lets a fault strike, or does what was asked.
func (s *Server) answer(w http.ResponseWriter, c call, apply func() misbehave.Reply) {
	var user *state.User
	if u, ok := s.Store.Find(state.Microsoft, c.key); ok {
		user = &u
	}
	fault, struck, err := s.Store.TakeFault(func(f state.Fault) bool {
		return misbehave.Strikes(f, Kinds, state.Microsoft, c.point, c.key, user)
	})
	switch {
	case err != nil:
		failure(c, http.StatusInternalServerError, "InternalServerError", err.Error()).Write(w)
	case struck:
		misbehave.Play(w, c.request, fault, s.Trap, apply, func(kind string) misbehave.Reply { return s.say(kind, c, fault) })
	default:
		apply().Write(w)
	}
}

// parameters are what may follow the question mark, of each operation.
var parameters = map[string][]string{
	"GET users":        {"$select", "$filter", "$top", "$count"},
	"GET users/{id}":   {"$select"},
	"PATCH users/{id}": {},
	"GET domains/{id}": {"$select"},
	"GET organization": {"$select"},
}

// judge finds out what is asked and whether it may be; a non-nil reply refuses.
func (s *Server) judge(c *call) *misbehave.Reply {
	r := c.request
	if refused := s.route(c); refused != nil {
		return refused
	}
	bearer, err := s.Mint.Open(r.Header.Get("Authorization"))
	switch {
	case err == token.ErrExpired || err == nil && s.Store.Revoked(bearer.ID):
		return new(unauthorized(*c, "Access token has expired or is not yet valid."))
	case err == nil && bearer.Cloud != string(state.Microsoft):
		return new(s.violateAs(*c, unauthorized(*c, "Access token validation failure. Invalid audience."), "the token is another cloud's"))
	case err != nil:
		return new(s.violateAs(*c, unauthorized(*c, "Access token is empty."), err.Error()))
	}
	c.bearer = bearer
	for name, values := range c.query {
		if !slices.Contains(parameters[c.operation], name) {
			return new(s.violate(*c, fmt.Sprintf("there is no query parameter %q for %s", name, c.operation)))
		}
		if len(values) > 1 {
			return new(s.violate(*c, fmt.Sprintf("the query parameter %s stands twice", name)))
		}
	}
	if c.point == misbehave.Write {
		if !contract.IsJSON(r.Header.Get("Content-Type")) {
			return new(s.violate(*c, "the body's Content-Type is not application/json"))
		}
		if err := contract.MicrosoftUser().Check(c.body); err != nil {
			return new(s.violate(*c, err.Error()))
		}
	} else if len(c.body) > 0 {
		return new(s.violate(*c, "a GET has a body"))
	}
	return nil
}

// route finds the operation that a request calls.
func (s *Server) route(c *call) *misbehave.Reply {
	r := c.request
	path := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/v1.0/"), "/")
	name := r.Method + " " + path[0]
	if len(path) == 2 && path[1] != "" {
		name += "/{id}"
	} else if len(path) != 1 {
		name = ""
	}
	if _, known := parameters[name]; !known {
		return new(s.violateAs(*c, failure(*c, http.StatusBadRequest, "BadRequest",
			"Resource not found for the segment '"+path[0]+"'."), "there is no such route"))
	}
	c.operation, c.point = name, misbehave.Read
	if r.Method == http.MethodPatch {
		c.point = misbehave.Write
	}
	var err error
	if len(path) == 2 {
		if c.key, err = url.PathUnescape(path[1]); err != nil {
			return new(s.violate(*c, "the path cannot be unescaped"))
		}
	}
	if c.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return new(s.violate(*c, "the query cannot be parsed"))
	}
	return nil
}

// violate notes a request that breaks the contract, and answers 400.
func (s *Server) violate(c call, reason string) misbehave.Reply {
	return s.violateAs(c, failure(c, http.StatusBadRequest, "BadRequest", "Invalid request: "+reason), reason)
}

func (s *Server) violateAs(c call, answer misbehave.Reply, reason string) misbehave.Reply {
	if err := s.Store.Violate(state.Violation{
		Time: time.Now(), Cloud: state.Microsoft,
		Request: c.request.Method + " " + c.request.URL.EscapedPath(), Reason: reason,
	}); err != nil {
		return failure(c, http.StatusInternalServerError, "InternalServerError", err.Error())
	}
	return answer
}

func reply(status int, body any) misbehave.Reply {
	text, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("writing answer: %v", err)) // maps of strings: cannot fail
	}
	return misbehave.Reply{Status: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: text}
}

// NewID is a new object's id: a random UUID (RFC 9562, version 4).
func NewID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
