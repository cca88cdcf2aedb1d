package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	UserPrincipalName  string      // empty if it has none
	NTHash             dsdb.Secret `json:"-"` // unicodePwd, 16 bytes; nil if not stored, not readable or not asked for
	Stamp              dsdb.Stamp  // of the password; zero if there is none or it is not readable
	USNChanged         uint64      // this DC's, of the last change to anything of the account
	UserAccountControl uint32      // see dsdb.UFAccountDisable and its like
	PwdLastSet         time.Time   // zero if never, or if it must be changed at the next logon

	// MetaData says of each attribute when, where and how often it was written; Stamp is from it. Empty if not readable.
	MetaData dsdb.MetaData `json:"-"`

	// SupplementalCredentials is that attribute as it is stored, see dsdb.ParseSupplementalCredentials: Kerberos keys, and whatever
	// else the DC was told to derive from a password. Only where one account is looked up, and only if it was asked for.
	SupplementalCredentials dsdb.Secret `json:"-"`

	// Attributes holds those asked for beyond the above: the first value, under
	// the name as it was asked for; binary values as the bytes they are. What
	// the account does not have is not there.
	Attributes map[string]string

	// Unreadable says why the account could not be decoded; see Changed, which
	// tells of such an account, as does all else with an each. A lookup of one fails.
	Unreadable error `json:"-"`
}

// MustChange reports whether the directory demands another password at the
// next logon: as Samba judges it (operational.c), never of an account whose
// password does not expire or that logs on with a smart card.
func (a Account) MustChange() bool {
	const never = dsdb.UFDontExpirePassword | dsdb.UFSmartcardRequired
	return a.PwdLastSet.IsZero() && a.UserAccountControl&never == 0
}

// String names the account without its hash and keys, for whoever prints it.
func (a Account) String() string {
	return fmt.Sprintf("%s (%s, password %s)", a.SAMAccountName, a.GUID, a.Stamp)
}

// GoString is String, so that %#v shows none of them either.
func (a Account) GoString() string { return a.String() }

// Secrets are read only where one account is looked up: the hash always, the credentials if asked for.
const (
	hashAttribute        = "unicodePwd"
	credentialsAttribute = "supplementalCredentials"
)

var accountAttributes = []string{
	"objectGUID", "sAMAccountName", "userPrincipalName", "replPropertyMetaData",
	"uSNChanged", "userAccountControl", "pwdLastSet",
}

