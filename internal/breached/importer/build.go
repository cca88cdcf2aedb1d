package importer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/FastFilter/xorfilter"
	"golang.org/x/sync/errgroup"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
)

// maxShard bounds the keys of one shard, and so the memory. A list of 60 billion hashes would reach it.
const maxShard = 1 << 24

// Source gives the keys of each shard, which it appends to keys.
type Source interface {
	Shard(shard int, keys []uint64) ([]uint64, error)
}

// shard is one on its way from the source into the file.
type shard struct {
	number   int
	keys     []uint64
	consumed uint64
	done     chan built
}

type built struct {
	entry        breached.Entry
	fingerprints []byte
	err          error
}

// fill reads the shards that the file lacks from the source, makes a filter of each, as many at once as there are processors, and writes
// them in their order.
func fill(ctx context.Context, p *part, source Source, consumed func() uint64, progress func(Progress)) error {
	workers := min(runtime.GOMAXPROCS(0), 8)
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan *shard)
	order := make(chan *shard, 2*workers)
	spare := make(chan *shard, 4*workers) // what was written, for its memory

	group.Go(func() error {
		defer close(work)
		defer close(order)
		for number := p.next; number < breached.Shards; number++ {
			var s *shard
			select {
			case s = <-spare:
			default:
				s = &shard{done: make(chan built, 1)}
			}
			var err error
			s.number = number
			if s.keys, err = source.Shard(number, s.keys[:0]); err != nil {
				return err
			}
			s.consumed = consumed()
			for _, next := range []chan *shard{order, work} {
				select {
				case next <- s:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	})
	for range workers {
		group.Go(func() error {
			var b builder
			for s := range work {
				entry, fingerprints, err := b.build(s.keys, p.header.Bits)
				s.done <- built{entry, fingerprints, err}
			}
			return nil
		})
	}
	group.Go(func() error {
		for s := range order {
			var b built
			select {
			case b = <-s.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if b.err != nil {
				return fmt.Errorf("making filter of hashes that begin with %03X: %w", s.number, b.err)
			}
			b.entry.Consumed = s.consumed
			if err := p.add(s.number, b.entry, b.fingerprints); err != nil {
				return err
			}
			progress(Progress{Shards: p.next, Entries: p.header.Entries})
			select {
			case spare <- s:
			default:
			}
		}
		return nil
	})
	return group.Wait()
}

// builder makes filters, one after the other, in the same memory.
type builder struct{ lib xorfilter.BinaryFuseBuilder }

var errLost = errors.New("a hash is not found in the filter made of it")

// build returns a filter of the keys, which has been asked for each of them.
func (b *builder) build(keys []uint64, bits int) (breached.Entry, []byte, error) {
	if len(keys) == 0 {
		return breached.Entry{}, nil, nil
	}
	var e breached.Entry
	var fingerprints []byte
	var err error
	if bits == 8 {
		e, fingerprints, err = buildOf[uint8](b, keys)
	} else {
		e, fingerprints, err = buildOf[uint16](b, keys)
	}
	if err != nil {
		return breached.Entry{}, nil, err
	}
	for _, key := range keys {
		if !e.Contains(fingerprints, bits, key) {
			return breached.Entry{}, nil, errLost
		}
	}
	return e, fingerprints, nil
}

func buildOf[T xorfilter.Unsigned](b *builder, keys []uint64) (breached.Entry, []byte, error) {
	f, err := xorfilter.BuildBinaryFuse[T](&b.lib, keys)
	if err != nil {
		return breached.Entry{}, nil, err
	}
	// The fingerprints are the builder's, which makes the next ones of them.
	own := make([]T, len(f.Fingerprints))
	copy(own, f.Fingerprints)
	fingerprints := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(own))), len(own)*int(unsafe.Sizeof(own[0])))
	return breached.Entry{
		Seed:          f.Seed,
		Entries:       uint32(len(keys)),
		SegmentLength: f.SegmentLength,
		SegmentCount:  f.SegmentCount,
		CRC:           breached.CRC(fingerprints),
	}, fingerprints, nil
}
