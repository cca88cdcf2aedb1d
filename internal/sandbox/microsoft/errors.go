package microsoft

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/misbehave"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
)

// failure is an error of Graph in its form.
func failure(c call, status int, code, message string) misbehave.Reply {
	return reply(status, map[string]any{"error": map[string]any{
		"code": code, "message": message, "innerError": inner(c),
	}})
}

func inner(c call) map[string]any {
	client := c.request.Header.Get("client-request-id")
	if client == "" {
		client = c.id
	}
	return map[string]any{
		"date":              time.Now().UTC().Format("2006-01-02T15:04:05"),
		"request-id":        c.id,
		"client-request-id": client,
	}
}

func unauthorized(c call, message string) misbehave.Reply {
	answer := failure(c, http.StatusUnauthorized, "InvalidAuthenticationToken", message)
	answer.Header.Set("WWW-Authenticate", `Bearer realm=""`)
	return answer
}

func denied(c call) misbehave.Reply {
	return failure(c, http.StatusForbidden, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
}

func notFound(c call) misbehave.Reply {
	return failure(c, http.StatusNotFound, "Request_ResourceNotFound",
		"Resource '"+c.key+"' does not exist or one of its queried reference-property objects are not present.")
}

func weak(c call) misbehave.Reply {
	return failure(c, http.StatusBadRequest, "Request_BadRequest",
		"The specified password does not comply with password complexity requirements. Please provide a different password.")
}

// say is what Microsoft answers when it has a fault.
func (s *Server) say(kind string, c call, fault state.Fault) misbehave.Reply {
	if c.point == misbehave.Token {
		return s.sayToken(kind, c, fault)
	}
	switch kind {
	case "401":
		return unauthorized(c, "Access token validation failure.")
	case "expired-token":
		if err := s.Store.Revoke(c.bearer.ID); err != nil {
			return failure(c, http.StatusInternalServerError, "InternalServerError", err.Error())
		}
		return unauthorized(c, "Access token has expired or is not yet valid.")
	case "claims-challenge":
		return s.challenge(c)
	case "Authorization_RequestDenied":
		return denied(c)
	case "404":
		return notFound(c)
	case "409":
		return failure(c, http.StatusConflict, "Directory_ConcurrencyViolation", "A concurrency violation has occurred for the requested operation.")
	case "412":
		return failure(c, http.StatusPreconditionFailed, "PreconditionFailed", "The precondition is not met.")
	case "429":
		in := inner(c)
		in["code"], in["status"], in["message"] = "429", "429", "Please retry after"
		return reply(http.StatusTooManyRequests, map[string]any{"error": map[string]any{
			"code": "TooManyRequests", "innerError": in, "message": "Please retry again later.",
		}})
	case "503":
		return failure(c, http.StatusServiceUnavailable, "ServiceUnavailable", "Service is temporarily unavailable. Please wait and try again.")
	case "504":
		return failure(c, http.StatusGatewayTimeout, "GatewayTimeout", "The server did not respond in time.")
	case "echo":
		return failure(c, http.StatusBadRequest, "Request_BadRequest", "Invalid value in the request: "+string(c.body))
	}
	return failure(c, http.StatusInternalServerError, "InternalServerError", "An internal server error occurred.")
}

// challenge is continuous access evaluation: the token of this request is not
// taken any more, and the next one must be asked for with these claims.
func (s *Server) challenge(c call) misbehave.Reply {
	if err := s.Store.Revoke(c.bearer.ID); err != nil {
		return failure(c, http.StatusInternalServerError, "InternalServerError", err.Error())
	}
	answer := unauthorized(c, "Continuous access evaluation resulted in challenge with result: InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp")
	claims := fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, time.Now().Unix())
	answer.Header.Set("WWW-Authenticate", fmt.Sprintf(
		`Bearer realm="", authorization_uri="%s/common/oauth2/authorize", error="insufficient_claims", claims="%s"`,
		s.URL, base64.StdEncoding.EncodeToString([]byte(claims))))
	return answer
}
