// Package box is the form of what a proof box holds: the NT hash of the captured password.
//
// It is apart from internal/proof so that the hook, which pays for every import at each start, can write what the agent's
// judge reads. It trusts nobody: the content comes out of a box that anyone may have closed.
//
// Bytes:
//
//	1   kind: 0x01, the NT hash
//	16  MD4 of the password in UTF-16LE, as unicodePwd holds it
//
// The NT hash is a password equivalent: it belongs into a sealed box and nowhere else.
package box

import "errors"

const kindNTHash = 0x01

// ErrUnknown means that the content is none that this version reads.
var ErrUnknown = errors.New("the proof box holds a kind of proof that this version does not know")

// EncodeNTHash returns the content of a proof box.
func EncodeNTHash(hash [16]byte) []byte { return append([]byte{kindNTHash}, hash[:]...) }

// Decode returns the NT hash that EncodeNTHash wrote. Error: ErrUnknown.
func Decode(content []byte) (hash [16]byte, err error) {
	if len(content) != 1+len(hash) || content[0] != kindNTHash {
		return hash, ErrUnknown
	}
	return [16]byte(content[1:]), nil
}
