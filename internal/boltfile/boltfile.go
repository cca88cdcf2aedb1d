// Package boltfile is a bbolt database that notices damage: buckets of JSON values, each behind a checksum.
//
// What: Open, Load, View, Update. A value is stored as a CRC32C over key and JSON, and then the JSON.
//
// Why: bbolt keeps no checksum of its pages, so one flipped bit on the disk comes back as a wrong value without an error;
// and it panics on a damaged structure, already in Open. Here the first is an error of Get (and Load drops the value), and
// the second makes Open move the file aside and begin a new one.
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
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

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
		db.bolt, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
		if err != nil {
			return err
		}
		if err := db.bolt.View(whole(path)); err != nil {
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
	return nil, fmt.Errorf("opening %s: %w", path, err)
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
				_, _ = unwrap(key, stored)
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

// Load gives each value of a bucket to read, as JSON that is read's only during the call. A value that is damaged, or that
// read refuses, is deleted; dropped says how many were.
func (db *DB) Load(bucket string, read func(key, value []byte) error) (dropped int, err error) {
	var bad [][]byte
	err = db.View(func(tx Tx) error {
		return tx.bucket(bucket).ForEach(func(key, stored []byte) error {
			value, err := unwrap(key, stored)
			if err == nil {
				err = read(key, value)
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

// Tx is a transaction. It is used only inside the function that got it.
type Tx struct{ tx *bolt.Tx }

func (tx Tx) bucket(name string) *bolt.Bucket { return tx.tx.Bucket([]byte(name)) }

// Get reads a value into v and reports whether there is one.
func (tx Tx) Get(bucket string, key []byte, v any) (bool, error) {
	stored := tx.bucket(bucket).Get(key)
	if stored == nil {
		return false, nil
	}
	value, err := unwrap(key, stored)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(value, v); err != nil {
		return false, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return true, nil
}

// Put writes v under key.
func (tx Tx) Put(bucket string, key []byte, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding value: %w", err)
	}
	return tx.bucket(bucket).Put(key, wrap(key, value))
}

// Delete removes a key. One that is not there is no error.
func (tx Tx) Delete(bucket string, key []byte) error { return tx.bucket(bucket).Delete(key) }

// Prefix gives read each value whose key begins with prefix, in the order of the keys, until it returns an error.
func (tx Tx) Prefix(bucket string, prefix []byte, read func(key, value []byte) error) error {
	cursor := tx.bucket(bucket).Cursor()
	for key, stored := cursor.Seek(prefix); key != nil && bytes.HasPrefix(key, prefix); key, stored = cursor.Next() {
		value, err := unwrap(key, stored)
		if err != nil {
			return err
		}
		if err := read(key, value); err != nil {
			return err
		}
	}
	return nil
}

// The checksum covers the key too: a value under another key is as wrong as another value.
func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func wrap(key, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, checksum(key, value)), value...)
}

func unwrap(key, stored []byte) ([]byte, error) {
	if len(stored) < 4 || binary.BigEndian.Uint32(stored) != checksum(key, stored[4:]) {
		return nil, fmt.Errorf("%w: a value does not match its checksum", ErrDamaged)
	}
	return stored[4:], nil
}
