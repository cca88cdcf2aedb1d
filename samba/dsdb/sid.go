package dsdb

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// maxSubAuthorities is the most that a SID may have ([MS-DTYP] 2.4.2.2).
const maxSubAuthorities = 15

// SID is a security identifier as text: "S-1-5-32-544".
type SID string

// ParseSID reads a SID as LDAP returns it ([MS-DTYP] 2.4.2.2): revision 1, the
// number of sub-authorities, a big-endian authority of 6 bytes, and each
// sub-authority as a little-endian uint32.
func ParseSID(b []byte) (SID, error) {
	if len(b) < 8 || b[0] != 1 || b[1] > maxSubAuthorities || len(b) != 8+4*int(b[1]) {
		return "", errors.New("parsing SID: malformed")
	}
	var authority [8]byte
	copy(authority[2:], b[2:8])
	var text strings.Builder
	text.WriteString("S-1-" + strconv.FormatUint(binary.BigEndian.Uint64(authority[:]), 10))
	for b = b[8:]; len(b) > 0; b = b[4:] {
		text.WriteString("-" + strconv.FormatUint(uint64(binary.LittleEndian.Uint32(b)), 10))
	}
	return SID(text.String()), nil
}

// Protected reports whether the SID is that of a group whose members AD
// protects, because they can become administrators ([MS-ADTS] 3.1.1.6.1.2):
// Administrators, the Operators, Replicator; and in any domain Domain Admins,
// Domain Controllers, Schema Admins, Enterprise Admins, Read-only Domain
// Controllers.
func (s SID) Protected() bool {
	if rid, ok := strings.CutPrefix(string(s), "S-1-5-32-"); ok {
		switch rid {
		case "544", "548", "549", "550", "551", "552":
			return true
		}
		return false
	}
	if !strings.HasPrefix(string(s), "S-1-5-21-") {
		return false
	}
	switch s[strings.LastIndexByte(string(s), '-')+1:] {
	case "512", "516", "518", "519", "521":
		return strings.Count(string(s), "-") == 7
	}
	return false
}
