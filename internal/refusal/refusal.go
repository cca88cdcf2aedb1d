// Package refusal is the file spool/refusals, in which the hook notes each password that the policy refused, or would have refused
// if it enforced, and from which the agent counts them and tells people why.
//
// What: Append adds a line; Take moves the file out of the hook's way, and Read gives the lines of one that was taken.
//
// Why a file: the hook must be able to note a refusal when no daemon runs, and the journal, where it says the same, is nothing that
// a program can rely on.
//
// Bytes: JSON, one record a line. A line begins and ends with a newline, so that one that was torn (a full disk) spoils no other. A
// record goes out with one write in append mode, and Linux does not mix such writes. It is not synced: a power cut may lose what was
// noted in the seconds before it. The file does not grow beyond 1 MiB: what comes then is not noted, so that nobody who has
// Samba ask about passwords (SamrValidatePassword) can fill the disk. Nor can he have others' refusals go uncounted: what may be his
// is noted in the first half of the file only.
//
// Taking: a file is renamed, and a hook that had opened it before goes on and writes into the renamed one. So a taken file is read
// again, from where reading ended, until no hook can have it open any more, and only then removed: that is the reader's to keep
// (internal/agent/refusals).
//
// Whom it trusts: the folder, which is root's, and where nobody else can write. A file that is a link, has a second name, is not the
// process's own or can be written by others is neither written nor read all the same. The account in a record is a claim: any domain user can
// have Samba ask about a password in anybody's name, without changing one; Probe says when that may be so. A line that makes no
// sense is counted and skipped.
//
// There is no field for a password, a hash or a length, and a rule's name tells of none.
package refusal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/nopoll"
)

const (
	// MaxSize is what the file may have in bytes before nothing is added, and MaxProbes before no probe is.
	MaxSize   = 1 << 20
	MaxProbes = MaxSize / 2

	maxAccount = 1024 // bytes; checkpassword takes no more
	maxLine    = 16 << 10
)

// Errors of Append, Take and Read.
var (
	ErrFull    = errors.New("the file is full: nothing takes the refusals away")
	ErrForeign = errors.New("it is no plain file of our own")
)

// Unreadable stands in Record.Rules for a password that is refused because it cannot be read: it is empty, too long, or no UTF-8.
const Unreadable = "unreadable"

// Record is one password that the policy had objections to.
type Record struct {
	Time    time.Time `json:"time"`
	Account string    `json:"account"`         // as Samba named it; empty where it named none
	Probe   bool      `json:"probe,omitempty"` // Samba named neither UPN nor full name: perhaps nobody's password changes
	Policy  string    `json:"policy"`          // the policy that applied
	Rules   []string  `json:"rules"`           // names of the rules that objected
	Audit   bool      `json:"audit,omitempty"` // these rules are only audited: the password was not refused because of them
}

// Append notes records, usually one: of one password. It makes the file if there is none, and takes a few dozen microseconds.
func Append(path string, records ...Record) error {
	var b bytes.Buffer
	room := int64(MaxSize)
	for _, r := range records {
		if r.Probe {
			room = MaxProbes
		}
		if len(r.Account) > maxAccount {
			r.Account = r.Account[:maxAccount]
		}
		line, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("noting a refusal: %w", err)
		}
		b.WriteByte('\n')
		b.Write(line)
		b.WriteByte('\n')
	}
	if err := appendTo(path, b.Bytes(), room); err != nil {
		return fmt.Errorf("noting a refusal: %w", err)
	}
	return nil
}

func appendTo(path string, b []byte, room int64) error {
	// O_NONBLOCK: a named pipe in the file's place must not hold up the DC's database.
	f, err := nopoll.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return foreign(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !own(info) {
		return ErrForeign
	}
	if info.Size()+int64(len(b)) > room {
		return ErrFull
	}
	_, err = f.Write(b)
	return err
}

// own reports whether it is a plain file of this process's user that nobody else can have written.
func own(info fs.FileInfo) bool {
	stat := info.Sys().(*syscall.Stat_t)
	return info.Mode().IsRegular() && info.Mode().Perm()&0o022 == 0 && stat.Nlink == 1 && int(stat.Uid) == os.Geteuid()
}

// foreign tells from the error of opening that something else stands in the file's place.
func foreign(err error) error {
	for _, sign := range []error{syscall.ELOOP, syscall.ENXIO, syscall.EISDIR} {
		if errors.Is(err, sign) {
			return ErrForeign
		}
	}
	return err
}
