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

	began := time.Now()
	var killed atomic.Int32
	done := make(chan error, 1)
	go func() {
		for range kills {
			// From before it has opened its files to long after it has nothing left to do.
			if err := company.DC.KillServe(ctx, time.Duration(rand.Int64N(int64(600*time.Millisecond)))); err != nil {
				done <- err
				return
			}
			killed.Add(1)
		}
		done <- nil
	}()
	// As many changes as kills: each waits for its kill, then for a random moment while serve is down (a second), comes up or
	// works.
	for i, name := range order {
		for killed.Load() < int32(i) && len(done) == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(1400 * time.Millisecond))))
		password := company.NewPassword()
		passwords[name] = append(passwords[name], password)
		must(t, admin.Reset(name, password))
	}
	must(t, <-done)
	events, err := company.DC.Events(ctx)
	must(t, err)
	starts := 0
	for _, e := range events {
		if e.Name == "directory-up" && e.Time.After(began) {
			starts++
		}
	}
	t.Logf("%d kills; serve found the directory %d times in between", kills, starts)
	if starts < kills/2 {
		t.Errorf("serve found the directory only %d times between %d kills, so this test shows little", starts, kills)
	}

	for name, p := range passwords {
		(&user{name: name}).waitFor(t, p[len(p)-1])
		inOrder(t, name, p)
	}
}
