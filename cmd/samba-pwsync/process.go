package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

var (
	errLocked     = errors.New("another serve is running on it")
	errOtherOwner = errors.New("it belongs to another user")
)

// lockFolder makes this process the only one of its role: the lock goes away with the process. The folder has to be our own,
// because in somebody else's, root could be led to another file by a link, and what root writes there its owner cannot read.
func lockFolder(dir string) (io.Closer, error) {
	lock, err := lock(dir)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return lock, nil
}

func lock(dir string) (_ *os.File, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, cause(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return nil, fmt.Errorf("%w (uid %d, this is uid %d)", errOtherOwner, owner, os.Geteuid())
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, cause(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, err
	}
	return f, nil
}

// cause leaves out the path that the text around it names already.
func cause(err error) error {
	if e := (*os.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// harden makes no file that others can read. That the vendors' SDKs log nothing is the targets' business. And a crash ends by a signal: Go's own end of
// one, exit code 2, would say that the configuration is wrong, and the units would not start the service again.
func harden() {
	debug.SetTraceback("crash")
	syscall.Umask(0o077)
}

// unreadable keeps what the process holds in memory inside it: no core dump, no ptrace and no /proc/PID/mem for its own user. Every command
// begins with it: most of them see a key, a password or a hash.
func unreadable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hardening: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("hardening: %w", err)
	}
	return nil
}

// tellSystemd says that the service is ready, in time for the unit's WatchdogSec that it lives, and at the end that it stops.
// A part that no longer answers how it is keeps it silent, and systemd starts the service anew. Without systemd there is
// nobody to tell, and nothing is said.
func tellSystemd(ctx context.Context, parts []*part) error {
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	defer func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) }()
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("reading the unit's watchdog: %w", err)
	}
	var due <-chan time.Time // never, without a watchdog
	if interval > 0 {
		ticker := time.NewTicker(interval / 2)
		defer ticker.Stop()
		due = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due:
			for _, p := range parts {
				p.status()
			}
			_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
	}
}

// tellSystemdToWait keeps systemd from giving up a service that waits for its disk.
func tellSystemdToWait(why error) {
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady+"\n"+daemon.SdNotifyWatchdog+"\nSTATUS=waiting for the disk: "+why.Error())
}
