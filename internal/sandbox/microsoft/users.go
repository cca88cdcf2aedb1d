package microsoft

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/contract"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/misbehave"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
)

// apply does what a judged request asks.
func (s *Server) apply(c call) misbehave.Reply {
	switch c.operation {
	case "GET users":
		return s.list(c)
	case "GET domains/{id}":
		return s.domain(c)
	case "GET organization":
		return s.organization(c)
	}
	user, ok := s.Store.Find(state.Microsoft, c.key)
	if !ok {
		return notFound(c)
	}
	if c.point == misbehave.Write {
		return s.update(c, user)
	}
	selected, refused := s.selection(c)
	if refused != nil {
		return *refused
	}
	r := s.resource(user, selected)
	r["@odata.context"] = s.URL + "/v1.0/$metadata#users" + brackets(c) + "/$entity"
	return reply(http.StatusOK, r)
}

// update sets a password, if the application, the user and the password allow.
func (s *Server) update(c call, user state.User) misbehave.Reply {
	var body map[string]json.RawMessage
	if err := json.Unmarshal(c.body, &body); err != nil {
		return s.violate(c, "the body is not an object")
	}
	for name := range body {
		if name != "passwordProfile" && name != "@odata.type" {
			return denied(c) // User-PasswordProfile.ReadWrite.All allows this one property
		}
	}
	var change struct {
		Profile struct {
			Password      *string `json:"password"`
			MustChange    bool    `json:"forceChangePasswordNextSignIn"`
			MustChangeMFA bool    `json:"forceChangePasswordNextSignInWithMfa"`
		} `json:"passwordProfile"`
	}
	if err := json.Unmarshal(c.body, &change); err != nil {
		return s.violate(c, "the body is not a user")
	}
	profile := change.Profile
	switch {
	case profile.Password == nil:
		// Answered as if it had worked, without effect.
		return misbehave.Reply{Status: http.StatusNoContent}
	case strings.ContainsRune(*profile.Password, '\uFFFD'):
		return s.violateAs(c, weak(c), "the password holds U+FFFD, which replaces what was not UTF-8")
	case user.Admin:
		return denied(c)
	case user.Federated:
		// Status and code are Graph's. Its words for this case are not published.
		return failure(c, http.StatusBadRequest, "Request_BadRequest", "The password profile of a federated user cannot be updated.")
	case user.Synced:
		return failure(c, http.StatusBadRequest, "Request_BadRequest", "Unable to update the specified properties for on-premises mastered Directory Sync objects or objects currently undergoing migration.")
	case tooWeak(*profile.Password, user, s.names(user)) != "":
		return weak(c)
	}
	err := s.Store.SetPassword(state.Microsoft, user.ID, state.Password{
		Value: *profile.Password, MustChange: profile.MustChange || profile.MustChangeMFA, Requested: c.received,
	})
	if err != nil {
		return failure(c, http.StatusInternalServerError, "InternalServerError", err.Error())
	}
	return misbehave.Reply{Status: http.StatusNoContent}
}

// names are those that a password may not contain.
func (s *Server) names(user state.User) []string {
	return []string{user.GivenName, user.FamilyName, s.displayName()}
}

func (s *Server) displayName() string {
	name, _, _ := strings.Cut(s.Store.Domain(), ".")
	return name
}

var equation = regexp.MustCompile(`^(\w+) eq '((?:[^']|'')*)'$`)

// list finds users by one property.
func (s *Server) list(c call) misbehave.Reply {
	selected, refused := s.selection(c)
	if refused != nil {
		return *refused
	}
	top := 100
	if text := c.query.Get("$top"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 999 {
			return s.violate(c, "$top is not a number from 1 to 999")
		}
		top = n
	}
	match := func(state.User) bool { return true }
	if filter := c.query.Get("$filter"); filter != "" {
		parts := equation.FindStringSubmatch(filter)
		if parts == nil {
			return s.violateAs(c, failure(c, http.StatusBadRequest, "Request_UnsupportedQuery", "Unsupported or invalid query filter clause specified."), "the filter is not of the form: property eq 'value'")
		}
		property, value := parts[1], strings.ReplaceAll(parts[2], "''", "'")
		switch property {
		case "id":
			match = func(u state.User) bool { return u.ID == value }
		case "userPrincipalName":
			match = func(u state.User) bool { return strings.EqualFold(u.Name, value) }
		case "mail":
			match = func(u state.User) bool { return u.Is(value) && u.ID != value }
		case "onPremisesImmutableId":
			match = func(u state.User) bool { return u.ImmutableID == value }
		default:
			return s.violateAs(c, failure(c, http.StatusBadRequest, "Request_UnsupportedQuery", "Unsupported or invalid query filter clause specified for property '"+property+"' of resource 'User'."), "the filter names "+property)
		}
	}
	found := []any{}
	for _, u := range s.Store.Users(state.Microsoft) {
		if match(u) && len(found) < top {
			found = append(found, s.resource(u, selected))
		}
	}
	answer := map[string]any{"@odata.context": s.URL + "/v1.0/$metadata#users" + brackets(c), "value": found}
	if c.query.Get("$count") == "true" {
		answer["@odata.count"] = len(found)
	}
	return reply(http.StatusOK, answer)
}

