package importer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
)

// longest is what a line may have: 40 digits, a colon, a count of 20 digits, a carriage return and a newline, and some blanks.
const longest = 128

// prefixDigits is how many digits stand in the name of a range file, and not in its lines.
const prefixDigits = 5

// ErrList says that a list of hashes is not as it has to be: a line that is none, lines out of order, kinds that are mixed.
var ErrList = errors.New("a list of hashes is not as it has to be")

// listError is an ErrList with the place of the fault.
type listError struct {
	file string
	line uint64 // 0: not counted, because the list was read from its middle
	at   int64  // where the line begins, in bytes
	text string
}

func (e *listError) Error() string {
	switch {
	case e.line > 0:
		return fmt.Sprintf("%s:%d: %s", e.file, e.line, e.text)
	case e.at > 0:
		return fmt.Sprintf("%s: %d bytes into it: %s", e.file, e.at, e.text)
	}
	return e.file + ": " + e.text
}

func (e *listError) Is(target error) bool { return target == ErrList }

// record is a line: a hash, of which the first bytes of the kind's size count, and how often it was seen.
type record struct {
	hash  [20]byte
	count uint64
}

var errLine = errors.New("this is no line of the form HASH:COUNT, with a hash of 40 (SHA-1) or 32 (NTLM) hexadecimal digits")

var errPrefix = errors.New("this hash lacks its first five digits, as in the downloader's range files, and the file's name, which is to be like 0A1B2.txt, does not tell them")

// nibbles holds the value of each hexadecimal digit, and 0xFF for what is none.
var nibbles = func() (table [256]byte) {
	for i := range table {
		table[i] = 0xFF
	}
	for i := range 10 {
		table['0'+i] = byte(i)
	}
	for i := range 6 {
		table['a'+i], table['A'+i] = byte(10+i), byte(10+i)
	}
	return table
}()

// parseLine reads a line without its newline: HASH:COUNT, or HASH, which counts as seen once. The prefix stands before the hash in the name of a
// range file, else it is empty. digits is how many the hash has with it.
func parseLine(line, prefix []byte, r *record) (digits int, err error) {
	line = bytes.TrimRight(line, " \t\r")
	hash := line
	r.count = 1
	if colon := bytes.IndexByte(line, ':'); colon >= 0 {
		hash = line[:colon]
		if r.count, err = parseCount(line[colon+1:]); err != nil {
			return 0, err
		}
	}
	digits = len(prefix) + len(hash)
	if _, short := kindOf(digits + prefixDigits); short && len(prefix) == 0 {
		return 0, errPrefix
	}
	if digits > 2*len(r.hash) || digits%2 != 0 || digits == 0 {
		return 0, errLine
	}
	if len(prefix) > 0 {
		var whole [2 * len(r.hash)]byte
		copy(whole[copy(whole[:], prefix):], hash)
		hash = whole[:digits]
	}
	var wrong byte
	for i := range digits / 2 {
		high, low := nibbles[hash[2*i]], nibbles[hash[2*i+1]]
		wrong |= high | low
		r.hash[i] = high<<4 | low&0xF
	}
	if wrong == 0xFF {
		return 0, errLine
	}
	return digits, nil
}

func parseCount(text []byte) (uint64, error) {
	if len(text) == 0 || len(text) > 18 {
		return 0, errLine
	}
	var count uint64
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, errLine
		}
		count = count*10 + uint64(c-'0')
	}
	return count, nil
}

// kindOf returns the kind of hashes of so many digits.
func kindOf(digits int) (breached.Kind, bool) {
	for _, kind := range []breached.Kind{breached.SHA1, breached.NTLM} {
		if digits == 2*kind.Size() {
			return kind, true
		}
	}
	return 0, false
}

// lines reads one file, line by line.
type lines struct {
	name   string
	file   *os.File
	buf    *bufio.Reader
	prefix []byte // of a range file

	line uint64 // number of the last line; 0 when the file was not begun at its start
	at   int64  // where the last line begins
	next int64  // and where it ends
}

const readAhead = 1 << 20

func openLines(name string, prefix []byte) (*lines, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("opening list: %w", err)
	}
	return &lines{name: name, file: file, buf: bufio.NewReaderSize(file, readAhead), prefix: prefix}, nil
}

// reopen reads another file, with the same buffer.
func (l *lines) reopen(name string, prefix []byte) error {
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("opening list: %w", err)
	}
	if err := l.file.Close(); err != nil {
		return errors.Join(fmt.Errorf("closing list: %w", err), file.Close())
	}
	l.buf.Reset(file)
	*l = lines{name: name, file: file, buf: l.buf, prefix: prefix}
	return nil
}

