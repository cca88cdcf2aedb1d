package survey

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Report is what a survey found: counts and names, no hash. Scripts rely on its names in JSON. A list that is null was not asked
// for. Accounts are in the order of their names.
type Report struct {
	Accounts      int `json:"accounts"`       // user accounts that were looked at
	Disabled      int `json:"disabled"`       // of these
	Compared      int `json:"compared"`       // have an NT hash
	NotComparable int `json:"not_comparable"` // have a password, but no NT hash is stored
	NoPassword    int `json:"no_password"`    // never had one

	Breached     []Account `json:"breached"`
	Guessable    []Account `json:"guessable"`
	Shared       []Group   `json:"shared"`        // largest first
	Empty        []Account `json:"empty"`         // the password is the empty one
	NotRequired  []Account `json:"not_required"`  // flagged to need no password (PASSWD_NOTREQD)
	Reversible   []Account `json:"reversible"`    // flagged to have the password stored in clear
	Old          []Account `json:"old"`           // not changed for longer than was asked about
	NeverChanged []Account `json:"never_changed"` // has its first password
	Unreadable   []string  `json:"unreadable"`    // could not be decoded, so not judged
}

// Account is an account as a report names it.
type Account struct {
	Name       string    `json:"account"`
	Disabled   bool      `json:"disabled"`
	MustChange bool      `json:"must_change"`      // at the next logon
	Changed    time.Time `json:"changed,omitzero"` // when the password was set; not there if it never was
}

// Group is accounts with the same password.
type Group struct {
	Accounts     []Account `json:"accounts"`
	NeverChanged int       `json:"never_changed"` // how many of them: most, and it is somebody's default password
	Breached     bool      `json:"breached"`
	Guessable    bool      `json:"guessable"`
}

// Attention reports whether something needs a person. What is wrong with disabled accounts does not, for nobody can log on with
// them (and each domain has a disabled Guest without a password); nor does a first password, which each new account has.
func (r *Report) Attention() bool {
	enabled := func(list []Account) bool {
		return slices.ContainsFunc(list, func(a Account) bool { return !a.Disabled })
	}
	return len(r.Unreadable) > 0 ||
		slices.ContainsFunc([][]Account{r.Breached, r.Guessable, r.Empty, r.NotRequired, r.Reversible, r.Old}, enabled) ||
		slices.ContainsFunc(r.Shared, func(g Group) bool { return enabled(g.Accounts) })
}

func (r *Report) sort() {
	for _, list := range [][]Account{r.Breached, r.Guessable, r.Empty, r.NotRequired, r.Reversible, r.Old, r.NeverChanged} {
		sortAccounts(list)
	}
	for _, g := range r.Shared {
		sortAccounts(g.Accounts)
	}
	slices.SortFunc(r.Shared, func(a, b Group) int {
		return cmp.Or(len(b.Accounts)-len(a.Accounts), compareNames(a.Accounts[0].Name, b.Accounts[0].Name))
	})
	slices.SortFunc(r.Unreadable, compareNames)
}

func sortAccounts(list []Account) {
	slices.SortFunc(list, func(a, b Account) int { return compareNames(a.Name, b.Name) })
}

// compareNames orders names as a person looks for them.
func compareNames(a, b string) int {
	return cmp.Or(strings.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
}
