package notice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// fake is a Sender.
type fake struct {
	mu   *sync.Mutex
	name string
	err  error
	got  []Letter
	at   []time.Time
}

func (f *fake) Name() string { return f.name }

func (f *fake) Send(_ context.Context, l Letter) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got, f.at = append(f.got, l), append(f.at, time.Now())
	return f.err
}

type log struct {
	mu *sync.Mutex
	bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

type world struct {
	*testing.T
	*Courier
	mail, command *fake
	mu            *sync.Mutex // of all that both the test and the courier touch
	log           *log
	dir           string
	stop          func()
}

func test(t *testing.T, f func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		mu := &sync.Mutex{}
		w := &world{T: t, mu: mu, mail: &fake{mu: mu, name: "mail"}, command: &fake{mu: mu, name: "command"}, log: &log{mu: mu}, dir: t.TempDir()}
		w.start()
		f(w)
		w.stop()
	})
}

func (w *world) start() {
	c, err := New(Options{Outgoing: w.dir, Senders: []Sender{w.mail, w.command}, Policies: map[string]Policy{"default": {MinLength: 8, MaxLength: 16}},
		Log: event.New(slog.New(slog.NewTextHandler(w.log, nil)))})
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	w.Courier = c
	w.stop = func() { cancel(); <-done }
	synctest.Wait()
}

func (w *world) notice(account string) change.Notice {
	now := time.Now()
	return change.Notice{
		ID: "0011", Account: change.Account{GUID: dsdb.GUID{1}, SAMAccountName: account, UserPrincipalName: account + "@upn"}, FullName: "The " + account,
		Address: account + "@example.com", Policy: "default", Rules: []string{"length", "walk"}, Times: 2, First: now, Last: now,
	}
}

func (w *world) put(n change.Notice) {
	w.Helper()
	b, err := n.Marshal()
	if err != nil {
		w.Fatal(err)
	}
	out, err := spool.Open(w.dir, change.NoticeSuffix)
	if err != nil {
		w.Fatal(err)
	}
	if err := out.Put(change.NoticeFile(time.Now(), n.ID+n.Account.SAMAccountName), b); err != nil {
		w.Fatal(err)
	}
}

func (w *world) left() int {
	names, err := filepath.Glob(w.dir + "/*")
	if err != nil {
		w.Fatal(err)
	}
	return len(names)
}

// sleep lets the courier work: what the test did before, it sees, and what it did, the test sees afterwards.
func (w *world) sleep(d time.Duration) {
	w.mu.Lock()
	w.mu.Unlock() //lint:ignore SA2001 it orders what the test did before what the courier does
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) logged(event string) int { return strings.Count(w.log.String(), "event="+event+" ") }

func TestTells(t *testing.T) {
	test(t, func(w *world) {
		w.put(w.notice("alice"))
		w.sleep(2 * lookEvery)
		if len(w.mail.got) != 1 || len(w.command.got) != 1 || w.left() != 0 || w.logged("notice-sent") != 2 {
			t.Fatalf("mail %d, command %d, left %d, log %s", len(w.mail.got), len(w.command.got), w.left(), w.log)
		}
		l := w.mail.got[0]
		want := Letter{
			ID: "0011", Account: "alice", GUID: dsdb.GUID{1}.String(), UserPrincipalName: "alice@upn", FullName: "The alice", Mail: "alice@example.com", Policy: "default",
			Rules: []Rule{
				{"length", "it is too short or too long: it needs 8 to 16 characters"},
				{"walk", "it is little else than neighbouring keys, a sequence or a repetition, like qwertz, 1234 or aaaa"},
			},
			Times: 2, First: l.First, Last: l.Last, MinLength: 8, MaxLength: 16,
		}
		if fmt.Sprintf("%+v", l) != fmt.Sprintf("%+v", want) {
			t.Errorf("got  %+v\nwant %+v", l, want)
		}
		if s := w.Status(); s != (Status{Sent: 2}) {
			t.Errorf("%+v", s)
		}
	})
}