// AccountByName looks a user account up by its sAMAccountName, with its hash.
// The DC compares: without regard to case, and by AD's rules beyond ASCII.
// Computers and trusts are not found.
//
// The attributes named by attrs are read as well; "supplementalCredentials"
// among them goes to the field of that name.
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
		BaseDN: dc.base,
		Scope:  ldap.ScopeWholeSubtree,
		// The name comes first: Samba looks into its indexes in this order, and stops once one entry is left.
		Filter:     "(&(sAMAccountName=" + ldap.EscapeFilter(name) + ")" + UserAccounts + ")",
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
	entry, err := dc.readOne(ctx, guidDN(guid), UserAccounts,
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

// Namesakes returns the user accounts of which an attribute has one of these
// values, without their secrets; attrs are read as well. The DC compares. It
// finds them without looking at all accounts if it keeps an index of the
// attribute.
func (dc *DC) Namesakes(ctx context.Context, attribute string, values, attrs []string) (accounts []Account, err error) {
	filter := "(|"
	for _, v := range values {
		filter += "(" + ldap.EscapeFilter(attribute) + "=" + ldap.EscapeFilter(v) + ")"
	}
	filter = "(&" + filter + ")" + UserAccounts + ")"
	if err := ValidateFilter(filter); err != nil {
		return nil, err
	}
	result, err := dc.search(ctx, &ldap.SearchRequest{
		BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: filter, Attributes: slices.Concat(accountAttributes, attrs),
	})
	if err != nil {
		return nil, fmt.Errorf("looking for accounts by %s: %w", attribute, err)
	}
	for _, entry := range result.Entries {
		a, err := decodeAccount(entry, attrs)
		if err != nil {
			return nil, fmt.Errorf("looking for accounts by %s: %w", attribute, err)
		}
		accounts = append(accounts, a)
	}
	return accounts, nil
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

// Protected reports whether the account belongs to a group whose members AD
// protects, at any depth and by its primary group too (see dsdb.SID.Protected).
// It asks for the groups of the account's token ([MS-ADTS] 3.1.1.4.5.19), for
// Samba never sets adminCount on those who join such a group. An account that
// does not exist is ErrNotFound.
func (dc *DC) Protected(ctx context.Context, guid dsdb.GUID) (bool, error) {
	protected, err := dc.protected(ctx, guid)
	if err != nil {
		return false, fmt.Errorf("reading the groups of account %s: %w", guid, err)
	}
	return protected, nil
}

func (dc *DC) protected(ctx context.Context, guid dsdb.GUID) (bool, error) {
	entry, err := dc.readOne(ctx, guidDN(guid), anything, "tokenGroups")
	if err != nil {
		return false, err
	}
	groups := entry.GetRawAttributeValues("tokenGroups")
	if len(groups) == 0 { // everybody has some
		return false, fmt.Errorf("tokenGroups: %w", errMissing)
	}
	for _, group := range groups {
		sid, err := dsdb.ParseSID(group)
		if err != nil {
			return false, err
		}
		if sid.Protected() {
			return true, nil
		}
	}
	return false, nil
}

// Unhashed names up to limit user accounts that have a password but no NT hash
// stored (see `nt hash store` in smb.conf), and whether there are more. A
// password that must be changed at the next logon is not counted. It looks at
// every account. On a connection that may not read hashes its answer means
// nothing.
func (dc *DC) Unhashed(ctx context.Context, limit int) (names []string, more bool, err error) {
	return dc.without(ctx, hashAttribute, limit)
}

// Unkeyed is Unhashed for supplementalCredentials, where the Kerberos keys are:
// a change of the hash alone leaves an account without them.
func (dc *DC) Unkeyed(ctx context.Context, limit int) (names []string, more bool, err error) {
	return dc.without(ctx, credentialsAttribute, limit)
}

func (dc *DC) without(ctx context.Context, attribute string, limit int) (names []string, more bool, err error) {
	enough := errors.New("enough")
	err = dc.pages(ctx, "looking for accounts without "+attribute, &ldap.SearchRequest{
		BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree,
		Filter:     "(&" + UserAccounts + "(pwdLastSet>=1)(!(" + attribute + "=*)))",
		Attributes: []string{"sAMAccountName"},
	}, func(entry *ldap.Entry) (func() error, error) {
		return func() error {
			if len(names) >= limit {
				more = true
				return enough
			}
			names = append(names, entry.GetEqualFoldAttributeValue("sAMAccountName"))
			return nil
		}, nil
	})
	if err != nil && err != enough {
		return nil, false, err
	}
	return names, more, nil
}

// guidDN names an object by its GUID ([MS-ADTS] 3.1.1.3.1.2.4); the DC finds
// it without a search, and wherever it has been moved to.
func guidDN(guid dsdb.GUID) string { return "<GUID=" + guid.String() + ">" }

// UserAccounts is a filter that matches what people log on with, but no computers and trusts.
const UserAccounts = "(sAMAccountType=805306368)" // 0x30000000, dsdb.SAMUserObject

// decodeAccount turns an entry into an Account. Identity and USN must be there;
// the rest may be missing where the connection may not read it.
func decodeAccount(entry *ldap.Entry, attrs []string) (Account, error) {
	d := decoder{entry: entry}
	a := Account{
		DN:                 entry.DN,
		GUID:               d.guid("objectGUID"),
		SAMAccountName:     d.text("sAMAccountName"),
		UserPrincipalName:  d.text("userPrincipalName"),
		MetaData:           d.metaData(),
		USNChanged:         uint64(d.number("uSNChanged")),
		UserAccountControl: uint32(d.optional("userAccountControl")), // signed in LDAP
		PwdLastSet:         dsdb.NTTime(d.optional("pwdLastSet")),
		Attributes:         make(map[string]string, len(attrs)),
	}
	a.Stamp, _ = a.MetaData.Password()
	if hash := d.raw(hashAttribute); len(hash) == 16 {
		a.NTHash = hash
	} else if len(hash) > 0 {
		d.fail(hashAttribute, errors.New("not 16 bytes"))
	}
	for _, name := range attrs {
		if strings.EqualFold(name, credentialsAttribute) {
			if value := d.raw(name); len(value) > 0 {
				a.SupplementalCredentials = value
			}
		} else if value := d.text(name); value != "" {
			a.Attributes[name] = value
		}
	}
	if d.err != nil {
		return Account{}, d.err
	}
	return a, nil
}

func (d *decoder) metaData() dsdb.MetaData {
	raw := d.raw("replPropertyMetaData")
	if len(raw) == 0 {
		return nil
	}
	meta, err := dsdb.ParseReplPropertyMetaData(raw)
	if err != nil {
		d.fail("replPropertyMetaData", err)
	}
	return meta
}
