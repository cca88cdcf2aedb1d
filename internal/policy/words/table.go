package words

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/internal/nopoll"
)

const (
	magic      = "pwsync words 2\n\x00"
	tagSize    = 32
	headerSize = len(magic) + tagSize + 8*4
	nodeSize   = 8
	wordEnd    = 1 << 31 // in a node's first child
)

// How many letters a word must have.
const (
	leastWord  = 4 // to be a word at all, before repeated letters are written once; Microsoft's number
	leastFuzzy = 7 // to be found with a letter wrong, inside a password
	rightFirst = 3 // letters that are right before the wrong one; backwards, the others are
)

// mostLetters is how much of a password is looked at: whoever has so many letters has the points.
const mostLetters = 128

// ErrDamaged is a table that does not hold together.
var ErrDamaged = errors.New("the table of banned words is damaged; remove it, and it is made anew")

// checksum is CRC-32 as Ethernet has it: the hook would make the tables of CRC-32C at each start, which takes as long as closing a box.
func checksum(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// Table is a list of banned words, compiled. It is for one goroutine.
type Table struct {
	tag           [tagSize]byte
	nodes         []byte
	forward, back children
	words         int
	checksum      uint32
	damaged       bool
	mapped        []byte
}

// children are consecutive nodes.
type children struct{ first, count uint32 }

// Open maps the file of a table. The caller closes it.
func Open(path string) (*Table, error) {
	f, err := nopoll.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening banned words: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening banned words: %w", err)
	}
	if info.Size() < int64(headerSize) || info.Size() != int64(int(info.Size())) {
		return nil, fmt.Errorf("opening banned words: %s: %w", path, ErrDamaged)
	}
	mapped, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping banned words: %s: %w", path, err)
	}
	t, err := Read(mapped)
	if err != nil {
		_ = syscall.Munmap(mapped)
		return nil, fmt.Errorf("opening banned words: %s: %w", path, err)
	}
	t.mapped = mapped
	return t, nil
}

// Read takes a table from memory, which must not change as long as it is used.
func Read(b []byte) (*Table, error) {
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return nil, ErrDamaged
	}
	header, numbers := b[:headerSize], b[len(magic)+tagSize:headerSize]
	number := func(i int) uint32 { return binary.LittleEndian.Uint32(numbers[4*i:]) }
	if checksum(header[:headerSize-4]) != number(7) {
		return nil, ErrDamaged
	}
	t := &Table{
		nodes:    b[headerSize:],
		forward:  children{number(1), number(2)},
		back:     children{number(3), number(4)},
		words:    int(number(5)),
		checksum: number(6),
	}
	copy(t.tag[:], b[len(magic):])
	if int64(len(t.nodes)) != int64(number(0))*nodeSize || !t.has(t.forward) || !t.has(t.back) {
		return nil, ErrDamaged
	}
	return t, nil
}

// Close gives the file back. The table must not be used any more.
func (t *Table) Close() error {
	if t.mapped == nil {
		return nil
	}
	b := t.mapped
	t.mapped, t.nodes = nil, nil
	t.forward, t.back = children{}, children{}
	return syscall.Munmap(b)
}

// Tag is what Compile was given.
func (t *Table) Tag() [tagSize]byte { return t.tag }

// Len returns how many words there are, each way of writing one counted.
func (t *Table) Len() int { return t.words }

// Err returns ErrDamaged if a search met nonsense: what it returned then may be too many points.
func (t *Table) Err() error {
	if t.damaged {
		return ErrDamaged
	}
	return nil
}

// Verify reads the whole table.
func (t *Table) Verify() error {
	if checksum(t.nodes) != t.checksum {
		return ErrDamaged
	}
	return nil
}

// Score counts the points of a password: see the package comment.
func (t *Table) Score(password []byte) int {
	folded := fold(password)
	defer folded.clear()
	single, repeated := folded.once()
	defer single.clear()
	letters := single.letters[:min(len(single.letters), mostLetters)]
	found := t.search(letters)
	// points[i] is what the letters from i on are worth.
	points := make([]int, len(letters)+1)
	for i := len(letters) - 1; i >= 0; i-- {
		points[i] = int(single.weights[i]) + points[i+1]
		for end := i + 1; end <= len(letters); end++ {
			if !found.has(i, end) {
				continue
			}
			points[i] = min(points[i], 1+points[end])
			if repeated[end-1] { // contosoorange: the letter that ends the word begins the next
				if end-1 > i {
					points[i] = min(points[i], 1+points[end-1])
				}
			}
		}
	}
	return points[0]
}

