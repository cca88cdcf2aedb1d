// Package parity holds samba/checkpassword to Samba: what is complex, and how long it is, is asked of Samba's own check_password_quality and strlen_m,
// through its Python binding and where that takes no bytes that are not UTF-8, directly.
//
// Asked are all characters of the Basic Multilingual Plane and of the next one, each in passwords that tell its category, and random passwords from
// pools in which Samba, Unicode and Go might disagree. PWSYNC_SEED makes other random ones. SAMBA_SUITES names the Debian suites (default: the
// oldest and the newest that there are images of).
package parity

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

//go:embed ask.py
var ask string

const random = 250_000

func TestMain(m *testing.M) {
	if os.Getenv("CI") != "true" && os.Getenv("PWSYNC_INTEGRATION") != "required" {
		fmt.Println("skipped: needs Docker; make integration runs it")
		return
	}
	os.Exit(m.Run())
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func TestParity(t *testing.T) {
	seed, err := strconv.ParseUint(setting("PWSYNC_SEED", "4"), 10, 64)
	if err != nil {
		t.Fatalf("reading PWSYNC_SEED: %v", err)
	}
	passwords := append(probes(), arbitrary(random, seed)...)
	t.Logf("%d passwords, %d of them random, PWSYNC_SEED=%d", len(passwords), random, seed)
	for suite := range strings.FieldsSeq(setting("SAMBA_SUITES", "bullseye forky")) {
		t.Run(suite, func(t *testing.T) {
			version, answers := samba(t, suite, passwords)
			complex, invalid, astray := 0, 0, 0
			for i, p := range passwords {
				if answers[i].complex {
					complex++
				}
				if !utf8.Valid(p) {
					invalid++
				}
				if answers[i].binding == no {
					astray++
				}
			}
			t.Logf("Samba %s: %d complex, %d not; %d are not UTF-8", version, complex, len(passwords)-complex, invalid)
			if complex < len(passwords)/5 || complex > len(passwords)*4/5 || invalid < 1000 {
				t.Error("these passwords do not try much")
			}
			if astray > 0 {
				t.Errorf("the binding differs %d times from the function that it calls: the test asks wrongly", astray)
			}
			for _, d := range differences(passwords, answers, checkpassword.Complex, checkpassword.UTF16Len) {
				t.Error(d)
			}
			for name, broken := range brokenRules {
				if len(differences(passwords, answers, broken, checkpassword.UTF16Len)) == 0 {
					t.Errorf("a rule that %s is not told from Samba's", name)
				}
			}
			if len(differences(passwords, answers, checkpassword.Complex, utf8.RuneCount)) == 0 {
				t.Error("a length in characters is not told from one in UTF-16 units")
			}
		})
	}
}

// differences says where the functions and Samba differ, a few times.
func differences(passwords [][]byte, answers []answer, complex func([]byte) bool, length func([]byte) int) (all []string) {
	for i, p := range passwords {
		a := answers[i]
		if complex(p) != a.complex && !tolerated(p) {
			all = append(all, fmt.Sprintf("%+q: complex %v, Samba says %v", p, !a.complex, a.complex))
		}
		if n := length(p); n != a.length && utf8.Valid(p) && bytes.IndexByte(p, 0) < 0 {
			all = append(all, fmt.Sprintf("%+q: length %d, Samba says %d", p, n, a.length))
		}
		if len(all) >= 10 {
			return append(all, "and more")
		}
	}
	return all
}

// tolerated reports whether p, up to its end or the first NUL, is not UTF-8 but written in its manner: surrogates, characters beyond U+10FFFF, and
// ones that have a shorter form. Some of that old versions of Samba take, 4.13 all but NULs and 4.17 the first two; 4.22 takes nothing. The hook
// reads none of it (checkpassword.Read), and Complex says no to all.
func tolerated(p []byte) bool {
	p, _, _ = bytes.Cut(p, []byte{0})
	if utf8.Valid(p) {
		return false
	}
	for len(p) > 0 {
		size := 1
		switch {
		case p[0]&0xE0 == 0xC0:
			size = 2
		case p[0]&0xF0 == 0xE0:
			size = 3
		case p[0]&0xF8 == 0xF0:
			size = 4
		case p[0] >= 0x80:
			return false
		}
		if len(p) < size {
			return false
		}
		for _, b := range p[1:size] {
			if b&0xC0 != 0x80 {
				return false
			}
		}
		p = p[size:]
	}
	return true
}

// brokenRules miss one thing each.
var brokenRules = map[string]func([]byte) bool{
	"knows no digits":             without(func(r rune) bool { return '0' <= r && r <= '9' }),
	"knows no upper case":         without(func(r rune) bool { return 'A' <= r && r <= 'Z' }),
	"knows no lower case":         without(func(r rune) bool { return 'a' <= r && r <= 'z' }),
	"does not know one special":   without(func(r rune) bool { return r == '~' }),
	"knows no upper case umlauts": without(func(r rune) bool { return r == 'Ä' }),
	"knows no lower case Greek":   without(func(r rune) bool { return r == 'ω' }),
	"knows no letters of Han":     without(func(r rune) bool { return unicode.Is(unicode.Han, r) }),
	"goes by Unicode's case": func(p []byte) bool {
		return checkpassword.Complex(bytes.Map(func(r rune) rune {
			switch {
			case r < 0x80 || r == utf8.RuneError:
				return r
			case unicode.IsUpper(r):
				return 'A'
			case unicode.IsLower(r):
				return 'a'
			}
			return '漢'
		}, p))
	},
	"asks for two":  func(p []byte) bool { return checkpassword.Categories(p) >= 2 },
	"asks for four": func(p []byte) bool { return checkpassword.Categories(p) >= 4 },
}

func without(category func(rune) bool) func([]byte) bool {
	return func(p []byte) bool {
		if !utf8.Valid(p) {
			return checkpassword.Complex(p)
		}
		return checkpassword.Complex(bytes.Map(func(r rune) rune {
			if category(r) {
				return ' '
			}
			return r
		}, p))
	}
}

const (
	no       = 0
	notAsked = 2
)

// answer is what Samba says about a password.
type answer struct {
	complex bool
	binding byte // says the same: no, 1, notAsked
	length  int
}

// samba asks the one of a suite.
func samba(t *testing.T, suite string, passwords [][]byte) (version string, answers []answer) {
	t.Helper()
	var questions, said bytes.Buffer
	for _, p := range passwords {
		questions.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(p))))
		questions.Write(p)
	}
	if err := lab.RunIn(t.Context(), suite, &questions, &said, "python3", "-c", ask); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(&said)
	version, err := r.ReadString('\n')
	for range passwords {
		var b [6]byte
		if _, err = io.ReadFull(r, b[:]); err != nil {
			break
		}
		answers = append(answers, answer{b[0] == 1, b[1], int(binary.LittleEndian.Uint32(b[2:]))})
	}
	if err != nil || r.Buffered() > 0 {
		t.Fatalf("Samba's answers do not end where they should: %d of %d, %v", len(answers), len(passwords), err)
	}
	return strings.TrimSpace(version), answers
}

