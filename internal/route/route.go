// Package route decides which targets want an account, and under which name there.
//
// What: a Table holds what the configuration says of each target: the directory attribute that names the user there, and LDAP
// filters. The DC evaluates the filters on the one account, so group membership in any depth and every matching rule work.
//
// Why in the agent: the forwarder cannot read the directory. It gets the names and nothing to decide.
//
// Whom it trusts: whoever may write the attribute that names the user. An account whose `mail` is the chief executive's address
// sets the chief executive's password at the target: choose an attribute that users cannot write themselves. Of two accounts with one
// name at a target neither gets there (see namesake).
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

	// What becomes of a password that the account has to change at its next logon, and of one of a disabled account.
	Temporary, Disabled Handling
}

// Handling says what becomes of an account's password in a certain state.
type Handling string

// The ways. ForceChange is for Temporary only: the target is to demand a new one as well.
const (
	Send        Handling = "send" // also if empty
	Skip        Handling = "skip"
	ForceChange Handling = "force-change"
)

// Refusal is a target that does not want an account's password, and why.
type Refusal struct {
	Route change.Route  // without User if the account has no name there; of no target if none wants the account
	State change.Reason // Temporary, Disabled or NameShared, if it is only the state that things are in; else empty
	With  string        // NameShared: the other account
	Why   string        // in words
}

func (r Refusal) String() string {
	if r.Route.Target == "" {
		return r.Why
	}
	return r.Route.Target + ": " + r.Why
}

// Directory is the part of a DC that evaluates filters.
type Directory interface {
	// Matches reports whether the filter matches the account; directory.ErrNotFound if there is no such account.
	Matches(ctx context.Context, guid dsdb.GUID, filter string) (bool, error)
	// Protected reports whether AD protects the account, as it does administrators; errors as Matches'.
	Protected(ctx context.Context, guid dsdb.GUID) (bool, error)
}

// Domain is a Directory that also finds accounts by what they have in common.
type Domain interface {
	Directory
	// Namesakes returns the user accounts of which an attribute has one of these values, without their secrets, and with attrs read as well.
	Namesakes(ctx context.Context, attribute string, values, attrs []string) ([]directory.Account, error)
}

// Table is the whole of it. It is never changed after New, and safe for concurrent use.
type Table struct {
	targets []Target
	scope   Scope
	base    Unit
}

// Unit is what lies below a distinguished name, at any depth. The zero Unit is everything. LDAP filters cannot ask for that.
type Unit struct{ base *ldap.DN }

// ParseUnit reads a distinguished name; empty, it is everything's.
func ParseUnit(dn string) (Unit, error) {
	if dn == "" {
		return Unit{}, nil
	}
	base, err := ldap.ParseDN(dn)
	if err != nil {
		return Unit{}, fmt.Errorf("reading distinguished name: %w", err)
	}
	return Unit{base}, nil
}

// IsZero reports whether everything lies in the unit.
func (u Unit) IsZero() bool { return u.base == nil }

