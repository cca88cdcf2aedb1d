// Package state is what the two sandbox clouds hold: their users with every
// password ever accepted, the faults that are waiting to strike, the requests
// that were counted and those that no real cloud would have taken.
//
// It exists apart from the protocols so that a test asks one place what
// happened, and so that a restarted sandbox still knows its users.
//
// It trusts nobody with more than a test: Microsoft's half keeps clear
// passwords, because a double that forgets them could not say afterwards which
// one arrived when. Never give it a password that is used elsewhere.
package state

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Cloud is one of the two vendors.
type Cloud string

// The clouds that the sandbox stands in for.
const (
	Google    Cloud = "google"
	Microsoft Cloud = "microsoft"
)

// ParseCloud takes a cloud's name as people type it.
func ParseCloud(name string) (Cloud, error) {
	switch strings.ToLower(name) {
	case "google":
		return Google, nil
	case "microsoft", "entra":
		return Microsoft, nil
	}
	return "", fmt.Errorf("no cloud is called %q: there are google and microsoft", name)
}

// A User is one account at one cloud.
type User struct {
	Cloud      Cloud     `json:"cloud"`
	ID         string    `json:"id"`   // what the vendor calls it for ever
	Name       string    `json:"name"` // primary mail at Google, userPrincipalName at Microsoft
	Aliases    []string  `json:"aliases,omitempty"`
	GivenName  string    `json:"given_name,omitempty"`
	FamilyName string    `json:"family_name,omitempty"`
	Suspended  bool      `json:"suspended,omitempty"`
	Created    time.Time `json:"created"`

	// Admin is Google's super administrator, and at Microsoft whoever holds an
	// administrator role: neither lets the likes of us set their passwords.
	Admin bool `json:"admin,omitempty"`
	// Delegated is a Google administrator with a role that may reset passwords.
	Delegated bool `json:"delegated,omitempty"`

	// At Microsoft only.
	Federated        bool   `json:"federated,omitempty"` // the domain signs in elsewhere
	Synced           bool   `json:"synced,omitempty"`    // onPremisesSyncEnabled
	ImmutableID      string `json:"immutable_id,omitempty"`
	PasswordPolicies string `json:"password_policies,omitempty"`

	// Passwords are all that were accepted, oldest first; the last one holds.
	Passwords []Password `json:"passwords,omitempty"`
	// Requests counts the judged requests that named this user since the start.
	Requests int `json:"requests"`
}

// Domain is what follows the @ of the user's name.
func (u User) Domain() string {
	_, domain, _ := strings.Cut(u.Name, "@")
	return strings.ToLower(domain)
}

// Is says whether key means this user: its id, its name or one of its aliases.
func (u User) Is(key string) bool {
	return key == u.ID || strings.EqualFold(key, u.Name) ||
		slices.ContainsFunc(u.Aliases, func(alias string) bool { return strings.EqualFold(alias, key) })
}

// Current is the password that the cloud holds now.
func (u User) Current() (Password, bool) {
	if len(u.Passwords) == 0 {
		return Password{}, false
	}
	return u.Passwords[len(u.Passwords)-1], true
}

// A Password is one accepted write.
type Password struct {
	// Value is what was sent: clear text, or with Hash the hashed form.
	Value string `json:"value"`
	// Hash is Google's hashFunction: "crypt", "MD5", "SHA-1"; empty for clear text.
	Hash string `json:"hash,omitempty"`
	// MustChange is set when the user has to choose another at the next login.
	MustChange bool      `json:"must_change,omitempty"`
	Requested  time.Time `json:"requested"` // when the request came in
	Applied    time.Time `json:"applied"`   // when the cloud took it
}

// A Fault is an order to misbehave, as long as it is pending.
type Fault struct {
	ID    int    `json:"id"`
	Cloud Cloud  `json:"cloud"`
	Kind  string `json:"kind"`
	// User limits the fault to requests that name this user; empty: all.
	User string `json:"user,omitempty"`
	// On limits the fault to "token", "read" or "write" requests; empty: those
	// for which the kind is meant.
	On string `json:"on,omitempty"`
	// Times is how many requests it strikes; 0: until cleared.
	Times int `json:"times,omitempty"`
	// RetryAfter becomes the header of that name.
	RetryAfter time.Duration `json:"retry_after_ns,omitempty"`
	// Delay passes before the cloud does anything. For the kind "short-token" it
	// is the token's life.
	Delay time.Duration `json:"delay_ns,omitempty"`
}

// A Violation is a request that the vendor's own contract does not allow. A
// correct client causes none, whatever the clouds answer.
type Violation struct {
	Time    time.Time `json:"time"`
	Cloud   Cloud     `json:"cloud"`
	Request string    `json:"request"` // method and path
	Reason  string    `json:"reason"`
}

// Trapped is a request that followed a redirect to the other host.
type Trapped struct {
	Time          time.Time `json:"time"`
	Host          string    `json:"host"`
	Request       string    `json:"request"`
	Authorization bool      `json:"authorization"` // a bearer token arrived
	BodyBytes     int       `json:"body_bytes"`    // so much of a body arrived
}

// Secret says whether anything arrived that the other host should not have.
func (t Trapped) Secret() bool { return t.Authorization || t.BodyBytes > 0 }

// State is all of it, at one moment.
type State struct {
	Domain     string         `json:"domain"`
	Users      []User         `json:"users"`
	Faults     []Fault        `json:"faults"`
	Violations []Violation    `json:"violations"`
	Trapped    []Trapped      `json:"trapped"`
	Requests   map[string]int `json:"requests"` // "google users.update": 3, since the start
}

// User finds one account by id, name or alias.
func (s State) User(cloud Cloud, key string) (User, bool) {
	for _, u := range s.Users {
		if u.Cloud == cloud && u.Is(key) {
			return u, true
		}
	}
	return User{}, false
}
