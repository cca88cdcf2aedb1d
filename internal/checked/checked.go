// Package checked puts a checksum behind the text of a small file, so that a bit that the disk flipped is an error, and not another name,
// another number or another time.
//
// Bytes: the text, a line feed, the CRC-32C of all before it in eight hex digits, a line feed. Each error of up to three bits in a
// file of at most 256 MB is found (and of any number of bits in a row up to 32), any other with a probability of 1 − 2⁻³².
//
// Files of versions before this are one line of JSON, and end with it: they are taken as they are. A file of ours that was cut off just there has
// lost nothing.
//
// Whom it trusts: whoever can write the file; a checksum is no signature.
package checked

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrDamaged means that a file is not what was written.
var ErrDamaged = errors.New("the text does not match its checksum")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func trailer(text []byte) []byte {
	return fmt.Appendf(nil, "\n%08x\n", crc32.Checksum(text, castagnoli))
}

// Wrap returns the file's bytes for a text.
func Wrap(text []byte) []byte { return append(bytes.Clone(text), trailer(text)...) }

// Text returns the text of a file's bytes, whose memory it shares. Error: ErrDamaged.
func Text(file []byte) ([]byte, error) {
	if end := len(file) - len(trailer(nil)); end >= 0 && file[len(file)-1] == '\n' {
		if text := file[:end]; bytes.Equal(file[end:], trailer(text)) {
			return text, nil
		}
	}
	if text := bytes.TrimSuffix(file, []byte("\n")); bytes.HasSuffix(text, []byte("}")) && !bytes.Contains(text, []byte("\n")) {
		return text, nil
	}
	return nil, ErrDamaged
}
