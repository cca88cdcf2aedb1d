package gate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/attempt"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/words"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
)

func request(password string) Request {
	return Request{Subject: policy.Subject{Password: secret.New([]byte(password)), Account: "alice"}, Environ: os.Environ()}
}

func decide(c Conf, r Request) Verdict {
	return attempt.Run(func(course *attempt.Course) Verdict { return c.Decide(course, r, time.Now().Add(3*time.Minute)) })
}

func (s *site) decide(password string) Verdict {
	s.t.Helper()
	c := s.load()
	if c.Err != nil {
		s.t.Fatal(c.Err)
	}
	return decide(c, request(password))
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
	s.is("read by the hook", s.decide(acme), "banned", "")
	s.is("another password", s.decide("Jv7-kqWzPm"), "", "")
	if len(s.tables()) != 0 {
		t.Fatalf("stored: %v", s.tables())
	}
	s.compile()
	s.is("compiled", s.decide(acme), "banned", "")
	table := s.tables()[0]
	before, err := os.ReadFile(table)
	s.must(err)

	s.words("words", "gotham")
	s.is("changed, a new word", s.decide(town), "banned", "")
	s.is("changed, the old word", s.decide(acme), "", "")
	s.compile()
	if ailing := Ailing(s.load().HookConfig); len(ailing) != 0 {
		t.Errorf("%v", ailing)
	}

	s.must(os.Remove(file))
	s.is("gone, what was compiled holds", s.decide(town), "banned", "reading banned words: stat "+file)
	s.ails("gone", "policy.banned: reading banned words: stat "+file+": no such file or directory; those that were compiled before hold")
	s.must(os.WriteFile(file, []byte("\xff\xfe\n"), 0o600))
	s.is("no text, what was compiled holds", s.decide(town), "banned", "not UTF-8")
	many := append([]string{"acmecorp"}, strings.Split(strings.Repeat("# much\n", unremarked/6), "\n")...)
	s.words("words", many...)
	v := s.decide(acme)
	s.is("many, and not compiled", v, "banned", "each password has all of them read")
	if !v.Troubles[0].Minor {
		t.Errorf("%+v", v.Troubles)
	}
	s.ails("just changed")
	s.must(os.Remove(table))
	s.is("many, and nothing compiled", s.decide(acme), "banned", "each password has all of them read")

	s.words("words", "acmecorp")
	for name, spoiled := range map[string][]byte{"cut off": before[:20], "empty": {}, "rubbish": bytes.Repeat([]byte("x"), 4096)} {
		s.must(os.WriteFile(table, spoiled, 0o600))
		s.is(name, s.decide(acme), "banned", "damaged")
		s.ails(name, "the table of banned words is damaged")
		s.compile()
		s.is(name+", mended", s.decide(acme), "banned", "")
		s.ails(name + ", mended")
	}

	s.must(os.RemoveAll(s.paths.Policy))
	s.is("no folder", s.decide(acme), "banned", "")
	s.must(os.Remove(file))
	s.is("neither table nor words", s.decide(acme), "", "no word is banned")
	s.ails("neither table nor words", "no word is banned")
	s.must(os.WriteFile(file, nil, 0o600))
	s.must(os.Remove(file))
	s.must(syscall.Mkfifo(file, 0o600))
	s.is("a pipe is not waited for", s.decide(acme), "", "is no file")
}

// compile is what serve does.
func (s *site) compile() {
	s.t.Helper()
	c := s.load()
	s.must(CompileWords(c.HookConfig, c.Written(), func([]string, words.Report) {}))
}

// ails checks what Ailing tells.
func (s *site) ails(what string, want ...string) {
	s.t.Helper()
	got := Ailing(s.load().HookConfig)
	if len(got) != len(want) {
		s.t.Errorf("%s: %v, want %q", what, got, want)
		return
	}
	for i := range got {
		if !strings.Contains(got[i].Error(), want[i]) {
			s.t.Errorf("%s: %v, want %q", what, got[i], want[i])
		}
	}
}

