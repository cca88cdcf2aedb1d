package gate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/words"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
)

func request(password string) Request {
	return Request{Subject: policy.Subject{Password: secret.New([]byte(password)), Account: "alice"}, Environ: os.Environ()}
}

func (s *site) decide(password string) Verdict {
	s.t.Helper()
	c := s.load()
	if c.Err != nil {
		s.t.Fatal(c.Err)
	}
	return c.Decide(request(password), time.Now().Add(3*time.Minute))
}

// words writes a file of words, and returns its path.
func (s *site) words(name string, all ...string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	s.must(os.WriteFile(path, []byte(strings.Join(all, "\n")+"\n"), 0o600))
	return path
}

func (s *site) tables() []string {
	all, err := filepath.Glob(filepath.Join(s.paths.Policy, "*"))
	s.must(err)
	return all
}

// is checks rules that refuse, and whether there is trouble that says so.
func (s *site) is(what string, v Verdict, rules string, trouble string) {
	s.t.Helper()
	if got := strings.Join(v.Rules(false), " "); got != rules {
		s.t.Errorf("%s: refused for %q, want %q", what, got, rules)
	}
	if got := fmt.Sprint(v.Troubles); (trouble == "") != (len(v.Troubles) == 0) || !strings.Contains(got, trouble) {
		s.t.Errorf("%s: trouble %v, want %q", what, got, trouble)
	}
}

const acme, town = "Acmecorp1!", "Gotham1!"

func TestBannedWords(t *testing.T) {
	s := newSite(t, "")
	file := s.words("words", "acmecorp")
	s.write("[policy]\nbanned = [\"" + file + "\"]\n")
	s.is("compiled by the hook", s.decide(acme), "banned", "")
	s.is("another password", s.decide("Jv7-kqWzPm"), "", "")
	if len(s.tables()) != 1 {
		t.Fatalf("stored: %v", s.tables())
	}
	table := s.tables()[0]
	before, err := os.ReadFile(table)
	s.must(err)
	stat, err := os.Stat(table)
	s.must(err)
	s.is("again", s.decide(acme), "banned", "")
	if now, err := os.Stat(table); err != nil || !os.SameFile(now, stat) {
		t.Errorf("compiled again without need: %v", err)
	}

	s.words("words", "gotham")
	s.is("changed, a new word", s.decide(town), "banned", "")
	s.is("changed, the old word", s.decide(acme), "", "")

	s.must(os.Remove(file))
	s.is("gone, what was compiled holds", s.decide(town), "banned", "reading banned words: stat "+file)
	s.must(os.WriteFile(file, []byte("\xff\xfe\n"), 0o600))
	s.is("no text, what was compiled holds", s.decide(town), "banned", "reading banned words")
	s.words("words", append([]string{"acmecorp"}, strings.Split(strings.Repeat("# much\n", compileHere/6), "\n")...)...)
	s.is("large, what was compiled holds", s.decide(town), "banned", "too large to be compiled here")
	s.must(CompileWords(s.load().HookConfig, time.Now(), func([]string, words.Report) {}))
	s.is("large, compiled by the agent", s.decide(acme), "banned", "")
	s.must(os.Remove(table))
	s.is("large, and nothing there", s.decide(acme), "banned", "")
	s.must(os.Remove(table))
	s.words("words", append([]string{"acmecorp"}, strings.Split(strings.Repeat("# much\n", compileFirst/6), "\n")...)...)
	s.is("too large", s.decide(acme), "", "until then no word is banned")

	s.words("words", "acmecorp")
	for name, spoiled := range map[string][]byte{"cut off": before[:20], "empty": {}, "rubbish": bytes.Repeat([]byte("x"), 4096)} {
		s.must(os.WriteFile(table, spoiled, 0o600))
		s.is(name, s.decide(acme), "banned", "")
		s.is(name+", mended", s.decide(acme), "banned", "")
	}

	// An installation that was made before there was a folder for them gets one; without a place the words are compiled each time.
	s.must(os.RemoveAll(s.paths.Policy))
	s.is("no folder", s.decide(acme), "banned", "")
	if info, err := os.Stat(s.paths.Policy); err != nil || info.Mode().Perm() != 0o700 || len(s.tables()) != 1 {
		t.Errorf("%v, %v, stored: %v", info, err, s.tables())
	}
	s.must(os.RemoveAll(s.paths.Policy))
	s.must(os.WriteFile(s.paths.Policy, nil, 0o600))
	s.is("no place", s.decide(acme), "banned", "storing banned words")
	s.must(os.Remove(file))
	s.is("neither table nor words", s.decide(acme), "", "reading banned words")
}

// A table that is cut off while it is mapped ends no process.
func TestCutOffUnderUs(t *testing.T) {
	s := newSite(t, "")
	var many []string
	for i := range 5000 {
		many = append(many, fmt.Sprintf("acme%c%c%ccorp", 'a'+i%17, 'a'+i/17%17, 'a'+i/289))
	}
	s.write("[policy]\nbanned = [\"" + s.words("words", many...) + "\"]\n")
	s.decide(acme)
	table := s.tables()[0]
	c := s.load()
	tools := &tools{conf: c, request: request(acme), until: time.Now().Add(3 * time.Minute)}
	b := tools.banned(c.Policy.Banned)
	if b == nil || len(tools.troubles) > 0 {
		t.Fatal(tools.troubles)
	}
	s.must(os.Truncate(table, 0))
	if points := b.Score([]byte(acme)); points < 100 || len(tools.troubles) == 0 {
		t.Errorf("%d points, trouble %v", points, tools.troubles)
	}
	tools.close()
}

