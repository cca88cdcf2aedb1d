package directory

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	// pageSize is how many accounts a scan asks for at a time: less than the
	// 1000 that a DC gives out at most (MaxPageSize).
	pageSize = 500

	// lookupSize is how many USNs one search looks up. The DC holds each entry
	// that it finds against each of them, so more at a time cost more.
	lookupSize = 64

	// lookupLimit is how many USNs are looked up before a scan of all accounts
	// is cheaper, or the only thing that comes to an end.
	lookupLimit = 8192
)

// Changed calls each for every user account with uSNChanged >= fromUSN, and
// gone for every account that was deleted since then; from 0 for all of them.
// Neither comes in a particular order, and an account may come twice. Computers
// and trusts are not among the living, but among the dead. gone gets the
// objectGUID, which nothing else will ever have, and the last sAMAccountName.
// The DC forgets a deletion after its tombstone lifetime, 180 days by default
// ([MS-ADTS] 3.1.1.5.5). Hashes are not read.
//
// An account that cannot be decoded, dead or alive, delays no other: each gets
// it with Unreadable set, its names, its objectGUID unless that is what cannot be
// decoded, and nothing else. Its stamp is not known, which is another thing than
// having none: whoever relied on an earlier one must not go on doing so.
//
// To follow the directory, read Root's HighestUSN first, then Changed, and go
// on from the number just read, plus one: an account that changes in between
// comes twice instead of never. USNs are one DC's own; they mean nothing at
// another, nor at this one once its InvocationID has changed (after a restore).
//
// It costs the DC in proportion to the USNs that passed, however many accounts
// there are, unless thousands have passed, or fromUSN is 0: then it is a scan
// of all accounts.
//
// An error of each or gone ends it and is returned as it is. After any other
// error, some accounts may have been missed: start again from the same number.
func (dc *DC) Changed(ctx context.Context, fromUSN uint64, attrs []string,
	each func(Account) error, gone func(guid dsdb.GUID, sAMAccountName string) error) error {

	if fromUSN > 0 {
		done, err := dc.lookUp(ctx, fromUSN, attrs, decodeChange(attrs, each, gone, nil))
		if done || err != nil {
			return err
		}
	}
	return dc.scan(ctx, fromUSN, attrs, each, gone)
}

// Known calls each for those of the accounts that are there, and gone for those
// that were deleted, as Changed does; for one that the DC never had, has
// forgotten, or has as something else than a user account now, neither. It is for some tens at a time.
func (dc *DC) Known(ctx context.Context, guids []dsdb.GUID,
	each func(Account) error, gone func(guid dsdb.GUID, sAMAccountName string) error) error {

	if len(guids) == 0 {
		return nil
	}
	var filter strings.Builder
	filter.WriteString("(|")
	for _, guid := range guids {
		filter.WriteString("(objectGUID=")
		for _, b := range guid {
			fmt.Fprintf(&filter, `\%02x`, b)
		}
		filter.WriteString(")")
	}
	filter.WriteString(")")
	const doing = "looking accounts up"
	result, err := dc.search(ctx, dc.withDeleted(filter.String(), nil))
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return tellAll(result, doing, decodeChange(nil, each, gone, nil))
}

// withDeleted is a search for what decodeChange sorts.
func (dc *DC) withDeleted(filter string, attrs []string) *ldap.SearchRequest {
	return &ldap.SearchRequest{
		BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: filter,
		Attributes: slices.Concat(accountAttributes, []string{"sAMAccountType", "isDeleted", "objectClass"}, attrs),
		Controls:   []ldap.Control{ldap.NewControlMicrosoftShowDeleted()},
	}
}

// lookUp is Changed by looking USNs up, one by one: the index of Samba's usual
// database (TDB) answers equality only, so that "uSNChanged>=" looks at every
// object of the domain. It reports false if it gave up because there were too
// many. What the DC has given out is asked after the first search: mostly that
// was all there is, and who waits for it waits for two answers, not for three.
//
// An account that changes while this goes on moves to a higher USN. It is not
// missed, because the USNs are looked up in ascending order, until the DC has
// given out none beyond those of the last search, which is one moment to the
// DC: an account that was not found where it had been lies ahead.
func (dc *DC) lookUp(ctx context.Context, fromUSN uint64, attrs []string, decode teller) (done bool, err error) {
	highest := uint64(0) // as far as is known
	for next := fromUSN; next < fromUSN+lookupLimit; {
		var filter strings.Builder
		filter.WriteString("(|")
		for usn := next; usn < next+lookupSize; usn++ {
			fmt.Fprintf(&filter, "(uSNChanged=%d)", usn)
		}
		filter.WriteString(")")
		// Not a word of accounts in the filter: the DC would load the whole index of sAMAccountType as well.
		result, err := dc.search(ctx, dc.withDeleted(filter.String(), attrs))
		if err != nil {
			return false, fmt.Errorf("reading changed accounts: %w", err)
		}
		if err := tellAll(result, "reading changed accounts", decode); err != nil {
			return false, err
		}
		if next += lookupSize; next <= highest {
			continue
		}
		if highest, err = dc.highestUSN(ctx); err != nil {
			return false, fmt.Errorf("reading changed accounts: %w", err)
		}
		switch {
		case highest < next:
			return true, nil
		case highest >= fromUSN+lookupLimit:
			return false, nil
		}
	}
	return false, nil
}

