package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/agent/census"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Known is what the agent knows of an account, for `samba-pwsync why`.
type Known struct {
	Directory DirectoryStatus `json:"directory"`
	Since     time.Time       `json:"since"` // changes before that are not of this installation

	Found             bool           `json:"found"`           // the directory holds the account
	Error             string         `json:"error,omitempty"` // why that could not be told
	Account           string         `json:"account,omitempty"`
	GUID              dsdb.GUID      `json:"guid,omitzero"`
	UserPrincipalName string         `json:"user_principal_name,omitempty"`
	Stamp             dsdb.Stamp     `json:"stamp,omitzero"` // of the password that the directory holds now
	Disabled          bool           `json:"disabled"`
	Targets           []change.Route `json:"targets"`  // which want the account now
	Unwanted          []string       `json:"unwanted"` // why the others do not, in words

	Captures  int       `json:"captures"`        // that claim the account's name, and wait for their proof
	Oldest    time.Time `json:"oldest,omitzero"` // when the oldest of them was first seen
	Undecided bool      `json:"undecided"`       // whether something was missed is still to be looked at
}

// Why asks the directory about the account with that objectGUID, sAMAccountName or user principal name, and tells what waits for its proof.
// It may be called at any time, and does not wait for a DC that does not answer.
func (a *Agent) Why(ctx context.Context, name string) Known {
	k := Known{Directory: a.link.status(), Since: a.follow.Status().Since, Targets: []change.Route{}, Unwanted: []string{}}
	account, err := a.lookUp(ctx, name)
	switch {
	case err == nil:
		k.Found = true
		k.Account, k.GUID, k.UserPrincipalName, k.Stamp = account.SAMAccountName, account.GUID, account.UserPrincipalName, account.Stamp
		k.Disabled = account.UserAccountControl&dsdb.UFAccountDisable != 0
		k.Undecided = a.follow.Pending(account.GUID)
		name = account.SAMAccountName
	case !errors.Is(err, directory.ErrNotFound):
		k.Error = err.Error()
	}
	k.Captures, k.Oldest = a.docket.Claims(name)
	if !k.Found {
		return k
	}
	routes, refusals, err := a.routesOf(ctx, account)
	if err != nil {
		k.Error = err.Error()
	}
	k.Targets = append(k.Targets, routes...)
	for _, r := range refusals {
		k.Unwanted = append(k.Unwanted, r.String())
	}
	return k
}

var errDown = errors.New("the directory does not answer")

// lookUp finds an account. What it returns holds neither hash nor keys.
func (a *Agent) lookUp(ctx context.Context, name string) (account directory.Account, err error) {
	err = a.withDC(func(dc Directory) error {
		attrs := a.routes.Attributes()
		guid, parsed := dsdb.ParseGUID(name)
		if parsed != nil {
			account, err = dc.AccountByName(ctx, name, attrs)
			if !errors.Is(err, directory.ErrNotFound) || !strings.Contains(name, "@") {
				return err
			}
			if guid, err = byPrincipal(ctx, dc, name); err != nil {
				return err
			}
		}
		account, err = dc.AccountByGUID(ctx, guid, attrs)
		return err
	})
	clear(account.NTHash)
	account.NTHash = nil
	return account, err
}

func (a *Agent) routesOf(ctx context.Context, account directory.Account) (routes []change.Route, refusals []route.Refusal, err error) {
	err = a.withDC(func(dc Directory) error {
		routes, refusals, err = a.routes.Of(ctx, dc, account)
		return err
	})
	return routes, refusals, err
}

// withDC asks by the watch's connection, if there is one.
func (a *Agent) withDC(ask func(Directory) error) error {
	dc := a.watched.now()
	if dc == nil {
		return errDown
	}
	err := ask(dc)
	if errors.Is(err, directory.ErrUnavailable) {
		a.watched.lost(dc, err)
	}
	return err
}

// byPrincipal returns the account with that user principal name. Of several, which there should not be, none is right.
func byPrincipal(ctx context.Context, dc census.Directory, name string) (guid dsdb.GUID, err error) {
	n := 0
	err = dc.Matching(ctx, "(userPrincipalName="+escaped(name)+")", func(g dsdb.GUID) error {
		guid, n = g, n+1
		return nil
	})
	switch {
	case err != nil:
		return guid, err
	case n == 0:
		return guid, directory.ErrNotFound
	case n > 1:
		return guid, fmt.Errorf("%d accounts have that user principal name", n)
	}
	return guid, nil
}

// escaped writes a value into an LDAP filter (RFC 4515, 3): every byte by its number.
func escaped(value string) string {
	var b strings.Builder
	for i := range len(value) {
		fmt.Fprintf(&b, `\%02x`, value[i])
	}
	return b.String()
}
