// Package refusals counts the passwords that the policy refused, or only noted, by policy and rule.
//
// What: the hook notes each of them in spool/refusals (internal/refusal); Look takes the file away, counts what is new, and gives it
// to whoever tells people why (internal/agent/notices). The hook has logged each one, so nothing is logged here.
//
// How: a hook that had opened the file before it was taken may still write into it. So a taken file is read again, from where reading
// ended, until it has been there for longer than a hook lives, and only then removed. The counts and the places where reading ended
// are one file: after a crash nothing is counted twice, and nothing is left out. What is passed on is passed on after that file is on disk,
// so that nobody is told twice; a crash in between leaves it untold. (Where the disk does not take that file, it is passed on all the same.)
//
// Bytes: JSON with a checksum (internal/checked), written by durable.Replace. A file that makes no sense is one that was never there: the counts begin anew, and the log
// says so. It lies in the agent's own folder, which is root's.
//
// What it does not solve: the hook does not note what comes while its file is full, because the agent does not run, or somebody has Samba
// ask about passwords faster than it looks. Status says that it was so, and the journal has it all.
package refusals

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/checked"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/refusal"
)

const (
	// hookLives is longer than a hook lives: it ends itself after 5 s, and Samba kills it after 10.
	hookLives = 15 * time.Second
	// nearlyFull leaves room for the two longest records that a password can have: a larger file may have been too full for them,
	// if perhaps only for a probe's.
	nearlyFull = refusal.MaxProbes - 16<<10
	// maxPolicies bounds what is counted, twice: by enforced and by audited.
	maxPolicies = 500

	format = 1
)

// Book is made by Open. Look is for one goroutine.
type Book struct {
	file   string // the hook's
	own    string // the counts
	log    *event.Log
	tell   func([]refusal.Record)
	since  time.Time            // the start
	met    map[string]time.Time // taken files, and since when this process knows them
	looked bool                 // for those that an earlier process left

	mu      sync.Mutex
	state   state
	changed bool          // since the state was written
	start   map[key]*page // counted since the start
}

// Options are what a Book needs.
type Options struct {
	File  string                 // spool/refusals
	State string                 // the file of the counts
	Tell  func([]refusal.Record) // gets what is new; may be nil
	Log   *event.Log
}

type state struct {
	Format   int              `json:"format"`
	Since    time.Time        `json:"since"` // of the counting
	Pages    []*page          `json:"pages"`
	Nonsense uint64           `json:"nonsense"`
	Full     uint64           `json:"full"`
	Read     map[string]int64 `json:"read"` // taken files: until where they are counted
}

type key struct {
	policy string
	audit  bool
}

// page is what one policy refused, or audited.
type page struct {
	Policy    string             `json:"policy"`
	Audit     bool               `json:"audit"`
	Passwords counter            `json:"passwords"`
	Probes    counter            `json:"probes"` // of them those that were perhaps nobody's
	Rules     map[string]counter `json:"rules"`
}

// counter counts in all and by the hour.
type counter struct {
	Total uint64           `json:"total"`
	Hours map[int64]uint64 `json:"hours,omitempty"` // by hours since 1970; of the last day
}

const day = 24 // hours

func (c counter) add(at time.Time) counter {
	hour := at.Unix() / 3600
	if c.Hours == nil {
		c.Hours = map[int64]uint64{}
	}
	c.Total++
	c.Hours[hour]++
	return c
}

func (c counter) lastDay(now time.Time) (n uint64) {
	for hour, count := range c.Hours {
		if inLastDay(hour, now) {
			n += count
		}
	}
	return n
}

// inLastDay means this hour and the 23 before it; and those to come, if the clock was set back.
func inLastDay(hour int64, now time.Time) bool { return hour > now.Unix()/3600-day }

func (c counter) forget(now time.Time) {
	for hour := range c.Hours {
		if !inLastDay(hour, now) {
			delete(c.Hours, hour)
		}
	}
}

