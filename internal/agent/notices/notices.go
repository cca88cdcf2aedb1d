// Package notices decides who is told that the policy refused a password, and how often.
//
// What: it gets what the hook noted (internal/agent/refusals), collects what belongs to one account for a while, asks the directory
// whose account it is, and puts a change.Notice into spool/outgoing. The forwarder, which has the network, sends it
// (internal/notice).
//
// Why so careful: any domain user can have Samba run the hook with anybody's name and any password (SamrValidatePassword). Were people told
// of that, he could have any of them sent as many mails as he likes, from an address that they trust. There Samba names
// neither user principal name nor full name, as it does where a password is really to be changed, of an account that has one of the two; so
// where it names neither, nobody is told, and an account that has neither is never told. What is left was tried by
// somebody who may change the account's password: who knows the present one, or an administrator. And each account is told at most once in
// a while, all together at most so often in an hour, and of nothing that is old.
//
// Whom it trusts: the hook's file and the DC. The directory's values go into the notice as they are; who puts them into a mail has
// to look at them.
//
// What it does not solve: what is being collected is forgotten when the agent ends, and so is who was told when.
package notices

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/refusal"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	// staleAfter is for how long after it somebody still wants to hear of a refusal.
	staleAfter = time.Hour
	// maxCollected bounds the accounts that are collected for, at a time.
	maxCollected = 10000
	// maxRules bounds the rules of a notice.
	maxRules = 32

	fullName = "displayName"
)

// Directory is what is asked of a DC.
type Directory interface {
	route.Directory
	AccountByName(ctx context.Context, sAMAccountName string, attrs []string) (directory.Account, error)
}

// Options are what a Notices needs. All must be set.
type Options struct {
	Spool        *spool.Spool // for notices
	Routes       *route.Table
	Address      string        // the attribute with the e-mail address
	Collect      time.Duration // for how long an account's refusals are collected
	AccountPause time.Duration // within which an account is told at most once
	Hourly       int           // how many notices there are in an hour at most
	Audited      bool          // tell also of what was only audited
	Log          *event.Log
}

// Notices is made by New. Add and Send may be called concurrently; Send is for one goroutine.
type Notices struct {
	Options
	told    map[dsdb.GUID]time.Time
	made    []time.Time // within the last hour
	limited bool        // that there are too many has been said

	mu      sync.Mutex
	pending map[key]*collected
}

type key struct {
	account string // in lower case
	audit   bool
}

// collected is what is to be said of an account.
type collected struct {
	account     string
	policy      string // the last one's
	rules       []string
	audit       bool
	times       int
	first, last time.Time
	due         time.Time
}

// New starts nothing.
func New(o Options) *Notices {
	return &Notices{Options: o, told: map[dsdb.GUID]time.Time{}, pending: map[key]*collected{}}
}

// Add takes what the hook noted.
func (n *Notices) Add(records []refusal.Record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for _, r := range records {
		if r.Probe || r.Account == "" || r.Audit && !n.Audited || stale(r.Time, now) {
			continue
		}
		k := key{strings.ToLower(r.Account), r.Audit}
		c := n.pending[k]
		if c == nil {
			if len(n.pending) == maxCollected {
				continue
			}
			c = &collected{account: r.Account, audit: r.Audit, first: r.Time, due: now.Add(n.Collect)}
			n.pending[k] = c
		}
		c.policy, c.last = r.Policy, r.Time
		c.times++
		for _, rule := range r.Rules {
			if !slices.Contains(c.rules, rule) && len(c.rules) < maxRules {
				c.rules = append(c.rules, rule)
			}
		}
	}
}

// stale is true also of what is to come: then the clock was set back, and nobody knows how long ago it was.
func stale(at, now time.Time) bool {
	age := now.Sub(at)
	return age > staleAfter || age < -staleAfter
}

