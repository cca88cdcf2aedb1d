package breached

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"time"
)

// Shards is into how many filters the hashes are divided, by their first 12 bits: the first three hexadecimal digits.
const Shards = 1 << 12

// Where things are in a file; see the package comment.
const (
	headerSize = 4096 // a page; what is used of it is in headerUsed
	headerUsed = 72
	entrySize  = 64 // divides a page, so that one entry is never on two
	DataStart  = headerSize + Shards*entrySize
	alignment  = 64
)

// How a file begins. While it is written it begins otherwise, so that what is not finished is not taken for whole.
const (
	magic     = "pwbreach"
	magicPart = "pwbrpart"
	version   = 1
)

// What is wrong with a file.
var (
	ErrDamaged    = errors.New("it is damaged or cut off")
	ErrUnfinished = errors.New("its import has not finished")
	ErrForeign    = errors.New("it is no file of breached passwords, or of another version of samba-pwsync, or of a machine with another byte order")
)

// Kind is the kind of the hashes in a file.
type Kind uint8

// The kinds.
const (
	SHA1 Kind = 1 // SHA-1 of the password in UTF-8
	NTLM Kind = 2 // NT hash: MD4 of the password in UTF-16LE
)

// Size is how many bytes a hash has.
func (k Kind) Size() int {
	switch k {
	case SHA1:
		return 20
	case NTLM:
		return 16
	}
	return 0
}

func (k Kind) String() string {
	switch k {
	case SHA1:
		return "SHA-1"
	case NTLM:
		return "NTLM"
	}
	return "unknown"
}

// Header is what a file says about itself.
type Header struct {
	Kind     Kind
	Bits     int       // of a fingerprint: 8 or 16
	Entries  uint64    // how many hashes it holds
	Size     uint64    // of the file, in bytes
	Created  time.Time // to the second
	MinCount uint64    // hashes that were seen fewer times were left out
	Source   [16]byte  // of what it is made, so that an import is resumed with the same; it means nothing afterwards
	Part     bool      // it is being written
}

// FalseRate is the probability that a password that is not in the file counts as held.
func (h Header) FalseRate() float64 { return math.Ldexp(1, -h.Bits) }

// checksum is CRC-32 as Ethernet has it. Processors have an instruction for CRC-32C, but the tables that Go makes for it cost the hook as much as
// closing a box.
func checksum(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// byteOrder is stored as this machine stores a number: fingerprints of 16 bits are mapped as they are.
const byteOrder = 0x0102

// Encode returns the first page of a file.
func (h Header) Encode() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	if h.Part {
		copy(b, magicPart)
	}
	le := binary.LittleEndian
	le.PutUint16(b[8:], version)
	b[10], b[11] = byte(h.Kind), byte(h.Bits)
	binary.NativeEndian.PutUint16(b[12:], byteOrder)
	le.PutUint64(b[16:], h.Entries)
	le.PutUint64(b[24:], h.Size)
	le.PutUint64(b[32:], uint64(h.Created.Unix()))
	le.PutUint64(b[40:], h.MinCount)
	copy(b[48:64], h.Source[:])
	le.PutUint32(b[headerUsed-4:], checksum(b[:headerUsed-4]))
	return b
}

// DecodeHeader is Encode's reverse. Of a file that is being written it returns the header and ErrUnfinished.
func DecodeHeader(b []byte) (Header, error) {
	part := bytes.HasPrefix(b, []byte(magicPart))
	if !part && !bytes.HasPrefix(b, []byte(magic)) {
		return Header{}, ErrForeign
	}
	if len(b) < headerSize {
		return Header{}, ErrDamaged
	}
	le := binary.LittleEndian
	if le.Uint32(b[headerUsed-4:]) != checksum(b[:headerUsed-4]) {
		return Header{}, ErrDamaged
	}
	if le.Uint16(b[8:]) != version || binary.NativeEndian.Uint16(b[12:]) != byteOrder {
		return Header{}, ErrForeign
	}
	h := Header{
		Kind:     Kind(b[10]),
		Bits:     int(b[11]),
		Entries:  le.Uint64(b[16:]),
		Size:     le.Uint64(b[24:]),
		Created:  time.Unix(int64(le.Uint64(b[32:])), 0),
		MinCount: le.Uint64(b[40:]),
		Source:   [16]byte(b[48:64]),
		Part:     part,
	}
	if h.Kind.Size() == 0 || h.Bits != 8 && h.Bits != 16 {
		return Header{}, ErrForeign
	}
	if part {
		return h, ErrUnfinished
	}
	return h, nil
}

