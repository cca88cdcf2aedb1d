package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts its pages: an element that points outside the file is a fault in a goroutine of its own when it checks them, and a page that is its own
// child a recursion without end. Either would end the process, at each start anew. So before bbolt opens a file, shape walks through its pages,
// and touches nothing that lies outside of them. Whether it all makes sense is for bbolt's check and the checksums.
//
// The form of pages is that of bbolt's file format 2, which has not changed since 2014: a header of 16 bytes (id 8, flags 2, count 2, overflow 4), then
// elements of 16 bytes: in a branch pos 4, size of the key 4, child 8; in a leaf flags 4, pos 4, size of the key 4, size of the value 4. A pos counts from
// its element. A value that is a bucket begins with root 8 and sequence 8; where root is 0, a page follows in the value. In the order of bytes of the machine.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10

	pageHead = 16
	element  = 16
	isBucket = 1

	deepest = 32 // of a tree: more would hold more than any disk
)

var order = binary.NativeEndian

type shape struct {
	file *os.File
	page uint64 // bytes
	end  uint64 // pages
	seen map[uint64]bool
}

// meta is what the newest whole meta page says.
type meta struct{ root, freelist, end, txid uint64 }

// checkShape returns ErrDamaged if bbolt could come to grief in the file. Any other error is the disk's.
func checkShape(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 || !info.Mode().IsRegular() {
		return nil // bbolt makes a new one, or says what it thinks
	}
	s := &shape{file: f, page: uint64(os.Getpagesize()), seen: map[uint64]bool{}}
	m, err := s.meta()
	if err != nil {
		return err
	}
	if s.end = m.end; s.end > uint64(info.Size())/s.page {
		return fmt.Errorf("%w: %d of %d pages are there", ErrDamaged, uint64(info.Size())/s.page, s.end)
	}
	if _, err := s.tree(m.root, 0); err != nil {
		return err
	}
	if m.freelist == ^uint64(0) {
		return nil
	}
	return s.freelist(m.freelist)
}

func (s *shape) read(id, pages uint64) ([]byte, error) {
	b := make([]byte, pages*s.page)
	_, err := s.file.ReadAt(b, int64(id*s.page))
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: page %d is cut off", ErrDamaged, id)
	}
	return b, err
}

func (s *shape) meta() (newest meta, err error) {
	found := false
	for id := range uint64(2) {
		b, err := s.read(id, 1)
		if errors.Is(err, ErrDamaged) {
			continue
		}
		if err != nil {
			return newest, err
		}
		b = b[pageHead:]
		sum := fnv.New64a()
		_, _ = sum.Write(b[:56])
		if order.Uint32(b) != boltMagic || order.Uint32(b[4:]) != boltVersion || order.Uint32(b[8:]) != uint32(s.page) || order.Uint64(b[56:]) != sum.Sum64() {
			continue
		}
		m := meta{root: order.Uint64(b[16:]), freelist: order.Uint64(b[32:]), end: order.Uint64(b[40:]), txid: order.Uint64(b[48:])}
		if !found || m.txid > newest.txid {
			newest, found = m, true
		}
	}
	if !found {
		return newest, fmt.Errorf("%w: no meta page is whole", ErrDamaged)
	}
	return newest, nil
}

// whole returns a page with those that belong to it, and its flags and count.
func (s *shape) whole(id uint64) (b []byte, flags, count uint16, err error) {
	bad := func(what string) ([]byte, uint16, uint16, error) {
		return nil, 0, 0, fmt.Errorf("%w: page %d %s", ErrDamaged, id, what)
	}
	if id < 2 || id >= s.end {
		return bad("is none of the file")
	}
	if s.seen[id] {
		return bad("is used twice")
	}
	s.seen[id] = true
	if b, err = s.read(id, 1); err != nil {
		return nil, 0, 0, err
	}
	more := uint64(order.Uint32(b[12:]))
	switch {
	case order.Uint64(b) != id:
		return bad("has another's number")
	case more >= s.end-id:
		return bad("is longer than the file")
	case more > 0:
		if b, err = s.read(id, more+1); err != nil {
			return nil, 0, 0, err
		}
	}
	return b, order.Uint16(b[8:]), order.Uint16(b[10:]), nil
}

