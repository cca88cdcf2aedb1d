package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/internal/target/entra"
	"github.com/samba-pwsync/samba-pwsync/internal/target/google"
)

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
