package words

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/samba-pwsync/samba-pwsync/internal/policy/letters"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/words/generate/plain"
)

func compile(t testing.TB, lines ...string) *Table {
	t.Helper()
	b, _, err := Compile([32]byte{}, Source{"list", strings.NewReader(strings.Join(lines, "\n"))})
	if err != nil {
		t.Fatal(err)
	}
	table, err := Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Verify(); err != nil {
		t.Fatal(err)
	}
	return table
}

func TestScore(t *testing.T) {
	for _, tc := range []struct {
		words    string
		password string
		want     int
	}{
		// Microsoft's examples.
		{"contoso blank", "C0ntos0Blank12", 4},
		{"contoso blank", "ContoS0Bl@nkf9!", 5},
		{"blank", "Bl@nK", 1},
		{"abcdef", "abcdeg", 1},
		{"abcdef", "abcdefg", 2}, // abcdef, g: few enough
		{"abcdef", "abcde", 1},
		{"contoso london widget", "Contoso!1", 3},
		{"contoso london widget", "Contoso@London", 3},
		{"contoso london widget", "ContosoWidget", 2},
		{"contoso london widget", "LondonHQ", 3},

		{"", "Xk29vTzQ", 8},
		{"contoso", "Xk29vTzQ", 8},
		{"contoso", "", 0},
		// Case, accents, look-alikes.
		{"straße", "STRASSE+99", 3},
		{"strasse", "Straße+98", 4},
		{"müller", "Mueller+98", 4},
		{"müller", "M\u00fcller+98", 4},
		{"müller", "Mu\u0308ller+98", 4},
		{"muller", "Müller+98", 4},
		{"café", "CAFÉcafe", 2},
		{"schule", "$chu1e", 1},
		{"lisa", "1i5a", 1},
		{"kiel", "K!3L", 1},
		{"passwort", "P455w0r7", 1},
		{"Übung", "UEBUNG", 1},
		{"æther", "Aether", 1},
		{"москва", "МОСКВА26", 3},
		{"東京都庁", "東京都庁ab", 3},
		{"contoso", "ｃｏｎｔｏｓｏ", 1},                                     // full width
		{"ﬁnanz", "Finanz", 1},                                        // ligature
		{"contoso", "c\u200bo\u00adn\u2060t\u200do\ufeffs\u202eo", 1}, // what cannot be seen
		{"contoso", "c\u20ddo\u20den\u20dft\u20e0o\u20dds\u20ddo", 1}, // rings
		{"sommer 2026", "Sommer2026", 1},
		{"sommer 2026", "Sommer 2026", 1},
		// Repeats.
		{"passwort", "Paaassssswort", 1},
		{"passwort", "paswort", 1},
		{"passwort", "passwort!!!!!", 2},
		{"passwort", "passwort!1!1", 5}, // not the same character
		{"contoso orange", "ContosoOrange", 2},
		{"blank kanne", "Blankanne", 4}, // there is one k only: blank, a, n, e; or b, l, a, n, kanne
		{"aaaa", "aaaaaaaaaaaa", 1},
		// The least of all ways to count.
		{"pass passwort wort", "passwort", 1},
		{"sommer merian ferien", "sommerferien", 2},
		{"winterzeit winter zeitung", "winterzeitung", 2},
		{"abcd cdefgh", "abcdefgh", 3},
		// One letter wrong in a long word.
		{"kanzlei", "Kanzley", 1},
		{"kanzlei", "Kamzlei", 1},
		{"kanzlei", "Kanxlei", 1},
		{"kanzlei", "26Kanxlei", 3},
		{"kanzlei", "Kanlei", 1},
		{"kanzlei", "Kan-zlei", 1},
		{"kanzlei", "Xanzlei", 1},
		{"kanzlei", "anzlei", 1},
		{"kanzlei", "Kanzle", 1},
		{"kanzlei", "Kan.zlei", 1},
		{"kanzlei", "K-anzlei", 1},
		{"kanzlei", "Kanzle-i", 1},
		{"kanzlei", "Knzlei26", 3},
		{"kanzlei", "26Knzlei", 3},
		{"kanzlei", "xxKan-zleixx", 3}, // xx counts once
		{"kanzlei", "Kanzley26", 3},
		{"kanzlei", "Kamzley26", 9}, // two
		// It does not swallow what stands beside the word.
		{"contoso", "9Contoso!", 3},
		// A short word must be right.
		{"blank", "bl-nk99q", 7}, // 99 counts once
		{"blank", "bl-nk", 1},
		{"blank", "b-lank", 1},
	} {
		table := compile(t, strings.ReplaceAll(strings.ReplaceAll(tc.words, " 2026", "_2026"), " ", "\n"))
		if strings.Contains(tc.words, "2026") {
			table = compile(t, tc.words)
		}
		if got := table.Score([]byte(tc.password)); got != tc.want || table.Err() != nil {
			t.Errorf("%q with %q: %d points, want %d (%v)", tc.password, tc.words, got, tc.want, table.Err())
		}
	}
}

