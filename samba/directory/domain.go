package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Root is what a DC says about itself.
type Root struct {
	BaseDN       string    // of the domain: "DC=example,DC=com"
	DomainName   string    // its DNS name: "example.com"
	DNSHostName  string    // of the DC: "dc1.example.com"
	ServerName   string    // its short name: "DC1"
	HighestUSN   uint64    // the last number given to a change, see Changed
	InvocationID dsdb.GUID // of the DC's database; a restored one gets a new one

	// DomainFunctionality is the domain's functional level ([MS-ADTS] 6.1.4.3): 0 is Windows 2000, 2 is 2003, 3 is 2008, 4 is 2008 R2,
	// 7 is 2016. From 3 on the DC stores AES keys of each new password.
	DomainFunctionality int
}

// Root asks the DC about itself. HighestUSN is read first, and so never later
// than anything else.
func (dc *DC) Root(ctx context.Context) (Root, error) {
	r, err := dc.root(ctx)
	if err != nil {
		return Root{}, fmt.Errorf("reading rootDSE: %w", err)
	}
	return r, nil
}

func (dc *DC) root(ctx context.Context) (Root, error) {
	entry, err := dc.readOne(ctx, "", anything,
		"dnsHostName", "serverName", "dsServiceName", "highestCommittedUSN", "domainFunctionality")
	if err != nil {
		return Root{}, err
	}
	d := decoder{entry: entry}
	r := Root{
		BaseDN:      dc.base,
		DomainName:  domainName(dc.base),
		DNSHostName: d.text("dnsHostName"),
		ServerName:  firstName(d.text("serverName")),
		HighestUSN:  uint64(d.number("highestCommittedUSN")),

		DomainFunctionality: int(d.number("domainFunctionality")),
	}
	settings, err := dc.readOne(ctx, d.text("dsServiceName"), anything, "invocationId")
	if err != nil {
		return Root{}, fmt.Errorf("reading NTDS Settings: %w", err)
	}
	s := decoder{entry: settings}
	r.InvocationID = s.guid("invocationId")
	if err := cmp.Or(d.err, s.err); err != nil {
		return Root{}, err
	}
	return r, nil
}

// Exists reports whether there is an object of that distinguished name. One that
// the connection may not see does not exist for it.
func (dc *DC) Exists(ctx context.Context, dn string) (bool, error) {
	_, err := dc.readOne(ctx, dn, anything, noAttributes)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for %q: %w", dn, err)
	}
	return true, nil
}

// domainName turns the domain's DN into its DNS name (RFC 2247).
func domainName(dn string) string {
	parsed, err := ldap.ParseDN(dn)
	if err != nil {
		return ""
	}
	var labels []string
	for _, rdn := range parsed.RDNs {
		if strings.EqualFold(rdn.Attributes[0].Type, "DC") {
			labels = append(labels, rdn.Attributes[0].Value)
		}
	}
	return strings.Join(labels, ".")
}

// firstName returns the value of a DN's first part.
func firstName(dn string) string {
	parsed, err := ldap.ParseDN(dn)
	if err != nil || len(parsed.RDNs) == 0 {
		return ""
	}
	return parsed.RDNs[0].Attributes[0].Value
}

// PasswordSettings is what the domain asks of a password, where no fine-grained
// policy overrides it.
type PasswordSettings struct {
	Complexity    bool // three of five categories; without it Samba runs no check password script
	MinLength     int  // UTF-16 code units
	HistoryLength int  // earlier passwords that may not be used again
	Reversible    bool // new passwords of accounts with dsdb.UFReversibleEncryption are stored in clear as well

	FineGrained []FineGrained // in no particular order
}

// FineGrained is a password settings object (PSO), which overrides the domain's
// settings for the users and groups that it is applied to.
type FineGrained struct {
	Name          string
	Precedence    int // of several, the lowest wins
	Complexity    bool
	MinLength     int
	HistoryLength int
	Reversible    bool
}

// Bits of pwdProperties ([MS-SAMR] 2.2.3.5).
const (
	domainPasswordComplex        = 0x01
	domainPasswordStoreCleartext = 0x10
)

