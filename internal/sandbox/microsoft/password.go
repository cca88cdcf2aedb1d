package microsoft

import (
	"slices"
	"strings"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
)

// banned stands in for Microsoft's global list. Terms are in normal form.
var banned = []string{
	"password", "passwort", "welcome", "willkommen", "qwerty", "qwertz", "asdfgh", "abcdef", "letmein",
	"iloveyou", "admin", "administrator", "secret", "login", "contoso", "blank", "monkey", "dragon",
	"football", "baseball", "sunshine", "princess", "summer", "winter", "spring", "autumn",
}

const (
	minLength = 8
	maxLength = 256
	minPoints = 5
	minName   = 4 // shorter names are not looked for
)

// tooWeak says why Entra ID refuses a password, or nothing. names are those of
// the user and the tenant.
func tooWeak(password string, user state.User, names []string) string {
	var lower, upper, digit, symbol int
	for _, r := range password {
		switch {
		case r >= 'a' && r <= 'z':
			lower = 1
		case r >= 'A' && r <= 'Z':
			upper = 1
		case r >= '0' && r <= '9':
			digit = 1
		case r >= ' ' && r <= '~':
			symbol = 1
		default:
			return "it has a character that is not allowed"
		}
	}
	switch {
	case len(password) < minLength || len(password) > maxLength:
		return "its length is not from 8 to 256"
	case lower+upper+digit+symbol < 3 && !slices.Contains(policies(user), "DisableStrongPassword"):
		return "it has fewer than three kinds of characters"
	}

	normal := normalize(password)
	for _, term := range banned {
		if near(normal, term) {
			return "it is nearly a banned password"
		}
	}
	for _, name := range names {
		if len(name) >= minName && strings.Contains(normal, normalize(name)) {
			return "it contains a name"
		}
	}
	if points(normal) < minPoints {
		return "it is little more than banned terms"
	}
	return ""
}

func policies(user state.User) []string {
	list := strings.Split(user.PasswordPolicies, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// normalize undoes the usual substitutions.
func normalize(password string) string {
	return strings.NewReplacer("0", "o", "1", "l", "$", "s", "@", "a").Replace(strings.ToLower(password))
}

// points counts one for each banned term and one for each other character, in
// the way that gives the fewest.
func points(normal string) int {
	best := make([]int, len(normal)+1) // of the first i characters
	for i := 1; i <= len(normal); i++ {
		best[i] = best[i-1] + 1
		for _, term := range banned {
			if strings.HasSuffix(normal[:i], term) {
				best[i] = min(best[i], best[i-len(term)]+1)
			}
		}
	}
	return best[len(normal)]
}

// near says whether a and b are at most one edit apart.
func near(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	if len(a) == len(b) {
		return i == len(a) || a[i+1:] == b[i+1:]
	}
	return a[i:] == b[i+1:]
}
