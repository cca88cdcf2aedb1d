// Package google sets passwords at Google Workspace and Cloud Identity, over the Admin SDK's Directory API.
//
// What: one users.update for each password, with google.golang.org/api/admin/directory/v1. The update has patch semantics: it
// changes the password, and takes back "must change at next login", since the user has just chosen this one; unless the
// directory demands a change as well, and the configuration wants that passed on (target.User.MustChange).
//
// Why the hash: the API takes a crypt hash in place of the password, so that the clear text does not leave this process. The
// default is SHA-512 crypt with 10,000 rounds, the most that Google allows. The price: Google cannot judge the strength of
// what it does not see, so its length is judged here. (The discovery document of the Directory API, User.hashFunction.)
//
// Two ways to be allowed: an administrator role assigned to the service account itself, or domain-wide delegation, where it
// acts as the administrator named by subject. The first is better: its key opens nothing but what the role says. Either
// needs the scope admin.directory.user, and a role with the privileges "Users: Read" and "Users: Update: Reset password".
//
// Google answers 403 "forbidden" both when we may not reset passwords at all and when this one address is not in the
// account or belongs to a super administrator: target.ErrForbidden. Check reads a user that Google knows; a role that may read
// but not reset passwords can only be told by what becomes of other users, which is why the error says so.
//
// Whom it trusts: Google's servers, as package cloud says. The credentials file is read anew for each access token, about
// once an hour, so a key can be replaced under a running forwarder.
//
// What it does not solve: with password_format "cleartext" the password is turned into a string and into JSON by the library,
// copies that nobody can wipe. With the hash there is none.
package google

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"

	admin "google.golang.org/api/admin/directory/v1"
	"google.golang.org/api/option"

	"github.com/samba-pwsync/samba-pwsync/internal/cloud"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/internal/target/google/accepts"
)

// The password formats.
const (
	CryptSHA512 = "crypt-sha512"
	Cleartext   = "cleartext"
)

// DefaultEndpoint is the Directory API for everybody but the tests.
const DefaultEndpoint = "https://admin.googleapis.com/"

// Options say how to reach the Google account.
type Options struct {
	CredentialsFile string // the service account's key, JSON, as the console makes it
	Subject         string // the administrator to act as; empty: the service account has a role of its own
	Endpoint        string // empty: DefaultEndpoint
	PasswordFormat  string // empty: CryptSHA512
	CAFile          string // empty: the system's authorities
}

// Target is the Google account. It implements target.Target.
type Target struct {
	subject string
	hashed  bool
	tokens  *cloud.Tokens
	http    *http.Client
	users   *admin.UsersService
}

// New reads the configuration and the credentials. It does not use the network.
func New(o Options) (*Target, error) {
	if o.Endpoint == "" {
		o.Endpoint = DefaultEndpoint
	}
	if o.PasswordFormat == "" {
		o.PasswordFormat = CryptSHA512
	}
	_, errCredentials := readCredentials(o)
	base, errClient := cloud.Client(o.CAFile)
	errs := []error{errCredentials, errClient, cloud.CheckURL("endpoint", o.Endpoint)}
	if o.PasswordFormat != CryptSHA512 && o.PasswordFormat != Cleartext {
		errs = append(errs, fmt.Errorf("reading password_format: it is neither %q nor %q", CryptSHA512, Cleartext))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	endpoint, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("reading endpoint: %w", err)
	}

	t := &Target{subject: o.Subject, hashed: o.PasswordFormat == CryptSHA512, http: base}
	t.tokens = cloud.NewTokens(func(ctx context.Context) (cloud.Token, error) { return fetch(ctx, o, base.Transport) })
	client := &http.Client{
		Transport:     t.tokens.Transport(endpoint.Host, cloud.Strict(base.Transport, api)),
		CheckRedirect: base.CheckRedirect,
	}
	service, err := admin.NewService(context.Background(), option.WithHTTPClient(client), option.WithEndpoint(o.Endpoint),
		// Without this, GOOGLE_SDK_GO_LOGGING_LEVEL=debug would print each request, password included.
		option.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, fmt.Errorf("preparing Google's client: %w", err)
	}
	service.UserAgent = "samba-pwsync"
	t.users = service.Users
	return t, nil
}

// Check implements target.Target: it reads the subject, or any one user, with a fresh access token.
func (t *Target) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cloud.Timeout)
	defer cancel()
	t.tokens.Renew()
	if err := t.probe(ctx); err != nil {
		return fmt.Errorf("checking access: %w", err)
	}
	return nil
}

// probe asks for something that is there if we are allowed to see users at all.
func (t *Target) probe(ctx context.Context) error {
	if t.subject != "" {
		_, err := t.users.Get(t.subject).Fields("id").Context(ctx).Do()
		return t.classifyProbe(err)
	}
	_, err := t.users.List().Customer("my_customer").MaxResults(1).Fields("users(id)").Context(ctx).Do()
	return t.classifyProbe(err)
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
		return fmt.Errorf("%w: the name is not an address", target.ErrNoUser)
	}
	change, err := t.change(password, user.MustChange)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cloud.Timeout)
	defer cancel()
	updated, err := t.users.Update(user.Name, change).Fields("id").Context(ctx).Do()
	switch refusal := cloud.Refused(err); {
	case err == nil && (updated == nil || updated.Id == ""): // nil is what "null" is decoded to
		return fmt.Errorf("%w: the answer is not Google's: the address is wrong, or a proxy stands in between", target.ErrDenied)
	case err == nil:
		return nil
	case isForbidden(refusal):
		return forbidden(refusal)
	default:
		return classifyUpdate(err)
	}
}

// LastChange implements target.Target: nothing that the Directory API shows of a user tells.
func (t *Target) LastChange(context.Context, target.User) (time.Time, error) {
	return time.Time{}, fmt.Errorf("%w: Google does not show when a password was changed", target.ErrCannotTell)
}

// change is the part of the user that is sent.
func (t *Target) change(password secret.Secret, mustChange bool) (*admin.User, error) {
	u := &admin.User{
		ChangePasswordAtNextLogin: mustChange,
		ForceSendFields:           []string{"ChangePasswordAtNextLogin"}, // false, which the library leaves out otherwise
	}
	text := password.Bytes()
	if !t.hashed {
		if !utf8.Valid(text) { // encoding/json would send another password, with U+FFFD in it
			return nil, fmt.Errorf("%w: it is not valid UTF-8", target.ErrRejected)
		}
		u.Password = string(text)
		return u, nil
	}
	// Google cannot judge a hash. What it would refuse in clear text must not become a password that its own login form
	// does not take.
	if reasons := t.Accepts(password); reasons != nil {
		return nil, fmt.Errorf("%w: it %s", target.ErrRejected, reasons[0])
	}
	hash, err := cryptSHA512(text)
	if err != nil {
		return nil, fmt.Errorf("hashing: %w", err)
	}
	u.Password, u.HashFunction = hash, "crypt"
	return u, nil
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
