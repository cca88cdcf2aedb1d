package boltfile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Whatever bbolt makes has the right shape: buckets in values and in pages, values of many pages, long lists of free pages, trees of some depth.
func TestShapeOfSoundFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, _, err := Open(path, things, "others", "empty")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	check := func(after string) {
		t.Helper()
		if err := checkShape(path); err != nil {
			t.Fatalf("after %s: %v", after, err)
		}
	}
	check("nothing")
	for round := range 60 {
		err := db.Update(func(tx Tx) error {
			for range 400 {
				key := fmt.Appendf(nil, "%0*d", 4+r.IntN(60), r.IntN(20_000))
				var err error
				switch r.IntN(4) {
				case 0:
					err = tx.Delete(things, key)
				case 1:
					err = tx.Put("others", key[:4], thing{strings.Repeat("x", r.IntN(20_000))})
				default:
					err = tx.Put(things, key, thing{strings.Repeat("y", r.IntN(300))})
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		check(fmt.Sprint("round ", round))
	}
	for _, bucket := range []string{things, "others"} { // thousands of free pages
		var keys [][]byte
		err := db.View(func(tx Tx) error {
			return tx.Prefix(bucket, nil, func(key, _ []byte) error { keys = append(keys, append([]byte(nil), key...)); return nil })
		})
		if err == nil {
			err = db.Update(func(tx Tx) error {
				for _, key := range keys {
					if err := tx.Delete(bucket, key); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		check("deleting all of " + bucket)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, aside, err := Open(path, things); err != nil || aside != "" {
		t.Errorf("opened again: %q, %v", aside, err)
	}
}

// An element that points outside, and a page that is its own child, end no process: a bit in any place that leads elsewhere is found before bbolt goes there.
func TestShapeOfDamagedFiles(t *testing.T) {
	whole := filled(t, filepath.Join(t.TempDir(), "x.db"), 400)
	found := 0
	for page := 2; page < len(whole)/4096; page++ {
		for _, at := range []int{10, 12, 15, 16 + 3, 16 + 7, 16 + 8, 16 + 11, 16 + 15, 32 + 7} { // count, overflow, pos, sizes, child
			path := filepath.Join(t.TempDir(), "y.db")
			spoilt := append([]byte(nil), whole...)
			spoilt[page*4096+at] ^= 0x20
			if err := os.WriteFile(path, spoilt, 0o600); err != nil {
				t.Fatal(err)
			}
			switch err := checkShape(path); {
			case errors.Is(err, ErrDamaged):
				found++
			case err != nil:
				t.Fatal(err)
			}
			t.Logf("page %d, byte %d, kind %d", page, at, order.Uint16(whole[page*4096+8:]))
			load(t, path)
		}
	}
	if found < 50 {
		t.Errorf("only %d were found", found)
	}
	cycle := append([]byte(nil), whole...)
	pages := 0
	for page := 2; page < len(cycle)/4096; page++ {
		if order.Uint16(cycle[page*4096+8:]) == branchPage {
			order.PutUint64(cycle[page*4096+16+8:], uint64(page))
			pages++
		}
	}
	path := filepath.Join(t.TempDir(), "z.db")
	if err := os.WriteFile(path, cycle, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, aside := load(t, path); aside == "" || pages == 0 {
		t.Errorf("a page that is its own child, of %d: not noticed", pages)
	}
}

// Whose fault it is that a file cannot be made longer is told, although bbolt keeps only the words.
func TestNamed(t *testing.T) {
	if err := named(fmt.Errorf("file sync error: %s", "sync /x/queue.db: "+syscall.ENOSPC.Error())); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "sync /x/queue.db: no space") {
		t.Errorf("%v", err)
	}
	if err := named(ErrDamaged); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}