// usual are the properties of a user when no others are asked for.
var usual = strings.Split("businessPhones,displayName,givenName,jobTitle,mail,mobilePhone,officeLocation,preferredLanguage,surname,userPrincipalName,id", ",")

// selection is $select, or the usual properties.
func (s *Server) selection(c call) ([]string, *misbehave.Reply) {
	if !c.query.Has("$select") {
		return usual, nil
	}
	names := strings.Split(c.query.Get("$select"), ",")
	for _, name := range names {
		if !contract.MicrosoftUser().Has(name) || strings.HasPrefix(name, "@") {
			return nil, new(s.violateAs(c, failure(c, http.StatusBadRequest, "BadRequest",
				"Could not find a property named '"+name+"' on type 'microsoft.graph.user'."), "$select names "+name))
		}
	}
	return names, nil
}

func brackets(c call) string {
	if names := c.query.Get("$select"); names != "" {
		return "(" + names + ")"
	}
	return ""
}

// resource is the user as Graph shows it: null where the sandbox has nothing,
// and never with its password.
func (s *Server) resource(u state.User, selected []string) map[string]any {
	local, _, _ := strings.Cut(u.Name, "@")
	changed := u.Created
	if p, ok := u.Current(); ok {
		changed = p.Applied
	}
	all := map[string]any{
		"id":                         u.ID,
		"userPrincipalName":          u.Name,
		"mail":                       u.Name,
		"mailNickname":               local,
		"displayName":                local,
		"accountEnabled":             !u.Suspended,
		"businessPhones":             []any{},
		"proxyAddresses":             []any{"SMTP:" + u.Name},
		"userType":                   "Member",
		"createdDateTime":            u.Created.UTC().Format(time.RFC3339),
		"lastPasswordChangeDateTime": changed.UTC().Format(time.RFC3339),
	}
	for name, value := range map[string]string{
		"givenName": u.GivenName, "surname": u.FamilyName,
		"onPremisesImmutableId": u.ImmutableID, "passwordPolicies": u.PasswordPolicies,
	} {
		if value != "" {
			all[name] = value
		}
	}
	if u.Synced {
		all["onPremisesSyncEnabled"] = true
	}
	r := map[string]any{}
	for _, name := range selected {
		r[name] = all[name]
	}
	return r
}

// domain tells whether its users sign in here.
func (s *Server) domain(c call) misbehave.Reply {
	if !s.Store.HasDomain(state.Microsoft, c.key) {
		return notFound(c)
	}
	kind := "Managed"
	for _, u := range s.Store.Users(state.Microsoft) {
		if u.Federated && strings.EqualFold(u.Domain(), c.key) {
			kind = "Federated"
		}
	}
	return s.only(c, map[string]any{
		"@odata.context":     s.URL + "/v1.0/$metadata#domains/$entity",
		"id":                 strings.ToLower(c.key),
		"authenticationType": kind,
		"isAdminManaged":     true,
		"isDefault":          strings.EqualFold(c.key, s.Store.Domain()),
		"isInitial":          false,
		"isRoot":             true,
		"isVerified":         true,
		"supportedServices":  []any{"Email"},
	})
}

func (s *Server) organization(c call) misbehave.Reply {
	one := map[string]any{
		"id":                    s.TenantID,
		"displayName":           s.displayName(),
		"tenantType":            "AAD",
		"onPremisesSyncEnabled": nil,
		"verifiedDomains":       []any{map[string]any{"name": s.Store.Domain(), "isDefault": true, "isInitial": false, "type": "Managed"}},
	}
	selected := s.only(c, one)
	if selected.Status != http.StatusOK {
		return selected
	}
	return reply(http.StatusOK, map[string]any{
		"@odata.context": s.URL + "/v1.0/$metadata#organization" + brackets(c),
		"value":          []any{json.RawMessage(selected.Body)},
	})
}

// only keeps of a resource what $select names.
func (s *Server) only(c call, resource map[string]any) misbehave.Reply {
	if !c.query.Has("$select") {
		return reply(http.StatusOK, resource)
	}
	kept := map[string]any{}
	for name := range strings.SplitSeq(c.query.Get("$select"), ",") {
		value, ok := resource[name]
		if !ok {
			return s.violateAs(c, failure(c, http.StatusBadRequest, "BadRequest", fmt.Sprintf("Could not find a property named '%s'.", name)), "$select names "+name)
		}
		kept[name] = value
	}
	return reply(http.StatusOK, kept)
}
