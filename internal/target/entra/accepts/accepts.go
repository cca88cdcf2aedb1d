// Package accepts says which passwords Microsoft Entra ID takes, as far as can be told without asking it: banned passwords,
// and users whose policy is laxer, are known to Microsoft only.
//
// It is a package of its own so that the hook, which asks it before a password is set in the directory at all, links
// nothing else of the target. internal/target/entra is held to it by the suite of targettest.
package accepts

import "unicode/utf8"

// How many characters a password must and may have.
const (
	Shortest = 8
	Longest  = 256
)

// Password lists what Entra ID would refuse about a password, in words for the person who chose it ("has fewer than 8
// characters"), without a part of it; nil if nothing. It does not keep the bytes.
func Password(text []byte) []string {
	if !utf8.Valid(text) {
		return []string{"is not valid UTF-8"}
	}
	var reasons []string
	switch n := utf8.RuneCount(text); {
	case n < Shortest:
		reasons = append(reasons, "has fewer than 8 characters")
	case n > Longest:
		reasons = append(reasons, "has more than 256 characters")
	}
	var lower, upper, digit, symbol, other int
	for _, b := range text {
		switch {
		case 'a' <= b && b <= 'z':
			lower = 1
		case 'A' <= b && b <= 'Z':
			upper = 1
		case '0' <= b && b <= '9':
			digit = 1
		case ' ' <= b && b <= '~':
			symbol = 1
		default:
			other = 1
		}
	}
	if other == 1 {
		reasons = append(reasons, "has a character that is not printable ASCII")
	}
	if lower+upper+digit+symbol < 3 {
		reasons = append(reasons, "has fewer than 3 of 4 character classes (lower case, upper case, digits, symbols)")
	}
	return reasons
}
