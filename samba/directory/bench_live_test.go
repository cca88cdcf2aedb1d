package directory

import (
	"fmt"
	"os"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// BenchmarkLive measures what following a real DC costs it, and what looking an account up does, as its clients see it. Compare domains of
// different sizes: all but the scan should take the same time in each. It changes nothing, and runs where the live tests do.
func BenchmarkLive(b *testing.B) {
	socket := os.Getenv("SAMBA_PWSYNC_TEST_LDAPI")
	if socket == "" {
		b.Skip("SAMBA_PWSYNC_TEST_LDAPI names no privileged LDAPI socket")
	}
	dc, err := Dial(b.Context(), "ldapi://"+socket)
	if err != nil {
		b.Fatal(err)
	}
	defer dc.Close()
	newest := Account{}
	accounts := 0
	dead := func(dsdb.GUID, string) error { return nil }
	if err := dc.Changed(b.Context(), 0, nil, func(a Account) error {
		accounts++
		if a.USNChanged > newest.USNChanged {
			newest = a
		}
		return nil
	}, dead); err != nil {
		b.Fatal(err)
	}
	measure := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(accounts), "accounts")
		})
	}
	measure("HighestUSN", func() error { _, err := dc.highestUSN(b.Context()); return err })
	measure("Root", func() error { _, err := dc.Root(b.Context()); return err })
	measure("ByName", func() error { _, err := dc.AccountByName(b.Context(), newest.SAMAccountName, nil); return err })
	measure("ByGUID", func() error { _, err := dc.AccountByGUID(b.Context(), newest.GUID, nil); return err })
	nobody := func(dsdb.GUID) error { return nil }
	measure("AllAccounts", func() error { return dc.AllAccounts(b.Context(), []string{"mail"}, func(Account) error { return nil }) })
	measure("Matching/few", func() error { return dc.Matching(b.Context(), "(adminCount=1)", nobody) })
	measure("Matching/all", func() error { return dc.Matching(b.Context(), "(objectClass=user)", nobody) })
	measure("Matching/members", func() error {
		return dc.Matching(b.Context(), "(memberOf=CN=Domain Admins,CN=Users,"+dc.base+")", nobody)
	})
	measure("Matching/members at any depth", func() error {
		return dc.Matching(b.Context(), "(memberOf:1.2.840.113556.1.4.1941:=CN=Administrators,CN=Builtin,"+dc.base+")", nobody)
	})
	measure("ProtectedAccounts", func() error { return dc.ProtectedAccounts(b.Context(), nobody) })
	for _, usns := range []uint64{1, 100, 1000} {
		from := newest.USNChanged + 1 - usns
		told := 0
		each := func(Account) error { told++; return nil }
		measure(fmt.Sprintf("Changed/USNs=%d/lookups", usns), func() error {
			_, err := dc.lookUp(b.Context(), from, nil, decodeChange(nil, each, dead, nil))
			return err
		})
		measure(fmt.Sprintf("Changed/USNs=%d/scan", usns), func() error { return dc.scan(b.Context(), from, nil, each, dead) })
		if told == 0 {
			b.Errorf("from %d nothing was told", from)
		}
	}
}
