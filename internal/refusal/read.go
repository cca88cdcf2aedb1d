package refusal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/samba-pwsync/samba-pwsync/internal/durable"
)

// Limits of what a record may hold, so that a damaged file fills neither memory nor terminal.
const (
	maxPolicy = 64
	maxRule   = 32
	maxRules  = 16
	// maxRead is more than a file can have: hooks that write at the same moment can each pass the limit by a line.
	maxRead = 2 * MaxSize
)

// Parse reads lines. whole is how many bytes they have: what follows is a line that is not whole yet. nonsense counts the lines that
// made none, and were skipped.
func Parse(b []byte) (records []Record, whole, nonsense int) {
	for {
		line, _, found := bytes.Cut(b[whole:], []byte{'\n'})
		if !found {
			return records, whole, nonsense
		}
		whole += len(line) + 1
		if len(line) == 0 {
			continue
		}
		var r Record
		if len(line) > maxLine || json.Unmarshal(line, &r) != nil || !r.valid() {
			nonsense++
			continue
		}
		records = append(records, r)
	}
}

// valid reports whether it is a record that a hook can have written.
func (r Record) valid() bool {
	if r.Time.IsZero() || len(r.Account) > maxAccount || len(r.Policy) > maxPolicy || len(r.Rules) == 0 || len(r.Rules) > maxRules {
		return false
	}
	for _, rule := range r.Rules {
		if rule == "" || len(rule) > maxRule || strings.ContainsFunc(rule, notInWord) {
			return false
		}
	}
	return !strings.ContainsFunc(r.Account+r.Policy, unicode.IsControl)
}

func notInWord(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
}

// Take moves the file out of the hook's way, to a name of its own, and reports whether there was one. Errors: ErrForeign, and what the disk says.
func Take(path string) (taken bool, err error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && own(info) && info.Size() == 0:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("taking refusals: %w", err)
	case !own(info):
		return false, fmt.Errorf("taking refusals: %s: %w", path, ErrForeign)
	}
	at := time.Now().UnixNano()
	for {
		to := path + "." + strconv.FormatInt(at, 10)
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			if err := durable.Move(path, to); err != nil {
				return false, fmt.Errorf("taking refusals: %w", err)
			}
			return true, nil
		} else if err != nil {
			return false, fmt.Errorf("taking refusals: %w", err)
		}
		at++ // the clock was set back
	}
}

// Taken lists the files that were taken and are still there, as base names.
func Taken(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listing refusals: %w", err)
	}
	var names []string
	for _, e := range entries {
		digits, found := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if _, err := strconv.ParseUint(digits, 10, 64); found && err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Read returns what a file holds from an offset on. Errors: ErrForeign, and what the disk says.
func Read(file string, from int64) ([]byte, error) {
	b, err := readFrom(file, from)
	if err != nil {
		return nil, fmt.Errorf("reading refusals: %w", err)
	}
	return b, nil
}

func readFrom(file string, from int64) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, foreign(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !own(info) {
		return nil, ErrForeign
	}
	return io.ReadAll(io.NewSectionReader(f, from, maxRead))
}

// Remove deletes a file that was taken.
func Remove(file string) error {
	if err := durable.Remove(file); err != nil {
		return fmt.Errorf("removing refusals: %w", err)
	}
	return nil
}
