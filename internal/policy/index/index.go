// Package index is the file that tells the hook, of an account's name, which policy it has and which targets want it.
//
// Why: policies are chosen by LDAP filters, and the hook must not ask the directory: it runs inside the directory's transaction. So
// the agent asks, and leaves the answers here. An account that is not in the file is unknown; whoever reads it decides what that
// means.
//
// How: the agent writes the file anew as a whole (durable.Replace) whenever an answer has changed. The hook finds a name by reading
// the first 4,096 bytes and usually one or two blocks of as many more, however many accounts there are. It reads and does not
// map: a file that somebody cuts off is an error then, and no signal that ends the process.
//
// Bytes, all integers big-endian. First a header, a multiple of 4,096 bytes long:
//
//	16  "pwsync accounts" 0x01   magic and format version
//	4   length of the header
//	4   number of blocks
//	8   number of accounts
//	8   time                     when the directory was asked; nanoseconds since 1970
//	16  salt                     random, anew in each file
//	32  fingerprint              of what decides who has which policy and which targets, the directory apart
//	2+n times (2+n)              names of policies
//	2+n times (2+n)              names of targets
//	2   number of answers, and each of them: 2 policy (its number from 1, 0 for none), 2+2n the targets' numbers from 0
//	…   zeros
//	8   check
//
// Then blocks of 4,096 bytes:
//
//	2   number of records
//	18n records: 16 hash of the account's name, 2 number of the answer
//	…   zeros
//	8   check
//
// A name's hash is SHA-256 of salt and name, folded as the directory does (checkpassword.FoldName), cut to 16 bytes; records are
// in the order of hashes over all blocks, each of which is as full as the others. So where a hash is can be told from its value,
// nearly. A check is SHA-256 of the salt, the block's number (0 is the header) and all before the check, cut to 8 bytes: a block that is
// damaged, or of another file, is an error for whose account's lies there.
//
// No name of an account is in the file. Whoever can read it can try names, as he can at the domain.
//
// Whom it trusts: whoever can write to the folder, which is root's. He chooses everybody's policy; the checks keep out accidents only.
//
// What it does not solve: two accounts of one name, which two DCs can make before they have heard of each other. Both are left out.
package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sort"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/nopoll"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

const (
	magic = "pwsync accounts\x01"

	blockSize  = 4096
	checkSize  = 8
	hashSize   = 16
	recordSize = hashSize + 2
	perBlock   = (blockSize - checkSize - 2) / recordSize

	// maxHeader bounds what is read before its check is known to be right.
	maxHeader = 1 << 20
)

// Places in the header.
const (
	atLength      = len(magic)
	atBlocks      = atLength + 4
	atAccounts    = atBlocks + 4
	atTime        = atAccounts + 8
	atSalt        = atTime + 8
	atFingerprint = atSalt + saltSize
	atTables      = atFingerprint + sha256.Size
	saltSize      = 16
)

// ErrDamaged means that the file is not one that Write wrote, or not all of it.
var ErrDamaged = errors.New("the index of accounts is damaged; samba-pwsync's agent makes a new one when it starts")

// Entry is what the directory answered about one account.
type Entry struct {
	Policy  string   // NAME of [policy.NAME]; empty: none of them, and [policy] holds
	Targets []string // names of the targets that want the account, in the order in which Index lists them
}

// Index is an open file. It is not safe for concurrent use.
type Index struct {
	file   *os.File // nil in tests
	bytes  io.ReaderAt
	header header
	block  []byte
}

type header struct {
	blocks      int
	accounts    int
	made        time.Time
	salt        [saltSize]byte
	fingerprint [sha256.Size]byte
	policies    []string
	targets     []string
	answers     [][]byte // policy and targets by their numbers, as stored
}

// Open opens the file. It fails with fs.ErrNotExist where there is none, and with ErrDamaged.
func Open(path string) (*Index, error) {
	f, err := nopoll.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("opening index of accounts: %w", err)
	}
	info, err := f.Stat()
	var ix *Index
	if err == nil {
		ix, err = open(f, info.Size())
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("opening index of accounts: %w", err)
	}
	ix.file = f
	return ix, nil
}

