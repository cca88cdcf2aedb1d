package entra

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/samba-pwsync/samba-pwsync/internal/cloud"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// api is how Graph says no: {"error": {"code", "message"}}.
var api = cloud.Vendor{
	Read: func(body []byte) (code, message string) {
		var answer struct {
			Error struct{ Code, Message string }
		}
		if json.Unmarshal(body, &answer) != nil {
			return "", ""
		}
		return answer.Error.Code, answer.Error.Message
	},
	Known:     func(code string) bool { return slices.Contains(codes, code) },
	NoContent: http.MethodPatch,
}

// codes are Graph's own and those of the directory behind it.
var codes = []string{
	"accessDenied", "AccessDenied", "activityLimitReached", "Authentication_ExpiredToken", "Authentication_MissingOrMalformed",
	"Authentication_Unauthorized", "Authorization_IdentityDisabled", "Authorization_IdentityNotFound", "Authorization_RequestDenied",
	"badRequest", "BadRequest", "Directory_BindingRedirection", "Directory_CompanyNotFound", "Directory_ConcurrencyViolation",
	"Directory_ObjectNotFound", "Directory_QuotaExceeded", "Directory_ReplicaUnavailable", "Forbidden", "GatewayTimeout",
	"generalException", "InternalServerError", "InvalidAuthenticationToken", "invalidRequest", "MethodNotAllowed", "notAllowed",
	"notSupported", "PreconditionFailed", "Request_BadRequest", "Request_MultipleObjectsWithSameKeyValue",
	"Request_ResourceNotFound", "Request_ThrottledTemporarily", "Request_UnsupportedQuery", "ResourceNotFound",
	"Service_InternalServerError", "serviceNotAvailable", "ServiceUnavailable", "TooManyRequests", "unauthenticated",
	"Unauthorized", "UnknownError",
}

// grant is the advice for the application that may not write.
const grant = "grant the application the permission User-PasswordProfile.ReadWrite.All of Microsoft Graph (type Application), with admin consent"

// grantReading is that for the one that cannot read users.
const grantReading = "to have them confirmed, grant the application the permission User.Read.All of Microsoft Graph (type Application) besides"

func isDenied(r *cloud.Refusal) bool {
	return r != nil && r.Status == http.StatusForbidden && r.Code == "Authorization_RequestDenied"
}

// classifyUpdate is the meaning of an error of PATCH /users/{id}.
func (t *Target) classifyUpdate(err error) error {
	refusal := cloud.Refused(err)
	if refusal == nil || !refusal.Vendors {
		return cloud.Classify(err)
	}
	switch {
	case isDenied(refusal):
		return t.whoseFault(refusal)
	case refusal.Status == http.StatusNotFound:
		return fmt.Errorf("%w: the tenant has no such user (%v)", target.ErrNoUser, refusal)
	case refusal.Status != http.StatusBadRequest || refusal.Code == "Directory_ConcurrencyViolation":
		return classifyCall(err)
	case refusal.Says("on-premises mastered"):
		return fmt.Errorf("%w: it is synced by another agent (onPremisesSyncEnabled), so its password is not Entra's (%v)", target.ErrNoUser, refusal)
	case refusal.Says("federated"):
		return fmt.Errorf("%w: its domain is federated, so its password is not Entra's (%v)", target.ErrNoUser, refusal)
	case refusal.Says("password"):
		return fmt.Errorf("%w: not complex enough, or on Microsoft's or the tenant's list of banned passwords (%v)", target.ErrRejected, refusal)
	default:
		return fmt.Errorf("%w: Graph does not take the request (%v)", target.ErrRejected, refusal)
	}
}

// whoseFault tells from the access token what 403 means.
func (t *Target) whoseFault(refusal *cloud.Refusal) error {
	if t.claims.Load().allow() || t.unclaimed.Load() {
		return fmt.Errorf("%w: it is out of our reach: an administrator's account, one in a restricted administrative unit, or "+
			"a member of a group that can be given roles (%v)", target.ErrNoUser, refusal)
	}
	t.refused.Store(true)
	return fmt.Errorf("%w: %s (%v)", target.ErrForbidden, grant, refusal)
}

// classifyCall is the meaning of an error of any call.
func classifyCall(err error) error {
	if refusal := cloud.Refused(err); refusal != nil && refusal.Vendors && refusal.Status == http.StatusForbidden {
		return fmt.Errorf("%w: Graph does not let the application in: look at it in the Entra admin centre, under Enterprise applications (%v)",
			target.ErrDenied, refusal)
	}
	return cloud.Classify(err)
}
