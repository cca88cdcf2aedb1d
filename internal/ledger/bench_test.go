package ledger

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// A name among a hundred thousand accounts, which two targets want.
func BenchmarkFind(b *testing.B) {
	dir, err := os.MkdirTemp("/dev/shm", "ledger")
	if err != nil {
		dir = b.TempDir()
	}
	defer os.RemoveAll(dir)
	l, err := Open(dir+"/ledger.db", nil)
	if err != nil {
		b.Fatal(err)
	}
	const accounts = 100_000
	for i := 0; i < accounts; i += 10_000 {
		var some []change.Sighting
		for n := i; n < i+10_000; n++ {
			a := change.Account{GUID: dsdb.GUID{byte(n), byte(n >> 8), byte(n >> 16), 1}, SAMAccountName: fmt.Sprint("user", n), UserPrincipalName: fmt.Sprint("user", n, "@corp.example")}
			route := func(target string) change.WantedRoute {
				return change.WantedRoute{Route: change.Route{Target: target, User: fmt.Sprint("first.last", n, "@example.com")}, Reason: change.BeforeInstallation}
			}
			some = append(some, change.Sighting{Account: a, Stamp: stamp(1), Wanted: &change.Wanted{DC: "DC1", Routes: []change.WantedRoute{route("google"), route("entra")}}})
		}
		if _, err := l.See(time.Now(), some...); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if got, err := l.Find("First.Last77777@example.com"); err != nil || len(got) != 1 {
			b.Fatal(got, err)
		}
	}
}
