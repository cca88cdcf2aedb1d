// Package prooftest makes what proofs are tested with: captures, as the hook seals them, and what a directory stores beside them.
package prooftest

import (
	"encoding/binary"
	"fmt"
	"testing"
	"unicode/utf16"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/crypto/rfc3962"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Iterations of the keys that directories store.
const Iterations = 4096

// Capture returns a capture whose proof box holds content, sealed to key. It has no secret box.
func Capture(t testing.TB, key seal.PublicKey, h capture.Header, content []byte) capture.Capture {
	t.Helper()
	raw, err := h.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := seal.Close(key, capture.ProofInfo(raw), content)
	if err != nil {
		t.Fatal(err)
	}
	return capture.Capture{Header: h, Raw: raw, ProofBox: sealed}
}

// UTF16LE returns a text as Windows and Samba hash it.
func UTF16LE(text string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

// NTHash returns the NT hash of a password, as unicodePwd holds it.
func NTHash(password string) []byte {
	hash := dsdb.NTHash(UTF16LE(password))
	return hash[:]
}

// AES256Key returns the key that a password has with a salt.
func AES256Key(password, salt string, iterations uint32) []byte {
	key, err := rfc3962.StringToKeyIter(password, salt, int64(iterations), crypto.Aes256CtsHmacSha96{})
	if err != nil {
		panic(err) // of a fixed type of key
	}
	return key
}

// SupplementalCredentials returns a value of that attribute which holds one AES256 key: supplementalCredentialsBlob of Samba's
// librpc/idl/drsblobs.idl, with the package Primary:Kerberos-Newer-Keys alone.
func SupplementalCredentials(key []byte, salt string, iterations uint32) []byte {
	const header, oneKey = 24, 24
	le := binary.LittleEndian
	name, text := UTF16LE("Primary:Kerberos-Newer-Keys"), UTF16LE(salt)

	keys := []byte{4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0} // version, flags, and how many keys, service, old and older keys
	keys = le.AppendUint16(keys, uint16(len(text)))
	keys = le.AppendUint16(keys, uint16(len(text)))
	keys = le.AppendUint32(keys, header+oneKey)
	keys = le.AppendUint32(keys, Iterations)
	keys = append(keys, make([]byte, 8)...)
	keys = le.AppendUint32(keys, iterations)
	keys = le.AppendUint32(keys, dsdb.EncAES256)
	keys = le.AppendUint32(keys, uint32(len(key)))
	keys = le.AppendUint32(keys, uint32(header+oneKey+len(text)))
	data := fmt.Appendf(nil, "%X", append(append(keys, text...), key...))

	b := le.AppendUint32(make([]byte, 4), uint32(100+6+len(name)+len(data)))
	b = append(b, make([]byte, 100)...)
	b = le.AppendUint16(b, 0x50) // signature
	b = le.AppendUint16(b, 1)    // packages
	b = le.AppendUint16(b, uint16(len(name)))
	b = le.AppendUint16(b, uint16(len(data)))
	b = append(append(append(b, 1, 0), name...), data...)
	return append(b, 0)
}
