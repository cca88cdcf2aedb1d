package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Account is a user account as one search found it: hash, stamp and attributes
// belong together.
type Account struct {
	DN                 string
	GUID               dsdb.GUID // objectGUID: stays when everything else changes
	SAMAccountName     string
	UserPrincipalName  string     // empty if it has none
	NTHash             []byte     `json:"-"` // unicodePwd, 16 bytes; nil if not stored, not readable or not asked for
	Stamp              dsdb.Stamp // of the password; zero if there is none or it is not readable
	USNChanged         uint64     // this DC's, of the last change to anything of the account
	UserAccountControl uint32     // see dsdb.UFAccountDisable and its like
	PwdLastSet         time.Time  // zero if never, or if it must be changed at the next logon

	// Attributes holds those asked for beyond the above: the first value, under
	// the name as it was asked for; binary values as the bytes they are. What
	// the account does not have is not there.
	Attributes map[string]string
}

// String names the account without its hash, for whoever prints it.
func (a Account) String() string {
	return fmt.Sprintf("%s (%s, password %s)", a.SAMAccountName, a.GUID, a.Stamp)
}

// GoString is String, so that %#v shows no hash either.
func (a Account) GoString() string { return a.String() }

// hashAttribute is asked for only where one account is looked up.
const hashAttribute = "unicodePwd"

var accountAttributes = []string{
	"objectGUID", "sAMAccountName", "userPrincipalName", "replPropertyMetaData",
	"uSNChanged", "userAccountControl", "pwdLastSet",
}

// AccountByName looks an account up by its sAMAccountName, with its hash. The
// DC compares: without regard to case, and by AD's rules beyond ASCII.
//
// The errors are ErrNotFound, ErrUnavailable, the context's, and those of a
// refused or malformed answer.
func (dc *DC) AccountByName(ctx context.Context, sAMAccountName string, attrs []string) (Account, error) {
	a, err := dc.accountByName(ctx, sAMAccountName, attrs)
	if err != nil {
		return Account{}, fmt.Errorf("looking up account %q: %w", sAMAccountName, err)
	}
	return a, nil
}

func (dc *DC) accountByName(ctx context.Context, name string, attrs []string) (Account, error) {
	if name == "" {
		return Account{}, ErrNotFound
	}
	result, err := dc.search(ctx, &ldap.SearchRequest{
		BaseDN:     dc.base,
		Scope:      ldap.ScopeWholeSubtree,
		Filter:     "(&(objectClass=user)(sAMAccountName=" + ldap.EscapeFilter(name) + "))",
		Attributes: slices.Concat(accountAttributes, []string{hashAttribute}, attrs),
	})
	if err != nil {
		return Account{}, err
	}
	switch len(result.Entries) {
	case 0:
		return Account{}, ErrNotFound
	case 1:
		return decodeAccount(result.Entries[0], attrs)
	}
	// Two DCs may have created the same name before they replicated.
	return Account{}, fmt.Errorf("the name is not unique: %d accounts have it", len(result.Entries))
}

// AccountByGUID looks an account up by its objectGUID, with its hash. Errors
// are those of AccountByName.
func (dc *DC) AccountByGUID(ctx context.Context, guid dsdb.GUID, attrs []string) (Account, error) {
	entry, err := dc.readOne(ctx, guidDN(guid), "(objectClass=user)",
		slices.Concat(accountAttributes, []string{hashAttribute}, attrs)...)
	if err != nil {
		return Account{}, fmt.Errorf("looking up account %s: %w", guid, err)
	}
	a, err := decodeAccount(entry, attrs)
	if err != nil {
		return Account{}, fmt.Errorf("looking up account %s: %w", guid, err)
	}
	return a, nil
}

// Matches reports whether the LDAP filter matches the account. It is the DC
// that evaluates it, so rules such as LDAP_MATCHING_RULE_IN_CHAIN work. An
// account that does not exist is ErrNotFound; a malformed filter is an error.
func (dc *DC) Matches(ctx context.Context, guid dsdb.GUID, filter string) (bool, error) {
	if err := ValidateFilter(filter); err != nil {
		return false, err
	}
	// A missing object has a result code of its own, so no entry means no match.
	result, err := dc.search(ctx, &ldap.SearchRequest{
		BaseDN: guidDN(guid), Scope: ldap.ScopeBaseObject, Filter: filter, Attributes: []string{noAttributes},
	})
	if err != nil {
		return false, fmt.Errorf("matching account %s: %w", guid, err)
	}
	return len(result.Entries) == 1, nil
}

