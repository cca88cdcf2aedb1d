package importer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
)

// suffix is what the name of a file has while it is written.
const suffix = ".part"

// syncEvery bounds what is written and not yet on the disk, in bytes: with gigabytes of it waiting, the domain controller's own fsync would wait as well.
const syncEvery = 32 << 20

// Errors about the file that is written.
var (
	ErrBusy     = errors.New("another import is writing it")
	ErrForeign  = errors.New("others can write to it: remove it")
	ErrDiskFull = errors.New("the disk is full: what was written is removed, and what was in force stays")
)

// part is a file that is being written: its shards come in their order, each complete before its entry. After a crash, the entries tell which shards are
// there, and the checksums whether they really are; nothing has to be synced for that until the end.
type part struct {
	path   string // of the finished file
	file   *os.File
	header breached.Header // Entries counts those that are there, Size is where the next shard begins
	next   int             // first shard that is not there
	counts [breached.Shards]uint32

	consumed uint64 // how much of the lists the shards that are there took
	unsynced uint64
	writeAt  func(p []byte, at int64) (int, error) // of file
}

// openPart takes up the file that an import with the same header began, or begins it.
func openPart(path string, h breached.Header, resume bool) (*part, error) {
	file, err := os.OpenFile(path+suffix, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening file to be written: %w", err)
	}
	p := &part{path: path, file: file, writeAt: file.WriteAt}
	if err := p.begin(h, resume); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return p, nil
}

func (p *part) begin(h breached.Header, resume bool) error {
	if err := syscall.Flock(int(p.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrBusy
		}
		return fmt.Errorf("locking %s: %w", p.file.Name(), err)
	}
	// Another import may have finished between our open and our lock: then the file that we have is the one in force.
	mine, err1 := p.file.Stat()
	named, err2 := os.Lstat(p.file.Name())
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(mine, named) {
		return fmt.Errorf("locking %s: %w", p.file.Name(), ErrBusy)
	}
	// In a folder where others can write, one of them may have made it, and would still have it open once it is in force.
	if stat := mine.Sys().(*syscall.Stat_t); !mine.Mode().IsRegular() || mine.Mode().Perm()&0o022 != 0 || stat.Nlink != 1 || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("opening %s: %w", p.file.Name(), ErrForeign)
	}
	h.Part, h.Entries, h.Size = true, 0, breached.DataStart
	p.header = h
	if resume {
		if err := p.takeUp(); err != nil {
			return err
		}
	}
	if p.next == 0 {
		return p.restart()
	}
	// What is behind the last whole shard is nothing.
	if err := p.file.Truncate(int64(p.header.Size)); err != nil {
		return fmt.Errorf("cutting %s: %w", p.file.Name(), err)
	}
	return nil
}

// restart begins the file anew.
func (p *part) restart() error {
	if err := p.file.Truncate(0); err != nil {
		return fmt.Errorf("emptying %s: %w", p.file.Name(), err)
	}
	p.next, p.consumed, p.counts = 0, 0, [breached.Shards]uint32{}
	p.header.Entries, p.header.Size = 0, breached.DataStart
	return p.write(p.header.Encode(), 0)
}

// takeUp counts the shards that are there, as far as they are whole.
func (p *part) takeUp() error {
	table := make([]byte, breached.DataStart)
	if _, err := p.file.ReadAt(table, 0); err != nil {
		if err == io.EOF {
			return nil
		}
		return fmt.Errorf("reading %s: %w", p.file.Name(), err)
	}
	there, err := breached.DecodeHeader(table)
	if !errors.Is(err, breached.ErrUnfinished) || string(there.Encode()) != string(p.sameAge(there).Encode()) {
		return nil
	}
	info, err := p.file.Stat()
	if err != nil {
		return fmt.Errorf("looking at %s: %w", p.file.Name(), err)
	}
	var fingerprints []byte
	for ; p.next < breached.Shards; p.next++ {
		e, err := breached.DecodeEntry(table, p.next, p.header.Bits, uint64(info.Size()))
		if err != nil {
			return nil
		}
		if e.Entries > 0 {
			if e.Offset != p.header.Size {
				return nil
			}
			n := e.Bytes(p.header.Bits)
			fingerprints = append(fingerprints[:0], make([]byte, n)...)
			if _, err := p.file.ReadAt(fingerprints, int64(e.Offset)); err != nil || breached.CRC(fingerprints) != e.CRC {
				return nil
			}
			p.header.Size = breached.Aligned(e.Offset + n)
		}
		p.header.Entries += uint64(e.Entries)
		p.counts[p.next] = e.Entries
		p.consumed = e.Consumed
	}
	return nil
}

// sameAge is the header to compare with: when it was begun does not matter.
func (p *part) sameAge(there breached.Header) breached.Header {
	h := p.header
	h.Created = there.Created
	return h
}

// add writes the next shard.
func (p *part) add(number int, e breached.Entry, fingerprints []byte) error {
	e.Offset = p.header.Size
	if err := p.write(fingerprints, int64(e.Offset)); err != nil {
		return err
	}
	if err := p.write(e.Encode(number), breached.At(number)); err != nil {
		return err
	}
	p.header.Size = breached.Aligned(e.Offset + uint64(len(fingerprints)))
	p.header.Entries += uint64(e.Entries)
	p.counts[number] = e.Entries
	p.next = number + 1
	if p.unsynced += uint64(len(fingerprints)); p.unsynced < syncEvery {
		return nil
	}
	p.unsynced = 0
	return p.sync()
}

// finish puts the file into force under its name, durably.
func (p *part) finish() error {
	if err := p.file.Truncate(int64(p.header.Size)); err != nil { // up to the end of the last shard's alignment
		return p.failed(err)
	}
	p.header.Part = false
	if err := p.write(p.header.Encode(), 0); err != nil {
		return err
	}
	if err := p.file.Chmod(0o644); err != nil { // its contents are public; the hook, the agent and people read it
		return p.failed(err)
	}
	if err := p.sync(); err != nil {
		return err
	}
	if err := durable.Move(p.path+suffix, p.path); err != nil {
		return fmt.Errorf("putting the file in force: %w", err)
	}
	return nil
}

func (p *part) close() error { return p.file.Close() }

func (p *part) write(b []byte, at int64) error {
	if len(b) == 0 {
		return nil
	}
	_, err := p.writeAt(b, at)
	return p.failed(err)
}

func (p *part) sync() error { return p.failed(p.file.Sync()) }

// failed is what a write's error comes to. On a full disk the domain controller has more need of the room than we of what is written.
func (p *part) failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		err = errors.Join(fmt.Errorf("%w: %w", ErrDiskFull, err), p.file.Truncate(0), durable.Remove(p.path+suffix))
	}
	return fmt.Errorf("writing %s: %w", p.path+suffix, err)
}
