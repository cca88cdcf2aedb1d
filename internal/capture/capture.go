// Package capture is the form of what the hook took: a header in clear and two closed boxes.
//
// What: a capture is one file in spool/incoming. The proof box, sealed to the agent, holds what the directory is to confirm
// (internal/proof/box); the secret box, sealed to the forwarder, holds the password. This package knows the bytes and never the
// contents.
//
// Bytes, all integers big-endian:
//
//	8   "pwsync" 0x00 0x01       magic and format version
//	16  capture ID               random
//	8   time                     nanoseconds since 1970, the hook's clock
//	2+n host, 2+n account, 2+n userPrincipalName, 2+n full name    UTF-8, each at most 1,024 bytes, empty if not given
//	--- the header ends here
//	4+n proof box
//	4+n secret box
//
// Each box is closed with info = the header and one byte that tells the two apart. So a box opens only for the account, host,
// time and ID that it was made for: nobody can put alice's box under the name of the chief executive.
//
// The file's name sorts by time, and ends in whose capture it is, as far as that has to be known without opening it: Excess says which files
// have to go where too many wait.
//
// An attacker who can write here can make captures of his own: the header authenticates nobody. The directory's proof does
// (internal/proof). Damage of any kind shows as an error of Parse or of seal.Open.
package capture

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/internal/seal"
)

const (
	magic = "pwsync\x00\x01"

	// Suffix ends the name of every capture's file.
	Suffix = ".capture"

	// MaxName bounds each name in a header, in bytes. AD's own limits are far below.
	MaxName = 1024

	// MaxSize bounds a capture's file, in bytes.
	MaxSize = len(magic) + 16 + 8 + 4*(2+MaxName) + 2*(4+seal.MaxBox)
)

// ErrDamaged means that the bytes are no whole capture: torn by a crash, still being written, or not ours.
var ErrDamaged = errors.New("not a whole capture")

// ID names a capture: 16 random bytes.
type ID [16]byte

// NewID draws an ID.
func NewID() (id ID) {
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails: it ends the program instead
	return id
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Header says whose password a capture claims to hold, and when and where it was taken.
type Header struct {
	ID                ID
	Time              time.Time // resolution 1 ns
	Host              string
	Account           string // sAMAccountName as Samba gave it; may be empty, and may be any caller's claim
	UserPrincipalName string // may be empty
	FullName          string // may be empty
}

// Doubtful reports whether it may be nobody's change: Samba names neither user principal name nor full name. So it does for
// SamrValidatePassword, which changes nothing and which anybody may call; for an account that has neither of the two; and before 4.11 always.
func (h Header) Doubtful() bool { return h.UserPrincipalName == "" && h.FullName == "" }

// FileName is the name of the capture's file: it sorts by time, and of two captures tells whether they claim the same account (nearly always: by a
// sum of 32 bits), and whether they are doubtful.
func (h Header) FileName() string {
	return fmt.Sprintf("%020d-%s-%s%s", h.Time.UnixNano(), h.ID, h.kin(), Suffix)
}

// Marshal returns the header's bytes. Names that are too long or no UTF-8 are an error.
func (h Header) Marshal() ([]byte, error) {
	b := make([]byte, 0, 128)
	b = append(b, magic...)
	b = append(b, h.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Time.UnixNano()))
	for _, name := range []string{h.Host, h.Account, h.UserPrincipalName, h.FullName} {
		if len(name) > MaxName || !utf8.ValidString(name) {
			return nil, fmt.Errorf("encoding capture: a name of %d bytes is too long or no UTF-8", len(name))
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
	}
	return b, nil
}

// ProofInfo is what binds a proof box to the marshalled header.
func ProofInfo(header []byte) []byte { return append(bytes.Clone(header), 'P') }

// SecretInfo is what binds a secret box to the marshalled header.
func SecretInfo(header []byte) []byte { return append(bytes.Clone(header), 'S') }

// Encode puts a capture's file together.
func Encode(header, proofBox, secretBox []byte) []byte {
	b := make([]byte, 0, len(header)+8+len(proofBox)+len(secretBox))
	b = append(b, header...)
	for _, box := range [][]byte{proofBox, secretBox} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(box)))
		b = append(b, box...)
	}
	return b
}

// Capture is a parsed file.
type Capture struct {
	Header
	Raw       []byte // the marshalled header: what the boxes are bound to
	ProofBox  []byte
	SecretBox []byte
}

// Parse reads a capture's file. The slices of the result share b's memory. Error: ErrDamaged.
func Parse(b []byte) (Capture, error) {
	var c Capture
	if len(b) > MaxSize {
		return c, fmt.Errorf("%w: %d bytes", ErrDamaged, len(b))
	}
	header, rest, err := parseHeader(b)
	if err != nil {
		return c, err
	}
	c.Header, c.Raw = header, b[:len(b)-len(rest)]
	for _, box := range []*[]byte{&c.ProofBox, &c.SecretBox} {
		if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return Capture{}, fmt.Errorf("%w: a box is cut off", ErrDamaged)
		}
		n := int(binary.BigEndian.Uint32(rest))
		*box, rest = rest[4:4+n], rest[4+n:]
	}
	if len(rest) != 0 {
		return Capture{}, fmt.Errorf("%w: %d bytes follow the end", ErrDamaged, len(rest))
	}
	return c, nil
}

// ParseHeader reads a marshalled header and nothing after it. Error: ErrDamaged.
func ParseHeader(b []byte) (Header, error) {
	h, rest, err := parseHeader(b)
	if err == nil && len(rest) != 0 {
		err = fmt.Errorf("%w: %d bytes follow the header", ErrDamaged, len(rest))
	}
	return h, err
}

func parseHeader(b []byte) (h Header, rest []byte, err error) {
	const fixed = len(magic) + len(h.ID) + 8
	if len(b) < fixed || string(b[:len(magic)]) != magic {
		return Header{}, nil, fmt.Errorf("%w: magic is missing", ErrDamaged)
	}
	h.ID = ID(b[len(magic):])
	h.Time = time.Unix(0, int64(binary.BigEndian.Uint64(b[fixed-8:]))).UTC()
	rest = b[fixed:]
	for _, name := range []*string{&h.Host, &h.Account, &h.UserPrincipalName, &h.FullName} {
		if len(rest) < 2 {
			return Header{}, nil, fmt.Errorf("%w: a name is cut off", ErrDamaged)
		}
		n := int(binary.BigEndian.Uint16(rest))
		if n > MaxName || n > len(rest)-2 || !utf8.Valid(rest[2:2+n]) {
			return Header{}, nil, fmt.Errorf("%w: a name is cut off, too long or no UTF-8", ErrDamaged)
		}
		*name, rest = string(rest[2:2+n]), rest[2+n:]
	}
	return h, rest, nil
}

// IsFile reports whether a file's name is a capture's.
func IsFile(name string) bool { return strings.HasSuffix(name, Suffix) }
