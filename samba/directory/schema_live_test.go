package directory_test

import (
	"errors"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

// What a user of a freshly provisioned domain (seen with 4.17) may write of his
// own account, and what is refused to him.
func TestLiveSelfWritable(t *testing.T) {
	dc := live(t)
	for writable, names := range map[bool][]string{
		true: {"msDS-cloudExtensionAttribute1", "telephoneNumber", "info", "wWWHomePage", "pager", "streetAddress", "TELEPHONEnumber"},
		false: {"mail", "displayName", "proxyAddresses", "uid", "employeeID", "description", "sAMAccountName",
			"userPrincipalName", "memberOf", "adminCount"},
	} {
		for _, name := range names {
			if got, err := dc.SelfWritable(t.Context(), name); err != nil || got != writable {
				t.Errorf("%s: %v, %v; want %v", name, got, err, writable)
			}
		}
	}
	if _, err := dc.SelfWritable(t.Context(), "nosuchAttribute"); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("an attribute that there is not: %v", err)
	}
}
