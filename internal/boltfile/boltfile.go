// Package boltfile is a bbolt database that notices damage: buckets of JSON values, each behind a checksum.
//
// What: Open, Load, View, Update. A value is stored as a CRC32C over the key and all that follows, and then the JSON. Before the JSON may stand
// a head: some bytes that say what is asked of all values at once, at a start, so that none has to be decoded for it. Its length (two bytes,
// big endian) stands before it, and is never so great that it could be taken for the brace that an object of JSON begins with.
//
// Why: bbolt keeps no checksum of its pages, so one flipped bit on the disk comes back as a wrong value without an error;
// and it panics on a damaged structure, already in Open. Here the first is an error of Get (and Load drops the value), and
// the second makes Open move the file aside and begin a new one. What bbolt could not survive, Open finds before it (shape.go).
//
// Guarantee: when Update returns nil, a crash right after does not undo it. When Update returns an error, nothing of it
// happened. A panic of bbolt later than in Open is ErrDamaged, and so is every call after it, since bbolt's locks may still be
// held: the process should end, and the next Open repairs.
//
// Whom it trusts: whoever can write to the folder; a checksum is no signature. So nothing is stored here that could not be
// rebuilt, and no secret.
//
// Not solved: a value that was written by a transaction that the disk acknowledged and lost.
package boltfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/samba-pwsync/samba-pwsync/internal/durable"
)

// ErrDamaged means that the file, or a value in it, is not what was written.
var ErrDamaged = errors.New("the database is damaged")

// ErrInUse means that another process has the file open.
var ErrInUse = errors.New("another process is using it")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// DB is an open file. Its methods may be called concurrently; Updates follow one another.
type DB struct {
	bolt   *bolt.DB
	path   string
	broken atomic.Bool
}

// Open opens the file, or makes it, with these buckets. A damaged file is renamed to PATH.corrupt-TIME, that name is returned
// as aside, and a new file is begun; aside is "" otherwise.
func Open(path string, buckets ...string) (db *DB, aside string, err error) {
	db, err = open(path, buckets)
	if !errors.Is(err, ErrDamaged) {
		return db, "", err
	}
	aside = path + ".corrupt-" + time.Now().UTC().Format("20060102T150405Z")
	if err := durable.Move(path, aside); err != nil {
		return nil, "", fmt.Errorf("setting damaged %s aside: %w", path, err)
	}
	db, err = open(path, buckets)
	return db, aside, err
}

func open(path string, buckets []string) (*DB, error) {
	// bbolt syncs its file and not the folder; it takes an empty file for a new one.
	if err := durable.Create(path, nil, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	db := &DB{path: path}
	err := db.guard(func() (err error) {
		// bbolt refuses less than its two first pages with an error that has no name.
		if info, err := os.Stat(path); err != nil {
			return err
		} else if size := info.Size(); info.Mode().IsRegular() && 0 < size && size < int64(2*os.Getpagesize()) {
			return fmt.Errorf("%w: %d bytes are too few", ErrDamaged, size)
		}
		if err := checkShape(path); err != nil {
			return err
		}
		db.bolt, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
		if err != nil {
			return err
		}
		if err := db.bolt.View(whole(path)); err != nil {
			return err
		}
		// A transaction writes even if it changes nothing, and the disk may be full.
		missing := false
		err = db.bolt.View(func(tx *bolt.Tx) error {
			missing = slices.ContainsFunc(buckets, func(name string) bool { return tx.Bucket([]byte(name)) == nil })
			return nil
		})
		if err != nil || !missing {
			return err
		}
		return db.bolt.Update(func(tx *bolt.Tx) error {
			for _, name := range buckets {
				if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		err = ErrInUse
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum),
		errors.Is(err, bolterrors.ErrIncompatibleValue):
		err = fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	_ = db.Close()
	return nil, fmt.Errorf("opening %s: %w", path, named(err))
}

// named gives an error of bbolt's its cause back, of which it keeps the text only where it makes a file longer: who opens it wants to know whether it is the
// disk that was full.
func named(err error) error {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if !errors.Is(err, errno) && strings.HasSuffix(err.Error(), ": "+errno.Error()) {
			return fmt.Errorf("%s: %w", strings.TrimSuffix(err.Error(), ": "+errno.Error()), errno)
		}
	}
	return err
}

// whole checks the structure: no page is missing, none is used twice, and no value goes on behind the file's end.
func whole(path string) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		// First, since touching a page behind the file's end is a fault that only this goroutine survives.
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: %d of %d bytes are there", ErrDamaged, info.Size(), tx.Size())
		}
		var first error
		for err := range tx.Check() { // to the end: the checker waits for its reader
			if first == nil {
				first = fmt.Errorf("%w: %v", ErrDamaged, err)
			}
		}
		if first != nil {
			return first
		}
		// bbolt's check does not look at the lengths of values. Reading each to its end is a fault here, and not in the middle of the
		// work; what the checksums say is for Load.
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			return b.ForEach(func(key, stored []byte) error {
				if int64(len(stored)) > info.Size() {
					return fmt.Errorf("%w: a value of %d bytes cannot be", ErrDamaged, len(stored))
				}
				_, _, _ = unwrap(key, stored)
				return nil
			})
		})
	}
}

