package refusals

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/refusal"
)

type world struct {
	t    *testing.T
	o    Options
	log  bytes.Buffer
	told []refusal.Record
}

func newWorld(t *testing.T) *world {
	w := &world{t: t}
	dir := t.TempDir()
	w.o = Options{
		File: filepath.Join(dir, "refusals"), State: filepath.Join(dir, "counts.json"),
		Tell: func(r []refusal.Record) { w.told = append(w.told, r...) },
		Log:  event.New(slog.New(slog.NewTextHandler(&w.log, nil))),
	}
	return w
}

func (w *world) refuse(policy string, audit, probe bool, rules ...string) {
	w.t.Helper()
	r := refusal.Record{Time: time.Now(), Account: "alice", Policy: policy, Audit: audit, Probe: probe, Rules: rules}
	if err := refusal.Append(w.o.File, r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) look(b *Book) {
	w.t.Helper()
	if err := b.Look(); err != nil {
		w.t.Fatal(err)
	}
}

// left lists the files of refusals that are there.
func (w *world) left() []string {
	names, err := filepath.Glob(w.o.File + "*")
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := Open(w.o)
		w.look(b)
		w.refuse("staff", false, false, "length", "banned")
		w.refuse("default", true, false, "walk")
		w.refuse("staff", true, false, "walk")
		w.look(b)
		time.Sleep(2 * time.Second)
		w.refuse("staff", false, true, "length")
		w.look(b)
		w.look(b)
		one, two := Count{1, 1, 1}, Count{2, 2, 2}
		want := []Policy{
			{"default", true, one, Count{}, []Rule{{"walk", one}}},
			{"staff", false, two, one, []Rule{{"banned", one}, {"length", two}}},
			{"staff", true, one, Count{}, []Rule{{"walk", one}}},
		}
		if got := b.Status().Policies; !reflect.DeepEqual(got, want) {
			t.Errorf("counted %+v\nwant    %+v", got, want)
		}
		if len(w.told) != 4 {
			t.Errorf("told %d", len(w.told))
		}

		// After a restart nothing is counted twice, the total goes on, and the day ends.
		b = Open(w.o)
		time.Sleep(hookLives + time.Second)
		w.look(b)
		time.Sleep(hookLives + time.Second)
		w.look(b)
		if left := w.left(); len(left) != 0 || len(w.told) != 4 {
			t.Errorf("left %v, told %d", left, len(w.told))
		}
		s := b.Status()
		if got, want := s.Policies[1].Passwords, (Count{2, 0, 2}); got != want {
			t.Errorf("after a restart: %+v, want %+v", got, want)
		}
		time.Sleep(23 * time.Hour)
		w.refuse("staff", false, false, "name")
		w.look(b)
		time.Sleep(2 * time.Hour)
		w.refuse("staff", false, false, "length")
		w.look(b)
		if got, want := b.Status().Policies[1], (Policy{"staff", false, Count{2, 2, 4}, Count{0, 0, 1},
			[]Rule{{"banned", Count{0, 0, 1}}, {"length", Count{1, 1, 3}}, {"name", Count{1, 1, 1}}}}); !reflect.DeepEqual(got, want) {
			t.Errorf("a day later: %+v\nwant %+v", got, want)
		}
		text, err := os.ReadFile(w.o.State)
		if err != nil {
			t.Fatal(err)
		}
		if hours := bytes.Count(text, []byte(`"hours":{`)); hours != 3 { // staff's passwords, name, length
			t.Errorf("hours of more than a day ago are kept (%d):\n%s", hours, text)
		}
		if w.log.Len() > 0 {
			t.Errorf("log: %s", &w.log)
		}
	})
}

