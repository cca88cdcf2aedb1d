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
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		why := &fileError{path.Path, self(), err}
		if way := readableBy(self(), path.Path); errors.Is(way, errNoWay) && errors.As(way, &why) {
			why.cause = fmt.Errorf("%w: %w", err, why.cause)
		}
		err = why
	}
	if err != nil {
		return nil, fmt.Errorf("opening target %s: %w", name, err)
	}
	return opened, nil
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

// rate is the target's own or its type's default, in changes a second: half of what the vendors allow by default (Google: 2,400
// requests a minute and user; Graph: 3,000 writes in 150 s), so that other tools of the tenant have room.
func rate(t config.Target) float64 {
	if t.Rate > 0 {
		return t.Rate
	}
	if t.Type == config.TypeGoogle {
		return 20
	}
	return 10
}

func targetNames(cfg *config.Config) []string { return slices.Sorted(maps.Keys(cfg.Target)) }
