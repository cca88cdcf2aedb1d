package keyring

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

const keep = 72 * time.Hour

var (
	info   = []byte("where it belongs")
	nobody = func(seal.KeyID) (bool, error) { return false, nil }
	noGive = func(string) error { return nil }
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newFiles makes a role's keys, as init does.
func newFiles(t *testing.T) Files {
	dir := t.TempDir()
	f := Files{filepath.Join(dir, "agent.key"), filepath.Join(dir, "agent.pub"), filepath.Join(dir, "agent-retired")}
	must(t, os.Mkdir(f.Retired, 0o700))
	key, err := seal.Generate()
	must(t, err)
	text, err := key.MarshalPEM()
	must(t, err)
	must(t, durable.Create(f.Private, text, 0o600))
	must(t, durable.Create(f.Public, key.Public().MarshalPEM(), 0o644))
	return f
}

// hook seals a password as the hook would at this moment.
func (f Files) hook(t *testing.T, password string) []byte {
	t.Helper()
	public, err := seal.LoadPublic(f.Public)
	must(t, err)
	box, err := seal.Close(public, info, []byte(password))
	must(t, err)
	return box
}

func (f Files) published(t *testing.T) seal.KeyID {
	t.Helper()
	public, err := seal.LoadPublic(f.Public)
	must(t, err)
	return public.ID()
}

func opens(t *testing.T, r *Ring, box []byte, password string) {
	t.Helper()
	got, err := seal.Open(r, info, box)
	if err != nil {
		t.Fatalf("opening the box of %s: %v", password, err)
	}
	if string(got.Bytes()) != password {
		t.Fatalf("opened %q, want %q", got.Bytes(), password)
	}
}

func ring(t *testing.T, f Files) *Ring {
	t.Helper()
	r, err := Open(f)
	must(t, err)
	return r
}

// backdate makes the public key as old as a rotation of then would have left it.
func (f Files) backdate(t *testing.T, then time.Time) {
	t.Helper()
	must(t, os.Chtimes(f.Public, then, then))
}

// A running ring opens what was sealed before and after a rotation, and is told nothing.
func TestRotateUnderARunningRing(t *testing.T) {
	f := newFiles(t)
	r := ring(t, f)
	before := f.hook(t, "before")
	result, err := Rotate(f, noGive, time.Now())
	must(t, err)
	if result.New != f.published(t).String() || result.Old == result.New || result.Resumed {
		t.Errorf("result %+v", result)
	}
	after := f.hook(t, "after")
	opens(t, r, after, "after")
	opens(t, r, before, "before")
	opens(t, ring(t, f), before, "before") // and so does one that starts now
	if r.Used() != 2 {
		t.Errorf("used %d times", r.Used())
	}
}

func TestTendDestroysInTime(t *testing.T) {
	f := newFiles(t)
	box := f.hook(t, "old")
	then := time.Now().Add(-keep)
	result, err := Rotate(f, noGive, then)
	must(t, err)
	f.backdate(t, then)
	r := ring(t, f)
	asked := 0
	waits := func(id seal.KeyID) (bool, error) { asked++; return id.String() == result.Old, nil }
	broken := func(id seal.KeyID) (bool, error) { return false, errors.New("disk") }

	tend := func(now time.Time, needed func(seal.KeyID) (bool, error), want int) []Key {
		t.Helper()
		destroyed, err := r.Tend(now, keep, needed)
		must(t, err)
		if len(destroyed) != want {
			t.Fatalf("destroyed %v, want %d", destroyed, want)
		}
		return r.Status()
	}
	r.steady = r.steady.Add(-2 * sureAfter)
	r.looked = r.steady
	if keys := tend(then.Add(keep-time.Minute), waits, 0); len(keys) != 2 || asked != 0 || keys[1].ID != result.Old || keys[1].Kept != "" ||
		keys[1].Due.Sub(keys[1].Retired) != keep || keys[0].ID != result.New || !keys[0].Retired.IsZero() {
		t.Errorf("before its time: %+v, asked %d times", keys, asked)
	}
	late := then.Add(keep + time.Minute)
	if keys := tend(late, waits, 0); asked != 1 || keys[1].Kept != "passwords that wait are sealed to it" {
		t.Errorf("while something waits: %+v", keys)
	}
	if _, err := r.Tend(late, keep, broken); err == nil || len(r.Status()) != 2 {
		t.Errorf("a spool that cannot be read: %v, %+v", err, r.Status())
	}
	opens(t, r, box, "old")
	if keys := tend(late, nobody, 1); len(keys) != 1 || keys[0].ID != result.New {
		t.Errorf("afterwards: %+v", keys)
	}
	if _, err := seal.Open(r, info, box); !errors.Is(err, seal.ErrOtherKey) {
		t.Errorf("the destroyed key opens: %v", err)
	}
	if left, err := os.ReadDir(f.Retired); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	tend(late, nobody, 0)
}

// A clock that is ahead at the start, or is set ahead, makes each retired key look due. For a while none is destroyed for that.
func TestClockAhead(t *testing.T) {
	for name, keep := range map[string]time.Duration{"long": keep, "short": 5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			_, err := Rotate(f, noGive, time.Now())
			must(t, err)
			r := ring(t, f)
			grace := min(sureAfter, keep)
			begin := trial.ClockSet(r.steady, 2*keep)
			r.looked, r.steady = begin, begin // it started with a clock that is ahead
			tend := func(now time.Time, want int) {
				t.Helper()
				if destroyed, err := r.Tend(now, keep, nobody); err != nil || len(destroyed) != want {
					t.Fatalf("%v after the start: destroyed %v, %v", now.Sub(begin), destroyed, err)
				}
			}
			tend(begin, 0)
			if due := r.Status()[1].Due; !due.Equal(begin.Add(grace)) {
				t.Errorf("it is due %v", due)
			}
			tend(begin.Add(grace-time.Second), 0)
			later := begin.Add(grace + time.Second)
			tend(trial.ClockSet(later, 2*time.Second), 0)
			tend(trial.ClockSet(later.Add(grace-time.Second), 2*time.Second), 0)
			tend(trial.ClockSet(later.Add(grace), 2*time.Second), 1)
		})
	}
}