// A hook that had opened the file before it was taken writes into the taken one, until it is over.
func TestLateWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := Open(w.o)
		w.refuse("default", false, false, "length")
		late, err := os.OpenFile(w.o.File, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer late.Close()
		line, err := json.Marshal(refusal.Record{Time: time.Now(), Account: "bob", Policy: "default", Rules: []string{"name"}})
		if err != nil {
			t.Fatal(err)
		}
		w.look(b)
		write := func(text string) {
			if _, err := late.WriteString(text); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(hookLives - 2*time.Second)
		write("\n" + string(line[:30]))
		w.look(b)
		write(string(line[30:]) + "\n")
		w.look(b)
		if len(w.told) != 2 || w.told[1].Account != "bob" {
			t.Errorf("told %+v", w.told)
		}
		write("\n{\"time\":")
		time.Sleep(3 * time.Second)
		w.look(b)
		if s := b.Status(); len(w.left()) != 0 || s.Nonsense != 1 || s.Policies[0].Passwords.Total != 2 {
			t.Errorf("left %v, %+v", w.left(), s)
		}
	})
}

// A process that ends at any moment leaves nothing to be counted twice.
func TestKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.refuse("default", false, false, "length")
		for range 5 {
			w.look(Open(w.o))
			w.refuse("default", false, false, "length")
			time.Sleep(time.Second)
		}
		b := Open(w.o)
		w.look(b)
		if got := b.Status().Policies[0].Passwords.Total; got != 6 || len(w.told) != 6 {
			t.Errorf("counted %d, told %d", got, len(w.told))
		}
	})
}

func TestTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if err := os.Mkdir(w.o.State, 0o700); err != nil { // a file that cannot be written
			t.Fatal(err)
		}
		b := Open(w.o)
		if !strings.Contains(w.log.String(), "event=refusals-forgotten") {
			t.Errorf("log: %s", &w.log)
		}
		w.refuse("default", false, false, "length")
		if err := b.Look(); err == nil {
			t.Error("the counts were written into a folder")
		}
		time.Sleep(hookLives + time.Second)
		if err := b.Look(); err == nil || len(w.left()) != 1 {
			t.Errorf("%v; left %v", err, w.left())
		}
		if err := os.Remove(w.o.State); err != nil {
			t.Fatal(err)
		}
		w.look(b)
		if got := b.Status().Policies[0].Passwords.Total; got != 1 || len(w.left()) != 0 || len(w.told) != 1 {
			t.Errorf("counted %d, left %v, told %d", got, w.left(), len(w.told))
		}

		// What is no file of the hook's is left alone, and does not stand in the way of the others.
		if err := os.Symlink(w.o.State, w.o.File+".7"); err != nil {
			t.Fatal(err)
		}
		w.refuse("default", false, false, "length")
		if err := b.Look(); err == nil {
			t.Error("a link was read")
		}
		if got := b.Status().Policies[0].Passwords.Total; got != 2 {
			t.Errorf("counted %d", got)
		}
	})
}

func TestFull(t *testing.T) {
	for _, probe := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			b := Open(w.o)
			r := refusal.Record{Time: time.Now(), Account: strings.Repeat("<", 1000), Probe: probe, Policy: "default", Rules: []string{"length"}}
			for refusal.Append(w.o.File, r, r) == nil {
			}
			w.look(b)
			w.look(b)
			w.refuse("default", false, false, "length")
			w.look(b)
			if got := b.Status().Full; got != 1 {
				t.Errorf("probes %v: full %d times", probe, got)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"format":1,"since":"2023-11-14T22:13:20Z","pages":[{"policy":"default","audit":false,"passwords":{"total":1,"hours":{"1":1}},"probes":{"total":0},"rules":{"length":{"total":1}}}],"read":{"refusals.7":9}}`))
	f.Add([]byte(`{"format":1,"pages":[null]}`))
	f.Add([]byte("{"))
	dir := f.TempDir()
	file := filepath.Join(dir, "counts.json")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		b := Open(Options{File: filepath.Join(dir, "refusals"), State: file, Log: event.New(slog.New(slog.DiscardHandler))})
		if err := refusal.Append(b.file, refusal.Record{Time: time.Now(), Policy: "default", Rules: []string{"length"}}); err != nil {
			t.Fatal(err)
		}
		_ = b.Look()
		_ = b.Status()
		names, _ := filepath.Glob(b.file + "*")
		for _, name := range names {
			_ = os.Remove(name)
		}
	})
}
