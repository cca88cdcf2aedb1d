package gate

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/attempt"
	"github.com/samba-pwsync/samba-pwsync/internal/breached/importer"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/index"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
)

const twoTargets = `
[target.g]
type = "google"
credentials_file = "/g"
[target.m]
type = "entra"
tenant_id = "t"
client_id = "c"
certificate_file = "/c"
`

const policies = `
[policy]
max_length = 256
[policy.staff]
filter = "(a=b)"
precedence = 10
min_length = 15
[policy.lax]
filter = "(a=b)"
precedence = 20
mode = "audit"
preflight = false
`

func (s *site) index(c index.Contents) {
	s.t.Helper()
	s.must(index.Write(s.paths.PolicyIndex, c))
}

func (s *site) decideFor(account, password string) Verdict {
	s.t.Helper()
	r := request(password)
	r.Account = account
	c := s.load()
	if c.Err != nil {
		s.t.Fatal(c.Err)
	}
	return decide(c, r)
}

func TestPolicyByAccount(t *testing.T) {
	s := newSite(t, policies+twoTargets)
	v := s.decideFor("alice", "Abcdefgh1ö")
	s.is("without an index, all targets", v, "target", "who has which policy and which targets")
	if v.Policy != config.DefaultPolicy || v.Known || !v.Made.IsZero() {
		t.Errorf("%+v", v)
	}

	made := time.Now().Round(time.Second)
	s.index(index.Contents{Made: made, Policies: []string{"staff", "lax"}, Targets: []string{"g", "m"}, Accounts: []index.Account{
		{Name: "alice", Entry: index.Entry{Policy: "staff", Targets: []string{"g"}}},
		{Name: "bob", Entry: index.Entry{Policy: "lax", Targets: []string{"g", "m"}}},
		{Name: "carol", Entry: index.Entry{Targets: []string{"m"}}},
	}})
	for _, tc := range []struct {
		account, password string
		policy, rules     string
		audited           string
		targets           string
		known             bool
	}{
		{"alice", "Abcdefgh1ö", "staff", "length", "", "g", true},
		{"ALICE", "Abcdefghijklmnop1ö", "staff", "", "", "g", true},
		{"alice", "Abcdefghijklmnop1" + strings.Repeat("x", 90), "staff", "target", "", "g", true},
		{"bob", "abcdefghö", "lax", "", "complexity", "g m", true},
		{"bob", "abcö", "lax", "", "length complexity", "g m", true},
		{"carol", "Abcdefgh1ö", "default", "target", "", "m", true},
		{"carol", "Abcdefgh1", "default", "", "", "m", true},
		{"dave", "Abcdefgh1ö", "default", "target", "", "g m", false},
		{"", "Abcdefgh1ö", "default", "target", "", "g m", false},
	} {
		v := s.decideFor(tc.account, tc.password)
		s.is(tc.account+" "+tc.password, v, tc.rules, "")
		if v.Policy != tc.policy || strings.Join(v.Rules(true), " ") != tc.audited || strings.Join(v.Targets, " ") != tc.targets || v.Known != tc.known || !v.Made.Equal(made) {
			t.Errorf("%s %s: %+v", tc.account, tc.password, v)
		}
		if v.Refused() != (tc.rules != "") {
			t.Errorf("%s %s: refused: %v", tc.account, tc.password, v.Refused())
		}
	}

	// What the directory was not asked about, because the agent has not read this configuration yet.
	s.index(index.Contents{Made: made, Policies: []string{"lax"}, Targets: []string{"m"}, Accounts: []index.Account{{Name: "alice"}}})
	v = s.decideFor("alice", "Abcdefgh1")
	s.is("of an older configuration", v, "", "policy staff: who has it is not known yet")
	if strings.Join(v.Targets, " ") != "g" {
		t.Errorf("wanted by %v: the index knows that m does not want it, and nothing of g", v.Targets)
	}

	s.must(os.WriteFile(s.paths.PolicyIndex, []byte("x"), 0o600))
	s.is("damaged", s.decideFor("alice", "Abcdefgh1ö"), "target", "damaged")
}

