package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestAttributesThatUsersWrite(t *testing.T) {
	schema := map[string]bool{
		"mail": false, "sAMAccountType": false, "adminCount": false, "memberOf": false, "cn": false, "userAccountControl": false,
		"info": true, "pager": true,
	}
	asks := func(_ context.Context, name string) (bool, error) {
		if name == "broken" {
			return false, errors.New("the DC is gone")
		}
		writable, ok := schema[name]
		if !ok {
			return false, directory.ErrNotFound
		}
		return writable, nil
	}
	for _, tc := range []struct {
		name string
		set  func(*config.Config)
		want []string // each line's beginning; nil: all is well
		code int
	}{
		{"default", func(*config.Config) {}, nil, exitOK},
		{"name", func(c *config.Config) { c.Target["google"] = config.Target{User: "pager"} },
			[]string{"attention  target.google.user: users may write their own pager"}, exitAttention},
		{"name that there is not", func(c *config.Config) { c.Target["google"] = config.Target{User: "mial"} },
			[]string{"attention  target.google.user: the directory knows no attribute mial"}, exitAttention},
		{"filters", func(c *config.Config) {
			c.Directory.Filter = "(&(sAMAccountType=805306368)(info~=x))"
			c.Directory.Exclude = "(|(!(pager=*))(cn=\\28info=x\\29))"
			c.Target["google"] = config.Target{User: "mail", Filter: "( info>=pager=1)"}
		}, []string{
			"attention  directory.filter: users may write their own info",
			"attention  directory.exclude: users may write their own pager",
			"attention  target.google.filter: users may write their own info",
		}, exitAttention},
		{"matching rules", func(c *config.Config) {
			c.Directory.Exclude = "(|(memberOf:1.2.840.113556.1.4.1941:=CN=info,DC=example)(userAccountControl:1.2.840.113556.1.4.803:=2)(info:dn:=x))"
		}, []string{"attention  directory.exclude: users may write their own info"}, exitAttention},
		{"trouble", func(c *config.Config) { c.Directory.Exclude = "(broken=1)" }, []string{"FAULT      the DC is gone"}, exitFailed},
	} {
		cfg := config.Default()
		cfg.Target["google"] = config.Target{User: "mail"}
		tc.set(cfg)
		var out bytes.Buffer
		list := &checklist{out: &out}
		checkAttributes(t.Context(), list, cfg, asks)
		if tc.want == nil {
			tc.want = []string{"ok         users choose neither"}
		}
		got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if list.code != tc.code || len(got) != len(tc.want) {
			t.Errorf("%s: code %d, want %d\n%s", tc.name, list.code, tc.code, out.String())
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], tc.want[i]) {
				t.Errorf("%s: %q, want %q", tc.name, got[i], tc.want[i])
			}
		}
	}
}

func TestCheckBase(t *testing.T) {
	exists := func(_ context.Context, dn string) (bool, error) {
		if dn == "DC=gone" {
			return false, errors.New("the DC is gone")
		}
		return dn == "OU=People,DC=example", nil
	}
	for _, tc := range []struct {
		base, want string
		code       int
	}{
		{"", "", exitOK},
		{"OU=People,DC=example", "", exitOK},
		{"OU=Poeple,DC=example", "FAULT      c.toml: directory.base_dn: the directory has no \"OU=Poeple,DC=example\"; " +
			"correct it, or leave it empty for the whole domain\n", exitUsage},
		{"DC=gone", "FAULT      directory.base_dn: the DC is gone\n", exitFailed},
	} {
		cfg := config.Default()
		cfg.Directory.BaseDN = tc.base
		var out bytes.Buffer
		list := &checklist{out: &out}
		checkBase(t.Context(), list, cfg, "c.toml", exists)
		if out.String() != tc.want || list.code != tc.code {
			t.Errorf("%s: code %d, %q; want %d, %q", tc.base, list.code, out.String(), tc.code, tc.want)
		}
	}
}