// Contains reports whether the password holds the name, in one of the ways of writing it: as it is, or with repeated letters written once if four are left.
func (*Table) Contains(password []byte, name string) bool {
	folded := fold(password)
	defer folded.clear()
	single, _ := folded.once()
	defer single.clear()
	for _, way := range ways(name) {
		f := fold([]byte(way))
		if holds(folded.letters, f.letters) {
			return true
		}
		if s, _ := f.once(); len(s.letters) >= leastWord && holds(single.letters, s.letters) {
			return true
		}
	}
	return false
}

func holds(letters, part []uint16) bool {
	for ; len(part) > 0 && len(letters) >= len(part); letters = letters[1:] {
		if slices.Equal(letters[:len(part)], part) {
			return true
		}
	}
	return false
}

// occurrences tells which parts of a text are words.
type occurrences struct {
	n     int
	marks []bool
}

func (o occurrences) has(from, to int) bool { return o.marks[from*(o.n+1)+to] }
func (o occurrences) note(from, to int)     { o.marks[from*(o.n+1)+to] = true }

// search finds the words in letters.
func (t *Table) search(letters []uint16) occurrences {
	n := len(letters)
	found := occurrences{n, make([]bool, (n+1)*(n+1))}
	s := searching{table: t, letters: letters, rightFirst: rightFirst, leastFuzzy: leastFuzzy}
	for from := range n {
		s.found = func(to int) { found.note(from, to) }
		s.walk(t.forward, from, 0, false)
	}
	if n <= leastFuzzy { // short words, as the whole password
		s.rightFirst, s.leastFuzzy = 0, 1
		s.found = func(to int) {
			if to == n {
				found.note(0, n)
			}
		}
		s.walk(t.forward, 0, 0, false)
	}
	backwards := slices.Clone(letters)
	defer clear(backwards)
	slices.Reverse(backwards)
	s = searching{table: t, letters: backwards, rightFirst: rightFirst, leastFuzzy: leastFuzzy}
	for from := range n {
		s.found = func(to int) { found.note(n-to, n-from) }
		s.walk(t.back, from, 0, false)
	}
	return found
}

// searching is a search for the words that begin at one place.
type searching struct {
	table      *Table
	letters    []uint16
	rightFirst int // letters of the word before one may be wrong
	leastFuzzy int // letters that a word with a wrong one must have
	found      func(to int)
}

// walk goes on at letter at, below a node that is depth letters down; wrong tells whether one letter was wrong already.
func (s *searching) walk(below children, at, depth int, wrong bool) {
	if at < len(s.letters) {
		if n, ok := s.table.child(below, s.letters[at]); ok {
			s.enter(n, at+1, depth+1, wrong)
		}
	}
	if wrong || depth < s.rightFirst {
		return
	}
	for i := range below.count {
		n := s.table.node(below.first + i)
		s.enter(n, at, depth+1, true) // the letter is missing
		if at < len(s.letters) && n.letter != s.letters[at] {
			s.enter(n, at+1, depth+1, true) // it is another
		}
	}
	if at < len(s.letters) && depth > 0 {
		s.walk(below, at+1, depth, true) // there is one too much, inside the word
	}
}

func (s *searching) enter(n node, at, depth int, wrong bool) {
	if n.end && (!wrong || depth >= s.leastFuzzy) {
		s.found(at)
	}
	if n.below.count > 0 {
		s.walk(n.below, at, depth, wrong)
	}
}

// node is one letter of a word.
type node struct {
	letter uint16
	end    bool // a word ends with it
	below  children
}

// node reads one; what makes no sense has no children.
func (t *Table) node(i uint32) node {
	b := t.nodes[int(i)*nodeSize:][:nodeSize]
	first := binary.LittleEndian.Uint32(b[4:])
	n := node{
		letter: binary.LittleEndian.Uint16(b),
		end:    first&wordEnd != 0,
		below:  children{first &^ wordEnd, uint32(binary.LittleEndian.Uint16(b[2:]))},
	}
	if !t.has(n.below) || n.below.count > 0 && n.below.first <= i {
		t.damaged = true
		n.below = children{}
	}
	return n
}

// child finds the one with the letter.
func (t *Table) child(of children, letter uint16) (node, bool) {
	low, high := of.first, of.first+of.count
	for low < high {
		middle := low + (high-low)/2
		switch l := binary.LittleEndian.Uint16(t.nodes[int(middle)*nodeSize:]); {
		case l == letter:
			return t.node(middle), true
		case l < letter:
			low = middle + 1
		default:
			high = middle
		}
	}
	return node{}, false
}

func (t *Table) has(c children) bool {
	return uint64(c.first)+uint64(c.count) <= uint64(len(t.nodes)/nodeSize)
}
