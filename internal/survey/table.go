package survey

import (
	"bytes"
	"encoding/binary"
	"iter"
	"slices"
)

// table holds the hash of each account. It is filled, then sorted, then asked; and cleared when it is no longer needed.
type table struct {
	entries []entry
	first   []uint32 // by the hash's first 16 bits: where in entries they begin; hashes are evenly spread
}

type entry struct {
	hash    [16]byte
	account uint32
}

func (t *table) add(hash [16]byte, account int) {
	if len(t.entries) == cap(t.entries) { // append would leave a copy behind
		larger := make([]entry, len(t.entries), max(1024, 2*cap(t.entries)))
		copy(larger, t.entries)
		clear(t.entries)
		t.entries = larger
	}
	t.entries = append(t.entries, entry{hash, uint32(account)})
}

func (t *table) sort() {
	slices.SortFunc(t.entries, func(a, b entry) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	t.first = make([]uint32, 1<<16+1)
	for _, e := range t.entries {
		t.first[bucket(e.hash)+1]++
	}
	for i := range 1 << 16 {
		t.first[i+1] += t.first[i]
	}
}

func bucket(hash [16]byte) uint32 { return uint32(binary.BigEndian.Uint16(hash[:])) }

// groups yields each different hash, in ascending order, and the entries that have it.
func (t *table) groups() iter.Seq2[[]byte, []entry] {
	return func(yield func([]byte, []entry) bool) {
		for rest := t.entries; len(rest) > 0; {
			n := 1
			for n < len(rest) && rest[n].hash == rest[0].hash {
				n++
			}
			if !yield(rest[0].hash[:], rest[:n]) {
				return
			}
			rest = rest[n:]
		}
	}
}

// find returns the entries that have the hash.
func (t *table) find(hash [16]byte) []entry {
	b := bucket(hash)
	from, to := t.first[b], t.first[b+1]
	for from < to && t.entries[from].hash != hash {
		from++
	}
	end := from
	for end < to && t.entries[end].hash == hash {
		end++
	}
	return t.entries[from:end]
}

func (t *table) clear() {
	clear(t.entries)
	clear(t.first)
	t.entries, t.first = nil, nil
}
