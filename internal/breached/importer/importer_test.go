package importer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
)

// hashes returns n hashes of a kind, in their order. Those of different seeds differ.
func hashes(kind breached.Kind, seed string, n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		sum := sha1.Sum(binary.BigEndian.AppendUint64([]byte(seed), uint64(i)))
		all[i] = sum[:kind.Size()]
	}
	slices.SortFunc(all, bytes.Compare)
	return all
}

// text is a list as the downloader writes it.
func text(all [][]byte) string {
	var b strings.Builder
	for i, h := range all {
		fmt.Fprintf(&b, "%X:%d\r\n", h, i%7+1)
	}
	return b.String()
}

func write1(t testing.TB, path, contents string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(contents), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string) *breached.File {
	t.Helper()
	f, err := breached.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Verify(func(int) error { return nil }); err != nil {
		t.Error(err)
	}
	return f
}

func wantHeld(t testing.TB, f *breached.File, all [][]byte) {
	t.Helper()
	for _, h := range all {
		if held, err := f.Holds(h); err != nil || !held {
			t.Fatalf("%X is not held (error: %v)", h, err)
		}
	}
}

// strangers counts how many of n hashes that were never imported are held all the same.
func strangers(t testing.TB, f *breached.File, n int) (held int) {
	t.Helper()
	for i := range n {
		sum := sha1.Sum(binary.BigEndian.AppendUint64([]byte("stranger"), uint64(i)))
		yes, err := f.Holds(sum[:f.Kind().Size()])
		if err != nil {
			t.Fatal(err)
		}
		if yes {
			held++
		}
	}
	return held
}

// All that is imported is held, and of 200,000 others not more than is promised, within six standard deviations: by chance that fails once in 500 million
// sets of hashes, and these are always the same.
func TestAllHeldAndFewOthers(t *testing.T) {
	for _, kind := range []breached.Kind{breached.SHA1, breached.NTLM} {
		for _, bits := range []int{8, 16} {
			t.Run(fmt.Sprintf("%v %d", kind, bits), func(t *testing.T) {
				all := hashes(kind, "known", 100_000)
				out := filepath.Join(t.TempDir(), "out")
				r, err := Run(t.Context(), Options{Output: out, Lists: []string{write1(t, out+".txt", text(all))}, Bits: bits})
				if err != nil {
					t.Fatal(err)
				}
				f := open(t, out)
				if f.Kind() != kind || r.Entries != 100_000 || f.Header().Entries != 100_000 || f.Header().Bits != bits || r.Resumed != 0 {
					t.Errorf("got %+v, file says %+v", r, f.Header())
				}
				wantHeld(t, f, all)
				const n = 200_000
				mean := float64(n) * f.Header().FalseRate()
				deviation := 6 * math.Sqrt(mean)
				if held := float64(strangers(t, f, n)); held < mean-deviation || held > mean+deviation {
					t.Errorf("%v of %d that were not imported are held, want %v ± %v", held, n, mean, deviation)
				}
				info, err := os.Stat(out)
				if err != nil || info.Mode() != 0o644 || uint64(info.Size()) != f.Header().Size {
					t.Errorf("mode %v, size %d, header says %d (error: %v)", info.Mode(), info.Size(), f.Header().Size, err)
				}
				if _, err := os.Stat(out + ".part"); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the part is left: %v", err)
				}
			})
		}
	}
}

