package entra

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azcloud "github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/samba-pwsync/samba-pwsync/internal/cloud"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// newCredential reads the credential's file and makes azidentity's object of it, which asks over transport.
func newCredential(o Options, transport policy.Transporter) (azcore.TokenCredential, error) {
	if o.TenantID == "" || o.ClientID == "" {
		return nil, errors.New("reading tenant_id and client_id: both have to be set")
	}
	common := azcore.ClientOptions{
		Cloud:     azcloud.Configuration{ActiveDirectoryAuthorityHost: o.AuthorityURL},
		Transport: transport,
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}
	switch {
	case (o.ClientSecretFile == "") == (o.ClientCertificateFile == ""):
		return nil, errors.New("reading credential: exactly one of client_secret_file and certificate_file has to be set")
	case o.ClientSecretFile != "":
		text, err := os.ReadFile(o.ClientSecretFile)
		if err != nil {
			return nil, fmt.Errorf("reading client_secret_file: %w", err)
		}
		defer clear(text)
		value := string(bytes.TrimSpace(text))
		if value == "" || strings.ContainsAny(value, " \t\r\n") {
			return nil, errors.New("reading client_secret_file: it has to hold the secret's value and nothing else")
		}
		// Instance discovery asks another host whether this authority is real. The administrator has said so, or it is the
		// default.
		return credential(azidentity.NewClientSecretCredential(o.TenantID, o.ClientID, value,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: common, DisableInstanceDiscovery: true}))
	default:
		text, err := os.ReadFile(o.ClientCertificateFile)
		if err != nil {
			return nil, fmt.Errorf("reading certificate_file: %w", err)
		}
		defer clear(text)
		certificates, key, err := azidentity.ParseCertificates(text, nil)
		if err != nil {
			return nil, errors.New("reading certificate_file: it has to hold a certificate and its unencrypted RSA key, as PEM, or as PKCS #12 without a password and in its old form (3DES, SHA-1)")
		}
		return credential(azidentity.NewClientCertificateCredential(o.TenantID, o.ClientID, certificates, key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: common, DisableInstanceDiscovery: true}))
	}
}

// credential words the errors of azidentity's constructors, which quote what they were given.
func credential[C azcore.TokenCredential](c C, err error) (azcore.TokenCredential, error) {
	if err != nil {
		return nil, errors.New("preparing the credential: tenant_id has to be a GUID or a domain, authority_url an https address, and the key RSA")
	}
	return c, nil
}

// fetch asks for an access token, once, with a credential made for the purpose: a credential that lives on would answer from
// its cache.
func (t *Target) fetch(ctx context.Context, o Options, transport http.RoundTripper) (cloud.Token, error) {
	login, err := url.Parse(o.AuthorityURL)
	if err != nil {
		return cloud.Token{}, fmt.Errorf("%w: reading authority_url", target.ErrDenied)
	}
	hop := cloud.NewHop(ctx, login.Host, cloud.Strict(transport, authority))
	source, err := newCredential(o, hop)
	if err != nil {
		return cloud.Token{}, fmt.Errorf("%w: %w", target.ErrDenied, err)
	}
	token, err := source.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{strings.TrimSuffix(o.GraphURL, "/") + "/.default"}})
	switch {
	case hop.Err() != nil:
		return cloud.Token{}, classifyToken(hop.Err())
	case ctx.Err() != nil:
		return cloud.Token{}, ctx.Err()
	case err != nil:
		return cloud.Token{}, fmt.Errorf("%w: the authority does not answer as Microsoft's does: check authority_url", target.ErrDenied)
	}
	c := readClaims(token.Token)
	t.claims.Store(&c)
	return cloud.Token{Text: secret.New([]byte(token.Token)), Expires: token.ExpiresOn}, nil
}

