package importer

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
)

// rangeFiles is how many range files there are: one for each beginning of five digits.
const rangeFiles = 1 << (4 * prefixDigits)

// maxLists bounds the files that are open at once.
const maxLists = 256

// list is a sequence of lines in the order of their hashes: one file, or range files one after the other.
type list struct {
	files   []listFile
	whole   bool // all range files are there, or it is one file, of which that cannot be told
	regular bool // it can be read from its middle

	kind breached.Kind
	at   int // index of the file that is read
	in   *lines
	record
	ended bool
}

type listFile struct {
	name   string
	prefix []byte
}

// openLists makes lists of what the command line names: files, folders of range files, and range files one by one, which are one list.
func openLists(names []string) (_ []*list, err error) {
	var lists []*list
	singles := list{regular: true}
	for _, name := range names {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &listError{file: name, text: "there is no such file or folder"}
		}
		if err != nil {
			return nil, fmt.Errorf("looking at list: %w", err)
		}
		if info.IsDir() {
			l, err := folder(name)
			if err != nil {
				return nil, err
			}
			lists = append(lists, l)
			continue
		}
		regular := info.Mode().IsRegular()
		f := listFile{name: name}
		if regular {
			// A whole hash in the first line, and the file is not one of the downloader's ranges, whatever its name.
			if prefix, ok := prefixOf(filepath.Base(name)); ok && beginsShort(name) {
				f.prefix = prefix
				singles.files = append(singles.files, f)
				continue
			}
		}
		lists = append(lists, &list{files: []listFile{f}, whole: true, regular: regular})
	}
	if len(singles.files) > 0 {
		singles.inOrder()
		lists = append(lists, &singles)
	}
	if len(lists) > maxLists {
		return nil, fmt.Errorf("%d lists are more than can be open at once, %d: merge some with LC_ALL=C sort -m", len(lists), maxLists)
	}
	return lists, nil
}

// beginsShort reports whether a file's first line lacks the digits that stand in the name of a range file.
func beginsShort(name string) bool {
	l, err := openLines(name, nil)
	if err != nil {
		return false
	}
	defer l.file.Close()
	text, _ := l.buf.ReadSlice('\n')
	digits := bytes.IndexFunc(text, func(c rune) bool { return c > 0xFF || nibbles[byte(c)] == 0xFF })
	if digits < 0 {
		digits = len(text)
	}
	_, short := kindOf(digits + prefixDigits)
	return short
}

// folder is a list of the range files in a folder, which has to hold nothing else.
func folder(name string) (*list, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, fmt.Errorf("looking into folder: %w", err)
	}
	l := &list{regular: true}
	for _, e := range entries {
		prefix, ok := prefixOf(e.Name())
		if !ok || !e.Type().IsRegular() {
			return nil, &listError{file: filepath.Join(name, e.Name()), text: "a folder may hold only the downloader's range files, 00000.txt to FFFFF.txt: move this one elsewhere"}
		}
		l.files = append(l.files, listFile{filepath.Join(name, e.Name()), prefix})
	}
	if len(l.files) == 0 {
		return nil, &listError{file: name, text: "this folder is empty"}
	}
	l.inOrder()
	return l, nil
}

func (l *list) inOrder() {
	for i := range l.files {
		l.files[i].prefix = bytes.ToUpper(l.files[i].prefix)
	}
	slices.SortFunc(l.files, func(a, b listFile) int {
		return cmp.Or(bytes.Compare(a.prefix, b.prefix), cmp.Compare(a.name, b.name))
	})
	l.whole = len(l.files) == rangeFiles
}

// start opens the list at the first hash that belongs to a shard or a later one.
func (l *list) start(shard int) error {
	if err := l.close(); err != nil {
		return err
	}
	l.at, l.ended, l.record = 0, false, record{}
	ranges := l.files[0].prefix != nil
	if ranges {
		l.at = sort.Search(len(l.files), func(i int) bool { return string(l.files[i].prefix) >= fmt.Sprintf("%03X", shard) })
		l.at = min(l.at, len(l.files)-1) // where all are below, Shard passes over the last one
	}
	var err error
	if l.in, err = openLines(l.files[l.at].name, l.files[l.at].prefix); err != nil {
		return err
	}
	if shard > 0 && !ranges {
		if err := l.in.seek([]byte{byte(shard >> 4), byte(shard << 4)}); err != nil {
			return err
		}
	}
	return l.advance()
}