// What fails for the moment is tried again, by whom it failed, for an hour.
func TestTriesAgain(t *testing.T) {
	test(t, func(w *world) {
		w.mail.err = fmt.Errorf("connecting: %w", ErrNotNow)
		w.put(w.notice("alice"))
		w.sleep(10 * time.Minute)
		if len(w.command.got) != 1 || len(w.mail.got) < 4 || len(w.mail.got) > 6 || w.left() != 1 || w.logged("notice-late") != 1 || w.Status().Waiting != 1 {
			t.Errorf("command %d, mail %d, left %d, log %s", len(w.command.got), len(w.mail.got), w.left(), w.log)
		}
		w.mail.err = nil
		w.sleep(10 * time.Minute)
		if w.left() != 0 || w.logged("notice-sent") != 2 {
			t.Errorf("left %d, log %s", w.left(), w.log)
		}

		w.mail.err = fmt.Errorf("connecting: %w", ErrNotNow)
		w.put(w.notice("bob"))
		w.sleep(keepFor / 2)
		w.stop() // a restart gives no more time
		w.start()
		w.sleep(keepFor/2 + lastPause + 2*lookEvery)
		if w.left() != 0 || w.logged("notice-lost") != 1 || w.Status().Waiting != 0 {
			t.Errorf("left %d, log %s", w.left(), w.log)
		}
	})
}

func TestGivesUp(t *testing.T) {
	test(t, func(w *world) {
		w.mail.err = errors.New("no such user")
		w.put(w.notice("alice"))
		w.sleep(2 * lookEvery)
		if len(w.mail.got) != 1 || w.left() != 0 || w.logged("notice-lost") != 1 || w.Status() != (Status{Sent: 1, Lost: 1}) {
			t.Errorf("mail %d, left %d, %+v, log %s", len(w.mail.got), w.left(), w.Status(), w.log)
		}
	})
}

// A server that is down is not asked a hundred times in a row, and does not keep the others from their notices.
func TestDown(t *testing.T) {
	test(t, func(w *world) {
		w.mail.err = ErrNotNow
		for i := range 100 {
			w.put(w.notice(fmt.Sprint("user", i)))
		}
		w.sleep(lookEvery + time.Second)
		if len(w.command.got) != 100 || len(w.mail.got) != patience {
			t.Errorf("command %d, mail %d", len(w.command.got), len(w.mail.got))
		}
		w.mail.err = nil
		w.sleep(10 * time.Minute)
		if len(w.mail.got) != 100+patience || w.left() != 0 {
			t.Errorf("mail %d, left %d", len(w.mail.got), w.left())
		}
	})
}

func TestDamaged(t *testing.T) {
	test(t, func(w *world) {
		name := change.NoticeFile(time.Now(), "torn")
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.put(w.notice("alice"))
		w.sleep(lookEvery + time.Second)
		if w.logged("notice-damaged") != 0 || len(w.mail.got) != 1 {
			t.Errorf("log %s", w.log)
		}
		w.sleep(tornFor + lookEvery)
		if _, err := os.Stat(filepath.Join(w.dir, "damaged", name)); err != nil || w.logged("notice-damaged") != 1 {
			t.Errorf("%v, log %s", err, w.log)
		}
	})
}

