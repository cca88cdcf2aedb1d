// Package box is the form of what a proof box holds: of the captured password the NT hash, or the password itself.
//
// It is apart from internal/proof so that the hook, which pays for every import at each start, can write what the agent's
// judge reads. It trusts nobody: the content comes out of a box that anyone may have closed.
//
// Why the password: an AES256 key of Kerberos is made with a salt, and which, only the directory knows. See internal/proof.
//
// Bytes:
//
//	1   kind: 0x01, the NT hash; 0x02, the password
//	16  MD4 of the password in UTF-16LE, as unicodePwd holds it
//	    or
//	n   the password in UTF-8, which is not empty
//
// The NT hash is a password equivalent: either belongs into a sealed box and nowhere else. Boxes are padded (internal/seal), so
// neither the kind nor the length shows from outside.
package box

import "errors"

const (
	kindNTHash   = 0x01
	kindPassword = 0x02
)

// ErrUnknown means that the content is none that this version reads.
var ErrUnknown = errors.New("the proof box holds a kind of proof that this version does not know")

// EncodeNTHash returns the content of a proof box that holds an NT hash.
func EncodeNTHash(hash [16]byte) []byte { return append([]byte{kindNTHash}, hash[:]...) }

// EncodePassword returns the content of a proof box that holds a password: UTF-8, not empty. It is the only copy that is made.
func EncodePassword(password []byte) []byte {
	content := make([]byte, 1, 1+len(password))
	content[0] = kindPassword
	return append(content, password...)
}

// Decode returns what a proof box holds: the NT hash, or, where password is not nil, the password. That is a part of content
// and no copy. Error: ErrUnknown.
func Decode(content []byte) (hash [16]byte, password []byte, err error) {
	switch {
	case len(content) == 1+len(hash) && content[0] == kindNTHash:
		return [16]byte(content[1:]), nil, nil
	case len(content) > 1 && content[0] == kindPassword:
		return hash, content[1:], nil
	}
	return hash, nil, ErrUnknown
}
