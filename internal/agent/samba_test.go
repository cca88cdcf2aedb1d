package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/proof/prooftest"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// samba is a domain controller in memory that behaves like Samba where the agent can notice: a change is visible when it is
// committed and not before, moves the stamp and the USN, and a connection's searches are worked off in turn.
type samba struct {
	turn chan struct{} // held by the search that is worked off

	mu         sync.Mutex
	latency    time.Duration // of each search
	accounts   map[dsdb.GUID]*directory.Account
	deleted    map[dsdb.GUID]*directory.Account
	usn        uint64
	invocation dsdb.GUID
	down       bool
	known      int             // how often Known was asked
	breaks     int             // the next Changed loses the connection when it has told of so many
	paging     time.Duration   // of all accounts, beside other searches
	loses      bool            // it greets, and hangs up at the first search
	storesNone bool            // nt hash store = never
	refuses    map[string]bool // names and GUIDs whose lookup is answered with an LDAP error
	unreadable error           // of the Configuration partition and the domain's settings
	simple     bool            // complexity is off in the domain
	psos       map[dsdb.GUID]directory.FineGrained
	generation int // of connections; those of an earlier one are dead
	dials      int
	looks      []string // names and GUIDs that were looked up
	scans      []uint64 // USNs from which changes were read
	listed     int      // how often the domain controllers were
	stuck      string   // a filter that is not answered for all accounts
	named      names

	controllers []directory.Controller
	neighbours  []directory.Neighbour
}

// names are a DC's indexes of mail and userPrincipalName, as of a USN.
type names struct {
	usn     uint64
	holders map[name][]*directory.Account
}

// name is an attribute, and a value in lower case.
type name [2]string

func newSamba() *samba {
	return &samba{turn: make(chan struct{}, 1), accounts: map[dsdb.GUID]*directory.Account{}, deleted: map[dsdb.GUID]*directory.Account{},
		invocation: dsdb.GUID{0xdc}, usn: 4000}
}

func hash(password string) []byte { return prooftest.NTHash(password) }

// create adds an account; attributes are name=value.
func (s *samba) create(name, password string, attributes ...string) dsdb.GUID {
	s.mu.Lock()
	a := &directory.Account{
		GUID:              dsdb.GUID{byte(len(s.accounts)), byte(len(s.accounts) >> 8), 0xac},
		SAMAccountName:    name,
		UserPrincipalName: name + "@corp.example",
		Attributes:        map[string]string{"mail": name + "@example.com"},
	}
	for _, attribute := range attributes {
		k, v, _ := strings.Cut(attribute, "=")
		a.Attributes[strings.ToLower(k)] = v
	}
	s.accounts[a.GUID] = a
	s.mu.Unlock()
	s.set(a.GUID, password)
	return a.GUID
}

// set commits a change of a password.
func (s *samba) set(guid dsdb.GUID, password string) {
	s.update(guid, func(a *directory.Account) {
		a.NTHash, a.SupplementalCredentials = hash(password), anyKeys
		if s.storesNone {
			const n = prooftest.Iterations
			salt := "CORP.EXAMPLE" + a.SAMAccountName
			a.NTHash, a.SupplementalCredentials = nil, prooftest.SupplementalCredentials(prooftest.AES256Key(password, salt, n), salt, n)
		}
		s.stampAnew(a)
	})
}

// anyKeys are keys that nobody looks at who finds a hash.
var anyKeys = prooftest.SupplementalCredentials(make([]byte, 32), "salt", 1)

// stampAnew is what each change of a password does to the metadata.
func (s *samba) stampAnew(a *directory.Account) {
	a.Stamp = dsdb.Stamp{Version: a.Stamp.Version + 1, Time: time.Now().UTC().Truncate(time.Second), InvocationID: s.invocation, USN: s.usn}
	a.MetaData = dsdb.MetaData{{AttID: dsdb.AttIDUnicodePwd, Stamp: a.Stamp}, {AttID: dsdb.AttIDSupplementalCredentials, Stamp: a.Stamp}}
}

func (s *samba) rename(guid dsdb.GUID, name string) {
	s.update(guid, func(a *directory.Account) { a.SAMAccountName = name })
}

func (s *samba) update(guid dsdb.GUID, change func(*directory.Account)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usn++
	s.accounts[guid].USNChanged = s.usn
	change(s.accounts[guid])
}

func (s *samba) remove(guid dsdb.GUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usn++
	s.accounts[guid].USNChanged = s.usn
	s.deleted[guid] = s.accounts[guid]
	delete(s.accounts, guid)
}

// bringBack undoes a deletion, as Samba does since 4.5 (tombstone reanimation).
func (s *samba) bringBack(guid dsdb.GUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usn++
	s.deleted[guid].USNChanged = s.usn
	s.accounts[guid] = s.deleted[guid]
	delete(s.deleted, guid)
}