// PasswordSettings reads the domain's password settings and all PSOs. A PSO
// that the connection may not read, as is usual for ordinary users, is not
// among them.
func (dc *DC) PasswordSettings(ctx context.Context) (PasswordSettings, error) {
	s, err := dc.passwordSettings(ctx)
	if err != nil {
		return PasswordSettings{}, fmt.Errorf("reading password settings: %w", err)
	}
	return s, nil
}

func (dc *DC) passwordSettings(ctx context.Context) (PasswordSettings, error) {
	domain, err := dc.readOne(ctx, dc.base, anything, "pwdProperties", "minPwdLength", "pwdHistoryLength")
	if err != nil {
		return PasswordSettings{}, err
	}
	d := decoder{entry: domain}
	properties := d.number("pwdProperties")
	s := PasswordSettings{
		Complexity:    properties&domainPasswordComplex != 0,
		Reversible:    properties&domainPasswordStoreCleartext != 0,
		MinLength:     int(d.number("minPwdLength")),
		HistoryLength: int(d.number("pwdHistoryLength")),
	}
	if d.err != nil {
		return PasswordSettings{}, d.err
	}
	result, err := dc.search(ctx, &ldap.SearchRequest{
		BaseDN: dc.base, Scope: ldap.ScopeWholeSubtree, Filter: "(objectClass=msDS-PasswordSettings)", Attributes: fineGrainedAttributes,
	})
	if err != nil {
		return PasswordSettings{}, err
	}
	for _, entry := range result.Entries {
		pso, err := decodeFineGrained(entry)
		if err != nil {
			return PasswordSettings{}, err
		}
		s.FineGrained = append(s.FineGrained, pso)
	}
	return s, nil
}

var fineGrainedAttributes = []string{"cn", "msDS-PasswordSettingsPrecedence", "msDS-PasswordComplexityEnabled",
	"msDS-MinimumPasswordLength", "msDS-PasswordHistoryLength", "msDS-PasswordReversibleEncryptionEnabled"}

func decodeFineGrained(entry *ldap.Entry) (FineGrained, error) {
	d := decoder{entry: entry}
	pso := FineGrained{
		Name:          d.text("cn"),
		Precedence:    int(d.number("msDS-PasswordSettingsPrecedence")),
		Complexity:    d.text("msDS-PasswordComplexityEnabled") == "TRUE",
		MinLength:     int(d.number("msDS-MinimumPasswordLength")),
		HistoryLength: int(d.number("msDS-PasswordHistoryLength")),
		Reversible:    d.text("msDS-PasswordReversibleEncryptionEnabled") == "TRUE",
	}
	return pso, d.err
}

// ResultantPSO tells which fine-grained policy governs the account's password
// ([MS-ADTS] 3.1.1.4.5.36, msDS-ResultantPSO); found is false if none does, and
// the domain's settings hold. An account that does not exist is ErrNotFound.
func (dc *DC) ResultantPSO(ctx context.Context, guid dsdb.GUID) (pso FineGrained, found bool, err error) {
	pso, found, err = dc.resultantPSO(ctx, guid)
	if err != nil {
		return FineGrained{}, false, fmt.Errorf("reading which password policy governs account %s: %w", guid, err)
	}
	return pso, found, nil
}

func (dc *DC) resultantPSO(ctx context.Context, guid dsdb.GUID) (FineGrained, bool, error) {
	account, err := dc.readOne(ctx, guidDN(guid), UserAccounts, "msDS-ResultantPSO")
	if err != nil {
		return FineGrained{}, false, err
	}
	dn := account.GetEqualFoldAttributeValue("msDS-ResultantPSO")
	if dn == "" {
		return FineGrained{}, false, nil
	}
	entry, err := dc.readOne(ctx, dn, anything, fineGrainedAttributes...)
	if errors.Is(err, ErrNotFound) { // which would say that there is no such account
		return FineGrained{}, false, fmt.Errorf("%s is gone, or not readable on this connection", dn)
	} else if err != nil {
		return FineGrained{}, false, err
	}
	pso, err := decodeFineGrained(entry)
	return pso, true, err
}
