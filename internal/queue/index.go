package queue

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// entry is one item in the index. A changed item is a new entry: what a lease points at tells whether it is still current. There may be some
// hundred thousand, so there is nothing in it but what decides which one is next, and no text.
type entry struct {
	guid     dsdb.GUID
	place    digest
	file     digest        // zero: none
	due      time.Duration // since the queue's epoch
	proven   time.Duration // likewise
	captured int64         // in nanoseconds since 1970, by the time of day
	line     *line
	pos      int32 // in the heap
	in       order
	flags    flags
	waited   bool // since the last run, so that its proof is not fresh whatever the clock says
}

// order is where an entry lies that can be leased.
type order uint8

const (
	nowhere order = iota
	inFresh
	inLater
)

// flags are an item's.
type flags uint8

const (
	parked    flags = 1 << iota
	settling        // delivered, and not due again until Rouse says so
	delivered       // for the first time, at least
	tried           // at least once
	paused          // in answer to the last attempt the target asked for a pause
	shelved         // the target does not want it
)

func (e *entry) is(f flags) bool { return e.flags&f != 0 }

// waits reports whether the item is still to be delivered for the first time, as far as anybody wants that.
func (e *entry) waits() bool { return !e.is(parked | delivered | shelved) }

func (e *entry) key() []byte { return append(e.guid[:], e.line.name...) }

// digest stands for a place, or a file's name: the beginning of its SHA-256. Two of a hundred thousand are the same by a chance of 1 in 10^19,
// and whoever makes two of his own the same gets one of them dropped.
type digest [12]byte

func digestOf[Text string | []byte](text Text) digest {
	sum := sha256.Sum256([]byte(text))
	return digest(sum[:])
}

// fileDigest is zero for no file.
func fileDigest(name string) digest {
	if name == "" {
		return digest{}
	}
	return digestOf(name)
}

// head is what the index needs of an item. It stands before it in the database.
type head struct {
	flags                 flags
	due, proven, captured int64 // in nanoseconds since 1970
	place, file           digest
}

const headSize = 1 + 3*8 + 2*len(digest{})

func headOf(i Item) head {
	h := head{
		due: nanoseconds(i.Due), proven: nanoseconds(i.Proven), captured: nanoseconds(i.Captured), place: digestOf(i.Place), file: fileDigest(i.File),
	}
	h.set(parked, i.Parked)
	h.set(settling, i.Settling)
	h.set(delivered, !i.Delivered.IsZero())
	h.set(tried, i.Class != "")
	h.set(paused, !i.Resume.IsZero())
	h.set(shelved, i.Shelved)
	return h
}

func (h *head) set(f flags, on bool) {
	if on {
		h.flags |= f
	}
}

// nanoseconds returns a time since 1970, or the least or the greatest number where it is too far away.
func nanoseconds(t time.Time) int64 {
	switch year := t.Year(); {
	case year < 1700:
		return math.MinInt64
	case year > 2200:
		return math.MaxInt64
	}
	return t.UnixNano()
}

func (h head) marshal() []byte {
	b := make([]byte, 0, headSize)
	b = append(b, byte(h.flags))
	for _, n := range []int64{h.due, h.proven, h.captured} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(append(b, h.place[:]...), h.file[:]...)
}

func parseHead(b []byte) (h head, err error) {
	if len(b) != headSize {
		return h, errors.New("an item's head has another length")
	}
	number := func(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
	return head{
		flags: flags(b[0]), due: number(1), proven: number(9), captured: number(17), place: digest(b[25:]), file: digest(b[37:]),
	}, nil
}

// entry makes one of a head from the disk, whose times are by the time of day.
func (q *Queue) entry(guid dsdb.GUID, h head) *entry {
	since := func(nanoseconds int64) time.Duration { return time.Unix(0, nanoseconds).Sub(q.epoch) }
	return &entry{guid: guid, place: h.place, file: h.file, due: since(h.due), proven: since(h.proven), captured: h.captured, flags: h.flags}
}

// entryOf makes one of an item of this run.
func (q *Queue) entryOf(i Item) *entry {
	e := q.entry(i.Account.GUID, headOf(i))
	e.due, e.proven = i.Due.Sub(q.epoch), i.Proven.Sub(q.epoch)
	return e
}
