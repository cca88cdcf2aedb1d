// Package census keeps the file that tells the hook which policy each account has and which targets want it (internal/policy/index).
//
// Why: both are chosen by LDAP filters, and the hook must not ask the directory. What the DC answers is put down here before anybody
// changes a password.
//
// How: when it starts, the census reads all accounts' names and asks the DC each filter once, for all accounts (answers.go). Then it
// looks every two seconds at what got a new USN (directory.Moved):
//
//   - an account: the filters are asked of it alone, unless nothing but its password was written, which decides nothing;
//   - a group: memberOf is a back link, so who joins or leaves, at whatever depth, does not change himself. All filters are asked
//     again, if one of them is about groups, or administrators are left out;
//   - an organisational unit or its like: all accounts are read again, because those below have other names now, and have not changed
//     either; if a base_dn asks for the place;
//   - thousands of objects, or another database: everything is read again.
//
// Filters can be about more links than memberOf (directReports, say), so all of them are asked once an hour as well, if anything changed.
// Asking all of them costs the DC in proportion to the accounts, so between two times it rests ten times as long as the former took. What
// has to wait is done together; an account's own changes never wait.
//
// What decides about targets is what decides about deliveries: internal/route, asked of the DC account by account, or of
// what the DC answered about all of them.
//
// Whom it trusts: the DC, and whoever may write the attributes that filters ask for. A user who can write such an attribute of his own
// account chooses his policy.
//
// What it does not solve: between a change and the next look an account has the policy that it had, and an account that is new is
// unknown; the hook has an answer for that. As long as the DC refuses an answer, or the disk the file, the last file stays in force.
package census

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/index"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Every is how often Pass should be called: how long it may take until an account's own change counts.
const Every = 2 * time.Second

const (
	// After all filters were asked for all accounts, that is not done again for restShare times as long as it took; after it
	// failed, for a minute at least.
	restShare   = 10
	restLeast   = 5 * time.Second
	restMost    = 10 * time.Minute
	restFailure = time.Minute

	// wholeEvery is how often all filters are asked though nothing says that their answers changed.
	wholeEvery = time.Hour

	// singly is how many accounts are asked about one by one; of more, all accounts together are cheaper.
	singly = 200
)

// Directory is what is asked of a DC.
type Directory interface {
	route.Directory
	Root(ctx context.Context) (directory.Root, error)
	AllAccounts(ctx context.Context, attrs []string, each func(directory.Account) error) error
	Moved(ctx context.Context, fromUSN uint64, attrs []string, each func(directory.Account) error,
		gone func(guid dsdb.GUID, sAMAccountName string) error, other func(directory.Other) error) error
	Matching(ctx context.Context, filter string, each func(dsdb.GUID) error) error
	ProtectedAccounts(ctx context.Context, each func(dsdb.GUID) error) error
}

// Policy is what the configuration says of whose a policy is.
type Policy struct {
	Name   string
	BaseDN string // an account must lie below it; empty: it need not
	Filter string // and match this LDAP filter; empty: it need not
}

// Rules are what decides, beside the routes.
type Rules struct {
	Wanted   bool     // whether the hook asks for anything of this
	Policies []Policy // of several that fit an account, the first is the account's
}

// Options are what a Census needs.
type Options struct {
	File   string                // the index
	Rules  func() (Rules, error) // as they are now; cheap. After an error those before hold
	Routes *route.Table
	// WentBack says how often the directory was seen to go back; nil: nobody sees that.
	WentBack func() int64
	Log      *event.Log
}

// Census is made by New.
type Census struct {
	Options

	// Pass's own; it is not called concurrently.
	rules    rules
	ruled    bool // rules have been read
	known    map[dsdb.GUID]*person
	entries  map[string]*index.Entry // the different answers, so that accounts can share them
	at       position
	times    int64 // that it went back
	due      work
	idle     time.Time // no work before that
	whole    time.Time // when all filters were asked last
	wholeUSN uint64
	dirty    bool // the file is not what is known
	stale    bool // what is known is of other rules
	told     bool // that something fails has been said
	failed   bool // the last pass failed at work

	mu     sync.Mutex
	status Status
}

// person is an account.
type person struct {
	dn, name, upn string
	attributes    []string // in the order of the routes' attributes
	entry         *index.Entry
}

type position struct {
	invocation dsdb.GUID
	usn        uint64
}

// work is what is to be done for all accounts.
type work int

const (
	nothing work = iota
	asking       // all filters
	reading      // all accounts, and then all filters
)

// New returns a census that knows nobody yet.
func New(o Options) *Census { return &Census{Options: o, entries: map[string]*index.Entry{}} }

