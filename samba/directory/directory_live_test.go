package directory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"

	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

// The tests in this file ask a real domain controller: any one that has the
// accounts that provisioning makes, and those named …-for-test that
// integration/directory_test.go makes. They change nothing. They run where
// SAMBA_PWSYNC_TEST_LDAPI holds the path of its privileged socket, as root.
func live(t *testing.T) *directory.DC {
	t.Helper()
	socket := os.Getenv("SAMBA_PWSYNC_TEST_LDAPI")
	if socket == "" {
		t.Skip("SAMBA_PWSYNC_TEST_LDAPI names no privileged LDAPI socket")
	}
	dc, err := directory.Dial(t.Context(), "ldapi://"+socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dc.Close(); err != nil {
			t.Error(err)
		}
	})
	return dc
}

func TestLiveRoot(t *testing.T) {
	root, err := live(t).Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", root)
	if !strings.HasPrefix(root.DNSHostName, strings.ToLower(root.ServerName)+".") ||
		!strings.EqualFold("DC="+strings.ReplaceAll(root.DomainName, ".", ",DC="), root.BaseDN) ||
		root.HighestUSN == 0 || root.InvocationID.IsZero() || root.DomainFunctionality < 2 {
		t.Errorf("Root = %+v", root)
	}
}

func TestLiveExists(t *testing.T) {
	dc := live(t)
	root, err := dc.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for dn, want := range map[string]bool{
		root.BaseDN:                          true,
		"CN=Users," + root.BaseDN:            true,
		"cn=users, " + root.BaseDN:           true,
		"OU=NoSuchPlace," + root.BaseDN:      false,
		"CN=A,OU=NoSuchPlace," + root.BaseDN: false,
		"OU=People,DC=elsewhere,DC=invalid":  false,
	} {
		if got, err := dc.Exists(t.Context(), dn); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", dn, got, err, want)
		}
	}
	if exists, err := dc.Exists(t.Context(), "no DN"); exists || err == nil {
		t.Errorf("what is no DN: %v, %v", exists, err)
	}
}

