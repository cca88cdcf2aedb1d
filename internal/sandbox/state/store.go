package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Store is the State with the methods that change it. Its methods may be
// called by many goroutines. What concerns users, faults, violations and the
// trap is in the journal before a method returns; counters start anew.
type Store struct {
	mu       sync.Mutex
	domain   string
	users    map[Cloud]map[string]*User // by id
	names    map[Cloud]map[string]string
	faults   []Fault
	faultIDs int
	revoked  map[string]bool
	broken   []Violation
	trapped  []Trapped
	requests map[string]int
	journal  *journal
	changed  chan struct{}
}

// Open reads the journal at path, if there is one, and goes on writing it.
func Open(path, domain string) (*Store, error) {
	s := &Store{
		domain:   strings.ToLower(domain),
		users:    map[Cloud]map[string]*User{Google: {}, Microsoft: {}},
		names:    map[Cloud]map[string]string{Google: {}, Microsoft: {}},
		revoked:  map[string]bool{},
		requests: map[string]int{},
		changed:  make(chan struct{}),
	}
	journal, err := openJournal(path, s.apply)
	if err != nil {
		return nil, fmt.Errorf("opening state: %w", err)
	}
	s.journal = journal
	return s, nil
}

// Close ends the journal. The Store must not be changed afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.close()
}

// Domain is the tenant's first domain.
func (s *Store) Domain() string { return s.domain }

// AddUser makes an account. Its name and aliases must be free.
func (s *Store) AddUser(u User) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range append([]string{u.ID, u.Name}, u.Aliases...) {
		if s.find(u.Cloud, key) != nil {
			return fmt.Errorf("adding user: %s has %s already", u.Cloud, key)
		}
	}
	return s.commit(record{Add: &u})
}

// RemoveUser forgets an account and its passwords.
func (s *Store) RemoveUser(cloud Cloud, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.find(cloud, key)
	if u == nil {
		return fmt.Errorf("removing user: %s has no %s", cloud, key)
	}
	return s.commit(record{Remove: &reference{cloud, u.ID}})
}

// Find gives the account that key means: id, name or alias.
func (s *Store) Find(cloud Cloud, key string) (User, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.find(cloud, key); u != nil {
		return u.clone(), true
	}
	return User{}, false
}

// Users gives a cloud's accounts, by name.
func (s *Store) Users(cloud Cloud) []User {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sorted(cloud)
}

// HasDomain says whether the tenant hosts a domain: its first one, or one of
// which it has a user.
func (s *Store) HasDomain(cloud Cloud, domain string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.EqualFold(domain, s.domain) {
		return true
	}
	for _, u := range s.users[cloud] {
		if strings.EqualFold(u.Domain(), domain) {
			return true
		}
	}
	return false
}

// SetPassword records a write that the cloud has accepted, and stamps it.
func (s *Store) SetPassword(cloud Cloud, id string, p Password) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[cloud][id] == nil {
		return fmt.Errorf("setting password: %s has no %s", cloud, id)
	}
	p.Applied = time.Now()
	return s.commit(record{Password: &passwordOf{reference{cloud, id}, p}})
}

// AddFault makes a fault pending.
func (s *Store) AddFault(f Fault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.ID = s.faultIDs + 1
	return s.commit(record{Fault: &f})
}

// ClearFaults drops all pending faults.
func (s *Store) ClearFaults() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commit(record{Clear: true})
}

// TakeFault uses up one strike of the oldest pending fault that matches.
func (s *Store) TakeFault(match func(Fault) bool) (Fault, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if match(f) {
			if f.Times == 0 {
				return f, true, nil
			}
			return f, true, s.commit(record{Struck: f.ID})
		}
	}
	return Fault{}, false, nil
}

// Revoke makes a token, known by its id, worthless before its time.
func (s *Store) Revoke(token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commit(record{Revoke: token})
}

// Revoked says whether a token was revoked.
func (s *Store) Revoked(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked[token]
}

// Violate keeps a request that broke the contract.
func (s *Store) Violate(v Violation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commit(record{Violation: &v})
}

// Trap keeps a request that followed a redirect.
func (s *Store) Trap(t Trapped) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commit(record{Trapped: &t})
}

// Count counts a request, and for the user that it names, if that exists.
func (s *Store) Count(cloud Cloud, operation, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[string(cloud)+" "+operation]++
	if u := s.find(cloud, user); u != nil {
		u.Requests++
	}
	s.tell()
}

// State is a copy of everything.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{
		Domain:     s.domain,
		Users:      append(s.sorted(Google), s.sorted(Microsoft)...),
		Faults:     append([]Fault{}, s.faults...),
		Violations: append([]Violation{}, s.broken...),
		Trapped:    append([]Trapped{}, s.trapped...),
		Requests:   maps.Clone(s.requests),
	}
}

// Changed is closed at the next change of anything. Ask for it before looking
// at the state, and no change is missed.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *Store) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Store) find(cloud Cloud, key string) *User {
	if u := s.users[cloud][key]; u != nil {
		return u
	}
	return s.users[cloud][s.names[cloud][strings.ToLower(key)]]
}

func (s *Store) sorted(cloud Cloud) []User {
	users := make([]User, 0, len(s.users[cloud]))
	for _, u := range s.users[cloud] {
		users = append(users, u.clone())
	}
	slices.SortFunc(users, func(a, b User) int { return cmp.Compare(a.Name, b.Name) })
	return users
}

func (u *User) clone() User {
	c := *u
	c.Aliases = slices.Clone(u.Aliases)
	c.Passwords = slices.Clone(u.Passwords)
	return c
}
