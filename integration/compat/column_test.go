package compat

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// column is a lab with one Samba, and what is known about it.
type column struct {
	suite   string
	short   bool
	version string // "4.17.12-Debian"
	release int    // 17
	lab     *lab.Lab

	cells  []*cell
	totals totals

	names atomic.Int32
	state atomic.Pointer[sandbox.State] // of the clouds, at most a few looks old

	mu       sync.Mutex
	accounts []*account
	events   []lab.Event

	drifting sync.Mutex // one look at a time
	listed   driftList
	listedAt time.Time
}

// An account of the domain and of both clouds.
type account struct {
	name string
	mail string // its name at the clouds

	changes []*change // oldest first
}

// A change is one attempt to set a password, and what is known to have come of it.
type change struct {
	password string
	taken    bool   // the directory held it afterwards
	mail     string // the account's name at the clouds when the change was proven
	fate     map[sandbox.Cloud]outcome
}

// password is what the directory holds.
func (a *account) password() string {
	for i := len(a.changes) - 1; i >= 0; i-- {
		if a.changes[i].taken {
			return a.changes[i].password
		}
	}
	return ""
}

// config gives a capture more time than the lab's own does: five columns keep a small machine busy.
var config = strings.Replace(lab.DefaultConfig, `"3s"`, `"15s"`, 1)

func (c *column) start() (err error) {
	if c.lab, err = lab.Start(ctx, lab.Options{Suite: c.suite, Config: config}); err != nil {
		return fmt.Errorf("starting the lab: %w", err)
	}
	if c.version, err = c.lab.DC.Version(ctx); err != nil {
		return errors.Join(err, c.lab.Close())
	}
	if _, err := fmt.Sscanf(c.version, "4.%d.", &c.release); err != nil {
		return errors.Join(fmt.Errorf("reading Samba's version %q: %w", c.version, err), c.lab.Close())
	}
	if err := c.refresh(); err != nil {
		return errors.Join(err, c.lab.Close())
	}
	go func() { _ = c.lab.DC.Follow(ctx, c.note) }() // ends with the container; a judge that sees no events says so
	go c.look()
	return nil
}

func (c *column) note(e lab.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
}

// look keeps the clouds' state, until the lab is gone: one who asks for all.
func (c *column) look() {
	for c.refresh() == nil {
		time.Sleep(100 * time.Millisecond)
	}
}

func (c *column) refresh() error {
	state, err := c.lab.Sandbox.State(ctx)
	if err == nil {
		c.state.Store(&state)
	}
	return err
}

// history is what a cloud was sent under a name, oldest first.
func (c *column) history(cloud sandbox.Cloud, mail string) []sandbox.Password {
	u, _ := c.state.Load().User(cloud, mail)
	return u.Passwords
}

// newAccount makes a name known to the clouds; the domain does not know it yet.
func (c *column) newAccount() (*account, error) {
	a := &account{name: fmt.Sprintf("user%03d", c.names.Add(1))}
	a.mail = lab.Mail(a.name)
	c.add(a)
	return a, c.lab.Sandbox.AddUsers(ctx, a.mail)
}

func (c *column) add(a *account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accounts = append(c.accounts, a)
}

// attempt notes that a password is about to be tried.
func (a *account) attempt(password string) *change {
	ch := &change{password: password, fate: map[sandbox.Cloud]outcome{}}
	a.changes = append(a.changes, ch)
	return ch
}

// create makes an account with a password, and waits until both clouds have it.
func (c *column) create(a *account) error {
	ch := a.attempt(c.lab.NewPassword())
	if err := c.lab.DC.LDAPSCreate(ctx, a.name, "", ch.password); err != nil {
		return err
	}
	return c.arrives(a, ch)
}

// set is a step on the way to what a row is about: a change that must be taken and arrive.
func (c *column) set(a *account, how way) error {
	old := a.password()
	ch := a.attempt(c.lab.NewPassword())
	if err := how(ctx, a.name, old, ch.password); err != nil {
		return err
	}
	return c.arrives(a, ch)
}

// arrives waits until both clouds hold what the directory took.
func (c *column) arrives(a *account, ch *change) error {
	ch.taken, ch.mail = true, a.mail
	for _, cloud := range lab.Clouds {
		held, err := c.lab.Sandbox.Verify(ctx, cloud, a.mail, ch.password, patience)
		if err != nil {
			return err
		}
		if !held {
			return fmt.Errorf("%s did not get a password of %s within %v", cloud, a.name, patience)
		}
		ch.fate[cloud] = delivered
	}
	return nil
}

// driftList is what `samba-pwsync drift --json` prints.
type driftList struct {
	Drift []struct {
		Account string `json:"account"`
		Target  string `json:"target"`
		Reason  string `json:"reason"`
		Detail  string `json:"detail"`
	} `json:"drift"`
}

// Exit codes of `samba-pwsync drift`.
const (
	driftUnknown = 1 // serve does not answer: it has just been started
	driftFound   = 3 // something is listed
)

// drift asks serve whose password a target lacks, or returns what it has answered just now.
func (c *column) drift() (driftList, error) {
	c.drifting.Lock()
	defer c.drifting.Unlock()
	if time.Since(c.listedAt) < 300*time.Millisecond {
		return c.listed, nil
	}
	out, err := c.lab.DC.Exec(ctx, "", "sh", "-c", "samba-pwsync drift --json 2>/dev/null")
	if exit, ok := errors.AsType[*lab.ExitError](err); ok {
		switch exit.Code {
		case driftUnknown:
			return driftList{}, nil
		case driftFound:
			out, err = exit.Output, nil
		}
	}
	if err != nil {
		return driftList{}, err
	}
	var list driftList
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return list, fmt.Errorf("reading what drift lists: %w", err)
	}
	c.listed, c.listedAt = list, time.Now()
	return list, nil
}
