package directory_test

import (
	"testing"

	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Follows a DC that others write to as fast as it can take it, until they set description to "done" on the account busy-for-test, and last of
// all: then it must have been told where each account has come to.
func TestFollowLive(t *testing.T) {
	dc := live(t)
	told, passes, tellings := map[dsdb.GUID]uint64{}, 0, 0
	for next, done := uint64(0), false; !done; passes++ {
		root, err := dc.Root(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = dc.Changed(t.Context(), next, []string{"description"}, func(a directory.Account) error {
			tellings++
			told[a.GUID] = max(told[a.GUID], a.USNChanged)
			done = done || a.SAMAccountName == "busy-for-test" && a.Attributes["description"] == "done"
			return nil
		}, func(dsdb.GUID, string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		next = root.HighestUSN + 1
	}
	is, _ := changes(t, dc, 0)
	for guid, a := range is {
		if told[guid] != a.USNChanged {
			t.Errorf("%s has come to %d, and was last told at %d", a.SAMAccountName, a.USNChanged, told[guid])
		}
		delete(told, guid)
	}
	if len(told) > 0 {
		t.Errorf("told of what there is not: %v", told)
	}
	t.Logf("%d passes, %d tellings of %d accounts", passes, tellings, len(is))
	if passes < 10 {
		t.Errorf("%d passes: nobody wrote", passes)
	}
}
