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

// Load reads the configuration. It is never without one: where the file has a fault that concerns the hook, the copy of what the
// hook last read without one holds, as a whole.
//
// A file of 0 bytes, which would be a right one with nothing but defaults, counts as one that an editor is about to write if
// there is a copy.
func Load(path string) Conf {
	text, info, err := config.Read(path)
	if err != nil {
		return Fallback(config.BuiltinHook(), err)
	}
	c := Conf{text: text, info: info}
	if file, err := program(); err == nil {
		c.key = config.Key(file, text)
		if c.HookConfig, c.compiled = readCompiled(config.HookConfig{StateDir: config.LikelyStateDir(text)}.Paths().Compiled, c.key); c.compiled {
			return c
		}
	}
	if c.HookConfig, err = config.ParseHook(path, text); err != nil {
		return Fallback(c.HookConfig, err)
	}
	if len(text) == 0 {
		err := config.Faults{{File: path, Problem: "is empty", Remedy: "put a line with a remark into it if all defaults are meant"}}
		if copied := Fallback(c.HookConfig, err); !copied.Since.IsZero() {
			return copied
		}
	}
	return c
}

// Fallback is the configuration where the file cannot be gone by, for the reason err. usable is what it says as far as can be told: where
// its state folder is, the copy lies.
func Fallback(usable config.HookConfig, err error) Conf {
	copied, since, errCopy := readCopy(usable.Paths())
	if errCopy != nil {
		c := Conf{HookConfig: usable, Err: err}
		if !errors.Is(errCopy, fs.ErrNotExist) {
			c.NoCopy = fmt.Errorf("reading the copy of the last configuration without a fault: %w", errCopy)
		}
		return c
	}
	return Conf{HookConfig: copied, Err: err, Since: since}
}

var errForeign = errors.New("it is no plain file that only its owner can write")

// readCopy reads the copy of the last configuration without a fault, and the time of the file that it is of.
func readCopy(paths config.Paths) (c config.HookConfig, since time.Time, err error) {
	text, info, err := readOurs(paths.LastGood)
	if err != nil {
		return c, since, err
	}
	if c, err = config.ParseHook(paths.LastGood, text); err != nil {
		return c, since, err
	}
	if c.Paths() != paths { // of an installation that was here before
		return c, since, fmt.Errorf("%s: it is of another state folder: %w", paths.LastGood, fs.ErrNotExist)
	}
	return c, info.ModTime(), nil
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
	text := make([]byte, min(info.Size(), 1<<20))
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
	compile := !c.compiled && c.key != (config.CompiledKey{})
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
		_ = durable.Replace(paths.Compiled, c.Compile(c.key), 0o600) // without it the next run takes longer
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