// Words that cannot be read in time: what was compiled before holds, and that is said.
func TestBannedWordsThatHang(t *testing.T) {
	s := newSite(t, "")
	file := s.words("words", "acmecorp")
	s.write("[policy]\nbanned = [\"" + file + "\"]\n")
	for _, tc := range []struct {
		compiled     bool
		rules, troub string
	}{{false, "", "no word is banned"}, {true, "banned", "those that were compiled before hold"}} {
		if tc.compiled {
			s.compile()
			s.words("words", "acmecorp", "gotham")
		}
		f := attempt.Run(func(course *attempt.Course) found {
			return findWords(course, s.paths, []string{file}, []byte(acme), time.Now())
		})
		if !errors.Is(f.trouble, errSlow) || !strings.Contains(f.trouble.Error(), tc.troub) || f.minor || (f.table != nil) != tc.compiled {
			t.Errorf("%+v", f)
		}
	}
}

func TestAiling(t *testing.T) {
	s := newSite(t, "")
	file := s.words("words", "acmecorp")
	gone := filepath.Join(s.dir, "gone")
	s.write("[policy]\nbreached = \"" + gone + "\"\n[policy.x]\nfilter = \"(a=b)\"\nprecedence = 1\nbanned = [\"" + gone + "\"]\nalso = [\"" + gone + " -x\"]\n" +
		"[policy.y]\nfilter = \"(a=b)\"\nprecedence = 2\nmode = \"off\"\nbanned = [\"" + gone + "\", \"" + file + "\"]\n")
	s.ails("all of them", "policy.breached: opening breached passwords", "policy.x.banned: reading banned words", "policy.x.also: stat "+gone)

	// Words that were changed long ago, and are not compiled. Nobody can set that time, so the bounds are moved.
	s.write("[policy]\nbanned = [\"" + s.words("words", strings.Repeat("# much\n", unremarked/6)) + "\"]\n")
	s.ails("uncompiled for a moment")
	list := s.load().Policy.Banned
	if err := ailingWords(s.paths, list, time.Now().Add(compiledWithin)); !errors.Is(err, errUncompiled) {
		t.Errorf("uncompiled for long: %v", err)
	}
	s.compile()
	if err := ailingWords(s.paths, list, time.Now().Add(compiledWithin)); err != nil {
		t.Errorf("compiled: %v", err)
	}
}

// A table that is cut off while it is mapped ends no process.
func TestCutOffUnderUs(t *testing.T) {
	s := newSite(t, "")
	var many []string
	for i := range 5000 {
		many = append(many, fmt.Sprintf("acme%c%c%ccorp", 'a'+i%17, 'a'+i/17%17, 'a'+i/289))
	}
	s.write("[policy]\nbanned = [\"" + s.words("words", many...) + "\"]\n")
	s.compile()
	table := s.tables()[0]
	c := s.load()
	attempt.Run(func(course *attempt.Course) bool {
		tools := &tools{course: course, conf: c, request: request(acme), until: time.Now().Add(3 * time.Minute)}
		b := tools.banned(c.Policy.Banned)
		if b == nil || len(tools.troubles) > 0 {
			t.Errorf("%v", tools.troubles)
			return false
		}
		s.must(os.Truncate(table, 0))
		if points := b.Score([]byte(acme)); points < 100 || len(tools.troubles) == 0 {
			t.Errorf("%d points, trouble %v", points, tools.troubles)
		}
		return true
	})
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

// The agent of a split installation goes by the configuration that it started with. It must not take away what `policy compile` has compiled
// since by a newer one: the hook would read all words at each password.
func TestCompileWordsByAnOlderConfiguration(t *testing.T) {
	s := newSite(t, "")
	s.write("[policy]\nbanned = [\"" + s.words("a", "acmecorp") + "\"]\n")
	older := s.load()
	time.Sleep(20 * time.Millisecond) // file times are as coarse as the kernel's clock
	s.write("[policy]\nbanned = [\"" + s.words("b", "gotham") + "\"]\n")
	s.compile()
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
		b.Run(fmt.Sprintf("uncompiled-%d", n), func(b *testing.B) {
			for b.Loop() {
				decide(c, request(acme))
			}
		})
		s.compile()
		b.Run(fmt.Sprintf("ask-%d", n), func(b *testing.B) {
			for b.Loop() {
				decide(c, request(acme))
			}
		})
	}
}
