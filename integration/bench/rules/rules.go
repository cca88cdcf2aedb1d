// Package rules is a policy with all rules on, of the size that a large organisation has, for the benchmarks: its section of the configuration, the
// files that it names, passwords that it accepts and, for each rule, one that it refuses. A benchmark asks those first, so that a rule that is
// not asked cannot look cheap.
package rules

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"fmt"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/breached/importer"
)

// Staff is the policy that accounts have by their filter.
const Staff = "staff"

// Policy returns the section of the configuration, and one of a policy that asks some accounts for longer passwords.
func Policy(words, breached string) string {
	return fmt.Sprintf(`
[policy]
tiers = ["8:3"]
names = true
walks = true
banned = [%q]
breached = %q
preflight = true

[policy.%s]
filter = "(objectClass=user)"
precedence = 10
min_length = 12
`, words, breached, Staff)
}

// NewPassword draws a password that all rules accept; every check password script should.
func NewPassword() string { return "Zq4-" + random(10) }

// Short returns one that [policy] accepts, and Staff does not.
func Short() string { return "Zq4-" + random(6) }

func random(n int) string { return strings.ToLower(rand.Text()[:n]) }

// leaked is the one breached password that is known.
const leaked = "Zq4-w7hkx2nvyb"

// Bad returns, by rule, passwords that this rule refuses and no other.
func Bad(account string) map[string]string {
	return map[string]string{
		"length":     Short(),
		"complexity": random(14),
		"name":       "Zq4-" + account + "-" + random(14-5-len(account)),
		"walk":       "Qwertzuiop-1234",
		"banned":     word(longWord) + "A-1",
		"breached":   leaked,
		"target":     "Zq4-" + random(9) + "ü", // Microsoft takes ASCII
	}
}

// longWord is the number of a word of nine letters.
const longWord = 4001

// Words returns a file of n words that can be spoken, all different.
func Words(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(word(i) + "\n")
	}
	return b.String()
}

// word is the number i written with syllables, and an ending that makes it five to nine letters long.
func word(i int) string {
	const consonants, vowels, endings = "bdfgklmnprstvz", "aeiou", "nrst"
	w := ""
	for n, rest := 0, i; n < 2+i%3 || rest > 0; n++ {
		w += string(consonants[rest%len(consonants)])
		rest /= len(consonants)
		w += string(vowels[rest%len(vowels)])
		rest /= len(vowels)
	}
	return w + string(endings[i%len(endings)])
}

// Breached makes a file of n breached passwords, of which all but one are numbers that look as hashes do.
func Breached(ctx context.Context, path string, n int) error {
	h := breached.Header{Kind: breached.SHA1, Bits: 16, MinCount: 1, Created: time.Now()}
	if _, err := importer.Write(ctx, path, h, list(n)); err != nil {
		return fmt.Errorf("writing breached passwords: %w", err)
	}
	return nil
}

// list has so many hashes.
type list int

// Shard makes the keys of a shard up: the outputs of SplitMix64, which are all different.
func (l list) Shard(shard int, keys []uint64) ([]uint64, error) {
	hash := sha1.Sum([]byte(leaked))
	if of, key := breached.Shard(hash[:]); of == shard {
		keys = append(keys, key)
	}
	for i := shard; i < int(l)-1; i += breached.Shards {
		z := uint64(i+1) * 0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		keys = append(keys, z^z>>31)
	}
	return keys, nil
}
