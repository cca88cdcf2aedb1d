package followup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const credentials = "supplementalCredentials"

// sighting asks about one account. found is false if it is gone, or has another stamp now, which the watch will meet.
func (f *Followup) sighting(ctx context.Context, dc Directory, e *entry) (s change.Sighting, found bool, err error) {
	a, err := dc.AccountByGUID(ctx, e.guid, append(f.Routes.Attributes(), credentials))
	if err == nil && a.Stamp.Equal(e.stamp) {
		s = change.Sighting{
			Account: change.Account{GUID: a.GUID, SAMAccountName: a.SAMAccountName, UserPrincipalName: a.UserPrincipalName},
			Stamp:   a.Stamp,
		}
		s.Wanted, err = f.wanted(ctx, dc, a)
		clear(a.NTHash)
		clear(a.SupplementalCredentials)
	}
	if errors.Is(err, directory.ErrNotFound) && !errors.As(err, new(domainError)) {
		return s, false, nil
	}
	return s, err == nil && s.Wanted != nil, err
}

// domainError is a trouble with what all accounts have in common, such as an unreadable Configuration partition.
type domainError struct{ error }

func (e domainError) Unwrap() error { return e.error }

// wanted tells which targets want the account, and why one of them may lack its password.
func (f *Followup) wanted(ctx context.Context, dc Directory, a directory.Account) (*change.Wanted, error) {
	w := &change.Wanted{}
	if len(a.NTHash) == 0 && len(a.SupplementalCredentials) == 0 {
		return w, nil // added without a password, which has a stamp all the same
	}
	routes, refusals, err := f.Routes.Of(ctx, dc, a)
	if err != nil {
		return w, err
	}
	for _, r := range refusals {
		if r.State != "" {
			w.Routes = append(w.Routes, change.WantedRoute{Route: r.Route, Reason: r.State, Detail: r.With})
		}
	}
	if len(routes) == 0 && len(w.Routes) == 0 {
		return w, nil
	}
	site, err := f.sites.find(ctx, dc, a.Stamp.InvocationID)
	if err != nil {
		return w, domainError{fmt.Errorf("looking for where a password was changed: %w", err)}
	}
	w.DC = site.name
	targets, handed := f.Handed(a)
	reason, detail := change.WantedSince, ""
	if !handed {
		if reason, detail, err = f.missed(ctx, dc, a, site); err != nil {
			return w, err
		}
	}
	for _, r := range routes {
		r.MustChange = false // that is a change's
		wanted := change.WantedRoute{Route: r, Reason: reason, Detail: detail}
		if slices.Contains(targets, r.Target) {
			wanted.Reason = change.Lost
		}
		w.Routes = append(w.Routes, wanted)
	}
	return w, nil
}

// missed tells why no capture of the account's password was proven; the first reason that holds.
func (f *Followup) missed(ctx context.Context, dc Directory, a directory.Account, at site) (reason change.Reason, detail string, err error) {
	switch {
	case a.Stamp.Time.Before(f.state.Since):
		return change.BeforeInstallation, "", nil
	case at.peer:
		return change.AtPeer, at.name, nil
	case !at.own && at.name == "":
		return change.AtOtherDC, "one that is not there any more, with the invocation ID " + a.Stamp.InvocationID.String(), nil
	case !at.own:
		return change.AtOtherDC, at.name, nil
	}
	var stored dsdb.SupplementalCredentials
	if len(a.SupplementalCredentials) > 0 {
		stored, err = dsdb.ParseSupplementalCredentials(a.SupplementalCredentials)
	}
	if err == nil && a.MetaData.HashOnly(stored) { // what cannot be decoded says nothing
		return change.HashOnly, "", nil
	}
	policy, complexity, err := complexity(ctx, dc, a.GUID)
	if err != nil {
		return "", "", err
	}
	if !complexity {
		return change.ComplexityOff, policy, nil
	}
	if _, _, keyed := stored.AES256(); len(a.NTHash) == 0 && !(f.ByKey && keyed) {
		return change.Unprovable, "", nil
	}
	return change.NotCaptured, "", nil
}

// complexity tells which policy governs the account's password, and whether it demands complexity, without which Samba asks no script.
func complexity(ctx context.Context, dc Directory, guid dsdb.GUID) (policy string, on bool, err error) {
	pso, found, err := dc.ResultantPSO(ctx, guid)
	if err != nil {
		return "", false, err
	}
	if found {
		return "password settings object " + pso.Name, pso.Complexity, nil
	}
	domain, err := dc.PasswordSettings(ctx)
	if err != nil {
		return "", false, domainError{err}
	}
	return "the domain", domain.Complexity, nil
}

// site is where a password was changed.
type site struct {
	name string // of the DC; empty: unknown
	own  bool   // the DC that is asked
	peer bool   // one that delivers by itself
}

// sites knows the domain controllers by their databases.
type sites struct {
	peers []string
	known map[dsdb.GUID]site
	read  time.Time
}

// sitesEvery is how often the list is read at most because of databases that are none of theirs, once each of them was met.
const sitesEvery = time.Minute

// find returns the domain controller where a password was changed.
func (s *sites) find(ctx context.Context, dc Directory, invocation dsdb.GUID) (site, error) {
	if at, known := s.known[invocation]; known && (at.name != "" || time.Since(s.read) < sitesEvery) {
		return at, nil
	}
	root, err := dc.Root(ctx)
	if err != nil {
		return site{}, err
	}
	controllers, err := dc.Controllers(ctx)
	if err != nil {
		return site{}, err
	}
	maps.DeleteFunc(s.known, func(_ dsdb.GUID, at site) bool { return at.name != "" }) // of DCs that are gone there may be many
	if s.known == nil {
		s.known = map[dsdb.GUID]site{}
	}
	s.known[invocation], s.read = site{}, time.Now()
	for _, c := range controllers {
		s.known[c.InvocationID] = site{
			name: c.Name,
			own:  c.InvocationID == root.InvocationID,
			peer: slices.ContainsFunc(s.peers, func(name string) bool { return strings.EqualFold(name, c.Name) }),
		}
	}
	return s.known[invocation], nil
}
