// Package breached tells whether a password is among those that are known from breaches, by a file on this machine that
// `samba-pwsync breached import` made (package importer) of a list of hashes such as Have I Been Pwned's.
//
// What: the file holds a binary fuse filter (github.com/FastFilter/xorfilter): three fingerprints of 8 or 16 bits are read, and their sum tells.
// Everything that was imported is held. Of other passwords one in 2^16 (with 8 bits, one in 2^8) counts as held though it is not: FalseRate.
//
// Why: the hook asks while the domain's database is locked. A billion hashes are 42 GB of text and 2.3 GB in here, and a look-up touches five
// pages of it however many hashes there are. Nothing is read ahead, nothing is kept in memory, no network is asked.
//
// How: numbers are little-endian, but for fingerprints of 16 bits, which are as this machine stores them (the header tells).
//
//	page 0       header: magic, version, kind of the hashes, bits, how many, the file's size, when, CRC-32
//	pages 1..64  for each of 4,096 shards (the first 12 bits of a hash) an entry of 64 bytes: where, how many, shape, CRC-32 of the
//	             fingerprints, CRC-32 of the entry
//	then         the fingerprints of each shard, from a multiple of 64 on
//
// The file is mapped. Open checks the header and that the file is as long as it says, a look-up checks the entry that it uses, both before
// anything else is believed; the fingerprints are checked by Verify only, because that reads all of them. A file is only ever replaced by
// another under its name, never changed in place, so a mapping stays whole. Should somebody cut it off all the same, or the disk not give a
// page, the look-up ends with an error and not the process (runtime/debug.SetPanicOnFault).
//
// Whom it trusts: whoever writes the file, root. The bytes are taken for those of anybody: no file can have a look-up read outside of it. An attacker
// who can write it can have any password refused, or none.
//
// What it does not solve: copies of the password that the hash functions make in their own state, which is left to the stack; a damaged
// fingerprint, which until Verify may change the answer for some passwords; old hashes in a file that nobody renews.
package breached

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"
	"syscall"
	"unsafe"

	"github.com/FastFilter/xorfilter"

	"github.com/samba-pwsync/samba-pwsync/internal/nopoll"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// File is an open file of breached passwords. Several goroutines may ask it at once, but none after Close.
type File struct {
	header Header
	data   []byte // mapped; nil when closed
}

// Open maps a file. Where the file itself is at fault, the error is ErrDamaged, ErrUnfinished or ErrForeign.
func Open(path string) (*File, error) {
	f, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("opening breached passwords: %w", err)
	}
	return f, nil
}

func open(path string) (*File, error) {
	// A named pipe in its place must not be waited for.
	file, err := nopoll.OpenFile(path, syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrForeign}
	}
	if size == 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrDamaged} // nothing cannot be mapped
	}
	if size != int64(int(size)) {
		return nil, &fs.PathError{Op: "map", Path: path, Err: errors.New("it is larger than this machine's address space: import with --bits 8 or a --min-count")}
	}
	data, err := syscall.Mmap(int(file.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, &fs.PathError{Op: "map", Path: path, Err: err}
	}
	f := &File{data: data}
	// A look-up wants five pages from all over the file. Without this the kernel reads up to 128 KiB for each.
	_ = syscall.Madvise(data, syscall.MADV_RANDOM)
	err = guarded(func() (err error) {
		if f.header, err = DecodeHeader(data); err == nil {
			err = f.header.checkSize(size)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "read", Path: path, Err: err}, f.Close())
	}
	return f, nil
}

// Close unmaps the file. Safe to call twice.
func (f *File) Close() error {
	if f.data == nil {
		return nil
	}
	data := f.data
	f.data = nil
	return syscall.Munmap(data)
}

// Kind is the kind of hashes that Holds takes.
func (f *File) Kind() Kind { return f.header.Kind }

// Header is what the file says about itself.
func (f *File) Header() Header { return f.header }

