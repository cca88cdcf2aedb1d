package survey

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// years is how many years back people's passwords name one.
const years = 12

// guesser makes of a word what people make of it when a policy asks for more: another case, look-alikes, and something at its end.
type guesser struct {
	ends [][]byte // UTF-16LE
	text []byte   // of one guess; used again for the next
}

// lookAlikes are replaced together: who replaces one letter does so throughout.
var lookAlikes = []*strings.Replacer{
	strings.NewReplacer("a", "@", "A", "@"),
	strings.NewReplacer("o", "0", "O", "0"),
	strings.NewReplacer("a", "@", "A", "@", "o", "0", "O", "0"),
	strings.NewReplacer("a", "4", "A", "4", "e", "3", "E", "3", "i", "1", "I", "1", "o", "0", "O", "0"),
	strings.NewReplacer("a", "@", "A", "@", "e", "3", "E", "3", "i", "1", "I", "1", "o", "0", "O", "0", "s", "$", "S", "$"),
}

func newGuesser(now time.Time) *guesser {
	ends := []string{"", "!", "?", ".", "*", "#", "$", "!!"}
	for _, digits := range []string{"0", "1", "01", "11", "12", "123", "1234", "12345", "123456", "007"} {
		ends = append(ends, digits, digits+"!", digits+"?", digits+".", "!"+digits, "@"+digits, "-"+digits, "_"+digits, "."+digits)
	}
	for year := now.Year() - years; year <= now.Year()+1; year++ { // the next year's is set in December
		digits, short := strconv.Itoa(year), fmt.Sprintf("%02d", year%100)
		ends = append(ends, digits, digits+"!", digits+"?", digits+".", "!"+digits, "@"+digits, "-"+digits, "_"+digits, "."+digits, "#"+digits, short, short+"!")
	}
	slices.Sort(ends)
	g := &guesser{}
	for _, end := range slices.Compact(ends) {
		g.ends = append(g.ends, checkpassword.UTF16LE([]byte(end)))
	}
	return g
}

// guesses yields the NT hashes of what people make of a word.
func (g *guesser) guesses(word string) iter.Seq[[16]byte] {
	return func(yield func([16]byte) bool) {
		for _, form := range forms(word) {
			g.text = append(g.text[:0], checkpassword.UTF16LE([]byte(form))...)
			n := len(g.text)
			for _, end := range g.ends {
				g.text = append(g.text[:n], end...)
				if !yield(dsdb.NTHash(g.text)) {
					return
				}
			}
		}
	}
}

// forms returns the ways in which a word is written.
func forms(word string) []string {
	first, size := utf8.DecodeRuneInString(word)
	all := []string{word, strings.ToLower(word), strings.ToUpper(word), string(unicode.ToUpper(first)) + strings.ToLower(word[size:])}
	for _, form := range all[:len(all):len(all)] {
		for _, replace := range lookAlikes {
			all = append(all, replace.Replace(form))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// maxWord is longer than any password may be.
const maxWord = 4096

// words yields the words of a text: one a line, blanks around it left out, and remarks, which begin with "#".
func words(r io.Reader) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxWord)
		number := 0
		for lines.Scan() {
			number++
			line := lines.Bytes()
			if number == 1 {
				line = bytes.TrimPrefix(line, []byte("\uFEFF")) // as some editors begin a file
			}
			line = bytes.TrimSpace(line)
			switch {
			case len(line) == 0 || line[0] == '#':
			case !utf8.Valid(line):
				yield("", fmt.Errorf("line %d is not UTF-8: convert the file, for instance with iconv", number))
				return
			default:
				if !yield(string(line), nil) {
					return
				}
			}
		}
		if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
			yield("", fmt.Errorf("line %d is longer than %d bytes: give a text with one word in each line", number+1, maxWord))
		} else if err != nil {
			yield("", err)
		}
	}
}
