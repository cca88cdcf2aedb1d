// Package route decides which targets want an account, and under which name there.
//
// What: a Table holds what the configuration says of each target: the directory attribute that names the user there, and LDAP
// filters. The DC evaluates the filters on the one account, so group membership in any depth and every matching rule work.
//
// Why in the agent: the forwarder cannot read the directory. It gets the names and nothing to decide.
//
// Whom it trusts: whoever may write the attribute that names the user. An account whose `mail` is the chief executive's address
// sets the chief executive's password at the target: choose an attribute that users cannot write themselves.
//
// What it does not solve: an account that begins to match later gets its password there with its next change, not before.
package route

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Target is what the configuration says of one target.
type Target struct {
	Name          string // NAME of [target.NAME]
	UserAttribute string // directory attribute that holds the account's name at the target
	UserDomain    string // if not empty: replaces what follows the @ of that name, or is appended
	Filter        string // LDAP filter; empty: every account
}

// Directory is the part of a DC that evaluates filters.
type Directory interface {
	// Matches reports whether the filter matches the account; directory.ErrNotFound if there is no such account.
	Matches(ctx context.Context, guid dsdb.GUID, filter string) (bool, error)
	// Protected reports whether AD protects the account, as it does administrators; errors as Matches'.
	Protected(ctx context.Context, guid dsdb.GUID) (bool, error)
}

// Table is the whole of it. It is never changed after New, and safe for concurrent use.
type Table struct {
	targets []Target
	scope   Scope
	base    *ldap.DN // nil: the whole domain
}

// Scope says which accounts are meant at all, for every target.
type Scope struct {
	BaseDN  string // an account must lie below this distinguished name; empty: anywhere in the domain
	Filter  string // it must match this LDAP filter; empty: it need not
	Exclude string // it must not match this one; empty: nobody is excluded

	Protected bool // whether accounts that AD protects, administrators, are meant too
}

// New checks targets, DN and filters.
func New(targets []Target, scope Scope) (*Table, error) {
	table := &Table{targets: slices.Clone(targets), scope: scope}
	if scope.BaseDN != "" {
		base, err := ldap.ParseDN(scope.BaseDN)
		if err != nil {
			return nil, fmt.Errorf("routing: base_dn: %w", err)
		}
		table.base = base
	}
	filters := []string{scope.Filter, scope.Exclude}
	for _, t := range targets {
		if t.UserAttribute == "" {
			return nil, fmt.Errorf("routing to %s: no user attribute", t.Name)
		}
		filters = append(filters, t.Filter)
	}
	for _, f := range filters {
		if f == "" {
			continue
		}
		if err := directory.ValidateFilter(f); err != nil {
			return nil, fmt.Errorf("routing: %w", err)
		}
	}
	return table, nil
}

// String is the configuration, for whoever wants to know whether it is still the same.
func (t *Table) String() string { return fmt.Sprintf("%#v %#v", t.targets, t.scope) }

// Attributes lists what an account must be read with for Of.
func (t *Table) Attributes() []string {
	var names []string
	for _, target := range t.targets {
		if name := strings.ToLower(target.UserAttribute); !slices.Contains(alwaysRead, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// alwaysRead are the attributes that a directory.Account holds without being asked. LDAP does not say what becomes of an
// attribute that is asked for twice.
var alwaysRead = []string{"samaccountname", "userprincipalname"}

// Of returns the targets that want the account, and in words why each of the others does not. An error leaves the question
// open: the DC did not answer, or the account is gone.
func (t *Table) Of(ctx context.Context, dc Directory, a directory.Account) (routes []change.Route, refusals []string, err error) {
	why, err := t.refusedForAll(ctx, dc, a)
	if err != nil {
		return nil, nil, fmt.Errorf("routing: %w", err)
	}
	if why != "" {
		return nil, []string{why}, nil
	}
	for _, target := range t.targets {
		user, why, err := target.user(ctx, dc, a)
		if err != nil {
			return nil, nil, fmt.Errorf("routing to %s: %w", target.Name, err)
		}
		if why != "" {
			refusals = append(refusals, target.Name+": "+why)
			continue
		}
		routes = append(routes, change.Route{Target: target.Name, User: user})
	}
	return routes, refusals, nil
}

func (t *Table) refusedForAll(ctx context.Context, dc Directory, a directory.Account) (why string, err error) {
	if len(t.targets) == 0 {
		return "no target is configured", nil
	}
	if t.base != nil {
		if dn, err := ldap.ParseDN(a.DN); err != nil || !t.base.AncestorOfFold(dn) {
			return "the account does not lie below base_dn", nil
		}
	}
	if !t.scope.Protected {
		if protected, err := dc.Protected(ctx, a.GUID); err != nil || protected {
			return "the account is an administrator's (protected)", err
		}
	}
	if t.scope.Exclude != "" {
		if excluded, err := dc.Matches(ctx, a.GUID, t.scope.Exclude); err != nil || excluded {
			return "the account matches exclude", err
		}
	}
	if t.scope.Filter != "" {
		if wanted, err := dc.Matches(ctx, a.GUID, t.scope.Filter); err != nil || !wanted {
			return "the account does not match filter", err
		}
	}
	return "", nil
}

// user returns the account's name at the target, or why the target does not want the account. The attribute is looked at
// before the filter, which costs a round trip.
func (t Target) user(ctx context.Context, dc Directory, a directory.Account) (user, why string, err error) {
	name := strings.ToLower(t.UserAttribute)
	switch name {
	case "samaccountname":
		user = a.SAMAccountName
	case "userprincipalname":
		user = a.UserPrincipalName
	default:
		user = a.Attributes[name]
	}
	if user == "" {
		return "", "the account has no " + t.UserAttribute, nil
	}
	if t.UserDomain != "" {
		if at := strings.LastIndexByte(user, '@'); at >= 0 {
			user = user[:at]
		}
		if user == "" {
			return "", "its " + t.UserAttribute + " has nothing before the @", nil
		}
		user += "@" + strings.TrimPrefix(t.UserDomain, "@")
	}
	if t.Filter != "" {
		if wanted, err := dc.Matches(ctx, a.GUID, t.Filter); err != nil || !wanted {
			return "", "the account does not match its filter", err
		}
	}
	return user, "", nil
}
