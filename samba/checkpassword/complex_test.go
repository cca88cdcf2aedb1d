package checkpassword

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

// testdata/complexity.golden holds Samba's own answers; testdata/complexity.py
// says how they were obtained.
func TestComplexAsSamba(t *testing.T) {
	f, err := os.Open("testdata/complexity.golden")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	asked := 0
	for lines := bufio.NewScanner(f); lines.Scan(); asked++ {
		answer, quoted, _ := strings.Cut(lines.Text(), "\t")
		var password string
		if err := json.Unmarshal([]byte(quoted), &password); err != nil {
			t.Fatalf("line %d: %v", asked+1, err)
		}
		if got := Complex([]byte(password)); got != (answer == "yes") {
			t.Errorf("Complex(%+q) = %v, but Samba says %s", password, got, answer)
		}
	}
	if asked < 500 {
		t.Errorf("only %d passwords in the golden file", asked)
	}
}

// What Samba's Python bindings cannot be asked.
func TestComplexOfNoText(t *testing.T) {
	for password, want := range map[string]bool{
		"aA1\x00!":     true, // ends at the NUL
		"aA\x001!":     false,
		"\x00aA1":      false,
		"aA1\x00\xff":  true, // nobody looks behind it
		"aA1\xff":      false,
		"\xffaA1":      false,
		"aA1\xe5\xaf":  false,
		"aA1\xc0\x80!": false,
	} {
		if got := Complex([]byte(password)); got != want {
			t.Errorf("Complex(%q) = %v, want %v", password, got, want)
		}
	}
}

func FuzzComplex(f *testing.F) {
	for _, s := range []string{"", "aA1", "Äß1", "ab\x00A1", "A1\xff", "😀a1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, password []byte) {
		before := bytes.Clone(password)
		complex := Complex(password)
		units, encoded := UTF16Len(password), UTF16LE(password)
		if !bytes.Equal(password, before) {
			t.Error("the password was changed")
		}
		text, _, _ := bytes.Cut(password, []byte{0})
		if complex && (len(text) < 3 || !utf8.Valid(text)) {
			t.Errorf("Complex(%q) = true", password)
		}
		if more := append(bytes.Clone(text), "aA1"...); utf8.Valid(text) && !Complex(more) {
			t.Errorf("Complex(%q) = false", more)
		}
		want := utf16.Encode([]rune(string(password)))
		if units != len(want) || len(encoded) != 2*units {
			t.Fatalf("%q has %d units in %d bytes, want %d", password, units, len(encoded), len(want))
		}
		for i, unit := range want {
			if got := binary.LittleEndian.Uint16(encoded[2*i:]); got != unit {
				t.Errorf("unit %d of %q is %#x, want %#x", i, password, got, unit)
			}
		}
	})
}

func TestUTF16(t *testing.T) {
	for password, want := range map[string]string{
		"":          "",
		"aß":        "a\x00\xdf\x00",
		"密":         "\xc6\x5b",
		"😀":         "\x3d\xd8\x00\xde",
		"\uffff":    "\xff\xff",
		"a\xff\xfe": "a\x00\xfd\xff\xfd\xff",
	} {
		got := UTF16LE([]byte(password))
		if string(got) != want || cap(got) != len(got) {
			t.Errorf("UTF16LE(%q) = %q (capacity %d), want %q", password, got, cap(got), want)
		}
		if n := UTF16Len([]byte(password)); n != len(want)/2 {
			t.Errorf("UTF16Len(%q) = %d, want %d", password, n, len(want)/2)
		}
	}
}
