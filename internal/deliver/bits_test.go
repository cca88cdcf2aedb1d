package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/boltfile"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

// spoil damages a file as a disk may, and says how.
func spoil(r *rand.Rand, b []byte, others [][]byte) (spoilt []byte, how string) {
	b = bytes.Clone(b)
	sector := func() []byte {
		at := r.IntN(len(b)) / 512 * 512
		return b[at:min(at+512, len(b))]
	}
	switch r.IntN(6) {
	case 0, 1:
		n := 1 + r.IntN(3)
		for range n {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		return b, fmt.Sprint(n, " bits flipped")
	case 2:
		return b[:r.IntN(len(b))], "cut off"
	case 3:
		clear(sector())
		return b, "a sector of zeros"
	case 4:
		for s, i := sector(), 0; i < len(s); i++ {
			s[i] = byte(r.Uint32())
		}
		return b, "a sector of noise"
	}
	other := others[r.IntN(len(others))]
	if len(other) == 0 {
		return nil, "emptied"
	}
	at := r.IntN(len(other)) / 512 * 512
	copy(sector(), other[at:])
	return b, "a sector of another file"
}

// spoilOne damages one of the files that the forwarder reads, and returns its name. A database that is open gets flipped bits only, and none in a page's
// count of the pages that follow it: bbolt then takes memory for them all, gigabytes, and it is for the unit's MemoryMax to end that.
func (w *world) spoilOne(r *rand.Rand, running bool) (name, how string) {
	w.Helper()
	var paths []string
	var contents [][]byte
	for _, pattern := range []string{"*.db", "outgoing/*.*", "outgoing/mark"} {
		found, err := filepath.Glob(filepath.Join(w.dir, pattern))
		if err != nil {
			w.Fatal(err)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			w.Fatal(err)
		}
		contents = append(contents, b)
	}
	for {
		i := r.IntN(len(paths))
		if r.IntN(3) == 0 {
			i = r.IntN(2) // a database: there are two among many files
		}
		if len(contents[i]) == 0 {
			continue
		}
		spoilt, how := spoil(r, contents[i], contents)
		if page := 4096; running && strings.HasSuffix(paths[i], ".db") {
			spoilt, how = bytes.Clone(contents[i]), "a bit flipped"
			at := r.IntN(len(spoilt))
			for at%page >= 12 && at%page < 16 {
				at = r.IntN(len(spoilt))
			}
			spoilt[at] ^= 1 << r.IntN(8)
		}
		// In place: what is mapped and what is open sees it, as it would see what the disk gives.
		f, err := os.OpenFile(paths[i], os.O_WRONLY, 0)
		if err != nil {
			w.Fatal(err)
		}
		_, err = f.WriteAt(spoilt, 0)
		if err := errors.Join(err, f.Truncate(int64(len(spoilt))), f.Close()); err != nil {
			w.Fatal(err)
		}
		return filepath.Base(paths[i]), how
	}
}

// One file of those that the forwarder reads is damaged while it is stopped, or under its hands. Nobody is sent a password that the directory does not hold;
// everybody gets the one that it holds, unless the damaged file is the one with that password: then there is an alarm. A damaged database is
// begun anew, by one new start of the process at the most.
func TestBits(t *testing.T) {
	run := trial.Start(t, "bits", 150)
	found, restarts := map[string]int{}, 0
	for n := range run.N {
		seed := run.Rand.Uint64()
		synctest.Test(t, func(t *testing.T) {
			b := bits{world: newWorld(t, "google", "entra"), run: run, what: fmt.Sprintf("trial %d", n)}
			b.trial(rand.New(rand.NewPCG(seed, 0)))
			if b.alarms() > 0 {
				found[b.kind]++
			}
			restarts += b.restarts
		})
		run.Trial(1)
	}
	run.Note("noticed: %d of changes, %d of sightings, %d of databases; %d new starts", found[change.Suffix], found[change.SightingsSuffix], found[".db"], restarts)
}

type bits struct {
	*world
	run      *trial.Run
	what     string // trial and damage
	kind     string // of the damaged file
	holds    map[byte]int
	captured map[byte]string // the file of the version that the directory holds
	restarts int
}

const bitsAccounts = 6

func (b *bits) trial(r *rand.Rand) {
	b.holds, b.captured = map[byte]int{}, map[byte]string{}
	b.all = func() []change.Sighting {
		var all []change.Sighting
		for n, version := range b.holds {
			all = append(all, change.Sighting{Account: account(n), Stamp: stamp(version), Reset: true})
		}
		return append(all, change.Sighting{Whole: true})
	}
	entra := b.places["entra"]
	entra.fails(errors.New("away"))
	b.start()
	b.watched()
	for n := byte(1); n <= bitsAccounts; n++ {
		b.changes(n)
	}
	b.pass(20 * time.Second)
	b.unwatch()
	b.pass(2 * time.Second)
	stopped := r.IntN(2) == 0
	if stopped {
		b.stop()
	}
	for n := byte(1); n <= bitsAccounts; n++ { // some meet the damaged file among the others
		switch r.IntN(3) {
		case 0:
			b.changes(n)
		case 1: // that the hook did not see
			b.holds[n]++
			delete(b.captured, n)
			b.sight(n, b.holds[n])
		}
	}
	b.mark(time.Now())
	before := len(entra.asked())
	name, how := b.spoilOne(r, !stopped)
	b.kind = filepath.Ext(name)
	b.what += fmt.Sprintf(", %s of %s, running: %v", how, name, !stopped)
	entra.fails(nil)
	if stopped {
		b.start()
	}
	b.watched()
	b.goOn(time.Minute)
	b.changes(bitsAccounts + 1) // the rest goes on
	b.goOn(3 * time.Minute)
	for _, p := range b.places {
		p.inOrder()
	}
	for _, c := range entra.asked()[before:] {
		var n byte
		if _, err := fmt.Sscanf(c.user, "user%d", &n); err != nil || c.version != b.holds[n] {
			b.run.Wrong("%s: %s was sent version %d, the directory holds %d", b.what, c.user, c.version, b.holds[n])
		}
	}
	lost := 0
	for n, file := range b.captured {
		if entra.held[user(n)] != password(n, b.holds[n]) {
			lost++
			if file != name || b.alarms() == 0 {
				b.run.Lost("%s: version %d of %s, with %d alarms", b.what, b.holds[n], user(n), b.alarms())
			}
		}
	}
	if b.restarts > 1 {
		b.Errorf("%s: %d new starts", b.what, b.restarts)
	}
	b.settled()
	b.unwatch()
	b.stop()
	if b.Failed() {
		b.Log(b.what)
	}
}

// changes has an account's password changed, captured and proven.
func (b *bits) changes(n byte) {
	b.holds[n]++
	b.sight(n, b.holds[n])
	b.captured[n] = b.put(b.change(n, b.holds[n], "google", "entra"))
}

// goOn lets time pass. A forwarder that ends because a database is damaged is started again, as systemd does.
func (b *bits) goOn(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		select {
		case err := <-b.ended:
			if !errors.Is(err, boltfile.ErrDamaged) {
				b.Fatalf("%s: ended with %v", b.what, err)
			}
			b.halt()
			if b.restarts++; b.restarts > 5 {
				b.Fatalf("%s: it ends again and again: %v", b.what, err)
			}
			_, _ = b.queue.Close(), b.ledger.Close()
			b.unlock("queue.db")
			b.unlock("ledger.db")
			b.start()
		case <-time.After(time.Second):
		}
	}
	synctest.Wait()
}

// unlock puts a copy in the place of a file, since the lock of one that turned out to be damaged goes away with the process only.
func (w *world) unlock(name string) {
	w.Helper()
	path := filepath.Join(w.dir, name)
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// alarms counts what was said of damage.
func (b *bits) alarms() (n uint64) {
	for name, times := range b.log.Counters() {
		if slices.Contains([]string{"change-damaged", "secret-lost", "state-damaged", "values-damaged"}, name) || strings.Contains(name, "asked") {
			n += times
		}
	}
	return n
}
