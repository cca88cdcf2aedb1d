package dsdb

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// GUID is a GUID in the byte order in which LDAP returns objectGUID and in
// which NDR encodes it: the first three fields little-endian, the rest as they
// stand ([MS-DTYP] 2.3.4.2). Values compare with == and serve as map keys.
type GUID [16]byte

// textual holds, for each byte of the textual form, its place in a GUID.
var textual = [16]int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15}

// String returns the form "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" in lower case.
func (g GUID) String() string {
	out := make([]byte, 0, 36)
	for i, place := range textual {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			out = append(out, '-')
		}
		out = hex.AppendEncode(out, g[place:place+1])
	}
	return string(out)
}

// ParseGUID reads the form that String writes, in either case.
func ParseGUID(s string) (GUID, error) {
	var g GUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return GUID{}, fmt.Errorf("parsing GUID %q: not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", s)
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return GUID{}, fmt.Errorf("parsing GUID %q: %w", s, err)
	}
	for i, place := range textual {
		g[place] = raw[i]
	}
	return g, nil
}

// GUIDFromBytes takes an attribute value such as objectGUID or invocationId;
// anything but 16 bytes is an error.
func GUIDFromBytes(b []byte) (GUID, error) {
	if len(b) != 16 {
		return GUID{}, errors.New("reading GUID: not 16 bytes")
	}
	return GUID(b), nil
}

// IsZero reports whether g is the null GUID.
func (g GUID) IsZero() bool { return g == GUID{} }

// Compare orders GUIDs as Samba's replication does (GUID_compare in
// librpc/ndr/uuid.c): field by field, the first three as numbers. This is the
// order of the textual form, not that of the bytes.
func (g GUID) Compare(other GUID) int {
	for _, field := range [...][2]uint32{
		{binary.LittleEndian.Uint32(g[0:]), binary.LittleEndian.Uint32(other[0:])},
		{uint32(binary.LittleEndian.Uint16(g[4:])), uint32(binary.LittleEndian.Uint16(other[4:]))},
		{uint32(binary.LittleEndian.Uint16(g[6:])), uint32(binary.LittleEndian.Uint16(other[6:]))},
	} {
		if field[0] != field[1] {
			if field[0] < field[1] {
				return -1
			}
			return 1
		}
	}
	return bytes.Compare(g[8:], other[8:])
}

// MarshalText implements encoding.TextMarshaler with String's form.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseGUID.
func (g *GUID) UnmarshalText(text []byte) error {
	parsed, err := ParseGUID(string(text))
	if err != nil {
		return err
	}
	*g = parsed
	return nil
}
