package compat

import (
	"fmt"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// totals are over a column or over all. Changes counts what the directory took; all that follows counts each change once for each of the
// two clouds, but for Refused: passwords that the directory never took.
type totals struct {
	Changes, Delivered, NotSent, Drift, Lost, WronglySent, Refused int

	Again int // sent once more, since the directory took it once more: a client had repeated its request
}

func (t totals) String() string {
	return fmt.Sprintf("%d changes at %d clouds: %d delivered, %d rightly not sent, %d reported as drift, %d lost, %d wrongly sent; "+
		"%d refused or forged", t.Changes, len(lab.Clouds), t.Delivered, t.NotSent, t.Drift, t.Lost, t.WronglySent, t.Refused)
}

func (t totals) plus(o totals) totals {
	return totals{t.Changes + o.Changes, t.Delivered + o.Delivered, t.NotSent + o.NotSent, t.Drift + o.Drift, t.Lost + o.Lost,
		t.WronglySent + o.WronglySent, t.Refused + o.Refused, t.Again + o.Again}
}

// addUp holds what the clouds were sent, from the first request to the last, against what the directory took: each password that a
// cloud got must be one that the account of that name had, in the order in which it had them, and as often; each password that the
// directory took and a cloud did not get must have been seen to be unwanted, or be reported.
func (c *column) addUp(t *testing.T) {
	state, err := c.lab.Sandbox.State(ctx) // not the last look, but a new one
	must(t, err)
	for _, v := range state.Violations {
		t.Errorf("%s: %s: %s", v.Cloud, v.Request, v.Reason)
	}
	held, err := c.lab.DC.Held(ctx, "")
	must(t, err)
	took := map[string][]*change{} // by the name at the clouds
	again := map[string]int{}      // how often the directory took a password that it had
	for _, a := range c.accounts {
		versions := int(held[a.name].Stamp.Version)
		for _, ch := range a.changes {
			if !ch.taken {
				c.totals.Refused++
				continue
			}
			c.totals.Changes++
			took[ch.mail] = append(took[ch.mail], ch)
			versions--
		}
		again[a.mail] = max(0, versions)
	}
	for _, u := range state.Users {
		passwords, repeats := u.Passwords, again[u.Name]
		for _, ch := range took[u.Name] {
			switch fate := ch.fate[u.Cloud]; {
			case len(passwords) > 0 && same(t, passwords[0], ch.password):
				passwords = passwords[1:]
				c.totals.Delivered++
				for ; repeats > 0 && len(passwords) > 0 && same(t, passwords[0], ch.password); repeats-- {
					passwords = passwords[1:]
					c.totals.Again++
				}
			case fate.kind == "not sent":
				c.totals.NotSent++
			case fate.kind == "drift":
				c.totals.Drift++
			default:
				c.totals.Lost++
				t.Errorf("%s: a password of %s is lost", u.Cloud, u.Name)
			}
		}
		if n := len(passwords); n > 0 {
			c.totals.WronglySent += n
			t.Errorf("%s was sent %d passwords of %s that it must not have", u.Cloud, n, u.Name)
		}
	}
	if got := c.totals.Delivered + c.totals.NotSent + c.totals.Drift + c.totals.Lost; got != c.totals.Changes*len(lab.Clouds) {
		t.Errorf("of %d changes at %d clouds %d are accounted for", c.totals.Changes, len(lab.Clouds), got)
	}
	c.listsAll(t)
	c.nothingHeld(t)
}

// listsAll demands that drift lists, at the end, the accounts whose last password a cloud that wants it was not sent, and no others.
func (c *column) listsAll(t *testing.T) {
	wanted := map[string]bool{}
	for _, a := range c.accounts {
		var last *change
		for _, ch := range a.changes {
			if ch.taken {
				last = ch
			}
		}
		for _, cloud := range lab.Clouds {
			if last != nil && last.fate[cloud].kind == "drift" {
				wanted[a.name+" at "+targets[cloud]] = true
			}
		}
	}
	list, err := c.drift()
	must(t, err)
	for _, entry := range list.Drift {
		key := entry.Account + " at " + entry.Target
		if !wanted[key] && entry.Account != lab.Veteran {
			t.Errorf("drift lists %s (%s), which lacks nothing", key, entry.Reason)
		}
		delete(wanted, key)
	}
	for key := range wanted {
		t.Errorf("drift does not list %s any more", key)
	}
}

// nothingHeld demands that no password waits, on its way or forgotten. A capture that proves nothing new has its time first.
func (c *column) nothingHeld(t *testing.T) {
	out := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Second) {
		var err error
		out, err = c.lab.DC.Exec(ctx, "", "find", lab.StateDir+"/spool", "-type", "f", "-name", "*.c*")
		must(t, err)
		if out == "" {
			return
		}
	}
	t.Errorf("the spool still holds passwords:\n%s", out)
}

// same says whether what a cloud holds is that password.
func same(t *testing.T, p sandbox.Password, password string) bool {
	t.Helper()
	is, err := lab.Is(p, password)
	must(t, err)
	return is
}
