// Package sandbox runs doubles of Google Workspace and Microsoft 365 on this
// machine, over TLS, as strict about a request as the vendors publish it and as
// unreliable as told.
//
// It has three uses: tests of the targets start it in their own process, the
// command cloud-sandbox runs it for integration tests, and the demo shows it in
// place of two clouds. In all three it is asked the same things: add a user,
// misbehave, is this the password that the cloud holds, what has happened.
//
// It trusts whoever may read its folder: the folder holds all secrets of the
// two tenants, their clear passwords and the key of the certification authority.
// It is no model of what the clouds do beside passwords, nor of their load.
package sandbox

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/google"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/microsoft"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/misbehave"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/token"
)

// What the sandbox holds is described in package state.
type (
	Cloud     = state.Cloud
	User      = state.User
	Password  = state.Password
	Fault     = state.Fault
	Violation = state.Violation
	State     = state.State
)

// The two clouds.
const (
	Google    = state.Google
	Microsoft = state.Microsoft
)

// The ids of the only Entra tenant and of its only application.
const (
	TenantID = "7a3c1d52-6a0e-4f0b-9d55-0c5a4db05a4d"
	ClientID = "c1de0f5e-2b1f-4c57-8e0e-5a4db0c1a7d5"
)

// ParseCloud takes a cloud's name as people type it.
func ParseCloud(name string) (Cloud, error) { return state.ParseCloud(name) }

// Options say how a sandbox is set up. The zero value is good for a test.
type Options struct {
	Domain string // of both tenants; example.com

	// Listen addresses; 127.0.0.1:0.
	GoogleListen, MicrosoftListen, TrapListen string

	// Names are the host names and addresses under which clients reach the
	// sandbox; the certificate is valid for them. The first stands in all URLs,
	// the second in that of the other host to which a redirect leads.
	// 127.0.0.1 and localhost.
	Names []string

	// ClientDir is where clients have the folder; the folder itself.
	ClientDir string

	// ServiceAccountAdmin gives Google's service account an administrator role,
	// so that it need not act for the subject.
	ServiceAccountAdmin bool

	// ErrorLog takes errors of the TLS servers; nil: nobody.
	ErrorLog *log.Logger
}

// A Sandbox is both clouds, running.
type Sandbox struct {
	Google struct {
		URL      string // https://host:port/, the API's endpoint
		TokenURL string
		Subject  string // the administrator in whose name the client acts
	}
	Microsoft struct {
		AuthorityURL string // https://host:port/
		GraphURL     string // https://host:port, without /v1.0
	}
	TenantID, ClientID string

	// Files in the folder.
	CAFile, GoogleCredentialsFile, EntraSecretFile, EntraCertificateFile, TargetsFile string

	pool    *x509.CertPool
	store   *state.Store
	servers []*http.Server
	serving sync.WaitGroup // listeners
	playing sync.WaitGroup // requests
}

// Start runs a sandbox in the folder dir. What it finds there of an earlier run
// it keeps: keys, users, passwords, pending faults.
func Start(dir string, o Options) (*Sandbox, error) {
	sb, err := start(dir, o.withDefaults(dir))
	if err != nil {
		return nil, fmt.Errorf("starting sandbox: %w", err)
	}
	return sb, nil
}

func (o Options) withDefaults(dir string) Options {
	if o.Domain == "" {
		o.Domain = "example.com"
	}
	for _, listen := range []*string{&o.GoogleListen, &o.MicrosoftListen, &o.TrapListen} {
		if *listen == "" {
			*listen = "127.0.0.1:0"
		}
	}
	if len(o.Names) == 0 {
		o.Names = []string{"127.0.0.1", "localhost"}
	}
	if o.ClientDir == "" {
		o.ClientDir = dir
	}
	if o.ErrorLog == nil {
		o.ErrorLog = log.New(io.Discard, "", 0)
	}
	return o
}

func start(dir string, o Options) (_ *Sandbox, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	keys, err := openKeys(dir)
	if err != nil {
		return nil, err
	}
	certificate, err := keys.serverCertificate(o.Names)
	if err != nil {
		return nil, err
	}

	sb := &Sandbox{TenantID: TenantID, ClientID: ClientID, pool: keys.pool()}
	if sb.store, err = state.Open(filepath.Join(dir, "state.jsonl"), o.Domain); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, sb.Close())
		}
	}()

	var listeners []net.Listener
	defer func() {
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
		}
	}()
	urls := make([]string, 3)
	hosts := []string{o.Names[0], o.Names[0], o.Names[min(1, len(o.Names)-1)]}
	for i, address := range []string{o.GoogleListen, o.MicrosoftListen, o.TrapListen} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, l)
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
		urls[i] = "https://" + net.JoinHostPort(hosts[i], port)
	}

	sb.Google.URL = urls[0] + "/"
	sb.Google.TokenURL = urls[0] + "/token"
	sb.Google.Subject = "pwsync-admin@" + sb.store.Domain()
	sb.Microsoft.AuthorityURL = urls[1] + "/"
	sb.Microsoft.GraphURL = urls[1]
	if err := sb.ensureSubject(); err != nil {
		return nil, err
	}
	if err := sb.writeFiles(dir, o.ClientDir, keys); err != nil {
		return nil, err
	}

	mint := token.NewMint(keys.caKey)
	handlers := []http.Handler{
		&google.Server{
			Store: sb.store, Mint: mint, ClientEmail: clientEmail, KeyID: keys.serviceAccountID(),
			Key: &keys.serviceAccount.PublicKey, TokenURL: sb.Google.TokenURL,
			AdminRole: o.ServiceAccountAdmin, Trap: urls[2],
		},
		&microsoft.Server{
			Store: sb.store, Mint: mint, TenantID: TenantID, ClientID: ClientID, Secret: keys.secret,
			Certificate: keys.certificate, URL: urls[1], Trap: urls[2],
		},
		http.HandlerFunc(sb.trap),
	}
	for i, l := range listeners {
		sb.serve(l, handlers[i], certificate, o.ErrorLog)
	}
	return sb, nil
}