// Holds reports whether a hash, of the file's kind, was imported. It is never wrong about one that was.
func (f *File) Holds(hash []byte) (held bool, err error) {
	if len(hash) != f.header.Kind.Size() {
		return false, fmt.Errorf("looking up breached password: %d bytes are no %v hash", len(hash), f.header.Kind)
	}
	err = guarded(func() error {
		shard, key := Shard(hash)
		e, err := DecodeEntry(f.data, shard, f.header.Bits, uint64(len(f.data)))
		if err != nil || e.Entries == 0 {
			return err
		}
		held = e.Contains(f.data[e.Offset:][:e.Bytes(f.header.Bits)], f.header.Bits, key)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("looking up breached password: %w", err)
	}
	return held, nil
}

// HoldsPassword hashes a password, UTF-8, as the file's kind has it, and looks the hash up. It keeps neither.
func (f *File) HoldsPassword(password []byte) (bool, error) {
	var buf [sha1.Size]byte
	defer clear(buf[:])
	hash := buf[:f.header.Kind.Size()]
	switch f.header.Kind {
	case SHA1:
		buf = sha1.Sum(password)
	case NTLM:
		utf16 := checkpassword.UTF16LE(password)
		defer clear(utf16)
		sum := dsdb.NTHash(utf16)
		defer clear(sum[:])
		copy(hash, sum[:])
	}
	return f.Holds(hash)
}

// Verify reads the whole file and checks all that there are checksums of. It asks cont after each shard whether to go on.
func (f *File) Verify(cont func(shard int) error) error {
	_ = syscall.Madvise(f.data, syscall.MADV_SEQUENTIAL)
	defer syscall.Madvise(f.data, syscall.MADV_RANDOM)
	var entries uint64
	for shard := range Shards {
		err := guarded(func() error {
			e, err := DecodeEntry(f.data, shard, f.header.Bits, uint64(len(f.data)))
			if err != nil {
				return err
			}
			entries += uint64(e.Entries)
			if e.Entries > 0 && CRC(f.data[e.Offset:][:e.Bytes(f.header.Bits)]) != e.CRC {
				return ErrDamaged
			}
			return nil
		})
		if err == nil {
			err = cont(shard)
		}
		if err != nil {
			return fmt.Errorf("verifying breached passwords: hashes that begin with %03X: %w", shard, err)
		}
	}
	if entries != f.header.Entries {
		return fmt.Errorf("verifying breached passwords: %w: it holds %d hashes and says %d", ErrDamaged, entries, f.header.Entries)
	}
	return nil
}

// Contains is the look-up in one shard. The entry is one that DecodeEntry returned, or fits the fingerprints as well; these begin at a multiple
// of two.
func (e Entry) Contains(fingerprints []byte, fingerprintBits int, key uint64) bool {
	if fingerprintBits == 8 {
		return filter(e, fingerprints).Contains(key)
	}
	return filter(e, unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(fingerprints))), len(fingerprints)/2)).Contains(key)
}

func filter[T xorfilter.Unsigned](e Entry, fingerprints []T) *xorfilter.BinaryFuse[T] {
	return &xorfilter.BinaryFuse[T]{
		Seed:               e.Seed,
		SegmentLength:      e.SegmentLength,
		SegmentLengthMask:  e.SegmentLength - 1,
		SegmentCount:       e.SegmentCount,
		SegmentCountLength: e.SegmentCount * e.SegmentLength,
		Fingerprints:       fingerprints,
	}
}

// guarded runs read, which reads mapped memory. A page that cannot be had (the file was cut off under us, the disk is broken) is an error.
func guarded(read func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		switch fault := recover().(type) {
		case nil:
		case interface { // how the runtime tells a fault of memory from our own mistakes
			runtime.Error
			Addr() uintptr
		}:
			err = fmt.Errorf("%w: a page of it cannot be read", ErrDamaged)
		default:
			panic(fault)
		}
	}()
	return read()
}