func (p *page) add(r refusal.Record, now time.Time) {
	at := r.Time
	if at.After(now) {
		at = now
	}
	p.Passwords = p.Passwords.add(at)
	if r.Probe {
		p.Probes = p.Probes.add(at)
	}
	if p.Rules == nil {
		p.Rules = map[string]counter{}
	}
	for _, rule := range r.Rules {
		p.Rules[rule] = p.Rules[rule].add(at)
	}
}

func (p *page) forget(now time.Time) {
	p.Passwords.forget(now)
	p.Probes.forget(now)
	for _, c := range p.Rules {
		c.forget(now)
	}
}

// Open reads the counts.
func Open(o Options) *Book {
	b := &Book{file: o.File, own: o.State, log: o.Log, tell: o.Tell, since: time.Now(), met: map[string]time.Time{}, start: map[key]*page{}}
	var err error
	if b.state, err = load(o.State); err != nil {
		b.log.RefusalsForgotten(err)
	}
	return b
}

func load(file string) (state, error) {
	fresh := state{Format: format, Since: time.Now(), Read: map[string]int64{}}
	text, err := durable.ReadSmall(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, fmt.Errorf("reading %s: %w", file, err)
	}
	var s state
	if text, err = checked.Text(text); err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return fresh, fmt.Errorf("reading %s: %w", file, err)
	}
	if s.Format != format || slices.Contains(s.Pages, nil) || len(s.Pages) > maxPolicies {
		return fresh, fmt.Errorf("reading %s: it is not of this version", file)
	}
	if s.Read == nil {
		s.Read = map[string]int64{}
	}
	return s, nil
}

// Look counts what is new. The error is the disk's, and the next Look tries again.
func (b *Book) Look() error {
	taken, trouble := refusal.Take(b.file)
	if !taken && b.looked && len(b.met) == 0 {
		return trouble // as nearly always
	}
	names, err := refusal.Taken(b.file)
	if err != nil {
		return err
	}
	b.looked = true
	news, done, err := b.read(names)
	trouble = cmp.Or(trouble, err)
	if err := b.save(); err != nil {
		trouble = cmp.Or(trouble, err)
		done = nil // it would be counted again after a crash
	}
	if len(news) > 0 && b.tell != nil {
		b.tell(news)
	}
	for _, name := range done {
		trouble = cmp.Or(trouble, refusal.Remove(filepath.Join(filepath.Dir(b.file), name)))
	}
	return trouble
}

// read counts what the taken files hold beyond what has been counted. done are those in which no hook writes any more.
func (b *Book) read(names []string) (news []refusal.Record, done []string, trouble error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.state.Read, func(name string, _ int64) bool { return !slices.Contains(names, name) })
	maps.DeleteFunc(b.met, func(name string, _ time.Time) bool { return !slices.Contains(names, name) })
	for _, name := range names {
		met, known := b.met[name]
		if !known {
			met = time.Now()
			b.met[name] = met
		}
		over := time.Since(met) > hookLives
		records, err := b.readOne(name, over)
		if err != nil {
			trouble = cmp.Or(trouble, err)
			continue
		}
		news = append(news, records...)
		if over {
			done = append(done, name)
		}
	}
	return news, done, trouble
}

// readOne counts what is new in a taken file. What a hook left unfinished is nonsense once it is over.
func (b *Book) readOne(name string, over bool) ([]refusal.Record, error) {
	offset := b.state.Read[name]
	text, err := refusal.Read(filepath.Join(filepath.Dir(b.file), name), offset)
	if err != nil {
		return nil, err
	}
	records, whole, nonsense := refusal.Parse(text)
	if over && whole < len(text) {
		whole = len(text)
		nonsense++
	}
	if whole == 0 {
		return nil, nil
	}
	end := offset + int64(whole)
	if offset <= nearlyFull && end > nearlyFull {
		b.state.Full++
	}
	b.state.Read[name], b.state.Nonsense, b.changed = end, b.state.Nonsense+uint64(nonsense), true
	now := time.Now()
	for _, r := range records {
		k, p := key{r.Policy, r.Audit}, b.state.page(r.Policy, r.Audit)
		if p == nil {
			b.state.Nonsense++
			continue
		}
		p.add(r, now)
		if b.start[k] == nil {
			b.start[k] = &page{}
		}
		b.start[k].add(r, now)
	}
	return records, nil
}