// Nothing is opened that no rule asks for.
func TestOpensNothing(t *testing.T) {
	s := newSite(t, "")
	s.must(os.RemoveAll(filepath.Join(s.dir, "state")))
	for _, text := range []string{"", "[policy]\npreflight = false\n" + twoTargets, "[policy]\nmode = \"off\"\nbreached = \"/none\"\nbanned = [\"/none\"]\nalso = [\"/none\"]\n"} {
		s.write(text)
		s.is(text, s.decide("Abcdefgh1ö"), "", "")
	}
	// Before serve ran for the first time there is no index: said, but no error.
	s.write(twoTargets)
	v := s.decide("Abcdefgh1")
	s.is("no index yet", v, "", "not known before `samba-pwsync serve` has asked")
	if len(v.Troubles) != 1 || !v.Troubles[0].Minor {
		t.Errorf("%+v", v.Troubles)
	}
	s.write(policies + twoTargets)
	if v := s.decide("Abcdefgh1"); len(v.Troubles) != 1 || v.Troubles[0].Minor {
		t.Errorf("%+v", v.Troubles)
	}
}

func (s *site) script(text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, fmt.Sprintf("check%d", time.Now().UnixNano()))
	s.must(os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700))
	return path
}

func TestOtherPrograms(t *testing.T) {
	s := newSite(t, "")
	asked := filepath.Join(s.dir, "asked")
	yes, no, missing := s.script("echo yes >>"+asked), s.script("echo no >>"+asked+"; exit 1"), filepath.Join(s.dir, "missing")
	hangs := s.script("echo hangs >>" + asked + "; exec sleep 100")
	for _, tc := range []struct {
		name, also, more string
		password         string
		rules, trouble   string
		asked            string
	}{
		{"accepts", `"` + yes + `"`, "", "Abcdefgh1", "", "", "yes"},
		{"refuses", `"` + no + `"`, "", "Abcdefgh1", "also", "", "no"},
		{"both", `"` + yes + `", "` + no + `"`, "", "Abcdefgh1", "also", "", "yes no"},
		{"the first refuses", `"` + no + `", "` + yes + `"`, "", "Abcdefgh1", "also", "", "no"},
		{"refused already", `"` + yes + `"`, "", "abc", "length complexity", "", ""},
		{"audited", `"` + no + `", "` + yes + `"`, "audit = [\"also\"]\n", "Abcdefgh1", "", "", "no yes"},
		{"audited before", `"` + yes + `"`, "audit = [\"length\", \"complexity\"]\n", "abc", "", "", "yes"},
		{"missing", `"` + missing + `", "` + yes + `"`, "", "Abcdefgh1", "", "no such file", "yes"},
		{"missing, strict", `"` + missing + `", "` + yes + `"`, "[hook]\non_also_error = \"refuse\"\n", "Abcdefgh1", "also", "no such file", ""},
		{"hangs", `"` + hangs + `", "` + yes + `"`, "", "Abcdefgh1", "", "killed", "hangs"},
	} {
		_ = os.Remove(asked)
		s.write("[policy]\nalso = [" + tc.also + "]\n" + tc.more)
		begun := time.Now()
		s.is(tc.name, s.decide(tc.password), tc.rules, tc.trouble)
		if took := time.Since(begun); took > programPatience+time.Minute {
			t.Errorf("%s: took %v", tc.name, took)
		}
		got, _ := os.ReadFile(asked)
		if strings.Join(strings.Fields(string(got)), " ") != tc.asked {
			t.Errorf("%s: asked %q, want %q", tc.name, got, tc.asked)
		}
	}
}

func TestBreached(t *testing.T) {
	for kind, line := range map[string]string{ // of "password", as Have I Been Pwned has it
		"SHA-1": "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:52256179\n", "NTLM": "8846F7EAEE8FB117AD06BDD830B7586C:52256179\n",
	} {
		s := newSite(t, "")
		list, file := filepath.Join(s.dir, "list"), filepath.Join(s.dir, "breached.bin")
		s.must(os.WriteFile(list, []byte(line), 0o600))
		_, err := importer.Run(t.Context(), importer.Options{Output: file, Lists: []string{list}, Bits: 16})
		s.must(err)
		s.write("[policy]\ncomplexity = false\nbreached = \"" + file + "\"\n")
		s.is(kind, s.decide("password"), "breached", "")
		s.is(kind+", another", s.decide("passwords"), "", "")
		s.write("[policy]\ncomplexity = false\nbreached = \"" + file + "\"\naudit = [\"breached\"]\n")
		if v := s.decide("password"); v.Refused() || strings.Join(v.Rules(true), " ") != "breached" {
			t.Errorf("%s, audited: %+v", kind, v)
		}
	}
}

