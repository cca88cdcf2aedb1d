// Package policy says whether a password may be set in the domain: its length, and Samba's complexity rule.
//
// Why: with a `check password script` Samba leaves out its own complexity rule, so a hook that only watched would make the
// domain weaker. The length is checked as well, because a password that a target must refuse is better refused while the
// person who chose it is looking.
//
// Whom it trusts: nobody; the password is any bytes. What it does not solve: password history and minimum age, which Samba
// checks after the hook, and the targets' own rules (target.Target's Accepts).
package policy

import (
	"fmt"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

// Settings is the section [policy] of the configuration, field for field, so that one converts into the other.
type Settings struct {
	Mode       string // one of the modes; any other enforces
	MinLength  int    // in UTF-16 code units
	MaxLength  int    // likewise
	Complexity bool   // ask for Samba's three of five categories
}

// The modes.
const (
	Enforce = "enforce" // refuse what the rules refuse
	Audit   = "audit"   // accept it, and tell what would have been refused
	Off     = "off"     // ask no rules
)

// Enforces reports whether reasons refuse a password.
func (s Settings) Enforces() bool { return s.Mode != Audit && s.Mode != Off }

// Reason is why a password is refused, in words for the person who chose it: "it has fewer than 8 characters". It holds
// neither the password nor its length.
type Reason string

// Check lists what is wrong with a password; nil if nothing is, or if the mode is Off. Whether the reasons refuse it, Enforces
// says.
func Check(s Settings, password secret.Secret) []Reason {
	if s.Mode == Off {
		return nil
	}
	var reasons []Reason
	length := checkpassword.UTF16Len(password.Bytes())
	if length < s.MinLength {
		reasons = append(reasons, Reason(fmt.Sprintf("it has fewer than %d characters", s.MinLength)))
	}
	if length > s.MaxLength {
		reasons = append(reasons, Reason(fmt.Sprintf("it has more than %d characters", s.MaxLength)))
	}
	if s.Complexity && !checkpassword.Complex(password.Bytes()) {
		reasons = append(reasons, "it mixes fewer than three of: digits, upper case, lower case, other ASCII characters, letters without case")
	}
	return reasons
}
