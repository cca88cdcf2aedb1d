package directory

import (
	"context"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Accounts calls each for every user account that filter matches, with its hash;
// an empty filter matches all. They come in no particular order, each once.
// Computers and trusts are not among them.
//
// The hash is each's only until it returns: then it is cleared. (go-ldap has
// copies, which live until they are collected.)
//
// It is not in a hurry: after each page of accounts it rests for as long as the
// page took, so that of the DC's few LDAP workers it occupies half of one at most.
// The DC's first page takes longest, because it looks for all accounts then.
//
// An account that cannot be decoded delays no other: each gets it with Unreadable
// set, as from Changed. An error of each ends it and is returned as it is. After
// any other error, some accounts have not been told of.
func (dc *DC) Accounts(ctx context.Context, filter string, attrs []string, each func(Account) error) error {
	wanted := UserAccounts
	if filter != "" {
		if err := ValidateFilter(filter); err != nil {
			return err
		}
		wanted = "(&" + UserAccounts + filter + ")"
	}
	return dc.pagesAtRest(ctx, "reading accounts", &ldap.SearchRequest{
		BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: wanted,
		Attributes: slices.Concat(accountAttributes, []string{hashAttribute}, attrs),
	}, rest, func(entry *ldap.Entry) (func() error, error) {
		return decodeLiving(entry, attrs, func(a Account) error {
			defer clear(a.NTHash)
			return each(a)
		})
	})
}

// rest waits as long as the page took.
func rest(ctx context.Context, took time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(took):
		return nil
	}
}