// The zeros must reach the file itself, not only its name go: somebody may hold it open.
func TestDestroyedKeyIsOverwritten(t *testing.T) {
	f := newFiles(t)
	file, err := os.Open(f.Private)
	must(t, err)
	defer file.Close()
	then := time.Now().Add(-2 * keep)
	_, err = Rotate(f, noGive, then)
	must(t, err)
	f.backdate(t, then)
	if destroyed, err := ring(t, f).Tend(time.Now().Add(sureAfter), keep, nobody); err != nil || len(destroyed) != 1 {
		t.Fatal(destroyed, err)
	}
	b := make([]byte, 4096)
	n, _ := file.Read(b)
	if n == 0 {
		t.Fatal("nothing was read")
	}
	for _, c := range b[:n] {
		if c != 0 {
			t.Fatal("the key is still in the file")
		}
	}
}

// A rotation may be cut off after any of its steps. Whatever the hook seals to then, and seals to later, can be opened, by a ring that runs and
// by one that starts; no key that is in use is destroyed; and the next rotation completes the work.
func TestCrashAfterEachStep(t *testing.T) {
	steps := len((&rotation{}).steps())
	for done := range steps + 1 {
		f := newFiles(t)
		running := ring(t, f)
		boxes := map[string][]byte{"before": f.hook(t, "before")}
		old := f.published(t)
		long := time.Now().Add(-3 * keep)
		r := &rotation{files: f, give: noGive, now: long}
		for _, step := range r.steps()[:done] {
			must(t, step())
		}
		if done < steps {
			f.backdate(t, long) // the public key is as old as the installation
		}
		boxes["at the crash"] = f.hook(t, "at the crash")
		check := func() {
			t.Helper()
			for password, box := range boxes {
				opens(t, running, box, password)
				opens(t, ring(t, f), box, password)
			}
		}
		check()
		for _, r := range []*Ring{running, ring(t, f)} { // nobody waits, and the time is over since long
			if destroyed, err := r.Tend(time.Now().Add(sureAfter), keep, nobody); err != nil || len(destroyed) != 0 {
				t.Fatalf("after %d steps: destroyed %v, %v", done, destroyed, err)
			}
		}
		check()
		for range 2 { // one to resume, where the public key was not changed yet
			_, err := Rotate(f, noGive, time.Now())
			must(t, err)
			boxes[f.published(t).String()] = f.hook(t, f.published(t).String())
		}
		check()
		if now := f.published(t); now == old {
			t.Errorf("after %d steps: the hook still seals to the old key", done)
		}
		if _, err := os.Stat(f.Private + ".next"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after %d steps: the next key was left: %v", done, err)
		}
		list, err := listRetired(f.Retired)
		must(t, err)
		seen := map[string]bool{}
		for _, l := range list {
			if seen[l.id] {
				t.Errorf("after %d steps: %s is retired twice", done, l.id)
			}
			seen[l.id] = true
		}
	}
}