func open(r io.ReaderAt, size int64) (*Index, error) {
	ix := &Index{bytes: r, block: make([]byte, blockSize)}
	if size < blockSize || size%blockSize != 0 {
		return nil, ErrDamaged
	}
	whole := make([]byte, blockSize) // the header's tables go on lying here
	if err := ix.read(whole, 0); err != nil {
		return nil, err
	}
	if string(whole[:len(magic)]) != magic {
		return nil, ErrDamaged
	}
	length := int64(binary.BigEndian.Uint32(whole[atLength:]))
	if length < blockSize || length > maxHeader || length%blockSize != 0 || length > size {
		return nil, ErrDamaged
	}
	if length > blockSize {
		whole = make([]byte, length)
		if err := ix.read(whole, 0); err != nil {
			return nil, err
		}
	}
	h, err := parseHeader(whole)
	if err != nil {
		return nil, err
	}
	if int64(h.blocks) != (size-length)/blockSize || h.accounts < h.blocks || h.accounts > h.blocks*perBlock {
		return nil, ErrDamaged
	}
	ix.header = h
	ix.bytes = io.NewSectionReader(r, length, size-length)
	return ix, nil
}

// read reads whole, and takes a file that has become shorter for a damaged one.
func (ix *Index) read(into []byte, at int64) error {
	_, err := ix.bytes.ReadAt(into, at)
	if err == io.EOF {
		return ErrDamaged
	}
	return err
}

// Close ends the use of the file.
func (ix *Index) Close() error {
	if ix.file == nil {
		return nil
	}
	return ix.file.Close()
}

// Made returns when the directory was asked.
func (ix *Index) Made() time.Time { return ix.header.made }

// Accounts returns how many accounts the file holds.
func (ix *Index) Accounts() int { return ix.header.accounts }

// Fingerprint returns what Contents had.
func (ix *Index) Fingerprint() [sha256.Size]byte { return ix.header.fingerprint }

// Policies lists the policies that the directory was asked about. Of one that is not among them the index knows nothing.
func (ix *Index) Policies() []string { return ix.header.policies }

// Targets is Policies for targets: nobody was asked whether one that is not among them wants an account.
func (ix *Index) Targets() []string { return ix.header.targets }

// Find returns what is known of the account of that name; found is false if nothing is. The error is ErrDamaged, or that of a
// failed read: then nothing is known of this account, and others may be found all the same.
func (ix *Index) Find(sAMAccountName string) (e Entry, found bool, err error) {
	hash := nameHash(ix.header.salt, sAMAccountName)
	lo, hi := 0, ix.header.blocks-1
	// Hashes are evenly spread, so their values tell the block, give or take one; halves are for a file that was made to mislead.
	at := estimate(hash, ix.header.blocks)
	for reads := 0; lo <= hi; reads++ {
		if reads >= 4 {
			at = (lo + hi) / 2
		}
		at = min(max(at, lo), hi)
		records, err := ix.records(at)
		if err != nil {
			return Entry{}, false, fmt.Errorf("looking into index of accounts: %w", err)
		}
		n := len(records) / recordSize
		first, last := records[:hashSize], records[(n-1)*recordSize:][:hashSize]
		switch {
		case bytes.Compare(hash[:], first) < 0:
			hi = at - 1
			at = hi
		case bytes.Compare(hash[:], last) > 0:
			lo = at + 1
			at = lo
		default:
			i := sort.Search(n, func(i int) bool { return bytes.Compare(records[i*recordSize:][:hashSize], hash[:]) >= 0 })
			record := records[i*recordSize:][:recordSize]
			if !bytes.Equal(record[:hashSize], hash[:]) {
				return Entry{}, false, nil
			}
			e, err = ix.header.answer(binary.BigEndian.Uint16(record[hashSize:]))
			return e, err == nil, err
		}
	}
	return Entry{}, false, nil
}