func TestForms(t *testing.T) {
	a, b, c := strings.Repeat("0a", 20), strings.Repeat("5B", 20), strings.Repeat("ff", 20)
	n := strings.Repeat("3c", 16)
	for _, tc := range []struct {
		name     string
		files    map[string]string
		lists    []string // default: all files
		minCount uint64
		held     []string
		not      []string
	}{
		{name: "newlines of two kinds, both cases", files: map[string]string{"x": a + ":1\r\n" + b + ":2\n" + c + ":3"}, held: []string{a, b, c}},
		{name: "no counts", files: map[string]string{"x": a + "\n" + b + "\n"}, held: []string{a, b}, not: []string{c}},
		{name: "empty lines and blanks", files: map[string]string{"x": "\n" + a + ":1 \r\n\r\n\n" + b + "\t\n\n"}, held: []string{a, b}},
		{name: "NTLM", files: map[string]string{"x": n + ":4\n"}, held: []string{n}, not: []string{a[:32]}},
		{name: "padding has no count", files: map[string]string{"x": a + ":0\n" + b + ":1\n"}, held: []string{b}, not: []string{a}},
		{name: "seen often enough", files: map[string]string{"x": a + ":9\n" + b + ":10\n" + c + "\n"}, minCount: 10, held: []string{b}, not: []string{a, c}},
		{name: "the same twice", files: map[string]string{"x": a + ":1\n" + a + ":5\n" + b + ":1\n"}, minCount: 2, held: []string{a}, not: []string{b}},
		{name: "two lists", files: map[string]string{"x": a + ":1\n" + c + ":1\n", "y": b + ":1\n" + c + ":1\n"}, held: []string{a, b, c}},
		{name: "an empty list beside", files: map[string]string{"x": a + ":1\n", "y": ""}, held: []string{a}},
		{name: "a count in one list is enough", files: map[string]string{"x": a + ":1\n", "y": a + ":7\n"}, minCount: 7, held: []string{a}},
		{name: "folder", files: map[string]string{"d/0A0A0.txt": a[5:] + ":1\r\n", "d/5b5b5.txt": b[5:], "d/FFFFF.txt": c[5:] + ":2"}, lists: []string{"d"}, held: []string{a, b, c}},
		{name: "folder with an empty range", files: map[string]string{"d/0A0A0.txt": a[5:] + ":1\r\n", "d/0A0A1.txt": "", "d/FFFFF.txt": c[5:] + ":2"}, lists: []string{"d"}, held: []string{a, c}},
		{name: "folder of files without an ending", files: map[string]string{"d/0A0A0": a[5:] + ":1\r\n", "d/FFFFF": c[5:] + ":2"}, lists: []string{"d"}, held: []string{a, c}},
		{name: "folder of NTLM", files: map[string]string{"d/3C3C3.txt": n[5:] + ":1\n"}, lists: []string{"d"}, held: []string{n}},
		{name: "range files", files: map[string]string{"0A0A0.txt": a[5:] + ":1\n", "FFFFF.txt": c[5:] + ":1\n"}, lists: []string{"FFFFF.txt", "0A0A0.txt"}, held: []string{a, c}},
		{name: "a folder, a range file and a list", files: map[string]string{"d/0A0A0.txt": a[5:] + ":1\n", "FFFFF.txt": c[5:] + ":1\n", "x": b}, lists: []string{"x", "FFFFF.txt", "d"}, held: []string{a, b, c}},
		{name: "whole hashes under a range's name", files: map[string]string{"0A0A0.txt": a + ":1\n" + b + ":1\n"}, held: []string{a, b}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, contents := range tc.files {
				write1(t, filepath.Join(dir, name), contents)
			}
			lists := tc.lists
			if lists == nil {
				for name := range tc.files {
					lists = append(lists, name)
				}
			}
			lists = slices.Clone(lists)
			for i := range lists {
				lists[i] = filepath.Join(dir, lists[i])
			}
			out := filepath.Join(dir, "out")
			r, err := Run(t.Context(), Options{Output: out, Lists: lists, Bits: 16, MinCount: tc.minCount, Incomplete: true})
			if err != nil {
				t.Fatal(err)
			}
			if int(r.Entries) != len(tc.held) {
				t.Errorf("%d entries, want %d", r.Entries, len(tc.held))
			}
			f := open(t, out)
			for _, h := range tc.held {
				if held, err := f.Holds(unhex(h)); !held || err != nil {
					t.Errorf("%s is not held (error: %v)", h, err)
				}
			}
			for _, h := range tc.not {
				if held, err := f.Holds(unhex(h)); held || err != nil {
					t.Errorf("%s is held (error: %v)", h, err)
				}
			}
		})
	}
}

func unhex(text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return b
}

