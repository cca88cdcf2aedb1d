package kills

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// mallory is an ordinary user who asks the DC about passwords, in others' names.
const mallory = "mallory"

// account is one that changes. Whoever works with it holds the lock.
type account struct {
	mu   sync.Mutex
	name string // by which the clouds know it
	now  string // its sAMAccountName
	goes bool   // it may be deleted, and made anew
	gone bool

	passwords []string // that the directory took, oldest first
	born      int      // which of them was the first of the account that there is now
	met       map[sandbox.Cloud]met
}

// met is what a cloud had been sent for an account when it was last judged: how many passwords, and which of the directory's was the newest.
type met struct{ sent, newest int }

func (a *account) current() string { return a.passwords[len(a.passwords)-1] }

// until does something again and again until the round is over.
func (d *domain) until(over <-chan struct{}, draw *rand.Rand, pause time.Duration, do func()) {
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Duration(draw.Int64N(int64(pause)))):
		}
		if d.Failed() || ctx.Err() != nil {
			return
		}
		do()
	}
}

// change is somebody who changes passwords. While the clock jumps, accounts that come and go are left alone.
func (d *domain) change(draw *rand.Rand, jumps bool, over <-chan struct{}) {
	d.until(over, draw, time.Second, func() {
		a := d.accounts[draw.IntN(len(d.accounts))]
		if jumps && a.goes || !a.mu.TryLock() {
			return
		}
		defer a.mu.Unlock()
		d.still.RLock()
		defer d.still.RUnlock()
		what := draw.IntN(100)
		switch {
		case a.gone:
			d.create(a)
		case what < 45:
			d.attempt(a, d.NewPassword(), d.reset)
		case what < 65:
			d.attempt(a, d.NewPassword(), d.own)
		case what < 75:
			d.refused(a, d.NewSimplePassword(), d.reset)
		case what < 85 && len(a.passwords)-1 > a.born:
			// The hook lets it pass, and the DC's history does not.
			d.refused(a, a.passwords[max(a.born, len(a.passwords)-2-draw.IntN(5))], d.own)
		case what < 90:
			d.mortal(a, time.Duration(draw.Int64N(int64(40*time.Millisecond))))
		case what < 95 && !jumps:
			d.rename(a)
		case a.goes:
			d.remove(a)
		}
	})
}

// A way to change a password.
type way func(a *account, password string) error

func (d *domain) reset(a *account, password string) error {
	return d.DC.LDAPSReset(ctx, a.now, "", password)
}

func (d *domain) own(a *account, password string) error {
	return d.DC.LDAPSChange(ctx, a.now, a.current(), password)
}

// attempt tries to change a password, and notes whether the directory took it: it may have, whatever the answer.
func (d *domain) attempt(a *account, password string, way way) (taken bool) {
	err := way(a, password)
	if taken = err == nil || d.holds(a, password); taken {
		a.passwords = append(a.passwords, password)
		d.counts.taken.Add(1)
	}
	return taken
}

// refused tries to set a password that the DC has to refuse.
func (d *domain) refused(a *account, password string, way way) {
	if err := way(a, password); err == nil {
		d.Errorf("lab %d: the DC took a password for %s that it should have refused", d.number, a.now)
	}
	d.counts.refused.Add(1)
}

// mortal sets a password while the hook is killed that is asked first from now on: for this change, or for another at the same time.
func (d *domain) mortal(a *account, after time.Duration) {
	if err := d.DC.HookDies(ctx, after); err != nil {
		d.Error(err)
	}
	d.attempt(a, d.NewPassword(), d.reset)
	d.counts.hooks.Add(1)
}

// create makes an account, as often as it takes.
func (d *domain) create(a *account) {
	for n := 0; ; n++ {
		a.gone, a.born = false, len(a.passwords)
		if d.attempt(a, d.NewPassword(), func(a *account, password string) error { return d.DC.LDAPSCreate(ctx, a.now, "", password) }) {
			return
		}
		if a.gone = true; n == 100 || ctx.Err() != nil {
			d.Errorf("lab %d: %s cannot be created", d.number, a.now)
			return
		}
	}
}

// remove deletes an account. What waits for it goes nowhere, and its successor has no old name.
func (d *domain) remove(a *account) {
	if err := d.DC.LDAPSDelete(a.now); err != nil && d.exists(a.now) {
		return
	}
	a.gone, a.now = true, a.name
}

// rename gives an account another name, or its old one again. The clouds know it by its userPrincipalName, which stays.
func (d *domain) rename(a *account) {
	name := a.name + "-renamed"
	if a.now == name {
		name = a.name
	}
	if err := d.DC.Rename(ctx, a.now, name); err != nil && !d.exists(name) {
		if !d.exists(a.now) {
			d.Errorf("lab %d: %s is neither there nor renamed: %v", d.number, a.now, err)
		}
		return
	}
	a.now = name
}

// forge is mallory: he has the DC run the hook in others' names, with passwords of his choice.
func (d *domain) forge(draw *rand.Rand, over <-chan struct{}) {
	d.until(over, draw, 6*time.Second, func() {
		a := d.accounts[draw.IntN(len(d.accounts))]
		if d.DC.ValidatePassword(ctx, mallory, d.mallory, a.name, d.NewForgeablePassword()) == nil { // while Samba is restarted he cannot
			d.counts.forged.Add(1)
		}
	})
}

// holds asks the directory whether it is that password, as long as it takes to get an answer.
func (d *domain) holds(a *account, password string) bool {
	held := d.held("(sAMAccountName=" + a.now + ")")
	h, found := held[a.now]
	return found && h.Is(password)
}

func (d *domain) exists(name string) bool {
	_, found := d.held("(sAMAccountName=" + name + ")")[name]
	return found
}

// held asks the directory. Samba is not being restarted then: what it was in the middle of is done, or never will be.
func (d *domain) held(filter string) map[string]lab.Held {
	d.up.RLock()
	defer d.up.RUnlock()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		held, err := d.DC.Held(ctx, filter)
		if err == nil {
			return held
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			d.Error(errors.Join(err, ctx.Err()))
			return nil
		}
	}
}