// records returns the records of a block, at least one. They are good until the next call.
func (ix *Index) records(number int) ([]byte, error) {
	if err := ix.read(ix.block, int64(number)*blockSize); err != nil {
		return nil, err
	}
	if !checked(ix.block, ix.header.salt, number+1) {
		return nil, ErrDamaged
	}
	n := int(binary.BigEndian.Uint16(ix.block))
	if n < 1 || n > perBlock {
		return nil, ErrDamaged
	}
	return ix.block[2:][:n*recordSize], nil
}

// estimate returns where of so many blocks a hash should be.
func estimate(hash [hashSize]byte, blocks int) int {
	at, _ := bits.Mul64(binary.BigEndian.Uint64(hash[:]), uint64(blocks))
	return int(at)
}

func nameHash(salt [saltSize]byte, sAMAccountName string) (hash [hashSize]byte) {
	sum := sha256.Sum256(append(salt[:], checkpassword.FoldName(sAMAccountName)...))
	copy(hash[:], sum[:])
	return hash
}

// check returns the check of a block, or of the header (number 0), whose last bytes it is to fill.
func check(block []byte, salt [saltSize]byte, number int) []byte {
	sum := sha256.New()
	sum.Write(salt[:])
	sum.Write(binary.BigEndian.AppendUint32(nil, uint32(number)))
	sum.Write(block[:len(block)-checkSize])
	return sum.Sum(nil)[:checkSize]
}

func checked(block []byte, salt [saltSize]byte, number int) bool {
	return bytes.Equal(check(block, salt, number), block[len(block)-checkSize:])
}

func parseHeader(b []byte) (header, error) {
	h := header{
		blocks:   int(binary.BigEndian.Uint32(b[atBlocks:])),
		accounts: int(binary.BigEndian.Uint64(b[atAccounts:])),
		made:     time.Unix(0, int64(binary.BigEndian.Uint64(b[atTime:]))).UTC(),
	}
	copy(h.salt[:], b[atSalt:])
	copy(h.fingerprint[:], b[atFingerprint:])
	if !checked(b, h.salt, 0) {
		return header{}, ErrDamaged
	}
	p := parser{rest: b[atTables : len(b)-checkSize]}
	h.policies = p.names()
	h.targets = p.names()
	h.answers = make([][]byte, p.number())
	for i := range h.answers {
		h.answers[i] = p.answer()
	}
	if p.short {
		return header{}, ErrDamaged
	}
	return h, nil
}

// answer turns numbers into names.
func (h header) answer(number uint16) (e Entry, err error) {
	if int(number) >= len(h.answers) {
		return Entry{}, ErrDamaged
	}
	p := parser{rest: h.answers[number]}
	if policy := int(p.number()); policy > len(h.policies) {
		return Entry{}, ErrDamaged
	} else if policy > 0 {
		e.Policy = h.policies[policy-1]
	}
	for range p.number() {
		target := int(p.number())
		if target >= len(h.targets) {
			return Entry{}, ErrDamaged
		}
		e.Targets = append(e.Targets, h.targets[target])
	}
	return e, nil
}

// parser takes values off the front of bytes, zeros once there are too few.
type parser struct {
	rest  []byte
	short bool
}

func (p *parser) take(n int) []byte {
	if n > len(p.rest) {
		p.rest, p.short = nil, true
		return make([]byte, n)
	}
	taken := p.rest[:n]
	p.rest = p.rest[n:]
	return taken
}

func (p *parser) number() uint16 { return binary.BigEndian.Uint16(p.take(2)) }

func (p *parser) names() (all []string) {
	for range p.number() {
		all = append(all, string(p.take(int(p.number()))))
	}
	return all
}

// answer takes one answer, and leaves it as it is.
func (p *parser) answer() []byte {
	start := p.rest
	p.number()
	p.take(2 * int(p.number()))
	return start[:len(start)-len(p.rest)]
}