// tree walks through a page and all below it, and returns the first key, by which bbolt finds the page's place in the one above when it writes.
func (s *shape) tree(id uint64, depth int) (first []byte, err error) {
	bad := func(what string) ([]byte, error) { return nil, fmt.Errorf("%w: %s (page %d)", ErrDamaged, what, id) }
	if depth > deepest {
		return bad("the pages are nested too deeply")
	}
	b, flags, count, err := s.whole(id)
	if err != nil {
		return nil, err
	}
	switch flags {
	case branchPage:
		for i := range int(count) {
			at := pageHead + i*element
			if at+element > len(b) || !fits(b[at:], order.Uint32(b[at:]), order.Uint32(b[at+4:]), 0) {
				return bad("an element lies outside")
			}
			key := cut(b[at:], order.Uint32(b[at:]), order.Uint32(b[at+4:]))
			below, err := s.tree(order.Uint64(b[at+8:]), depth+1)
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(key, below) {
				return bad("a child does not begin with its key")
			}
			if i == 0 {
				first = key
			}
		}
		if count == 0 {
			return bad("it has no children")
		}
		return first, nil
	case leafPage:
		if err := s.leaf(b, id, count, depth); err != nil || count == 0 {
			return nil, err
		}
		return cut(b[pageHead:], order.Uint32(b[pageHead+4:]), order.Uint32(b[pageHead+8:])), nil
	}
	return bad("it is of another kind")
}

// leaf looks at the elements of a leaf, which may lie in a value.
func (s *shape) leaf(b []byte, id uint64, count uint16, depth int) error {
	for i := range int(count) {
		at := pageHead + i*element
		if at+element > len(b) {
			return fmt.Errorf("%w: an element of page %d lies outside", ErrDamaged, id)
		}
		pos, key, value := order.Uint32(b[at+4:]), order.Uint32(b[at+8:]), order.Uint32(b[at+12:])
		if !fits(b[at:], pos, key, value) {
			return fmt.Errorf("%w: an element of page %d lies outside", ErrDamaged, id)
		}
		if order.Uint32(b[at:])&isBucket == 0 {
			continue
		}
		from := at + int(pos) + int(key)
		bucket := b[from : from+int(value)]
		if len(bucket) < element || depth > deepest {
			return fmt.Errorf("%w: a bucket of page %d makes no sense", ErrDamaged, id)
		}
		var err error
		if root := order.Uint64(bucket); root != 0 {
			_, err = s.tree(root, depth+1)
		} else if inline := bucket[element:]; len(inline) < pageHead || order.Uint16(inline[8:]) != leafPage {
			err = fmt.Errorf("%w: a bucket of page %d makes no sense", ErrDamaged, id)
		} else {
			err = s.leaf(inline, id, order.Uint16(inline[10:]), depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cut returns the bytes of a key.
func cut(b []byte, pos, size uint32) []byte { return b[pos:][:size] }

// fits reports whether key and value of an element lie behind it, and within what b holds.
func fits(b []byte, pos, key, value uint32) bool {
	return pos >= element && uint64(pos)+uint64(key)+uint64(value) <= uint64(len(b))
}

// freelist looks whether the list of free pages lies within its page.
func (s *shape) freelist(id uint64) error {
	b, flags, count, err := s.whole(id)
	if err != nil {
		return err
	}
	n, ids := uint64(count), b[pageHead:]
	if count == 0xFFFF && len(ids) >= 8 { // the true count follows
		n, ids = order.Uint64(ids), ids[8:]
	}
	if flags != freelistPage || n > uint64(len(ids))/8 {
		return fmt.Errorf("%w: the list of free pages makes no sense", ErrDamaged)
	}
	for i := range n {
		if free := order.Uint64(ids[8*i:]); free < 2 || free >= s.end {
			return fmt.Errorf("%w: a free page lies outside", ErrDamaged)
		}
	}
	return nil
}