// guidDN names an object by its GUID ([MS-ADTS] 3.1.1.3.1.2.4); the DC finds
// it without a search, and wherever it has been moved to.
func guidDN(guid dsdb.GUID) string { return "<GUID=" + guid.String() + ">" }

// userAccounts matches what people log on with, but no computers and trusts.
var userAccounts = "(sAMAccountType=" + strconv.Itoa(dsdb.SAMUserObject) + ")"

// pageSize is how many accounts Changed asks for at a time: less than the 1000
// that a DC gives out at most (MaxPageSize).
const pageSize = 500

// Changed calls each for every user account with uSNChanged >= fromUSN, in no
// particular order; from 0 for all of them. Hashes are not read. Deleted
// accounts are not among them, and computers and trusts never.
//
// To follow the directory, read Root's HighestUSN first, then Changed, and go
// on from the number just read, plus one: an account that changes in between
// comes twice instead of never. USNs are one DC's own; they mean nothing at
// another, nor at this one once its InvocationID has changed (after a restore).
//
// An error of each ends it and is returned as it is. After any other error,
// some accounts may have been missed: start again from the same number.
func (dc *DC) Changed(ctx context.Context, fromUSN uint64, attrs []string, each func(Account) error) error {
	filter := userAccounts
	if fromUSN > 0 {
		filter = fmt.Sprintf("(&%s(uSNChanged>=%d))", userAccounts, fromUSN)
	}
	paging := ldap.NewControlPaging(pageSize)
	for {
		result, err := dc.search(ctx, &ldap.SearchRequest{
			BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: filter,
			Attributes: slices.Concat(accountAttributes, attrs),
			Controls:   []ldap.Control{paging},
		})
		if err != nil {
			return fmt.Errorf("reading changed accounts: %w", err)
		}
		for _, entry := range result.Entries {
			a, err := decodeAccount(entry, attrs)
			if err != nil {
				return fmt.Errorf("reading changed accounts: %w", err)
			}
			if err := each(a); err != nil {
				return err
			}
		}
		next, ok := ldap.FindControl(result.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok || len(next.Cookie) == 0 {
			return nil
		}
		paging.SetCookie(next.Cookie)
	}
}

// decodeAccount turns an entry into an Account. Identity and USN must be there;
// the rest may be missing where the connection may not read it.
func decodeAccount(entry *ldap.Entry, attrs []string) (Account, error) {
	d := decoder{entry: entry}
	a := Account{
		DN:                 entry.DN,
		GUID:               d.guid("objectGUID"),
		SAMAccountName:     d.text("sAMAccountName"),
		UserPrincipalName:  d.text("userPrincipalName"),
		Stamp:              d.passwordStamp(),
		USNChanged:         uint64(d.number("uSNChanged")),
		UserAccountControl: uint32(d.optional("userAccountControl")), // signed in LDAP
		PwdLastSet:         dsdb.NTTime(d.optional("pwdLastSet")),
		Attributes:         make(map[string]string, len(attrs)),
	}
	if hash := d.raw(hashAttribute); len(hash) == 16 {
		a.NTHash = hash
	} else if len(hash) > 0 {
		d.fail(hashAttribute, errors.New("not 16 bytes"))
	}
	for _, name := range attrs {
		if value := d.text(name); value != "" {
			a.Attributes[name] = value
		}
	}
	if d.err != nil {
		return Account{}, d.err
	}
	return a, nil
}

func (d *decoder) passwordStamp() dsdb.Stamp {
	raw := d.raw("replPropertyMetaData")
	if len(raw) == 0 {
		return dsdb.Stamp{}
	}
	meta, err := dsdb.ParseReplPropertyMetaData(raw)
	if err != nil {
		d.fail("replPropertyMetaData", err)
	}
	stamp, _ := meta.Password()
	return stamp
}
