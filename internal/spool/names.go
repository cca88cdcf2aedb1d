package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// A name in a folder as getdents64(2) gives it: inode and offset of eight bytes each, the length of the whole, the kind of file, and the name up to a zero.
const (
	lengthAt = 16
	kindAt   = 18
	nameAt   = 19
)

var errNoNames = errors.New("the kernel gave names of a folder that make no sense")

// eachName tells each name of a folder and its kind (syscall.DT_REG and the like), until tell returns false. Package os would make three things of each name that the garbage
// collector has to sweep up, and a forwarder has a hundred thousand files that wait before it each second. tell must not keep the name.
func eachName(folder *os.File, tell func(name []byte, kind byte) bool) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := syscall.ReadDirent(int(folder.Fd()), buf)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return &fs.PathError{Op: "getdents64", Path: folder.Name(), Err: err}
		case n == 0:
			return nil
		}
		more, err := parseNames(buf[:n], tell)
		if err != nil {
			return &fs.PathError{Op: "getdents64", Path: folder.Name(), Err: err}
		}
		if !more {
			return nil
		}
	}
}

// parseNames tells the names of a buffer; more is false if tell has had enough.
func parseNames(buf []byte, tell func(name []byte, kind byte) bool) (more bool, err error) {
	for len(buf) > 0 {
		if len(buf) <= nameAt {
			return false, errNoNames
		}
		length := int(binary.NativeEndian.Uint16(buf[lengthAt:]))
		if length <= nameAt || length > len(buf) {
			return false, errNoNames
		}
		name, _, _ := bytes.Cut(buf[nameAt:length], []byte{0})
		if len(name) > 0 && !tell(name, buf[kindAt]) { // also with inode 0, which old XFS and FUSE have for files
			return false, nil
		}
		buf = buf[length:]
	}
	return true, nil
}