func TestLookAlikes(t *testing.T) {
	for as, is := range map[string]string{
		"0": "o", "1": "l", "!": "i", "|": "l", "3": "e", "4": "a", "@": "a", "5": "s", "$": "s", "7": "t", "+": "t", "8": "b", "9": "g", "€": "e", "§": "s", "é": "e", "ß": "ss",
		"²": "2", "Ｑ": "q", "ø": "o", "ł": "l", "ς": "σ",
	} {
		got, want := fold([]byte("x"+as)), fold([]byte("x"+is))
		if !slices.Equal(got.letters, want.letters) {
			t.Errorf("%s is not %s: %v, %v", as, is, got.letters, want.letters)
		}
	}
	for _, other := range []string{"2", "6", "-", "#", "(", "漢", "я"} {
		if got := fold([]byte(other)).letters; len(got) != 1 || got[0] != uint16([]rune(other)[0]) {
			t.Errorf("%s is %v", other, got)
		}
	}
}

func TestContains(t *testing.T) {
	for _, tc := range []struct {
		password, name string
		want           bool
	}{
		{"p0LL23fb", "Poll", true}, // Microsoft's example
		{"Xk29vTzQ", "Poll", false},
		{"xMÜLLER1", "Müller", true},
		{"xMueller1", "Müller", true},
		{"xmuller1", "Müller", true},
		{"xMueler1", "Müller", true},
		{"xSchulze", "Müller", false},
		{"Banane-77", "Anna", false}, // ana
		{"xAnna-77", "Anna", true},
		{"xh4g3n5x", "Hagens", true},
		{"", "Hagens", false},
		{"Hagens", "", false},
		{"Hagens", "\u0308", false},
	} {
		if got := new(Table).Contains([]byte(tc.password), tc.name); got != tc.want {
			t.Errorf("%q contains %q: %v", tc.password, tc.name, got)
		}
	}
}