// Pass looks once at what has changed, and brings the file up to date. The errors are the connection's and the context's; other
// trouble it tells itself, once, and tries again.
func (c *Census) Pass(ctx context.Context, dc Directory) error {
	err := c.pass(ctx, dc)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.note(err)
	c.failed = false
	if errors.Is(err, directory.ErrUnavailable) {
		return err
	}
	return nil
}

func (c *Census) pass(ctx context.Context, dc Directory) error {
	faulty := c.readRules()
	if !c.ruled || !c.rules.Wanted {
		c.known = nil
		return faulty
	}
	root, err := dc.Root(ctx)
	if err != nil {
		return fmt.Errorf("asking how far the directory is: %w", err)
	}
	now := position{root.InvocationID, root.HighestUSN}
	switch back := c.wentBack(); {
	case back, c.known == nil, now.invocation != c.at.invocation, now.usn < c.at.usn:
		c.due = reading
	case now != c.at:
		if err := c.follow(ctx, dc, now); err != nil {
			return err
		}
	}
	if c.due == nothing && c.at.usn != c.wholeUSN && time.Since(c.whole) >= wholeEvery {
		c.due = asking
	}
	if err := c.work(ctx, dc, now); err != nil {
		return err
	}
	if err := c.write(); err != nil {
		return err
	}
	return faulty
}

// wentBack reports whether the watch has seen the directory go back since it was asked last.
func (c *Census) wentBack() bool {
	if c.WentBack == nil {
		return false
	}
	before := c.times
	c.times = c.WentBack()
	return c.times != before
}

// readRules takes in what the configuration says now.
func (c *Census) readRules() error {
	r, err := c.Rules()
	if err == nil && c.ruled && slices.Equal(r.Policies, c.rules.Policies) {
		c.rules.Wanted = r.Wanted
		return nil
	}
	var parsed rules
	if err == nil {
		parsed, err = parse(r, c.Routes)
	}
	if err != nil {
		return fmt.Errorf("reading the policies from the configuration: %w", err)
	}
	c.rules, c.ruled, c.stale = parsed, true, true
	c.due, c.idle = max(c.due, asking), time.Time{}
	return nil
}

// follow takes in what has changed.
func (c *Census) follow(ctx context.Context, dc Directory, now position) error {
	from := c.at.usn + 1
	var moved []directory.Account
	due := c.due
	err := dc.Moved(ctx, from, c.Routes.Attributes(), func(a directory.Account) error {
		switch {
		case a.Unreadable != nil:
			c.forget(a.GUID)
		case !c.rules.undecisive(a, from) || c.known[a.GUID] == nil:
			a.MetaData = nil // large
			moved = append(moved, a)
		}
		return nil
	}, func(guid dsdb.GUID, _ string) error {
		c.forget(guid)
		return nil
	}, func(o directory.Other) error {
		due = max(due, c.rules.work(o))
		return nil
	})
	if errors.Is(err, directory.ErrManyChanges) {
		c.due = reading
		return nil
	}
	if err != nil {
		return err
	}
	if len(moved) > singly {
		due = max(due, asking)
	}
	for _, a := range moved {
		if len(moved) > singly {
			c.learn(a, nil)
			continue
		}
		entry, err := c.rules.entry(ctx, dc, a)
		switch {
		case errors.Is(err, directory.ErrNotFound): // gone since
			c.forget(a.GUID)
		case err != nil:
			return fmt.Errorf("asking about account %s: %w", a.GUID, err)
		default:
			c.learn(a, c.shared(entry))
		}
	}
	c.due, c.at = due, now
	return nil
}

// learn notes an account. Without an entry it keeps the one it had, until all filters have been asked.
func (c *Census) learn(a directory.Account, entry *index.Entry) {
	p := &person{dn: a.DN, name: a.SAMAccountName, upn: a.UserPrincipalName, entry: entry}
	for _, name := range c.Routes.Attributes() {
		p.attributes = append(p.attributes, a.Attributes[name])
	}
	before := c.known[a.GUID]
	if before != nil && entry == nil {
		p.entry = before.entry
	}
	c.known[a.GUID] = p
	c.dirty = c.dirty || before == nil || before.entry != p.entry || before.name != p.name
}

func (c *Census) forget(guid dsdb.GUID) {
	if c.known[guid] != nil {
		delete(c.known, guid)
		c.dirty = true
	}
}

// shared returns the one of equal entries.
func (c *Census) shared(e index.Entry) *index.Entry {
	key := fmt.Sprintf("%q", append([]string{e.Policy}, e.Targets...))
	if c.entries[key] == nil {
		c.entries[key] = &e
	}
	return c.entries[key]
}

