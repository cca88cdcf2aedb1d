package microsoft

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/misbehave"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/token"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	tokenLife     = time.Hour - time.Second
	shortLife     = 5 * time.Second
	skew          = 5 * time.Minute
)

// authority answers what in the real world login.microsoftonline.com does.
func (s *Server) authority(w http.ResponseWriter, c call) {
	r := c.request
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case rest != "v2.0/.well-known/openid-configuration" && rest != "oauth2/v2.0/token":
		s.violateAs(c, reply(http.StatusNotFound, map[string]any{}), "there is no such route").Write(w)
	case !strings.EqualFold(tenant, s.TenantID) && !s.Store.HasDomain(state.Microsoft, tenant):
		s.violateAs(c, grantFailure(c, http.StatusBadRequest, "invalid_request", 90002,
			"Tenant '"+tenant+"' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."),
			"there is no tenant "+tenant).Write(w)
	case rest == "v2.0/.well-known/openid-configuration":
		s.Store.Count(state.Microsoft, "GET openid-configuration", "")
		if r.Method != http.MethodGet {
			s.violate(c, "openid-configuration takes GET only").Write(w)
			return
		}
		s.configuration(tenant).Write(w)
	default:
		c.operation, c.point = "token", misbehave.Token
		s.Store.Count(state.Microsoft, c.operation, "")
		bearer, refused := s.grant(c, tenant)
		if refused != nil {
			refused.Write(w)
			return
		}
		c.bearer = bearer
		s.answer(w, c, func() misbehave.Reply { return s.issue(c.bearer, tokenLife) })
	}
}