// What is wrong is named with its place; the line itself is not repeated. What was in force stays.
func TestFaults(t *testing.T) {
	a, b := strings.Repeat("0a", 20), strings.Repeat("5B", 20)
	n := strings.Repeat("3c", 16)
	for _, tc := range []struct {
		name     string
		files    map[string]string
		lists    []string
		complete bool
		want     string // $ stands for the folder
		is       error
	}{
		{name: "out of order", files: map[string]string{"x": a + ":1\n\n" + b + ":1\n" + a + ":1\n"}, want: "$/x:4: this hash is below the one before it: get the list ordered by hash, or put it in order (its hashes have to be all in capitals, or none): LC_ALL=C sort -o FILE FILE"},
		{name: "a password", files: map[string]string{"x": a + ":1\nSecret123\n"}, want: "$/x:2: this is no line of the form HASH:COUNT, with a hash of 40 (SHA-1) or 32 (NTLM) hexadecimal digits"},
		{name: "no digits", files: map[string]string{"x": strings.Repeat("zz", 20) + ":1\n"}, want: "$/x:1: this is no line of the form HASH:COUNT, with a hash of 40 (SHA-1) or 32 (NTLM) hexadecimal digits"},
		{name: "no count", files: map[string]string{"x": a + ":\n"}, want: "$/x:1: this is no line of the form HASH:COUNT, with a hash of 40 (SHA-1) or 32 (NTLM) hexadecimal digits"},
		{name: "a count that is none", files: map[string]string{"x": a + ":1e3\n"}, want: "$/x:1: this is no line of the form HASH:COUNT, with a hash of 40 (SHA-1) or 32 (NTLM) hexadecimal digits"},
		{name: "a line that does not end", files: map[string]string{"x": strings.Repeat("0a", 3<<20)}, want: "$/x: this is no line of the form HASH:COUNT, with a hash of 40 (SHA-1) or 32 (NTLM) hexadecimal digits"},
		{name: "two kinds in a list", files: map[string]string{"x": a + ":1\n" + n + ":1\n"}, want: "$/x:2: this is no SHA-1 hash, as the list began with: import the kinds into files of their own"},
		{name: "two kinds", files: map[string]string{"x": a + ":1\n", "y": n + ":1\n"}, lists: []string{"x", "y"}, want: "$/y:1: this is a list of NTLM hashes, and another one is of SHA-1: import the kinds into files of their own"},
		{name: "nothing", files: map[string]string{"x": "\n"}, want: "$/x: there is no hash in it"},
		{name: "no such list", want: "$/x: there is no such file or folder"},
		{name: "an empty folder", lists: []string{"."}, want: "$: this folder is empty"},
		{name: "something else in a folder", files: map[string]string{"d/0A0A0.txt": "", "d/etag.json": ""}, lists: []string{"d"}, want: "$/d/etag.json: a folder may hold only the downloader's range files, 00000.txt to FFFFF.txt: move this one elsewhere"},
		{name: "a range without its name", files: map[string]string{"x": a[5:] + ":1\n"}, want: "$/x:1: this hash lacks its first five digits, as in the downloader's range files, and the file's name, which is to be like 0A1B2.txt, does not tell them"},
		{name: "a range out of order", files: map[string]string{"d/0A0A0.txt": strings.Repeat("b", 35) + "\n" + strings.Repeat("a", 35) + "\n"}, lists: []string{"d"}, want: "$/d/0A0A0.txt:2: this hash is below the one before it: get the list ordered by hash, or put it in order (its hashes have to be all in capitals, or none): LC_ALL=C sort -o FILE FILE"},
		{name: "not all ranges", files: map[string]string{"d/0A0A0.txt": a[5:]}, lists: []string{"d"}, complete: true, want: "it seems to be incomplete: there are 1 of the 1048576 range files, 00000.txt to FFFFF.txt", is: ErrIncomplete},
		{name: "cut off", files: map[string]string{"x": text(hashes(breached.SHA1, "known", 500_000)[:450_000])}, complete: true, want: "it seems to be incomplete: only 0 hashes begin with E66, and on the average 109 do with each other beginning", is: ErrIncomplete},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, contents := range tc.files {
				write1(t, filepath.Join(dir, name), contents)
			}
			lists := slices.Clone(tc.lists)
			if lists == nil {
				lists = []string{"x"}
			}
			for i := range lists {
				lists[i] = filepath.Join(dir, lists[i])
			}
			out := write1(t, filepath.Join(t.TempDir(), "out"), "in force")
			_, err := Run(t.Context(), Options{Output: out, Lists: lists, Bits: 16, Incomplete: !tc.complete})
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), dir, "$"); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if !errors.Is(err, cmp.Or(tc.is, ErrList)) {
				t.Errorf("%v is no %v", err, cmp.Or(tc.is, ErrList))
			}
			if got, err := os.ReadFile(out); string(got) != "in force" {
				t.Errorf("what was in force is gone: %q, %v", got, err)
			}
		})
	}
}

