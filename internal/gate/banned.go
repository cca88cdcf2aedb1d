package gate

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/attempt"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/words"
)

// unremarked is up to what size of word files, in bytes, nothing is said of it that the hook reads them word for word: what costs it some
// milliseconds is for whoever runs no serve to choose.
const unremarked = 64 << 10

// statPatience is for how long the hook waits to hear whether word files have changed.
const statPatience = 500 * time.Millisecond

// readPatience is for how long the hook reads words that are not compiled.
const readPatience = 2 * time.Second

var (
	errUncompiled = errors.New("the banned words are not compiled, so each password has all of them read: start samba-pwsync, or run `samba-pwsync policy compile`")
	errSlow       = errors.New("the banned words are too many to be read here: start samba-pwsync, or run `samba-pwsync policy compile`")
	errOld        = errors.New("those that were compiled before hold")
	errNone       = errors.New("no word is banned")
)

// wordsFile is where the compiled words of a list of files lie; each list has its own.
func wordsFile(paths config.Paths, list []string) string {
	sum := sha256.Sum256([]byte(strings.Join(list, "\x00")))
	return filepath.Join(paths.Policy, wordsPrefix+hex.EncodeToString(sum[:8])+wordsSuffix)
}

const (
	wordsPrefix = "banned-"
	wordsSuffix = ".words"
)

// state tells one state of word files from another, without reading them: each file's place, size and times. Nobody can set
// the last of these.
func state(list []string) (s files, err error) {
	h := sha256.New()
	for _, path := range list {
		info, err := os.Stat(path)
		if err != nil {
			return files{}, fmt.Errorf("reading banned words: %w", err)
		}
		if !info.Mode().IsRegular() { // a pipe would be waited for
			return files{}, fmt.Errorf("reading banned words: %s is no file", path)
		}
		stat := info.Sys().(*syscall.Stat_t)
		s.size += stat.Size
		if c := changed(info); c.After(s.changed) {
			s.changed = c
		}
		h.Write([]byte(path + "\x00"))
		for _, n := range []uint64{stat.Dev, stat.Ino, uint64(stat.Size), uint64(stat.Mtim.Nano()), uint64(stat.Ctim.Nano())} {
			h.Write(binary.LittleEndian.AppendUint64(nil, n))
		}
	}
	s.tag = [sha256.Size]byte(h.Sum(nil))
	return s, nil
}

// files is the state of word files.
type files struct {
	tag     [sha256.Size]byte // of any other state it is another
	size    int64             // of all of them, in bytes
	changed time.Time         // when one of them last was
}

// CompileWords compiles the words of all policies whose files have changed since, and forgets those that no policy names any more.
// compiled is told of each list. written is when the configuration was: what was compiled after that is not forgotten, since it
// may be by a newer configuration (to the agent of a split installation, a file that an editor replaced stays what it was).
func CompileWords(c config.HookConfig, written time.Time, compiled func(list []string, report words.Report)) error {
	var errs []error
	var wanted []string
	for _, list := range wordLists(c) {
		path := wordsFile(c.Paths(), list)
		if slices.Contains(wanted, path) {
			continue
		}
		wanted = append(wanted, path)
		now, err := state(list)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if t, err := words.Open(path); err == nil {
			fresh := t.Tag() == now.tag
			_ = t.Close()
			if fresh {
				continue
			}
		}
		table, report, err := words.CompileFiles(now.tag, list...)
		if err == nil {
			err = storeWords(path, table)
		}
		if err != nil {
			errs = append(errs, err)
		} else {
			compiled(list, report)
		}
	}
	old, _ := filepath.Glob(filepath.Join(c.Paths().Policy, wordsPrefix+"*"+wordsSuffix))
	for _, path := range old {
		info, err := os.Lstat(path)
		if err == nil && !info.ModTime().After(written) && !slices.Contains(wanted, path) {
			_ = durable.Remove(path) // the next time, then
		}
	}
	return errors.Join(errs...)
}

// wordLists are the lists of all policies.
func wordLists(c config.HookConfig) [][]string {
	var lists [][]string
	for _, p := range append([]config.NamedPolicy{{Policy: c.Policy}}, c.Policies...) {
		if len(p.Policy.Banned) > 0 {
			lists = append(lists, p.Policy.Banned)
		}
	}
	return lists
}

