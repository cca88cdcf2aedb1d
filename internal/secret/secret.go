// Package secret holds a password so that it cannot be printed.
//
// What: a Secret prints as "[secret]" with every verb of fmt and in slog, JSON, XML and gob, as a value, a pointer and,
// because the bytes hang behind a func, even as an unexported field of another struct, where fmt asks no methods.
//
// Why: a password leaks through the log line that nobody thought of. A type that has no printable form takes the
// thought away.
//
// Whom it trusts: every package that imports it. The list of importers is short and held by internal/arrows_test.go:
// clear text lives in the hook, policy, seal, proof, deliver and the targets, and nowhere else.
//
// What it does not solve: copies that callers make of Bytes, and copies that the Go runtime, net/http and crypto/tls make
// below us. Destroy wipes the one buffer that is ours.
package secret

import (
	"errors"
	"fmt"
)

const redacted = "[secret]"

// Secret is a password, UTF-8. The zero value is the absence of one. Copies of a Secret share the same bytes.
type Secret struct {
	bytes func() []byte
}

// New takes ownership of b: the caller must not use or keep it.
func New(b []byte) Secret {
	return Secret{bytes: func() []byte { return b }}
}

// Bytes returns the password itself, not a copy. The caller reads it, does not keep it, and makes as few copies as the
// protocol at hand allows.
func (s Secret) Bytes() []byte {
	if s.bytes == nil {
		return nil
	}
	return s.bytes()
}

// IsZero reports whether s was never given a password.
func (s Secret) IsZero() bool { return s.bytes == nil }

// Destroy overwrites the bytes with zeros, for every copy of s. Safe to call twice and on the zero value.
func (s Secret) Destroy() { clear(s.Bytes()) }

// String implements fmt.Stringer, for the callers that convert by hand.
func (Secret) String() string { return redacted }

// Format implements fmt.Formatter: every verb and flag prints the same.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler: JSON, XML, map keys, and slog, which is not imported because the hook pays
// for every import at each start.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// GobEncode implements gob.GobEncoder and refuses: a secret that silently becomes "[secret]" on the far side would be sent
// as somebody's password.
func (Secret) GobEncode() ([]byte, error) { return nil, errors.New("a secret cannot be encoded") }

// GobDecode implements gob.GobDecoder and refuses, as GobEncode does.
func (*Secret) GobDecode([]byte) error { return errors.New("a secret cannot be decoded") }

// UnmarshalText implements encoding.TextUnmarshaler and refuses: secrets come from sealed boxes and from stdin only.
func (*Secret) UnmarshalText([]byte) error { return errors.New("a secret cannot be decoded") }
