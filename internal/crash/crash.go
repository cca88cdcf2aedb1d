// Package crash says what a power cut could leave of the files that a real program writes.
//
// What: a Trace records the system calls by which a program changes a folder, in order (trace.go), and At answers with one of the
// states in which that folder could be found if the power had been cut at a point of the recording. A test asks for thousands and
// holds each against what the program had acknowledged by then.
//
// How: the program is the real one, untouched: its calls are read with ptrace(2), as strace does. There is no interface between it and
// the kernel that only tests would use, so what is tested is what is shipped.
//
// What the simulated disk does with what was not synced, each decided by chance and for itself:
//
//   - A write is there whole, not at all, cut off, as zeros (the size reached the disk, the data did not), or as a mixture of
//     sectors. fsync and fdatasync of the file end that.
//   - A name that was made, removed or changed in a folder is as before or as after, in any combination with others, whatever was synced of
//     the file itself. fsync of the folder ends that. A rename is one step, also between two folders, as in every journaling file
//     system.
//   - A call that has not returned may have had its effect, and a sync that has not returned none.
//
// That is less than ext4, XFS or btrfs keep, which write their journals in order; POSIX promises no more.
//
// Killing the program loses nothing that it wrote: the kernel has it. A Trace can go on with another run after that, and the power can be
// cut in that one, as it can happen to a machine.
//
// Not solved: disks that acknowledge a flush early; permissions and times; shared memory maps, which a Trace refuses.
//
// For tests only. Linux 5.3 and later; a process without CAP_SYS_PTRACE cannot follow one that may not be dumped.
package crash

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const sector = 512

type kind int

const (
	nothing  kind = iota // a call that failed, or is still under way
	create               // name in dir is node
	remove               // name in dir is gone
	rename               // name in dir becomes name2 in dir2
	write                // data at off of node
	truncate             // node has off bytes
	sync                 // node, a file or a folder
	ack                  // the program said name, or exited: "exit 0"
)

type op struct {
	kind        kind
	node        int
	dir, dir2   int
	name, name2 string
	off         int64
	data        []byte
}

func (o op) namespace() bool { return o.kind == create || o.kind == remove || o.kind == rename }

// Trace is a recording, over one or more runs. A folder and a file are a node: a number.
type Trace struct {
	root    string
	folders map[int]bool
	base    tree // as it was at the beginning: all of it durable
	live    tree // as it is now
	ops     []op
	ends    []int // of each op: the one that makes it durable, or len(ops); see settle
}

type tree struct {
	entries map[int]map[string]int // of folders; the root is 0
	content map[int][]byte         // of files
}

func (t tree) clone() tree {
	c := tree{map[int]map[string]int{}, maps.Clone(t.content)}
	for dir, entries := range t.entries {
		c.entries[dir] = maps.Clone(entries)
	}
	return c
}

// files returns what can be reached, by path. A folder is a path that ends in a slash.
func (t tree) files() map[string][]byte {
	files := map[string][]byte{}
	var walk func(dir int, path string)
	walk = func(dir int, path string) {
		for name, node := range t.entries[dir] {
			if _, folder := t.entries[node]; folder {
				files[path+name+"/"] = nil
				walk(node, path+name+"/")
			} else {
				files[path+name] = t.content[node]
			}
		}
	}
	walk(0, "")
	return files
}

// New begins a recording of a folder, of which everything that is there counts as durable.
func New(root string) (*Trace, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, fmt.Errorf("beginning a trace: %w", err)
	}
	t := &Trace{root: root, folders: map[int]bool{0: true}, live: tree{map[int]map[string]int{0: {}}, map[int][]byte{}}}
	files, err := read(root)
	if err != nil {
		return nil, fmt.Errorf("beginning a trace: %w", err)
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		dir, name, _ := t.find(strings.TrimSuffix(path, "/"))
		node := t.node(strings.HasSuffix(path, "/"))
		t.live.entries[dir][name] = node
		if !t.folders[node] {
			t.live.content[node] = files[path]
		}
	}
	t.base = t.live.clone()
	return t, nil
}

// node makes a new node.
func (t *Trace) node(folder bool) int {
	n := len(t.live.entries) + len(t.live.content)
	if folder {
		t.folders[n] = true
		t.live.entries[n] = map[string]int{}
	} else {
		t.live.content[n] = nil
	}
	return n
}

// find looks a path up that is relative to the root: its folder, its last part, and its node or -1.
func (t *Trace) find(path string) (dir int, name string, node int) {
	parts := strings.Split(filepath.Clean(path), "/")
	for i, part := range parts {
		next, there := t.live.entries[dir][part]
		if part == "." {
			next, there = dir, true
		}
		if i == len(parts)-1 {
			if !there {
				next = -1
			}
			return dir, part, next
		}
		if !there || !t.folders[next] {
			return -1, part, -1
		}
		dir = next
	}
	return -1, "", -1
}

// read returns the files below a folder, in the form of tree.files.
func read(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			files[rel+"/"] = nil
		case entry.Type().IsRegular():
			files[rel], err = os.ReadFile(path)
		}
		return err
	})
	return files, err
}