// without returns a file's bytes but for the header, which tells the time.
func without(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[4096:]
}

func TestResume(t *testing.T) {
	all := hashes(breached.SHA1, "known", 450_000)
	for _, form := range []string{"file", "two files", "folder"} {
		t.Run(form, func(t *testing.T) {
			dir := t.TempDir()
			var names []string
			switch form {
			case "file":
				names = []string{write1(t, filepath.Join(dir, "list"), text(all))}
			case "two files":
				names = []string{write1(t, filepath.Join(dir, "1"), text(all)), write1(t, filepath.Join(dir, "2"), text(hashes(breached.SHA1, "own", 1000)))}
			case "folder":
				ranges := map[string]string{}
				for i := 0; i < len(all); i += 50 {
					h := all[i]
					digits := fmt.Sprintf("%X", h)
					ranges[digits[:5]] += digits[5:] + ":3\n"
				}
				for prefix, contents := range ranges {
					write1(t, filepath.Join(dir, "d", prefix+".txt"), contents)
				}
				names = []string{filepath.Join(dir, "d")}
			}
			whole, out := filepath.Join(dir, "whole"), filepath.Join(dir, "out")
			o := Options{Output: whole, Lists: names, Bits: 16, Incomplete: form == "folder"}
			if _, err := Run(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			o.Output = out
			interrupted := func(at int) int {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				last := 0
				o := o
				o.Progress = func(p Progress) {
					if last = p.Shards; p.Shards >= at {
						cancel()
					}
				}
				if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
					t.Fatalf("interrupted: %v", err)
				}
				if _, err := breached.Open(out + ".part"); !errors.Is(err, breached.ErrUnfinished) {
					t.Errorf("opening the part: %v", err)
				}
				return last
			}
			was := 0
			for _, at := range []int{1, 700, 701, 3000, 4090} {
				last := interrupted(at)
				if last < was {
					t.Errorf("begun anew: %d shards after %d", last, was)
				}
				was = last
			}
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if r.Resumed < 4090 {
				t.Errorf("resumed at %d", r.Resumed)
			}
			if !bytes.Equal(without(t, out), without(t, whole)) {
				t.Error("the file is not as one that was made without a break")
			}
			open(t, out)

			// A part of which the disk lost something counts as far as it is whole; one of other lists, or with other options, not at all.
			interrupted(2000)
			part := out + ".part"
			b, err := os.ReadFile(part)
			if err != nil {
				t.Fatal(err)
			}
			e, err := breached.DecodeEntry(b, 100, 16, uint64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			b[e.Offset] ^= 1
			write1(t, part, string(b))
			if r, err = Run(t.Context(), o); err != nil || r.Resumed != 100 {
				t.Errorf("damaged at 100: resumed at %d, %v", r.Resumed, err)
			}
			interrupted(2000)
			other := o
			other.MinCount = 2
			if r, err = Run(t.Context(), other); err != nil || r.Resumed != 0 {
				t.Errorf("other options: resumed at %d, %v", r.Resumed, err)
			}
			interrupted(2000)
			touched := names[0]
			if form == "folder" {
				touched = filepath.Join(touched, fmt.Sprintf("%X.txt", all[0])[:5]+".txt")
			}
			f, err := os.OpenFile(touched, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(f, "\n"); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if r, err = Run(t.Context(), o); err != nil || r.Resumed != 0 {
				t.Errorf("other list: resumed at %d, %v", r.Resumed, err)
			}
			if !bytes.Equal(without(t, out), withoutConsumed(without(t, whole), without(t, out))) {
				t.Error("the file is not as one that was made without a break")
			}
		})
	}
}

// A list that lacks something is read whole before that is seen. Who then says that it is meant has not to wait again.
func TestResumeOfAllShards(t *testing.T) {
	dir := t.TempDir()
	all := slices.DeleteFunc(hashes(breached.SHA1, "known", 450_000), func(h []byte) bool { shard, _ := breached.Shard(h); return shard == 5 })
	o := Options{Output: filepath.Join(dir, "out"), Lists: []string{write1(t, filepath.Join(dir, "list"), text(all))}, Bits: 16}
	if _, err := Run(t.Context(), o); !errors.Is(err, ErrIncomplete) {
		t.Fatal(err)
	}
	o.Incomplete = true
	r, err := Run(t.Context(), o)
	if err != nil || r.Resumed != breached.Shards || r.Header.Entries != uint64(len(all)) {
		t.Errorf("%+v, %v", r, err)
	}
	open(t, o.Output)
}

// withoutConsumed is a where the entries' notes about the lists, and the checksums over them, are b's.
func withoutConsumed(a, b []byte) []byte {
	a = bytes.Clone(a)
	for at := 0; at < breached.Shards*64; at += 64 {
		copy(a[at+32:at+40], b[at+32:at+40])
		copy(a[at+60:at+64], b[at+60:at+64])
	}
	return a
}

// Low hashes in the middle of a list have the bisection go astray, past a quarter of a million lines that were never read.
func TestResumeOfDisorder(t *testing.T) {
	dir := t.TempDir()
	all := hashes(breached.SHA1, "known", 500_000)
	disorder := slices.Concat(all[:250_000], all[:1000], all[250_000:])
	list := write1(t, filepath.Join(dir, "list"), text(disorder))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := Options{Output: filepath.Join(dir, "out"), Lists: []string{list}, Bits: 8, Progress: func(p Progress) {
		if p.Shards > 10 {
			cancel()
		}
	}}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	_, err := Run(t.Context(), o)
	if !errors.Is(err, ErrList) || !strings.HasPrefix(err.Error(), list+":250001: ") {
		t.Errorf("got %v", err)
	}
}

// The lists may be pipes, which are read once.
func TestPipe(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	all := hashes(breached.NTLM, "known", 5000)
	done := make(chan error)
	go func() { done <- os.WriteFile(pipe, []byte(text(all)), 0) }()
	out := filepath.Join(dir, "out")
	if _, err := Run(t.Context(), Options{Output: out, Lists: []string{pipe}, Bits: 16}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantHeld(t, open(t, out), all)
}

func TestOneAtATime(t *testing.T) {
	dir := t.TempDir()
	list := write1(t, filepath.Join(dir, "list"), text(hashes(breached.SHA1, "known", 100)))
	o := Options{Output: filepath.Join(dir, "out"), Lists: []string{list}, Bits: 16}
	var second error
	first := o
	first.Progress = func(p Progress) {
		if p.Shards == 1 {
			_, second = Run(t.Context(), o)
		}
	}
	if _, err := Run(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(second, ErrBusy) {
		t.Errorf("the second import: %v", second)
	}
}

// Whoever made the file that is to be put in force could change it there.
func TestAnothersPart(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"writable":    func(path string) error { return os.Chmod(path, 0o666) },
		"another's":   func(path string) error { return os.Chown(path, 65534, 65534) },
		"second name": func(path string) error { return os.Link(path, path+".other") },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "another's" && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			dir := t.TempDir()
			o := Options{Output: filepath.Join(dir, "out"), Lists: []string{write1(t, filepath.Join(dir, "list"), text(hashes(breached.SHA1, "known", 100)))}, Bits: 16}
			planted := write1(t, o.Output+suffix, "planted")
			if err := make(planted); err != nil {
				t.Fatal(err)
			}
			if _, err := Run(t.Context(), o); !errors.Is(err, ErrForeign) {
				t.Errorf("%v", err)
			}
			if _, err := os.Stat(o.Output); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is in force: %v", err)
			}
		})
	}
}

