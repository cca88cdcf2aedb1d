package words

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/internal/policy/letters"
)

const (
	maxLine  = 1024    // bytes
	maxNodes = 1 << 29 // 4 GB
)

// Source is a list of words: UTF-8, a word in each line; empty lines and those that begin with # are none. Space around a word does not belong to it.
type Source struct {
	Name string // for errors
	Text io.Reader
}

// Report tells what became of the lines.
type Report struct {
	Words int // that are looked for
	Short int // that have fewer than four characters, and are not
	Long  int // that are longer than any password, and are not
}

// CompileFiles makes a table of the words in files.
func CompileFiles(tag [tagSize]byte, paths ...string) ([]byte, Report, error) {
	return compileFiles(tag, func([]uint16) bool { return true }, paths)
}

// CompileFor makes a table of those words in files that a search in this password can come upon: of this password it says what the table of all
// of them would, and it is made much sooner. It tells of the password, so it is not to be stored.
func CompileFor(password []byte, paths ...string) ([]byte, error) {
	folded := fold(password)
	defer folded.clear()
	single, _ := folded.once()
	defer single.clear()
	table, _, err := compileFiles([tagSize]byte{}, meets(single.letters[:min(len(single.letters), mostLetters)]), paths)
	return table, err
}

// meets returns a function that reports whether a search in a password can come upon a word: the word's first or last letters are in it, or it is all
// of it but for one. See search.
func meets(password []uint16) func(word []uint16) bool {
	type beginning [rightFirst]uint16
	parts := map[beginning]bool{}
	for n := 1; n <= rightFirst; n++ {
		for at := range len(password) - n + 1 {
			var b beginning
			copy(b[:], password[at:at+n])
			parts[b] = true
		}
	}
	return func(word []uint16) bool {
		var first, last beginning
		copy(first[:], word)
		if parts[first] {
			return true
		}
		copy(last[:], word[max(0, len(word)-rightFirst):])
		if len(word) >= leastFuzzy && parts[last] {
			return true
		}
		return len(password) <= leastFuzzy && nearly(word, password)
	}
}

// nearly reports whether two words differ in one letter at most, which may be missing in one of them.
func nearly(a, b []uint16) bool {
	if len(a) < len(b) {
		a, b = b, a
	}
	first := 0
	for first < len(b) && a[first] == b[first] {
		first++
	}
	last := 0
	for last < len(b)-first && a[len(a)-1-last] == b[len(b)-1-last] {
		last++
	}
	return first+last >= len(a)-1
}

func compileFiles(tag [tagSize]byte, wanted func([]uint16) bool, paths []string) ([]byte, Report, error) {
	var sources []Source
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, Report{}, fmt.Errorf("reading banned words: %w", err)
		}
		defer f.Close()
		sources = append(sources, Source{path, f})
	}
	return build(tag, wanted, sources)
}

// Compile makes a table of words. The same words make the same table.
func Compile(tag [tagSize]byte, sources ...Source) ([]byte, Report, error) {
	return build(tag, func([]uint16) bool { return true }, sources)
}

func build(tag [tagSize]byte, wanted func([]uint16) bool, sources []Source) ([]byte, Report, error) {
	var (
		report        Report
		forward, back []string
		plain         []uint16
	)
	for _, s := range sources {
		err := s.each(func(word string) {
			n := utf8.RuneCountInString(word)
			switch {
			case n < leastWord:
				report.Short++
				return
			case n > mostLetters:
				report.Long++
				return
			}
			report.Words++
			if plain = appendOnce(plain[:0], word); len(plain) > 0 && !wanted(plain) {
				return // most of them, where few are wanted
			}
			for _, way := range ways(word) {
				folded, _ := fold([]byte(way)).once()
				if len(folded.letters) < 2 || !wanted(folded.letters) { // aaaa counts one anyway
					continue
				}
				forward = append(forward, keyOf(folded.letters))
				if len(folded.letters) >= leastFuzzy {
					slices.Reverse(folded.letters)
					back = append(back, keyOf(folded.letters))
				}
			}
		})
		if err != nil {
			return nil, report, fmt.Errorf("reading banned words: %w", err)
		}
	}
	sorted := func(words []string) []string {
		slices.Sort(words)
		return slices.Compact(words)
	}
	forward, back = sorted(forward), sorted(back)
	nodes := count(forward) + count(back)
	if nodes > maxNodes {
		return nil, report, errors.New("compiling banned words: there are too many")
	}
	table := make([]byte, headerSize, headerSize+nodes*nodeSize)
	b := builder{table[headerSize:headerSize]}
	first := b.add(forward)
	second := b.add(back)
	table = table[:cap(table)]

	header := append(append(table[:0], magic...), tag[:]...)
	for _, n := range []uint32{uint32(nodes), first.first, first.count, second.first, second.count, uint32(len(forward)), checksum(b.nodes)} {
		header = binary.LittleEndian.AppendUint32(header, n)
	}
	binary.LittleEndian.AppendUint32(header, checksum(header))
	return table, report, nil
}

