package boltfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const things = "things"

type thing struct{ Name string }

func key(i int) []byte  { return fmt.Appendf(nil, "key-%03d", i) }
func value(i int) thing { return thing{fmt.Sprintf("the value of number %03d", i)} }

// filled makes a file with n things, closes it and returns its bytes.
func filled(t *testing.T, path string, n int) []byte {
	t.Helper()
	db, aside, err := Open(path, things)
	if err != nil || aside != "" {
		t.Fatal(aside, err)
	}
	for i := range n {
		if err := db.Update(func(tx Tx) error { return tx.Put(things, key(i), value(i)) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// load opens the file and returns the things in it; a wrong one fails the test.
func load(t *testing.T, path string) (n, dropped int, aside string) {
	t.Helper()
	db, aside, err := Open(path, things)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	dropped, err = db.Load(things, func(k, _, v []byte) error {
		var got thing
		if err := json.Unmarshal(v, &got); err != nil {
			return err
		}
		var i int
		if _, err := fmt.Sscanf(string(k), "key-%03d", &i); err != nil || got != value(i) {
			t.Fatalf("%q came back as %q", k, v)
		}
		n++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx Tx) error { return tx.Put(things, key(999), value(999)) }); err != nil {
		t.Fatalf("writing to the opened file: %v", err)
	}
	return n, dropped, aside
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	filled(t, path, 5)
	if n, dropped, aside := load(t, path); n != 5 || dropped != 0 || aside != "" {
		t.Errorf("found %d things, %d dropped, aside %q", n, dropped, aside)
	}
	db, _, err := Open(path, things)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx Tx) error {
		var got thing
		if ok, err := tx.Get(things, key(3), &got); !ok || err != nil || got != value(3) {
			t.Errorf("Get: %v %v %v", ok, err, got)
		}
		if ok, err := tx.Get(things, key(77), &got); ok || err != nil {
			t.Errorf("Get of what is not there: %v %v", ok, err)
		}
		var keys []string
		err := tx.Prefix(things, []byte("key-00"), func(k, _ []byte) error { keys = append(keys, string(k)); return nil })
		if want := "key-000 key-001 key-002 key-003 key-004"; strings.Join(keys, " ") != want {
			t.Errorf("Prefix: %v", keys)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	filled(t, path, 1)
	db, _, err := Open(path, things)
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	err = db.Update(func(tx Tx) error {
		return errors.Join(tx.Delete(things, key(0)), tx.Put(things, key(1), value(1)), stop)
	})
	if !errors.Is(err, stop) {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := load(t, path); n != 1 {
		t.Errorf("found %d things", n)
	}
}

func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, _, err := Open(path, things)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, aside, err := Open(path, things); !errors.Is(err, ErrInUse) || aside != "" {
		t.Errorf("aside %q, %v", aside, err)
	}
}

func TestUnusablePathIsNoDamage(t *testing.T) {
	for _, path := range []string{t.TempDir(), "/proc/no/such/x.db"} {
		if _, aside, err := Open(path, things); err == nil || errors.Is(err, ErrDamaged) || aside != "" {
			t.Errorf("%s: aside %q, %v", path, aside, err)
		}
	}
}

func TestDamagedValueIsDropped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	b := filled(t, path, 5)
	spoiled := bytes.ReplaceAll(b, []byte(value(3).Name), []byte("the value of number 004"))
	if bytes.Equal(b, spoiled) {
		t.Fatal("nothing spoiled")
	}
	if err := os.WriteFile(path, spoiled, 0o600); err != nil {
		t.Fatal(err)
	}
	db, aside, err := Open(path, things)
	if err != nil || aside != "" {
		t.Fatal(aside, err)
	}
	if err := db.View(func(tx Tx) error { _, err := tx.Get(things, key(3), new(thing)); return err }); !errors.Is(err, ErrDamaged) {
		t.Errorf("Get: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n, dropped, _ := load(t, path); n != 4 || dropped != 1 {
		t.Errorf("found %d things, dropped %d", n, dropped)
	}
	if _, dropped, _ := load(t, path); dropped != 0 {
		t.Errorf("dropped %d things once more", dropped)
	}
}

// Whatever happens to the file: Open gives a working database, and no value that was not written.
func TestDamagedFile(t *testing.T) {
	whole := filled(t, filepath.Join(t.TempDir(), "x.db"), 200)
	random := rand.New(rand.NewPCG(1, 2))
	stored, err := json.Marshal(value(1))
	if err != nil {
		t.Fatal(err)
	}
	stored = wrap(key(1), nil, stored)
	spoil := map[string]func([]byte) []byte{
		"one bit": func(b []byte) []byte { b[random.IntN(len(b))] ^= 1 << random.IntN(8); return b },
		"cut off": func(b []byte) []byte { return b[:random.IntN(len(b)-1)+1] },
		"a zeroed page": func(b []byte) []byte {
			page := random.IntN(len(b)/4096) * 4096
			clear(b[page : page+4096])
			return b
		},
		"a page of noise": func(b []byte) []byte {
			page := random.IntN(len(b)/4096) * 4096
			for i := range 4096 {
				b[page+i] = byte(random.Uint32())
			}
			return b
		},
		"lengths beyond the end": func(b []byte) []byte {
			head := []byte{byte(len(key(1))), 0, 0, 0, byte(len(stored)), 0, 0, 0} // of an element: the lengths of key and value
			return bytes.ReplaceAll(b, head, slices.Concat(head[:6], []byte{0x80, 0}))
		},
		"no database": func([]byte) []byte { return []byte(strings.Repeat("hello ", 5000)) },
	}
	for name, spoil := range spoil {
		t.Run(name, func(t *testing.T) {
			renamed := 0
			for range 40 {
				path := filepath.Join(t.TempDir(), "x.db")
				spoiled := spoil(bytes.Clone(whole))
				if err := os.WriteFile(path, spoiled, 0o600); err != nil {
					t.Fatal(err)
				}
				n, dropped, aside := load(t, path)
				if aside == "" {
					continue
				}
				renamed++
				if n+dropped != 0 {
					t.Errorf("a new file holds %d things", n+dropped)
				}
				if kept, err := os.ReadFile(aside); err != nil || !bytes.Equal(kept, spoiled) {
					t.Errorf("the damaged file was not kept: %v", err)
				}
			}
			if renamed == 0 && name != "one bit" {
				t.Error("no file was found damaged")
			}
		})
	}
}

func TestPanicEndsTheDatabase(t *testing.T) {
	db, _, err := Open(filepath.Join(t.TempDir(), "x.db"), things)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(Tx) error { panic("page 7: invalid") }); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "page 7") {
		t.Errorf("Update: %v", err)
	}
	if err := db.View(func(Tx) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("View: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// Heads come back with Load, and values are read with and without one; a head can neither be a brace nor reach beyond its value.
func TestHeads(t *testing.T) {
	db, _, err := Open(filepath.Join(t.TempDir(), "x.db"), things)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	heads := map[string]string{string(key(0)): "", string(key(1)): "{", string(key(2)): strings.Repeat("h", maxHead-1)}
	err = db.Update(func(tx Tx) error {
		for i := range 3 {
			if err := tx.PutHead(things, key(i), []byte(heads[string(key(i))]), value(i)); err != nil {
				return err
			}
		}
		if tx.PutHead(things, key(3), make([]byte, maxHead), value(3)) == nil {
			t.Error("a head that could be taken for a brace was written")
		}
		if tx.Put(things, key(3), "no object") == nil {
			t.Error("what could be taken for a head was written")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Rest(); err != nil { // and all is there still
		t.Fatal(err)
	}
	n := 0
	_, err = db.Load(things, func(k, head, v []byte) error {
		if n++; heads[string(k)] != string(head) {
			t.Errorf("%s has the head %.10q", k, head)
		}
		var got thing
		return json.Unmarshal(v, &got)
	})
	if err != nil || n != 3 {
		t.Errorf("%d values, %v", n, err)
	}
	err = db.View(func(tx Tx) error {
		for i := range 3 {
			var got thing
			if ok, err := tx.Get(things, key(i), &got); !ok || err != nil || got != value(i) {
				t.Errorf("%d: %v, %v, %v", i, got, ok, err)
			}
		}
		return tx.Prefix(things, key(1), func(_, v []byte) error {
			if v[0] != '{' {
				t.Errorf("a head is told as value: %.10q", v)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	long := wrap(key(1), []byte("head"), []byte("{}"))
	long = wrap(key(1), nil, append([]byte{0, 200}, long[6:]...)) // a length that lies behind a good checksum
	if _, _, err := unwrap(key(1), long); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	if err := db.Update(func(tx Tx) error { return tx.Clear(things) }); err != nil {
		t.Fatal(err)
	}
	if n, err := db.Load(things, func(k, _, _ []byte) error { t.Errorf("%s is left", k); return nil }); n != 0 || err != nil {
		t.Error(n, err)
	}
}
