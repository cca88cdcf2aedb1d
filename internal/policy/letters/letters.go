// Package letters says which characters differ in nothing but their case. The rules and the banned words compare by it.
package letters

import (
	"unicode"
	"unicode/utf8"
)

// Fold gives a character the form that all its cases share: K, k and the Kelvin sign become k. It is in lower case where there is one. What becomes
// two characters in another case (ß) stays as it is.
func Fold(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	return unicode.ToLower(least)
}
