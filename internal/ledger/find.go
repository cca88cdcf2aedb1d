package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Kind says what a name is to an account. Of two, the lower one says more.
type Kind int

// The kinds.
const (
	ByAccount   Kind = iota // sAMAccountName
	ByPrincipal             // userPrincipalName
	ByUser                  // its name at a target
	nothing
)

// Kin says what the name is to the account; ok is false if it is nothing. Upper and lower case are the same.
func Kin(name string, a change.Account, user string) (k Kind, ok bool) {
	switch name = fold(name); {
	case name == fold(a.SAMAccountName):
		k = ByAccount
	case a.UserPrincipalName != "" && name == fold(a.UserPrincipalName):
		k = ByPrincipal
	case user != "" && name == fold(user):
		k = ByUser
	default:
		k = nothing
	}
	return k, k < nothing
}

// fold makes upper and lower case the same; the detour folds letters with two small forms.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }

// Find returns the accounts that have the name, each with the kind that says most. It reads all that is known, which takes some tenths of
// a second where that is of a hundred thousand accounts. One that is gone is among them only if no other has the name.
func (l *Ledger) Find(name string) (map[dsdb.GUID]Kind, error) {
	found, gone := map[dsdb.GUID]Kind{}, map[dsdb.GUID]Kind{}
	if name == "" {
		return found, nil
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return nil, fmt.Errorf("encoding a name: %w", err)
	}
	mark := []byte(fold(string(quoted)))
	// To look for the bytes first spares the decoding of what is of others.
	var lower []byte
	has := func(value []byte) bool {
		lower = lower[:0]
		for _, c := range value {
			switch {
			case c >= utf8.RuneSelf:
				return bytes.Contains(bytes.ToLower(bytes.ToUpper(value)), mark)
			case 'A' <= c && c <= 'Z':
				c += 'a' - 'A'
			}
			lower = append(lower, c)
		}
		return bytes.Contains(lower, mark)
	}
	note := func(in map[dsdb.GUID]Kind, a change.Account, user string) {
		if k, ok := Kin(name, a, user); ok {
			if before, known := in[a.GUID]; !known || k < before {
				in[a.GUID] = k
			}
		}
	}
	err = l.db.View(func(tx boltfile.Tx) error {
		err := tx.Prefix(outcomes, nil, func(_, value []byte) error {
			if !has(value) {
				return nil
			}
			var e Entry
			if err := json.Unmarshal(value, &e); err != nil {
				return err
			}
			note(found, change.Account{GUID: e.Account.GUID}, e.User) // what the account is called itself, it may not be any more
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Prefix(newest, nil, func(_, value []byte) error {
			if !has(value) {
				return nil
			}
			var n Newest
			if err := json.Unmarshal(value, &n); err != nil {
				return err
			}
			in := found
			if n.Stamp.IsZero() {
				in = gone
				if k, known := found[n.Account.GUID]; known {
					delete(found, n.Account.GUID)
					gone[n.Account.GUID] = k
				}
			}
			note(in, n.Account, "")
			if n.Wanted != nil {
				for _, r := range n.Wanted.Routes {
					note(in, n.Account, r.User)
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("looking for a name: %w", err)
	}
	if len(found) == 0 {
		return gone, nil
	}
	return found, nil
}

// Story is all that is known of an account.
type Story struct {
	Newest   Newest
	Outcomes []Entry // sorted by target
	Gaps     []Gap
}

// Story tells it; the zero Story if nothing is known.
func (l *Ledger) Story(guid dsdb.GUID) (s Story, err error) {
	err = l.db.View(func(tx boltfile.Tx) (err error) {
		if _, err = tx.Get(newest, guid[:], &s.Newest); err != nil {
			return err
		}
		if s.Outcomes, err = outcomesOf(tx, guid); err != nil {
			return err
		}
		s.Gaps, err = gapsOf(tx, guid, s.Newest)
		return err
	})
	if err != nil {
		return Story{}, fmt.Errorf("reading what is known of an account: %w", err)
	}
	return s, nil
}
