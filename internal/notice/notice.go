// Package notice tells people why a password was refused: the forwarder's side of it.
//
// What: the agent puts a change.Notice into spool/outgoing for each account that is to be told (internal/agent/notices decides whom, and
// how often). A Courier reads it, puts the rules into words, and gives the Letter to each Sender: a mail (internal/notice/mail), a
// program (internal/notice/command). What fails for the moment is tried again for an hour; then nobody wants to know any more,
// and it is dropped with an event.
//
// At least once: a sender that succeeded is not asked again for the same notice, unless the process ended in between.
//
// Whom it trusts: the folder, which is root's and the forwarder's. The values in a notice come from the directory, and some of them a user
// can write: they are stripped of what could be more than a word in a text, and senders put none of them but the address, which they judge
// first, where a machine reads it.
//
// There is no password, no length and no hash in a notice, so none can be told.
//
// What it does not solve: that whoever reads the mailbox learns that a password was refused, and by which rules.
package notice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
)

const (
	lookEvery = 5 * time.Second
	// keepFor is for how long a notice is tried.
	keepFor    = time.Hour
	firstPause = 30 * time.Second
	lastPause  = 10 * time.Minute
	// tornFor is how long a file may make no sense: its writer creates it under its final name.
	tornFor = 10 * time.Second
	// patience is how many failures of a sender end a look: it may be down, and each attempt takes its time.
	patience = 3
)

// Letter is what is to be told, as senders get it. Its JSON is what a program reads; its fields are what a template can use.
type Letter struct {
	ID                string    `json:"id"`      // of the notice; the same each time that it is tried
	Account           string    `json:"account"` // sAMAccountName
	GUID              string    `json:"guid"`    // objectGUID
	UserPrincipalName string    `json:"user_principal_name"`
	FullName          string    `json:"full_name"`
	Mail              string    `json:"mail"` // empty if the account has no address that can be one
	Policy            string    `json:"policy"`
	Audit             bool      `json:"audit"` // the password was accepted, and would have been refused
	Rules             []Rule    `json:"rules"`
	Times             int       `json:"times"` // how many passwords it was, one after the other
	First             time.Time `json:"first"`
	Last              time.Time `json:"last"`
	MinLength         int       `json:"min_length"` // of the policy; 0 if it is not known
	MaxLength         int       `json:"max_length"`
}

// Rule is one that refused.
type Rule struct {
	Name   string `json:"rule"`
	Reason string `json:"reason"` // in words: "it contains …"
}

// Sender tells somebody. An error that is none of ErrNotNow means that trying again is of no use.
type Sender interface {
	// Name is for the log: "mail".
	Name() string
	// Send returns nil if the letter was taken, or if it is not for this sender.
	Send(ctx context.Context, l Letter) error
}

// ErrNotNow means that a later attempt may succeed.
var ErrNotNow = errors.New("not now")

// Options say what a Courier works with. All must be set but Senders: without, notices are dropped.
type Options struct {
	Outgoing string
	Policies map[string]Policy // by name
	Senders  []Sender
	Log      *event.Log
}

// Courier is made by New and runs once.
type Courier struct {
	out      *spool.Spool
	policies map[string]Policy
	senders  []Sender
	log      *event.Log
	known    map[string]*state // by file

	mu     sync.Mutex
	status Status
}

// state is what is known of a file.
type state struct {
	met   time.Time
	told  map[string]bool // senders that have nothing more to do
	due   time.Time
	pause time.Duration
	said  bool // that it will be tried again
}

// Status says what became of notices since the start.
type Status struct {
	Waiting int    `json:"waiting"`
	Sent    uint64 `json:"sent"` // by a sender: mail and program count one each
	Lost    uint64 `json:"lost"` // given up by a sender
}

// New opens the folder, and starts nothing.
func New(o Options) (*Courier, error) {
	out, err := spool.Open(o.Outgoing, change.NoticeSuffix)
	if err != nil {
		return nil, err
	}
	return &Courier{out: out, policies: o.Policies, senders: o.Senders, log: o.Log, known: map[string]*state{}}, nil
}

// Run tells people until ctx ends.
func (c *Courier) Run(ctx context.Context) {
	healthy := true
	for {
		err := c.look(ctx)
		if err != nil && healthy {
			c.log.ForwarderTrouble("telling people that a password was refused", err)
		}
		healthy = err == nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
		}
	}
}

