package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

// tier says that passwords from a length on need so many of Samba's five categories of characters.
type tier struct {
	length     int // in UTF-16 code units
	categories int
}

// parseTiers reads "LENGTH:CATEGORIES" each, in the order of their lengths. The configuration lets only such through, so there is no word about what
// is wrong.
func parseTiers(texts []string) (tiers []tier, ok bool) {
	for i, text := range texts {
		length, categories, _ := strings.Cut(text, ":")
		l, errLength := strconv.Atoi(length)
		c, errCategories := strconv.Atoi(categories)
		if errLength != nil || errCategories != nil || i > 0 && l <= tiers[i-1].length {
			return nil, false
		}
		tiers = append(tiers, tier{l, c})
	}
	return tiers, len(tiers) > 0
}

// tooSimple applies the tiers. Where they cannot be read, it is Samba's own rule.
func (s Settings) tooSimple(password []byte, length int) []Reason {
	tiers, ok := parseTiers(s.Tiers)
	if !ok {
		tiers = []tier{{1, 3}}
	}
	need := tiers[0].categories
	for _, t := range tiers {
		if length >= t.length {
			need = t.categories
		}
	}
	if checkpassword.Categories(password) >= need {
		return nil
	}
	var wants strings.Builder
	for _, t := range tiers {
		if wants.Len() > 0 {
			wants.WriteString(", ")
		}
		fmt.Fprintf(&wants, "%d from %d characters on", t.categories, t.length)
	}
	return []Reason{mixes("too few (needed: " + wants.String() + ")")}
}

// mixes is the reason for a password with too few categories.
func mixes(howMany string) Reason {
	return Reason("it mixes " + howMany + " of: digits, upper case, lower case, other ASCII characters, letters without case")
}

func fewerThan(n int) string {
	return "fewer than " + [...]string{"zero", "one", "two", "three", "four", "five"}[n]
}
