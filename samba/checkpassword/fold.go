package checkpassword

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// FoldName returns an account name as the directory compares it: in upper case
// by Samba's tables, without spaces at its ends, and with one in place of
// several. Two names are the same account's if, and only if, they fold to the
// same bytes.
//
// So does ldb_handler_fold in Samba's lib/ldb, with the tables of
// lib/util/charset/codepoints.c; a sAMAccountName is looked up by what comes
// out. Samba's upper case is Go's, of those characters that Samba takes for
// lower case (see lower): a ß, for instance, stays. What is not UTF-8 stays as
// it is.
func FoldName(name string) string {
	var folded strings.Builder
	folded.Grow(len(name))
	space := true // that is in front is left out
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		if r != ' ' || !space {
			if r == utf8.RuneError && size == 1 {
				folded.WriteByte(name[i])
			} else {
				folded.WriteRune(upperCase(r))
			}
		}
		space = r == ' '
		i += size
	}
	return strings.TrimSuffix(folded.String(), " ")
}

func upperCase(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z':
		return r - 'a' + 'A'
	case r >= utf8.RuneSelf && unicode.Is(lower, r):
		return unicode.ToUpper(r)
	}
	return r
}
