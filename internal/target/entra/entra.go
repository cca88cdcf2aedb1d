// Package entra sets passwords at Microsoft Entra ID (Microsoft 365), over Microsoft Graph.
//
// What: one PATCH /users/{id or userPrincipalName} of passwordProfile for each password, with msgraph-sdk-go, of which only
// the packages users and models are linked: the whole of it costs minutes to compile. "Must change at next sign-in" is sent
// as false, since the user has just chosen this password; unless the directory demands a change as well, and the configuration
// wants that passed on (target.User.MustChange). Access tokens come from azidentity, with a client secret or,
// better, a certificate.
//
// Why this permission: the application needs User-PasswordProfile.ReadWrite.All, and nothing else. With
// User.Read.All besides, LastChange can tell that a password has arrived. User.ReadWrite.All and
// Directory.ReadWrite.All do not allow it. Administrators' passwords need a directory role on top; not granting that keeps
// administrators of the cloud out of reach of this service.
//
// Graph answers 403 both when the application lacks the permission and when this one user is out of its reach. The access
// token tells which: it names what it allows. Microsoft wants clients to take tokens for opaque, so nothing but the class of
// an error hangs on it, and where it cannot be read, or promises nothing, a write that worked before decides, or what becomes
// of other users (target.ErrForbidden).
//
// What users cannot be set: those of a federated domain, who sign in elsewhere, and those that another agent syncs
// (onPremisesSyncEnabled). Nor does Graph take every password: 8 to 256 characters of ASCII, three of four classes, none on
// Microsoft's list of banned ones, which cannot be asked. (Microsoft Learn: "Self-service password reset policies",
// "Eliminate bad passwords using Microsoft Entra Password Protection".)
//
// Of the libraries only what builds and parses messages is used. kiota's middleware stays out (it retries, follows redirects
// and compresses, one of them wrongly), as does its authentication provider, which for a host that is not on its list sends
// the request without a token and says nothing. Package cloud does both.
//
// Whom it trusts: Microsoft's servers, as package cloud says. The credential's file is read anew for each access token, about
// once an hour, so that it can be replaced under a running forwarder.
//
// What it does not solve: the libraries want the password as a string, and make JSON of it in buffers that they keep for
// later. Nobody can wipe those copies.
package entra

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	azlog "github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoft/kiota-abstractions-go/authentication"
	kiota "github.com/microsoft/kiota-http-go"
	kiotajson "github.com/microsoft/kiota-serialization-json-go"
	"github.com/microsoftgraph/msgraph-sdk-go/models"
	"github.com/microsoftgraph/msgraph-sdk-go/users"

	"github.com/samba-pwsync/samba-pwsync/internal/cloud"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/internal/target/entra/accepts"
)

// The servers of the global cloud. Sovereign clouds have others.
const (
	DefaultAuthorityURL = "https://login.microsoftonline.com/"
	DefaultGraphURL     = "https://graph.microsoft.com/"
)

// Options say how to reach the tenant.
type Options struct {
	TenantID              string // or one of its domains
	ClientID              string // the application
	ClientSecretFile      string // either this,
	ClientCertificateFile string // or this: PEM with key and certificate, or PKCS #12 without a password, in its old form (3DES, SHA-1)
	AuthorityURL          string // empty: DefaultAuthorityURL
	GraphURL              string // empty: DefaultGraphURL
	CAFile                string // empty: the system's authorities
}

// Target is the tenant. It implements target.Target.
type Target struct {
	tokens *cloud.Tokens
	http   *http.Client
	graph  abstractions.RequestAdapter

	claims    atomic.Pointer[claims] // of the newest access token
	unclaimed atomic.Bool            // a write worked that the token's claims did not promise
	refused   atomic.Bool            // a write was refused that they did not promise
	doubts    atomic.Uint32          // how often Check has held that against us
}

// doubtsUntilTrial is how often Check fails because of the token alone before it lets a write decide.
const doubtsUntilTrial = 4

// silence keeps AZURE_SDK_GO_LOGGING without effect. Nothing that it prints is known to be secret; but what a password tool
// prints is for itself to decide.
var silence = sync.OnceFunc(func() { azlog.SetListener(nil) })

// New reads the configuration and the credential. It does not use the network.
func New(o Options) (*Target, error) {
	if o.AuthorityURL == "" {
		o.AuthorityURL = DefaultAuthorityURL
	}
	if o.GraphURL == "" {
		o.GraphURL = DefaultGraphURL
	}
	silence()
	_, errCredential := newCredential(o, nil)
	base, errClient := cloud.Client(o.CAFile)
	err := errors.Join(errCredential, errClient, cloud.CheckURL("authority_url", o.AuthorityURL), cloud.CheckURL("graph_url", o.GraphURL))
	if err != nil {
		return nil, err
	}
	graph, err := url.Parse(o.GraphURL)
	if err != nil {
		return nil, fmt.Errorf("reading graph_url: %w", err)
	}

	t := &Target{http: base}
	t.tokens = cloud.NewTokens(func(ctx context.Context) (cloud.Token, error) { return t.fetch(ctx, o, base.Transport) })
	adapter, err := kiota.NewNetHttpRequestAdapterWithParseNodeFactoryAndSerializationWriterFactoryAndHttpClient(
		&authentication.AnonymousAuthenticationProvider{}, kiotajson.NewJsonParseNodeFactory(), kiotajson.NewJsonSerializationWriterFactory(),
		&http.Client{
			Transport:     t.tokens.Transport(graph.Host, cloud.Strict(base.Transport, api)),
			CheckRedirect: base.CheckRedirect,
		})
	if err != nil {
		return nil, fmt.Errorf("preparing Microsoft's client: %w", err)
	}
	adapter.SetBaseUrl(strings.TrimSuffix(o.GraphURL, "/") + "/v1.0")
	t.graph = adapter
	return t, nil
}

