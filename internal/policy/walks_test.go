package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const (
	walked  = Reason("it is little more than neighbouring keys, sequences and repeats")
	repeats = Reason("it repeats itself, and is too short without that")
)

func TestWalks(t *testing.T) {
	for _, tc := range []struct {
		password string
		shortest int
		want     []Reason
	}{
		// Rows, in several layouts.
		{"qwertyui", 8, []Reason{walked}},
		{"Qwertz12", 8, []Reason{walked}},
		{"Qwertz123!", 8, []Reason{walked}},
		{"Qwertz!1", 8, []Reason{walked}},
		{"azertyuiop", 8, []Reason{walked}},
		{"Йцукен123", 8, []Reason{walked}},
		{"poiuztrewq", 8, []Reason{walked}},
		{"Asdf1234!", 8, []Reason{walked}},
		{"qwertzuiopasdfghjklyxcvbnm", 8, []Reason{walked}},
		{"!\"§$%&/()=", 8, []Reason{walked}},
		{"!@#$%^&*()", 8, []Reason{walked}},
		{"1!2@3#4$5%", 8, []Reason{walked}},
		// Columns and diagonals.
		{"1qaz2wsx", 8, []Reason{walked}},
		{"1qayxsw2", 8, []Reason{walked}},
		{"zaq12wsx", 8, []Reason{walked}},
		{"1QAZ2wsx3edc", 8, []Reason{walked}},
		{"qazwsxedc", 8, []Reason{walked}},
		{"qwedsazx", 8, []Reason{walked}},
		{"qasedrft", 8, []Reason{walked}}, // no two steps the same way
		{"qasedrf9", 8, nil},
		{"147258369", 8, []Reason{walked}},
		{"963852741", 8, []Reason{walked}},
		// By turns.
		{"1q2w3e4r", 8, []Reason{walked}},
		{"q1w2e3r4t5", 8, []Reason{walked}},
		{"11223344", 8, []Reason{walked}},
		{"aabbccdd", 8, []Reason{walked}},
		{"a1b2c3d4", 8, []Reason{walked}},
		{"a1a2a3a4", 8, []Reason{walked}},
		// Sequences.
		{"abcdefgh", 8, []Reason{walked}},
		{"Abcd1234", 8, []Reason{walked}},
		{"Abc123!!", 8, []Reason{walked}},
		{"abc123xyz", 8, []Reason{walked}},
		{"zyxwvuts", 8, []Reason{walked}},
		{"1234567890", 8, []Reason{walked}},
		{"9876543210", 8, []Reason{walked}},
		{"αβγδεζηθ", 8, []Reason{walked}},
		{"Абвгд12345", 8, []Reason{walked}},
		// Repeats.
		{"aaaaaaaa", 8, []Reason{walked, repeats}},
		{"AaAaAaAa1", 8, []Reason{walked, repeats}},
		{"12121212", 8, []Reason{walked, repeats}},
		{"abcabcabc", 8, []Reason{walked}},
		{"x9kx9kx9k", 8, []Reason{walked}},
		{"Winter!Winter!", 8, []Reason{repeats}},
		{"Winter!winter!WINTER!", 8, []Reason{repeats}},
		{"Winter!Winter!", 7, nil},
		{"1Winter!Winter!", 9, []Reason{repeats}},
		{"1Winter!Winter!", 8, nil},
		{strings.Repeat("Winter!?", 3), 8, nil},
		{"Qwertz12Qwertz12", 8, []Reason{walked}},
		{strings.Repeat("a", 4096), 8, []Reason{walked, repeats}},
		{strings.Repeat("qwertz", 40), 12, []Reason{walked, repeats}},

		// Enough beside them.
		{"Test1234", 8, nil},
		{"Hallo1234", 8, nil},
		{"Sommer2026", 8, nil},
		{"Passwort123", 8, nil},
		{"qwertz-kR7#vP", 8, nil},
		{"qwertz-kR7#vP", 16, []Reason{walked}},
		{"correct horse battery staple", 24, nil},
		{"Xk29vTz!", 8, nil},
		{"密码密码学习", 6, nil},
		{"", 1, []Reason{walked}},
		{"", 0, []Reason{walked}},
		{"a", 1, nil},
		{"\xff\xfe\xfd", 8, []Reason{walked}},
	} {
		if got := walks([]byte(tc.password), tc.shortest); !slices.Equal(got, tc.want) {
			t.Errorf("%.40q, at least %d: %q, want %q (%d characters with runs as one)", tc.password, tc.shortest, got, tc.want, count([]rune(tc.password), true))
		}
	}
}

// alphabets are what password generators draw from.
var alphabets = map[string]string{
	"lower case, digits":     "abcdefghijklmnopqrstuvwxyz0123456789",
	"letters, digits":        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
	"without those confused": "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789",
	"base64":                 "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
	"ASCII":                  "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~",
}

// A password from a generator, just as long as it must be, is refused less often than once in 10,000 times.
func TestRandomIsNoWalk(t *testing.T) {
	const rounds, most = 50_000, 10_000
	for name, alphabet := range alphabets {
		for _, length := range []int{8, 12} {
			t.Run(fmt.Sprintf("%s, %d characters", name, length), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(20, 26))
				password, refused := make([]byte, length), 0
				for range rounds {
					for i := range password {
						password[i] = alphabet[rng.IntN(len(alphabet))]
					}
					if len(walks(password, length)) > 0 {
						refused++
					}
				}
				t.Logf("%d of %d are refused", refused, rounds)
				if refused*most >= rounds {
					t.Error("too many")
				}
			})
		}
	}
}

// count is what a password counts with runs as one, or without looking for any.
func count(text []rune, runs bool) int {
	text = fold([]byte(string(text)))
	if !runs {
		return least(copies(text), nil)
	}
	return least(copies(text), longestRuns(text))
}

// What counts is at least one character and at most all, never less for a longer password than a run less, and the same in the other case.
func FuzzWalks(f *testing.F) {
	for _, s := range []string{"", "qwertz123", "aaaaaa", "ababab", "1q2w3e4r", "Winter!Winter!", "\xff\xff\xff", "йцукен"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, password string) {
		walks([]byte(password), 8) // of any length
		text := []rune(password)
		text = text[:min(len(text), 64)]
		with, without := count(text, true), count(text, false)
		if with > without || without > len(text) || with == 0 && len(text) > 0 {
			t.Errorf("%q: %d with runs, %d without, of %d", password, with, without, len(text))
		}
		if len(text) > 0 {
			if n := count(text[1:], true); n+1 < with {
				t.Errorf("%q: %d with runs, but %d without its first character", password, with, n)
			}
		}
	})
}

func BenchmarkWalks(b *testing.B) {
	for name, password := range map[string]string{"16": "qwertz-kR7#vP9xZ", "256": strings.Repeat("a", 256)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				walks([]byte(password), 8)
			}
		})
	}
}