// close gives the file back.
func (l *list) close() error {
	if l.in == nil {
		return nil
	}
	err := l.in.file.Close()
	l.in = nil
	return err
}

// position is where the present line begins, in bytes or in files; it only grows.
func (l *list) position() uint64 {
	switch {
	case l.files[0].prefix != nil:
		return 0 // the prefix of the file tells, exactly
	case l.ended:
		return uint64(l.in.next)
	}
	return uint64(l.in.at)
}

// advance goes to the next line. The list has ended when there is none.
func (l *list) advance() error {
	before := l.record.hash
	first := l.kind == 0
	for {
		digits, err := l.in.read(&l.record)
		switch {
		case err == io.EOF && l.at+1 < len(l.files):
			l.at++
			if err := l.in.reopen(l.files[l.at].name, l.files[l.at].prefix); err != nil {
				return err
			}
			continue
		case err == io.EOF:
			l.ended = true
			return nil
		case err != nil:
			return err
		}
		kind, ok := kindOf(digits)
		switch {
		case !ok:
			return l.in.fault(errLine.Error())
		case first:
			l.kind = kind
			return nil
		case kind != l.kind:
			return l.in.fault(fmt.Sprintf("this is no %v hash, as the list began with: import the kinds into files of their own", l.kind))
		case bytes.Compare(before[:], l.hash[:]) > 0:
			return l.in.fault("this hash is below the one before it: get the list ordered by hash, or put it in order (its hashes have to be all in capitals, or none): LC_ALL=C sort -o FILE FILE")
		}
		return nil
	}
}

// lists is several lists as one.
type lists struct {
	all      []*list
	minCount uint64
}

// start opens all lists at a shard, and returns their kind.
func (s *lists) start(shard int) (kind breached.Kind, err error) {
	for _, l := range s.all {
		if err := l.start(shard); err != nil {
			return 0, err
		}
		switch {
		case l.kind == 0: // it is empty
		case kind == 0:
			kind = l.kind
		case kind != l.kind:
			return 0, l.in.fault(fmt.Sprintf("this is a list of %v hashes, and another one is of %v: import the kinds into files of their own", l.kind, kind))
		}
	}
	if kind == 0 {
		return 0, &listError{file: s.all[0].files[0].name, text: "there is no hash in it"}
	}
	return kind, nil
}

func (s *lists) close() error {
	var errs []error
	for _, l := range s.all {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

func (s *lists) position() (sum uint64) {
	for _, l := range s.all {
		sum += l.position()
	}
	return sum
}

// ErrTooMany says that what is imported cannot be hashes.
var ErrTooMany = errors.New("too many hashes begin alike: these are no hashes of passwords")

// Shard appends the keys of a shard; the shards are asked for in their order.
func (s *lists) Shard(shard int, keys []uint64) ([]uint64, error) {
	for {
		// The list with the lowest hash. There is mostly one.
		var low *list
		for _, l := range s.all {
			if !l.ended && (low == nil || bytes.Compare(l.hash[:], low.hash[:]) < 0) {
				low = l
			}
		}
		if low == nil {
			return keys, nil
		}
		at, key := breached.Shard(low.hash[:])
		if at > shard {
			return keys, nil
		}
		// What stands in several lists was seen as often as the largest count says: one list may be made of another.
		hash, count := low.hash, uint64(0)
		for _, l := range s.all {
			for !l.ended && l.hash == hash {
				count = max(count, l.count)
				if err := l.advance(); err != nil {
					return nil, err
				}
			}
		}
		if at < shard {
			continue // of a list that cannot be read from its middle
		}
		if count < s.minCount {
			continue
		}
		if len(keys) == maxShard {
			return nil, ErrTooMany
		}
		keys = append(keys, key)
	}
}

// identify writes what the lists are, so that an import is only resumed with the same ones. It is false if that cannot be told.
func (s *lists) identify(w io.Writer) (bool, error) {
	for _, l := range s.all {
		if !l.regular {
			return false, nil
		}
		for _, f := range l.files {
			path, err := filepath.Abs(f.name)
			if err != nil {
				return false, fmt.Errorf("finding list: %w", err)
			}
			info, err := os.Stat(f.name)
			if err != nil {
				return false, fmt.Errorf("looking at list: %w", err)
			}
			stat := info.Sys().(*syscall.Stat_t)
			fmt.Fprintf(w, "%q %s %d %d %d %d\n", path, f.prefix, stat.Dev, stat.Ino, info.Size(), info.ModTime().UnixNano())
		}
	}
	return true, nil
}