func TestCheckControllers(t *testing.T) {
	one, two, three := dsdb.GUID{1}, dsdb.GUID{2}, dsdb.GUID{3}
	dcs := []directory.Controller{
		{Name: "DC1", InvocationID: one, Writable: true}, {Name: "DC2", InvocationID: two, Writable: true}, {Name: "RODC", InvocationID: three},
	}
	for _, tc := range []struct {
		name  string
		self  dsdb.GUID
		peers []string
		err   error
		want  string // "" for silence
		code  int
	}{
		{"not alone", one, nil, nil, "attention  passwords change at DC2, too", exitAttention},
		{"restored, not replicated yet", dsdb.GUID{4}, nil, nil, "", exitOK},
		{"peer", one, []string{"dc2"}, nil, "ok         peer DC2: a writable domain controller", exitOK},
		{"peer that there is not", one, []string{"DC2", "DC4"}, nil, `the domain has no domain controller "DC4"`, exitUsage},
		{"its own peer", one, []string{"DC1", "DC2"}, nil, `"DC1" is this domain controller itself`, exitUsage},
		{"peer without changes", one, []string{"DC2", "RODC"}, nil, `"RODC" is a read-only domain controller`, exitUsage},
		{"on a read-only one", three, nil, nil, "FAULT      this is a read-only domain controller", exitFailed},
		{"trouble", one, nil, errors.New("the DC is gone"), "FAULT      the DC is gone", exitFailed},
	} {
		cfg := config.Default()
		cfg.Directory.Peers = tc.peers
		var out bytes.Buffer
		list := &checklist{out: &out}
		checkControllers(t.Context(), list, cfg, "the file", tc.self, func(context.Context) ([]directory.Controller, error) { return dcs, tc.err })
		if got := out.String(); list.code != tc.code || !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
			t.Errorf("%s: code %d, want %d\n%s", tc.name, list.code, tc.code, got)
		}
	}
}

func TestCheckMatches(t *testing.T) {
	matching := func(_ context.Context, filter string, each func(dsdb.GUID) error) error {
		switch filter {
		case "(memberOf=CN=Pupils)":
			for i := range byte(3) {
				if err := each(dsdb.GUID{i}); err != nil {
					return err
				}
			}
		case "(memberOf=CN=Gone)":
			return errors.New("the DC is gone")
		}
		return nil
	}
	const nobody = ".filter: no account matches it, so "
	for _, tc := range []struct {
		policy, target string
		want           []string // what the lines begin with
		code           int
	}{
		{"", "", nil, exitOK},
		{"(memberOf=CN=Pupils)", "(memberOf=CN=Pupils)", nil, exitOK},
		{"(memberOf=CN=Pupil)", "(memberOf=CN=Pupil)",
			[]string{"attention  policy.pupils" + nobody + "nobody has this policy", "attention  target.cloud" + nobody + "nobody's password is sent there"}, exitAttention},
		{"(memberOf=CN=Gone)", "", []string{"FAULT      policy.pupils.filter: the DC is gone"}, exitFailed},
	} {
		cfg := config.Default()
		cfg.Policies = []config.NamedPolicy{{Name: "pupils", Filter: tc.policy}}
		cfg.Target = map[string]config.Target{"cloud": {Filter: tc.target}}
		var out bytes.Buffer
		list := &checklist{out: &out}
		checkMatches(t.Context(), list, cfg, matching)
		lines := slices.Collect(strings.Lines(out.String()))
		if list.code != tc.code || !slices.EqualFunc(lines, tc.want, strings.HasPrefix) {
			t.Errorf("%s, %s: code %d, want %d\n%s", tc.policy, tc.target, list.code, tc.code, out.String())
		}
	}
}

func TestCheckLaxPolicy(t *testing.T) {
	for _, tc := range []struct {
		name   string
		policy func(*config.Policy)
		kind   string
		want   bool
	}{
		{"as it is", func(*config.Policy) {}, config.TypeEntra, false},
		{"tiers that ask as much", func(p *config.Policy) { p.Tiers = []string{"8:4", "12:3"} }, config.TypeEntra, false},
		{"tiers that ask less", func(p *config.Policy) { p.Tiers = []string{"8:3", "16:1"} }, config.TypeEntra, true},
		{"no complexity", func(p *config.Policy) { p.Complexity = false }, config.TypeEntra, true},
		{"audited", func(p *config.Policy) { p.Complexity, p.Audit = false, []string{"target"} }, config.TypeEntra, false},
		{"no preflight", func(p *config.Policy) { p.Complexity, p.Preflight = false, false }, config.TypeEntra, false},
		{"Google", func(p *config.Policy) { p.Complexity = false }, config.TypeGoogle, false},
	} {
		cfg := config.Default()
		tc.policy(&cfg.Policy)
		cfg.Target = map[string]config.Target{"cloud": {Type: tc.kind}}
		var out bytes.Buffer
		list := &checklist{out: &out}
		checkPolicies(list, cfg)
		want := ""
		if tc.want {
			want = "ok         [policy] may ask for fewer than 3 kinds of characters; accounts that cloud wants need 3 all the same (preflight)\n"
		}
		if out.String() != want || list.code != exitOK {
			t.Errorf("%s: code %d, %q; want %q", tc.name, list.code, out.String(), want)
		}
	}
}