func TestBreachedFileMissing(t *testing.T) {
	s := newSite(t, "")
	s.write("[policy]\nbreached = \"" + filepath.Join(s.dir, "none") + "\"\n")
	s.is("none", s.decide("Abcdefgh1"), "", "no such file")
	s.must(os.WriteFile(filepath.Join(s.dir, "none"), []byte(strings.Repeat("x", 1<<20)), 0o600))
	s.is("rubbish", s.decide("Abcdefgh1"), "", "breached")
}

// Basic holds where all else fails, by the account's policy, and is no laxer than Samba.
func TestBasic(t *testing.T) {
	s := newSite(t, "[policy]\nnames = true\nbanned = [\"/none\"]\nalso = [\"/none\"]\n[policy.lax]\nfilter = \"(a=b)\"\nprecedence = 1\nmode = \"audit\"\n"+twoTargets)
	s.index(index.Contents{Policies: []string{"lax"}, Targets: []string{"g", "m"}, Accounts: []index.Account{{Name: "bob", Entry: index.Entry{Policy: "lax"}}}})
	c := s.load()
	for _, tc := range []struct{ account, password, policy, rules, audited string }{
		{"alice", "Abcdefgh1ö", "default", "", ""},
		{"alice", "abc", "default", "length complexity", ""},
		{"alice", "abcdefgh", "default", "complexity", ""},
		{"bob", "abc", "lax", "", "length complexity"},
	} {
		r := request(tc.password)
		r.Account = tc.account
		v := attempt.Run(func(course *attempt.Course) Verdict { return c.Basic(course, r, time.Now().Add(3*time.Minute)) })
		s.is(tc.account+" "+tc.password, v, tc.rules, "")
		if v.Policy != tc.policy || strings.Join(v.Rules(true), " ") != tc.audited {
			t.Errorf("%s %s: %+v", tc.account, tc.password, v)
		}
	}
}

// Where Decide fails no other program is asked, and what that means on_also_error says.
func TestBasicWithPrograms(t *testing.T) {
	for _, tc := range []struct{ settings, refusing, audited string }{
		{"[hook]\non_also_error = \"accept\"\n[policy]\n", "", ""},
		{"[hook]\non_also_error = \"refuse\"\n[policy]\n", "also", ""},
		{"[hook]\non_also_error = \"refuse\"\n[policy]\naudit = [\"also\"]\n", "", "also"},
		{"[hook]\non_also_error = \"refuse\"\n[policy]\nmode = \"audit\"\n", "", "also"},
		{"[hook]\non_also_error = \"refuse\"\n[policy]\nmode = \"off\"\n", "", ""},
	} {
		c := newSite(t, tc.settings+"also = [\"/none\"]\n").load()
		v := attempt.Run(func(course *attempt.Course) Verdict {
			return c.Basic(course, request("Abcdefgh1"), time.Now().Add(3*time.Minute))
		})
		if strings.Join(v.Rules(false), " ") != tc.refusing || strings.Join(v.Rules(true), " ") != tc.audited {
			t.Errorf("%q: %+v", tc.settings, v)
		}
	}
}

// Every type of target that the configuration knows has its rules here, and names of rules are the same everywhere.
func TestAllAreKnown(t *testing.T) {
	for _, kind := range []string{config.TypeGoogle, config.TypeEntra} {
		if accepts[kind] == nil || accepts[kind]([]byte("x")) == nil {
			t.Errorf("nobody knows what %s takes", kind)
		} else if n := Shortest[kind]; accepts[kind]([]byte(strings.Repeat("aB1-", 64)[:n])) != nil || accepts[kind]([]byte(strings.Repeat("aB1-", 64)[:n-1])) == nil {
			t.Errorf("%s: the shortest has not %d characters", kind, n)
		}
	}
	if !slices.Equal(config.Rules, policy.Rules()) {
		t.Errorf("%v, %v", config.Rules, policy.Rules())
	}
	if p := policy.Settings(config.Default().Policy); policy.Check(p, policy.Subject{Password: secret.New([]byte("Abcdefgh1"))}, policy.Tools{}) != nil {
		t.Error("the default policy takes no password")
	}
}
