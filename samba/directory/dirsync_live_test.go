package directory_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Needs a deleted account named gone-for-test.
func TestLiveDirSync(t *testing.T) {
	dc := live(t)
	root, err := dc.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	everything := map[dsdb.GUID]directory.DirSyncEntry{}
	cookie, err := dc.DirSync(t.Context(), nil, []string{"sAMAccountName", "name", "unicodePwd"}, func(e directory.DirSyncEntry) error {
		everything[e.GUID] = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d objects", len(everything))
	decoded, err := dsdb.ParseDirSyncCookie(cookie)
	if err != nil || decoded.InvocationID != root.InvocationID || decoded.HighPropUpdate < root.HighestUSN {
		t.Errorf("cookie is %+v, %v", decoded, err)
	}
	admin, err := dc.AccountByName(t.Context(), "Administrator", nil)
	if err != nil {
		t.Fatal(err)
	}
	e := everything[admin.GUID]
	if e.DN != admin.DN || e.Deleted || e.ParentGUID.IsZero() || e.InstanceType != 4 || len(e.Attributes["unicodePwd"]) != 1 ||
		string(slices.Concat(e.Attributes["sAMAccountName"]...)) != "Administrator" {
		t.Errorf("DirSync tells of Administrator: %v, %+v", e, e.ParentGUID)
	}
	dead := func(e directory.DirSyncEntry) bool {
		return e.Deleted && string(slices.Concat(e.Attributes["sAMAccountName"]...)) == "gone-for-test" && strings.Contains(e.DN, "Deleted Objects")
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(everything)), dead) {
		t.Error("DirSync tells of no deletion")
	}

	// Nothing is told again.
	again, err := dc.DirSync(t.Context(), cookie, nil, func(e directory.DirSyncEntry) error {
		if e.GUID == admin.GUID {
			t.Errorf("told again: %v", e)
		}
		return nil
	})
	if err != nil || len(again) == 0 {
		t.Errorf("the next round: %d bytes of cookie, %v", len(again), err)
	}
	stop := errors.New("stop")
	if _, err := dc.DirSync(t.Context(), nil, []string{"name"}, func(directory.DirSyncEntry) error { return stop }); err != stop {
		t.Errorf("DirSync = %v, want the callback's error", err)
	}
	if _, err := dc.DirSync(t.Context(), []byte("no cookie"), nil, func(directory.DirSyncEntry) error { return nil }); err == nil {
		t.Error("a cookie that is none passed")
	}
}