// users returns the entry to Graph's users: a new one for each call, because kiota writes into what it was given.
func (t *Target) users() *users.UsersRequestBuilder {
	return users.NewUsersRequestBuilderInternal(map[string]string{}, t.graph)
}

// Check implements target.Target: it gets a fresh access token and shows it to Graph by asking for one user's id. That the
// application may not see users is no fault: it need not. A permission that is missing from the token is one only after
// Graph has refused a write for it, because roles can allow the same.
func (t *Target) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cloud.Timeout)
	defer cancel()
	t.tokens.Renew()
	if err := t.check(ctx); err != nil {
		return fmt.Errorf("checking access: %w", err)
	}
	return nil
}

func (t *Target) check(ctx context.Context) error {
	one := int32(1)
	_, err := t.users().Get(ctx, &users.UsersRequestBuilderGetRequestConfiguration{
		QueryParameters: &users.UsersRequestBuilderGetQueryParameters{Select: []string{"id"}, Top: &one},
	})
	if err != nil && !isDenied(cloud.Refused(err)) {
		return classifyCall(err)
	}
	// A role for a part of the tenant alone (an administrative unit) is none of the token's, so now and then a write has to decide.
	if c := t.claims.Load(); t.refused.Load() && !t.unclaimed.Load() && c.readable && !c.allow() && t.doubts.Add(1)%doubtsUntilTrial != 0 {
		return fmt.Errorf("%w: %s", target.ErrDenied, grant)
	}
	return nil
}

// SetPassword implements target.Target.
func (t *Target) SetPassword(ctx context.Context, user target.User, password secret.Secret) error {
	if err := t.setPassword(ctx, user, password); err != nil {
		return fmt.Errorf("setting password: %w", err)
	}
	return nil
}

func (t *Target) setPassword(ctx context.Context, user target.User, password secret.Secret) error {
	if !cloud.IsName(user.Name) {
		return fmt.Errorf("%w: the name is neither a userPrincipalName nor an id", target.ErrNoUser)
	}
	if !utf8.Valid(password.Bytes()) { // encoding/json would send another password, with U+FFFD in it
		return fmt.Errorf("%w: it is not valid UTF-8", target.ErrRejected)
	}
	ctx, cancel := context.WithTimeout(ctx, cloud.Timeout)
	defer cancel()
	text, mustChange := string(password.Bytes()), user.MustChange
	profile := models.NewPasswordProfile()
	profile.SetPassword(&text)
	profile.SetForceChangePasswordNextSignIn(&mustChange)
	change := models.NewUser()
	change.SetPasswordProfile(profile)
	if _, err := t.users().ByUserId(user.Name).Patch(ctx, change, nil); err != nil {
		return t.classifyUpdate(err)
	}
	if !t.claims.Load().allow() {
		t.unclaimed.Store(true)
	}
	return nil
}

// LastChange implements target.Target: the user's lastPasswordChangeDateTime, which Graph shows to applications that may read users.
func (t *Target) LastChange(ctx context.Context, user target.User) (time.Time, error) {
	if c := t.claims.Load(); c != nil && c.readable && !c.read() {
		return time.Time{}, fmt.Errorf("%w: %s", target.ErrCannotTell, grantReading)
	}
	if user.Name == "" {
		return time.Time{}, nil
	}
	if !cloud.IsName(user.Name) {
		return time.Time{}, fmt.Errorf("%w: the name is neither a userPrincipalName nor an id", target.ErrNoUser)
	}
	ctx, cancel := context.WithTimeout(ctx, cloud.Timeout)
	defer cancel()
	found, err := t.users().ByUserId(user.Name).Get(ctx, &users.UserItemRequestBuilderGetRequestConfiguration{
		QueryParameters: &users.UserItemRequestBuilderGetQueryParameters{Select: []string{"lastPasswordChangeDateTime"}},
	})
	switch {
	case isDenied(cloud.Refused(err)):
		return time.Time{}, fmt.Errorf("%w: %s", target.ErrCannotTell, grantReading)
	case err != nil:
		return time.Time{}, fmt.Errorf("asking when a password was changed: %w", t.classifyUpdate(err))
	case found == nil || found.GetLastPasswordChangeDateTime() == nil: // nil is an answer without a body, or "null"
		return time.Time{}, fmt.Errorf("%w: Graph leaves out lastPasswordChangeDateTime", target.ErrCannotTell)
	}
	return *found.GetLastPasswordChangeDateTime(), nil
}

// Accepts implements target.Target.
func (t *Target) Accepts(password secret.Secret) []target.Reason {
	return target.Reasons(accepts.Password(password.Bytes()))
}

// Close implements target.Target.
func (t *Target) Close() error {
	t.http.CloseIdleConnections()
	return nil
}
