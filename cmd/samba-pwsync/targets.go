package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/internal/target/entra"
	"github.com/samba-pwsync/samba-pwsync/internal/target/google"
)

// openTarget makes a target. Where one of its files cannot be opened, the error is a fileError: of the file, or of the folder that
// is in the way.
func openTarget(name string, t config.Target) (target.Target, error) {
	opened, err := newTarget(t)
	if err != nil {
		return nil, fmt.Errorf("opening target %s: %w", name, fileTrouble(err))
	}
	return opened, nil
}

// fileTrouble makes a fileError of an error that is of a file which cannot be opened.
func fileTrouble(err error) error {
	path := (*fs.PathError)(nil)
	if !errors.As(err, &path) {
		return err
	}
	why := &fileError{path.Path, self(), err}
	if way := readableBy(self(), path.Path); errors.Is(way, errNoWay) && errors.As(way, &why) {
		why.cause = fmt.Errorf("%w: %w", err, why.cause)
	}
	return why
}

// newTarget is the one list of target types.
func newTarget(t config.Target) (target.Target, error) {
	switch t.Type {
	case config.TypeGoogle:
		return google.New(google.Options{
			CredentialsFile: t.Google.CredentialsFile,
			Subject:         t.Google.Subject,
			Endpoint:        t.Google.Endpoint,
			PasswordFormat:  t.Google.PasswordFormat,
			CAFile:          t.Google.CAFile,
		})
	case config.TypeEntra:
		return entra.New(entra.Options{
			TenantID:              t.Entra.TenantID,
			ClientID:              t.Entra.ClientID,
			ClientSecretFile:      t.Entra.ClientSecretFile,
			ClientCertificateFile: t.Entra.CertificateFile,
			AuthorityURL:          t.Entra.AuthorityURL,
			GraphURL:              t.Entra.GraphURL,
			CAFile:                t.Entra.CAFile,
		})
	}
	return nil, fmt.Errorf("type %q is unknown", t.Type)
}

// What the vendors allow by default, in changes a second.
const (
	googleQuota = 2400.0 / 60  // queries a minute, project and user, of the Admin SDK
	graphQuota  = 3000.0 / 150 // writes in two and a half minutes, application and tenant, of Graph's identity and access service
)

// rate is the target's own or its type's default, in changes a second: half of the quota, so that other tools of the tenant have room.
func rate(t config.Target) float64 {
	switch {
	case t.Rate > 0:
		return t.Rate
	case t.Type == config.TypeGoogle:
		return googleQuota / 2
	}
	return graphQuota / 2
}

func targetNames(cfg *config.Config) []string { return slices.Sorted(maps.Keys(cfg.Target)) }
