package google

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/GehirnInc/crypt/sha512_crypt"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"golang.org/x/oauth2/jwt"

	"github.com/samba-pwsync/samba-pwsync/internal/cloud"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// readCredentials reads the service account's key file.
func readCredentials(o Options) (*jwt.Config, error) {
	if o.CredentialsFile == "" {
		return nil, errors.New("reading credentials_file: it is not set")
	}
	text, err := os.ReadFile(o.CredentialsFile)
	if err != nil {
		return nil, fmt.Errorf("reading credentials_file: %w", err)
	}
	defer clear(text)
	config, err := google.JWTConfigFromJSON(text, scope)
	if err != nil {
		return nil, fmt.Errorf("reading credentials_file: it is not the JSON key of a service account")
	}
	if err := errors.Join(checkKey(config.PrivateKey), cloud.CheckURL("token_uri in credentials_file", config.TokenURL)); err != nil {
		return nil, err
	}
	config.Subject = o.Subject
	return config, nil
}

// checkKey finds out at start, not with the first password, whether the private key can be used.
func checkKey(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil {
		return errors.New("reading private_key in credentials_file: it is not in PEM form")
	}
	_, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		_, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if err != nil {
		return errors.New("reading private_key in credentials_file: it is damaged")
	}
	return nil
}

// fetch signs for an access token, once. The library keeps its tokens for itself and does not know the caller's context, so
// each of its token sources is used once.
func fetch(ctx context.Context, o Options, transport http.RoundTripper) (cloud.Token, error) {
	config, err := readCredentials(o)
	if err != nil {
		return cloud.Token{}, fmt.Errorf("%w: %w", target.ErrDenied, err)
	}
	endpoint, err := url.Parse(config.TokenURL)
	if err != nil {
		return cloud.Token{}, fmt.Errorf("%w: reading token_uri in credentials_file", target.ErrDenied)
	}
	hop := cloud.NewHop(ctx, endpoint.Host, cloud.Strict(transport, tokenEndpoint))
	token, err := config.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: hop})).Token()
	switch {
	case hop.Err() != nil:
		return cloud.Token{}, classifyToken(hop.Err())
	case err != nil || token.AccessToken == "" || token.Expiry.IsZero():
		return cloud.Token{}, fmt.Errorf("%w: the token endpoint does not answer as Google's does: check token_uri in credentials_file", target.ErrDenied)
	}
	return cloud.Token{Text: secret.New([]byte(token.AccessToken)), Expires: token.Expiry}, nil
}

// tokenEndpoint is how the token endpoint says no (RFC 6749, section 5.2).
var tokenEndpoint = cloud.Vendor{
	Read: func(body []byte) (code, message string) {
		var answer struct {
			Error       string
			Description string `json:"error_description"`
		}
		if json.Unmarshal(body, &answer) != nil {
			return "", ""
		}
		return answer.Error, answer.Description
	},
	Known: func(code string) bool {
		return slices.Contains([]string{"access_denied", "admin_policy_enforced", "deleted_client", "disabled_client", "internal_failure",
			"invalid_client", "invalid_grant", "invalid_request", "invalid_scope", "org_internal", "rate_limit_exceeded",
			"temporarily_unavailable", "unauthorized_client", "unsupported_grant_type"}, code)
	},
}

func classifyToken(err error) error {
	refusal := cloud.Refused(err)
	if refusal == nil || !refusal.Vendors || refusal.Status >= 500 || refusal.Status == http.StatusTooManyRequests {
		return cloud.Classify(err)
	}
	advice := "check credentials_file and subject"
	switch refusal.Code {
	case "invalid_grant":
		advice = "the key has been revoked, subject is not a user, or this machine's clock is wrong"
	case "invalid_client", "deleted_client", "disabled_client":
		advice = "the service account has been disabled or deleted"
	case "unauthorized_client", "access_denied", "invalid_scope":
		advice = "in the Google Admin console (Security, API controls, domain-wide delegation) grant the service account's client ID the scope " + scope
	}
	return fmt.Errorf("%w: %s (%v)", target.ErrDenied, advice, refusal)
}

// The most rounds that Google takes; GAM, the tool that its administrators know, uses as many.
const cryptPrefix = "$6$rounds=10000$"

// cryptSHA512 hashes a password with a salt of its own: 16 characters, the most there can be, 96 random bits.
func cryptSHA512(password []byte) (string, error) {
	const alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	salt := make([]byte, 16)
	rand.Read(salt) // never fails
	for i := range salt {
		salt[i] = alphabet[salt[i]%64]
	}
	return sha512_crypt.New().Generate(password, append([]byte(cryptPrefix), salt...))
}