// Send hands over what was collected long enough. The error is the DC's that did not answer, or ctx's: then what was not handed over is
// still there.
func (n *Notices) Send(ctx context.Context, dc Directory) error {
	for _, c := range n.due() {
		k := key{strings.ToLower(c.account), c.audit}
		err := n.send(ctx, dc, c)
		if errors.Is(err, directory.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			n.Log.AgentTrouble("telling somebody that a password was refused", err)
		}
		n.mu.Lock()
		delete(n.pending, k)
		n.mu.Unlock()
	}
	return nil
}

// due lists what has been collected long enough, what was refused in front of what was only audited: of the two an account is told one.
func (n *Notices) due() []collected {
	n.mu.Lock()
	defer n.mu.Unlock()
	var due []collected
	now := time.Now()
	for k, c := range n.pending {
		switch {
		case now.Before(c.due):
		case stale(c.last, now): // the DC was away
			delete(n.pending, k)
		default:
			copied := *c
			copied.rules = slices.Clone(c.rules)
			due = append(due, copied)
		}
	}
	slices.SortFunc(due, func(a, b collected) int {
		if a.audit != b.audit {
			if b.audit {
				return -1
			}
			return 1
		}
		return cmp.Or(a.first.Compare(b.first), strings.Compare(a.account, b.account))
	})
	return due
}

// send makes the notice, if the account is to be told.
func (n *Notices) send(ctx context.Context, dc Directory, c collected) error {
	attributes := []string{fullName}
	if !slices.ContainsFunc([]string{fullName, "sAMAccountName", "userPrincipalName"}, func(known string) bool { return strings.EqualFold(known, n.Address) }) {
		attributes = append(attributes, n.Address)
	}
	a, err := dc.AccountByName(ctx, c.account, attributes)
	if errors.Is(err, directory.ErrNotFound) {
		return nil // an account that was to be created, or nobody's
	}
	if err != nil {
		return err
	}
	if a.UserAccountControl&dsdb.UFAccountDisable != 0 {
		return nil
	}
	if why, err := n.Routes.Meant(ctx, dc, a); err != nil || why != "" {
		if errors.Is(err, directory.ErrNotFound) {
			return nil
		}
		return err
	}
	account := change.Account{GUID: a.GUID, SAMAccountName: a.SAMAccountName, UserPrincipalName: a.UserPrincipalName}
	if !n.allowed(account) {
		return nil
	}
	notice := change.Notice{
		ID: newID(), Account: account, FullName: a.Attributes[fullName], Address: n.addressOf(a),
		Policy: c.policy, Rules: c.rules, Audit: c.audit, Times: c.times, First: c.first, Last: c.last,
	}
	b, err := notice.Marshal()
	if err != nil {
		return fmt.Errorf("encoding a notice: %w", err)
	}
	now := time.Now()
	if err := n.Spool.Put(change.NoticeFile(now, notice.ID), b); err != nil {
		return err
	}
	n.told[a.GUID], n.made = now, append(n.made, now)
	n.Log.NoticeMade(account, notice.ID, c.rules)
	return nil
}

// allowed reports whether the account may be told now.
func (n *Notices) allowed(a change.Account) bool {
	now := time.Now()
	for guid, at := range n.told {
		if now.Sub(at) >= n.AccountPause {
			delete(n.told, guid)
		}
	}
	if _, told := n.told[a.GUID]; told {
		return false
	}
	n.made = slices.DeleteFunc(n.made, func(at time.Time) bool { return now.Sub(at) >= time.Hour })
	over := len(n.made) >= n.Hourly
	if over && !n.limited {
		n.Log.NoticesLimited(n.Hourly)
	}
	n.limited = over
	return !over
}

func (n *Notices) addressOf(a directory.Account) string {
	switch strings.ToLower(n.Address) {
	case "samaccountname":
		return a.SAMAccountName
	case "userprincipalname":
		return a.UserPrincipalName
	case strings.ToLower(fullName):
		return a.Attributes[fullName]
	}
	return a.Attributes[n.Address]
}

func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails: it ends the program instead
	return hex.EncodeToString(id[:])
}