// goesBack makes an account what it was, or takes it out without a trace. What the DC has given out of USNs stays: it has come as far again.
func (s *samba) goesBack(guid dsdb.GUID, to *directory.Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.accounts, guid); to != nil {
		s.accounts[guid] = to
	}
}

// account returns an account as it is.
func (s *samba) account(guid dsdb.GUID) directory.Account {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.accounts[guid]
}

func (s *samba) stamp(guid dsdb.GUID) dsdb.Stamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accounts[guid].Stamp
}

// slow makes each search that begins from now on take that long.
func (s *samba) slow(latency time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency = latency
}

func (s *samba) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	s.generation++
}

func (s *samba) loseSearches(loses bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loses = loses
}

func (s *samba) counts() (looks, scans, dials int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.looks), len(s.scans), s.dials
}

func (s *samba) dial(context.Context) (Directory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	if s.down {
		return nil, directory.ErrUnavailable
	}
	return &connection{s, s.generation}, nil
}

type connection struct {
	*samba
	generation int
}

func (c *connection) Close() error { return nil }

func (c *connection) search(ctx context.Context, run func() error) error {
	c.mu.Lock()
	loses := c.loses
	c.mu.Unlock()
	if loses {
		return fmt.Errorf("searching: %w", directory.ErrUnavailable)
	}
	return c.exchange(ctx, run)
}

