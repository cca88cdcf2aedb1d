package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// record runs this test's binary in a folder with one durable file.
func record(t *testing.T, test string, kill int) *Trace {
	t.Helper()
	dir := Folder(t)
	if err := os.WriteFile(filepath.Join(dir, "old"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	trace, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	if killed, err := trace.Run(Self(t, test, dir), kill); err != nil || killed != (kill >= 0) {
		t.Fatal(killed, err)
	}
	if err := trace.Check(); err != nil {
		t.Fatal(err)
	}
	return trace
}

const words = "a text that is longer than nothing"

// program writes in every way that there is, and says when what is to be durable.
func program(dir string) (err error) {
	do := func(step error) { err = errors.Join(err, step) }
	synced, e := os.Create(filepath.Join(dir, "synced"))
	do(e)
	_, e = synced.WriteString(words)
	do(e)
	do(synced.Sync())
	folder, e := os.Open(dir)
	do(e)
	do(folder.Sync())
	Say("synced")
	loose, e := os.Create(filepath.Join(dir, "loose"))
	do(e)
	_, e = loose.WriteAt([]byte(words), 3)
	do(e)
	do(loose.Truncate(20))
	do(os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	do(os.WriteFile(filepath.Join(dir, "folder", "file"), []byte(words), 0o600))
	do(os.Rename(filepath.Join(dir, "old"), filepath.Join(dir, "new")))
	do(os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "folder", "new")))
	Say("end")
	more, e := os.OpenFile(filepath.Join(dir, "synced"), os.O_WRONLY|os.O_APPEND, 0)
	do(e)
	_, e = more.WriteString("more")
	do(e)
	do(os.Remove(filepath.Join(dir, "loose")))
	return err
}

func TestStates(t *testing.T) {
	if dir, ok := Inside(); ok {
		if err := program(dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	trace := record(t, "TestStates", -1)
	seen := map[string]bool{}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		s := trace.At(r, r.IntN(trace.Len()+1))
		if slices.Contains(s.Said, "synced") && !strings.HasPrefix(string(s.Files["synced"]), words) {
			t.Fatalf("what was synced is lost: %q", s.Files)
		}
		content, there := s.Files["synced"]
		seen[fmt.Sprintf("synced %v, %v", there, string(content) == words)] = true
		places := 0
		for _, path := range []string{"old", "new", "folder/new"} {
			if content, there := s.Files[path]; there {
				places++
				seen[path] = true
				if string(content) != "old" {
					t.Fatalf("a durable file holds %q", content)
				}
			}
		}
		_, folder := s.Files["folder/"]
		if places > 1 || places == 0 && !slices.Contains(s.Said, "synced") {
			t.Fatalf("the old file is in %d places", places)
		}
		seen[fmt.Sprintf("folder %v", folder)] = true
		if said := slices.Contains(s.Said, "exit 0"); said {
			seen["exit 0"] = true
			_, loose := s.Files["loose"]
			seen[fmt.Sprintf("loose at the end %v", loose)] = true
		}
		if zeros := "\x00" + string(content); there && strings.Trim(zeros, "\x00") == "" && len(content) == len(words) {
			seen["zeros"] = true
		}
	}
	for _, want := range []string{
		"synced true, true", "synced true, false", "synced false, false", "zeros", "old", "new", "folder/new", "folder true", "folder false", "exit 0",
		"loose at the end true", "loose at the end false",
	} {
		if !seen[want] {
			t.Errorf("never seen: %s", want)
		}
	}
	for _, folders := range []bool{FileSync, FolderSync} {
		without, lost := trace.Without(folders), 0
		for range 1000 {
			s := without.At(r, without.Len())
			if !strings.HasPrefix(string(s.Files["synced"]), words) {
				lost++
			}
		}
		if lost < 100 {
			t.Errorf("without sync (of folders: %v) lost %d times in 1,000", folders, lost)
		}
	}
}

// Killed anywhere, nothing that was written is lost as long as the power is there, and the recording goes on.
func TestKilled(t *testing.T) {
	if dir, ok := Inside(); ok {
		_ = program(dir)
		return
	}
	for kill := 0; kill < 14; kill += 2 {
		trace := record(t, "TestKilled", kill) // Check has compared it with what the kernel has
		before := trace.Len()
		if killed, err := trace.Run(Self(t, "TestKilled", trace.root), -1); err != nil || killed {
			t.Fatal(killed, err)
		}
		if err := trace.Check(); err != nil {
			t.Error(err)
		}
		if trace.Len() <= before {
			t.Error("nothing was recorded after the kill")
		}
	}
}

func TestPut(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "before"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := State{Files: map[string][]byte{"a": []byte("1"), "b/": nil, "b/c": []byte("2")}}
	if err := s.Put(dir); err != nil {
		t.Fatal(err)
	}
	got, err := read(dir)
	if err != nil || len(got) != 3 || string(got["a"]) != "1" || string(got["b/c"]) != "2" {
		t.Errorf("%q, %v", got, err)
	}
}