// work does what is due for all accounts, unless it is too early.
func (c *Census) work(ctx context.Context, dc Directory, now position) error {
	if c.due == nothing || time.Now().Before(c.idle) {
		return nil
	}
	began := time.Now()
	known := c.known
	var err error
	if c.due == reading {
		known, err = c.read(ctx, dc)
	}
	var entries map[dsdb.GUID]*index.Entry
	if err == nil {
		entries, err = c.ask(ctx, dc, known)
	}
	rest := min(max(restShare*time.Since(began), restLeast), restMost)
	if err != nil {
		c.idle, c.failed = time.Now().Add(max(rest, restFailure)), true
		return err
	}
	c.idle = time.Now().Add(rest)
	if c.due == reading {
		c.known, c.at, c.dirty = known, now, true
	}
	for guid, p := range c.known {
		c.dirty = c.dirty || p.entry != entries[guid]
		p.entry = entries[guid]
	}
	c.dirty = c.dirty || c.stale
	c.due, c.stale, c.whole, c.wholeUSN = nothing, false, began, c.at.usn
	c.Log.Counted(len(c.known), time.Since(began))
	return nil
}

// read reads all accounts.
func (c *Census) read(ctx context.Context, dc Directory) (map[dsdb.GUID]*person, error) {
	fresh := &Census{Options: c.Options, known: map[dsdb.GUID]*person{}}
	err := dc.AllAccounts(ctx, c.Routes.Attributes(), func(a directory.Account) error {
		if a.Unreadable == nil {
			fresh.learn(a, nil)
		}
		return nil
	})
	return fresh.known, err
}

// ask asks all filters for all accounts.
func (c *Census) ask(ctx context.Context, dc Directory, known map[dsdb.GUID]*person) (map[dsdb.GUID]*index.Entry, error) {
	all := &answers{dc: dc, matching: map[string]map[dsdb.GUID]bool{}}
	attributes := c.Routes.Attributes()
	entries := make(map[dsdb.GUID]*index.Entry, len(known))
	for guid, p := range known {
		a := directory.Account{GUID: guid, DN: p.dn, SAMAccountName: p.name, UserPrincipalName: p.upn, Attributes: map[string]string{}}
		for i, name := range attributes {
			a.Attributes[name] = p.attributes[i]
		}
		entry, err := c.rules.entry(ctx, all, a)
		if err != nil {
			return nil, err
		}
		entries[guid] = c.shared(entry)
	}
	return entries, nil
}

// write makes the file what is known, once that is of the present rules. New accounts about which nobody has been asked yet are left out.
func (c *Census) write() error {
	if !c.dirty || c.stale || c.known == nil {
		return nil
	}
	contents := index.Contents{Made: time.Now(), Fingerprint: c.rules.fingerprint, Policies: c.rules.names(), Targets: c.Routes.Targets()}
	for _, p := range c.known {
		if p.entry != nil {
			contents.Accounts = append(contents.Accounts, index.Account{Name: p.name, Entry: *p.entry})
		}
	}
	if err := index.Write(c.File, contents); err != nil {
		return err
	}
	c.dirty = false
	c.count(contents)
	return nil
}

