package words

import (
	"sort"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/internal/policy/letters"
)

//go:generate go run ./generate

// text is a password or a word in the form in which they are compared: one number (a UTF-16 code unit) for all that is taken for the same letter.
type text struct {
	letters []uint16
	weights []uint16 // how many points a letter is worth: 1, or 0 if it only repeats the one before it, or belongs to it
}

// room returns an empty text that n bytes of UTF-8 fit into, so that no copy is left behind by growing.
func room(n int) text { return text{make([]uint16, 0, 3*n), make([]uint16, 0, 3*n)} }

// fold writes UTF-8 in that form: in lower case, without accents and what cannot be seen, with look-alikes as the letter that they stand for.
func fold(s []byte) text {
	t := room(len(s))
	before := rune(-1)
	for len(s) > 0 {
		r, size := utf8.DecodeRune(s)
		s = s[size:]
		r = letters.Fold(r)
		if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
			continue // an accent of the letter before it, a ring around it, or nothing that can be seen (a soft hyphen)
		}
		at := len(t.letters)
		t.letters = appendPlain(t.letters, r)
		for i := range len(t.letters) - at {
			weight := uint16(0)
			if i == 0 && r != before {
				weight = 1
			}
			t.weights = append(t.weights, weight)
		}
		before = r
	}
	return t
}

// appendPlain appends the letters that r, in lower case, is taken for.
func appendPlain(to []uint16, r rune) []uint16 {
	switch r {
	case '€':
		return append(to, 'e')
	case '§':
		return append(to, 's')
	}
	switch {
	case r < utf8.RuneSelf:
		return append(to, lookAlike(uint16(r)))
	case r > 0xFFFF:
		high, low := utf16.EncodeRune(r)
		return append(to, uint16(high), uint16(low))
	}
	at := sort.Search(len(plainTable), func(i int) bool { return plainTable[i].from >= uint16(r) })
	if at == len(plainTable) || plainTable[at].from != uint16(r) {
		return append(to, uint16(r))
	}
	for _, l := range plainTable[at].to {
		if l != 0 {
			to = append(to, lookAlike(l))
		}
	}
	return to
}

// lookAlike returns the letter that a character of ASCII, in lower case, stands for. Microsoft names 0, 1, $ and @; the others are as common. As 1 and !
// stand for i and for l, these two are one letter.
func lookAlike(c uint16) uint16 {
	switch c {
	case '0':
		return 'o'
	case '1', '!', '|', 'i':
		return 'l'
	case '3':
		return 'e'
	case '4', '@':
		return 'a'
	case '5', '$':
		return 's'
	case '7', '+':
		return 't'
	case '8':
		return 'b'
	case '9':
		return 'g'
	}
	return c
}

// once returns t with each letter that is repeated written once, and which of them were repeated. The weights are added up.
func (t text) once() (single text, repeated []bool) {
	single, repeated = room(len(t.letters)), make([]bool, 0, len(t.letters))
	for i, l := range t.letters {
		if last := len(single.letters) - 1; last >= 0 && single.letters[last] == l {
			single.weights[last] += t.weights[i]
			repeated[last] = true
			continue
		}
		single.letters, single.weights, repeated = append(single.letters, l), append(single.weights, t.weights[i]), append(repeated, false)
	}
	return single, repeated
}

func (t text) clear() {
	clear(t.letters[:cap(t.letters)])
	clear(t.weights[:cap(t.weights)])
}
