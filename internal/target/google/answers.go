package google

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/samba-pwsync/samba-pwsync/internal/cloud"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// api is how the Directory API says no: {"error": {"code", "message", "errors": [{"reason"}], "status"}}.
var api = cloud.Vendor{
	Read: func(body []byte) (code, message string) {
		var answer struct {
			Error struct {
				Message, Status string
				Errors          []struct{ Reason string }
			}
		}
		if json.Unmarshal(body, &answer) != nil {
			return "", ""
		}
		if code = answer.Error.Status; len(answer.Error.Errors) > 0 {
			code = answer.Error.Errors[0].Reason
		}
		return code, answer.Error.Message
	},
	Known: func(code string) bool { return slices.Contains(reasons, code) },
}

// reasons are those of the Directory API and of Google's APIs in general, and the status words of those that answer in the
// newer style.
var reasons = []string{
	"accessNotConfigured", "authError", "backendError", "badGateway", "badRequest", "conditionNotMet", "conflict",
	"dailyLimitExceeded", "domainCannotUseApis", "duplicate", "expired", "failedPrecondition", "forbidden", "gatewayTimeout",
	"insufficientPermissions", "internalError", "invalid", "invalidParameter", "invalidQuery", "limitExceeded", "notFound",
	"parseError", "quotaExceeded", "rateLimitExceeded", "required", "resourceNotFound", "serviceNotAvailable",
	"servingLimitExceeded", "transientError", "unauthorized", "unknownError", "userRateLimitExceeded",
	"ABORTED", "FAILED_PRECONDITION", "INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"UNAUTHENTICATED", "UNAVAILABLE",
}

// scope is the one that users.update needs.
const scope = "https://www.googleapis.com/auth/admin.directory.user"

// isForbidden: we, or only for this user?
func isForbidden(r *cloud.Refusal) bool {
	return r != nil && r.Status == http.StatusForbidden && (r.Code == "forbidden" || r.Code == "PERMISSION_DENIED")
}

// forbidden is what "forbidden" means in answer to users.update.
func forbidden(refusal *cloud.Refusal) error {
	return fmt.Errorf("%w: Google has no such address in this account, or it is an administrator's whose password our role may not reset; "+
		`if it is so for every user, give the role "Users: Update: Reset password" (%v)`, target.ErrForbidden, refusal)
}

// classifyUpdate is the meaning of an error of users.update other than "forbidden".
func classifyUpdate(err error) error {
	refusal := cloud.Refused(err)
	if refusal == nil {
		return cloud.Classify(err)
	}
	switch {
	case refusal.Status == http.StatusNotFound && refusal.Vendors:
		return fmt.Errorf("%w: this account has no such address (%v)", target.ErrNoUser, refusal)
	case refusal.Status == http.StatusBadRequest && refusal.Vendors && refusal.Says("userKey"):
		return fmt.Errorf("%w: Google does not take the name for an address (%v)", target.ErrNoUser, refusal)
	case refusal.Status == http.StatusBadRequest && refusal.Vendors && refusal.Says("password"):
		return fmt.Errorf("%w: invalid password (%v)", target.ErrRejected, refusal)
	case refusal.Status == http.StatusBadRequest && refusal.Vendors:
		return fmt.Errorf("%w: (%v)", target.ErrRejected, refusal)
	}
	return classifyCall(err, refusal)
}

// classifyCall is the meaning of a refusal of any call.
func classifyCall(err error, refusal *cloud.Refusal) error {
	switch refusal.Code {
	case "userRateLimitExceeded", "quotaExceeded", "rateLimitExceeded", "RESOURCE_EXHAUSTED":
		return cloud.Throttled(refusal)
	case "accessNotConfigured":
		return fmt.Errorf("%w: enable the Admin SDK API in the Google Cloud project of the service account (%v)", target.ErrDenied, refusal)
	case "domainCannotUseApis":
		return fmt.Errorf("%w: allow API access in the Google Admin console: Security, API controls (%v)", target.ErrDenied, refusal)
	case "insufficientPermissions":
		return fmt.Errorf("%w: grant the scope %s (%v)", target.ErrDenied, scope, refusal)
	}
	return cloud.Classify(err)
}

// classifyProbe is the meaning of an error of users.get and users.list for a user that we ought to see.
func (t *Target) classifyProbe(err error) error {
	refusal := cloud.Refused(err)
	switch {
	case err == nil:
		return nil
	case refusal == nil:
		return cloud.Classify(err)
	case isForbidden(refusal) && t.subject == "":
		return fmt.Errorf("%w: assign an administrator role with \"Users: Read\" and \"Users: Update: Reset password\" to the service account, "+
			"or set subject (%v)", target.ErrDenied, refusal)
	case isForbidden(refusal):
		return fmt.Errorf("%w: give the administrator named by subject a role with \"Users: Read\" and \"Users: Update: Reset password\" (%v)",
			target.ErrDenied, refusal)
	case refusal.Status == http.StatusNotFound && refusal.Vendors:
		return fmt.Errorf("%w: subject is not a user of this account (%v)", target.ErrDenied, refusal)
	}
	return classifyCall(err, refusal)
}