// count takes what has been written into the status.
func (c *Census) count(contents index.Contents) {
	policies, targets := map[string]int{}, map[string]int{}
	for _, name := range contents.Policies { // that nobody has a policy is worth seeing
		policies[name] = 0
	}
	for _, name := range contents.Targets {
		targets[name] = 0
	}
	for _, a := range contents.Accounts {
		policies[cmp.Or(a.Policy, defaultPolicy)]++
		for _, target := range a.Targets {
			targets[target]++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Made, c.status.Accounts = contents.Made.UTC(), len(contents.Accounts)
	c.status.Policies, c.status.Targets = policies, targets
}

// defaultPolicy is what [policy] itself is called.
const defaultPolicy = "default"

// Status says what is known.
type Status struct {
	Kept     bool           `json:"kept"`              // whether there is need of an index: a [policy.NAME], or preflight
	Made     time.Time      `json:"made,omitzero"`     // when this process wrote the file last, because something in it had changed
	AsOf     time.Time      `json:"as_of,omitzero"`    // the file is what the directory was then, but for what is pending
	Pending  bool           `json:"pending"`           // groups or units have changed since, and the filters are still to be asked for all accounts
	Accounts int            `json:"accounts"`          // in the file
	Policies map[string]int `json:"policies,omitzero"` // accounts by policy; "default" is [policy] itself
	Targets  map[string]int `json:"targets,omitzero"`  // accounts by target that wants them
	Error    string         `json:"error,omitempty"`   // why the file cannot be brought up to date
}

// note notes how a pass ended. That the DC is away others say; that it does not answer a filter in time, nobody else does.
func (c *Census) note(err error) {
	switch {
	case err != nil && !c.told && (c.failed || !errors.Is(err, directory.ErrUnavailable)):
		c.told = true
		c.Log.CensusTrouble(err)
	case err == nil && c.told && c.due == nothing:
		c.told = false
		c.Log.CensusUp()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.status
	s.Kept, s.Pending = c.rules.Wanted, c.due != nothing
	switch {
	case err != nil:
		s.Error = err.Error()
	case !c.told: // else what failed has not been tried again
		s.Error = ""
		if s.Kept && !c.stale {
			s.AsOf = time.Now().UTC()
		}
	}
}

// Status may be called at any time.
func (c *Census) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// rules are Rules and routes, understood.
type rules struct {
	Rules
	units       []route.Unit // of the policies
	routes      *route.Table
	place       bool   // an account's place in the tree matters
	groups      bool   // groups do
	filters     string // all of them, in lower case
	fingerprint [sha256.Size]byte
}

func parse(r Rules, routes *route.Table) (rules, error) {
	filters, place, groups := routes.Asks()
	parsed := rules{Rules: r, routes: routes, place: place, groups: groups}
	for _, p := range r.Policies {
		unit, err := route.ParseUnit(p.BaseDN)
		if err == nil && p.Filter != "" {
			err = directory.ValidateFilter(p.Filter)
		}
		if err != nil {
			return rules{}, fmt.Errorf("[policy.%s]: %w", p.Name, err)
		}
		parsed.units = append(parsed.units, unit)
		parsed.place = parsed.place || !unit.IsZero()
		filters = append(filters, p.Filter)
	}
	parsed.filters = strings.ToLower(strings.Join(filters, " "))
	parsed.groups = parsed.groups || strings.Contains(parsed.filters, "memberof")
	parsed.fingerprint = sha256.Sum256(fmt.Appendf(nil, "%q %s", r.Policies, routes))
	return parsed, nil
}

func (r *rules) names() (names []string) {
	for _, p := range r.Policies {
		names = append(names, p.Name)
	}
	return names
}

// entry decides about one account. dc answers for it alone, or is what was answered for all.
func (r *rules) entry(ctx context.Context, dc route.Directory, a directory.Account) (e index.Entry, err error) {
	for i, p := range r.Policies {
		fits := r.units[i].Holds(a.DN)
		if fits && p.Filter != "" {
			if fits, err = dc.Matches(ctx, a.GUID, p.Filter); err != nil {
				return index.Entry{}, fmt.Errorf("[policy.%s]: %w", p.Name, err)
			}
		}
		if fits {
			e.Policy = p.Name
			break
		}
	}
	if e.Targets, err = r.routes.Targeted(ctx, dc, a); err != nil {
		return index.Entry{}, err
	}
	return e, nil
}

// work returns what another object's change makes due.
func (r *rules) work(o directory.Other) work {
	is := func(classes ...string) bool {
		return slices.ContainsFunc(o.Classes, func(class string) bool { return slices.Contains(classes, class) })
	}
	switch {
	case r.place && !o.Deleted && is("organizationalUnit", "container", "organization", "locality", "country"):
		return reading
	case r.groups && is("group"):
		return asking
	}
	return nothing
}

// ofPasswords are attributes that a change of a password or a login writes, by their numbers in the meta data.
var ofPasswords = map[uint32]string{
	dsdb.AttIDUnicodePwd:              "unicodepwd",
	dsdb.AttIDSupplementalCredentials: "supplementalcredentials",
	0x00090037:                        "dbcspwd",            // 1.2.840.113556.1.4.55
	0x0009005E:                        "ntpwdhistory",       // 94
	0x000900A0:                        "lmpwdhistory",       // 160
	0x00090060:                        "pwdlastset",         // 96
	0x00090296:                        "lockouttime",        // 662
	0x000906A0:                        "lastlogontimestamp", // 1696
}

// undecisive reports whether nothing was written since the USN but what no filter asks for, as far as is easily told.
func (r *rules) undecisive(a directory.Account, from uint64) bool {
	written := a.MetaData.WrittenSince(from)
	if len(written) == 0 || strings.Contains(r.filters, "whenchanged") || strings.Contains(r.filters, "usnchanged") {
		return false
	}
	return !slices.ContainsFunc(written, func(attid uint32) bool {
		name, ok := ofPasswords[attid]
		return !ok || strings.Contains(r.filters, name)
	})
}