// storeWords puts a table in its place. If another process is doing so, that one's will do.
func storeWords(path string, table []byte) error {
	folder, err := lockFolder(filepath.Dir(path), syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("storing banned words: %w", err)
	}
	defer folder.Close()
	if err := durable.Replace(path, table, 0o600); err != nil {
		return fmt.Errorf("storing banned words: %w", err)
	}
	return nil
}

// lockFolder opens a folder that only one process at a time is to change, until it is closed.
func lockFolder(path string, how int) (*os.File, error) {
	folder, err := openFolder(path)
	if err != nil {
		return nil, err
	}
	for err = syscall.EINTR; err == syscall.EINTR; {
		err = syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|how)
	}
	if err != nil {
		_ = folder.Close()
		return nil, os.NewSyscallError("locking "+path, err)
	}
	return folder, nil
}

// found is a table, and why it is not the one that it should be.
type found struct {
	table   *words.Table
	trouble error
	minor   bool
}

// findWords opens the compiled words of a list. Where they are not, or no longer, right, it reads the words themselves, for this password; where that
// cannot be done, or not in time, what was compiled last holds. Nothing is compiled or stored here: the DC's database is locked meanwhile.
func findWords(course *attempt.Course, paths config.Paths, list []string, password []byte, until time.Time) found {
	table, errOpen := words.Open(wordsFile(paths, list))
	now, err := attempt.Step(course, earlier(until, statPatience), func() (files, error) { return state(list) })
	if err == nil && errOpen == nil && table.Tag() == now.tag {
		return found{table: table}
	}
	var read *words.Table
	if err == nil {
		read, err = attempt.Step(course, until, func() (*words.Table, error) {
			b, err := words.CompileFor(password, list...)
			if err != nil {
				return nil, err
			}
			return words.Read(b)
		})
	}
	if errors.Is(err, attempt.ErrHangs) {
		err = errSlow
	}
	switch {
	case err != nil && errOpen == nil:
		return found{table: table, trouble: fmt.Errorf("%w; %w", err, errOld)}
	case err != nil:
		return found{trouble: errors.Join(fmt.Errorf("%w; %w", err, errNone), unusual(errOpen))}
	}
	if errOpen == nil {
		_ = table.Close() // was read only
	}
	if err = unusual(errOpen); err == nil && now.size > unremarked {
		return found{table: read, trouble: errUncompiled, minor: true}
	}
	return found{table: read, trouble: err}
}

// unusual is an error, unless it is that there is no such file.
func unusual(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// bannedWords is the words of a list as a tool of policy. It notes what goes wrong, and then finds nothing.
type bannedWords struct {
	*tools
	table *words.Table
}

func (t *tools) banned(list []string) *bannedWords {
	f, err := attempt.Step(t.course, earlier(t.until, readPatience+patience), func() (found, error) {
		return findWords(t.course, t.conf.Paths(), list, t.request.Password.Bytes(), earlier(t.until, readPatience)), nil
	})
	if err = errors.Join(err, f.trouble); err != nil {
		t.troubles = append(t.troubles, Trouble{Rule: policy.RuleBanned, Err: err, Minor: f.minor})
	}
	if f.table == nil {
		return nil
	}
	return &bannedWords{t, f.table}
}

// Score implements policy.Banned.
func (b *bannedWords) Score(password []byte) int {
	const enough = 1 << 30
	points, err := search(b.tools, func() (int, error) { return b.table.Score(password), b.table.Err() })
	if err != nil {
		b.trouble(policy.RuleBanned, err)
		return enough
	}
	return points
}

// Contains implements policy.Banned.
func (b *bannedWords) Contains(password []byte, name string) bool {
	holds, err := search(b.tools, func() (bool, error) { return b.table.Contains(password, name), nil })
	if err != nil {
		b.trouble(policy.RuleBanned, err)
	}
	return holds
}

var errUnreadable = errors.New("a page of a mapped file cannot be read")

// search is a step for what reads mapped memory: a page that cannot be had (the file was cut off under us, the disk is broken) is an
// error.
func search[T any](t *tools, look func() (T, error)) (T, error) {
	return attempt.Step(t.course, earlier(t.until, patience), func() (value T, err error) {
		before := debug.SetPanicOnFault(true) // of this goroutine
		defer func() {
			debug.SetPanicOnFault(before)
			if fault := recover(); fault != nil {
				if _, ofMemory := fault.(interface {
					runtime.Error
					Addr() uintptr
				}); !ofMemory {
					panic(fault)
				}
				err = errUnreadable
			}
		}()
		return look()
	})
}