// Whoever completes a rotation late gives the old key its whole time.
func TestBrokenOffRotationRetiresWhenItIsCompleted(t *testing.T) {
	f := newFiles(t)
	r := &rotation{files: f, give: noGive, now: time.Now().Add(-3 * keep)}
	steps := r.steps()
	for _, step := range steps[:len(steps)-1] {
		must(t, step())
	}
	box := f.hook(t, "sealed to the old key, just now")
	result, err := Rotate(f, noGive, time.Now())
	must(t, err)
	if !result.Resumed {
		t.Errorf("result %+v", result)
	}
	tended := ring(t, f)
	if destroyed, err := tended.Tend(time.Now().Add(time.Hour), keep, nobody); err != nil || len(destroyed) != 0 {
		t.Fatal(destroyed, err)
	}
	opens(t, tended, box, "sealed to the old key, just now")
}

func TestKeyThatTheDiskDoesNotGive(t *testing.T) {
	f := newFiles(t)
	box := f.hook(t, "old")
	_, err := Rotate(f, noGive, time.Now())
	must(t, err)
	r := ring(t, f)
	list, err := listRetired(f.Retired)
	must(t, err)
	path := filepath.Join(f.Retired, list[0].file)

	must(t, os.Chmod(path, 0o644)) // LoadPrivate refuses it, as the disk might
	if _, err := seal.Open(r, info, box); err != nil {
		t.Errorf("a ring that has the key: %v", err)
	}
	other := ring(t, f)
	if _, err := seal.Open(other, info, box); err == nil || errors.Is(err, seal.ErrOtherKey) {
		t.Errorf("a ring that cannot read it: %v", err)
	}
	must(t, os.Chmod(path, 0o600))
	opens(t, other, box, "old")
}

func TestBusy(t *testing.T) {
	f := newFiles(t)
	inside := false
	_, err := Rotate(f, func(string) error {
		inside = true
		if _, err := Rotate(f, noGive, time.Now()); !errors.Is(err, ErrBusy) {
			t.Errorf("a second rotation: %v", err)
		}
		return nil
	}, time.Now())
	must(t, err)
	if !inside {
		t.Error("give was not called")
	}
}

// A crash in the middle of destroying leaves zeros.
func TestHalfDestroyedKey(t *testing.T) {
	f := newFiles(t)
	then := time.Now().Add(-2 * keep)
	_, err := Rotate(f, noGive, then)
	must(t, err)
	f.backdate(t, then)
	list, err := listRetired(f.Retired)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(f.Retired, list[0].file), make([]byte, 500), 0o600))
	r := ring(t, f)
	if destroyed, err := r.Tend(time.Now().Add(sureAfter), keep, func(seal.KeyID) (bool, error) { return true, nil }); err != nil || len(destroyed) != 1 {
		t.Error(destroyed, err)
	}
}

func TestNamesOfRetiredKeys(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"x", "20260102T030405Z-0011223344556677.key", "20260102T030405Z-.new", "2026-0011.key", "20260102T030405Z.key"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	must(t, os.Symlink("x", filepath.Join(dir, "20260102T030406Z-0011223344556677.key")))
	list, err := listRetired(dir)
	if err != nil || len(list) != 1 || list[0].id != "0011223344556677" || !list[0].at.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := listRetired(filepath.Join(dir, "none")); err != nil || list != nil {
		t.Errorf("no folder: %v, %v", list, err)
	}
}
