// Package plain says which letters are left of a character without ornament. It is what the table in internal/policy/words is generated from, and
// tested against; nothing else uses it.
package plain

import (
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/samba-pwsync/samba-pwsync/internal/policy/letters"
)

// others are letters that people write without their ornament, though Unicode has no decomposition for them.
var others = map[rune]string{
	'ß': "ss", 'æ': "ae", 'œ': "oe", 'ø': "o", 'đ': "d", 'ð': "d", 'þ': "th", 'ł': "l", 'ħ': "h", 'ı': "i", 'ŋ': "n", 'ŧ': "t", 'ĸ': "k",
	'ƀ': "b", 'ɓ': "b", 'ƒ': "f", 'ɨ': "i", 'ɫ': "l", 'ȼ': "c", 'ⱥ': "a", 'ə': "e",
}

// Letters returns up to three letters in lower case for a character in lower case, or nil if it is none of those that are made plain. Those of East Asia are left as
// they are: what Unicode takes off there tells words apart.
func Letters(r rune) []rune {
	if letters.Fold(r) != r {
		return nil // it has been folded before
	}
	text, ok := others[r]
	if !ok {
		text = norm.NFKD.String(string(r))
	}
	var left []rune
	for _, l := range text {
		if unicode.Is(unicode.Mn, l) {
			continue
		}
		if l > 0xFFFF || unicode.In(l, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana) || !unicode.In(l, unicode.L, unicode.N) {
			return nil
		}
		left = append(left, letters.Fold(l))
	}
	if len(left) == 0 || len(left) > 3 || len(left) == 1 && left[0] == r {
		return nil
	}
	return left
}
