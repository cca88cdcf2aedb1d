package compat

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// patience is how long a cell waits for something that should take a moment: the machine may be small and busy.
const patience = 4 * time.Minute

// way changes a password. An error is a refusal.
type way func(ctx context.Context, user, old, password string) error

// An outcome is what came of a change at one target.
type outcome struct {
	kind string
	why  string // expected: what the reason must hold
}

var delivered = outcome{kind: "delivered"}

// notSent: it must not be sent, and was not.
func notSent(why string) outcome { return outcome{"not sent", why} }

// drift: the directory has it, a target that wants it does not, and `samba-pwsync drift` says so, and why.
func drift(reason string) outcome { return outcome{"drift", reason} }

// notOffered: this Samba does not change passwords in this way, at least not now; the error says so, and the hook was not asked.
func notOffered(said string) outcome { return outcome{"not offered", said} }

func (o outcome) String() string {
	if o.why == "" {
		return o.kind
	}
	return o.kind + ": " + o.why
}

// as is the observed outcome in the words of the expectation, if it is what was expected.
func (o outcome) as(want outcome) outcome {
	if o.kind == want.kind && want.why != "" && strings.Contains(o.why, want.why) {
		return want
	}
	return o
}

// A verdict is the outcome at each cloud.
type verdict map[sandbox.Cloud]outcome

func both(o outcome) verdict { return verdict{sandbox.Google: o, sandbox.Microsoft: o} }

func (v verdict) String() string {
	if v[sandbox.Google] == v[sandbox.Microsoft] {
		return v[sandbox.Google].String()
	}
	return fmt.Sprintf("Google %v, Entra %v", v[sandbox.Google], v[sandbox.Microsoft])
}

// A cell is one row tried on one Samba.
type cell struct {
	row    *row
	column *column

	account *account
	others  []*account // that came into it, and must have what is theirs
	told    int        // answers of the hook before the change
	at      time.Time  // of the change
	name    string     // the account's, then
	try     *change
	before  string                // the password before it
	version uint32                // of that one
	had     map[sandbox.Cloud]int // how often the clouds had been sent the new one before
	refusal error
	broken  error // this test's own steps failed

	seen verdict
}

func (c *cell) dc() *lab.DC { return c.column.lab.DC }

// setUp makes the account as the row wants it.
func (c *cell) setUp() {
	c.broken = func() (err error) {
		if c.account, err = c.column.newAccount(); err != nil {
			return err
		}
		if !c.row.creates {
			if err := c.column.create(c.account); err != nil {
				return fmt.Errorf("creating the account: %w", err)
			}
		}
		if c.row.prepare != nil {
			if err := c.row.prepare(c); err != nil {
				return fmt.Errorf("preparing: %w", err)
			}
		}
		said, err := c.dc().HookSaid(ctx, c.account.name)
		c.told = len(said)
		return err
	}()
}

// change tries the change, and sees what the directory holds afterwards.
func (c *cell) change() {
	if c.broken != nil {
		return
	}
	draw := (*lab.Lab).NewPassword
	if c.row.password != nil {
		draw = c.row.password
	}
	c.before = c.account.password()
	password := draw(c.column.lab)
	if c.row.again {
		password = c.account.changes[0].password
	}
	c.at, c.name = time.Now(), c.account.name
	c.broken = func() error {
		held, _, err := c.held()
		if err != nil {
			return err
		}
		c.version = held.Stamp.Version
		if err := c.column.refresh(); err != nil {
			return err
		}
		c.had, err = c.sent(password)
		return err
	}()
	if c.broken != nil {
		return
	}
	c.try = c.account.attempt(password)
	c.refusal = c.row.change(c.dc())(ctx, c.account.name, c.before, password)
	c.broken = func() error {
		held, known, err := c.held()
		if err != nil {
			return err
		}
		switch {
		case known && held.Is(password) && held.Stamp.Version > c.version:
			c.try.taken, c.try.mail = true, c.account.mail
		case known && !held.Is(c.before), !known && !c.row.creates:
			return fmt.Errorf("the directory holds neither the old password nor the new one (%v)", c.refusal)
		}
		if c.row.then != nil {
			if err := c.row.then(c); err != nil {
				return fmt.Errorf("after the change: %w", err)
			}
			if c.try.taken {
				c.try.mail = c.account.mail
			}
		}
		return nil
	}()
}

// held is what the directory holds for the account, if it knows it.
func (c *cell) held() (lab.Held, bool, error) {
	all, err := c.dc().Held(ctx, "(sAMAccountName="+c.account.name+")")
	held, known := all[c.account.name]
	return held, known, err
}

