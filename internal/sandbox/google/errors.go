package google

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/misbehave"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
)

// failure is an error of the API in Google's form.
func failure(status int, reason, message string) misbehave.Reply {
	return detailed(status, map[string]any{"message": message, "domain": domain(reason), "reason": reason})
}

func detailed(status int, detail map[string]any) misbehave.Reply {
	return reply(status, map[string]any{"error": map[string]any{
		"code": status, "message": detail["message"], "errors": []any{detail},
	}})
}

func domain(reason string) string {
	switch reason {
	case "userRateLimitExceeded", "quotaExceeded", "rateLimitExceeded", "accessNotConfigured":
		return "usageLimits"
	}
	return "global"
}

func unauthorized() misbehave.Reply {
	answer := detailed(http.StatusUnauthorized, map[string]any{
		"message": "Invalid Credentials", "domain": "global", "reason": "authError",
		"locationType": "header", "location": "Authorization",
	})
	answer.Header.Set("WWW-Authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`)
	return answer
}

func refusal() misbehave.Reply {
	return failure(http.StatusForbidden, "forbidden", "Not Authorized to access this resource/api")
}

func noUser() misbehave.Reply {
	return failure(http.StatusNotFound, "notFound", "Resource Not Found: userKey")
}

// grantFailure is an error of the token endpoint.
func grantFailure(status int, code, description string) misbehave.Reply {
	return reply(status, map[string]any{"error": code, "error_description": description})
}

// say is what Google answers when it has a fault.
func (s *Server) say(kind string, c call, fault state.Fault) misbehave.Reply {
	if c.point == misbehave.Token {
		return s.sayToken(kind, c, fault)
	}
	switch kind {
	case "401":
		return unauthorized()
	case "expired-token":
		if err := s.Store.Revoke(c.bearer.ID); err != nil {
			return failure(http.StatusInternalServerError, "backendError", err.Error())
		}
		return unauthorized()
	case "userRateLimitExceeded":
		return failure(http.StatusForbidden, kind, "User Rate Limit Exceeded. Rate of requests for user exceed configured project quota, you may consider re-evaluating expected per-user traffic to the API and adjust project quota limits accordingly.")
	case "quotaExceeded":
		return failure(http.StatusForbidden, kind, "Request rate higher than configured.")
	case "forbidden":
		return refusal()
	case "domainCannotUseApis":
		return failure(http.StatusForbidden, kind, "Domain cannot use apis.")
	case "accessNotConfigured":
		return failure(http.StatusForbidden, kind, "Admin SDK API has not been used in project 0 before or it is disabled.")
	case "insufficientPermissions":
		return failure(http.StatusForbidden, kind, "Request had insufficient authentication scopes.")
	case "404":
		return noUser()
	case "409":
		return failure(http.StatusConflict, "conflict", "Conflicting requests.")
	case "412":
		return failure(http.StatusPreconditionFailed, "conditionNotMet", "User creation is not complete.")
	case "429":
		return failure(http.StatusTooManyRequests, "rateLimitExceeded", "Rate Limit Exceeded")
	case "503":
		return failure(http.StatusServiceUnavailable, "backendError", "Service unavailable. Please try again")
	case "504":
		return failure(http.StatusGatewayTimeout, "gatewayTimeout", "Gateway Timeout")
	case "echo":
		return failure(http.StatusBadRequest, "invalid", "Invalid Input: "+string(c.body))
	}
	return failure(http.StatusInternalServerError, "backendError", "Internal error encountered.")
}

func reply(status int, body any) misbehave.Reply {
	text, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("writing answer: %v", err)) // maps of strings: cannot fail
	}
	return misbehave.Reply{Status: status, Header: http.Header{
		"Content-Type": {"application/json; charset=UTF-8"},
		"Date":         {time.Now().UTC().Format(http.TimeFormat)},
	}, Body: text}
}
