package refusal

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var sample = Record{Time: time.Unix(1700000000, 42).UTC(), Account: "alice", Policy: "default", Rules: []string{"length", "banned"}}

func file(t *testing.T) string { return filepath.Join(t.TempDir(), "refusals") }

func TestAppend(t *testing.T) {
	path := file(t)
	audited := sample
	audited.Audit, audited.Probe = true, true
	if err := Append(path, sample, audited); err != nil {
		t.Fatal(err)
	}
	if err := Append(path, sample); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	records, whole, nonsense := Parse(b)
	if want := []Record{sample, audited, sample}; !reflect.DeepEqual(records, want) || whole != len(b) || nonsense != 0 {
		t.Errorf("came back as %+v, %d of %d bytes, %d lines of nonsense", records, whole, len(b), nonsense)
	}
}

// Whatever stands in the file's place is neither written nor waited for.
func TestForeign(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(path+".target", path) },
		"link loop": func(path string) error { return os.Symlink(path, path) },
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"folder":    func(path string) error { return os.Mkdir(path, 0o700) },
		"second name": func(path string) error {
			return errors.Join(os.WriteFile(path+".other", nil, 0o600), os.Link(path+".other", path))
		},
		"writable": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o620)) },
		"another's": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 65534, 65534))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "another's" && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			path := file(t)
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			if err := Append(path, sample); !errors.Is(err, ErrForeign) {
				t.Errorf("appending: %v", err)
			}
			if _, err := Take(path); !errors.Is(err, ErrForeign) {
				t.Errorf("taking: %v", err)
			}
			if _, err := Read(path, 0); !errors.Is(err, ErrForeign) && name != "pipe" {
				t.Errorf("reading: %v", err)
			}
			for _, other := range []string{path + ".target", path + ".other"} {
				if info, err := os.Stat(other); err == nil && info.Size() > 0 {
					t.Errorf("%s was written", other)
				}
			}
		})
	}
	if err := Append(filepath.Join(t.TempDir(), "missing", "refusals"), sample); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