// judge sees what came of it, and demands that it is what was expected.
func (c *cell) judge(t *testing.T) {
	must(t, c.broken)
	want := c.row.expected(c.column.release)
	c.seen = verdict{}
	if c.try.taken {
		if c.refusal != nil && !lab.AnswerLost(c.refusal) {
			t.Errorf("the directory took the password, and yet: %v", c.refusal)
		}
		if !c.row.noLogin {
			must(t, c.dc().Login(c.account.name, c.try.password))
		}
		c.follow(t, want)
		if said := c.hookSaid(t); said != "accepted" && said != "" || (said == "") != c.unasked() {
			t.Errorf("%v, and the hook's answer was %q", c.seen, said)
		}
	} else {
		c.seen = both(c.whyNot(t))
	}
	for cloud, o := range c.seen {
		c.try.fate[cloud] = o
		c.seen[cloud] = o.as(want[cloud])
	}
	for _, other := range c.others {
		must(t, c.column.arrives(other, other.changes[len(other.changes)-1]))
	}
	if c.seen.String() != want.String() {
		t.Errorf("%v; expected was %v (refusal: %v)", c.seen, want, c.refusal)
	}
}

// unasked says whether drift holds that Samba did not run the hook.
func (c *cell) unasked() bool {
	o := c.seen[sandbox.Google]
	return o.as(drift("hash-only")) == drift("hash-only") || o.as(drift("complexity-off")) == drift("complexity-off")
}

// whyNot tells why the directory did not take the password.
func (c *cell) whyNot(t *testing.T) outcome {
	switch said := c.hookSaid(t); {
	case said == "refused":
		return notSent("refused by the policy")
	case said == "" && c.refusal != nil:
		return notOffered(c.refusal.Error())
	case said == "":
		return notSent("no password")
	}
	// The hook let it through. Samba's refusal is not enough: serve must find out.
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if c.shredded() {
			if c.refusal != nil {
				return notSent("refused by Samba after the hook")
			}
			return notSent("never the account's")
		}
	}
	return outcome{"lost", "a capture that was never the account's is still held"}
}

// follow sees where a password went that the directory took. On a busy machine drift may list what is only late, as not captured: the lab's
// confirm_timeout is short. Where that is not expected, it is believed when nothing else has come.
func (c *cell) follow(t *testing.T, want verdict) {
	listed := verdict{}
	for deadline := time.Now().Add(patience); len(c.seen) < len(lab.Clouds) && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		for _, cloud := range lab.Clouds {
			if _, ok := c.seen[cloud]; ok {
				continue
			}
			switch o, ok := c.fate(t, cloud); {
			case ok && o == drift("not-captured") && want[cloud].kind != "drift":
				listed[cloud] = o
			case ok:
				c.seen[cloud] = o
			}
		}
	}
	for cloud, o := range listed {
		if late, ok := c.seen[cloud]; ok {
			t.Logf("%s: listed as %v before it was %v", cloud, o, late)
		} else {
			c.seen[cloud] = o
		}
	}
	for _, cloud := range lab.Clouds {
		if _, ok := c.seen[cloud]; !ok {
			c.seen[cloud] = outcome{"lost", "neither delivered nor reported"}
		}
	}
}

// sent is how often the clouds were sent a password under the account's name.
func (c *cell) sent(password string) (map[sandbox.Cloud]int, error) {
	times := map[sandbox.Cloud]int{}
	for _, cloud := range lab.Clouds {
		for _, p := range c.column.history(cloud, c.account.mail) {
			is, err := lab.Is(p, password)
			if err != nil {
				return nil, err
			}
			if is {
				times[cloud]++
			}
		}
	}
	return times, nil
}

// fate is what became of the password at one cloud, if that is known yet.
func (c *cell) fate(t *testing.T, cloud sandbox.Cloud) (outcome, bool) {
	sent, err := c.sent(c.try.password)
	must(t, err)
	if sent[cloud] > c.had[cloud] {
		return delivered, true // how often, addUp sees
	}
	if e, ok := c.happened("unwanted"); ok {
		return notSent(e.Fields["why"]), true
	}
	if c.shredded() {
		_, known, err := c.held()
		must(t, err)
		if !known {
			return notSent("the account is gone"), true
		} // else it is for drift to say that the account lacks its password
	}
	list, err := c.column.drift()
	must(t, err)
	for _, entry := range list.Drift {
		if entry.Account == c.account.name && entry.Target == targets[cloud] {
			return drift(strings.TrimSuffix(entry.Reason+" "+entry.Detail, " ")), true
		}
	}
	return outcome{}, false
}

// targets are the clouds' names in samba-pwsync.toml.
var targets = map[sandbox.Cloud]string{sandbox.Google: "google", sandbox.Microsoft: "entra"}

// happened returns the first such event about the account since the change, under the name that it had then or the one it has now.
func (c *cell) happened(name string) (lab.Event, bool) {
	c.column.mu.Lock()
	defer c.column.mu.Unlock()
	for _, e := range c.column.events {
		if of := e.Fields["account"]; e.Name == name && e.Time.After(c.at) && (of == c.name || of == c.account.name) {
			return e, true
		}
	}
	return lab.Event{}, false
}

// shredded says whether serve has given a capture of the account up.
func (c *cell) shredded() bool {
	_, never := c.happened("never-committed")
	_, late := c.happened("unclaimed") // of one from before serve's start
	return never || late
}

// hookSaid is what the hook answered when the password was changed: "accepted", "refused" or "failed"; "" if it was not asked.
func (c *cell) hookSaid(t *testing.T) string {
	said, err := c.dc().HookSaid(ctx, c.name)
	must(t, err)
	if len(said) <= c.told {
		return ""
	}
	return said[len(said)-1]
}