func TestLiveAccount(t *testing.T) {
	dc := live(t)
	a, err := dc.AccountByName(t.Context(), "aDMINISTRATOR", []string{"OBJECTclass", "cn", "telephoneNumber"})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(a)
	root, err := dc.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a.SAMAccountName != "Administrator" || a.UserAccountControl&dsdb.UFNormalAccount == 0 || a.GUID.IsZero() ||
		a.USNChanged == 0 || a.USNChanged > root.HighestUSN || a.Stamp.Version == 0 || a.Stamp.USN == 0 ||
		a.Stamp.InvocationID.IsZero() {
		t.Errorf("AccountByName = %+v", a)
	}
	if len(a.NTHash) != 16 {
		t.Errorf("%d bytes of hash", len(a.NTHash))
	}
	// The password and the time it was set are written in one go.
	if d := a.PwdLastSet.Sub(a.Stamp.Time).Abs(); d > time.Minute {
		t.Errorf("stamp of %v, pwdLastSet %v", a.Stamp.Time, a.PwdLastSet)
	}
	if len(a.Attributes) != 2 || a.Attributes["cn"] != "Administrator" || a.Attributes["OBJECTclass"] != "top" {
		t.Errorf("Attributes = %q", a.Attributes)
	}

	same, err := dc.AccountByGUID(t.Context(), a.GUID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if same.DN != a.DN || !same.Stamp.Equal(a.Stamp) || !bytes.Equal(same.NTHash, a.NTHash) {
		t.Errorf("AccountByGUID = %v, AccountByName = %v", same, a)
	}
}

// Credentials come only when they are asked for, and then not among the attributes.
func TestLiveSupplementalCredentials(t *testing.T) {
	dc := live(t)
	without, err := dc.AccountByName(t.Context(), "Administrator", nil)
	if err != nil || without.SupplementalCredentials != nil {
		t.Errorf("not asked for: %d bytes, %v", len(without.SupplementalCredentials), err)
	}
	with, err := dc.AccountByGUID(t.Context(), without.GUID, []string{"SUPPLEMENTALcredentials", "cn"})
	if err != nil || len(with.Attributes) != 1 {
		t.Fatalf("Attributes = %q, %v", with.Attributes, err)
	}
	credentials, err := dsdb.ParseSupplementalCredentials(with.SupplementalCredentials)
	if err != nil {
		t.Fatal(err)
	}
	if _, salt, ok := credentials.AES256(); !ok || !strings.HasSuffix(salt, "Administrator") {
		t.Errorf("AES256: %q, %v", salt, ok)
	}
	if stamp, ok := with.MetaData.Stamp(dsdb.AttIDUnicodePwd); !ok || !stamp.Equal(with.Stamp) {
		t.Errorf("metadata says %v, the account %v", stamp, with.Stamp)
	}
}

// Needs an account named unhashed-for-test that has a time of its last password change, and no password.
func TestLiveUnhashed(t *testing.T) {
	dc := live(t)
	for name, list := range map[string]func(context.Context, int) ([]string, bool, error){"Unhashed": dc.Unhashed, "Unkeyed": dc.Unkeyed} {
		for limit, want := range map[int]string{0: " true", 1: "unhashed-for-test false", 5: "unhashed-for-test false"} {
			names, more, err := list(t.Context(), limit)
			if got := fmt.Sprint(strings.Join(names, ","), " ", more); err != nil || got != want {
				t.Errorf("%s(%d): %s, %v; want %s", name, limit, got, err, want)
			}
		}
	}
}

// Needs an account named governed-for-test, and a PSO named pso-for-test applied to it: no complexity, 9 characters.
func TestLiveResultantPSO(t *testing.T) {
	dc := live(t)
	for name, want := range map[string]bool{"governed-for-test": true, "Administrator": false} {
		a, err := dc.AccountByName(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		pso, found, err := dc.ResultantPSO(t.Context(), a.GUID)
		if err != nil || found != want || found && (pso.Name != "pso-for-test" || pso.Complexity || pso.MinLength != 9) {
			t.Errorf("%s is governed by %+v, %v, %v", name, pso, found, err)
		}
	}
	if _, _, err := dc.ResultantPSO(t.Context(), dsdb.GUID{1}); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
}

func TestLiveControllers(t *testing.T) {
	dc := live(t)
	root, err := dc.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	controllers, err := dc.Controllers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", controllers)
	self := directory.Controller{Name: root.ServerName, DNSHostName: root.DNSHostName, InvocationID: root.InvocationID, Writable: true}
	if !slices.Contains(controllers, self) {
		t.Errorf("%+v is not among %+v", self, controllers)
	}
	neighbours, err := dc.Neighbours(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", neighbours)
	for _, n := range neighbours {
		if n.InvocationID == root.InvocationID || n.InvocationID.IsZero() || n.USN == 0 {
			t.Errorf("it hears of %+v", n)
		}
	}
}

func TestLiveNotFound(t *testing.T) {
	dc := live(t)
	for _, name := range []string{"", "no-such-account", "*", "Admin*", "Administrator)(cn=*", `Administrator\`, "Domain Users"} {
		if a, err := dc.AccountByName(t.Context(), name, nil); !errors.Is(err, directory.ErrNotFound) {
			t.Errorf("AccountByName(%q) = %v, %v", name, a, err)
		}
	}
	guid := dsdb.GUID{1, 2, 3}
	if a, err := dc.AccountByGUID(t.Context(), guid, nil); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("AccountByGUID = %v, %v", a, err)
	}
	if got, err := dc.Matches(t.Context(), guid, "(cn=*)"); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("Matches = %v, %v", got, err)
	}
}

func TestLiveMatches(t *testing.T) {
	dc := live(t)
	a, err := dc.AccountByName(t.Context(), "Administrator", nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := dc.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	admins := "CN=Administrators,CN=Builtin," + root.BaseDN
	for filter, want := range map[string]bool{
		"(adminCount=1)":            true,
		"(!(adminCount=1))":         false,
		"(noSuchAttribute=1)":       false,
		"(memberOf=" + admins + ")": true,
		"(memberOf:1.2.840.113556.1.4.1941:=CN=Denied RODC Password Replication Group,CN=Users," + root.BaseDN + ")": true,
		"(userAccountControl:1.2.840.113556.1.4.803:=2)":                                                             false,
	} {
		got, err := dc.Matches(t.Context(), a.GUID, filter)
		if err != nil || got != want {
			t.Errorf("Matches(%s) = %v, %v", filter, got, err)
		}
	}
}

// changes collects what Changed tells from a USN on.
func changes(t *testing.T, dc *directory.DC, from uint64) (living map[dsdb.GUID]directory.Account, dead map[dsdb.GUID]string) {
	t.Helper()
	living, dead = map[dsdb.GUID]directory.Account{}, map[dsdb.GUID]string{}
	err := dc.Changed(t.Context(), from, []string{"cn"}, func(a directory.Account) error {
		if a.NTHash != nil || a.GUID.IsZero() || a.USNChanged < from || a.Attributes["cn"] == "" || strings.HasSuffix(a.SAMAccountName, "$") {
			t.Errorf("Changed gives %+v", a)
		}
		living[a.GUID] = a
		return nil
	}, func(guid dsdb.GUID, name string) error {
		dead[guid] = name
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return living, dead
}

// Needs a deleted account named gone-for-test.
func TestLiveKnown(t *testing.T) {
	dc := live(t)
	living, dead := changes(t, dc, 0)
	guids := []dsdb.GUID{{1: 1, 15: 0xff}} // which nobody has
	for guid := range living {
		if len(guids) <= 16 {
			guids = append(guids, guid)
		}
	}
	for guid, name := range dead {
		if name == "gone-for-test" {
			guids = append(guids, guid)
		}
	}
	told, gone := map[dsdb.GUID]directory.Account{}, map[dsdb.GUID]string{}
	err := dc.Known(t.Context(), guids, func(a directory.Account) error { told[a.GUID] = a; return nil },
		func(guid dsdb.GUID, name string) error { gone[guid] = name; return nil })
	if err != nil || len(gone) == 0 || len(told)+len(gone) != len(guids)-1 {
		t.Fatalf("of %d accounts %d are there and %d were deleted, %v", len(guids)-1, len(told), len(gone), err)
	}
	for guid, a := range told {
		if was := living[guid]; a.NTHash != nil || a.SAMAccountName != was.SAMAccountName || !a.Stamp.Equal(was.Stamp) {
			t.Errorf("Known gives %+v, want %+v", a, was)
		}
	}
	for guid, name := range gone {
		if name != dead[guid] {
			t.Errorf("Known gives the deleted %q, want %q", name, dead[guid])
		}
	}
}

// Needs a deleted account named gone-for-test.
func TestLiveChanged(t *testing.T) {
	dc := live(t)
	root, err := dc.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, dead := changes(t, dc, 0)
	t.Logf("%d accounts, %d deleted", len(all), len(dead))
	if !slices.Contains(slices.Collect(maps.Values(dead)), "gone-for-test") {
		t.Errorf("deleted: %v", dead)
	}
	for guid, name := range dead {
		if a, err := dc.AccountByGUID(t.Context(), guid, nil); !errors.Is(err, directory.ErrNotFound) {
			t.Errorf("%s was deleted, and is found: %v, %v", name, a, err)
		}
	}

	// From wherever one begins, looking USNs up tells what the scan told.
	var usns []uint64
	for _, a := range all {
		usns = append(usns, a.USNChanged)
	}
	slices.Sort(usns)
	for _, from := range []uint64{1, usns[0], usns[0] + 1, usns[len(usns)/2], usns[len(usns)-1], root.HighestUSN, root.HighestUSN + 1} {
		want := maps.Clone(all)
		maps.DeleteFunc(want, func(_ dsdb.GUID, a directory.Account) bool { return a.USNChanged < from })
		living, gone := changes(t, dc, from)
		if !maps.EqualFunc(living, want, func(a, b directory.Account) bool { return a.DN == b.DN && a.Stamp.Equal(b.Stamp) }) {
			t.Errorf("from %d: %v, want %v", from, living, want)
		}
		if from == 1 && !maps.Equal(gone, dead) {
			t.Errorf("deleted since 1: %v, want %v", gone, dead)
		}
		if from > root.HighestUSN && len(gone) > 0 {
			t.Errorf("deleted in the future: %v", gone)
		}
	}

	stop := errors.New("stop")
	for _, from := range []uint64{0, usns[len(usns)-1]} {
		if err := dc.Changed(t.Context(), from, nil, func(directory.Account) error { return stop }, nil); err != stop {
			t.Errorf("Changed = %v, want the callback's error", err)
		}
	}
}

func TestLiveProtected(t *testing.T) {
	dc := live(t)
	for name, want := range map[string]bool{"Administrator": true, "Guest": false, "krbtgt": false} {
		a, err := dc.AccountByName(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := dc.Protected(t.Context(), a.GUID); err != nil || got != want {
			t.Errorf("%s is protected: %v, %v", name, got, err)
		}
	}
	if _, err := dc.Protected(t.Context(), dsdb.GUID{1}); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
}

// Each user account once, with the hash that a look-up finds.
func TestLiveAccounts(t *testing.T) {
	dc := live(t)
	told := map[string]bool{}
	err := dc.Accounts(t.Context(), "", []string{"cn"}, func(a directory.Account) error {
		if a.Unreadable != nil || told[a.SAMAccountName] || a.Attributes["cn"] == "" {
			t.Errorf("told of %v (%v)", a, a.Unreadable)
		}
		told[a.SAMAccountName] = true
		if same, err := dc.AccountByGUID(t.Context(), a.GUID, nil); err != nil || !bytes.Equal(same.NTHash, a.NTHash) || !same.Stamp.Equal(a.Stamp) {
			t.Errorf("told of %v, %d bytes of hash; looked up: %v, %d, %v", a, len(a.NTHash), same, len(same.NTHash), err)
		}
		return nil
	})
	if err != nil || !told["Administrator"] || !told["krbtgt"] || !told["unhashed-for-test"] || told["gone-for-test"] {
		t.Errorf("Accounts told of %v, %v", slices.Sorted(maps.Keys(told)), err)
	}
	var one []string
	err = dc.Accounts(t.Context(), "(sAMAccountName=krbtgt)", nil, func(a directory.Account) error {
		one = append(one, a.SAMAccountName)
		return nil
	})
	if err != nil || !slices.Equal(one, []string{"krbtgt"}) {
		t.Errorf("with a filter: %q, %v", one, err)
	}
}

func TestLivePasswordSettings(t *testing.T) {
	s, err := live(t).PasswordSettings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", s)
	if s.MinLength == 0 && s.HistoryLength == 0 && !s.Complexity {
		t.Error("provisioning leaves no domain without any password rule")
	}
}

func TestLiveOrdinarySocket(t *testing.T) {
	live(t)
	ordinary := strings.Replace(os.Getenv("SAMBA_PWSYNC_TEST_LDAPI"), "ldap_priv/", "", 1)
	if dc, err := directory.Dial(t.Context(), "ldapi://"+ordinary); !errors.Is(err, directory.ErrNotPrivileged) {
		t.Errorf("Dial = %v, %v", dc, err)
	}
}

func TestLiveConcurrent(t *testing.T) {
	dc := live(t)
	done := make(chan error)
	for range 20 {
		go func() {
			a, err := dc.AccountByName(t.Context(), "Administrator", nil)
			if err == nil && a.SAMAccountName != "Administrator" {
				err = errors.New("somebody else's answer")
			}
			done <- err
		}()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dc.AccountByName(ctx, "Administrator", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: %v", err)
	}
	if _, err := dc.AccountByName(t.Context(), "Administrator", nil); err != nil {
		t.Errorf("after that: %v", err)
	}
}
