package gate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/attempt"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/nopoll"
)

// Conf is the configuration that the hook goes by, and where it comes from.
type Conf struct {
	config.HookConfig

	// Err is what is wrong with the file; nil if nothing is.
	Err error

	// Since is the time of the file of which a copy is in force instead; zero if none is: then, with an Err, what the file says
	// as far as it can be told holds, and else the defaults.
	Since time.Time

	// NoCopy is why there is no copy, where there is an Err and no copy, and the reason is another than that there is none.
	NoCopy error

	text     []byte             // of the file, if it has no fault
	info     fs.FileInfo        // likewise
	key      config.CompiledKey // of its compiled form; zero if there can be none
	compiled bool               // that form was there
}

// Written is when the file was, if it has no fault; else the zero time.
func (c Conf) Written() time.Time {
	if c.info == nil {
		return time.Time{}
	}
	return c.info.ModTime()
}

// compiledPatience is how long the compiled configuration may take, without which the text is read.
const compiledPatience = 250 * time.Millisecond

// LoadNow is Load for whoever has no other steps.
func LoadNow(path string) Conf {
	return attempt.Run(func(course *attempt.Course) Conf { return Load(course, path) })
}

// Load reads the configuration. It is never without one: where the file has a fault that concerns the hook, or hangs, the copy of what the
// hook last read without one holds, as a whole. A state folder that hangs costs the compiled form only.
//
// A file of 0 bytes, which would be a right one with nothing but defaults, counts as one that an editor is about to write.
func Load(course *attempt.Course, path string) Conf { return load(course, path, findCompiled) }

func load(course *attempt.Course, path string, find func(text []byte) compiled) Conf {
	c, err := attempt.Step(course, time.Now().Add(patience), func() (c Conf, err error) {
		c.text, c.info, err = config.Read(path)
		return c, err
	})
	if err == attempt.ErrHangs || err == attempt.ErrInternal {
		err = fmt.Errorf("reading %s: %w", path, err)
	}
	if err != nil {
		return fallback(course, config.BuiltinHook(), err)
	}
	if len(c.text) == 0 {
		return fallback(course, config.BuiltinHook(),
			config.Faults{{File: path, Problem: "is empty", Remedy: "put a line with a remark into it if all defaults are meant"}})
	}

	found, err := attempt.Step(course, time.Now().Add(compiledPatience), func() (compiled, error) { return find(c.text), nil })
	if err == nil {
		c.key, c.compiled = found.key, found.ok
	}
	if c.compiled {
		c.HookConfig = found.HookConfig
		return c
	}

	usable, err := attempt.Step(course, time.Now().Add(patience), func() (config.HookConfig, error) { return config.ParseHook(path, c.text) })
	switch {
	case err == attempt.ErrHangs || err == attempt.ErrInternal:
		return fallback(course, config.BuiltinHook(), fmt.Errorf("reading %s: %w", path, err))
	case err != nil:
		return fallback(course, usable, err)
	}
	c.HookConfig = usable
	return c
}

// compiled is a configuration that was found in compiled form, if ok; and the key of that form.
type compiled struct {
	config.HookConfig
	key config.CompiledKey
	ok  bool
}

func findCompiled(text []byte) (found compiled) {
	file, err := program()
	if err != nil {
		return found
	}
	found.key = config.Key(file, text)
	found.HookConfig, found.ok = readCompiled(likelyPaths(text).Compiled, found.key)
	return found
}

// likelyPaths is where a text's compiled form is looked for.
func likelyPaths(text []byte) config.Paths {
	return config.HookConfig{StateDir: config.LikelyStateDir(text)}.Paths()
}

// fallback is the configuration where the file cannot be gone by, for the reason err. usable is what it says as far as can be told: where
// its state folder is, the copy lies. Whether there is a target cannot be told, so passwords are kept.
func fallback(course *attempt.Course, usable config.HookConfig, err error) Conf {
	usable.NoTarget = false
	copied, errCopy := attempt.Step(course, time.Now().Add(patience), func() (copied, error) { return readCopy(usable.Paths()) })
	switch {
	case errCopy == nil:
		return Conf{HookConfig: copied.HookConfig, Err: err, Since: copied.since}
	case errors.Is(errCopy, fs.ErrNotExist):
		return Conf{HookConfig: usable, Err: err}
	}
	return Conf{HookConfig: usable, Err: err, NoCopy: fmt.Errorf("reading the copy of the last configuration without a fault: %w", errCopy)}
}

// copied is the copy of the last configuration without a fault, and the time of the file that it is of.
type copied struct {
	config.HookConfig
	since time.Time
}

var errForeign = errors.New("it is no plain file that only its owner can write")

