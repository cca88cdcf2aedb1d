package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

// Errors as the packages below make them, each with a word of what to do. testdata/script has those that can be had without a
// domain controller.
func TestHints(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, tc := range []struct {
		name string
		err  error
		want string // empty: there is no advice
	}{
		{"usage", &usageError{"unknown flag --x", "samba-pwsync serve"}, "samba-pwsync serve --help"},
		{"configuration", config.Faults{{File: "f", Problem: "is wrong"}}, "samba-pwsync.toml(5)"},
		{"no user", fmt.Errorf("looking up: %w", user.UnknownUserError("pw")), "useradd --system --home /nonexistent --shell /usr/sbin/nologin pw"},
		{"locked", fmt.Errorf("locking: %w", errLocked), "systemctl status"},
		{"other owner", fmt.Errorf("locking: %w", errOtherOwner), "samba-pwsync init --user root"},
		{"no hashes", errNoHashes, `set [directory] proof = "aes256"`},
		{"no proof", errNoProof, "nt hash store = always"},
		{"no NTLM", fmt.Errorf("x is of SHA-1 hashes: %w", errNoNTLM), "a list of NTLM hashes"},
		{"strangers", fmt.Errorf("keys: %w", errStrangers), "samba-pwsync init"},
		{"no DC", fmt.Errorf("connecting: %w: %w", directory.ErrUnavailable, refused), "systemctl status samba-ad-dc"},
		{"ordinary socket", fmt.Errorf("connecting: %w", directory.ErrNotPrivileged), "ldap_priv/ldapi"},
		{"no root at the DC", fmt.Errorf("connecting: %w", &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}), "run it as root"},
		{"denied", fmt.Errorf("checking: %w: grant this", target.ErrDenied), "/usr/share/doc/samba-pwsync/operating.md"},
		{"not trusted", fmt.Errorf("checking: %w: the server's certificate is not trusted (x)", target.ErrDenied), "by the target's ca_file"},
		{"no credentials", fmt.Errorf("opening: %w", &fileError{"/x/key", account{9, 987654}, fs.ErrNotExist}), "put the file there"},
		{"unreadable", fmt.Errorf("opening: %w", &fileError{"/x/key", account{9, 987654}, fs.ErrPermission}), "chgrp 987654 /x/key && chmod 0640 /x/key"},
		{"unreadable to another", &fileError{"/x/key", account{9, 987654}, errNoRead}, "chgrp 987654 /x/key && chmod 0640 /x/key"},
		{"unreachable", &fileError{"/x", account{9, 987654}, errNoWay}, "chgrp 987654 /x && chmod g+x /x;"},
		{"no root", &fs.PathError{Op: "open", Path: "/x", Err: syscall.EACCES}, "run it as root"},
		{"no root to give away", &fs.PathError{Op: "lchown", Path: "/x", Err: syscall.EPERM}, "run it as root"},
		{"no state folder", &fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}, "samba-pwsync init"},
		{"port refused", fmt.Errorf("talking to the server: %w", refused), "HTTPS_PROXY"},
		{"no such host", fmt.Errorf("looking up: %w", &net.DNSError{Err: "no such host", Name: "x"}), "HTTPS_PROXY"},
		{"something else", errors.New("disk on fire"), ""},
	} {
		got := hints(tc.err)
		if tc.want == "" {
			if len(got) != 0 {
				t.Errorf("%s: %q", tc.name, got)
			}
		} else if !slices.ContainsFunc(got, func(hint string) bool { return strings.Contains(hint, tc.want) }) {
			t.Errorf("%s: %q, want one with %q", tc.name, got, tc.want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{errors.New("x"), exitFailed},
		{&codedError{code: exitAttention}, exitAttention},
		{fmt.Errorf("wrapped: %w", &codedError{exitUsage, errors.New("x")}), exitUsage},
		{fmt.Errorf("wrapped: %w", &usageError{"x", "y"}), exitUsage},
		{fmt.Errorf("wrapped: %w", config.Faults{{}}), exitUsage},
		{errors.Join(&codedError{exitUsage, errors.New("x")}, errors.New("closing")), exitUsage},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.err, got, tc.want)
		}
	}
}