// The room is given back, and what was in force stays.
func TestDiskFull(t *testing.T) {
	out := write1(t, filepath.Join(t.TempDir(), "out"), "in force")
	p, err := openPart(out, breached.Header{Kind: breached.SHA1, Bits: 16}, true)
	if err != nil {
		t.Fatal(err)
	}
	p.writeAt = func(b []byte, at int64) (int, error) {
		if at < 1<<20 {
			return p.file.WriteAt(b, at)
		}
		return 0, &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	}
	err = write(t.Context(), p, many{}, func() uint64 { return 0 }, nil, true)
	if !errors.Is(err, ErrDiskFull) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(out + ".part"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the part takes room still: %v", err)
	}
	if got, err := os.ReadFile(out); string(got) != "in force" {
		t.Errorf("what was in force is gone: %q, %v", got, err)
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}

// many is a source with a thousand keys in each shard.
type many struct{}

func (many) Shard(shard int, keys []uint64) ([]uint64, error) {
	for i := range uint64(1000) {
		keys = append(keys, uint64(shard)<<32|i)
	}
	return keys, nil
}

// From whichever shard a list is read, the lines are those that reading it from its beginning gives.
func TestSeek(t *testing.T) {
	all := hashes(breached.SHA1, "known", 1500)
	for _, form := range []func([][]byte) string{text, func(all [][]byte) string {
		return "\n\n" + strings.ReplaceAll(text(all), "\r\n", "\n\n\n") + "\n"
	}, func(all [][]byte) string { return strings.TrimSuffix(text(all), "\r\n") }} {
		name := write1(t, filepath.Join(t.TempDir(), "list"), form(all))
		l := &list{files: []listFile{{name: name}}, regular: true}
		for shard := 0; shard < breached.Shards; shard += 5 {
			if err := l.start(shard); err != nil {
				t.Fatal(err)
			}
			want, _ := slices.BinarySearchFunc(all, []byte{byte(shard >> 4), byte(shard << 4)}, bytes.Compare)
			if l.ended != (want == len(all)) || !l.ended && !bytes.Equal(l.hash[:], all[want]) {
				t.Fatalf("shard %03X: ended %v, hash %X, want number %d", shard, l.ended, l.hash, want)
			}
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	for _, line := range []string{strings.Repeat("0a", 20) + ":1", strings.Repeat("5B", 16) + ":18446744073709551616", ":", "", strings.Repeat("f", 35) + ":3\r", "0:0:0", strings.Repeat("é", 20)} {
		f.Add([]byte(line), []byte(""))
		f.Add([]byte(line), []byte("0A1B2"))
	}
	f.Fuzz(func(t *testing.T, line, prefix []byte) {
		if len(prefix) != 0 {
			if len(prefix) != prefixDigits || len(bytes.Trim(prefix, "0123456789ABCDEF")) > 0 {
				t.Skip()
			}
		}
		var r record
		digits, err := parseLine(line, prefix, &r)
		// The same, written plainly.
		hash, count, counted := strings.Cut(strings.TrimRight(string(line), " \t\r"), ":")
		want, hexErr := hex.DecodeString(string(prefix) + hash)
		valid := hexErr == nil && len(want) > 0 && len(want) <= 20
		if counted {
			valid = valid && len(count) > 0 && len(count) <= 18 && strings.Trim(count, "0123456789") == ""
		} else {
			count = "1"
		}
		if valid != (err == nil) {
			t.Fatalf("valid %v, error %v", valid, err)
		}
		if !valid {
			return
		}
		if digits != 2*len(want) || !bytes.Equal(r.hash[:len(want)], want) || strings.TrimLeft(count, "0") != strings.TrimLeft(fmt.Sprint(r.count), "0") {
			t.Fatalf("%d digits, %X, %d", digits, r.hash, r.count)
		}
	})
}

func BenchmarkImport(b *testing.B) {
	name := write1(b, filepath.Join(b.TempDir(), "list"), text(hashes(breached.SHA1, "known", 2_000_000)))
	for b.Loop() {
		if _, err := Run(b.Context(), Options{Output: name + ".out", Lists: []string{name}, Bits: 16}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(2e6*float64(b.N)/b.Elapsed().Seconds(), "hashes/s")
}
