// Package target is the contract between the forwarder and the places where passwords go.
//
// Each target is a folder below this one (google, entra, …) with one constructor; the switch in cmd/samba-pwsync/targets.go is the
// one list of them. targettest holds the contract as tests, the same for all.
package target

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
)

// Target sets passwords at one place. Its methods may be called concurrently, but never twice at once for one account.
//
// A target makes one attempt per call: it never retries, follows no redirect, and logs nothing; the forwarder owns retries.
// No error text of it ever holds (a part of) a request or response body: some servers echo what they were sent.
type Target interface {
	// Check tells whether the target could set passwords now, and changes nothing there. The error has a class, as
	// SetPassword's.
	Check(ctx context.Context) error

	// SetPassword makes password the user's password. When it returns nil, the target holds it. When it returns an error the
	// target may hold it all the same (the answer was lost), so calling it again with the same password is safe. The
	// password belongs to the caller, who destroys it afterwards.
	SetPassword(ctx context.Context, user User, password secret.Secret) error

	// LastChange returns when the target last saw the user's password change, by the target's clock, as it shows it to us; what it shows may
	// be some minutes old. The error is ErrCannotTell if it never shows that, or not to us. With an empty name it only says which: nothing is
	// asked, and the time is zero.
	LastChange(ctx context.Context, user User) (time.Time, error)

	// Accepts lists what this target would refuse about the password whoever it is for, as far as can be told without
	// asking; nil if nothing. It never blocks and uses no network.
	Accepts(password secret.Secret) []Reason

	// Close gives up connections. No method is called after it.
	Close() error
}

// User says whose password to set.
type User struct {
	Name           string // the account's name at the target
	SAMAccountName string // for targets that search, and for nothing else
	MustChange     bool   // the target is to demand another password at the next login; otherwise it must not
}

// Reason is why a password is refused, in words for the person who chose it, without the password or a part of it:
// "has fewer than 3 of 4 character classes".
type Reason string

// Reasons makes reasons of what a target's package accepts says.
func Reasons(texts []string) []Reason {
	var reasons []Reason
	for _, text := range texts {
		reasons = append(reasons, Reason(text))
	}
	return reasons
}

// The classes of errors. A target wraps one of them, or returns RetryAfter; any other error is temporary.
var (
	// ErrNoUser: the target knows no such user, or cannot set passwords for this one (federated, synced by another agent).
	// Parks the item; the account's next change tries again.
	ErrNoUser = errors.New("no such user at the target")

	// ErrRejected: the target refuses this password for this user. Parks the item.
	ErrRejected = errors.New("password refused by the target")

	// ErrForbidden: the target does not let us set this user's password, and whether that is about the user or about us its answer does not
	// tell. Check and what becomes of other users do: see package deliver. The text says what may be missing.
	ErrForbidden = errors.New("the target does not let us set this user's password")

	// ErrDenied: the target refuses us: credential expired or wrong, a permission or the API missing, wrong address. Stops the
	// whole target, keeps all its items, alarms. The text says what to grant or to change.
	ErrDenied = errors.New("access denied by the target")
)

// ErrCannotTell: the target does not show when a password was changed. Deliveries are not confirmed then, which is no fault.
var ErrCannotTell = errors.New("deliveries are not confirmed")

// retryAfter is a temporary error with a time.
type retryAfter struct {
	delay time.Duration
	err   error
}

func (e *retryAfter) Error() string { return fmt.Sprintf("%v (retry after %v)", e.err, e.delay) }
func (e *retryAfter) Unwrap() error { return e.err }

// RetryAfter makes err a temporary error that asks for a pause of at least delay.
func RetryAfter(err error, delay time.Duration) error { return &retryAfter{delay, err} }

// Delay returns the pause that err asks for; 0 if it asks for none.
func Delay(err error) time.Duration {
	if e := (*retryAfter)(nil); errors.As(err, &e) {
		return e.delay
	}
	return 0
}

// Class is the outcome of an attempt in one word, for ledger, log and status.
type Class string

// The classes.
const (
	Delivered Class = "delivered"
	NoUser    Class = "no-user"
	Forbidden Class = "forbidden"
	Rejected  Class = "rejected"
	Denied    Class = "denied"
	Throttled Class = "throttled"
	Temporary Class = "temporary"
)

// Classify returns the class of an error of SetPassword or Check.
func Classify(err error) Class {
	switch {
	case err == nil:
		return Delivered
	case errors.Is(err, ErrNoUser):
		return NoUser
	case errors.Is(err, ErrRejected):
		return Rejected
	case errors.Is(err, ErrDenied):
		return Denied
	case errors.Is(err, ErrForbidden):
		return Forbidden
	case Delay(err) > 0:
		return Throttled
	default:
		return Temporary
	}
}
