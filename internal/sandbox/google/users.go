package google

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/contract"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/misbehave"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
)

const customerID = "C00sandbx"

// NewID is a new user's id: 21 digits.
func NewID() string {
	id := []byte("1")
	for len(id) < 21 {
		id = append(id, '0'+byte(rand.IntN(10)))
	}
	return string(id)
}

// apply does what a judged request asks.
func (s *Server) apply(c call) misbehave.Reply {
	actor, ok := s.actor(c)
	if !ok {
		return refusal()
	}
	fields := mask{}
	if text := c.query.Get("fields"); text != "" {
		var err error
		if fields, err = parseMask(text); err != nil {
			return s.violateAs(c.request, badFields(err.Error()), "the parameter fields cannot be parsed")
		}
	}
	if c.operation == "users.list" {
		return s.list(c, fields)
	}
	if name, unknown := fields.unknown(contract.GoogleRoutes().Fields); unknown {
		return s.violateAs(c.request, badFields(name), "the parameter fields names "+name)
	}
	user, refused := s.target(c)
	if refused != nil {
		return *refused
	}
	if c.point == misbehave.Write {
		if user.Admin && !actor.Admin {
			return refusal()
		}
		if refused := s.update(c, &user); refused != nil {
			return *refused
		}
	}
	return reply(http.StatusOK, fields.apply(resource(user)))
}

// actor is the administrator in whose name the client acts. A service account
// that has a role of its own acts as a delegated administrator without a name.
func (s *Server) actor(c call) (state.User, bool) {
	if c.bearer.Subject == "" {
		return state.User{Delegated: true}, s.AdminRole
	}
	actor, ok := s.Store.Find(state.Google, c.bearer.Subject)
	return actor, ok && (actor.Admin || actor.Delegated)
}

// target is the user that the path names. An address that the tenant does not
// host is forbidden, not unknown: so Google does it.
func (s *Server) target(c call) (state.User, *misbehave.Reply) {
	if user, ok := s.Store.Find(state.Google, c.key); ok {
		return user, nil
	}
	if _, domain, isMail := strings.Cut(c.key, "@"); isMail && !s.Store.HasDomain(state.Google, domain) {
		return state.User{}, new(refusal())
	}
	return state.User{}, new(noUser())
}

// update changes what the body names and leaves the rest, for PUT as for PATCH.
// The role of our administrator allows two things: to set a password, and to
// ask for another one at the next login.
func (s *Server) update(c call, user *state.User) *misbehave.Reply {
	var body map[string]json.RawMessage
	if err := json.Unmarshal(c.body, &body); err != nil {
		return new(s.violate(c.request, "the body is not an object"))
	}
	for name := range body {
		if name != "password" && name != "hashFunction" && name != "changePasswordAtNextLogin" {
			return new(refusal())
		}
	}
	var change struct {
		Password     *string `json:"password"`
		HashFunction string  `json:"hashFunction"`
		MustChange   *bool   `json:"changePasswordAtNextLogin"`
	}
	if err := json.Unmarshal(c.body, &change); err != nil {
		return new(s.violate(c.request, "the body is not a User"))
	}
	if change.Password == nil {
		if change.HashFunction != "" {
			return new(s.violate(c.request, "there is a hashFunction without a password"))
		}
		return nil // nothing that the sandbox keeps
	}
	if reason := malformed(*change.Password, change.HashFunction); reason != "" {
		return new(s.violateAs(c.request, invalidPassword(), reason))
	}
	if n := utf8.RuneCountInString(*change.Password); change.HashFunction == "" && (n < 8 || n > 100) {
		return new(invalidPassword())
	}
	before, _ := user.Current()
	mustChange := before.MustChange // what is not named stays as it is
	if change.MustChange != nil {
		mustChange = *change.MustChange
	}
	err := s.Store.SetPassword(state.Google, user.ID, state.Password{
		Value: *change.Password, Hash: change.HashFunction, MustChange: mustChange, Requested: c.received,
	})
	if err != nil {
		return new(failure(http.StatusInternalServerError, "backendError", err.Error()))
	}
	*user, _ = s.Store.Find(state.Google, user.ID)
	return nil
}

