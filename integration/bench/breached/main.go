// Command breached measures what looking up a breached password costs the hook, against the number of hashes in the file, and beside it a binary search in a
// sorted file of the whole hashes, which is how the lists are usually asked. It prints a table in markdown.
//
// The hashes are made of a counter: what is measured depends on how many there are and where their pages lie, not on what they are the hashes of. The
// import's reading of lists is no part of this (BenchmarkImport of internal/breached/importer is).
//
// "warm" is a file whose pages are in the kernel's memory, "cold" one of which it was asked to forget every page before each look-up
// (posix_fadvise). Both open the file, look up one hash and close it, as each run of the hook does; hashes that are held and hashes that are not take
// turns. "again" asks a file that stays open. Faults are those of the thread, by getrusage: minor ones find the page in memory, major ones wait for the disk.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/breached/importer"
)

func main() {
	sizes := flag.String("sizes", "1,10,100,900", "millions of hashes, separated by commas")
	search := flag.Uint64("search", 100, "up to so many millions, measure a sorted file as well (20 MB for each)")
	bits := flag.Int("bits", 16, "bits of a fingerprint")
	dir := flag.String("dir", os.TempDir(), "`folder` for the files, which are removed at the end")
	flag.Parse()
	if err := run(os.Stdout, *sizes, *search, *bits, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "breached:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, sizes string, search uint64, bits int, dir string) (err error) {
	dir, err = os.MkdirTemp(dir, "pwsync-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	runtime.LockOSThread() // faults are counted by thread

	fmt.Fprintf(out, "| hashes | asked | file | made in, with memory | warm: p50, p99 | faults, minor | cold: p50, p99 | faults, major | again | not held, found |\n")
	fmt.Fprintf(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for text := range strings.SplitSeq(sizes, ",") {
		millions, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return err
		}
		set := set{millions * 1_000_000}
		name := filepath.Join(dir, "breached.bin")
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the peak begins here
			return err
		}
		began := time.Now()
		h, err := importer.Write(context.Background(), name, breached.Header{Kind: breached.SHA1, Bits: bits, MinCount: 1, Created: time.Now()}, set)
		if err != nil {
			return err
		}
		peak, err := peakMemory()
		if err != nil {
			return err
		}
		made := fmt.Sprintf("%.1f s, %s", time.Since(began).Seconds(), bytesOf(peak))
		if h.Entries != set.n {
			return fmt.Errorf("%d hashes were written of %d", h.Entries, set.n)
		}
		if err := measure(out, fmt.Sprintf("| %d M | filter, %d bits |", millions, bits), name, made, set, openFilter); err != nil {
			return err
		}
		if err := os.Remove(name); err != nil {
			return err
		}
		debug.FreeOSMemory()
		if millions > search {
			continue
		}
		began = time.Now()
		if err := set.writeSorted(name); err != nil {
			return err
		}
		if err := measure(out, fmt.Sprintf("| %d M | binary search |", millions), name, fmt.Sprintf("%.1f s", time.Since(began).Seconds()), set, openSorted); err != nil {
			return err
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// opened is a file that can be asked.
type opened interface {
	Holds(hash []byte) (bool, error)
	Close() error
}

func openFilter(path string) (opened, error) { return breached.Open(path) }

// measure prints a row.
func measure(out io.Writer, title, path string, made string, set set, open func(string) (opened, error)) error {
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection in the middle of a look-up is the collector's time
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := file.Sync(); err != nil { // pages that are not on the disk yet are not forgotten
		return err
	}
	forget := func() error { return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) }
	read := func() error {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, struct{ io.Reader }{file})
		return err
	}

	number := uint64(0)
	once := func() (time.Duration, unix.Rusage, error) {
		number++
		want := number%2 == 0
		hash := set.absent(number)
		if want {
			hash = set.present(number)
		}
		var before, after unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
			return 0, after, err
		}
		began := time.Now()
		f, err := open(path)
		if err != nil {
			return 0, after, err
		}
		held, err := f.Holds(hash)
		err = errors.Join(err, f.Close())
		took := time.Since(began)
		if err == nil && want && !held {
			err = fmt.Errorf("hash number %d is not held", number)
		}
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
			return 0, after, err
		}
		after.Minflt -= before.Minflt
		after.Majflt -= before.Majflt
		return took, after, err
	}
	row := func(rounds int, before func() error) (p50, p99 time.Duration, minor, major float64, err error) {
		var times []time.Duration
		for range rounds {
			if err := before(); err != nil {
				return 0, 0, 0, 0, err
			}
			took, faults, err := once()
			if err != nil {
				return 0, 0, 0, 0, err
			}
			times = append(times, took)
			minor += float64(faults.Minflt)
			major += float64(faults.Majflt)
		}
		slices.Sort(times)
		return times[rounds/2], times[rounds*99/100], minor / float64(rounds), major / float64(rounds), nil
	}

	cold50, cold99, _, major, err := row(500, forget)
	if err != nil {
		return err
	}
	if err := read(); err != nil {
		return err
	}
	warm50, warm99, minor, left, err := row(5000, func() error { return nil })
	if err != nil {
		return err
	}
	if left > 0.1 { // some pages go all the same, as where the machine's host takes memory back
		return fmt.Errorf("%s: a warm look-up has %.2f major faults: the machine's memory has no room for the file", path, left)
	}

	f, err := open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const again = 1_000_000
	found := 0
	began := time.Now()
	for i := range uint64(again) {
		held, err := f.Holds(set.absent(1<<32 + i))
		if err != nil {
			return err
		}
		if held {
			found++
		}
	}
	each := time.Since(began) / again
	_, err = fmt.Fprintf(out, "%s %s | %s | %s, %s | %.1f | %s, %s | %.1f | %s | %d of 1 M |\n", title, bytesOf(info.Size()), made,
		micro(warm50), micro(warm99), minor, micro(cold50), micro(cold99), major, micro(each), found)
	return err
}

