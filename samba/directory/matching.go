package directory

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Matching calls each for every user account that the filter matches: what
// Matches would say of each of them, by one search. They come in no particular
// order. It leaves the DC as much time as it takes, see Accounts.
//
// LDAP_MATCHING_RULE_IN_CHAIN on memberOf is asked in two steps, with the same
// result: first which groups are within the group, then whose members they are.
// For Samba follows the chain from each account anew (20,000 accounts: 7 s in
// which one of the DC's few LDAP workers does nothing else, instead of 0.3).
//
// An error of each ends it and is returned as it is.
func (dc *DC) Matching(ctx context.Context, filter string, each func(dsdb.GUID) error) error {
	if err := ValidateFilter(filter); err != nil {
		return err
	}
	filter, err := dc.unchain(ctx, filter)
	if err != nil {
		return fmt.Errorf("looking for accounts that match: %w", err)
	}
	wanted := UserAccounts
	if filter != UserAccounts {
		wanted = "(&" + UserAccounts + filter + ")"
	}
	return dc.pagesAtRest(ctx, "looking for accounts that match", &ldap.SearchRequest{
		BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: wanted, Attributes: []string{"objectGUID"},
	}, rest, func(entry *ldap.Entry) (func() error, error) {
		d := decoder{entry: entry}
		guid := d.guid("objectGUID")
		return func() error { return each(guid) }, d.err
	})
}

const (
	groups         = "(objectClass=group)"
	securityGroups = "(groupType:1.2.840.113556.1.4.803:=2147483648)" // others give no rights
)

// chained is a filter's item that asks for a group's members at any depth. A
// parenthesis in a value is escaped, so this is the whole item.
var chained = regexp.MustCompile(`(?i)\( *memberOf *:1\.2\.840\.113556\.1\.4\.1941:=([^()]*)\)`)

// mostGroups bounds what takes the place of one such item. With more, following
// the chains costs no more.
const mostGroups = 500

// unchain replaces those items by items that ask for members alone.
func (dc *DC) unchain(ctx context.Context, filter string) (string, error) {
	for _, item := range slices.Compact(slices.Sorted(slices.Values(chained.FindAllString(filter, -1)))) {
		group := chained.FindStringSubmatch(item)[1]
		within, err := dc.groupDNs(ctx, "(&"+groups+item+")")
		if err != nil {
			return "", err
		}
		if len(within) < mostGroups {
			filter = strings.ReplaceAll(filter, item, "(|(memberOf="+group+")"+memberOfAny(within)+")")
		}
	}
	return filter, nil
}

func memberOfAny(dns []string) string {
	var items strings.Builder
	for _, dn := range dns {
		items.WriteString("(memberOf=" + ldap.EscapeFilter(dn) + ")")
	}
	return items.String()
}

// groupDNs lists the groups that a filter matches.
func (dc *DC) groupDNs(ctx context.Context, filter string) (dns []string, err error) {
	err = dc.pages(ctx, "looking for groups", &ldap.SearchRequest{
		BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: filter, Attributes: []string{"distinguishedName"},
	}, func(entry *ldap.Entry) (func() error, error) {
		return func() error { dns = append(dns, entry.DN); return nil }, nil
	})
	return dns, err
}

// ProtectedAccounts calls each for every user account of which Protected would be
// true. Unlike that, it asks from the groups downwards: for the protected ones,
// for the groups within them, and then for the members of all of these, also by
// their primary group.
func (dc *DC) ProtectedAccounts(ctx context.Context, each func(dsdb.GUID) error) error {
	type group struct {
		dn  string
		sid dsdb.SID
	}
	var level []group
	found := map[string]bool{} // DNs
	add := func(accept func(dsdb.SID) bool) teller {
		return func(entry *ldap.Entry) (func() error, error) {
			sid, err := dsdb.ParseSID(entry.GetEqualFoldRawAttributeValue("objectSid"))
			return func() error {
				if accept(sid) && !found[entry.DN] {
					found[entry.DN] = true
					level = append(level, group{entry.DN, sid})
				}
				return nil
			}, err
		}
	}
	look := func(filter string, accept func(dsdb.SID) bool) error {
		return dc.pages(ctx, "looking for administrators' groups", &ldap.SearchRequest{
			BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: filter, Attributes: []string{"objectSid"},
		}, add(accept))
	}

	// A token holds only security groups, and what stands in it because of a protected group's membership in another does not matter.
	if err := look("(&"+groups+securityGroups+")", dsdb.SID.Protected); err != nil {
		return err
	}
	var filter strings.Builder
	for len(level) > 0 {
		var dns []string
		for _, g := range level {
			dns = append(dns, g.dn)
			if rid, ok := inDomain(g.sid); ok {
				filter.WriteString("(primaryGroupID=" + rid + ")")
			}
		}
		items := memberOfAny(dns)
		filter.WriteString(items)
		level = nil
		if err := look("(&"+groups+securityGroups+"(|"+items+"))", func(dsdb.SID) bool { return true }); err != nil {
			return err
		}
	}
	if filter.Len() == 0 {
		return nil
	}
	return dc.Matching(ctx, "(|"+filter.String()+")", each)
}

// inDomain returns the last part of the SID of a domain's own group.
func inDomain(sid dsdb.SID) (rid string, ok bool) {
	return string(sid[strings.LastIndexByte(string(sid), '-')+1:]), strings.HasPrefix(string(sid), "S-1-5-21-")
}
