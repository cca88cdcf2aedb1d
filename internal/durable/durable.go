// Package durable writes files that survive a power cut.
//
// Guarantee: when Create, Replace, Move, Folder, Remove or Sync returns nil, a crash of the process, the kernel or the power right after does
// not undo it. When Create returns an error, nothing stands under the name, or something that its reader must recognise as incomplete (if even the
// removal failed), or the whole file, which a power cut may take away (if the folder could not be synced).
//
// System calls: fsync of a file does not sync the entry in its folder (fsync(2)), so both are synced. Create writes straight
// to the final name (openat O_EXCL|O_NOFOLLOW, write, fsync, close, fsync of the folder): one journal commit instead of the
// two that a rename needs. The hook holds the write lock of the domain's database while it waits for that. A reader can meet
// a file that is still being written; the contents must say whether they are whole (internal/seal's tag does).
//
// An attacker who can write to the folder can delete, replace and add files; O_EXCL and O_NOFOLLOW keep him from pointing a
// write of ours at another file. A pipe in a file's place holds nobody up, and however large a file he makes, it costs no memory. Folders
// above must belong to root.
//
// Not solved: disks that acknowledge a flush early, and an fsync error followed by a later success on the same file (the
// kernel forgets dirty pages): after any error the file is given up, never retried.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/internal/nopoll"
)

// Create writes a new file. It fails with fs.ErrExist if the name is taken, and never follows a symbolic link.
func Create(path string, data []byte, perm fs.FileMode) error {
	if err := create(path, data, perm, (*os.File).Sync); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Sync makes durable what is in a file already: one that a process wrote which was killed before it could sync is whole for every reader, and
// gone after a power cut. To be called before anything is thrown away because the file is there.
func Sync(path string) error {
	f, _, err := openPlain(path, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// Replace puts data under the name in one step: a reader sees the old contents or the new, never a part.
func Replace(path string, data []byte, perm fs.FileMode) error {
	if err := replace(path, data, perm, (*os.File).Sync); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Publish is Replace without the guarantee: readers see the old contents or the new, a power cut may bring back the old or
// nothing readable. It is for values that are rewritten every second and whose loss costs a second.
func Publish(path string, data []byte, perm fs.FileMode) error {
	return replace(path, data, perm, func(*os.File) error { return nil })
}

func replace(path string, data []byte, perm fs.FileMode, sync func(*os.File) error) error {
	temp := path + ".new"
	// A temporary file left by a crash is ours to remove: each name has one writer.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing old temporary file: %w", err)
	}
	if err := create(temp, data, perm, sync); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("renaming: %w", err)
	}
	return nil
}

// Read reads up to limit bytes of a file. It follows no symbolic link; what is no plain file is an error, and is not waited for.
func Read(path string, limit int64) ([]byte, error) {
	f, _, err := openPlain(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// ReadSmall is Read of a file that one of the functions here wrote, of at most 1 MiB.
func ReadSmall(path string) ([]byte, error) { return Read(path, 1<<20) }

// openPlain opens a file that another role may have put there.
func openPlain(path string, flag int) (*os.File, fs.FileInfo, error) {
	f, err := nopoll.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errNotPlain}
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

var errNotPlain = errors.New("not a plain file")

// Move renames a file within one file system, durably, replacing what stands under the new name.
func Move(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("moving: %w", err)
	}
	if err := syncDir(filepath.Dir(to)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(from))
}

// Folder makes a folder, unless it is there, and makes sure of its entry in the one above: what is synced in a folder that a power cut takes
// away is gone with it.
func Folder(path string, perm fs.FileMode) error {
	if err := os.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making folder: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// Link gives a file a second name within one file system, durably. It fails with fs.ErrExist if the name is taken.
func Link(file, name string) error {
	if err := os.Link(file, name); err != nil {
		return fmt.Errorf("linking: %w", err)
	}
	return syncDir(filepath.Dir(name))
}

// Remove deletes a file. A file that is not there is no error: a repeated removal after a crash is usual.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("removing: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

const (
	// shreddedAtOnce is how much is overwritten with one call, and shreddedAtMost how large a file may be for that: none of ours is larger.
	shreddedAtOnce = 64 << 10
	shreddedAtMost = 16 << 20
)

// Shred overwrites a file with zeros, syncs, and removes it. On flash and on copy-on-write file systems the old blocks may
// live on; what makes their contents unreadable for good is that they are sealed and the key is destroyed in time.
func Shred(path string) error {
	f, info, err := openPlain(path, os.O_WRONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("shredding: %w", err)
	}
	err = errors.Join(overwrite(f, info.Size()), f.Sync(), f.Close())
	// A disk too broken to overwrite the file may still forget it.
	if err := errors.Join(err, Remove(path)); err != nil {
		return fmt.Errorf("shredding: %w", err)
	}
	return nil
}

// overwrite writes zeros over all that is in a file. One that is too large for one of ours somebody made who would have us write for days,
// perhaps without a block in it: that is cut off.
func overwrite(f *os.File, size int64) error {
	if size > shreddedAtMost {
		return f.Truncate(0)
	}
	zeros := make([]byte, min(size, shreddedAtOnce))
	for at := int64(0); at < size; at += shreddedAtOnce {
		if _, err := f.WriteAt(zeros[:min(size-at, shreddedAtOnce)], at); err != nil {
			return err
		}
	}
	return nil
}

// Reserve makes a file of that size whose blocks are its own, so that removing it makes room. It is not there if that fails. Error: what the disk says,
// also of a file system on which nothing else helps than to write it: there it is written.
func Reserve(path string, size int64) error {
	f, err := nopoll.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("reserving: %w", err)
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		err = nil
		for zeros := make([]byte, 1<<16); err == nil && size > 0; size -= int64(len(zeros)) {
			_, err = f.Write(zeros[:min(size, int64(len(zeros)))])
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("reserving: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// Probe tries whether a file can be made, written and removed in a folder; durable: and synced. It leaves nothing behind that the next call does not
// remove. Error: what the disk says.
func Probe(dir string, durable bool) error {
	path := filepath.Join(dir, "probe")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("probing: %w", err)
	}
	sync := (*os.File).Sync
	if !durable {
		sync = func(*os.File) error { return nil }
	}
	if err := create(path, make([]byte, 4096), 0o600, sync); err != nil {
		return fmt.Errorf("probing: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("probing: %w", err)
	}
	if durable {
		return syncDir(dir)
	}
	return nil
}

// ModeLike returns the mode that a file in dir gets, so that it can be read by those who can enter dir: 0600 in a folder of
// 0700, 0660 in one of 2770 that two roles share.
func ModeLike(dir string) (fs.FileMode, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, fmt.Errorf("reading folder's mode: %w", err)
	}
	return info.Mode().Perm() & 0o660, nil
}

func create(path string, data []byte, perm fs.FileMode, sync func(*os.File) error) error {
	f, err := nopoll.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, perm)
	if err != nil {
		return fmt.Errorf("creating: %w", err)
	}
	if perm&0o077 != 0 {
		err = f.Chmod(perm) // the umask of a daemon is 077
	}
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := nopoll.Open(dir)
	if err != nil {
		return fmt.Errorf("opening folder: %w", err)
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // some network file systems cannot sync a folder and do not need it
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("syncing folder: %w", err)
	}
	return nil
}