func readCopy(paths config.Paths) (c copied, err error) {
	text, info, err := readOurs(paths.LastGood)
	if err != nil {
		return c, err
	}
	c.since = info.ModTime()
	if c.HookConfig, err = config.ParseHook(paths.LastGood, text); err != nil {
		return c, err
	}
	if c.Paths() != paths { // of an installation that was here before
		return c, fmt.Errorf("%s: it is of another state folder: %w", paths.LastGood, fs.ErrNotExist)
	}
	return c, nil
}

// readCompiled reads a compiled configuration, and reports whether there is one of that key.
func readCompiled(path string, key config.CompiledKey) (c config.HookConfig, ok bool) {
	compiled, _, err := readOurs(path)
	if err != nil {
		return c, false
	}
	return config.Decompile(compiled, key)
}

// program tells this program's file from others, and from what stood or will stand in its place: nobody can set the last of these.
func program() (b []byte, err error) {
	var stat syscall.Stat_t
	if err := syscall.Stat("/proc/self/exe", &stat); err != nil {
		return nil, err
	}
	for _, n := range []uint64{stat.Dev, stat.Ino, uint64(stat.Size), uint64(stat.Mtim.Nano()), uint64(stat.Ctim.Nano())} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b, nil
}

// maxOurs bounds what readOurs reads, in bytes.
const maxOurs = 1 << 20

// readOurs reads a small file that isOurs.
func readOurs(path string) ([]byte, fs.FileInfo, error) {
	f, err := nopoll.OpenFile(path, syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !isOurs(info) {
		return nil, nil, &fs.PathError{Op: "read", Path: path, Err: errForeign}
	}
	text := make([]byte, min(info.Size(), maxOurs))
	_, err = io.ReadFull(f, text)
	return text, info, err
}

// isOurs reports whether a file is a plain one of this process's user that nobody else can write to.
func isOurs(info fs.FileInfo) bool {
	stat := info.Sys().(*syscall.Stat_t)
	return info.Mode().IsRegular() && info.Mode().Perm()&0o022 == 0 && stat.Nlink == 1 && int(stat.Uid) == os.Geteuid()
}

// Keep makes a copy of the file, for the time when it has a fault, and a compiled one, so that the next run need not read TOML. It costs one look where there
// are both already, and four syncs where the file is a new one, so it is for after the verdict. That there is no state folder (before `samba-pwsync init`) is no
// error.
//
// The copy has the time of the file. It is taken for current if the two have the same time and size and nobody touched the
// file since; else their bytes decide.
func (c Conf) Keep() error {
	if c.Err != nil || len(c.text) == 0 {
		return nil
	}
	if err := c.keep(); err != nil {
		return fmt.Errorf("keeping a copy of the configuration: %w", err)
	}
	return nil
}

func (c Conf) keep() error {
	paths := c.Paths()
	there, err := os.Lstat(paths.LastGood)
	ours := err == nil && isOurs(there)
	current := ours && there.Size() == c.info.Size() && there.ModTime().Equal(c.info.ModTime()) && changed(c.info).Before(changed(there))
	compile := !c.compiled && c.key != (config.CompiledKey{}) && likelyPaths(c.text) == paths // else nobody would find it
	if current && !compile {
		return nil
	}

	// Hooks can run at the same time (SamrValidatePassword takes no lock of Samba's). One of them is enough.
	folder, err := lockFolder(paths.Hook, syscall.LOCK_NB)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer folder.Close()

	if !current {
		if err := c.copyTo(paths.LastGood, ours); err != nil {
			return err
		}
	}
	if compile {
		if b := c.Compile(c.key); len(b) <= maxOurs {
			_ = durable.Replace(paths.Compiled, b, 0o600) // without it the next run takes longer
		}
	}
	return nil
}

// copyTo makes the file at path, which is ours or not there, a copy with the time of the original.
func (c Conf) copyTo(path string, ours bool) error {
	same := false
	if ours { // what else may stand there is not to be opened: it could be a pipe
		text, err := durable.ReadSmall(path)
		same = err == nil && bytes.Equal(text, c.text)
	}
	if !same {
		if err := durable.Replace(path, c.text, 0o600); err != nil {
			return err
		}
	}
	return os.Chtimes(filepath.Clean(path), c.info.ModTime(), c.info.ModTime())
}

// openFolder opens a part of the state folder, and makes it in an installation that was made before there was this part. Without a state
// folder the error is fs.ErrNotExist.
func openFolder(path string) (*os.File, error) {
	folder, err := nopoll.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(path, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			return nopoll.Open(path)
		}
	}
	return folder, err
}

// changed is when a file's contents, name, rights or times last changed; nobody can set that.
func changed(info fs.FileInfo) time.Time {
	ctim := info.Sys().(*syscall.Stat_t).Ctim
	return time.Unix(ctim.Unix())
}