// Check compares what the recording says is in the folder now with what is: whether no call was overlooked.
func (t *Trace) Check() error {
	want, err := read(t.root)
	if err != nil {
		return fmt.Errorf("checking a trace: %w", err)
	}
	got := t.live.files()
	for path, content := range want {
		if there, ok := got[path]; !ok || !bytes.Equal(there, content) {
			return fmt.Errorf("checking a trace: it has %d bytes in %s (%v), there are %d", len(there), path, ok, len(content))
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			return fmt.Errorf("checking a trace: it has %s, which is not there", path)
		}
	}
	return nil
}

// Len is how many points there are at which the power can be cut: At takes 0 to Len.
func (t *Trace) Len() int { return len(t.ops) }

// Without returns the recording as it would be of a program that does not sync: files or folders. A test that does not fail on it
// proves nothing.
func (t *Trace) Without(folders bool) *Trace {
	without := *t
	without.ops, without.ends = slices.Clone(t.ops), nil
	for i, o := range without.ops {
		if o.kind == sync && t.folders[o.node] == folders {
			without.ops[i].kind = nothing
		}
	}
	return &without
}

// State is what a power cut left.
type State struct {
	Files map[string][]byte // by path from the root; a folder's path ends in a slash
	Said  []string          // what the program had acknowledged before
}

// At returns a state in which the folder can be found if the power is cut after the first n system calls.
func (t *Trace) At(r *rand.Rand, n int) State {
	var s State
	t.settle()
	// Often all of it or nothing survives, and often some; each survives for itself.
	survives := []float64{0, 1, 0.5, r.Float64()}[r.IntN(4)]
	disk := t.base.clone()
	for i, o := range t.ops[:n] {
		durable := t.ends[i] < n
		sure := durable || r.Float64() < survives
		switch {
		case o.kind == ack:
			s.Said = append(s.Said, o.name)
		case o.kind == write && (durable || survives == 1):
			disk.write(o.node, o.off, o.data)
		case o.kind == write:
			disk.tear(r, o)
		case o.kind == truncate && sure:
			disk.truncate(o.node, o.off)
		case o.namespace() && sure:
			disk.rename(o, t.folders[o.node])
		}
	}
	s.Files = disk.files()
	return s
}

// settle finds out which sync makes which call durable.
func (t *Trace) settle() {
	if len(t.ends) == len(t.ops) {
		return
	}
	t.ends = make([]int, len(t.ops))
	for i, o := range t.ops {
		t.ends[i] = len(t.ops)
		if o.kind != sync {
			continue
		}
		for j, earlier := range t.ops[:i] {
			covers := !t.folders[o.node] && (earlier.kind == write || earlier.kind == truncate) && earlier.node == o.node ||
				t.folders[o.node] && earlier.namespace() && (earlier.dir == o.node || earlier.kind == rename && earlier.dir2 == o.node)
			if covers && t.ends[j] == len(t.ops) {
				t.ends[j] = i
			}
		}
	}
}

func (t *tree) rename(o op, folder bool) {
	switch o.kind {
	case create:
		t.enter(o.dir, o.name, o.node, folder)
	case remove:
		if t.entries[o.dir][o.name] == o.node {
			delete(t.entries[o.dir], o.name)
		}
	case rename: // from wherever it is, if one before this was lost
		for _, entries := range t.entries {
			maps.DeleteFunc(entries, func(_ string, node int) bool { return node == o.node })
		}
		t.enter(o.dir2, o.name2, o.node, folder)
	}
}

func (t *tree) enter(dir int, name string, node int, folder bool) {
	if t.entries[dir] == nil {
		t.entries[dir] = map[string]int{}
	}
	t.entries[dir][name] = node
	if folder && t.entries[node] == nil {
		t.entries[node] = map[string]int{}
	}
}

func (t *tree) write(node int, off int64, data []byte) {
	if len(data) == 0 {
		return
	}
	size := max(int64(len(t.content[node])), off+int64(len(data)))
	b := make([]byte, size)
	copy(b, t.content[node])
	copy(b[off:], data)
	t.content[node] = b
}

func (t *tree) truncate(node int, size int64) {
	b := make([]byte, size)
	copy(b, t.content[node])
	t.content[node] = b
}

// tear does what a disk may do with a write that was not synced.
func (t *tree) tear(r *rand.Rand, o op) {
	switch r.IntN(5) {
	case 0: // nothing of it
	case 1:
		t.write(o.node, o.off, o.data)
	case 2:
		t.write(o.node, o.off, o.data[:r.IntN(len(o.data)+1)])
	case 3:
		t.truncate(o.node, max(int64(len(t.content[o.node])), o.off+int64(len(o.data))))
	case 4:
		t.truncate(o.node, max(int64(len(t.content[o.node])), o.off+int64(len(o.data))))
		for at := int64(0); at < int64(len(o.data)); {
			n := min(sector-(o.off+at)%sector, int64(len(o.data))-at)
			if r.IntN(2) == 0 {
				t.write(o.node, o.off+at, o.data[at:at+n])
			}
			at += n
		}
	}
}

// Put writes the state into a folder, in place of what is in it.
func (s State) Put(dir string) error {
	old, err := os.ReadDir(dir)
	for _, entry := range old {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	for _, path := range slices.Sorted(maps.Keys(s.Files)) {
		to := filepath.Join(dir, path)
		if strings.HasSuffix(path, "/") {
			err = errors.Join(err, os.Mkdir(to, 0o700))
		} else {
			err = errors.Join(err, os.WriteFile(to, s.Files[path], 0o600))
		}
	}
	if err != nil {
		return fmt.Errorf("putting a state: %w", err)
	}
	return nil
}