// probes holds each character of the first two planes in passwords whose answers together tell its category.
func probes() [][]byte {
	all := [][]byte{nil, []byte("a"), []byte("aA"), []byte("aA1"), []byte("aA1\x00!"), []byte("aA\x001")}
	for r := rune(1); r < 0x20000; r++ {
		if 0xD800 <= r && r < 0xE000 {
			continue
		}
		for _, beside := range []string{"a1", "A1", "a!"} {
			all = append(all, utf8.AppendRune([]byte(beside), r))
		}
	}
	// What is no UTF-8: each byte alone, overlong forms, surrogates and their neighbours, cut off.
	for b := 0x80; b <= 0xFF; b++ {
		all = append(all, append([]byte("aA1"), byte(b)), append([]byte{byte(b)}, "aA1"...), append([]byte("aA1"), byte(b), 0x80), append([]byte("aA1"), byte(b), 0xBF, 0x80))
	}
	for _, s := range []string{"\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xed\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
		"\xee\x80\x80", "\xef\xbf\xbe", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf7\xbf\xbf\xbf", "\xf8\x88\x80\x80\x80", "\xe5\xaf", "\xf0\x9f\x98"} {
		for _, beside := range []string{"a1", "A1", "aA1", "a!"} {
			all = append(all, []byte(beside+s), []byte(s+beside))
		}
	}
	return all
}

// odd are characters on which Samba, Unicode and Go might well disagree: letters without the other case, title case, numerals and circled letters, scripts that got
// their second case late, combining marks, the private use area, what is no character.
var odd = []rune("\u00aa\u00b5\u00ba\u00d7\u00df\u00f7\u00ff\u0130\u0131\u0138\u0149\u0178\u017f\u018e\u01c4\u01c5\u01c6\u01f0\u01f2\u0220\u023a\u0242\u0294\u0300\u0308\u0345\u0370\u0390\u03c2" +
	"\u03d2\u03f4\u0400\u04c0\u04cf\u0528\u0587\u05d0\u0660\u10a0\u10d0\u1c90\u13a0\uab70\u1d79\u1e9e\u1f80\u1f88\u1fbc\u2126\u212a\u212b\u2160\u2170\u2183\u24b6\u24d0\u2c00\u2c30\u2c60" +
	"\u2c80\ua640\ua722\ua78d\uac00\ud7ff\ue000\uf8ff\ufb00\ufdd0\uff21\uff41\ufffd\ufffe\uffff\U00010400\U00010428\U0001d400\U0001f600\U000e0041\U0010ffff")

// arbitrary makes up passwords.
func arbitrary(count int, seed uint64) [][]byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	any := func() rune {
		for {
			if r := 1 + rng.Int32N(unicode.MaxRune); r < 0xD800 || r >= 0xE000 {
				return r
			}
		}
	}
	pools := []func() rune{
		func() rune { return 1 + rng.Int32N(0x7F) },
		func() rune { return rune("abcxyzABCXYZ0189!~ \t"[rng.IntN(20)]) },
		func() rune { return odd[rng.IntN(len(odd))] },
		func() rune { return 0x80 + rng.Int32N(0x2F80) },
		func() rune { return 0xD7F0 + []rune{0, 1, 0xF, 0x810, 0x820}[rng.IntN(5)] },
		any,
	}
	all := make([][]byte, count)
	for i := range all {
		var p []byte
		pool := [2]func() rune{pools[rng.IntN(len(pools))], pools[rng.IntN(len(pools))]}
		for range rng.IntN(5) + rng.IntN(5)*rng.IntN(4) {
			p = utf8.AppendRune(p, pool[rng.IntN(2)]())
		}
		switch rng.IntN(20) { // some are not UTF-8, or hold a NUL
		case 0:
			p = append(p, byte(rng.Int32N(256)), byte(rng.Int32N(256)))
		case 1:
			if len(p) > 0 {
				p[rng.IntN(len(p))] = byte(rng.Int32N(256))
			}
		}
		all[i] = p
	}
	return all
}