// count counts the letters of sorted words, those that a word has in common with the one before it left out: the nodes of their trie.
func count(words []string) int {
	n, before := 0, ""
	for _, w := range words {
		common := 0
		for common < min(len(w), len(before)) && w[common:common+2] == before[common:common+2] {
			common += 2
		}
		n += (len(w) - common) / 2
		before = w
	}
	return n
}

// each calls word for each line that is one.
func (s Source) each(word func(string)) error {
	lines := bufio.NewScanner(s.Text)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	number := 0
	for lines.Scan() {
		number++
		line := lines.Bytes()
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\uFEFF"))
		}
		if !utf8.Valid(line) {
			return fmt.Errorf("%s:%d: not UTF-8; convert the file, for example with iconv -f latin1 -t utf-8", s.Name, number)
		}
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			word(string(line))
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%s:%d: longer than %d bytes; write one word in each line", s.Name, number+1, maxLine)
	}
	if lines.Err() != nil {
		return fmt.Errorf("%s: %w", s.Name, lines.Err())
	}
	return nil
}

// appendOnce appends a word as fold and once write it, if it is of ASCII and can be written in one way only; else nothing.
func appendOnce(to []uint16, word string) []uint16 {
	for i := range len(word) {
		if word[i] >= utf8.RuneSelf || word[i] == ' ' {
			return to[:0]
		}
		l := lookAlike(uint16(letters.Fold(rune(word[i]))))
		if n := len(to); n == 0 || to[n-1] != l {
			to = append(to, l)
		}
	}
	return to
}

// ways returns in which ways a word may be written: as it is, with ä, ö, ü, å, ø as two letters, and without the spaces in it.
func ways(word string) []string {
	ways := []string{word}
	if strings.ContainsAny(word, "äöüåøÄÖÜÅØ") {
		ways = append(ways, strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "å", "aa", "ø", "oe",
			"Ä", "ae", "Ö", "oe", "Ü", "ue", "Å", "aa", "Ø", "oe").Replace(word))
	}
	if strings.Contains(word, " ") {
		for _, w := range slices.Clone(ways) {
			ways = append(ways, strings.ReplaceAll(w, " ", ""))
		}
	}
	return ways
}

// keyOf makes letters a string that sorts as they do.
func keyOf(letters []uint16) string {
	b := make([]byte, 0, 2*len(letters))
	for _, l := range letters {
		b = binary.BigEndian.AppendUint16(b, l)
	}
	return string(b)
}

// builder lays out the nodes of tries.
type builder struct{ nodes []byte }

// branch is a node whose children are still to be laid out: those of the words, which begin with the same depth letters.
type branch struct {
	node  int // -1 for the root
	words []string
	depth int
}

// upper is how many letters down the nodes are laid out in the order of their depth.
const upper = 3

// add lays out a trie of sorted words without repetitions, and returns the children of its root.
func (b *builder) add(words []string) children {
	root := branch{-1, words, 0}
	above := children{}
	var level []branch
	next := b.layOut(root, &above)
	for depth := 1; depth < upper; depth++ {
		level, next = next, nil
		for _, l := range level {
			next = append(next, b.layOut(l, nil)...)
		}
	}
	for len(next) > 0 { // the last that was added first: branch by branch
		last := next[len(next)-1]
		next = next[:len(next)-1]
		below := b.layOut(last, nil)
		slices.Reverse(below)
		next = append(next, below...)
	}
	return above
}

// layOut adds the children of a branch, and returns those that have children in turn. Of a root it sets above; of a node, the node's.
func (b *builder) layOut(of branch, above *children) []branch {
	words := of.words
	if len(words) > 0 && len(words[0]) == 2*of.depth {
		words = words[1:] // it ends here, which the node says already
	}
	below := children{first: uint32(len(b.nodes) / nodeSize)}
	var next []branch
	for len(words) > 0 {
		letter := words[0][2*of.depth : 2*of.depth+2]
		n, _ := slices.BinarySearchFunc(words, letter, func(word, letter string) int {
			if word[2*of.depth:2*of.depth+2] == letter {
				return -1
			}
			return 1
		})
		end := len(words[0]) == 2*of.depth+2
		if !end || n > 1 {
			next = append(next, branch{len(b.nodes) / nodeSize, words[:n], of.depth + 1})
		}
		mark := uint32(0)
		if end {
			mark = wordEnd
		}
		b.nodes = append(b.nodes, letter[1], letter[0], 0, 0)
		b.nodes = binary.LittleEndian.AppendUint32(b.nodes, mark)
		below.count++
		words = words[n:]
	}
	if of.node < 0 {
		*above = below
		return next
	}
	n := b.nodes[of.node*nodeSize:]
	binary.LittleEndian.PutUint16(n[2:], uint16(below.count))
	binary.LittleEndian.PutUint32(n[4:], binary.LittleEndian.Uint32(n[4:])&wordEnd|below.first)
	return next
}