func (sb *Sandbox) serve(l net.Listener, h http.Handler, certificate tls.Certificate, errorLog *log.Logger) {
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sb.playing.Add(1)
			defer sb.playing.Done()
			h.ServeHTTP(w, r)
		}),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          errorLog,
	}
	sb.servers = append(sb.servers, server)
	sb.serving.Go(func() {
		if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			errorLog.Printf("serving %s: %v", l.Addr(), err)
		}
	})
}

// Close ends all connections, as a crash would, and then the journal.
func (sb *Sandbox) Close() error {
	var all []error
	for _, server := range sb.servers {
		all = append(all, server.Close())
	}
	sb.serving.Wait()
	sb.playing.Wait()
	return errors.Join(append(all, sb.store.Close())...)
}

// CertPool holds the certification authority that clients have to trust.
func (sb *Sandbox) CertPool() *x509.CertPool { return sb.pool }

// ensureSubject gives Google's tenant its delegated administrator.
func (sb *Sandbox) ensureSubject() error {
	if _, ok := sb.store.Find(Google, sb.Google.Subject); ok {
		return nil
	}
	return sb.AddUser(User{Cloud: Google, Name: sb.Google.Subject, Delegated: true})
}

// AddUser makes an account at its cloud, or at both if none is named. A
// federated user makes its domain one that signs in elsewhere; that cannot be
// the tenant's first domain, and holds for all of the domain's users.
func (sb *Sandbox) AddUser(u User) error {
	if local, domain, ok := strings.Cut(u.Name, "@"); !ok || local == "" || domain == "" {
		return fmt.Errorf("adding user: %q is no mail address", u.Name)
	}
	clouds := []Cloud{u.Cloud}
	if u.Cloud == "" {
		clouds = []Cloud{Google, Microsoft}
	}
	for _, cloud := range clouds {
		one := u
		one.Cloud, one.Created = cloud, time.Now().Truncate(time.Second)
		if cloud == Microsoft {
			if one.Federated && one.Domain() == sb.store.Domain() {
				return fmt.Errorf("adding user: %s is a managed domain: a federated user needs another one, such as fed.%[1]s", one.Domain())
			}
			for _, other := range sb.store.Users(Microsoft) {
				one.Federated = one.Federated || other.Federated && other.Domain() == one.Domain()
			}
		}
		if one.ID == "" && cloud == Google {
			one.ID = google.NewID()
		} else if one.ID == "" {
			one.ID = microsoft.NewID()
		}
		if err := sb.store.AddUser(one); err != nil {
			return err
		}
	}
	return nil
}

// RemoveUser deletes an account, named by id, name or alias.
func (sb *Sandbox) RemoveUser(cloud Cloud, user string) error {
	return sb.store.RemoveUser(cloud, user)
}

// Misbehave makes a fault pending.
func (sb *Sandbox) Misbehave(cloud Cloud, f Fault) error {
	if err := CheckFault(cloud, f); err != nil {
		return err
	}
	f.Cloud = cloud
	return sb.store.AddFault(f)
}

// CheckFault says what is wrong with a fault for a cloud.
func CheckFault(cloud Cloud, f Fault) error {
	f.Cloud = cloud
	kinds, err := Kinds(cloud)
	if err == nil {
		err = misbehave.Check(f, kinds)
	}
	if err != nil {
		return fmt.Errorf("misbehaving: %w", err)
	}
	return nil
}

// Kinds are the faults that a cloud can have.
func Kinds(cloud Cloud) ([]misbehave.Kind, error) {
	switch cloud {
	case Google:
		return google.Kinds, nil
	case Microsoft:
		return microsoft.Kinds, nil
	}
	return nil, fmt.Errorf("there is no cloud %q", cloud)
}

// Behave drops all pending faults.
func (sb *Sandbox) Behave() error { return sb.store.ClearFaults() }

// Verify says whether the cloud holds that password for the user now.
func (sb *Sandbox) Verify(cloud Cloud, user, password string) bool {
	u, ok := sb.store.Find(cloud, user)
	if !ok {
		return false
	}
	current, ok := u.Current()
	return ok && Matches(cloud, current, password)
}

// Matches says whether a stored password, also an older one, is that one.
func Matches(cloud Cloud, stored Password, password string) bool {
	if cloud == Google {
		return google.Matches(stored, password)
	}
	return stored.Value == password
}

// State is a copy of all that the sandbox holds and has seen.
func (sb *Sandbox) State() State { return sb.store.State() }

// Wait returns when the state is as wanted, or with the context's error.
func (sb *Sandbox) Wait(ctx context.Context, wanted func(State) bool) error {
	for {
		changed := sb.store.Changed()
		if wanted(sb.store.State()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the sandbox: %w", ctx.Err())
		}
	}
}

// trap is the other host, to which a redirect leads. It answers like a proxy
// that swallows everything: a client that is content with that has lost a
// password.
func (sb *Sandbox) trap(w http.ResponseWriter, r *http.Request) {
	body, _ := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 1<<20)) // what arrived counts, whole or not
	if err := sb.store.Trap(state.Trapped{
		Time: time.Now(), Host: r.Host, Request: r.Method + " " + r.URL.EscapedPath(),
		Authorization: r.Header.Get("Authorization") != "", BodyBytes: int(body),
	}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintln(w, "{}")
}