func TestCompileWords(t *testing.T) {
	s := newSite(t, "")
	a, b := s.words("a", "acmecorp"), s.words("b", "gotham")
	s.write("[policy]\nbanned = [\"" + a + "\"]\n[policy.x]\nfilter = \"(a=b)\"\nprecedence = 1\nbanned = [\"" + a + "\", \"" + b + "\"]\n[policy.y]\nfilter = \"(a=b)\"\nprecedence = 2\n")
	compile := func() (n int, err error) {
		c := s.load()
		err = CompileWords(c.HookConfig, c.Written(), func([]string, words.Report) { n++ })
		return n, err
	}
	if n, err := compile(); n != 2 || err != nil || len(s.tables()) != 2 {
		t.Errorf("%d compiled, %v, %v", n, err, s.tables())
	}
	if n, err := compile(); n != 0 || err != nil {
		t.Errorf("again: %d compiled, %v", n, err)
	}
	s.words("b", "gotham", "arkham")
	if n, err := compile(); n != 1 || err != nil {
		t.Errorf("one changed: %d compiled, %v", n, err)
	}
	s.must(os.Remove(b))
	if n, err := compile(); n != 0 || err == nil || len(s.tables()) != 2 {
		t.Errorf("one gone: %d compiled, %v, %v", n, err, s.tables())
	}
	s.write("")
	if n, err := compile(); n != 0 || err != nil || len(s.tables()) != 0 {
		t.Errorf("none wanted: %d compiled, %v, %v", n, err, s.tables())
	}
}

// The agent of a split installation goes by the configuration that it started with. It must not take away what the hook, or
// `policy compile`, has compiled since by a newer one: banned words would be compiled at each password, or, if many, not hold.
func TestCompileWordsByAnOlderConfiguration(t *testing.T) {
	s := newSite(t, "")
	s.write("[policy]\nbanned = [\"" + s.words("a", "acmecorp") + "\"]\n")
	older := s.load()
	time.Sleep(20 * time.Millisecond) // file times are as coarse as the kernel's clock
	s.write("[policy]\nbanned = [\"" + s.words("b", "gotham") + "\"]\n")
	s.is("by the newer configuration", s.decide(town), "banned", "")
	newer := s.tables()
	s.must(CompileWords(older.HookConfig, older.Written(), func([]string, words.Report) {}))
	if got := s.tables(); len(newer) != 1 || len(got) != 2 || !slices.Contains(got, newer[0]) {
		t.Errorf("%v; after the agent %v", newer, got)
	}
}

func BenchmarkBanned(b *testing.B) {
	for _, n := range []int{100_000} {
		s := newSite(b, "")
		var many []string
		for i := range n {
			many = append(many, fmt.Sprintf("w%xord%x", i*7919, i))
		}
		s.write("[policy]\nbanned = [\"" + s.words("words", many...) + "\"]\n")
		c := s.load()
		b.Run(fmt.Sprintf("compile-%d", n), func(b *testing.B) {
			for b.Loop() {
				s.must(os.RemoveAll(wordsFile(s.paths, c.Policy.Banned)))
				c.Decide(request(acme), time.Now().Add(time.Minute))
			}
		})
		b.Run(fmt.Sprintf("ask-%d", n), func(b *testing.B) {
			for b.Loop() {
				c.Decide(request(acme), time.Now().Add(time.Minute))
			}
		})
	}
}

// After a change of the words, one of many hooks at the same time compiles them, and the others wait for it.
func TestCompiledOnce(t *testing.T) {
	s := newSite(t, "")
	file := s.words("words", "acmecorp")
	paths, path := s.paths, wordsFile(s.paths, []string{file})
	s.must(os.MkdirAll(paths.Policy, 0o700))
	folder, err := lockFolder(paths.Policy, 0) // one that is compiling
	s.must(err)
	done := make(chan found, 8)
	for range cap(done) {
		go func() { done <- findWords(paths, []string{file}) }()
	}
	select {
	case f := <-done:
		t.Fatalf("did not wait: %v", f.trouble)
	case <-time.After(200 * time.Millisecond):
	}
	tag, _, err := state([]string{file})
	s.must(err)
	b, _, err := words.CompileFiles(tag, file)
	s.must(err)
	s.must(replaceWords(path, b))
	before, err := os.Stat(path)
	s.must(err)
	s.must(folder.Close())
	for range cap(done) {
		if f := <-done; f.trouble != nil || f.table == nil || f.table.Score([]byte(acme)) >= 5 {
			t.Errorf("%+v", f)
		}
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(now, before) {
		t.Errorf("compiled again: %v", err)
	}

	// One that does not come to an end is not waited for any longer than for one's own.
	folder, err = lockFolder(paths.Policy, 0)
	s.must(err)
	defer folder.Close()
	s.words("words", "gotham")
	if f := findWords(paths, []string{file}); !errors.Is(f.trouble, errSlow) || f.table == nil || f.table.Score([]byte(acme)) >= 5 {
		t.Errorf("%+v", f)
	}
}