// save writes the counts, if there are new ones.
func (b *Book) save() error {
	b.mu.Lock()
	if !b.changed {
		b.mu.Unlock()
		return nil
	}
	b.changed = false
	now := time.Now()
	for _, p := range b.state.Pages {
		p.forget(now)
	}
	text, err := json.Marshal(b.state)
	b.mu.Unlock()
	if err == nil {
		err = durable.Replace(b.own, checked.Wrap(text), 0o600)
	}
	if err != nil {
		b.mu.Lock()
		b.changed = true
		b.mu.Unlock()
		return fmt.Errorf("writing the counts of refusals: %w", err)
	}
	return nil
}

// page returns the page of a policy; nil if there are too many, which only a damaged file can lead to.
func (s *state) page(policy string, audit bool) *page {
	for _, p := range s.Pages {
		if p.Policy == policy && p.Audit == audit {
			return p
		}
	}
	if len(s.Pages) == maxPolicies {
		return nil
	}
	p := &page{Policy: policy, Audit: audit}
	s.Pages = append(s.Pages, p)
	return p
}

// Status is what was counted.
type Status struct {
	Since    time.Time `json:"since"`    // of the totals
	Started  time.Time `json:"started"`  // of this process, for what is counted since the start
	Policies []Policy  `json:"policies"` // in the order of their names, enforced before audited; those that had nothing are not there
	Nonsense uint64    `json:"nonsense"` // lines that made no sense
	Full     uint64    `json:"full"`     // how often the hook's file was found full: some were not counted then
}

// Policy is what one policy refused, or audited.
type Policy struct {
	Policy    string `json:"policy"`
	Audit     bool   `json:"audit"` // accepted, and noted what would have refused it
	Passwords Count  `json:"passwords"`
	Probes    Count  `json:"probes"` // of them those where Samba named neither UPN nor full name: perhaps nobody's password would have changed
	Rules     []Rule `json:"rules"`  // one password may be against several
}

// Rule is what one rule of a policy refused, or audited.
type Rule struct {
	Rule string `json:"rule"`
	Count
}

// Count says how many.
type Count struct {
	LastDay uint64 `json:"last_day"` // this hour and the 23 before it
	Started uint64 `json:"started"`  // since the process started
	Total   uint64 `json:"total"`
}

// Status may be called at any time.
func (b *Book) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	s := Status{Since: b.state.Since, Started: b.since, Policies: []Policy{}, Nonsense: b.state.Nonsense, Full: b.state.Full}
	for _, p := range b.state.Pages {
		start := b.start[key{p.Policy, p.Audit}]
		if start == nil {
			start = &page{}
		}
		count := func(all, start counter) Count { return Count{all.lastDay(now), start.Total, all.Total} }
		one := Policy{
			Policy: p.Policy, Audit: p.Audit, Rules: []Rule{},
			Passwords: count(p.Passwords, start.Passwords), Probes: count(p.Probes, start.Probes),
		}
		for _, rule := range slices.Sorted(maps.Keys(p.Rules)) {
			one.Rules = append(one.Rules, Rule{rule, count(p.Rules[rule], start.Rules[rule])})
		}
		s.Policies = append(s.Policies, one)
	}
	slices.SortFunc(s.Policies, func(a, b Policy) int {
		if c := cmp.Compare(a.Policy, b.Policy); c != 0 || !a.Audit {
			return cmp.Or(c, -1)
		}
		return 1
	})
	return s
}
