// Package accepts says which passwords Google takes, as far as can be told without asking it.
//
// It is a package of its own so that the hook, which asks it before a password is set in the directory at all, links
// nothing else of the target. internal/target/google is held to it by the suite of targettest.
//
// 8 to 100 characters, of any kind (Google's help page on limits; an older page allows only ASCII, so Google has the last
// word on the others).
package accepts

import (
	"bytes"
	"unicode/utf8"
)

// How many characters a password must and may have.
const (
	Shortest = 8
	Longest  = 100
)

// Password lists what Google would refuse about a password, in words for the person who chose it ("has fewer than 8
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
		reasons = append(reasons, "has more than 100 characters")
	}
	if bytes.IndexByte(text, 0) >= 0 { // where crypt would stop reading
		reasons = append(reasons, "has a NUL character")
	}
	return reasons
}
