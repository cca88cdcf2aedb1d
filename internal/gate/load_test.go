package gate

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/attempt"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

// site is a configuration and a state folder.
type site struct {
	t           testing.TB
	dir, config string
	paths       config.Paths
}

func newSite(t testing.TB, text string) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, dir: dir, config: filepath.Join(dir, "c.toml")}
	s.paths = config.HookConfig{StateDir: filepath.Join(dir, "state")}.Paths()
	for _, folder := range []string{s.paths.Hook, s.paths.Policy, s.paths.Spool} {
		s.must(os.MkdirAll(folder, 0o700))
	}
	s.write(text)
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// write writes the configuration, with the state folder in front.
func (s *site) write(text string) {
	s.t.Helper()
	s.raw("state_dir = \"" + filepath.Join(s.dir, "state") + "\"\n" + text)
}

func (s *site) raw(text string) {
	s.t.Helper()
	s.must(os.WriteFile(s.config, []byte(text), 0o600))
}

func (s *site) load() Conf { return LoadNow(s.config) }

// keep loads a configuration that has no fault, and keeps the copy.
func (s *site) keep() {
	s.t.Helper()
	c := s.load()
	if c.Err != nil {
		s.t.Fatal(c.Err)
	}
	s.must(c.Keep())
}

// inode tells whether the copy was written anew.
func (s *site) inode() uint64 {
	s.t.Helper()
	info, err := os.Stat(s.paths.LastGood)
	s.must(err)
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestLastGood(t *testing.T) {
	s := newSite(t, "[policy]\nmin_length = 12\n[policy.staff]\nfilter = \"(a=b)\"\nprecedence = 1\nmin_length = 15\n[hook]\non_capture_error = \"refuse\"\n[directory]\nproof = \"aes256\"\n")
	if c := s.load(); c.Err != nil || c.Policy.MinLength != 12 {
		t.Fatalf("%+v", c)
	}
	s.keep()
	text, err := os.ReadFile(s.config)
	s.must(err)
	info, err := os.Stat(s.config)
	s.must(err)

	for name, spoil := range map[string]func(){
		"no TOML":          func() { s.write("[policy]\nmin_length = 9\n!!!") },
		"unknown key":      func() { s.write("[policy]\nmin_lenght = 9\n") },
		"unknown section":  func() { s.write("[polcy]\nmin_length = 9\n") },
		"a named policy":   func() { s.write("[policy]\nmin_length = 9\n[policy.staff]\n") },
		"another section":  func() { s.write("[policy]\nmin_length = 9\n[directory]\nproof = \"x\"\n") },
		"cut off in a key": func() { s.must(os.Truncate(s.config, info.Size()-4)) },
	} {
		spoil()
		c := s.load()
		if c.Err == nil || c.Policy.MinLength != 12 || len(c.Policies) != 1 || c.Policies[0].Policy.MinLength != 15 || c.Hook.OnCaptureError != config.Refuse || c.Proof != config.AES256 {
			t.Errorf("%s: the last good configuration does not hold: %+v", name, c)
		}
		if !c.Since.Equal(info.ModTime()) || c.NoCopy != nil {
			t.Errorf("%s: of %v, not %v (%v)", name, c.Since, info.ModTime(), c.NoCopy)
		}
		s.must(c.Keep())
		s.raw(string(text))
	}
	if copied, err := os.ReadFile(s.paths.LastGood); err != nil || string(copied) != string(text) {
		t.Errorf("the copy has changed: %q, %v", copied, err)
	}

	// Others' faults leave the file in force.
	s.write("[policy]\nmin_length = 9\n[target.x]\ntype = \"y\"\n")
	if c := s.load(); c.Err != nil || c.Policy.MinLength != 9 {
		t.Errorf("%+v", c)
	}
}

func fallenBack(usable config.HookConfig) Conf {
	return attempt.Run(func(c *attempt.Course) Conf { return fallback(c, usable, fs.ErrNotExist) })
}

// Without state_dir in it, a file that is missing or empty is of the default folder, so these have the copy there.
func TestLastGoodOfDefaultFolder(t *testing.T) {
	s := newSite(t, "[policy]\nmin_length = 12\n")
	s.keep()
	usable := config.BuiltinHook()
	usable.StateDir = filepath.Join(s.dir, "state")
	if c := fallenBack(usable); c.Policy.MinLength != 12 || c.Since.IsZero() || !errors.Is(c.Err, fs.ErrNotExist) {
		t.Errorf("%+v", c)
	}
	// A copy that is of another folder is of another installation.
	s.must(os.Rename(filepath.Join(s.dir, "state"), filepath.Join(s.dir, "moved")))
	usable.StateDir = filepath.Join(s.dir, "moved")
	if c := fallenBack(usable); !c.Since.IsZero() || c.Policy.MinLength != 8 {
		t.Errorf("%+v", c)
	}
}

func TestNoCopy(t *testing.T) {
	broken := "[policy]\nmode = \"off\"\nx = 1\n"
	s := newSite(t, broken)
	if c := s.load(); c.Err == nil || c.NoCopy != nil || !c.Since.IsZero() || c.Policy.Mode != config.Enforce {
		t.Errorf("without a copy: %+v", c)
	}
	for name, spoil := range map[string]func(){
		"loose modes": func() { s.must(os.Chmod(s.paths.LastGood, 0o622)) },
		"a link": func() {
			s.must(os.Rename(s.paths.LastGood, s.paths.LastGood+"2"))
			s.must(os.Symlink(s.paths.LastGood+"2", s.paths.LastGood))
		},
		"a second name": func() { s.must(os.Link(s.paths.LastGood, s.paths.LastGood+"3")) },
		"a pipe": func() {
			s.must(os.Remove(s.paths.LastGood))
			s.must(syscall.Mkfifo(s.paths.LastGood, 0o600))
		},
		"rubbish": func() { s.must(os.WriteFile(s.paths.LastGood, []byte("!"), 0o600)) },
	} {
		_ = os.Remove(s.paths.LastGood)
		s.write("[policy]\nmode = \"off\"\n")
		s.keep()
		spoil()
		s.write(broken)
		if c := s.load(); c.Err == nil || c.NoCopy == nil || !c.Since.IsZero() || c.Policy.Mode != config.Enforce {
			t.Errorf("%s: %+v", name, c)
		}
		// The next file without a fault mends it.
		s.write("[policy]\nmode = \"off\"\nmin_length = 9\n")
		s.keep()
		s.write(broken)
		if c := s.load(); c.Policy.MinLength != 9 || c.NoCopy != nil {
			t.Errorf("%s: not mended: %+v", name, c)
		}
	}
}

// An empty file is one that somebody is about to write, or that a full disk left: a fault, whether there is a copy or not. Passwords are kept.
func TestEmptyFile(t *testing.T) {
	s := newSite(t, "[policy]\nmin_length = 12\n")
	s.raw("")
	c := s.load()
	if c.Err == nil || !strings.Contains(c.Err.Error(), "is empty") || c.NoTarget {
		t.Errorf("%v, no target: %v", c.Err, c.NoTarget)
	}
	s.must(c.Keep())
}

// A state folder that hangs costs the compiled form, and nothing of what the file says.
func TestStateFolderHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "[policy]\nmin_length = 12\n")
		s.keep()
		began := time.Now()
		c := attempt.Run(func(course *attempt.Course) Conf {
			return load(course, s.config, func([]byte) compiled { time.Sleep(time.Hour); return compiled{ok: true} })
		})
		if c.Err != nil || c.Policy.MinLength != 12 || c.compiled || c.key != (config.CompiledKey{}) {
			t.Errorf("%+v", c)
		}
		if took := time.Since(began); took < compiledPatience || took > 2*compiledPatience {
			t.Errorf("took %v", took)
		}
		time.Sleep(2 * time.Hour) // what was given up ends, and nothing comes of it
	})
}

