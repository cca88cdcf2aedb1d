// Package token reads what clients sign and seals what the clouds hand out.
//
// A client proves itself with a signed assertion (RFC 7523): Google takes RS256,
// Microsoft PS256 and RS256. The verification is written here with the standard
// library, not with a JWT library, because both vendors' client libraries sign
// with one: a double must not share its client's errors.
//
// The clouds' own access tokens are meant to be opaque to clients; Microsoft's carry the claims that real ones have.
package token

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// A Signed is a JWS in compact form (RFC 7515), split but not yet believed.
type Signed struct {
	Header struct {
		Algorithm  string `json:"alg"`
		Type       string `json:"typ"`
		KeyID      string `json:"kid"`
		Thumbprint string `json:"x5t#S256"`
	}
	payload   []byte
	signed    string
	signature []byte
}

// Parse splits a JWS.
func Parse(compact string) (*Signed, error) {
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return nil, errors.New("parsing assertion: it does not have three parts")
	}
	var s Signed
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return nil, fmt.Errorf("parsing assertion header: %w", err)
	}
	if err := json.Unmarshal(header, &s.Header); err != nil {
		return nil, fmt.Errorf("parsing assertion header: %w", err)
	}
	if s.payload, err = base64.RawURLEncoding.DecodeString(parts[1]); err != nil {
		return nil, fmt.Errorf("parsing assertion claims: %w", err)
	}
	if s.signature, err = base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		return nil, fmt.Errorf("parsing assertion signature: %w", err)
	}
	s.signed = parts[0] + "." + parts[1]
	return &s, nil
}

// Claims decodes the claims into v. They mean nothing before Verify is nil.
func (s *Signed) Claims(v any) error {
	if err := json.Unmarshal(s.payload, v); err != nil {
		return fmt.Errorf("parsing assertion claims: %w", err)
	}
	return nil
}

// Verify checks the signature, made with one of the algorithms that are allowed.
func (s *Signed) Verify(key *rsa.PublicKey, algorithms ...string) error {
	digest := sha256.Sum256([]byte(s.signed))
	for _, algorithm := range algorithms {
		if s.Header.Algorithm != algorithm {
			continue
		}
		switch algorithm {
		case "RS256":
			return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], s.signature)
		case "PS256":
			return rsa.VerifyPSS(key, crypto.SHA256, digest[:], s.signature,
				&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
	}
	return fmt.Errorf("verifying assertion: algorithm %q is not one of %v", s.Header.Algorithm, algorithms)
}
