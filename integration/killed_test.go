package integration

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// testKilled: serve is killed (SIGKILL) 50 times, at random moments, while 50 changes are made. None may be lost, and none
// sent after a newer one of the same account.
//
// Half of the changes are made to accounts that change once, where a lost one shows at once; the others come five in a row
// for the same account, where a wrong order shows.
func testKilled(t *testing.T) {
	const kills, changes, often = 50, 50, 5

	admin, err := company.DC.Administrator()
	must(t, err)
	defer admin.Close()

	// Names in the order in which they change: once, once, …, and between them the often changed ones.
	var order, mails []string
	for i := range changes / 2 {
		order = append(order, fmt.Sprintf("once%02d", i), fmt.Sprintf("often%d", i/often))
	}
	passwords := map[string][]string{}
	for _, name := range order {
		if passwords[name] == nil {
			passwords[name] = []string{company.NewPassword()}
			mails = append(mails, lab.Mail(name))
		}
	}
	must(t, company.Sandbox.AddUsers(ctx, mails...))
	for name, p := range passwords {
		must(t, admin.Create(name, p[0]))
	}
	for name, p := range passwords {
		(&user{name: name}).waitFor(t, p[0])
	}

	var killed atomic.Int32
	done := make(chan error, 1)
	go func() {
		for range kills {
			// Up to 1.5 s: the supervisor waits a second before it starts again what died young, so that is an interval in
			// which serve is down, starting, or at work.
			time.Sleep(time.Duration(rand.Int64N(int64(1500 * time.Millisecond))))
			if err := company.DC.KillServe(ctx); err != nil {
				done <- err
				return
			}
			killed.Add(1)
		}
		done <- nil
	}()
	// As many changes as kills: each waits for its turn, then for a random moment after it.
	for i, name := range order {
		for killed.Load() < int32(i) && len(done) == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(300 * time.Millisecond))))
		password := company.NewPassword()
		passwords[name] = append(passwords[name], password)
		must(t, admin.Reset(name, password))
	}
	must(t, <-done)

	for name, p := range passwords {
		(&user{name: name}).waitFor(t, p[len(p)-1])
		inOrder(t, name, p)
	}
}