// exchange waits for its turn and then runs with c.mu held; half of the time goes by before that, half after.
func (c *connection) exchange(ctx context.Context, run func() error) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.turn }()
	c.mu.Lock()
	half := c.latency / 2
	c.mu.Unlock()
	if err := pause(ctx, half); err != nil {
		return err
	}
	c.mu.Lock()
	err := run()
	c.mu.Unlock()
	if err := pause(ctx, half); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down || c.generation != c.samba.generation {
		return fmt.Errorf("searching: %w", directory.ErrUnavailable)
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 { // Go 1.26's race detector may crash where a bubble waits for a timer that is due at once
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *connection) Root(ctx context.Context) (r directory.Root, err error) {
	err = c.exchange(ctx, func() error {
		r = directory.Root{DNSHostName: "dc1.corp.example", HighestUSN: c.usn, InvocationID: c.invocation}
		return nil
	})
	return r, err
}

func (c *connection) Controllers(ctx context.Context) (found []directory.Controller, err error) {
	err = c.search(ctx, func() error {
		c.listed++
		if c.unreadable != nil {
			return c.unreadable
		}
		found = append([]directory.Controller{{Name: "DC1", InvocationID: c.invocation, Writable: true}}, c.controllers...)
		return nil
	})
	return found, err
}

func (c *connection) Neighbours(ctx context.Context) (found []directory.Neighbour, err error) {
	err = c.search(ctx, func() error { found = slices.Clone(c.neighbours); return nil })
	return found, err
}

func (c *connection) AccountByName(ctx context.Context, name string, attrs []string) (a directory.Account, err error) {
	err = c.search(ctx, func() error {
		c.looks = append(c.looks, name)
		if c.refuses[name] {
			return fmt.Errorf("LDAP result 1")
		}
		for _, found := range c.accounts {
			if strings.EqualFold(found.SAMAccountName, name) {
				a = project(*found, attrs)
				return a.Unreadable
			}
		}
		return directory.ErrNotFound
	})
	return a, err
}

func (c *connection) AccountByGUID(ctx context.Context, guid dsdb.GUID, attrs []string) (a directory.Account, err error) {
	err = c.search(ctx, func() error {
		c.looks = append(c.looks, guid.String())
		if c.refuses[guid.String()] {
			return fmt.Errorf("LDAP result 1")
		}
		found := c.accounts[guid]
		if found == nil {
			return directory.ErrNotFound
		}
		a = project(*found, attrs)
		return a.Unreadable
	})
	return a, err
}

func project(a directory.Account, attrs []string) directory.Account {
	if !slices.Contains(attrs, "supplementalCredentials") {
		a.SupplementalCredentials = nil
	}
	a.NTHash, a.SupplementalCredentials = slices.Clone(a.NTHash), slices.Clone(a.SupplementalCredentials) // whoever asks may wipe them
	all := a.Attributes
	a.Attributes = map[string]string{}
	for _, name := range attrs {
		if v := all[strings.ToLower(name)]; v != "" {
			a.Attributes[name] = v
		}
	}
	return a
}

// Matches knows filters of the form (name=value).
func (c *connection) Matches(ctx context.Context, guid dsdb.GUID, filter string) (matches bool, err error) {
	err = c.search(ctx, func() error {
		found := c.accounts[guid]
		if found == nil {
			return directory.ErrNotFound
		}
		name, value, _ := strings.Cut(strings.Trim(filter, "()"), "=")
		matches = found.Attributes[strings.ToLower(name)] == value
		return nil
	})
	return matches, err
}

func (c *connection) Namesakes(ctx context.Context, attribute string, values, _ []string) (found []directory.Account, err error) {
	err = c.search(ctx, func() error {
		if c.named.usn != c.usn {
			c.named = names{c.usn, map[name][]*directory.Account{}}
			for _, a := range c.accounts {
				for _, n := range []name{{"mail", a.Attributes["mail"]}, {"userprincipalname", a.UserPrincipalName}} {
					n[1] = strings.ToLower(n[1])
					c.named.holders[n] = append(c.named.holders[n], a)
				}
			}
		}
		for _, v := range values {
			for _, a := range c.named.holders[name{attribute, strings.ToLower(v)}] {
				found = append(found, *a)
			}
		}
		return nil
	})
	return found, err
}

// Protected holds of accounts with the attribute protected=yes.
func (c *connection) Protected(ctx context.Context, guid dsdb.GUID) (bool, error) {
	return c.Matches(ctx, guid, "(protected=yes)")
}

func (c *connection) Changed(ctx context.Context, from uint64, attrs []string,
	each func(directory.Account) error, dead func(dsdb.GUID, string) error) error {

	var changed, gone []directory.Account
	err := c.search(ctx, func() error {
		c.scans = append(c.scans, from)
		for _, a := range c.accounts {
			if a.USNChanged >= from {
				found := project(*a, attrs)
				found.NTHash = nil
				changed = append(changed, found)
			}
		}
		for _, a := range c.deleted {
			if a.USNChanged >= from {
				gone = append(gone, *a)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if from == 0 {
		c.mu.Lock()
		paging := c.paging
		c.mu.Unlock()
		if err := pause(ctx, paging); err != nil {
			return err
		}
	}
	slices.SortFunc(changed, func(a, b directory.Account) int { return cmp.Compare(a.USNChanged, b.USNChanged) })
	told := 0
	return tell(changed, gone, func(a directory.Account) error {
		if c.breaksAt(told) {
			return directory.ErrUnavailable
		}
		told++
		return each(a)
	}, dead)
}

func (c *connection) breaksAt(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.breaks == 0 || n != c.breaks {
		return false
	}
	c.breaks = 0
	c.generation++
	return true
}

func (c *connection) Known(ctx context.Context, guids []dsdb.GUID, each func(directory.Account) error, gone func(dsdb.GUID, string) error) error {
	var found, dead []directory.Account
	err := c.search(ctx, func() error {
		c.known++
		for _, guid := range guids {
			if c.refuses[guid.String()] {
				return fmt.Errorf("LDAP result 1")
			}
		}
		for _, guid := range guids {
			if a := c.accounts[guid]; a != nil {
				found = append(found, project(*a, nil))
			}
			for _, a := range c.deleted {
				if a.GUID == guid {
					dead = append(dead, *a)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return tell(found, dead, each, gone)
}

func tell(found, dead []directory.Account, each func(directory.Account) error, gone func(dsdb.GUID, string) error) error {
	for _, a := range found {
		if err := each(a); err != nil {
			return err
		}
	}
	for _, a := range dead {
		if err := gone(a.GUID, a.SAMAccountName); err != nil {
			return err
		}
	}
	return nil
}

func (c *connection) ResultantPSO(ctx context.Context, guid dsdb.GUID) (pso directory.FineGrained, found bool, err error) {
	err = c.search(ctx, func() error {
		pso, found = c.psos[guid]
		return nil
	})
	return pso, found, err
}

func (c *connection) PasswordSettings(ctx context.Context) (p directory.PasswordSettings, err error) {
	err = c.search(ctx, func() error {
		p.Complexity = !c.simple
		return c.unreadable
	})
	return p, err
}

func (c *connection) AllAccounts(ctx context.Context, attrs []string, each func(directory.Account) error) error {
	return c.Changed(ctx, 0, attrs, each, func(dsdb.GUID, string) error { return nil })
}

// Moved tells of no groups: there are none.
func (c *connection) Moved(ctx context.Context, from uint64, attrs []string, each func(directory.Account) error,
	gone func(dsdb.GUID, string) error, _ func(directory.Other) error) error {
	return c.Changed(ctx, from, attrs, each, gone)
}

// Matching is Matches of all; a filter that is named in stuck is not answered in time.
func (c *connection) Matching(ctx context.Context, filter string, each func(dsdb.GUID) error) error {
	c.mu.Lock()
	stuck, guids := c.stuck == filter, slices.Collect(maps.Keys(c.accounts))
	c.mu.Unlock()
	if stuck {
		if err := pause(ctx, 30*time.Second); err != nil {
			return err
		}
		return fmt.Errorf("searching: %w", directory.ErrUnavailable)
	}
	for _, guid := range guids {
		if matches, err := c.Matches(ctx, guid, filter); err != nil {
			return err
		} else if matches {
			if err := each(guid); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *connection) ProtectedAccounts(ctx context.Context, each func(dsdb.GUID) error) error {
	return c.Matching(ctx, "(protected=yes)", each)
}
