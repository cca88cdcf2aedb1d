// Package canary looks for passwords where none may be: in logs, files, archives, command lines and environments, in every shape in
// which a careless program would have left them.
//
// Shapes: UTF-8, UTF-16LE (what Samba and LDAP carry), the NT hash, each of them also in hex and base64 (wherever in a base64
// text it lies), and the password as URLs, JSON, HTML, C and shells would write it.
//
// What it does not solve: a password that was encrypted, compressed or cut into pieces looks like noise, here as anywhere.
package canary

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Finding is a password where none may be. It does not tell the password.
type Finding struct {
	Where    string
	Offset   int64
	Password int    // index into what New was given
	Shape    string // "base64 of UTF-16LE"
}

func (f Finding) String() string {
	return fmt.Sprintf("password %d as %s at byte %d of %s", f.Password, f.Shape, f.Offset, f.Where)
}

// Shortest is the length in bytes that a password must have to be looked for: shorter ones would be found by chance.
const Shortest = 6

// Search looks for a set of passwords. It may be used concurrently.
type Search struct {
	// Almost every position of a text is dismissed by one look at the bitmap, whose index is made of the window, the next
	// Shortest bytes; so thousands of needles cost no more than one.
	bitmap  [1 << bits / 64]uint64
	needles map[uint64][]needle // by window
	longest int
	buffers sync.Pool // of *[]byte: most of what is read is small
}

type needle struct {
	bytes    []byte
	password int
	shape    string
}

const bits = 22

func bit(window uint64) uint64 { return window * 0x9e3779b97f4a7c15 >> (64 - bits) } // Fibonacci hashing

// New prepares a search. A password shorter than Shortest is an error: better not used in a test than not looked for.
func New(passwords []string) (*Search, error) {
	s := &Search{needles: map[uint64][]needle{}}
	for i, password := range passwords {
		if len(password) < Shortest {
			return nil, fmt.Errorf("preparing a search: password %d is shorter than %d bytes", i, Shortest)
		}
		for shape, texts := range shapes(password) {
			for _, text := range texts {
				var window uint64
				for _, b := range text[:Shortest] {
					window = window>>8 | uint64(b)<<(8*(Shortest-1))
				}
				s.bitmap[bit(window)/64] |= 1 << (bit(window) % 64)
				if !slices.ContainsFunc(s.needles[window], func(n needle) bool { return bytes.Equal(n.bytes, text) }) {
					s.needles[window] = append(s.needles[window], needle{text, i, shape})
				}
				s.longest = max(s.longest, len(text))
			}
		}
	}
	s.buffers.New = func() any {
		buffer := make([]byte, max(1<<18, 2*s.longest))
		return &buffer
	}
	return s, nil
}

// Scan reads r to its end and returns what it found, and how many bytes it read. Where names r in findings.
func (s *Search) Scan(where string, r io.Reader) (found []Finding, size int64, err error) {
	lent := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(lent)
	buffer := *lent
	kept := 0
	for {
		n, err := io.ReadFull(r, buffer[kept:])
		end := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !end {
			return found, size, fmt.Errorf("reading %s: %w", where, err)
		}
		data := buffer[:kept+n]
		starts := len(data) // a needle that starts here or later is for the next round
		if !end {
			starts -= s.longest
		}
		found = append(found, s.scan(where, size, data, starts)...)
		if end {
			return found, size + int64(len(data)), nil
		}
		size += int64(starts)
		kept = copy(buffer, data[starts:])
	}
}

// ScanTar reads a tar archive to its end: the names in it and the contents of every file. Findings name the file.
func (s *Search) ScanTar(where string, r io.Reader) (found []Finding, size int64, err error) {
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			// What follows the end of an archive is padding; its writer may want to be rid of it.
			_, err := io.Copy(io.Discard, r)
			return found, size, err
		}
		if err != nil {
			return found, size, fmt.Errorf("reading %s: %w", where, err)
		}
		for _, part := range []io.Reader{strings.NewReader(header.Name + "\x00" + header.Linkname), archive} {
			f, n, err := s.Scan(where+":/"+header.Name, part)
			found, size = append(found, f...), size+n
			if err != nil {
				return found, size, err
			}
		}
	}
}

func (s *Search) scan(where string, offset int64, data []byte, starts int) (found []Finding) {
	var window uint64
	for i, b := range data {
		window = window>>8 | uint64(b)<<(8*(Shortest-1))
		h := bit(window)
		if s.bitmap[h/64]&(1<<(h%64)) == 0 || i < Shortest-1 {
			continue
		}
		start := i - (Shortest - 1)
		if start >= starts {
			break
		}
		for _, n := range s.needles[window] {
			if bytes.HasPrefix(data[start:], n.bytes) {
				found = append(found, Finding{where, offset + int64(start), n.password, n.shape})
			}
		}
	}
	return found
}

// shapes returns the byte strings by which a password would be recognised.
func shapes(password string) map[string][][]byte {
	clear := []byte(password)
	var wide []byte
	for _, unit := range utf16.Encode([]rune(password)) {
		wide = append(wide, byte(unit), byte(unit>>8))
	}
	hash := dsdb.NTHash(wide)

	all := map[string][][]byte{"UTF-8": {clear}}
	for name, raw := range map[string][]byte{"UTF-8": clear, "UTF-16LE": wide, "NT hash": hash[:]} {
		all[name] = [][]byte{raw}
		lower := hex.EncodeToString(raw)
		all["hex of "+name] = [][]byte{[]byte(lower), []byte(strings.ToUpper(lower))}
		all["base64 of "+name] = append(inBase64(base64.RawStdEncoding, raw), inBase64(base64.RawURLEncoding, raw)...)
	}

	escaped := func(name string, texts ...string) {
		for _, text := range texts {
			all[name] = append(all[name], []byte(text))
		}
	}
	every := "%" + strings.Join(pairs(hex.EncodeToString(clear)), "%")
	escaped("URL", url.QueryEscape(password), url.PathEscape(password), every, strings.ToUpper(every))
	quoted, _ := json.Marshal(password) // a string always marshals
	escaped("JSON", unquoted(string(quoted)), plainJSON(password))
	escaped("HTML", html.EscapeString(password))
	escaped("C string", unquoted(strconv.Quote(password)))
	escaped("shell word", strings.ReplaceAll(password, `'`, `'\''`), strings.ReplaceAll(password, `'`, `'"'"'`))
	return all
}

// inBase64 returns the characters that raw leaves in a base64 text, for each of the three places in a group of three bytes where
// it may begin. The characters at its ends, which neighbours share, are left out.
func inBase64(encoding *base64.Encoding, raw []byte) [][]byte {
	var cores [][]byte
	for before := range 3 {
		text := encoding.EncodeToString(append(make([]byte, before), raw...))
		from, to := (before*8+5)/6, (before+len(raw))*8/6
		cores = append(cores, []byte(text[from:to]))
	}
	return cores
}

func pairs(hex string) []string {
	var out []string
	for i := 0; i < len(hex); i += 2 {
		out = append(out, hex[i:i+2])
	}
	return out
}

// plainJSON is JSON as other languages write it, without Go's care for HTML.
func plainJSON(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string into memory: cannot fail
	return unquoted(strings.TrimSuffix(b.String(), "\n"))
}

func unquoted(s string) string { return s[1 : len(s)-1] }
