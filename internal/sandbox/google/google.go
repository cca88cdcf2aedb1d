// Package google is a double of what samba-pwsync uses of Google Workspace: the
// OAuth 2.0 token endpoint for service accounts and the users of the Admin SDK
// Directory API.
//
// It judges each request as the vendor's discovery document describes it (route,
// parameters, scope, body), keeps what was set, and answers in Google's own
// errors. The tenant has one service account, which acts for an
// administrator who may read users and reset passwords and nothing else.
//
// It does not search (the parameter query), does not change anything but
// passwords, and has no quotas of its own: those are faults, told to it.
package google

import (
	"crypto/rsa"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/contract"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/misbehave"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/token"
)

// Kinds are the faults that Google can have.
var Kinds = append([]misbehave.Kind{
	{Name: "userRateLimitExceeded", On: api, Help: "403: too many queries a minute for this user"},
	{Name: "quotaExceeded", On: api, Help: "403: too many requests at the same time"},
	{Name: "forbidden", On: api, Help: "403: wrong administrator, or an address of another tenant"},
	{Name: "domainCannotUseApis", On: api, Help: "403: the tenant has switched the API off"},
	{Name: "accessNotConfigured", On: api, Help: "403: the project has not switched the API on"},
	{Name: "insufficientPermissions", On: api, Help: "403: the token lacks the scope"},
	{Name: "unauthorized-client", On: []string{misbehave.Token}, Help: "the domain-wide delegation is gone"},
}, misbehave.Common...)

var api = []string{misbehave.Read, misbehave.Write}

// maxBody is more than any honest request needs.
const maxBody = 1 << 20

// A Server answers as Google does.
type Server struct {
	Store *state.Store
	Mint  *token.Mint

	// The service account, as its key file names it.
	ClientEmail string
	KeyID       string
	Key         *rsa.PublicKey
	TokenURL    string
	// AdminRole gives the service account an administrator role of its own, so
	// that it need not act for anybody.
	AdminRole bool

	// Trap is where redirects lead.
	Trap string
}

// A call is a request that was judged and may be answered.
type call struct {
	operation string // users.update
	point     string
	key       string // the userKey in the path
	request   *http.Request
	query     url.Values
	body      []byte
	received  time.Time
	bearer    token.Bearer
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := call{request: r, received: time.Now()}
	var err error
	if c.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		s.violate(r, "the body cannot be read: "+err.Error()).Write(w)
		return
	}
	if r.URL.Path == "/token" {
		s.token(w, c)
		return
	}
	refused := s.judge(&c)
	if c.operation != "" {
		s.Store.Count(state.Google, c.operation, c.key)
	}
	if refused != nil {
		refused.Write(w)
		return
	}
	s.answer(w, c, func() misbehave.Reply { return s.apply(c) })
}

// answer lets a fault strike, or does what was asked.
func (s *Server) answer(w http.ResponseWriter, c call, apply func() misbehave.Reply) {
	var user *state.User
	if u, ok := s.Store.Find(state.Google, c.key); ok {
		user = &u
	}
	fault, struck, err := s.Store.TakeFault(func(f state.Fault) bool {
		return misbehave.Strikes(f, Kinds, state.Google, c.point, c.key, user)
	})
	switch {
	case err != nil:
		failure(http.StatusInternalServerError, "backendError", err.Error()).Write(w)
	case struck:
		misbehave.Play(w, c.request, fault, s.Trap, apply, func(kind string) misbehave.Reply { return s.say(kind, c, fault) })
	default:
		apply().Write(w)
	}
}

// judge finds out what is asked and whether it may be; a non-nil reply refuses.
func (s *Server) judge(c *call) *misbehave.Reply {
	r := c.request
	method, refused := s.route(c)
	if refused != nil {
		return refused
	}
	bearer, err := s.Mint.Open(r.Header.Get("Authorization"))
	switch {
	case err == token.ErrExpired || err == nil && s.Store.Revoked(bearer.ID):
		return new(unauthorized())
	case err == nil && bearer.Cloud != string(state.Google):
		return new(s.violateAs(r, unauthorized(), "the token is another cloud's"))
	case err != nil:
		return new(s.violateAs(r, unauthorized(), err.Error()))
	}
	c.bearer = bearer
	if !overlap(bearer.Scopes, method.Scopes) {
		return new(s.violateAs(r, s.say("insufficientPermissions", *c, state.Fault{}), "the token's scope is not enough for "+c.operation))
	}
	if reason := parameters(c.query, method.Parameters); reason != "" {
		return new(s.violate(r, reason))
	}
	if c.point == misbehave.Write {
		if kind := r.Header.Get("Content-Type"); !contract.IsJSON(kind) {
			return new(s.violate(r, "the body's Content-Type is not application/json"))
		}
		if err := contract.GoogleUser().Check(c.body); err != nil {
			return new(s.violate(r, err.Error()))
		}
	} else if len(c.body) > 0 {
		return new(s.violate(r, "a GET has a body"))
	}
	return nil
}

// route finds the method of the discovery document that a request calls.
func (s *Server) route(c *call) (contract.Method, *misbehave.Reply) {
	r := c.request
	const users = "/admin/directory/v1/users"
	routes := contract.GoogleRoutes().Methods
	escaped, isUser := strings.CutPrefix(r.URL.EscapedPath(), users+"/")
	key, err := url.PathUnescape(escaped)
	known := isUser && escaped != "" && !strings.Contains(escaped, "/") && err == nil
	switch {
	case r.URL.Path == users && r.Method == routes["users.list"].Verb:
		c.operation, c.point = "users.list", misbehave.Read
	case known && r.Method == routes["users.get"].Verb:
		c.operation, c.point = "users.get", misbehave.Read
	case known && r.Method == routes["users.update"].Verb:
		c.operation, c.point = "users.update", misbehave.Write
	case known && r.Method == routes["users.patch"].Verb:
		c.operation, c.point = "users.patch", misbehave.Write
	default:
		return contract.Method{}, new(s.violateAs(r, failure(http.StatusNotFound, "notFound", "Not Found"), "there is no such route"))
	}
	if known {
		c.key = key
	}
	if c.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return contract.Method{}, new(s.violate(r, "the query cannot be parsed"))
	}
	return routes[c.operation], nil
}

// violate notes a request that breaks the contract, and answers 400.
func (s *Server) violate(r *http.Request, reason string) misbehave.Reply {
	return s.violateAs(r, failure(http.StatusBadRequest, "badRequest", "Invalid JSON payload received. "+reason), reason)
}

func (s *Server) violateAs(r *http.Request, answer misbehave.Reply, reason string) misbehave.Reply {
	if err := s.Store.Violate(state.Violation{
		Time: time.Now(), Cloud: state.Google, Request: r.Method + " " + r.URL.EscapedPath(), Reason: reason,
	}); err != nil {
		return failure(http.StatusInternalServerError, "backendError", err.Error())
	}
	return answer
}