// Holds reports whether what has that name lies in the unit.
func (u Unit) Holds(name string) bool {
	if u.base == nil {
		return true
	}
	dn, err := ldap.ParseDN(name)
	return err == nil && u.base.AncestorOfFold(dn)
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
	var err error
	if table.base, err = ParseUnit(scope.BaseDN); err != nil {
		return nil, fmt.Errorf("routing: base_dn: %w", err)
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

// Targets lists the targets' names.
func (t *Table) Targets() []string {
	var names []string
	for _, target := range t.targets {
		names = append(names, target.Name)
	}
	return names
}

// Asks says what an answer of Of hangs on besides the account's own attributes: the filters, whether the account's place in the
// tree matters, and whether it matters to which groups it belongs, beyond what filters say.
func (t *Table) Asks() (filters []string, place, groups bool) {
	if len(t.targets) == 0 {
		return nil, false, false
	}
	filters = []string{t.scope.Filter, t.scope.Exclude}
	for _, target := range t.targets {
		filters = append(filters, target.Filter)
	}
	filters = slices.DeleteFunc(filters, func(f string) bool { return f == "" })
	return filters, !t.base.IsZero(), !t.scope.Protected
}

// Of returns the targets that want the account's password, and why each of the others does not. An error leaves the question
// open: the DC did not answer, or the account is gone.
func (t *Table) Of(ctx context.Context, dc Domain, a directory.Account) (routes []change.Route, refusals []Refusal, err error) {
	candidates, refusals, err := t.of(ctx, dc, a)
	if err != nil {
		return nil, nil, err
	}
	for i, target := range t.targets {
		r := candidates[i]
		if r.Target == "" {
			continue
		}
		if state, why := target.unfit(a); why != "" {
			refusals = append(refusals, Refusal{Route: r, State: state, Why: why})
			continue
		}
		other, err := t.namesake(ctx, dc, target, a, r.User)
		if err != nil {
			return nil, nil, fmt.Errorf("routing to %s: %w", target.Name, err)
		}
		if other != "" {
			refusals = append(refusals, Refusal{r, change.NameShared, other, "another account, " + other + ", has the same name there"})
			continue
		}
		r.MustChange = target.Temporary == ForceChange && a.MustChange()
		routes = append(routes, r)
	}
	return routes, refusals, nil
}

// Targeted names the targets that want the account, whatever state it and its password are in now: what is set next may be in another.
// Errors are those of Of.
func (t *Table) Targeted(ctx context.Context, dc Directory, a directory.Account) (targets []string, err error) {
	candidates, _, err := t.of(ctx, dc, a)
	for _, r := range candidates {
		if r.Target != "" {
			targets = append(targets, r.Target)
		}
	}
	return targets, err
}

// of returns, for each target in order, the route to it; the zero Route where it does not want the account, whatever its state.
func (t *Table) of(ctx context.Context, dc Directory, a directory.Account) (candidates []change.Route, refusals []Refusal, err error) {
	if len(t.targets) == 0 {
		return nil, []Refusal{{Why: "no target is configured"}}, nil
	}
	candidates = make([]change.Route, len(t.targets))
	why, err := t.refusedForAll(ctx, dc, a)
	if err != nil {
		return nil, nil, fmt.Errorf("routing: %w", err)
	}
	if why != "" {
		return candidates, []Refusal{{Why: why}}, nil
	}
	for i, target := range t.targets {
		user, why, err := target.user(ctx, dc, a)
		if err != nil {
			return nil, nil, fmt.Errorf("routing to %s: %w", target.Name, err)
		}
		if why != "" {
			refusals = append(refusals, Refusal{Route: change.Route{Target: target.Name}, Why: why})
			continue
		}
		candidates[i] = change.Route{Target: target.Name, User: user}
	}
	return candidates, refusals, nil
}

// indexed are the attributes by which a DC finds accounts without looking at all of them, as far as two accounts can have the same value.
var indexed = []string{"mail", "userprincipalname"}

// namesake returns another account that the target wants under the same name, if there is one: whose password is the right one there,
// nobody knows. It is looked for where that costs a DC little; and under user_domain not among the accounts of all domains.
func (t *Table) namesake(ctx context.Context, dc Domain, target Target, a directory.Account, user string) (other string, err error) {
	attribute := strings.ToLower(target.UserAttribute)
	if !slices.Contains(indexed, attribute) {
		return "", nil
	}
	values := []string{user}
	if target.UserDomain != "" {
		local, _, _ := strings.Cut(user, "@")
		values = append(values, local, a.Attributes[attribute], a.UserPrincipalName)
	}
	values = slices.DeleteFunc(values, func(v string) bool { return v == "" })
	slices.Sort(values)
	found, err := dc.Namesakes(ctx, attribute, slices.Compact(values), t.Attributes())
	if err != nil {
		return "", err
	}
	for _, b := range found {
		if b.GUID == a.GUID {
			continue
		}
		if state, _ := target.unfit(b); state == change.Disabled {
			continue
		}
		why, err := t.refusedForAll(ctx, dc, b)
		if err != nil {
			return "", err
		}
		if why != "" { // an administrator's second account may have the mail address of the first
			continue
		}
		name, _, err := target.user(ctx, dc, b)
		if err != nil {
			return "", err
		}
		if strings.EqualFold(name, user) {
			return b.SAMAccountName, nil
		}
	}
	return "", nil
}

// unfit says why the state that the account is in keeps its password from the target; why is empty if it does not.
func (t Target) unfit(a directory.Account) (state change.Reason, why string) {
	switch {
	case t.Disabled == Skip && a.UserAccountControl&dsdb.UFAccountDisable != 0:
		return change.Disabled, `the account is disabled (disabled = "skip")`
	case t.Temporary == Skip && a.MustChange():
		return change.Temporary, `the password has to be changed at the next logon (temporary = "skip")`
	}
	return "", ""
}

// Meant says in words why the account is none of those that are meant at all, whatever the targets say; why is empty if it is. Errors are those of Of.
func (t *Table) Meant(ctx context.Context, dc Directory, a directory.Account) (why string, err error) {
	if why, err = t.refusedForAll(ctx, dc, a); err != nil {
		return "", fmt.Errorf("routing: %w", err)
	}
	return why, nil
}

func (t *Table) refusedForAll(ctx context.Context, dc Directory, a directory.Account) (why string, err error) {
	if !t.base.Holds(a.DN) {
		return "the account does not lie below base_dn", nil
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
	if t.scope.Filter != "" && t.scope.Filter != directory.UserAccounts { // which an account is, or it would not have been found
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
