package token

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Bearer is what an access token of the sandbox says.
type Bearer struct {
	ID      string    `json:"id"`
	Cloud   string    `json:"cloud"`
	Client  string    `json:"client"`            // service account or application
	Subject string    `json:"subject,omitempty"` // the user in whose name Google's client acts
	Scopes  []string  `json:"scopes"`
	Expires time.Time `json:"expires"`

	// Microsoft's tokens say for whom they are and what the application may do. Clients are to take them for opaque, but ours
	// tells by them whose fault a refusal is.
	Audience string   `json:"aud,omitempty"`
	Roles    []string `json:"roles,omitempty"`
}

// A Mint makes and reads access tokens. They carry what they mean under an
// HMAC, so that a restarted sandbox still takes the tokens of its clients, as a
// real cloud would.
type Mint struct{ key []byte }

// NewMint makes a mint whose key follows from a secret that outlives restarts.
func NewMint(secret []byte) *Mint {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("sandbox access tokens"))
	return &Mint{mac.Sum(nil)}
}

// Issue makes a token.
func (m *Mint) Issue(b Bearer) string {
	b.ID = rand.Text()
	payload, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings and a time: cannot fail
	}
	text := base64.RawURLEncoding.EncodeToString(payload)
	return "sandbox." + text + "." + base64.RawURLEncoding.EncodeToString(m.seal(text))
}

// ErrExpired is returned for a token that was good once.
var ErrExpired = errors.New("the token has expired")

// Open reads the bearer token of an Authorization header's value.
func (m *Mint) Open(authorization string) (Bearer, error) {
	scheme, compact, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") || compact == "" {
		return Bearer{}, errors.New("there is no bearer token")
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 || parts[0] != "sandbox" {
		return Bearer{}, errors.New("the bearer token is not one of ours")
	}
	seal, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !hmac.Equal(seal, m.seal(parts[1])) {
		return Bearer{}, errors.New("the bearer token is not one of ours")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return Bearer{}, fmt.Errorf("reading bearer token: %w", err)
	}
	var b Bearer
	if err := json.Unmarshal(payload, &b); err != nil {
		return Bearer{}, fmt.Errorf("reading bearer token: %w", err)
	}
	if !time.Now().Before(b.Expires) {
		return b, ErrExpired
	}
	return b, nil
}

func (m *Mint) seal(text string) []byte {
	mac := hmac.New(sha256.New, m.key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}
