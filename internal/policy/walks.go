package policy

import (
	"slices"
	"strings"
	"unicode"
)

// How many characters make a run: fewer come together by chance. TestRandomIsNoWalk holds how often.
const (
	leastRun     = 4 // along a row or column of keys, or the alphabet; three, if they are one of the triples
	leastDigits  = 3 // 123
	leastRepeat  = 3 // aaa
	leastRounds  = 3 // ababab
	mostGroup    = 3 // the "ab" of it
	leastTwofold = 7 // 1q2w3e4
	leastStroll  = 8 // from key to neighbouring key, whichever way: qwedsazx
	leastCopied  = 4 // a part that is written again
	mostWalked   = 256
)

// walks refuses what is typed without thinking of anything. In words:
//
// A run is a straight walk over neighbouring keys (qwertz, 1qaz, also with shift), a piece of the alphabet or of the digits, forwards or backwards
// (abcd, 321), one to three characters again and again (aaa, 121212), or two such by turns (1q2w3e4r, 11223344), or a longer walk with turns (qwedsazx).
// Each run counts as one character. A part of four and more characters that is written again right after itself does not count again. A password that
// then has no more than half of the characters that are the least is refused: with min_length = 8, Qwertz12 (qwertz, 1, 2) and Abc123!! (abc, 123, !, !),
// but not Test1234 (T, e, s, t, 1234).
//
// A password that is too short without what is written again is refused also where it has no runs: Winter!Winter!
func walks(password []byte, shortest int) []Reason {
	text := fold(password)
	defer clear(text)
	text = text[:min(len(text), mostWalked)] // what is longer, no policy allows
	var reasons []Reason
	copied := copies(text)
	if least(copied, longestRuns(text)) <= shortest/2 {
		reasons = append(reasons, "it is little more than neighbouring keys, sequences and repeats")
	}
	if n := least(copied, nil); n < len(text) && n < shortest {
		reasons = append(reasons, "it repeats itself, and is too short without that")
	}
	return reasons
}

// least counts the characters of a text, each run as one, and what is written again not again; where that can be done in several ways,
// it is the least. Without runs, none is looked for.
func least(copied [][]int, runs []int) int {
	rest := make([]int, len(copied)) // from here to the end
	for at := len(rest) - 2; at >= 0; at-- {
		rest[at] = 1 + rest[at+1]
		if runs != nil {
			for n := runs[at]; n >= leastRepeat; n-- { // a run may end earlier, for the next to begin
				rest[at] = min(rest[at], 1+rest[at+n])
			}
		}
		for _, n := range copied[at] {
			rest[at] = min(rest[at], rest[at+n])
		}
	}
	return rest[0]
}

// copies tells for each place in text how long the parts are that end there and are written again from there on.
func copies(text []rune) [][]int {
	found := make([][]int, len(text)+1)
	for distance := leastCopied; distance <= len(text)/2; distance++ {
		same := 0 // characters from here on that are the same as those so far behind them
		for at := len(text) - distance - 1; at >= 0; at-- {
			if same++; text[at] != text[at+distance] {
				same = 0
			}
			if same >= distance {
				found[at+distance] = append(found[at+distance], distance)
			}
		}
	}
	return found
}

// longestRuns returns how long the longest run is that begins at each character; less than leastRepeat is none.
func longestRuns(text []rune) []int {
	longest := make([]int, len(text))
	note := func(at, n, least int) {
		if n >= least {
			longest[at] = max(longest[at], n)
		}
	}
	turns := make([]int, len(text)) // the longest straight run of every second character
	keys := make([]key, len(text))
	defer clear(keys)
	for alphabet := -1; alphabet < len(layouts); alphabet++ { // -1 is the alphabet itself
		way := func(a, b int) step { return follows(text[a], text[b]) }
		if alphabet >= 0 {
			for i, r := range text {
				keys[i] = layouts[alphabet].find(r)
			}
			way = func(a, b int) step { return keys[a].to(keys[b]) }
		}
		for at, n := range straight(len(text), 1, way) {
			switch {
			case alphabet < 0 && n > 1 && way(at, at+1) == again:
				note(at, n, leastRepeat)
			case alphabet < 0 && isDigit(text[at]):
				note(at, n, leastDigits)
			default:
				note(at, n, leastRun)
			}
		}
		for at, n := range straight(len(text), 2, way) {
			turns[at] = max(turns[at], n)
		}
		if alphabet >= 0 {
			stroll := 1
			for at := len(text) - 2; at >= 0; at-- {
				if stroll++; way(at, at+1) == 0 {
					stroll = 1
				}
				note(at, stroll, leastStroll)
			}
		}
	}
	for at := range text {
		if at+1 < len(text) {
			// The second begins one later, so it must have as many, or one fewer.
			note(at, min(2*turns[at], 2*turns[at+1]+1), leastTwofold)
		}
		if at+3 <= len(text) && isTriple(text[at:at+3]) {
			note(at, 3, 3)
		}
		for group := 2; group <= mostGroup; group++ {
			n := group
			for at+n < len(text) && text[at+n] == text[at+n-group] {
				n++
			}
			note(at, n, leastRounds*group)
		}
	}
	return longest
}

// straight returns for each of n characters how many follow each other the same way from there on, looking at every stride-th.
func straight(n, stride int, way func(a, b int) step) []int {
	lengths, ways := make([]int, n), make([]step, n)
	for at := n - 1; at >= 0; at-- {
		lengths[at] = 1
		next := at + stride
		if next >= n {
			continue
		}
		if ways[at] = way(at, next); ways[at] == 0 {
			continue
		}
		lengths[at] = 2
		if ways[next] == ways[at] {
			lengths[at] = lengths[next] + 1
		}
	}
	return lengths
}

// step is the way from a character to the one that follows; 0 is no way.
type step int8

const again step = 100

// follows returns which way b lies from a in the alphabet of either, or among the digits, where 9 and 0 are neighbours.
func follows(a, b rune) step {
	switch {
	case a == b:
		return again
	case isDigit(a) && isDigit(b):
		switch (b - a + 10) % 10 {
		case 1:
			return 1
		case 9:
			return -1
		}
	case (b-a == 1 || b-a == -1) && unicode.IsLetter(a) && unicode.IsLetter(b):
		return step(b - a)
	}
	return 0
}

func isDigit(r rune) bool { return '0' <= r && r <= '9' }

func isTriple(three []rune) bool {
	if slices.Contains(three, ' ') {
		return false
	}
	backwards := [...]rune{three[2], three[1], three[0]}
	return strings.Contains(triples, string(three)) || strings.Contains(triples, string(backwards[:]))
}
