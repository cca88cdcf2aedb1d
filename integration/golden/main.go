// Command golden writes the golden files of samba/dsdb and samba/audit anew: what a real Samba of each Debian suite stored and logged.
//
//	go run ./integration/golden bullseye bookworm trixie trixie-backports forky
//
// It runs at the top of the checkout, and wants the suites' images (make images SUITE=…). For each suite it starts a domain of two
// domain controllers, makes accounts in every state that the decoders know (capture.py), changes a password by several routes with the
// audit log on, and writes
//
//	samba/dsdb/testdata/samba-4.X/directory.json   raw values, and what Samba's own library reads in them
//	samba/audit/testdata/samba-4.X/log.samba       the DC's log of the changes
//
// The passwords of those accounts are published there and protect nothing: the domains are gone when it ends.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

//go:embed capture.py
var capture string

const (
	logFile = "/var/log/samba/log.samba"
	// Commits are logged at level 10 only.
	logLevel = "log level = 1 dsdb_json_audit:5 dsdb_password_json_audit:5 dsdb_transaction_json_audit:10 auth_json_audit:3"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: golden SUITE…")
		os.Exit(2)
	}
	for _, suite := range os.Args[1:] {
		if err := write(ctx, suite); err != nil {
			fmt.Fprintf(os.Stderr, "golden: %s: %v\n", suite, err)
			os.Exit(1)
		}
	}
}

func write(ctx context.Context, suite string) (err error) {
	progress := func(format string, args ...any) { fmt.Printf(suite+": "+format+"\n", args...) }
	l, err := lab.Start(ctx, lab.Options{Suite: suite, Progress: progress})
	if err != nil {
		return fmt.Errorf("starting the lab: %w", err)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := logAudit(ctx, l.DC); err != nil {
		return fmt.Errorf("turning on the audit log: %w", err)
	}
	dc2, err := l.Join(ctx, lab.JoinOptions{Suite: suite, Progress: progress})
	if err != nil {
		return err
	}

	progress("making accounts")
	directory, err := l.DC.Exec(ctx, capture, "python3", "-")
	if err != nil {
		return fmt.Errorf("making accounts: %w", err)
	}
	var told struct {
		Samba string `json:"samba"`
	}
	if err := json.Unmarshal([]byte(directory), &told); err != nil {
		return fmt.Errorf("reading what capture.py wrote: %w", err)
	}
	progress("changing passwords, Samba %s", told.Samba)
	log, err := changes(ctx, l.DC, dc2)
	if err != nil {
		return fmt.Errorf("changing passwords: %w", err)
	}

	release := strings.Join(strings.SplitN(told.Samba, ".", 3)[:2], ".")
	for name, contents := range map[string]string{
		"samba/dsdb/testdata/samba-" + release + "/directory.json": directory,
		"samba/audit/testdata/samba-" + release + "/log.samba":     log,
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(contents), 0o644); err != nil {
			return err
		}
		progress("wrote %s", name)
	}
	return nil
}

func logAudit(ctx context.Context, dc *lab.DC) error {
	_, err := dc.Exec(ctx, "", "sed", "-i", "s/log level = .*/"+logLevel+"/", "/etc/samba/smb.conf.d/container.conf")
	return errors.Join(err, dc.StopSamba(ctx), dc.StartSamba(ctx))
}

// changes changes a password in every way that the log tells apart, and returns what the DC logged about it.
func changes(ctx context.Context, dc, dc2 *lab.DC) (string, error) {
	const user, first, second, third = "audited", "Golden-Word-1", "Golden-Word-2", "Golden-Word-3"
	size, err := dc.Exec(ctx, "", "stat", "-c", "%s", logFile)
	if err != nil {
		return "", err
	}
	from, err := strconv.Atoi(strings.TrimSpace(size))
	if err != nil {
		return "", err
	}
	refused := func(err error, what string) error {
		if err == nil {
			return fmt.Errorf("not refused: %s", what)
		}
		return nil
	}
	for _, step := range []func() error{
		func() error { return dc2.CreateUser(ctx, user, first) },
		func() error { return dc.PullFrom(ctx, dc2) },
		func() error { return dc.LDAPSReset(ctx, user, "", second) },
		func() error { return dc.SMBPasswd(ctx, user, second, third) },
		func() error { return refused(dc.KPasswd(ctx, user, third, second), "a password of the history") },
		func() error { return refused(dc.SMBPasswd(ctx, user, first, first+"x"), "a wrong old password") },
		func() error { return dc.LDAPSChange(ctx, user, third, first+"y") },
	} {
		if err := step(); err != nil {
			return "", err
		}
	}
	return dc.Exec(ctx, "", "tail", "-c", "+"+strconv.Itoa(from+1), logFile)
}
