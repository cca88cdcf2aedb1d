package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
)

const (
	short  = Reason("it has fewer than 8 characters")
	long   = Reason("it has more than 16 characters")
	simple = Reason("it mixes fewer than three of: digits, upper case, lower case, other ASCII characters, letters without case")
)

func check(s Settings, password string) []Finding {
	return Check(s, Subject{Password: secret.New([]byte(password))}, Tools{})
}

func TestCheck(t *testing.T) {
	enforce := Settings{Mode: Enforce, MinLength: 8, MaxLength: 16, Complexity: true}
	with := func(change func(*Settings)) Settings {
		s := enforce
		change(&s)
		return s
	}
	audit := with(func(s *Settings) { s.Mode = Audit })
	off := with(func(s *Settings) { s.Mode = Off })
	unknown := with(func(s *Settings) { s.Mode = "auditt" })
	anyMix := with(func(s *Settings) { s.Complexity = false })

	for _, tc := range []struct {
		name     string
		settings Settings
		password string
		want     []Reason
	}{
		{"good", enforce, "Passw0rd", nil},
		{"shortest", enforce, "Abcdef1!", nil},
		{"one too short", enforce, "Abcde1!", []Reason{short}},
		{"longest", enforce, "Abcdefghijklmn1!", nil},
		{"one too long", enforce, "Abcdefghijklmno1!", []Reason{long}},
		{"umlauts count once", enforce, "Ääöüß123", nil},
		{"beyond the BMP counts twice: long enough", enforce, "Ab1😀😀😀", []Reason(nil)},
		{"beyond the BMP counts twice: too long", enforce, "Ab1😀😀😀😀😀😀😀", []Reason{long}},
		{"too simple", enforce, "abcdefgh1", []Reason{simple}},
		{"too simple, and allowed", anyMix, "abcdefgh1", nil},
		{"letters without case are a category", enforce, "abcdef1漢", nil},
		{"everything wrong at once", enforce, "abc", []Reason{short, simple}},
		{"nothing", enforce, "", []Reason{short, simple}},
		{"no UTF-8", enforce, "Abcdef1\xff", []Reason{simple}},
		{"audit tells", audit, "abc", []Reason{short, simple}},
		{"off is silent", off, "abc", nil},
		{"an unknown mode tells", unknown, "abc", []Reason{short, simple}},
	} {
		var got []Reason
		for _, f := range check(tc.settings, tc.password) {
			got = append(got, f.Reason)
			if f.Audited != (tc.settings.Mode == Audit) {
				t.Errorf("%s: %q is audited: %v", tc.name, f.Reason, f.Audited)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestOnlyKnownModesLetThrough(t *testing.T) {
	for mode, want := range map[string]bool{Enforce: true, Audit: false, Off: false, "": true, "OFF": true, "audit ": true} {
		if got := (Settings{Mode: mode}).Enforces(); got != want {
			t.Errorf("mode %q enforces: %v", mode, got)
		}
	}
}

// A reason may depend on the settings and on nothing else: whatever else it said would be about the password.
func FuzzCheck(f *testing.F) {
	f.Add([]byte("Passw0rd"), 8, 16)
	f.Add([]byte("\xff\x00"), 0, 0)
	f.Fuzz(func(t *testing.T, password []byte, lo, hi int) {
		possible := []Reason{
			Reason(fmt.Sprintf("it has fewer than %d characters", lo)),
			Reason(fmt.Sprintf("it has more than %d characters", hi)),
			simple,
		}
		for _, f := range check(Settings{MinLength: lo, MaxLength: hi, Complexity: true}, string(password)) {
			if !slices.Contains(possible, f.Reason) {
				t.Errorf("unexpected reason %q", f.Reason)
			}
		}
	})
}

// The rules that need tools, in the order in which they are asked.
func TestTools(t *testing.T) {
	asked := false
	tools := Tools{
		Breached: func(password []byte) bool { return string(password) == "Passw0rd" },
		Targets: []Target{
			{"google", func(secret.Secret) []Reason { return nil }},
			{"entra", func(p secret.Secret) []Reason { return []Reason{"it has a character that is not ASCII"} }},
		},
		Also: []Program{{"/usr/local/sbin/other", func() bool { asked = true; return false }}},
	}
	all := Settings{Mode: Enforce, MaxLength: 16, Breached: "/file", Preflight: true, Also: []string{"/usr/local/sbin/other"}}
	with := func(change func(*Settings)) Settings {
		s := all
		change(&s)
		return s
	}
	const (
		breached = Reason("it is in a list of passwords that were stolen elsewhere")
		entra    = Reason("entra would not take it: it has a character that is not ASCII")
		other    = Reason("/usr/local/sbin/other refuses it")
	)
	for _, tc := range []struct {
		name     string
		settings Settings
		want     []Finding
		asks     bool // the program is asked
		refused  bool
	}{
		{"refused, so the program is not asked", all, []Finding{{RuleBreached, breached, false}, {RuleTarget, entra, false}}, false, true},
		{"nothing asked", with(func(s *Settings) { s.Breached, s.Preflight = "", false }), []Finding{{RuleAlso, other, false}}, true, true},
		{"a rule that is audited refuses nothing", with(func(s *Settings) { s.Audit = []string{RuleTarget, RuleBreached} }),
			[]Finding{{RuleBreached, breached, true}, {RuleTarget, entra, true}, {RuleAlso, other, false}}, true, true},
		{"all are audited", with(func(s *Settings) { s.Audit = Rules() }),
			[]Finding{{RuleBreached, breached, true}, {RuleTarget, entra, true}, {RuleAlso, other, true}}, true, false},
		{"audit as a mode", with(func(s *Settings) { s.Mode = Audit }),
			[]Finding{{RuleBreached, breached, true}, {RuleTarget, entra, true}, {RuleAlso, other, true}}, true, false},
		{"off", with(func(s *Settings) { s.Mode = Off }), nil, false, false},
	} {
		asked = false
		got := Check(tc.settings, Subject{Password: secret.New([]byte("Passw0rd"))}, tools)
		if !slices.Equal(got, tc.want) || asked != tc.asks || Refused(got) != tc.refused {
			t.Errorf("%s: %v (refused %v, program asked %v), want %v", tc.name, got, Refused(got), asked, tc.want)
		}
	}
	// A rule that panics finds nothing, and the others hold.
	failed := []string{}
	broken := tools
	broken.Failed = func(rule string) { failed = append(failed, rule) }
	broken.Targets = []Target{{"broken", func(secret.Secret) []Reason { panic("Canary") }}, tools.Targets[1]}
	got := Check(all, Subject{Password: secret.New([]byte("Passw0rd"))}, broken)
	if want := []Finding{{RuleBreached, breached, false}, {RuleTarget, entra, false}}; !slices.Equal(got, want) || !slices.Equal(failed, []string{RuleTarget}) {
		t.Errorf("a panic: %v, told of %v", got, failed)
	}
	missing := Check(with(func(s *Settings) { s.Banned = []string{"/words"} }), Subject{Password: secret.New([]byte("Passw0rd"))}, Tools{})
	if missing != nil {
		t.Errorf("without tools: %v", missing)
	}
}

func TestTiers(t *testing.T) {
	s := Settings{Mode: Enforce, MinLength: 4, MaxLength: 64, Complexity: true, Tiers: []string{"8:4", "12:2", "20:1"}}
	const simple = "it mixes too few (needed: 4 from 8 characters on, 2 from 12 characters on, 1 from 20 characters on) of: " +
		"digits, upper case, lower case, other ASCII characters, letters without case"
	for password, want := range map[string][]Finding{
		"aB1!":                 {{RuleLength, "it has fewer than 8 characters", false}},
		"abc":                  {{RuleLength, "it has fewer than 8 characters", false}, {RuleComplexity, simple, false}},
		"Passw0rd":             {{RuleComplexity, simple, false}},
		"Passw0r!":             nil,
		"passwordpas":          {{RuleComplexity, simple, false}},
		"Passwordpass":         nil,
		"passwordpass":         {{RuleComplexity, simple, false}},
		"correcthorsebattery":  {{RuleComplexity, simple, false}},
		"correcthorsebatterys": nil,
		"                    ": {{RuleComplexity, simple, false}}, // a space is in no category
	} {
		if got := check(s, password); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", password, got, want)
		}
	}
	s.MinLength, s.Tiers = 10, []string{"8:1"}
	if got := check(s, "abcdefgh"); !slices.Equal(got, []Finding{{RuleLength, "it has fewer than 10 characters", false}}) {
		t.Errorf("min_length above the first tier: %v", got)
	}
	s.MinLength, s.Tiers = 1, []string{"nonsense"}
	if got := check(s, "abc"); len(got) != 1 || got[0].Rule != RuleComplexity {
		t.Errorf("tiers that cannot be read: %v", got)
	}
}

func TestParseTiers(t *testing.T) {
	for _, good := range []string{"8:3", "1:5,256:0", "8:4,12:3,16:2,20:1"} {
		if tiers, ok := parseTiers(strings.Split(good, ",")); !ok || len(tiers) != strings.Count(good, ":") {
			t.Errorf("%s: %v, %v", good, tiers, ok)
		}
	}
	for _, bad := range []string{"", "8", "8:", ":3", "8:3:1", "a:3", "12:4,8:3", "8:4,8:3"} {
		if tiers, ok := parseTiers(strings.Split(bad, ",")); ok {
			t.Errorf("%s: %v", bad, tiers)
		}
	}
}