// read returns the digits of the next line's hash, and io.EOF after the last. Empty lines are passed over.
func (l *lines) read(r *record) (digits int, err error) {
	for {
		text, err := l.buf.ReadSlice('\n')
		if err != nil && (err != io.EOF || len(text) == 0) {
			switch {
			case err == io.EOF:
				return 0, io.EOF
			case errors.Is(err, bufio.ErrBufferFull):
				return 0, l.fault(errLine.Error())
			}
			return 0, fmt.Errorf("reading list %s: %w", l.name, err)
		}
		l.at = l.next
		l.next += int64(len(text))
		if l.line > 0 || l.at == 0 { // not after seek, unless that found the beginning
			l.line++
		}
		if len(text) > longest {
			return 0, l.fault(errLine.Error())
		}
		if err == nil {
			text = text[:len(text)-1]
		}
		if len(text) == 0 || len(text) == 1 && text[0] == '\r' {
			continue
		}
		digits, err := parseLine(text, l.prefix, r)
		if err != nil {
			return 0, l.fault(err.Error())
		}
		return digits, nil
	}
}

// fault is an error about the last line. It does not repeat it: a list of passwords in clear may have been named by mistake.
func (l *lines) fault(text string) error { return &listError{l.name, l.line, l.at, text} }

// seek goes to the first line whose hash is not below the one given, and takes for granted that the file is in order.
func (l *lines) seek(hash []byte) error {
	info, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("looking at list: %w", err)
	}
	// Lines that begin at low or before it are below; one that begins at high or after it is not.
	low, high := int64(-1), info.Size()
	for high-low > 1 {
		middle := low + (high-low)/2
		at, below, err := l.probe(middle, high, hash)
		if err != nil {
			return err
		}
		if below {
			low = at
		} else {
			high = middle
		}
	}
	// The line that begins at low is the last one that is below; what comes after it is wanted.
	if _, err := l.file.Seek(max(low, 0), io.SeekStart); err != nil {
		return fmt.Errorf("reading list %s: %w", l.name, err)
	}
	l.buf.Reset(l.file)
	l.line, l.at, l.next = 0, max(low, 0), max(low, 0)
	if low < 0 {
		return nil
	}
	text, err := l.buf.ReadSlice('\n')
	if err != nil && err != io.EOF {
		return fmt.Errorf("reading list %s: %w", l.name, err)
	}
	l.next += int64(len(text))
	return nil
}

// probe looks at the first line that begins at offset from or later, but before end: where it begins, and whether its hash is below the one given. If there
// is none, nothing is.
func (l *lines) probe(from, end int64, hash []byte) (at int64, below bool, err error) {
	// One byte more tells whether a line begins at from itself; the rest has room for the end of one line, and two more.
	begin := max(from-1, 0)
	window := make([]byte, 3*longest)
	n, err := l.file.ReadAt(window, begin)
	if err != nil && err != io.EOF {
		return 0, false, fmt.Errorf("reading list %s: %w", l.name, err)
	}
	rest, at := window[:n], begin
	if from > 0 {
		rest, at = cutLine(rest, at)
	}
	for at < end && len(rest) > 0 {
		text := rest
		if newline := bytes.IndexByte(rest, '\n'); newline >= 0 {
			text = rest[:newline]
		}
		if len(bytes.TrimSpace(text)) == 0 {
			rest, at = cutLine(rest, at)
			continue
		}
		var r record
		if _, err := parseLine(text, l.prefix, &r); err != nil {
			return 0, false, &listError{file: l.name, at: at, text: err.Error()}
		}
		return at, bytes.Compare(r.hash[:len(hash)], hash) < 0, nil
	}
	return 0, false, nil
}

// cutLine returns what follows the first newline, and where it begins.
func cutLine(text []byte, at int64) ([]byte, int64) {
	newline := bytes.IndexByte(text, '\n')
	if newline < 0 {
		return nil, at + int64(len(text))
	}
	return text[newline+1:], at + int64(newline) + 1
}

// prefixOf returns the five digits that name a range file: 0A1B2.txt from the downloader, 0A1B2 as Have I Been Pwned's address of it ends.
func prefixOf(base string) ([]byte, bool) {
	digits := bytes.TrimSuffix([]byte(base), []byte(".txt"))
	if len(digits) != prefixDigits {
		return nil, false
	}
	if _, err := strconv.ParseUint(string(digits), 16, 32); err != nil {
		return nil, false
	}
	return digits, true
}
