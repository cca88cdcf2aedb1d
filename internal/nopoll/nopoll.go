// Package nopoll opens files of a disk past Go's poller.
//
// Why: os.OpenFile offers each file to the poller, which takes pipes and sockets and refuses plain files. In a process that lives for some milliseconds, as the hook
// does, that is five system calls a file, the making of the poller, and a thread that wakes to wait for it. Besides that the files are os.File's like others, and the errors
// those of package os.
//
// What it does not solve: a read of something that never answers holds a thread, as with plain files anyway. Where a pipe may stand in a file's place, O_NONBLOCK keeps the
// opening from waiting, and whoever opens has to ask for the kind of file before reading.
package nopoll

import (
	"bytes"
	"io/fs"
	"os"
	"syscall"
)

// Open opens a file for reading.
func Open(path string) (*os.File, error) { return OpenFile(path, os.O_RDONLY, 0) }

// OpenFile takes what os.OpenFile does, of which perm may have permission bits only.
func OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	fd, err := -1, error(syscall.EINTR)
	for err == syscall.EINTR {
		fd, err = syscall.Open(path, flag|syscall.O_CLOEXEC|syscall.O_LARGEFILE, uint32(perm.Perm()))
	}
	if err == nil && flag&syscall.O_NONBLOCK != 0 { // os.NewFile would offer it to the poller
		if err = syscall.SetNonblock(fd, false); err != nil {
			_ = syscall.Close(fd)
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// ReadFile is os.ReadFile for a small file.
func ReadFile(path string) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(int(info.Size()) + bytes.MinRead)
	_, err = b.ReadFrom(f)
	return b.Bytes(), err
}