// configuration is OpenID Connect's discovery document.
func (s *Server) configuration(tenant string) misbehave.Reply {
	base := s.URL + "/" + tenant
	return reply(http.StatusOK, map[string]any{
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"},
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"issuer":                                s.URL + "/" + s.TenantID + "/v2.0",
		"response_types_supported":              []string{"code", "id_token", "code id_token", "id_token token"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"tenant_region_scope":                   "EU",
	})
}

func (s *Server) issue(bearer token.Bearer, life time.Duration) misbehave.Reply {
	bearer.Expires = time.Now().Add(life)
	seconds := int(life / time.Second)
	return reply(http.StatusOK, map[string]any{
		"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": s.Mint.Issue(bearer),
	})
}

// grant judges a request for an access token. Wrong credentials are no
// violation: they may be misconfigured. A wrong form of the request is one.
func (s *Server) grant(c call, tenant string) (token.Bearer, *misbehave.Reply) {
	r := c.request
	refuse := func(status int, code string, aadsts int, description string) (token.Bearer, *misbehave.Reply) {
		return token.Bearer{}, new(grantFailure(c, status, code, aadsts, description))
	}
	violate := func(status int, code string, aadsts int, description string) (token.Bearer, *misbehave.Reply) {
		return token.Bearer{}, new(s.violateAs(c, grantFailure(c, status, code, aadsts, description), description))
	}

	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Method != http.MethodPost || err != nil || kind != "application/x-www-form-urlencoded" {
		return violate(http.StatusBadRequest, "invalid_request", 900561, "The endpoint only accepts POST requests.")
	}
	form, err := url.ParseQuery(string(c.body))
	if err != nil || r.URL.RawQuery != "" {
		return violate(http.StatusBadRequest, "invalid_request", 90014, "The form cannot be parsed.")
	}
	if form.Get("grant_type") != "client_credentials" {
		return violate(http.StatusBadRequest, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '"+form.Get("grant_type")+"'.")
	}
	if id := form.Get("client_id"); !strings.EqualFold(id, s.ClientID) {
		return refuse(http.StatusBadRequest, "unauthorized_client", 700016, "Application with identifier '"+id+"' was not found in the directory 'Sandbox'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.")
	}

	// Beside the resource, client libraries ask for the scopes of OpenID.
	scopes := slices.DeleteFunc(strings.Fields(form.Get("scope")), func(scope string) bool {
		return scope == "openid" || scope == "profile" || scope == "offline_access"
	})
	if len(scopes) != 1 || !strings.HasSuffix(scopes[0], "/.default") {
		return violate(http.StatusBadRequest, "invalid_scope", 1002012, "The provided value for scope "+strings.Join(scopes, " ")+" is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).")
	}
	if resource := strings.TrimSuffix(scopes[0], "/.default"); resource != s.URL && resource != "https://graph.microsoft.com" {
		return violate(http.StatusBadRequest, "invalid_resource", 500011, "The resource principal named "+resource+" was not found in the tenant named Sandbox.")
	}

	switch {
	case form.Has("client_secret"):
		if subtle.ConstantTimeCompare([]byte(form.Get("client_secret")), []byte(s.Secret)) != 1 {
			return token.Bearer{}, new(s.badSecret(c))
		}
	case form.Get("client_assertion_type") == assertionType:
		if reason := s.assertion(form.Get("client_assertion"), tenant); reason != "" {
			return token.Bearer{}, new(s.badAssertion(c, reason))
		}
	default:
		return violate(http.StatusUnauthorized, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	}
	return token.Bearer{
		Cloud: string(state.Microsoft), Client: s.ClientID, Scopes: scopes,
		Audience: strings.TrimSuffix(scopes[0], "/.default"), Roles: []string{"User-PasswordProfile.ReadWrite.All", "User.Read.All"},
	}, nil
}

// audience is a claim that is one string or a list of them.
type audience []string

func (a *audience) UnmarshalJSON(data []byte) error {
	var one string
	if err := json.Unmarshal(data, &one); err == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// assertion says what is wrong with a client assertion.
func (s *Server) assertion(compact, tenant string) string {
	signed, err := token.Parse(compact)
	if err != nil {
		return err.Error()
	}
	thumbprint := sha256.Sum256(s.Certificate.Raw)
	// RFC 7515 wants base64url here; Microsoft's own library sends plain base64,
	// and Microsoft takes both.
	given := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(signed.Header.Thumbprint), "=")
	if given != base64.RawURLEncoding.EncodeToString(thumbprint[:]) {
		return "The certificate with identifier used to sign the client assertion is not registered on application."
	}
	key, ok := s.Certificate.PublicKey.(*rsa.PublicKey)
	if !ok || signed.Verify(key, "PS256", "RS256") != nil {
		return "The provided signature value did not match the expected signature value."
	}
	var cl struct {
		Issuer    string   `json:"iss"`
		Subject   string   `json:"sub"`
		Audience  audience `json:"aud"`
		ID        string   `json:"jti"`
		NotBefore int64    `json:"nbf"`
		Expires   int64    `json:"exp"`
	}
	if err := signed.Claims(&cl); err != nil {
		return err.Error()
	}
	endpoint := func(tenant string) string { return s.URL + "/" + tenant + "/oauth2/v2.0/token" }
	now := time.Now()
	switch {
	case cl.Issuer != s.ClientID || cl.Subject != s.ClientID:
		return "The issuer and the subject are not the application."
	case len(cl.Audience) != 1 || cl.Audience[0] != endpoint(tenant) && cl.Audience[0] != endpoint(s.TenantID):
		return "The audience is not the token endpoint."
	case cl.ID == "":
		return "The assertion has no jti."
	case !time.Unix(cl.Expires, 0).After(now.Add(-skew)) || time.Unix(cl.NotBefore, 0).After(now.Add(skew)):
		return "The assertion is not within its valid time range."
	}
	return ""
}

func (s *Server) badSecret(c call) misbehave.Reply {
	return grantFailure(c, http.StatusUnauthorized, "invalid_client", 7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '"+s.ClientID+"'.")
}

func (s *Server) badAssertion(c call, reason string) misbehave.Reply {
	return grantFailure(c, http.StatusUnauthorized, "invalid_client", 700027, "Client assertion failed signature validation. [Reason - "+reason+"]")
}

// grantFailure is an error of the token endpoint.
func grantFailure(c call, status int, code string, aadsts int, description string) misbehave.Reply {
	now := time.Now().UTC().Format("2006-01-02 15:04:05Z")
	correlation := c.request.Header.Get("client-request-id")
	if correlation == "" {
		correlation = c.id
	}
	return reply(status, map[string]any{
		"error": code,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			aadsts, description, c.id, correlation, now),
		"error_codes":    []int{aadsts},
		"timestamp":      now,
		"trace_id":       c.id,
		"correlation_id": correlation,
		"error_uri":      "https://login.microsoftonline.com/error?code=" + strconv.Itoa(aadsts),
	})
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
	case "invalid-client", "401":
		return s.badSecret(c)
	case "expired-secret":
		return grantFailure(c, http.StatusUnauthorized, "invalid_client", 7000222, "The provided client secret keys for app '"+s.ClientID+"' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds.")
	case "unknown-certificate":
		return s.badAssertion(c, "The certificate with identifier used to sign the client assertion is not registered on application.")
	case "invalid-grant":
		return grantFailure(c, http.StatusBadRequest, "invalid_grant", 53003, "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.")
	case "429":
		return grantFailure(c, http.StatusTooManyRequests, "temporarily_unavailable", 90055, "The server has terminated the request because there are too many requests.")
	case "503", "504":
		status, _ := strconv.Atoi(kind)
		return grantFailure(c, status, "temporarily_unavailable", 90033, "A transient error has occurred. Please try again.")
	case "echo":
		return grantFailure(c, http.StatusBadRequest, "invalid_request", 90014, "The request cannot be understood: "+string(c.body))
	}
	return grantFailure(c, http.StatusInternalServerError, "server_error", 90020, "An internal error occurred.")
}
