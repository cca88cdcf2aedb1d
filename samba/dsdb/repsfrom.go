package dsdb

import (
	"encoding/binary"
	"errors"
	"time"
)

// RepsFrom says how replication from one other DC goes, from which this one
// pulls directly ([MS-DRSR] 5.170, REPS_FROM). Its times are by this DC's clock.
type RepsFrom struct {
	DSA          GUID      // the objectGUID of the other's NTDS Settings
	InvocationID GUID      // of the other's database
	LastSuccess  time.Time // when the last pull that succeeded ended, whether it brought anything or not; zero if none did
	LastAttempt  time.Time // when the last pull ended, however
	Result       uint32    // of the last attempt, a Win32 error code; 0 is success
	Failures     uint32    // attempts that failed since LastSuccess
	HighestUSN   uint64    // the other's, up to which its objects were pulled
}

// Errors of ParseRepsFrom.
var (
	errRepsFromLength  = errors.New("decoding repsFrom: its length does not fit its contents")
	errRepsFromVersion = errors.New("decoding repsFrom: neither version 1 nor 2")
	errRepsFromTime    = errors.New("decoding repsFrom: a time after the year 9999")
)

// ParseRepsFrom decodes one value of the attribute repsFrom, which a DC keeps at
// the head of each naming context: repsFromToBlob of Samba's
// librpc/idl/drsblobs.idl, little-endian. What follows the fixed part, the other
// DC's network name, is not decoded:
//
//	  0  version (1 or 2)    4  reserved    8  size of the whole
//	 12  failures in a row  16  last success, and 24 last attempt, seconds since 1601
//	 32  result             36  offset, and 40 size of what follows
//	 44  flags              48  schedule (84 bytes)      132  reserved
//	136  high-water mark: object USN, reserved, property USN (8 bytes each)
//	160  objectGUID of NTDS Settings  176  invocationId  192  transport
//	208  in version 2 another 8 bytes
//
// A value that is too short, whose size is not its length, or of another version
// is an error.
func ParseRepsFrom(b []byte) (RepsFrom, error) {
	const fixed = 208
	if len(b) < fixed || uint64(binary.LittleEndian.Uint32(b[8:])) != uint64(len(b)) {
		return RepsFrom{}, errRepsFromLength
	}
	if version := binary.LittleEndian.Uint32(b); version != 1 && version != 2 {
		return RepsFrom{}, errRepsFromVersion
	}
	success, ok := fileTime(binary.LittleEndian.Uint64(b[16:]), 1)
	attempt, ok2 := fileTime(binary.LittleEndian.Uint64(b[24:]), 1)
	if !ok || !ok2 {
		return RepsFrom{}, errRepsFromTime
	}
	return RepsFrom{
		DSA:          GUID(b[160:176]),
		InvocationID: GUID(b[176:192]),
		LastSuccess:  success,
		LastAttempt:  attempt,
		Result:       binary.LittleEndian.Uint32(b[32:]),
		Failures:     binary.LittleEndian.Uint32(b[12:]),
		HighestUSN:   binary.LittleEndian.Uint64(b[136:]),
	}, nil
}
