package dsdb

import (
	"encoding/binary"
	"errors"
	"time"
)

// Cursor says how far one DC's changes have arrived: all that the database
// InvocationID originated up to and including its USN ([MS-DRSR] 5.202 and
// 5.203, UPTODATE_CURSOR_V1 and V2).
type Cursor struct {
	InvocationID GUID
	USN          uint64

	// LastSync is when the database itself was last heard, directly or not; zero
	// in version 1. Samba writes the beginning of 1970 for the DC that it pulls
	// from (seen from 4.13 to 4.25): RepsFrom has the time of that.
	LastSync time.Time
}

// Errors of ParseReplUpToDateVector.
var (
	errCursorsLength  = errors.New("decoding replUpToDateVector: its length does not fit its count")
	errCursorsVersion = errors.New("decoding replUpToDateVector: neither version 1 nor 2")
)

// ParseReplUpToDateVector decodes a value of the attribute replUpToDateVector,
// which a DC keeps at the head of each naming context ([MS-DRSR] 5.166), in the
// stored order: replUpToDateVectorBlob of Samba's librpc/idl/drsblobs.idl, little-endian:
//
//	 0  version (1 or 2)   4  reserved   8  count  12  reserved
//	16  count times 24 bytes, or 32 in version 2:
//	     0  invocationId  16  USN  24  time of the last sync, a FILETIME
//
// The DC whose attribute it is has no cursor for itself. A value that is too
// short, too long or of another version is an error.
func ParseReplUpToDateVector(b []byte) ([]Cursor, error) {
	const header = 16
	if len(b) < header {
		return nil, errCursorsLength
	}
	version := binary.LittleEndian.Uint32(b)
	if version != 1 && version != 2 {
		return nil, errCursorsVersion
	}
	size := map[uint32]uint64{1: 24, 2: 32}[version]
	count := uint64(binary.LittleEndian.Uint32(b[8:]))
	if uint64(len(b)) != header+size*count {
		return nil, errCursorsLength
	}
	cursors := make([]Cursor, count)
	for i := range cursors {
		c := b[header+size*uint64(i):]
		cursors[i] = Cursor{InvocationID: GUID(c[:16]), USN: binary.LittleEndian.Uint64(c[16:])}
		if version == 2 {
			cursors[i].LastSync = NTTime(int64(binary.LittleEndian.Uint64(c[24:])))
		}
	}
	return cursors, nil
}