// scan is Changed by looking at every account.
func (dc *DC) scan(ctx context.Context, fromUSN uint64, attrs []string,
	each func(Account) error, gone func(dsdb.GUID, string) error) error {

	filter := UserAccounts
	if fromUSN > 0 {
		filter = fmt.Sprintf("(&%s(uSNChanged>=%d))", UserAccounts, fromUSN)
	}
	err := dc.pages(ctx, "reading changed accounts", &ldap.SearchRequest{
		BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: filter,
		Attributes: slices.Concat(accountAttributes, attrs),
	}, func(entry *ldap.Entry) (func() error, error) { return decodeLiving(entry, attrs, each) })
	if err != nil {
		return err
	}
	return dc.pages(ctx, "reading deleted accounts", &ldap.SearchRequest{
		// One level below the container: the DC has an index for that, and none for isDeleted.
		BaseDN: "<WKGUID=" + deletedObjects + "," + dc.base + ">", Scope: ldap.ScopeSingleLevel,
		Filter:     fmt.Sprintf("(&(objectClass=user)(uSNChanged>=%d))", fromUSN),
		Attributes: []string{"objectGUID", "sAMAccountName"},
		Controls:   []ldap.Control{ldap.NewControlMicrosoftShowDeleted()},
	}, func(entry *ldap.Entry) (func() error, error) { return decodeDead(entry, each, gone) })
}

// deletedObjects is the well-known GUID of the container of deleted objects
// ([MS-ADTS] 6.1.1.4).
const deletedObjects = "18E2EA80684F11D2B9AA00C04F79F805"

// highestUSN reads highestCommittedUSN alone, which costs the DC no search.
func (dc *DC) highestUSN(ctx context.Context) (uint64, error) {
	entry, err := dc.readOne(ctx, "", anything, "highestCommittedUSN")
	if err != nil {
		return 0, fmt.Errorf("reading rootDSE: %w", err)
	}
	d := decoder{entry: entry}
	return uint64(d.number("highestCommittedUSN")), d.err
}

// teller turns an entry into what its caller is to be told, by the func that it
// returns. Its own errors are given context, those of that func are the caller's.
type teller func(*ldap.Entry) (tell func() error, err error)

// decodeChange sorts what a search by USN alone finds: accounts, deleted ones,
// and everything else that a domain holds, of which other is told, unless it is nil.
func decodeChange(attrs []string, each func(Account) error, gone func(dsdb.GUID, string) error, other func(Other) error) teller {
	return func(entry *ldap.Entry) (func() error, error) {
		classes, dead := entry.GetAttributeValues("objectClass"), entry.GetAttributeValue("isDeleted") == "TRUE"
		switch {
		case dead && slices.Contains(classes, "user"):
			return decodeDead(entry, each, gone)
		case dead:
		case entry.GetAttributeValue("sAMAccountType") == strconv.Itoa(dsdb.SAMUserObject):
			return decodeLiving(entry, attrs, each)
		}
		if other == nil {
			return func() error { return nil }, nil
		}
		return func() error { return other(Other{DN: entry.DN, Classes: classes, Deleted: dead}) }, nil
	}
}

func decodeLiving(entry *ldap.Entry, attrs []string, each func(Account) error) (func() error, error) {
	a, err := decodeAccount(entry, attrs)
	if err != nil {
		a = unreadable(entry, err)
	}
	return func() error { return each(a) }, nil
}

func decodeDead(entry *ldap.Entry, each func(Account) error, gone func(dsdb.GUID, string) error) (func() error, error) {
	d := decoder{entry: entry}
	guid, name := d.guid("objectGUID"), d.text("sAMAccountName")
	if d.err != nil {
		return func() error { return each(unreadable(entry, d.err)) }, nil
	}
	return func() error { return gone(guid, name) }, nil
}

// unreadable is all that can be said of an account that cannot be decoded.
func unreadable(entry *ldap.Entry, err error) Account {
	d := decoder{entry: entry}
	return Account{DN: entry.DN, GUID: d.guid("objectGUID"), SAMAccountName: d.text("sAMAccountName"),
		UserPrincipalName: d.text("userPrincipalName"), Unreadable: err}
}

func tellAll(result *ldap.SearchResult, doing string, decode teller) error {
	for _, entry := range result.Entries {
		tell, err := decode(entry)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		if err := tell(); err != nil {
			return err
		}
	}
	return nil
}

// pages runs a search page by page.
func (dc *DC) pages(ctx context.Context, doing string, request *ldap.SearchRequest, decode teller) error {
	return dc.pagesAtRest(ctx, doing, request, func(context.Context, time.Duration) error { return nil }, decode)
}

// pagesAtRest is pages, and calls rest between two of them, with how long the DC took for the former.
func (dc *DC) pagesAtRest(ctx context.Context, doing string, request *ldap.SearchRequest,
	rest func(context.Context, time.Duration) error, decode teller) error {

	paging := ldap.NewControlPaging(pageSize)
	request.Controls = append(request.Controls, paging)
	for {
		asked := time.Now()
		result, err := dc.search(ctx, request)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		took := time.Since(asked)
		if err := tellAll(result, doing, decode); err != nil {
			return err
		}
		next, ok := ldap.FindControl(result.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok || len(next.Cookie) == 0 {
			return nil
		}
		paging.SetCookie(next.Cookie)
		if err := rest(ctx, took); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
}
