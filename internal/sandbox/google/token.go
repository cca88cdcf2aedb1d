package google

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/misbehave"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/token"
)

// Scopes are those that the tenant's administrator has granted to the service
// account.
var Scopes = []string{
	"https://www.googleapis.com/auth/admin.directory.user",
	"https://www.googleapis.com/auth/admin.directory.user.readonly",
}

const (
	jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	hour      = time.Hour
	skew      = 10 * time.Second
	shortLife = 5 * time.Second
)

type claims struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Principal string `json:"prn"` // the old name of sub, which Google's library sends as well
	Scope     string `json:"scope"`
	Audience  string `json:"aud"`
	IssuedAt  int64  `json:"iat"`
	Expires   int64  `json:"exp"`
}

// token answers a request for an access token (RFC 7523, section 2.1).
func (s *Server) token(w http.ResponseWriter, c call) {
	c.operation, c.point = "token", misbehave.Token
	s.Store.Count(state.Google, c.operation, "")
	bearer, refused := s.grant(c)
	if refused != nil {
		refused.Write(w)
		return
	}
	c.bearer = bearer
	s.answer(w, c, func() misbehave.Reply { return s.issue(c.bearer, hour) })
}

func (s *Server) issue(bearer token.Bearer, life time.Duration) misbehave.Reply {
	bearer.Expires = time.Now().Add(life)
	return reply(http.StatusOK, map[string]any{
		"access_token": s.Mint.Issue(bearer), "expires_in": int(life / time.Second), "token_type": "Bearer",
	})
}

// grant judges the assertion. What the vendor refuses because of how things
// are (a user gone, a clock wrong) is no violation; what no client that uses the
// key file rightly can send, is.
func (s *Server) grant(c call) (token.Bearer, *misbehave.Reply) {
	r := c.request
	refuse := func(status int, code, description string) (token.Bearer, *misbehave.Reply) {
		return token.Bearer{}, new(grantFailure(status, code, description))
	}
	violate := func(status int, code, description string) (token.Bearer, *misbehave.Reply) {
		return token.Bearer{}, new(s.violateAs(r, grantFailure(status, code, description), description))
	}

	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Method != http.MethodPost || err != nil || kind != "application/x-www-form-urlencoded" {
		return violate(http.StatusBadRequest, "invalid_request", "Bad Request: not a POST of a form")
	}
	form, err := url.ParseQuery(string(c.body))
	if err != nil || r.URL.RawQuery != "" {
		return violate(http.StatusBadRequest, "invalid_request", "Bad Request: the form cannot be parsed")
	}
	if form.Get("grant_type") != jwtBearer {
		return violate(http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: "+form.Get("grant_type"))
	}
	signed, err := token.Parse(form.Get("assertion"))
	if err != nil {
		return violate(http.StatusBadRequest, "invalid_grant", "Invalid JWT: "+err.Error())
	}
	var cl claims
	if err := signed.Claims(&cl); err != nil {
		return violate(http.StatusBadRequest, "invalid_grant", "Invalid JWT: "+err.Error())
	}
	if cl.Issuer != s.ClientEmail {
		return violate(http.StatusBadRequest, "invalid_grant", "Invalid grant: account not found")
	}
	if err := signed.Verify(s.Key, "RS256"); err != nil || signed.Header.KeyID != s.KeyID {
		return violate(http.StatusBadRequest, "invalid_grant", "Invalid JWT Signature.")
	}
	if cl.Audience != s.TokenURL {
		return violate(http.StatusBadRequest, "invalid_grant", "Failed audience check. The right audience is "+s.TokenURL)
	}
	issued, expires, now := time.Unix(cl.IssuedAt, 0), time.Unix(cl.Expires, 0), time.Now()
	if expires.Sub(issued) > hour || issued.After(now.Add(skew)) || !expires.After(now) {
		return refuse(http.StatusBadRequest, "invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.")
	}
	scopes := strings.Fields(cl.Scope)
	if len(scopes) == 0 {
		return violate(http.StatusBadRequest, "invalid_scope", "Invalid OAuth scope or ID token audience provided.")
	}
	for _, scope := range scopes {
		if !slices.Contains(Scopes, scope) {
			return violate(http.StatusUnauthorized, "unauthorized_client", "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested.")
		}
	}
	if cl.Principal != "" && cl.Principal != cl.Subject {
		return violate(http.StatusBadRequest, "invalid_grant", "Invalid JWT: prn is not sub")
	}
	if cl.Subject != "" {
		user, ok := s.Store.Find(state.Google, cl.Subject)
		if !ok || user.Suspended {
			return refuse(http.StatusBadRequest, "invalid_grant", "Invalid email or User ID")
		}
	}
	return token.Bearer{Cloud: string(state.Google), Client: cl.Issuer, Subject: cl.Subject, Scopes: scopes}, nil
}

// sayToken is what the token endpoint answers when it has a fault.
func (s *Server) sayToken(kind string, c call, fault state.Fault) misbehave.Reply {
	switch kind {
	case "short-token":
		life := fault.Delay
		if life == 0 {
			life = shortLife
		}
		return s.issue(c.bearer, life)
	case "invalid-grant":
		return grantFailure(http.StatusBadRequest, "invalid_grant", "Invalid JWT Signature.")
	case "invalid-client", "401":
		return grantFailure(http.StatusUnauthorized, "invalid_client", "The OAuth client was not found.")
	case "unauthorized-client":
		return grantFailure(http.StatusUnauthorized, "unauthorized_client", "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested.")
	case "429":
		return grantFailure(http.StatusTooManyRequests, "rate_limit_exceeded", "Rate Limit Exceeded")
	case "503":
		return grantFailure(http.StatusServiceUnavailable, "temporarily_unavailable", "Service unavailable. Please try again")
	case "504":
		return grantFailure(http.StatusGatewayTimeout, "internal_failure", "Gateway Timeout")
	case "echo":
		return grantFailure(http.StatusBadRequest, "invalid_request", fmt.Sprintf("Bad Request: %s", c.body))
	}
	return grantFailure(http.StatusInternalServerError, "internal_failure", "Internal error encountered.")
}
