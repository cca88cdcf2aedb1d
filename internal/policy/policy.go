// Package policy says whether a password may be set in the domain: the rules, over one password and what is known of its account.
//
// Why: with a `check password script` Samba leaves out its own complexity rule, so a hook that only watched would make the
// domain weaker. The other rules are those that administrators know from Windows and from what is sold for it. A password that a target must
// refuse is better refused while the person who chose it is looking.
//
// How: each rule is a function of the password, the settings, and at most one of the Tools, which the caller opened: this package has no files,
// no processes and no log of its own. Each finding names its rule and a reason in words, and whether the rule is only audited.
//
// Whom it trusts: nobody; the password is any bytes, and the names are claims (samba/checkpassword). A wrong name has a password judged by another's
// name, which changes nothing for that one.
//
// What it does not solve: password history and minimum age, which Samba checks after the hook; and strength in general. The rules know what people
// do most often, no more.
package policy

import (
	"fmt"
	"slices"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

// Settings is a section [policy] or [policy.NAME] of the configuration, field for field, so that one converts into the other.
type Settings struct {
	Mode        string   // one of the modes; any other enforces
	MinLength   int      // in UTF-16 code units
	MaxLength   int      // likewise
	Complexity  bool     // ask for Samba's three of five categories
	Tiers       []string // "LENGTH:CATEGORIES", in place of Complexity
	Names       bool     // refuse the account's names
	Walks       bool     // refuse neighbouring keys, sequences and repeats
	Banned      []string // files of words; their compiled form is Tools.Banned
	BannedScore int      // points that are enough
	Breached    string   // file; opened, it is Tools.Breached
	Preflight   bool     // ask Tools.Targets
	Also        []string // programs; they are Tools.Also
	Audit       []string // rules that are only audited
}

// The modes.
const (
	Enforce = "enforce" // refuse what the rules refuse
	Audit   = "audit"   // accept it, and tell what would have been refused
	Off     = "off"     // ask no rules
)

// The rules, by the names that the key audit and the log use.
const (
	RuleLength     = "length"     // min_length, max_length, and the shortest of the tiers
	RuleComplexity = "complexity" // complexity, tiers
	RuleName       = "name"
	RuleWalk       = "walk"
	RuleBanned     = "banned"
	RuleBreached   = "breached"
	RuleTarget     = "target" // preflight
	RuleAlso       = "also"
)

// Rules lists the names of all rules, in the order in which they are asked.
func Rules() []string {
	return []string{RuleLength, RuleComplexity, RuleName, RuleWalk, RuleBanned, RuleBreached, RuleTarget, RuleAlso}
}

// Enforces reports whether findings can refuse a password at all.
func (s Settings) Enforces() bool { return s.Mode != Audit && s.Mode != Off }

// Subject is a password, and whom it is for. A name is empty where Samba gave none.
type Subject struct {
	Password          secret.Secret
	Account           string // sAMAccountName
	UserPrincipalName string
	FullName          string // displayName
}

// Tools are what the rules need beside the settings. A rule whose tool is missing finds nothing: that it could not be had is for
// whoever opened it to say. So is what a tool that fails answers; it keeps nothing of the password.
type Tools struct {
	Banned   Banned                     // banned
	Breached func(password []byte) bool // breached: whether the password is known
	Targets  []Target                   // preflight: those that want the account
	Also     []Program                  // also

	// Failed is told of a rule that panics, which then finds nothing. Without it, a panic is the caller's.
	Failed func(rule string)
}

// Banned is a list of words, compiled: internal/policy/words.
type Banned interface {
	// Score counts the points of a password: one for each word of the list in it, however long, and one for each character
	// that is in none. Several ways to count are possible; it is the least.
	Score(password []byte) int

	// Contains reports whether the password holds the name, both written as words are when they are compared.
	Contains(password []byte, name string) bool
}

// Target is a place that the password will be sent to.
type Target struct {
	Name    string
	Accepts func(secret.Secret) []Reason // what it would refuse about the password
}

// Program is another check password script. It is asked only if no rule before it refuses.
type Program struct {
	Name    string
	Accepts func() bool
}

// Reason is why a password is refused, in words for the person who chose it: "it has fewer than 8 characters". It depends on the settings, and
// on nothing of the password but whether it keeps the rule.
type Reason string

// Finding is a rule that the password does not keep.
type Finding struct {
	Rule    string
	Reason  Reason
	Audited bool // it does not refuse the password
}

// Refused reports whether the findings refuse the password.
func Refused(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return !f.Audited })
}

// Check lists what is wrong with a password, in the order of Rules; nil if nothing is, or if the mode is Off.
func Check(s Settings, subject Subject, tools Tools) []Finding {
	if s.Mode == Off {
		return nil
	}
	var findings []Finding
	found := func(rule string, reasons ...Reason) {
		for _, r := range reasons {
			findings = append(findings, Finding{rule, r, !s.Enforces() || slices.Contains(s.Audit, rule)})
		}
	}
	ask := func(rule string, rules func()) {
		defer func() {
			if tools.Failed != nil && recover() != nil {
				tools.Failed(rule)
			}
		}()
		rules()
	}
	password := subject.Password.Bytes()
	s.lengthAndComplexity(password, found)
	if s.Names {
		ask(RuleName, func() { found(RuleName, names(subject)...) })
	}
	if s.Walks {
		ask(RuleWalk, func() { found(RuleWalk, walks(password, s.shortest())...) })
	}
	if tools.Banned != nil && len(s.Banned) > 0 {
		ask(RuleBanned, func() { found(RuleBanned, banned(s.BannedScore, subject, tools.Banned)...) })
	}
	if tools.Breached != nil && s.Breached != "" && tools.Breached(password) {
		found(RuleBreached, "it is in a list of passwords that were stolen elsewhere")
	}
	if s.Preflight {
		for _, t := range tools.Targets {
			ask(RuleTarget, func() {
				for _, r := range t.Accepts(subject.Password) {
					found(RuleTarget, Reason(fmt.Sprintf("%s would not take it: %s", t.Name, r)))
				}
			})
		}
	}
	for _, p := range tools.Also {
		if !Refused(findings) && !p.Accepts() {
			found(RuleAlso, Reason(fmt.Sprintf("%s refuses it", p.Name)))
		}
	}
	return findings
}

// shortest is the length that every password must have.
func (s Settings) shortest() int {
	if tiers, ok := parseTiers(s.Tiers); ok {
		return max(s.MinLength, tiers[0].length)
	}
	return s.MinLength
}

func (s Settings) lengthAndComplexity(password []byte, found func(string, ...Reason)) {
	length, shortest := checkpassword.UTF16Len(password), s.shortest()
	if length < shortest {
		found(RuleLength, Reason(fmt.Sprintf("it has fewer than %d characters", shortest)))
	}
	if length > s.MaxLength {
		found(RuleLength, Reason(fmt.Sprintf("it has more than %d characters", s.MaxLength)))
	}
	if len(s.Tiers) > 0 {
		found(RuleComplexity, s.tooSimple(password, length)...)
	} else if s.Complexity && !checkpassword.Complex(password) {
		found(RuleComplexity, mixes(fewerThan(3)))
	}
}
