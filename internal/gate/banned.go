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

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/words"
)

const (
	// compileHere is the size of word files, in bytes, that the hook compiles itself: some 100,000 words, half a second. What
	// is larger, the agent does, and `samba-pwsync policy compile`; but where nothing is compiled yet, the hook takes more upon itself.
	compileHere  = 1 << 20
	compileFirst = 3 << 20

	compilePatience = 2 * time.Second
)

var errNone = errors.New("the word files are too large to be compiled here: start samba-pwsync, or run `samba-pwsync policy compile`; until then no word is banned")

var errStale = errors.New("the word files have changed, and are too large to be compiled here: start samba-pwsync, or run `samba-pwsync policy compile`; until then what was compiled holds")

var errSlow = errors.New("compiling the word files takes too long here: start samba-pwsync, or run `samba-pwsync policy compile`; until then what was compiled before holds, if anything was")

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
func state(list []string) (tag [sha256.Size]byte, size int64, err error) {
	h := sha256.New()
	for _, path := range list {
		info, err := os.Stat(path)
		if err != nil {
			return tag, 0, fmt.Errorf("reading banned words: %w", err)
		}
		if !info.Mode().IsRegular() { // a pipe would be waited for
			return tag, 0, fmt.Errorf("reading banned words: %s is no file", path)
		}
		stat := info.Sys().(*syscall.Stat_t)
		size += stat.Size
		h.Write([]byte(path + "\x00"))
		for _, n := range []uint64{stat.Dev, stat.Ino, uint64(stat.Size), uint64(stat.Mtim.Nano()), uint64(stat.Ctim.Nano())} {
			h.Write(binary.LittleEndian.AppendUint64(nil, n))
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), size, nil
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
		tag, _, err := state(list)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if t, err := words.Open(path); err == nil {
			fresh := t.Tag() == tag
			_ = t.Close()
			if fresh {
				continue
			}
		}
		table, report, err := words.CompileFiles(tag, list...)
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
	return replaceWords(path, table)
}

func replaceWords(path string, table []byte) error {
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

// compiled is the words of a list.
type compiled struct {
	table  *words.Table // by another process; nil: bytes are to be stored
	bytes  []byte
	folder *os.File // locked
	noLock error    // why it is not
}

// compileAlone compiles the words of a list. Hooks can run at the same time (SamrValidatePassword takes no lock of Samba's), and if each
// compiled, none might end in time: so one does, and the others wait for its table.
func compileAlone(path string, tag [sha256.Size]byte, list []string) (c compiled, err error) {
	if c.folder, c.noLock = lockFolder(filepath.Dir(path), 0); c.noLock == nil {
		if t, err := words.Open(path); err == nil && t.Tag() == tag {
			c.table = t
			return c, nil
		} else if err == nil {
			_ = t.Close()
		}
	}
	c.bytes, _, err = words.CompileFiles(tag, list...)
	return c, err
}

// found is a table, and why it is not the one that it should be.
type found struct {
	table   *words.Table
	trouble error
}

// findWords opens the compiled words of a list, and compiles them if they are not, or no longer, right. Where that cannot be,
// what was compiled last holds.
func findWords(paths config.Paths, list []string) found {
	path := wordsFile(paths, list)
	table, errOpen := words.Open(path)
	tag, size, err := state(list)
	switch {
	case err != nil:
		return found{table, errors.Join(err, unusual(errOpen))}
	case errOpen == nil && table.Tag() == tag:
		return found{table: table}
	case errOpen == nil && size > compileHere:
		return found{table, errStale}
	case size > compileFirst:
		return found{trouble: errors.Join(errNone, unusual(errOpen))}
	}
	c, err := bounded(time.Now().Add(compilePatience), func() (compiled, error) { return compileAlone(path, tag, list) })
	if c.folder != nil {
		defer c.folder.Close()
	}
	if errors.Is(err, errHangs) {
		err = errSlow
	}
	if err != nil {
		return found{table, errors.Join(err, unusual(errOpen))}
	}
	if table != nil {
		_ = table.Close()
	}
	if c.table != nil {
		return found{table: c.table}
	}
	var errStore error
	if c.noLock != nil {
		errStore = fmt.Errorf("storing banned words: %w", c.noLock)
	} else {
		errStore = replaceWords(path, c.bytes)
	}
	table, err = words.Read(c.bytes)
	return found{table, errors.Join(err, errStore)}
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
	f, err := bounded(earlier(t.until, compilePatience+patience), func() (found, error) { return findWords(t.conf.Paths(), list), nil })
	if err = errors.Join(err, f.trouble); err != nil {
		t.trouble(policy.RuleBanned, err)
	}
	if f.table == nil {
		return nil
	}
	t.closers = append(t.closers, f.table.Close)
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

// search is bounded for what reads mapped memory: a page that cannot be had (the file was cut off under us, the disk is broken) is an
// error.
func search[T any](t *tools, step func() (T, error)) (T, error) {
	value, err := bounded(earlier(t.until, patience), func() (value T, err error) {
		debug.SetPanicOnFault(true) // of this goroutine, which ends with this
		defer func() {
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
		return step()
	})
	if errors.Is(err, errHangs) {
		t.closers = nil // what is in use must not be closed
	}
	return value, err
}