// guard turns panics, and faults of the memory map, into ErrDamaged.
func (db *DB) guard(fn func() error) (err error) {
	if db.broken.Load() {
		return ErrDamaged
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db.broken.Store(true)
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return fn()
}

// Close gives the file up. No method is called after it.
func (db *DB) Close() error {
	if db.bolt == nil || db.broken.Load() {
		return nil // closing would wait for locks that the panic left behind
	}
	return db.bolt.Close()
}

// View runs a reading transaction.
func (db *DB) View(fn func(Tx) error) error {
	return db.guard(func() error { return db.bolt.View(func(tx *bolt.Tx) error { return fn(Tx{tx}) }) })
}

// Update runs a writing transaction: all of it or, if fn returns an error, nothing.
func (db *DB) Update(fn func(Tx) error) error {
	return db.guard(func() error { return db.bolt.Update(func(tx *bolt.Tx) error { return fn(Tx{tx}) }) })
}

// Load gives each value of a bucket to read, its head and its JSON, which are read's only during the call. A value that is damaged, or that
// read refuses, is deleted; dropped says how many were. If read is nil, only the damaged ones are.
func (db *DB) Load(bucket string, read func(key, head, value []byte) error) (dropped int, err error) {
	var bad [][]byte
	err = db.View(func(tx Tx) error {
		return tx.bucket(bucket).ForEach(func(key, stored []byte) error {
			head, value, err := unwrap(key, stored)
			if err == nil && read != nil {
				err = read(key, head, value)
			}
			if err != nil {
				bad = append(bad, bytes.Clone(key))
			}
			return nil
		})
	})
	if err == nil && len(bad) > 0 {
		err = db.Update(func(tx Tx) error {
			for _, key := range bad {
				if err := tx.Delete(bucket, key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return 0, fmt.Errorf("loading %s from %s: %w", bucket, db.path, err)
	}
	return len(bad), nil
}

// Rest gives back the memory of the file's pages that have been read. They count as this process's as long as they are mapped, though the
// kernel has them anyway, and a walk through a bucket maps them all.
func (db *DB) Rest() error { return db.View(Tx.rest) }

// rest is Rest in a transaction, in which the map stays where it is.
func (tx Tx) rest() error {
	db := tx.tx.DB()
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, db.Info().Data, uintptr(tx.tx.Size()), unix.MADV_DONTNEED); errno != 0 {
		return fmt.Errorf("giving back the memory of %s: %w", db.Path(), errno)
	}
	return nil
}

// walk gives memory back (rest) after each so many bytes that are read.
type walk struct {
	tx   Tx
	read int
}

const walkRests = 1 << 20

func (w *walk) on(key, stored []byte) error {
	if w.read += len(key) + len(stored); w.read < walkRests {
		return nil
	}
	w.read = 0
	return w.tx.rest()
}

// Tx is a transaction. It is used only inside the function that got it.
type Tx struct{ tx *bolt.Tx }

func (tx Tx) bucket(name string) *bolt.Bucket { return tx.tx.Bucket([]byte(name)) }

// Get reads a value into v and reports whether there is one.
func (tx Tx) Get(bucket string, key []byte, v any) (bool, error) {
	stored := tx.bucket(bucket).Get(key)
	if stored == nil {
		return false, nil
	}
	_, value, err := unwrap(key, stored)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(value, v); err != nil {
		return false, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return true, nil
}

// Put writes v, an object in JSON, under key.
func (tx Tx) Put(bucket string, key []byte, v any) error { return tx.PutHead(bucket, key, nil, v) }

// maxHead is what a head has less than: the first byte of its length is no brace.
const maxHead = int('{') << 8

// PutHead writes v, an object in JSON, under key, behind a head.
func (tx Tx) PutHead(bucket string, key, head []byte, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding value: %w", err)
	}
	if len(head) >= maxHead || value[0] != '{' {
		return errors.New("encoding value: it is no object, or its head is too long")
	}
	return tx.bucket(bucket).Put(key, wrap(key, head, value))
}

// Clear removes all keys of a bucket.
func (tx Tx) Clear(bucket string) error {
	if err := tx.tx.DeleteBucket([]byte(bucket)); err != nil {
		return err
	}
	_, err := tx.tx.CreateBucket([]byte(bucket))
	return err
}

// Delete removes a key. One that is not there is no error.
func (tx Tx) Delete(bucket string, key []byte) error { return tx.bucket(bucket).Delete(key) }

// Prefix gives read each value whose key begins with prefix, in the order of the keys, until it returns an error.
func (tx Tx) Prefix(bucket string, prefix []byte, read func(key, value []byte) error) error {
	cursor := tx.bucket(bucket).Cursor()
	w := walk{tx: tx}
	for key, stored := cursor.Seek(prefix); key != nil && bytes.HasPrefix(key, prefix); key, stored = cursor.Next() {
		_, value, err := unwrap(key, stored)
		if err != nil {
			return err
		}
		if err := read(key, value); err != nil {
			return err
		}
		if err := w.on(key, stored); err != nil {
			return err
		}
	}
	return nil
}

// The checksum covers the key too: a value under another key is as wrong as another value.
func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func wrap(key, head, value []byte) []byte {
	stored := make([]byte, 4, 4+2+len(head)+len(value))
	if len(head) > 0 {
		stored = binary.BigEndian.AppendUint16(stored, uint16(len(head)))
		stored = append(stored, head...)
	}
	stored = append(stored, value...)
	binary.BigEndian.PutUint32(stored, checksum(key, stored[4:]))
	return stored
}

func unwrap(key, stored []byte) (head, value []byte, err error) {
	if len(stored) < 4 || binary.BigEndian.Uint32(stored) != checksum(key, stored[4:]) {
		return nil, nil, fmt.Errorf("%w: a value does not match its checksum", ErrDamaged)
	}
	value = stored[4:]
	if len(value) < 2 || value[0] == '{' {
		return nil, value, nil
	}
	n := int(binary.BigEndian.Uint16(value))
	if n >= maxHead || n > len(value)-2 {
		return nil, nil, fmt.Errorf("%w: a value's head is longer than the value", ErrDamaged)
	}
	return value[2 : 2+n], value[2+n:], nil
}