// peakMemory is the most that this process had resident since the peak was reset, in bytes.
func peakMemory() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("/proc/self/status has no VmHWM")
}

func micro(d time.Duration) string {
	us := float64(d) / float64(time.Microsecond)
	if us < 10 {
		return fmt.Sprintf("%.2f µs", us)
	}
	return fmt.Sprintf("%.0f µs", us)
}

func bytesOf(n int64) string {
	if n < 1e9 {
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}

// set is n hashes, in their order: each has its n-th part of all there are, and a place in it by chance.
type set struct{ n uint64 }

// mix is the finalizer of splitmix64: a permutation.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xBF58476D1CE4E5B9
	x ^= x >> 27
	x *= 0x94D049BB133111EB
	return x ^ x>>31
}

func (s set) step() uint64 { return ^uint64(0) / s.n }

// head is the first 64 bits of hash number i, which tell its shard.
func (s set) head(i uint64) uint64 { return i*s.step() + mix(i^0x9E3779B97F4A7C15)%s.step() }

func (s set) hash(i uint64) []byte {
	hash := make([]byte, 20)
	s.put(hash, i)
	return hash
}

func (s set) put(hash []byte, i uint64) {
	binary.BigEndian.PutUint64(hash, s.head(i))
	binary.BigEndian.PutUint64(hash[8:], mix(i))
	binary.BigEndian.PutUint32(hash[16:], uint32(i))
}

// present is some hash of the set, absent one that is not in it.
func (s set) present(number uint64) []byte { return s.hash(mix(number) % s.n) }

func (s set) absent(number uint64) []byte {
	hash := make([]byte, 20)
	binary.BigEndian.PutUint64(hash, mix(number+1<<50))
	binary.BigEndian.PutUint64(hash[8:], mix(s.n+1<<60+number)) // a permutation of other numbers
	return hash
}

// Shard implements importer.Source.
func (s set) Shard(shard int, keys []uint64) ([]uint64, error) {
	const width = 1 << 52 // of a shard, in heads
	first := sort.Search(int(s.n), func(i int) bool { return s.head(uint64(i))/width >= uint64(shard) })
	for i := uint64(first); i < s.n && s.head(i)/width == uint64(shard); i++ {
		keys = append(keys, mix(i))
	}
	return keys, nil
}

func (s set) writeSorted(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(file, 1<<20)
	hash := make([]byte, 20)
	for i := range s.n {
		s.put(hash, i)
		_, _ = w.Write(hash) // Flush has the error
	}
	return errors.Join(w.Flush(), file.Sync(), file.Close())
}

// sorted is the other way: all hashes, mapped, and bisected.
type sorted []byte

func openSorted(path string) (opened, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	data, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return sorted(data), syscall.Madvise(data, syscall.MADV_RANDOM)
}

func (s sorted) Holds(hash []byte) (bool, error) {
	n := len(s) / 20
	i := sort.Search(n, func(i int) bool { return bytes.Compare(s[i*20:i*20+20], hash) >= 0 })
	return i < n && bytes.Equal(s[i*20:i*20+20], hash), nil
}

func (s sorted) Close() error { return syscall.Munmap(s) }