// Entry is where a shard's filter is, and its shape. The zero value but for Offset and Consumed is a shard without hashes.
type Entry struct {
	Offset        uint64 // in the file, in bytes
	Seed          uint64
	Entries       uint32 // hashes
	SegmentLength uint32
	SegmentCount  uint32
	CRC           uint32 // of the fingerprints
	Consumed      uint64 // how much of its lists the import had read when the shard was full; it means nothing afterwards
}

// At is where a shard's entry stands in the file.
func At(shard int) int64 { return headerSize + int64(shard)*entrySize }

// Encode returns the entry as it stands in the file; it is valid for that shard only.
func (e Entry) Encode(shard int) []byte {
	b := make([]byte, entrySize)
	le := binary.LittleEndian
	le.PutUint64(b[0:], e.Offset)
	le.PutUint64(b[8:], e.Seed)
	le.PutUint32(b[16:], e.Entries)
	le.PutUint32(b[20:], e.SegmentLength)
	le.PutUint32(b[24:], e.SegmentCount)
	le.PutUint32(b[28:], e.CRC)
	le.PutUint64(b[32:], e.Consumed)
	le.PutUint32(b[56:], uint32(shard))
	le.PutUint32(b[60:], checksum(b[:60]))
	return b
}

// DecodeEntry reads the entry of a shard out of the file's bytes, of which data may be the first part only; size is that of the whole
// file. What it returns without an error lies within the file, and has a shape in which no look-up reads past its end.
func DecodeEntry(data []byte, shard int, fingerprintBits int, size uint64) (Entry, error) {
	at := At(shard)
	if int64(len(data)) < at+entrySize {
		return Entry{}, ErrDamaged
	}
	b := data[at : at+entrySize]
	le := binary.LittleEndian
	if le.Uint32(b[60:]) != checksum(b[:60]) || le.Uint32(b[56:]) != uint32(shard) {
		return Entry{}, ErrDamaged
	}
	e := Entry{
		Offset:        le.Uint64(b[0:]),
		Seed:          le.Uint64(b[8:]),
		Entries:       le.Uint32(b[16:]),
		SegmentLength: le.Uint32(b[20:]),
		SegmentCount:  le.Uint32(b[24:]),
		CRC:           le.Uint32(b[28:]),
		Consumed:      le.Uint64(b[32:]),
	}
	if e.Entries == 0 {
		if e.SegmentLength != 0 || e.SegmentCount != 0 {
			return Entry{}, ErrDamaged
		}
		return e, nil
	}
	// A look-up reads one fingerprint in each of three segments that follow each other, the first of them below SegmentCount.
	if bits.OnesCount32(e.SegmentLength) != 1 || e.SegmentCount == 0 || e.fingerprints() > math.MaxUint32 {
		return Entry{}, ErrDamaged
	}
	if e.Offset < DataStart || e.Offset%alignment != 0 || e.Offset > size || e.Bytes(fingerprintBits) > size-e.Offset {
		return Entry{}, ErrDamaged
	}
	return e, nil
}

func (e Entry) fingerprints() uint64 {
	if e.Entries == 0 {
		return 0
	}
	return (uint64(e.SegmentCount) + 2) * uint64(e.SegmentLength)
}

// Bytes is how long the shard's fingerprints are in the file.
func (e Entry) Bytes(fingerprintBits int) uint64 {
	return e.fingerprints() * uint64(fingerprintBits) / 8
}

// Aligned returns where the next shard may begin that is not to begin before the offset.
func Aligned(offset uint64) uint64 { return (offset + alignment - 1) &^ (alignment - 1) }

// CRC returns the checksum of a shard's fingerprints.
func CRC(fingerprints []byte) uint32 { return checksum(fingerprints) }

// Shard tells into which shard a hash belongs, and its key there.
func Shard(hash []byte) (shard int, key uint64) {
	return int(hash[0])<<4 | int(hash[1])>>4, binary.BigEndian.Uint64(hash[8:16])
}

// checkSize tells a file that was cut off, or grew.
func (h Header) checkSize(size int64) error {
	if size < DataStart || h.Size != uint64(size) {
		return fmt.Errorf("%w: it has %d bytes and says %d", ErrDamaged, size, h.Size)
	}
	return nil
}
