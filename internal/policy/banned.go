package policy

import (
	"strings"
	"unicode/utf8"
)

// shortestBannedName is how many characters a name must have to be banned; Microsoft's number.
const shortestBannedName = 4

// banned judges as Microsoft documents it for Entra ID: a password needs enough points (see Banned), and must not hold the names of its
// account, compared as words are, so that p0ll is Poll. Names shorter than four characters are not looked for: with what is taken for the same
// letter, they would be found by chance. Which of the words were found is not said.
func banned(enough int, subject Subject, list Banned) []Reason {
	password := subject.Password.Bytes()
	var reasons []Reason
	if list.Score(password) < enough {
		reasons = append(reasons, "it is little more than words that are banned")
	}
	local, _, _ := strings.Cut(subject.UserPrincipalName, "@")
	found := bannedName(list, password, subject.Account) || bannedName(list, password, local)
	for word := range nameWords(subject.FullName) {
		found = found || bannedName(list, password, word)
	}
	if found {
		reasons = append(reasons, "it contains a name of the account, if perhaps written differently")
	}
	return reasons
}

func bannedName(list Banned, password []byte, name string) bool {
	return utf8.RuneCountInString(name) >= shortestBannedName && list.Contains(password, name)
}