// list gives a page of the tenant's users.
func (s *Server) list(c call, fields mask) misbehave.Reply {
	if name, unknown := fields.unknown([]string{"kind", "etag", "users", "nextPageToken", "trigger_event"}); unknown {
		return s.violateAs(c.request, badFields(name), "the parameter fields names "+name)
	}
	if name, unknown := fields["users"].unknown(contract.GoogleRoutes().Fields); unknown {
		return s.violateAs(c.request, badFields(name), "the parameter fields names "+name)
	}
	customer, domain := c.query.Get("customer"), c.query.Get("domain")
	switch {
	case (customer == "") == (domain == ""):
		return s.violateAs(c.request, failure(http.StatusBadRequest, "badRequest", "Bad Request"), "users.list needs either customer or domain")
	case customer != "" && customer != "my_customer" && customer != customerID:
		return failure(http.StatusNotFound, "notFound", "Domain not found.")
	case domain != "" && !s.Store.HasDomain(state.Google, domain):
		return failure(http.StatusNotFound, "notFound", "Domain not found.")
	case c.query.Has("query"):
		return failure(http.StatusNotImplemented, "notImplemented", "The sandbox does not search.")
	}

	users := slices.DeleteFunc(s.Store.Users(state.Google), func(u state.User) bool {
		return domain != "" && !strings.EqualFold(u.Domain(), domain)
	})
	if c.query.Get("sortOrder") == "DESCENDING" {
		slices.Reverse(users)
	}
	size := 100
	if text := c.query.Get("maxResults"); text != "" {
		size, _ = strconv.Atoi(text) // judged before
	}
	// The token of a page is the name at which it begins, so that users may come
	// and go between two pages.
	if start := c.query.Get("pageToken"); start != "" {
		i := slices.IndexFunc(users, func(u state.User) bool { return u.Name == start })
		if i < 0 {
			return failure(http.StatusBadRequest, "invalid", "Invalid Input: page_token")
		}
		users = users[i:]
	}
	answer := map[string]any{"kind": "admin#directory#users"}
	if len(users) > size {
		answer["nextPageToken"] = users[size].Name
		users = users[:size]
	}
	resources := make([]any, 0, len(users))
	for _, u := range users {
		resources = append(resources, resource(u))
	}
	answer["users"] = resources
	return reply(http.StatusOK, fields.apply(answer))
}

// resource is the user as Google shows it: never with its password.
func resource(u state.User) map[string]any {
	local, _, _ := strings.Cut(u.Name, "@")
	given, family := u.GivenName, u.FamilyName
	if given == "" {
		given = local
	}
	if family == "" {
		family = "Sandbox"
	}
	current, _ := u.Current()
	r := map[string]any{
		"kind":                       "admin#directory#user",
		"id":                         u.ID,
		"etag":                       fmt.Sprintf("%q", fmt.Sprintf("%s/%d", u.ID, len(u.Passwords))),
		"primaryEmail":               u.Name,
		"name":                       map[string]any{"givenName": given, "familyName": family, "fullName": given + " " + family},
		"isAdmin":                    u.Admin,
		"isDelegatedAdmin":           u.Delegated,
		"lastLoginTime":              time.Unix(0, 0).UTC().Format(time.RFC3339),
		"creationTime":               u.Created.UTC().Format(time.RFC3339),
		"agreedToTerms":              true,
		"suspended":                  u.Suspended,
		"archived":                   false,
		"changePasswordAtNextLogin":  current.MustChange,
		"ipWhitelisted":              false,
		"emails":                     []any{map[string]any{"address": u.Name, "primary": true}},
		"customerId":                 customerID,
		"orgUnitPath":                "/",
		"isMailboxSetup":             true,
		"isEnrolledIn2Sv":            false,
		"isEnforcedIn2Sv":            false,
		"includeInGlobalAddressList": true,
	}
	if len(u.Aliases) > 0 {
		aliases := make([]any, 0, len(u.Aliases))
		for _, a := range u.Aliases {
			aliases = append(aliases, a)
		}
		r["aliases"] = aliases
	}
	return r
}

func invalidPassword() misbehave.Reply {
	return failure(http.StatusBadRequest, "invalid", "Invalid Password")
}

func badFields(selection string) misbehave.Reply {
	return failure(http.StatusBadRequest, "invalidParameter", "Invalid field selection "+selection)
}
