package deliver

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// guarded is a target whose panics are temporary errors. Under it is much code of others, which reads what servers answer: if one answer could
// end the process, it would do so again after each start, and no target would get anything.
//
// The error tells where it was, and not what the panic said, which may hold what was being sent, or its length. What it cannot catch is
// a panic in a goroutine that a target's library started.
type guarded struct{ target.Target }

// Check implements target.Target.
func (g guarded) Check(ctx context.Context) (err error) {
	defer caught(&err)
	return g.Target.Check(ctx)
}

// SetPassword implements target.Target.
func (g guarded) SetPassword(ctx context.Context, user target.User, password secret.Secret) (err error) {
	defer caught(&err)
	return g.Target.SetPassword(ctx, user, password)
}

// LastChange implements target.Target.
func (g guarded) LastChange(ctx context.Context, user target.User) (at time.Time, err error) {
	defer caught(&err)
	return g.Target.LastChange(ctx, user)
}

// caught, deferred, makes a panic an error.
func caught(err *error) {
	if recover() != nil {
		*err = fmt.Errorf("the target's code failed in %s, which is a bug: please report it", where())
	}
}

// where returns the place of the panic that is being recovered from: "google.go:155".
func where() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	for panicked, more := false, true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		if panicked && !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line)
		}
		panicked = panicked || f.Function == "runtime.gopanic"
	}
	return "an unknown place"
}
