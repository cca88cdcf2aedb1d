// Package importer makes the file that package breached reads, of lists of hashes.
//
// What: a list is text in lines of HASH:COUNT, in the order of the hashes, which are SHA-1 or NT hashes in hexadecimal digits: what Have I Been
// Pwned's downloader writes into one file, or, without the first five digits, into a folder of 1,048,576 files. A line without a count was seen once. Several
// lists become one file.
//
// How: 4,096 shards, by the first 12 bits of a hash, are filled one after the other while the lists are read once from their beginning. So there
// are never more than some shards in memory, whatever the lists have. The file grows under another name (.part), with a lock on it, and takes its name when all is on the disk:
// until then what was there before stays in force. What is interrupted is taken up by the next import of the same lists: the shards that are whole stay,
// and the lists are read from where the first missing one begins, found by bisection, and held against the place that was noted.
//
// Whom it trusts: the lists are anybody's bytes; what is not as above is an error that names the place and never repeats the line, which may be a
// password that somebody took for a hash. Every filter is asked for all of its hashes before it is written.
//
// What it does not solve: whether a list has what it should have. That hashes are missing is only seen where a whole beginning is missing, because hashes
// are spread evenly: a list that was cut off, a range file that was not loaded.
package importer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
)

// Options is what to import, and how.
type Options struct {
	Output     string   // the file to be made
	Lists      []string // files, folders of range files, range files
	Bits       int      // of a fingerprint: 8 or 16
	MinCount   uint64   // leave out what was seen fewer times; at least 1, which leaves out what the downloader may pad with
	Incomplete bool     // take lists that seem to be cut off

	Progress func(Progress) // called after each shard; nil: not
}

// Progress is how far an import is.
type Progress struct {
	Shards  int    // of breached.Shards; they are of like size
	Entries uint64 // hashes that were taken
}

// Result is what an import made.
type Result struct {
	breached.Header
	Resumed int // shards that an earlier import had made already
}

// ErrIncomplete says that a list seems to lack some of its hashes.
var ErrIncomplete = errors.New("it seems to be incomplete")

// Run imports. When it returns an error, what was in force is still; a later Run with the same options goes on where this one ended, unless
// the disk was full.
func Run(ctx context.Context, o Options) (Result, error) {
	all, err := openLists(o.Lists)
	if err != nil {
		return Result{}, err
	}
	for _, l := range all {
		if !l.whole && !o.Incomplete {
			return Result{}, fmt.Errorf("%w: there are %d of the %d range files, 00000.txt to FFFFF.txt", ErrIncomplete, len(l.files), rangeFiles)
		}
	}
	source := &lists{all: all, minCount: max(o.MinCount, 1)}
	result, err := run(ctx, source, o)
	return result, errors.Join(err, source.close())
}

func run(ctx context.Context, source *lists, o Options) (_ Result, err error) {
	h := breached.Header{Bits: o.Bits, MinCount: source.minCount, Created: time.Now()}
	sum := sha256.New()
	resumable, err := source.identify(sum)
	if err != nil {
		return Result{}, err
	}
	copy(h.Source[:], sum.Sum(nil))
	// The first lines tell the kind.
	if h.Kind, err = source.start(0); err != nil {
		return Result{}, err
	}
	p, err := openPart(o.Output, h, resumable)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	resumed := p.next > 0 && p.next < breached.Shards // once all are there, the lists have nothing more to say
	if resumed {
		if _, err := source.start(p.next); err != nil {
			return Result{}, err
		}
	}
	if resumed && source.position() != p.consumed {
		// The lists are not in order, behind what was read of them. Reading them from the beginning tells where.
		if err := p.restart(); err != nil {
			return Result{}, err
		}
		if _, err := source.start(0); err != nil {
			return Result{}, err
		}
	}
	result := Result{Resumed: p.next}
	if err := write(ctx, p, source, source.position, o.Progress, o.Incomplete); err != nil {
		return Result{}, err
	}
	result.Header = p.header
	return result, nil
}

// Write makes a file of what a source gives, without lists: for measurements.
func Write(ctx context.Context, path string, h breached.Header, source Source) (breached.Header, error) {
	p, err := openPart(path, h, false)
	if err != nil {
		return breached.Header{}, err
	}
	err = write(ctx, p, source, func() uint64 { return 0 }, nil, true)
	return p.header, errors.Join(err, p.close())
}

func write(ctx context.Context, p *part, source Source, consumed func() uint64, progress func(Progress), incomplete bool) error {
	if progress == nil {
		progress = func(Progress) {}
	}
	progress(Progress{Shards: p.next, Entries: p.header.Entries})
	if err := fill(ctx, p, source, consumed, progress); err != nil {
		return err
	}
	if !incomplete {
		if err := even(&p.counts, p.header.Entries); err != nil {
			return err
		}
	}
	return p.finish()
}

// even holds the shards against each other. With a hundred hashes in each on the average, one with fewer than an eighth of that is no chance: of a Poisson
// distribution, 10^-28.
func even(counts *[breached.Shards]uint32, entries uint64) error {
	mean := entries / breached.Shards
	if mean < 100 {
		return nil
	}
	for shard, n := range counts {
		if uint64(n) < mean/8 {
			return fmt.Errorf("%w: only %d hashes begin with %03X, and on the average %d do with each other beginning", ErrIncomplete, n, shard, mean)
		}
	}
	return nil
}
