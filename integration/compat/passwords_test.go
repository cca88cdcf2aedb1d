package compat

import (
	"crypto/rand"
	"math/big"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

// kinds are the passwords that something on the way might change. Entra takes ASCII only.
var kinds = []struct {
	name  string
	ascii bool
	draw  func(*lab.Lab) string
}{
	{"8 characters", true, around("", "", "", 8)},
	{"16 characters", true, around("", "", "", 16)},
	{"umlauts", false, around("ä", "öß", "Ü", 12)},
	{"Greek", false, around("Ω", "μέγ", "ς", 12)},
	{"Chinese", false, around("密", "码安", "全", 12)},
	{"emoji", false, around("🔑", "🙂", "🐧", 14)}, // two UTF-16 code units each
	{"quotes", true, around(`"`, `'"'`, "'", 12)},
	{"backslashes", true, around(`\`, `\\n\"`, `\`, 12)},
	{"blanks", true, around(" ", "  ", " ", 12)},
	{"leading dash", true, around("--p", "", "-", 12)},
	{`\0`, true, around("", `\0\x00`, `\0`, 14)},
	{"%00", true, around("", "%00%s", "%00", 14)},
}

// around returns a drawer of passwords that begin, go on and end with those texts, and have so many UTF-16 code units; the rest is
// random letters and digits, some of each kind.
func around(first, middle, last string, length int) func(*lab.Lab) string {
	return func(l *lab.Lab) string {
		classes := []string{"abcdefghkmnpqrstuvwxyz", "ABCDEFGHKLMNPQRSTUVWXYZ", "23456789"}
		fill := length - checkpassword.UTF16Len([]byte(first+middle+last))
		random := make([]byte, fill)
		for i := range random {
			class := classes[i%len(classes)]
			n, _ := rand.Int(rand.Reader, big.NewInt(int64(len(class)))) // never fails: crypto/rand ends the program instead
			random[i] = class[n.Int64()]
		}
		half := fill / 2
		return l.Remember(first + string(random[:half]) + middle + string(random[half:]) + last)
	}
}