func TestCompile(t *testing.T) {
	list := "\uFEFF# a remark\r\nContoso\r\n\r\n  Blank \r\nabc\n" + strings.Repeat("x-", 100) + "\nMüller\n#Widget\ncontoso"
	table, report, err := Compile([32]byte{1, 2, 3}, Source{"a", strings.NewReader(list)}, Source{"b", strings.NewReader("Widget")})
	if err != nil || report != (Report{Words: 5, Short: 1, Long: 1}) {
		t.Fatalf("%+v, %v", report, err)
	}
	path := filepath.Join(t.TempDir(), "words")
	if err := os.WriteFile(path, table, 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if opened.Len() != 5 || opened.Tag() != [32]byte{1, 2, 3} { // contoso, blank, muller, mueller, widget
		t.Errorf("%d words, tag %v", opened.Len(), opened.Tag())
	}
	for _, word := range []string{"Contoso", "blank", "Mueller", "Muller", "widget"} {
		if opened.Score([]byte(word)) != 1 {
			t.Errorf("%s is not found", word)
		}
	}
	again, _, _ := Compile([32]byte{1, 2, 3}, Source{"c", strings.NewReader("WIDGET\nblank\nMüller\ncontoso")})
	if !bytes.Equal(again, table) {
		t.Error("the same words make another table")
	}
	if err := opened.Close(); err != nil || opened.Close() != nil {
		t.Errorf("closing: %v", err)
	}
	empty := compile(t)
	if empty.Len() != 0 || empty.Score([]byte("abc")) != 3 {
		t.Error("no words")
	}
}

func TestCompileRefuses(t *testing.T) {
	for list, want := range map[string]string{
		"contoso\nm\xfcller\n":                  "list:2: not UTF-8; convert the file, for example with iconv -f latin1 -t utf-8",
		"contoso\n" + strings.Repeat("x", 2000): "list:2: longer than 1024 bytes; write one word in each line",
	} {
		if _, _, err := Compile([32]byte{}, Source{"list", strings.NewReader(list)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, _, err := CompileFiles([32]byte{}, filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	good, _, err := Compile([32]byte{}, Source{"list", strings.NewReader("contoso\nblank")})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "words")
	for name, b := range map[string][]byte{
		"empty":     {},
		"no header": good[:headerSize-1],
		"cut off":   good[:len(good)-1],
		"too long":  append(slices.Clone(good), 0),
		"no table":  bytes.Repeat([]byte("x"), 200),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for at := range headerSize {
		b := slices.Clone(good)
		b[at] ^= 1
		if _, err := Read(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d of the header changed: %v", at, err)
		}
	}
	for at := headerSize; at < len(good); at++ {
		b := slices.Clone(good)
		b[at] ^= 1
		if table, err := Read(b); err != nil || !errors.Is(table.Verify(), ErrDamaged) {
			t.Errorf("byte %d of the nodes changed: %v", at, err)
		}
	}
	b := slices.Clone(good)
	for i := headerSize + 4; i < len(b); i += nodeSize {
		b[i+3] |= 0x7f // children where there is nothing
	}
	table, err := Read(b)
	if err != nil {
		t.Fatal(err)
	}
	table.Score([]byte("contoso"))
	if !errors.Is(table.Err(), ErrDamaged) {
		t.Errorf("children where there is nothing: %v", table.Err())
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// The table against what generates it, for all characters.
func TestPlain(t *testing.T) {
	for r := range rune(0x10000) {
		if 0xD800 <= r && r < 0xE000 || letters.Fold(r) != r || r == '€' || r == '§' {
			continue
		}
		want := plain.Letters(r)
		if want == nil {
			want = []rune{r}
		}
		for i, l := range want {
			if l < 0x80 {
				want[i] = rune(lookAlike(uint16(l)))
			}
		}
		var got []rune
		for _, l := range appendPlain(nil, r) {
			got = append(got, rune(l))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%U is %q, want %q", r, got, want)
		}
	}
}

// A table is only good for the form that its words were written in, so another form needs another magic.
func TestMagicStandsForTheForm(t *testing.T) {
	h := fnv.New64a()
	for r := rune(1); r < 0x11000; r++ {
		for _, way := range ways("x" + string(r)) {
			single, _ := fold([]byte(way)).once()
			fmt.Fprintln(h, single.letters)
		}
	}
	fmt.Fprintln(h, leastWord, leastFuzzy, mostLetters)
	if got := fmt.Sprintf("%q %x", magic, h.Sum64()); got != `"pwsync words 2\n\x00" be7c133dc407014f` {
		t.Errorf("words are compared in another form: raise the number in magic, and write here %s", got)
	}
}

// Against the plain definition: all words, all places, an edit distance that is computed.
func TestAgainstDefinition(t *testing.T) {
	alphabet := rapid.SampledFrom([]rune("abcdeo0lé-"))
	word := rapid.StringOfN(alphabet, 4, 10, -1)
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(word, 0, 6).Draw(t, "words")
		parts := rapid.SliceOfN(rapid.OneOf(word, rapid.StringOfN(alphabet, 0, 3, -1), rapid.SampledFrom(append(list, "x"))), 0, 3).Draw(t, "parts")
		password := strings.Join(parts, "")
		if cut := rapid.IntRange(-1, 12).Draw(t, "cut"); cut >= 0 && cut < len(password) { // a letter is wrong
			password = password[:cut] + rapid.SampledFrom([]string{"", "q", "qq"}).Draw(t, "wrong") + password[min(cut+rapid.IntRange(0, 1).Draw(t, "lost"), len(password)):]
		}
		b, _, err := Compile([32]byte{}, Source{"list", strings.NewReader(strings.Join(list, "\n"))})
		if err != nil {
			t.Fatal(err)
		}
		table, err := Read(b)
		if err != nil {
			t.Fatal(err)
		}
		single, _ := fold([]byte(password)).once()
		got := table.search(single.letters)
		some, _, err := build([32]byte{}, meets(single.letters), []Source{{"list", strings.NewReader(strings.Join(list, "\n"))}})
		if err != nil {
			t.Fatal(err)
		}
		if table, err = Read(some); err != nil {
			t.Fatal(err)
		}
		if of := table.search(single.letters); !slices.Equal(of.marks, got.marks) {
			t.Fatalf("%q, words %q: with those only that it can meet %v, with all %v", password, list, of.marks, got.marks)
		}
		n := len(single.letters)
		for from := range n {
			for to := from + 1; to <= n; to++ {
				want := false
				for _, w := range list {
					f, _ := fold([]byte(w)).once()
					want = want || isWord(single.letters[from:to], f.letters, from == 0 && to == n && n <= leastFuzzy)
				}
				if got.has(from, to) != want {
					t.Fatalf("%v in %q, words %q: %v, want %v", single.letters[from:to], password, list, got.has(from, to), want)
				}
			}
		}
	})
}

// isWord says whether part is the word, or the word with one letter wrong where that counts.
func isWord(part, word []uint16, whole bool) bool {
	if len(word) < 2 {
		return false
	}
	if slices.Equal(part, word) {
		return true
	}
	if len(word) < leastFuzzy && !whole {
		return false
	}
	for i := range word {
		without := slices.Delete(slices.Clone(word), i, i+1)
		if slices.Equal(part, without) || len(part) == len(word) && slices.Equal(slices.Delete(slices.Clone(part), i, i+1), without) {
			return true
		}
	}
	for i := 1; i < len(part)-1; i++ { // too much inside the word, not at its ends
		if slices.Equal(slices.Delete(slices.Clone(part), i, i+1), word) {
			return true
		}
	}
	return false
}

// A table from anywhere ends no process and takes no ages.
func FuzzRead(f *testing.F) {
	good, _, err := Compile([32]byte{}, Source{"list", strings.NewReader("contoso\nkanzlei\nblank\nmüller")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[headerSize:], uint32(0), uint32(4), uint32(0), uint32(2), []byte("Kanzley-contoso"))
	f.Fuzz(func(t *testing.T, nodes []byte, first1, count1, first2, count2 uint32, password []byte) {
		_, _ = Read(nodes)
		table := &Table{nodes: nodes, forward: children{first1, count1}, back: children{first2, count2}}
		if len(nodes)%nodeSize != 0 || !table.has(table.forward) || !table.has(table.back) {
			return // Read does not let it through
		}
		n := len(fold(password).letters)
		if points := table.Score(password); points < 0 || points > n || points == 0 && n > 0 {
			t.Errorf("%d points for %d letters", points, n)
		}
	})
}

func FuzzScore(f *testing.F) {
	f.Add("contoso\nkanzlei", []byte("C0ntoso!1"), "Poll")
	f.Add("\xff", []byte("\xff\xfe"), "\xff")
	f.Fuzz(func(t *testing.T, list string, password []byte, name string) {
		b, _, err := Compile([32]byte{}, Source{"list", strings.NewReader(list)})
		if err != nil {
			return
		}
		table, err := Read(b)
		if err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(password)
		table.Score(password)
		table.Contains(password, name)
		if !bytes.Equal(before, password) || table.Err() != nil {
			t.Error(table.Err())
		}
	})
}

// The table, mapped and not read before: how many pages a search touches.
func BenchmarkFirstSearch(b *testing.B) {
	table, _, err := Compile([32]byte{}, Source{"list", strings.NewReader(million(1_000_000))})
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "words")
	if err := os.WriteFile(path, table, 0o600); err != nil {
		b.Fatal(err)
	}
	faults := func() int64 {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			b.Fatal(err)
		}
		return usage.Minflt + usage.Majflt
	}
	for _, password := range benchmarked {
		b.Run(password, func(b *testing.B) {
			before := faults()
			for b.Loop() {
				table, err := Open(path)
				if err != nil {
					b.Fatal(err)
				}
				table.Score([]byte(password))
				if err := table.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(faults()-before)/float64(b.N), "faults/op")
		})
	}
}

// million makes up words as languages have them: syllables.
func million(n int) string {
	rng := rand.New(rand.NewPCG(20, 26))
	onsets := strings.Fields("b br c ch d dr f fl g gr h j k kr l m n p pf qu r s sch sp st t tr v w z")
	vowels := strings.Fields("a e i o u ai au ei eu ie a e i o u")
	codas := append(strings.Fields("n r l s t m ng nd rt st ck"), "", "", "", "")
	pick := func(s []string) string { return s[rng.IntN(len(s))] }
	var b strings.Builder
	for range n {
		for range 2 + rng.IntN(3) {
			b.WriteString(pick(onsets) + pick(vowels) + pick(codas))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// A password from a generator is refused rarely, though with many words such of 8 characters are: the share is told, and bounded.
func TestRandomIsNotBanned(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#%&-_"
	const rounds = 20_000
	for words, most := range map[int]float64{1_000: 0.0005, 100_000: 0.01} {
		table := compile(t, million(words))
		rng, refused := rand.New(rand.NewPCG(20, 26)), 0
		for range rounds {
			password := make([]byte, 8)
			for i := range password {
				password[i] = alphabet[rng.IntN(len(alphabet))]
			}
			if table.Score(password) < 5 {
				refused++
			}
		}
		t.Logf("%d words: %d of %d random passwords of 8 characters have fewer than 5 points", words, refused, rounds)
		if float64(refused) > most*rounds {
			t.Errorf("%d words: more than %g", words, most)
		}
	}
}

var benchmarked = []string{"Xk29vTzQ!mPw7rLa", "Sommerferien2026", "P*sswort-Kanzley", "correct horse battery staple"}

func BenchmarkScore(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		table := compile(b, million(n))
		for _, password := range benchmarked {
			b.Run(fmt.Sprintf("%d/%s", n, password), func(b *testing.B) {
				for b.Loop() {
					table.Score([]byte(password))
				}
				b.ReportMetric(float64(len(table.nodes))/1e6, "MB")
			})
		}
	}
}

func TestCompileFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "words")
	if err := os.WriteFile(path, []byte(million(10_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	all := compile(t, million(10_000))
	for _, password := range append(benchmarked, "", "a", "Brotau", strings.Repeat("Ab1", 100)) {
		b, err := CompileFor([]byte(password), path)
		if err != nil {
			t.Fatal(err)
		}
		table, err := Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := table.Score([]byte(password)), all.Score([]byte(password)); got != want {
			t.Errorf("%q: %d points, want %d", password, got, want)
		}
		if table.Len() > all.Len()/2 {
			t.Errorf("%q: %d words of %d", password, table.Len(), all.Len())
		}
	}
	if _, err := CompileFor([]byte("x"), path, path+"-gone"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func BenchmarkCompileFor(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		path := filepath.Join(b.TempDir(), "words")
		if err := os.WriteFile(path, []byte(million(n)), 0o600); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := CompileFor([]byte(benchmarked[0]), path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	list := million(1_000_000)
	for b.Loop() {
		if _, _, err := Compile([32]byte{}, Source{"list", strings.NewReader(list)}); err != nil {
			b.Fatal(err)
		}
	}
}
