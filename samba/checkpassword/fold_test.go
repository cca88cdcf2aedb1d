package checkpassword

import (
	"hash/crc32"
	"testing"
	"unicode/utf8"
)

func TestFoldName(t *testing.T) {
	for name, want := range map[string]string{
		"":                  "",
		" ":                 "",
		"alice":             "ALICE",
		"Alice":             "ALICE",
		"  al  ice ":        "AL ICE",
		"bjørn åström":      "BJØRN ÅSTRÖM",
		"straße":            "STRAßE", // AD and Samba know no two letters in its place
		"ıi":                "ıI",     // a dotless i has no upper case
		"ǆ ǅ Ǆ":             "Ǆ ǅ Ǆ",  // the title case stays
		"ωμέγα":             "ΩΜΈΓΑ",
		"a\tb":              "A\tB",
		"a\xffb\xc3":        "A\xffB\xc3",
		"\U00010428":        "\U00010428", // beyond U+FFFF nothing has case
		"ﬁ":                 "ﬁ",
		"\u00a0alice\u00a0": "\u00a0ALICE\u00a0",
	} {
		if got := FoldName(name); got != want {
			t.Errorf("FoldName(%q) = %q, want %q", name, got, want)
		}
	}
}

// The sum is that of Samba's own upcase_table, U+0000 to U+FFFF, each entry in two bytes, the high one first; U+D800 to U+DFFF,
// which no name holds, left out. It was made from lib/util/charset/codepoints.c of 4.25.
func TestUpperCaseAsSamba(t *testing.T) {
	sum := crc32.NewIEEE()
	for r := range rune(0x10000) {
		if utf8.ValidRune(r) {
			u := upperCase(r)
			sum.Write([]byte{byte(u >> 8), byte(u)})
		}
	}
	if got := sum.Sum32(); got != 0x6d5890ca {
		t.Errorf("the table's sum is %#08x", got)
	}
}

func FuzzFoldName(f *testing.F) {
	f.Add("Alice  Smith ")
	f.Add("a\xff")
	f.Fuzz(func(t *testing.T, name string) {
		folded := FoldName(name)
		if again := FoldName(folded); again != folded {
			t.Errorf("%q folds to %q, and that to %q", name, folded, again)
		}
	})
}
