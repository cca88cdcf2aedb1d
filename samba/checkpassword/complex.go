package checkpassword

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// special holds the ASCII characters that Samba counts as "not alphanumeric".
// Space and the control characters are in no category.
const special = "~!@#$%^&*_-+=`|\\(){}[]:;\"'<>,.?/"

// Complex reports whether Samba would find the password complex enough, had no
// script been configured: it has characters of at least three of the five
// Categories. It says nothing about the length, and unlike Windows Samba does
// not look for the account's name in the password.
//
// The answers are those of check_password_quality in Samba's
// lib/util/genrand_util.c, for which letters have case too; the test in
// integration/parity compares them. That holds where Samba runs with
// `unix charset = UTF-8`, its default. As there, the password ends at a NUL,
// and one that is not UTF-8 is not complex. (Versions before 4.22 also take
// what is written as if it were UTF-8: surrogates, what lies beyond U+10FFFF,
// and 4.13 overlong forms. Read refuses those.)
func Complex(password []byte) bool { return Categories(password) >= 3 }

// Categories counts of how many of Samba's five categories the password has
// characters: digit, upper case, lower case, special, and other (a character
// beyond ASCII that has no case). One that is not UTF-8 up to its end, or its
// first NUL, has none.
func Categories(password []byte) int {
	if end := bytes.IndexByte(password, 0); end >= 0 {
		password = password[:end]
	}
	var digits, uppers, lowers, specials, others int // 0 or 1
	for len(password) > 0 {
		r, size := utf8.DecodeRune(password)
		if r == utf8.RuneError && size == 1 {
			return 0
		}
		switch {
		case '0' <= r && r <= '9':
			digits = 1
		case 'A' <= r && r <= 'Z':
			uppers = 1
		case 'a' <= r && r <= 'z':
			lowers = 1
		case r < utf8.RuneSelf:
			if strings.IndexByte(special, byte(r)) >= 0 {
				specials = 1
			}
		case unicode.Is(upper, r):
			uppers = 1
		case unicode.Is(lower, r):
			lowers = 1
		default:
			others = 1
		}
		password = password[size:]
	}
	return digits + uppers + lowers + specials + others
}

// UTF16Len returns the password's length as Samba and Windows count it, in
// UTF-16 code units: a character beyond U+FFFF counts as two. Each byte that is
// not part of valid UTF-8 counts as one.
func UTF16Len(password []byte) int {
	units := 0
	for len(password) > 0 {
		r, size := utf8.DecodeRune(password)
		units++
		if r > 0xFFFF {
			units++
		}
		password = password[size:]
	}
	return units
}

// UTF16LE returns the password in UTF-16, little-endian and without a byte
// order mark: what the NT hash is computed from. Each byte that is not part of
// valid UTF-8 becomes U+FFFD. The caller clears the result.
func UTF16LE(password []byte) []byte {
	out := make([]byte, 0, 2*UTF16Len(password)) // exact, so no copy is left behind by growing
	for len(password) > 0 {
		r, size := utf8.DecodeRune(password)
		if r > 0xFFFF {
			high, low := utf16.EncodeRune(r)
			out = append(out, byte(high), byte(high>>8), byte(low), byte(low>>8))
		} else {
			out = append(out, byte(r), byte(r>>8))
		}
		password = password[size:]
	}
	return out
}