// Status may be called at any time.
func (c *Courier) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *Courier) count(change func(*Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
}

// look tries what is due. The error is the disk's.
func (c *Courier) look(ctx context.Context) error {
	names, err := c.out.List()
	if err != nil {
		return err
	}
	there := make(map[string]*state, len(names))
	for _, name := range names {
		if there[name] = c.known[name]; there[name] == nil {
			there[name] = &state{met: time.Now(), told: map[string]bool{}}
		}
	}
	c.known = there
	failures := map[string]int{}
	var trouble error
	waiting := 0
	for _, name := range names {
		if ctx.Err() != nil {
			return nil
		}
		over, err := c.try(ctx, name, there[name], failures)
		if err == nil && over {
			err = c.out.Remove(name)
		}
		if !over {
			waiting++
		}
		trouble = cmp.Or(trouble, err)
	}
	c.count(func(s *Status) { s.Waiting = waiting })
	return trouble
}

// try gives a notice to the senders that have not had it. over means that its file is of no more use.
func (c *Courier) try(ctx context.Context, file string, s *state, failures map[string]int) (over bool, err error) {
	now := time.Now()
	if now.Before(s.due) {
		return false, nil
	}
	n, err := c.read(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case errors.Is(err, change.ErrDamaged) || errors.Is(err, spool.ErrTooLarge):
		if now.Sub(s.met) < tornFor {
			return false, nil
		}
		c.log.NoticeDamaged(file, err)
		return false, c.out.SetAside(file)
	case err != nil:
		return false, err
	}
	letter := c.letter(n)
	last := now.Sub(s.met) >= keepFor || now.Sub(made(file)) >= keepFor
	over = true
	for _, sender := range c.senders {
		name := sender.Name()
		if s.told[name] {
			continue
		}
		if failures[name] >= patience && !last {
			over = false
			continue
		}
		err := sender.Send(ctx, letter)
		switch {
		case err == nil:
			s.told[name] = true
			c.count(func(s *Status) { s.Sent++ })
			c.log.NoticeSent(n.Account, n.ID, name, n.Rules)
		case ctx.Err() != nil:
			return false, nil
		case last || !errors.Is(err, ErrNotNow):
			s.told[name] = true
			c.count(func(s *Status) { s.Lost++ })
			c.log.NoticeLost(n.Account, n.ID, name, err)
		default:
			over = false
			failures[name]++
			if !s.said {
				s.said = true
				c.log.NoticeLate(n.Account, n.ID, name, err)
			}
		}
	}
	if !over {
		s.pause = min(max(firstPause, 2*s.pause), lastPause)
		s.due = now.Add(s.pause)
	}
	return over, nil
}

func (c *Courier) read(file string) (change.Notice, error) {
	b, err := c.out.Read(file, change.MaxSize)
	if err != nil {
		return change.Notice{}, err
	}
	return change.ParseNotice(b)
}

// made is when a file was made, by its name; now, if that is not to be told or is not yet.
func made(file string) time.Time {
	now := time.Now()
	digits, _, _ := strings.Cut(file, "-")
	if nanoseconds, err := strconv.ParseInt(digits, 10, 64); err == nil && nanoseconds < now.UnixNano() {
		return time.Unix(0, nanoseconds)
	}
	return now
}

// letter puts a notice into words.
func (c *Courier) letter(n change.Notice) Letter {
	policy := c.policies[n.Policy]
	l := Letter{
		ID: word(n.ID), Account: word(n.Account.SAMAccountName), GUID: n.Account.GUID.String(), UserPrincipalName: word(n.Account.UserPrincipalName),
		FullName: word(n.FullName), Policy: word(n.Policy), Audit: n.Audit, Times: n.Times, First: n.First, Last: n.Last,
		MinLength: policy.MinLength, MaxLength: policy.MaxLength,
	}
	if isAddress(n.Address) {
		l.Mail = n.Address
	}
	for _, rule := range n.Rules {
		l.Rules = append(l.Rules, Rule{word(rule), reason(rule, policy)})
	}
	return l
}

// word makes a value fit for a line of text: nothing in it ends the line, turns it round or hides, and it has an end.
func word(s string) string {
	const most = 256
	n := 0
	return strings.Map(func(r rune) rune {
		if n++; n > most {
			return -1
		}
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
}

// isAddress is stricter than RFC 5322: what has quotes, comments, spaces or a name beside it is none. So an address is never
// more than one address, wherever it is written.
func isAddress(s string) bool {
	if len(s) > 254 || strings.ToValidUTF8(s, "") != s {
		return false
	}
	user, domain, found := strings.Cut(s, "@")
	dots := func(s string) bool {
		return s != "" && !strings.HasPrefix(s, ".") && !strings.HasSuffix(s, ".") && !strings.Contains(s, "..")
	}
	inUser := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(".!#$%&'*+-/=?^_`{|}~", r)
	}
	inDomain := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '.' || r == '-'
	}
	only := func(s string, ok func(rune) bool) bool {
		return !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) })
	}
	return found && dots(user) && dots(domain) && only(user, inUser) && only(domain, inDomain) && user[0] != '-' && domain[0] != '-'
}

// Policy is what has to be known of one to put its rules into words.
type Policy struct {
	MinLength, MaxLength int
	Tiers                bool // longer passwords need fewer kinds of characters
}

// reason says of a rule, in words for the person whose password it was, what is wrong with a password that it refuses.
func reason(rule string, p Policy) string {
	switch rule {
	case "length":
		if p.MinLength == 0 {
			return "it is too short or too long"
		}
		return fmt.Sprintf("it is too short or too long: it needs %d to %d characters", p.MinLength, p.MaxLength)
	case "complexity":
		if p.Tiers {
			return "it has too few kinds of characters for its length: use upper and lower case, digits and other characters, or take a longer one"
		}
		return "it has too few kinds of characters: use at least three of upper case, lower case, digits and other characters"
	case "name":
		return "it contains the name of the account, or a part of your name"
	case "walk":
		return "it is little else than neighbouring keys, a sequence or a repetition, like qwertz, 1234 or aaaa"
	case "banned":
		return "it is little else than words that many choose, or that are easily guessed here"
	case "breached":
		return "it is in a list of passwords that were stolen elsewhere, and that attackers try first"
	case "target":
		return "another service that it would be for, too, does not take it: use at least eight characters, of three kinds among a to z, A to Z, digits and punctuation, and no accented letters"
	case "unreadable":
		return "it is empty, much too long, or made of characters that are none"
	case "also":
		return "a further check of your organisation does not allow it"
	}
	return "the rule " + strconv.Quote(word(rule)) + " does not allow it"
}