// What the directory holds is never more than a word in a line.
func TestHostileValues(t *testing.T) {
	test(t, func(w *world) {
		n := w.notice("alice")
		n.FullName = "Eve\r\nBcc: all@example.com\r\n\r\n\u202eevil\u0000" + strings.Repeat("x", 1000)
		n.Rules = []string{"new\nrule"}
		n.Policy = "no\tsuch"
		n.Address = "alice@example.com\r\nBcc: all@example.com"
		w.put(n)
		w.sleep(lookEvery + time.Second)
		l := w.mail.got[0]
		if text := l.FullName + l.Policy + l.Rules[0].Name + l.Rules[0].Reason; strings.ContainsAny(text, "\r\n\t\u202e\x00") || len(l.FullName) > 300 {
			t.Errorf("%+q", text)
		}
		if l.Mail != "" {
			t.Errorf("to %q", l.Mail)
		}
		if l.MinLength != 0 {
			t.Errorf("length %d of a policy that is not known", l.MinLength)
		}
	})
	for address, want := range map[string]bool{
		"alice@example.com": true, "a.b+c@x.example.com": true, "zoë@bücher.example": true, "o'neil@example.com": true,
		"": false, "alice": false, "@example.com": false, "alice@": false, "a b@example.com": false, "\"a b\"@example.com": false,
		"a@b@c": false, "a@b\r\nBcc: c@d": false, "a@b,c@d": false, "Alice <a@b>": false, "a@b>": false, "a@[127.0.0.1]": false, "-f@x.example": false,
		"a@-x.example": false, ".a@b": false, "a..b@c": false, "a@b.": false, "a@b;c": false, "a@b(c)": false, "a\x00@b": false, "\xff@b": false, strings.Repeat("a", 255) + "@b": false,
	} {
		if got := isAddress(address); got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
}

func FuzzIsAddress(f *testing.F) {
	f.Add("alice@example.com")
	f.Fuzz(func(t *testing.T, s string) {
		if isAddress(s) && strings.ContainsAny(s, " \r\n\t<>\"(),;:[]\\\x00\u2028\u2029") {
			t.Errorf("%q", s)
		}
		if w := word(s); strings.ContainsAny(w, "\r\n\t\x00\u2028\u2029\u202e") {
			t.Errorf("%q", w)
		}
	})
}

// Each rule that there is has words of its own.
func TestEachRuleHasWords(t *testing.T) {
	seen := map[string]bool{}
	for _, rule := range append(config.Rules, "another") {
		words := reason(rule, Policy{})
		if seen[words] || strings.Contains(words, `"`+rule+`"`) != (rule == "another") {
			t.Errorf("%s: %s", rule, words)
		}
		seen[words] = true
	}
	if a, b := reason("complexity", Policy{}), reason("complexity", Policy{Tiers: true}); a == b {
		t.Errorf("with tiers and without: %s", a)
	}
}

func TestText(t *testing.T) {
	standard, err := ParseText(Standard)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 0, 0, time.Local)
	l := Letter{Account: "alice", Times: 1, First: at, Last: at, Rules: []Rule{{"length", "it is too short"}, {"walk", "it is a walk"}}}
	got, err := standard.For(l)
	if err != nil {
		t.Fatal(err)
	}
	const want = `Hello alice,

a new password for your account alice was not accepted
(2 January 2026, 03:04). If you have chosen another one since that was
accepted, all is well.

What was wrong with it:

  - it is too short
  - it is a walk

Else please choose another one, and try again. A few words that have nothing to do
with each other, or with you, are hard to guess and easy to remember.

If you did not try to change your password, somebody did who knows it, or an
administrator. Tell your help desk.

This mail was written by a machine. Nobody will ever ask you for your password.
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	l.Audit, l.FullName = true, "Alice"
	if got, err = standard.For(l); err != nil || !strings.Contains(got, "Hello Alice,\n\nthe new password of your account alice was accepted, but would not be\n") {
		t.Errorf("%v\n%s", err, got)
	}
	for name, source := range map[string]string{
		"syntax": "{{if}}", "no such field": "{{.Password}}", "only where audited": "{{if .Audit}}{{.Nothing}}{{end}}", "endless": "{{range .Rules}}{{printf \"%070000d\" 1}}{{end}}",
	} {
		if _, err := ParseText(source); err == nil {
			t.Errorf("%s: was accepted", name)
		}
	}
}