// The copy is written when the file has changed, and only then.
func TestKeep(t *testing.T) {
	s := newSite(t, "[policy]\nmin_length = 12\n")
	s.keep()
	first := s.inode()
	info, err := os.Stat(s.paths.LastGood)
	s.must(err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	s.keep()
	if s.inode() != first {
		t.Error("written anew without a change")
	}

	old := time.Now().Add(-100 * time.Hour)
	for _, step := range []struct {
		name string
		text string
		at   time.Time
		anew bool
	}{
		{"changed", "[policy]\nmin_length = 13\n", time.Time{}, true},
		{"restored, with an old time", "[policy]\nmin_length = 12\n", old, true},
		{"of the same time and size", "[policy]\nmin_length = 14\n", old, true},
		{"touched only", "[policy]\nmin_length = 14\n", old.Add(time.Hour), false},
		{"of the future", "[policy]\nmin_length = 15\n", time.Now().Add(time.Hour), true},
	} {
		before := s.inode()
		s.write(step.text)
		if !step.at.IsZero() {
			s.must(os.Chtimes(s.config, step.at, step.at))
		}
		s.keep()
		if anew := s.inode() != before; anew != step.anew {
			t.Errorf("%s: written anew: %v", step.name, anew)
		}
		if copied, err := os.ReadFile(s.paths.LastGood); err != nil || !strings.HasSuffix(string(copied), step.text) {
			t.Errorf("%s: the copy holds %q, %v", step.name, copied, err)
		}
		before = s.inode()
		s.keep()
		if s.inode() != before {
			t.Errorf("%s: written anew at once", step.name)
		}
	}
}

// Nothing that is wrong with the folder is more than an error to be logged.
func TestKeepNowhere(t *testing.T) {
	s := newSite(t, "[policy]\nmin_length = 12\n")
	s.must(os.Remove(s.paths.Hook))
	s.keep() // an older installation
	if info, err := os.Stat(s.paths.Hook); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}

	s.must(os.RemoveAll(s.paths.Hook))
	s.must(os.WriteFile(s.paths.Hook, nil, 0o600))
	if err := s.load().Keep(); err == nil {
		t.Error("a file in place of the folder is no error")
	}

	s.must(os.RemoveAll(filepath.Join(s.dir, "state")))
	s.keep() // before init

	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	s.must(os.MkdirAll(s.paths.Hook, 0o700))
	if err := syscall.Mount("tmpfs", s.paths.Hook, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	defer syscall.Unmount(s.paths.Hook, syscall.MNT_DETACH)
	s.keep()
	s.write("[policy]\nmin_length = 13\n# " + strings.Repeat("x", 5000))
	if err := s.load().Keep(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full: %v", err)
	}
	s.write("!")
	if c := s.load(); c.Policy.MinLength != 12 {
		t.Errorf("the copy is gone with the room: %+v", c)
	}
	s.must(syscall.Mount("tmpfs", s.paths.Hook, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	s.write("[policy]\nmin_length = 13\n")
	if err := s.load().Keep(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("read-only: %v", err)
	}
}

// While one hook writes the copy, another leaves it.
func TestKeepAtOnce(t *testing.T) {
	s := newSite(t, "[policy]\nmin_length = 12\n")
	folder, err := os.Open(s.paths.Hook)
	s.must(err)
	defer folder.Close()
	s.must(syscall.Flock(int(folder.Fd()), syscall.LOCK_EX))
	s.keep()
	if _, err := os.Stat(s.paths.LastGood); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("written all the same: %v", err)
	}
	s.must(syscall.Flock(int(folder.Fd()), syscall.LOCK_UN))

	done := make(chan error)
	for range 8 {
		go func() {
			for range 20 {
				if err := LoadNow(s.config).Keep(); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		s.must(<-done)
	}
	s.write("!")
	if c := s.load(); c.Policy.MinLength != 12 {
		t.Errorf("%+v", c)
	}
}

// The compiled configuration says what the text says, and is gone by only as long as that is the text.
func TestCompiledConfig(t *testing.T) {
	s := newSite(t, "[policy]\nmin_length = 12\naudit = [\"walk\"]\n[policy.staff]\nfilter = \"(a=b)\"\nprecedence = 1\n"+twoTargets)
	parsed := s.load()
	if parsed.compiled {
		t.Fatal("there is none yet")
	}
	s.keep()
	c := s.load()
	if !c.compiled || !reflect.DeepEqual(c.HookConfig, parsed.HookConfig) || c.Err != nil {
		t.Errorf("%+v, want %+v", c, parsed)
	}
	written, err := os.Stat(s.paths.Compiled)
	s.must(err)
	s.keep()
	if now, err := os.Stat(s.paths.Compiled); err != nil || !os.SameFile(now, written) {
		t.Errorf("written anew: %v", err)
	}

	info, err := os.Stat(s.config)
	s.must(err)
	text, err := os.ReadFile(s.config)
	s.must(err)
	s.raw(strings.Replace(string(text), "min_length = 12", "min_length = 13", 1))
	s.must(os.Chtimes(s.config, info.ModTime(), info.ModTime()))
	if c := s.load(); c.compiled || c.Policy.MinLength != 13 {
		t.Errorf("another text of the same size and time: %+v", c)
	}
	s.raw(string(text) + "!")
	if c := s.load(); c.Err == nil || c.compiled || c.Since.IsZero() {
		t.Errorf("a fault: %+v", c)
	}
	s.raw(string(text))

	for name, spoil := range map[string]func(){
		"loose modes": func() { s.must(os.Chmod(s.paths.Compiled, 0o666)) },
		"a link": func() {
			s.must(os.Rename(s.paths.Compiled, s.paths.Compiled+"2"))
			s.must(os.Symlink(s.paths.Compiled+"2", s.paths.Compiled))
		},
		"a pipe": func() {
			s.must(os.Remove(s.paths.Compiled))
			s.must(syscall.Mkfifo(s.paths.Compiled, 0o600))
		},
		"cut off": func() { s.must(os.Truncate(s.paths.Compiled, 100)) },
		"empty":   func() { s.must(os.Truncate(s.paths.Compiled, 0)) },
		"none":    func() { s.must(os.Remove(s.paths.Compiled)) },
	} {
		s.keep()
		if c := s.load(); !c.compiled {
			t.Fatalf("before %s: not compiled", name)
		}
		spoil()
		if c := s.load(); c.compiled || c.Err != nil || c.Policy.MinLength != 12 {
			t.Errorf("%s: %+v", name, c)
		}
	}

	// Where the state folder is not written as people write it, the text is read each time.
	s.must(os.RemoveAll(s.paths.Compiled))
	s.raw("state_dir = '" + filepath.Join(s.dir, "state") + "'\n[policy]\nmin_length = 14\n")
	s.keep()
	if _, err := os.Stat(s.paths.Compiled); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("compiled each time, for nobody: %v", err)
	}
	if c := s.load(); c.compiled || c.Policy.MinLength != 14 || c.Paths() != s.paths {
		t.Errorf("%+v", c)
	}
}

func BenchmarkLoad(b *testing.B) {
	s := newSite(b, "[policy]\nmin_length = 12\n")
	s.keep()
	for b.Loop() {
		c := s.load()
		if c.Err != nil || c.Keep() != nil {
			b.Fatal(c.Err)
		}
	}
}
