// Package spool is a folder of sealed files: captures on their way to the agent, changes on their way to the forwarder.
//
// What: put, list, read, remove; a file that its reader cannot make sense of is set aside into "damaged" below the folder,
// never deleted silently, never met twice.
//
// Why files: the hook must be able to store a capture when no daemon runs; a folder needs none, and each secret is a file of
// its own that can be shredded by itself.
//
// Order: names sort by time (internal/capture). Nothing here depends on the order: what is newer is decided by the
// directory's stamps.
//
// An attacker who can write here can add files, as many as the disk takes, and whoever can read here learns who changed a password and when,
// not the password. Folders are 0700, or 2770 where agent and forwarder run as different users; files are made to match. A spool is no symbolic
// link: who may write beside it could have the hook write elsewhere. (Links further up are root's to make.)
//
// What it does not solve: Open looks once. Who exchanges the folder for a link in the moment after it has one file go elsewhere, as sealed as
// any.
package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/nopoll"
)

const (
	damaged = "damaged"
	// mostDamaged bounds the names of files that were set aside: nobody asks for more than their number.
	mostDamaged = 10000
)

// Spool is one folder. Its methods may be called concurrently; each file has one writer and one reader.
type Spool struct {
	dir    string
	suffix string
}

// Open returns the spool in dir, whose files end in suffix. The folder must exist: `samba-pwsync init` makes it.
func Open(dir, suffix string) (*Spool, error) {
	dir = filepath.Clean(dir) // a slash at the end would have the link followed
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("opening spool: %w", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("opening spool: %s is a symbolic link: where it is to be on another file system, mount that there", dir)
	case !info.IsDir():
		return nil, fmt.Errorf("opening spool: %s is not a folder", dir)
	}
	return &Spool{dir: dir, suffix: suffix}, nil
}

// Dir is the folder.
func (s *Spool) Dir() string { return s.dir }

// Put stores a file durably. name must be new and end in the spool's suffix.
func (s *Spool) Put(name string, data []byte) error {
	if !s.owns([]byte(name)) {
		return fmt.Errorf("storing: %q is not a name of this spool", name)
	}
	mode, err := durable.ModeLike(s.dir)
	if err != nil {
		return fmt.Errorf("storing %s: %w", name, err)
	}
	if err := durable.Create(filepath.Join(s.dir, name), data, mode); err != nil {
		return fmt.Errorf("storing %s: %w", name, err)
	}
	return nil
}

// Sync makes a file durable that is there already: whoever put it may have been killed before it was.
func (s *Spool) Sync(name string) error {
	if err := durable.Sync(filepath.Join(s.dir, name)); err != nil {
		return fmt.Errorf("storing %s: %w", name, err)
	}
	return nil
}

// List returns the names of the files, oldest first.
func (s *Spool) List() ([]string, error) { return s.list(s.dir, math.MaxInt, nil) }

// Some returns the names of the files, but of no more than so many. Where there are more, it is chance which.
func (s *Spool) Some(limit int) ([]string, error) { return s.list(s.dir, limit, nil) }

// New returns the names of those files that are not known (nil: of all), oldest first. known must not keep the name.
func (s *Spool) New(known func(name []byte) bool) ([]string, error) {
	return s.list(s.dir, math.MaxInt, known)
}

// Damaged returns the names of the files that were set aside, of 10,000 at most.
func (s *Spool) Damaged() ([]string, error) {
	names, err := s.list(filepath.Join(s.dir, damaged), mostDamaged, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// list returns the names of the files in a folder that are not known (nil: of all), but of no more than so many, sorted, which is by time. Of everything else
// that lies there it holds a buffer full at a time: there may be millions, and this is done each second.
func (s *Spool) list(dir string, limit int, known func(name []byte) bool) ([]string, error) {
	f, err := nopoll.OpenFile(dir, syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("listing spool: %w", err)
	}
	defer f.Close()
	var names []string
	var failed error
	err = eachName(f, func(name []byte, kind byte) bool {
		if !s.owns(name) || known != nil && known(name) {
			return true
		}
		regular, err := isRegular(dir, string(name), kind)
		if failed = err; regular {
			names = append(names, string(name))
		}
		return failed == nil && len(names) < limit
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("listing spool: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// isRegular reports whether a name is a plain file's. kind is as the folder has it, which not every file system tells. What the disk does not tell is an
// error: a list that lacks a file that is there would have its reader go on without what the file says.
func isRegular(dir, name string, kind byte) (bool, error) {
	if kind != syscall.DT_UNKNOWN {
		return kind == syscall.DT_REG, nil
	}
	info, err := os.Lstat(filepath.Join(dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist): // gone meanwhile
		return false, nil
	case err != nil:
		return false, err
	}
	return info.Mode().IsRegular(), nil
}

// ErrTooLarge means that a file is larger than anything that belongs into the spool.
var ErrTooLarge = errors.New("file is too large")

// Read returns the bytes of a file of at most limit bytes. Errors: ErrTooLarge, fs.ErrNotExist for a file that is gone, and what
// the disk says, which tells nothing about the file: a later try may succeed.
func (s *Spool) Read(name string, limit int) ([]byte, error) {
	b, err := durable.Read(filepath.Join(s.dir, name), int64(limit)+1)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("reading %s: %w: more than %d bytes", name, ErrTooLarge, limit)
	}
	return b, nil
}

// Remove shreds a file. One that is gone already is no error.
func (s *Spool) Remove(name string) error {
	return durable.Shred(filepath.Join(s.dir, name))
}

// Discard removes a file that holds no secret, without overwriting it: one that is overwritten and cannot be removed makes no sense any more. One that
// is gone already is no error.
func (s *Spool) Discard(name string) error {
	return durable.Remove(filepath.Join(s.dir, name))
}

// SetAside moves a file to the folder "damaged", for a human to look at.
func (s *Spool) SetAside(name string) error {
	aside := filepath.Join(s.dir, damaged)
	if err := durable.Folder(aside, 0o700); err != nil {
		return fmt.Errorf("setting aside %s: %w", name, err)
	}
	if err := durable.Move(filepath.Join(s.dir, name), filepath.Join(aside, name)); err != nil {
		return fmt.Errorf("setting aside %s: %w", name, err)
	}
	return nil
}

func (s *Spool) owns(name []byte) bool {
	end := len(name) - len(s.suffix)
	return end >= 0 && string(name[end:]) == s.suffix && name[0] != '.' && bytes.IndexByte(name, '/') < 0
}
