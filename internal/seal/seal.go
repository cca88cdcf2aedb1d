// Package seal makes boxes: anyone who has the public key closes one, only the holder of the private key opens it.
//
// What: HPKE base mode (RFC 9180; crypto/hpke) with the hybrid KEM MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM.
//
// Why: the hook runs as root on the domain controller for anyone who can change a password. It must be able to store a
// password that it cannot read again. The post-quantum half costs 50 µs and keeps a copied spool closed for good.
//
// Bytes: a box is
//
//	8 bytes   key ID: the first 8 bytes of SHA-256 of the public key
//	1120      HPKE encapsulated key
//	n+16      ciphertext and tag of the padded plain text
//
// The plain text is a big-endian uint16 length, the content, and zeros up to the next multiple of 1,024 bytes, since the
// length of a box would tell the length of the password.
//
// An attacker who can write where boxes lie can close a box of his own (HPKE base mode authenticates nobody). So a box
// proves nothing about who made it; that the directory confirms the content is what makes it true (internal/proof). What
// he cannot do is move a box to another capture: info binds it (internal/capture).
//
// The key ID is in the clear, so that a reader that has several keys knows which one to take, and tells a box that is damaged from one
// whose key is gone. Keys are exchanged by internal/keyring.
//
// What it does not solve: the private key at rest is a file of mode 0600; whoever is root on its machine opens the boxes.
package seal

import (
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/samba-pwsync/samba-pwsync/internal/nopoll"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
)

const (
	padTo      = 1024
	maxContent = 0xffff
	keyIDLen   = 8

	// MaxBox is the size of the largest box, in bytes: readers of foreign files need a bound.
	MaxBox = keyIDLen + 1120 + (2+maxContent+padTo-1)/padTo*padTo + 16

	publicType  = "SAMBA-PWSYNC PUBLIC KEY"
	privateType = "SAMBA-PWSYNC PRIVATE KEY"
)

var (
	// ErrOtherKey means that the box was closed to another key: rotated away, or another installation's.
	ErrOtherKey = errors.New("the box is sealed to another key")
	// ErrDamaged means that the box is torn, altered, or belongs to another capture.
	ErrDamaged = errors.New("the box is damaged or belongs to another capture")
)

// KeyID names a key pair. It is not secret.
type KeyID [keyIDLen]byte

func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// PublicKey closes boxes.
type PublicKey struct {
	key hpke.PublicKey
	id  KeyID
}

// ID names the pair that the key belongs to.
func (k PublicKey) ID() KeyID { return k.id }

// PrivateKey opens boxes.
type PrivateKey struct {
	key hpke.PrivateKey
	pub PublicKey
}

// Public is the other half.
func (k PrivateKey) Public() PublicKey { return k.pub }

// Generate makes a key pair.
func Generate() (PrivateKey, error) {
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return PrivateKey{}, fmt.Errorf("generating key: %w", err)
	}
	return PrivateKey{key: key, pub: public(key.PublicKey())}, nil
}

func public(key hpke.PublicKey) PublicKey {
	sum := sha256.Sum256(key.Bytes())
	return PublicKey{key: key, id: KeyID(sum[:keyIDLen])}
}

// MarshalPEM returns the text form that ParsePublic reads.
func (k PublicKey) MarshalPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: k.key.Bytes()})
}

// MarshalPEM returns the text form that ParsePrivate reads. It is for a file of mode 0600 and nothing else.
func (k PrivateKey) MarshalPEM() ([]byte, error) {
	b, err := k.key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: b}), nil
}

// ParsePublic reads what PublicKey.MarshalPEM wrote.
func ParsePublic(text []byte) (PublicKey, error) {
	b, err := decodePEM(text, publicType)
	if err != nil {
		return PublicKey{}, err
	}
	key, err := hpke.MLKEM768X25519().NewPublicKey(b)
	if err != nil {
		return PublicKey{}, fmt.Errorf("decoding public key: %w", err)
	}
	return public(key), nil
}

// ParsePrivate reads what PrivateKey.MarshalPEM wrote.
func ParsePrivate(text []byte) (PrivateKey, error) {
	b, err := decodePEM(text, privateType)
	if err != nil {
		return PrivateKey{}, err
	}
	key, err := hpke.MLKEM768X25519().NewPrivateKey(b)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("decoding private key: %w", err)
	}
	return PrivateKey{key: key, pub: public(key.PublicKey())}, nil
}

func decodePEM(text []byte, kind string) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("decoding key: no PEM block of type %s found", kind)
	}
	if block.Type != kind {
		return nil, fmt.Errorf("decoding key: PEM block is of type %.40q, not %s", block.Type, kind)
	}
	return block.Bytes, nil
}

// LoadPublic reads a public key file.
func LoadPublic(path string) (PublicKey, error) {
	text, err := nopoll.ReadFile(path)
	if err != nil {
		return PublicKey{}, fmt.Errorf("reading public key: %w", err)
	}
	key, err := ParsePublic(text)
	if err != nil {
		return PublicKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// LoadPrivate reads a private key file, and refuses one that others than its owner can read.
func LoadPrivate(path string) (PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("reading private key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return PrivateKey{}, fmt.Errorf("reading private key: %s has mode %04o: others can read it; make it 0600", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("reading private key: %w", err)
	}
	defer clear(text)
	key, err := ParsePrivate(text)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// Close seals content (at most 65,535 bytes) to the holder of the private key. info binds the box to where it belongs: Open
// needs the same.
func Close(to PublicKey, info, content []byte) ([]byte, error) {
	if len(content) > maxContent {
		return nil, fmt.Errorf("closing box: %d bytes are more than fit", len(content))
	}
	plain := make([]byte, (2+len(content)+padTo-1)/padTo*padTo)
	defer clear(plain)
	binary.BigEndian.PutUint16(plain, uint16(len(content)))
	copy(plain[2:], content)
	sealed, err := hpke.Seal(to.key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, plain)
	if err != nil {
		return nil, fmt.Errorf("closing box: %w", err)
	}
	return append(to.id[:], sealed...), nil
}

// Keys finds the private key that opens a box: one key, or those that an installation has had lately (internal/keyring).
type Keys interface {
	// Find returns the private half of a pair; ErrOtherKey if it is not there. Any other error tells nothing about the box: a later
	// try may succeed.
	Find(KeyID) (PrivateKey, error)
}

// Find implements Keys: a key is a ring of one.
func (k PrivateKey) Find(id KeyID) (PrivateKey, error) {
	if id != k.pub.id {
		return PrivateKey{}, ErrOtherKey
	}
	return k, nil
}

// SealedTo tells for which key a box was closed, without opening it; false for what is no box.
func SealedTo(box []byte) (KeyID, bool) {
	if len(box) < keyIDLen {
		return KeyID{}, false
	}
	return KeyID(box[:keyIDLen]), true
}

// Open returns the content of a box. Errors: ErrOtherKey, ErrDamaged, and what keys could not read.
func Open(keys Keys, info, box []byte) (secret.Secret, error) {
	id, ok := SealedTo(box)
	if !ok {
		return secret.Secret{}, ErrDamaged
	}
	key, err := keys.Find(id)
	if err != nil {
		return secret.Secret{}, err
	}
	plain, err := hpke.Open(key.key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, box[keyIDLen:])
	if err != nil || len(plain) < 2 {
		return secret.Secret{}, ErrDamaged
	}
	n := int(binary.BigEndian.Uint16(plain))
	if n > len(plain)-2 {
		clear(plain)
		return secret.Secret{}, ErrDamaged
	}
	return secret.New(plain[2 : 2+n]), nil
}
