package policy

import (
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/internal/policy/letters"
)

// shortestName is how many characters a name must have to be looked for.
const shortestName = 3

// names applies Active Directory's rule, as Microsoft documents it for "Password must meet complexity requirements" and [MS-SAMR] 3.1.1.7.2:
// the password must not hold the whole account name, nor a word of the full name, in whatever case; names of fewer than three characters are not
// looked for. Beyond that rule it looks for the user principal name's part before the @, which is what people know as their name where
// they log on with it.
//
// Case is that of Unicode, one character at a time: ß is not ss. A name with an accent is not found without it.
func names(subject Subject) []Reason {
	password := fold(subject.Password.Bytes())
	defer clear(password)
	var reasons []Reason
	if holds(password, subject.Account) {
		reasons = append(reasons, "it contains the account's name")
	}
	if local, _, _ := strings.Cut(subject.UserPrincipalName, "@"); !strings.EqualFold(local, subject.Account) && holds(password, local) {
		reasons = append(reasons, "it contains the user principal name's part before the @")
	}
	for word := range nameWords(subject.FullName) {
		if holds(password, word) {
			return append(reasons, "it contains a part of the full name")
		}
	}
	return reasons
}

// nameWords splits a full name where Active Directory does.
func nameWords(fullName string) iter.Seq[string] {
	return strings.FieldsFuncSeq(fullName, func(r rune) bool { return strings.ContainsRune(",.-_ #\t", r) })
}

// holds reports whether the password, folded, contains the name.
func holds(password []rune, name string) bool {
	if utf8.RuneCountInString(name) < shortestName {
		return false
	}
	wanted := fold([]byte(name))
	for ; len(password) >= len(wanted); password = password[1:] {
		if slices.Equal(password[:len(wanted)], wanted) {
			return true
		}
	}
	return false
}

// fold gives each character the form that all its cases share.
func fold(text []byte) []rune {
	folded := make([]rune, 0, len(text)) // enough, so no copy is left behind by growing
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		folded, text = append(folded, letters.Fold(r)), text[size:]
	}
	return folded
}
