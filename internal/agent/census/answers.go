package census

import (
	"context"
	"fmt"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// answers are what the DC answers about all accounts. They are asked as the DC is asked about one: each filter once, when it is first
// needed, so one that decides nothing costs nothing.
type answers struct {
	dc        Directory
	matching  map[string]map[dsdb.GUID]bool // by filter
	protected map[dsdb.GUID]bool            // nil: not asked yet
}

// Matches implements route.Directory.
func (a *answers) Matches(ctx context.Context, guid dsdb.GUID, filter string) (bool, error) {
	if a.matching[filter] == nil {
		found := map[dsdb.GUID]bool{}
		if err := a.dc.Matching(ctx, filter, func(guid dsdb.GUID) error { found[guid] = true; return nil }); err != nil {
			return false, fmt.Errorf("asking %s: %w", filter, err)
		}
		a.matching[filter] = found
	}
	return a.matching[filter][guid], nil
}

// Protected implements route.Directory.
func (a *answers) Protected(ctx context.Context, guid dsdb.GUID) (bool, error) {
	if a.protected == nil {
		found := map[dsdb.GUID]bool{}
		if err := a.dc.ProtectedAccounts(ctx, func(guid dsdb.GUID) error { found[guid] = true; return nil }); err != nil {
			return false, fmt.Errorf("asking who is protected: %w", err)
		}
		a.protected = found
	}
	return a.protected[guid], nil
}
