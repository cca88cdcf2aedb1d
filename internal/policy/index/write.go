package index

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/durable"
)

// Contents is what an index is made of.
type Contents struct {
	Made        time.Time
	Fingerprint [sha256.Size]byte // of what decides, the directory apart: filters and their order, targets and theirs
	Policies    []string          // that the directory was asked about
	Targets     []string          // likewise
	Accounts    []Account         // in any order; those whose name another one has are left out
}

// Account is one account, by its sAMAccountName.
type Account struct {
	Name string
	Entry
}

// Write makes an index of the contents and puts it under the name in one step, readable by its owner only.
func Write(path string, c Contents) error {
	b, err := marshal(c)
	if err != nil {
		return fmt.Errorf("making index of accounts: %w", err)
	}
	if err := durable.Replace(path, b, 0o600); err != nil {
		return fmt.Errorf("storing index of accounts: %w", err)
	}
	return nil
}

var (
	errUnlisted = errors.New("an account has a policy or a target that is not listed")
	errTooMuch  = errors.New("more policies, targets or combinations of them than an index can hold")
)

type record struct {
	hash   [hashSize]byte
	answer uint16
}

func marshal(c Contents) ([]byte, error) {
	var salt [saltSize]byte
	_, _ = rand.Read(salt[:]) // crypto/rand.Read never fails: it ends the program instead
	t := tables{numbers: map[string]uint16{}}
	records := make([]record, len(c.Accounts))
	for i, a := range c.Accounts {
		answer, err := t.number(c, a.Entry)
		if err != nil {
			return nil, err
		}
		records[i] = record{nameHash(salt, a.Name), answer}
	}
	records = unambiguous(records)

	blocks := (len(records) + perBlock - 1) / perBlock
	b, err := t.header(c, salt, blocks, len(records))
	if err != nil {
		return nil, err
	}
	for i := range blocks {
		// All are equally full, give or take one record: see estimate.
		from, to := i*len(records)/blocks, (i+1)*len(records)/blocks
		b = append(b, block(records[from:to], salt, i+1)...)
	}
	return b, nil
}

// unambiguous sorts records and leaves out those whose hash another one has.
func unambiguous(records []record) []record {
	slices.SortFunc(records, func(a, b record) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	kept := records[:0]
	for i := 0; i < len(records); {
		next := i + 1
		for next < len(records) && records[next].hash == records[i].hash {
			next++
		}
		if next == i+1 {
			kept = append(kept, records[i])
		}
		i = next
	}
	return kept
}

func block(records []record, salt [saltSize]byte, number int) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, blockSize), uint16(len(records)))
	for _, r := range records {
		b = append(b, r.hash[:]...)
		b = binary.BigEndian.AppendUint16(b, r.answer)
	}
	b = b[:blockSize] // zeros
	copy(b[blockSize-checkSize:], check(b, salt, number))
	return b
}

// tables numbers the different answers.
type tables struct {
	numbers map[string]uint16 // by the answer as stored
	answers []string
}

func (t *tables) number(c Contents, e Entry) (uint16, error) {
	policy := 0
	if e.Policy != "" {
		policy = 1 + slices.Index(c.Policies, e.Policy)
		if policy == 0 {
			return 0, errUnlisted
		}
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(policy))
	b = binary.BigEndian.AppendUint16(b, uint16(len(e.Targets)))
	wanted := make([]int, len(e.Targets))
	for i, name := range e.Targets {
		if wanted[i] = slices.Index(c.Targets, name); wanted[i] < 0 {
			return 0, errUnlisted
		}
	}
	slices.SortFunc(wanted, cmp.Compare[int])
	for _, target := range wanted {
		b = binary.BigEndian.AppendUint16(b, uint16(target))
	}
	n, known := t.numbers[string(b)]
	if !known {
		if len(t.answers) > math.MaxUint16 {
			return 0, errTooMuch
		}
		n = uint16(len(t.answers))
		t.numbers[string(b)] = n
		t.answers = append(t.answers, string(b))
	}
	return n, nil
}

func (t *tables) header(c Contents, salt [saltSize]byte, blocks, accounts int) ([]byte, error) {
	if len(t.answers) > math.MaxUint16 {
		return nil, errTooMuch
	}
	b := append(make([]byte, 0, blockSize), magic...)
	b = binary.BigEndian.AppendUint32(b, 0) // the length, see below
	b = binary.BigEndian.AppendUint32(b, uint32(blocks))
	b = binary.BigEndian.AppendUint64(b, uint64(accounts))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Made.UnixNano()))
	b = append(b, salt[:]...)
	b = append(b, c.Fingerprint[:]...)
	for _, names := range [][]string{c.Policies, c.Targets} {
		if len(names) > math.MaxUint16 {
			return nil, errTooMuch
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(names)))
		for _, name := range names {
			if len(name) > math.MaxUint16 {
				return nil, errTooMuch
			}
			b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
			b = append(b, name...)
		}
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(t.answers)))
	for _, answer := range t.answers {
		b = append(b, answer...)
	}
	length := (len(b) + checkSize + blockSize - 1) / blockSize * blockSize
	if length > maxHeader {
		return nil, errTooMuch
	}
	b = append(b, make([]byte, length-len(b))...)
	binary.BigEndian.PutUint32(b[atLength:], uint32(length))
	copy(b[length-checkSize:], check(b, salt, 0))
	return b, nil
}