func TestFull(t *testing.T) {
	path := file(t)
	long := sample
	long.Account = strings.Repeat("a", 4*maxAccount)
	written := 0
	for ; ; written++ {
		err := Append(path, long)
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil || written > MaxSize/maxAccount {
			t.Fatalf("after %d records: %v", written, err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	records, _, _ := Parse(b)
	if len(b) > MaxSize || len(records) != written || len(records[0].Account) != maxAccount {
		t.Errorf("%d bytes, %d of %d records", len(b), len(records), written)
	}
}

// Any domain user can have Samba ask about passwords of his choice under names of his choice, which JSON makes six times as long. That is to leave
// room for what people really tried.
func TestProbesLeaveRoom(t *testing.T) {
	path := file(t)
	probe := sample
	probe.Probe, probe.Account = true, strings.Repeat("<", maxAccount)
	for range MaxSize / maxAccount {
		if err := Append(path, probe); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	if err := Append(path, probe); !errors.Is(err, ErrFull) {
		t.Errorf("one probe more: %v", err)
	}
	for range 1000 {
		if err := Append(path, sample); err != nil {
			t.Fatalf("a real one: %v", err)
		}
	}
}

// A line that was torn, by a full disk, spoils no other.
func TestAppendAfterTorn(t *testing.T) {
	path := file(t)
	if err := os.WriteFile(path, []byte("\n{\"time\":"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Append(path, sample); err != nil {
		t.Fatal(err)
	}
	b, err := Read(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if records, _, nonsense := Parse(b); len(records) != 1 || nonsense != 1 {
		t.Errorf("%d records, %d lines of nonsense", len(records), nonsense)
	}
}

// Many hooks write at once, and none into another's line.
func TestAppendAtOnce(t *testing.T) {
	path := file(t)
	var hooks sync.WaitGroup
	const each, many = 50, 16
	for range many {
		hooks.Go(func() {
			for range each {
				if err := Append(path, sample); err != nil {
					t.Error(err)
				}
			}
		})
	}
	hooks.Wait()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if records, _, nonsense := Parse(b); len(records) != each*many || nonsense != 0 {
		t.Errorf("%d records, %d lines of nonsense", len(records), nonsense)
	}
}

func TestParse(t *testing.T) {
	const good = `{"time":"2023-11-14T22:13:20Z","account":"alice","policy":"default","rules":["length"]}`
	for _, c := range []struct {
		name, text        string
		records, nonsense int
		rest              int // bytes that are no whole line yet
	}{
		{"nothing", "", 0, 0, 0},
		{"empty lines", "\n\n\n", 0, 0, 0},
		{"one", "\n" + good + "\n", 1, 0, 0},
		{"still being written", "\n" + good + "\n\n" + good[:20], 1, 0, 20},
		{"torn, and another behind it", "\n" + good[:20] + "\n" + good + "\n", 1, 1, 0},
		{"no JSON", "garbage\n" + good + "\n", 1, 1, 0},
		{"zeros", strings.Repeat("\x00", 500) + "\n" + good + "\n", 1, 1, 0},
		{"another shape", "[]\n\"x\"\n7\nnull\n", 0, 4, 0},
		{"no time", strings.Replace(good, "2023-11-14T22:13:20Z", "0001-01-01T00:00:00Z", 1) + "\n", 0, 1, 0},
		{"no rules", strings.Replace(good, `"length"`, "", 1) + "\n", 0, 1, 0},
		{"a rule that is no word", strings.Replace(good, `length`, `a b`, 1) + "\n", 0, 1, 0},
		{"many rules", strings.Replace(good, `"length"`, `"length"`+strings.Repeat(`,"length"`, 40), 1) + "\n", 0, 1, 0},
		{"a long policy", strings.Replace(good, "default", strings.Repeat("p", 200), 1) + "\n", 0, 1, 0},
		{"an account that would fool a terminal", strings.Replace(good, "alice", `\u001b[2J`, 1) + "\n", 0, 1, 0},
		{"a long account", strings.Replace(good, "alice", strings.Repeat("a", 2000), 1) + "\n", 0, 1, 0},
		{"a long line", strings.Repeat("x", 3*maxLine) + "\n" + good + "\n", 1, 1, 0},
		{"more behind it", good + good + "\n", 0, 1, 0},
	} {
		records, whole, nonsense := Parse([]byte(c.text))
		if len(records) != c.records || nonsense != c.nonsense || len(c.text)-whole != c.rest {
			t.Errorf("%s: %d records, %d lines of nonsense, %d bytes left", c.name, len(records), nonsense, len(c.text)-whole)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("\n{\"time\":\"2023-11-14T22:13:20Z\",\"account\":\"alice\",\"policy\":\"default\",\"rules\":[\"length\"]}\n"))
	f.Add([]byte("\n\n{\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, whole, nonsense := Parse(b)
		if whole > len(b) || whole > 0 && b[whole-1] != '\n' {
			t.Errorf("%d of %d bytes are whole lines", whole, len(b))
		}
		if len(records)+nonsense > len(b) {
			t.Errorf("%d records and %d lines of nonsense in %d bytes", len(records), nonsense, len(b))
		}
		for _, r := range records {
			if !r.valid() {
				t.Errorf("%+v was read", r)
			}
		}
		// Read in two pieces it is the same.
		for _, cut := range []int{len(b) / 2, whole} {
			first, n, bad := Parse(b[:cut])
			second, m, worse := Parse(b[n:])
			if len(first)+len(second) != len(records) || n+m != whole || bad+worse != nonsense {
				t.Errorf("cut at %d: %d+%d records of %d", cut, len(first), len(second), len(records))
			}
		}
	})
}

// A hook that had opened the file before it was taken writes into the taken one.
func TestTake(t *testing.T) {
	path := file(t)
	if _, err := Take(path); err != nil {
		t.Fatal(err)
	}
	if err := Append(path, sample); err != nil {
		t.Fatal(err)
	}
	late, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if _, err := Take(path); err != nil {
		t.Fatal(err)
	}
	if err := Append(path, sample, sample); err != nil {
		t.Fatal(err)
	}
	names, err := Taken(path)
	if err != nil || len(names) != 1 {
		t.Fatalf("taken: %v, %v", names, err)
	}
	taken := filepath.Join(filepath.Dir(path), names[0])
	b, err := Read(taken, 0)
	if err != nil {
		t.Fatal(err)
	}
	records, whole, _ := Parse(b)
	if len(records) != 1 || whole != len(b) {
		t.Errorf("taken: %+v", records)
	}
	if _, err := late.WriteString("\n{\"time\":\"2023-11-14T22:13:20Z\",\"account\":\"bob\",\"policy\":\"default\",\"rules\":[\"name\"]}\n"); err != nil {
		t.Fatal(err)
	}
	if b, err = Read(taken, int64(whole)); err != nil {
		t.Fatal(err)
	}
	if records, _, _ = Parse(b); len(records) != 1 || records[0].Account != "bob" {
		t.Errorf("afterwards: %+v", records)
	}
	if err := Remove(taken); err != nil {
		t.Fatal(err)
	}
	if b, err = Read(path, 0); err != nil {
		t.Fatal(err)
	}
	if records, _, _ = Parse(b); len(records) != 2 {
		t.Errorf("in the new file: %+v", records)
	}
	if names, err := Taken(path); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// A clock that stands still, or was set back, does not lead one taken file onto another.
func TestTakeAtOneMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := file(t)
		for range 3 {
			if err := Append(path, sample); err != nil {
				t.Fatal(err)
			}
			if taken, err := Take(path); !taken || err != nil {
				t.Fatal(taken, err)
			}
		}
		if names, err := Taken(path); err != nil || len(names) != 3 {
			t.Errorf("taken: %v, %v", names, err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	path := filepath.Join(b.TempDir(), "refusals")
	for b.Loop() {
		if err := Append(path, sample); errors.Is(err, ErrFull) {
			_ = os.Remove(path)
		}
	}
}