// authority is how the authority says no: RFC 6749, section 5.2, with Microsoft's numbers, which say much more.
var authority = cloud.Vendor{
	Read: func(body []byte) (code, message string) {
		var answer struct {
			Error string
			Codes []uint64 `json:"error_codes"`
		}
		if json.Unmarshal(body, &answer) != nil {
			return "", ""
		}
		if len(answer.Codes) > 0 {
			return fmt.Sprintf("AADSTS%d", answer.Codes[0]), answer.Error
		}
		return answer.Error, answer.Error
	},
	Known: func(code string) bool {
		number, isNumber := strings.CutPrefix(code, "AADSTS")
		return isNumber && number != "" && strings.Trim(number, "0123456789") == "" ||
			slices.Contains([]string{"invalid_client", "invalid_grant", "invalid_request", "invalid_resource", "invalid_scope", "server_error",
				"temporarily_unavailable", "unauthorized_client", "unsupported_grant_type"}, code)
	},
}

// advice for the numbers that administrators meet (Microsoft Learn: "Microsoft Entra authentication and authorization error
// codes").
var advice = map[string]string{
	"AADSTS7000215": "client_secret_file does not hold the secret's value (the secret's ID is something else)",
	"AADSTS7000222": "the client secret has expired: make a new one in the Entra admin centre, or better a certificate",
	"AADSTS700027":  "the certificate is not registered with the application, or has expired",
	"AADSTS7000229": "the application has no service principal in this tenant: give it admin consent",
	"AADSTS7000112": "the application has been disabled",
	"AADSTS700016":  "the tenant has no application with this client_id",
	"AADSTS90002":   "there is no tenant with this tenant_id in this cloud",
	"AADSTS500011":  "graph_url is not a resource of this cloud",
	"AADSTS53003":   "a Conditional Access policy blocks the application",
}

func classifyToken(err error) error {
	refusal := cloud.Refused(err)
	if refusal == nil || !refusal.Vendors || refusal.Status >= 500 || refusal.Status == http.StatusTooManyRequests ||
		refusal.Says("temporarily_unavailable") {
		return cloud.Classify(err)
	}
	text, ok := advice[refusal.Code]
	if !ok {
		text = "check tenant_id, client_id and the credential"
	}
	return fmt.Errorf("%w: %s (%v)", target.ErrDenied, text, refusal)
}

// claims is what an access token says of itself.
type claims struct {
	readable bool
	roles    []string // application permissions
	wids     []string // directory roles, by template
}

// readClaims looks into a token of our own, so its signature is not for us to verify.
func readClaims(token string) claims {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return claims{}
	}
	var c struct {
		Audience string   `json:"aud"`
		Roles    []string `json:"roles"`
		WIDs     []string `json:"wids"`
	}
	if json.Unmarshal(payload, &c) != nil || c.Audience == "" {
		return claims{}
	}
	return claims{true, c.Roles, c.WIDs}
}

// resetters are the directory roles that may reset the passwords of users who are no administrators.
var resetters = []string{
	"62e90394-69f5-4237-9190-012177145e10", // Global Administrator
	"729827e3-9c14-49f7-bb1b-9608f156bbb8", // Helpdesk Administrator
	"7be44c8a-adaf-4e2a-84d6-ab2649e08a13", // Privileged Authentication Administrator
	"966707d0-3269-4727-9be2-8c3a10f19b9d", // Password Administrator
	"c4e39bd9-1100-46d3-8c65-fb160da0071f", // Authentication Administrator
	"fe930be7-5e62-47db-91af-98c3a49a38b1", // User Administrator
}

// allow reports whether the token says that it allows to set passwords.
func (c *claims) allow() bool {
	return c != nil && (slices.Contains(c.roles, "User-PasswordProfile.ReadWrite.All") ||
		slices.ContainsFunc(c.wids, func(role string) bool { return slices.Contains(resetters, role) }))
}

// read reports whether the token says that it allows to read users.
func (c *claims) read() bool {
	return slices.ContainsFunc(c.roles, func(role string) bool {
		return slices.Contains([]string{"User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"}, role)
	}) || len(c.wids) > 0 // a directory role may allow it: Graph knows
}
