// Package survey judges the passwords that the directory holds already, by what it stores of them: which are known as breached,
// which accounts have the same one, which were never changed, and so on.
//
// What: Add takes accounts one by one, as a scan of the directory tells of them, and Report says what was found: counts and names.
//
// Why: a policy judges passwords when they are set. Those from before it, or set where complexity is off, it has never seen.
//
// How: of an account is kept its name, its hash, and a few bytes of findings: some 150 bytes. Hashes lie in one table, which is
// sorted when all are there, so that equal ones are neighbours, and each different one is looked up once in the file of breached
// passwords, in the order in which that file is laid out.
//
// Whom it trusts: the directory. Whoever writes names there cannot do more than have them printed; and printing is the caller's.
//
// Hashes are as good as passwords (NTLM takes them), so they are in no report, no error and no file; growing the table clears the
// smaller one, and Close clears the last. A guess that fits is not reported either, only that one did: administrators
// are not to learn passwords.
//
// What it does not solve: what a policy of today would refuse cannot be told of a password that is only known by its hash. The
// LDAP library holds copies of hashes until they are collected, and the system may swap any memory out.
package survey

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Breached holds the NT hashes of passwords that are known as breached.
type Breached interface {
	// Holds may say of a few hashes that it has that it has not: see the file's rate of false refusals.
	Holds(hash []byte) (bool, error)
}

// Options are what is looked for beyond what costs nothing.
type Options struct {
	Breached  Breached      // nil: not looked for
	Words     io.Reader     // a word a line, of which guesses are made; nil: not looked for
	OlderThan time.Duration // 0: not looked for
	Now       time.Time
}

// Survey collects accounts. It is not safe for concurrent use.
type Survey struct {
	options  Options
	accounts []account
	hashes   table
	report   Report
}

// account is what is kept of one; its hash is in the table.
type account struct {
	Account
	first, breached, guessed bool
}

// empty is the NT hash of no password.
var empty = dsdb.NTHash(nil)

// New begins a survey, which Close ends.
func New(o Options) *Survey {
	s := &Survey{options: o}
	none := func(asked bool) []Account {
		if asked {
			return []Account{}
		}
		return nil
	}
	s.report = Report{
		Breached: none(o.Breached != nil), Guessable: none(o.Words != nil), Old: none(o.OlderThan > 0),
		Shared: []Group{}, NeverChanged: []Account{}, Empty: []Account{}, NotRequired: []Account{}, Reversible: []Account{}, Unreadable: []string{},
	}
	return s
}

// Close clears the hashes. The report stays.
func (s *Survey) Close() { s.hashes.clear() }

// Add takes an account as directory.DC.Accounts tells of it, and keeps a copy of its hash. It returns no error; it is of the type
// that a scan calls.
func (s *Survey) Add(a directory.Account) error {
	r := &s.report
	r.Accounts++
	if a.Unreadable != nil {
		r.Unreadable = append(r.Unreadable, a.SAMAccountName)
		return nil
	}
	kept := account{first: a.MetaData.FirstPassword(), Account: Account{
		Name:     a.SAMAccountName,
		Disabled: a.UserAccountControl&dsdb.UFAccountDisable != 0,
	}}
	// An account that was added without a password has a stamp of unicodePwd all the same.
	_, keys := a.MetaData.Stamp(dsdb.AttIDSupplementalCredentials)
	held := len(a.NTHash) > 0 || keys
	if held {
		kept.Changed, kept.MustChange = a.Stamp.Time, a.PwdLastSet.IsZero()
	}
	if kept.Disabled {
		r.Disabled++
	}
	if a.UserAccountControl&dsdb.UFPasswordNotRequired != 0 {
		r.NotRequired = append(r.NotRequired, kept.Account)
	}
	if a.UserAccountControl&dsdb.UFReversibleEncryption != 0 {
		r.Reversible = append(r.Reversible, kept.Account)
	}
	switch {
	case !held:
		r.NoPassword++
		return nil
	case len(a.NTHash) == 0:
		r.NotComparable++
	case [16]byte(a.NTHash) == empty:
		r.Compared++
		r.Empty = append(r.Empty, kept.Account)
	default:
		r.Compared++
		s.hashes.add([16]byte(a.NTHash), len(s.accounts))
		s.accounts = append(s.accounts, kept)
	}
	if kept.first {
		r.NeverChanged = append(r.NeverChanged, kept.Account)
	}
	if s.options.OlderThan > 0 && !kept.Changed.IsZero() && s.options.Now.Sub(kept.Changed) > s.options.OlderThan {
		r.Old = append(r.Old, kept.Account)
	}
	return nil
}

// Report judges what was added. It is called once, after all Adds.
func (s *Survey) Report(ctx context.Context) (*Report, error) {
	s.hashes.sort()
	if s.options.Breached != nil {
		if err := s.lookUp(ctx); err != nil {
			return nil, fmt.Errorf("looking for breached passwords: %w", err)
		}
	}
	if s.options.Words != nil {
		if err := s.guess(ctx); err != nil {
			return nil, fmt.Errorf("guessing passwords: %w", err)
		}
	}
	r := &s.report
	for _, same := range s.hashes.groups() {
		if len(same) > 1 {
			r.Shared = append(r.Shared, s.group(same))
		}
		for _, e := range same {
			a := s.accounts[e.account]
			if a.breached {
				r.Breached = append(r.Breached, a.Account)
			}
			if a.guessed {
				r.Guessable = append(r.Guessable, a.Account)
			}
		}
	}
	r.sort()
	return r, nil
}

func (s *Survey) lookUp(ctx context.Context) error {
	for hash, same := range s.hashes.groups() {
		if err := ctx.Err(); err != nil {
			return err
		}
		held, err := s.options.Breached.Holds(hash)
		if err != nil {
			return err
		}
		for _, e := range same {
			s.accounts[e.account].breached = held
		}
	}
	return nil
}

// guess tries the words on all accounts, and each account's own name on that account.
func (s *Survey) guess(ctx context.Context) error {
	g := newGuesser(s.options.Now)
	for _, e := range s.hashes.entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		a := &s.accounts[e.account]
		for guess := range g.guesses(a.Name) {
			if guess == e.hash {
				a.guessed = true
				break
			}
		}
	}
	for word, err := range words(s.options.Words) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		for guess := range g.guesses(word) {
			for _, e := range s.hashes.find(guess) {
				s.accounts[e.account].guessed = true
			}
		}
	}
	return nil
}

func (s *Survey) group(same []entry) Group {
	var g Group
	for _, e := range same {
		a := s.accounts[e.account]
		g.Accounts = append(g.Accounts, a.Account)
		if a.first {
			g.NeverChanged++
		}
		g.Breached = g.Breached || a.breached
		g.Guessable = g.Guessable || a.guessed
	}
	return g
}
