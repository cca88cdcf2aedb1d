package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// ErrManyChanges: so much has changed that looking it up would take longer than
// reading everything anew.
var ErrManyChanges = errors.New("too many changes to look up")

// Other is an object that is no user account.
type Other struct {
	DN      string
	Classes []string // objectClass, as it is or was: "top", "group"
	Deleted bool
}

// Moved is Changed for whoever keeps answers to filters. It tells of everything
// else that changed as well, because that can make a filter match an account
// which did not change itself: a group that got a member has changed, and who
// became its member, or a member of a group within it, has not; nor have the
// accounts below an organisational unit that was renamed.
//
// It never scans: where Changed would, it is ErrManyChanges, and some have been
// told of.
func (dc *DC) Moved(ctx context.Context, fromUSN uint64, attrs []string,
	each func(Account) error, gone func(guid dsdb.GUID, sAMAccountName string) error, other func(Other) error) error {

	if fromUSN > 0 {
		done, err := dc.lookUp(ctx, fromUSN, attrs, decodeChange(attrs, each, gone, other))
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("reading what changed: %w", ErrManyChanges)
}

// AllAccounts calls each for every user account, in no particular order and once.
// It reads names and the attributes named by attrs, no hash, no stamp, and leaves
// the DC as much time as it takes: see Accounts, whose other rules hold as well.
func (dc *DC) AllAccounts(ctx context.Context, attrs []string, each func(Account) error) error {
	return dc.pagesAtRest(ctx, "reading all accounts", &ldap.SearchRequest{
		BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: UserAccounts,
		Attributes: slices.Concat([]string{"objectGUID", "sAMAccountName", "userPrincipalName", "uSNChanged"}, attrs),
	}, rest, func(entry *ldap.Entry) (func() error, error) { return decodeLiving(entry, attrs, each) })
}
