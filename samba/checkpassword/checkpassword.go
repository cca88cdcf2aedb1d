// Package checkpassword is the contract between Samba and the program named in
// smb.conf by `check password script`: what comes in on stdin and in the
// environment, what each exit code means, and the complexity rule that Samba
// itself no longer applies once a script is configured.
//
// Samba runs the script as root, by `/bin/sh -c`, inside the open transaction
// of its database: until the script ends, nothing else is written on that
// domain controller. So this package does no more than it must, uses nothing
// but the standard library, and is cheap to start.
//
// It trusts Samba for the bytes of the password, and nobody for the names: by
// SamrValidatePassword any domain user can have the script run with a password
// and an account name of his choice, without any password being changed.
// Accept therefore means "may be set", never "was set": the change can still
// be refused afterwards (password history), or may never have been meant.
//
// What it does not solve: with complexity switched off, in the domain or in a
// fine-grained policy, Samba does not run the script at all; nor does it for
// changes that carry only hashes. Samba kills the script after 10 seconds and
// refuses the change; keeping within that time is the caller's business.
//
// See samdb_check_password in Samba's source4/dsdb/common/util.c.
package checkpassword

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Exit codes. Samba tells only 0 from the rest: any other code, and death by a
// signal, refuses the change. Refuse and Fail differ for people and scripts.
const (
	Accept = 0 // the password may be set
	Refuse = 1 // policy says no
	Fail   = 2 // the script could not do its work
)

// MaxPassword is how many bytes of a password Read takes.
const MaxPassword = 4096

const maxName = 1024 // bytes of a name

// The variables in which Samba names the account, since 4.11. The last two are
// set only where the account has the attribute, and never by
// SamrValidatePassword.
const (
	EnvAccount           = "SAMBA_CPS_ACCOUNT_NAME"        // sAMAccountName
	EnvUserPrincipalName = "SAMBA_CPS_USER_PRINCIPAL_NAME" // userPrincipalName
	EnvFullName          = "SAMBA_CPS_FULL_NAME"           // displayName
)

// Request is what Samba asks about. The names are claims, see the package
// comment; each is empty where Samba gave none.
type Request struct {
	Password          []byte // UTF-8, no NUL, 1 to MaxPassword bytes; the caller clears it
	Account           string
	UserPrincipalName string
	FullName          string

	// Ignored lists the variables whose value counts as not given, because it
	// was longer than 1024 bytes, not UTF-8 or held a control character.
	Ignored []string
}

// What can be wrong with the password that was read.
var (
	ErrEmpty   = errors.New("the password is empty")
	ErrTooLong = errors.New("the password is longer than 4096 bytes")
	ErrNotUTF8 = errors.New("the password is not UTF-8")
	ErrNUL     = errors.New("the password contains a NUL")
)

// Read takes the password from stdin and the names from the environment.
//
// It reads stdin to its end whatever comes, for Samba refuses the change if its
// write fails; but it keeps no more than MaxPassword bytes. Nothing is trimmed:
// Samba sends no newline, so one at the end belongs to the password.
//
// The errors are ErrEmpty, ErrTooLong, ErrNUL and ErrNotUTF8, the first that
// holds, or a failed read's. With an error the names are still there, and the
// Password is nil, what had been read of it cleared.
func Read(stdin io.Reader, getenv func(string) string) (Request, error) {
	var r Request
	r.Account = r.name(getenv, EnvAccount)
	r.UserPrincipalName = r.name(getenv, EnvUserPrincipalName)
	r.FullName = r.name(getenv, EnvFullName)

	password, err := readPassword(stdin)
	if err != nil {
		return r, fmt.Errorf("reading password: %w", err)
	}
	r.Password = password
	return r, nil
}

// name returns a variable's value if it is fit to be logged and looked up.
func (r *Request) name(getenv func(string) string, variable string) string {
	value := getenv(variable)
	if len(value) > maxName || !utf8.ValidString(value) || hasControl(value) {
		r.Ignored = append(r.Ignored, variable)
		return ""
	}
	return value
}

// hasControl reports whether s holds a character of Unicode's category Cc.
func hasControl(s string) bool {
	for _, c := range s {
		if c < 0x20 || 0x7F <= c && c < 0xA0 {
			return true
		}
	}
	return false
}

// readPassword reads to the end of stdin, into one buffer that never grows: a
// growing one would leave copies of the password behind.
func readPassword(stdin io.Reader) ([]byte, error) {
	buf := make([]byte, MaxPassword+1)
	n, err := io.ReadFull(stdin, buf)
	if err == nil {
		err = drain(stdin)
	} else if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	if err == nil {
		err = judge(buf[:n])
	}
	if err != nil {
		clear(buf)
		return nil, err
	}
	return buf[:n:n], nil
}

// drain reads what is left and forgets it.
func drain(stdin io.Reader) error {
	scratch := make([]byte, MaxPassword)
	defer clear(scratch)
	for {
		if _, err := stdin.Read(scratch); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func judge(password []byte) error {
	switch {
	case len(password) == 0:
		return ErrEmpty
	case len(password) > MaxPassword:
		return ErrTooLong
	case bytes.IndexByte(password, 0) >= 0:
		return ErrNUL
	case !utf8.Valid(password):
		return ErrNotUTF8
	}
	return nil
}
