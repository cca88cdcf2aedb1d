package survey

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func hashOf(password string) []byte {
	hash := dsdb.NTHash(checkpassword.UTF16LE([]byte(password)))
	return hash[:]
}

// holding makes an account as the directory tells of it. Versions are those of unicodePwd and supplementalCredentials.
func holding(name, password string, hash, keys uint32, control uint32, age time.Duration) directory.Account {
	a := directory.Account{SAMAccountName: name, UserAccountControl: dsdb.UFNormalAccount | control, PwdLastSet: now.Add(-age)}
	stamp := dsdb.Stamp{Version: hash, Time: now.Add(-age)}
	a.MetaData = dsdb.MetaData{{AttID: dsdb.AttIDUnicodePwd, Stamp: stamp}}
	if keys > 0 {
		stamp.Version = keys
		a.MetaData = append(a.MetaData, dsdb.AttributeStamp{AttID: dsdb.AttIDSupplementalCredentials, Stamp: stamp})
	}
	a.Stamp, _ = a.MetaData.Password()
	a.NTHash = hashOf(password)
	return a
}

// file is a file of breached passwords.
type file struct {
	passwords []string
	asked     []string // hashes in hex
	err       error
}

func (f *file) Holds(hash []byte) (bool, error) {
	f.asked = append(f.asked, hex.EncodeToString(hash))
	return slices.ContainsFunc(f.passwords, func(p string) bool { return bytes.Equal(hashOf(p), hash) }), f.err
}

// report runs a survey, and has the hashes cleared where they came from, as the scan does.
func report(t *testing.T, o Options, accounts ...directory.Account) *Report {
	t.Helper()
	o.Now = now
	s := New(o)
	defer s.Close()
	for _, a := range accounts {
		if err := s.Add(a); err != nil {
			t.Fatal(err)
		}
		clear(a.NTHash)
	}
	r, err := s.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// text writes a list as names with marks.
func text(list []Account) string {
	if list == nil {
		return "not asked for"
	}
	var names []string
	for _, a := range list {
		name := a.Name
		if a.Disabled {
			name += "/off"
		}
		if a.MustChange {
			name += "/must"
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

const day = 24 * time.Hour

func domain() []directory.Account {
	unhashed := holding("newstyle", "", 3, 2, 0, day)
	unhashed.NTHash = nil
	guest := holding("Guest", "", 1, 0, dsdb.UFAccountDisable|dsdb.UFPasswordNotRequired, day)
	guest.NTHash, guest.PwdLastSet = nil, time.Time{}
	must := holding("fresh", "Willkommen2026", 2, 1, 0, day)
	must.PwdLastSet = time.Time{}
	return []directory.Account{
		holding("zoe", "Schule2026!", 2, 1, 0, 10*day),
		holding("Bob", "Schule2026!", 2, 1, 0, 10*day),
		holding("alice", "Schule2026!", 4, 3, 0, 400*day),
		holding("left", "correct horse", 5, 4, dsdb.UFAccountDisable, 800*day),
		holding("svc", "correct horse", 5, 4, dsdb.UFReversibleEncryption, 365*day),
		holding("carol", "carol1", 3, 2, 0, day),
		holding("void", "", 3, 2, 0, day),
		holding("void2", "", 3, 2, dsdb.UFAccountDisable, day),
		holding("eve", "dE8!rl0s3.qa", 3, 2, 0, day),
		must, unhashed, guest,
		{SAMAccountName: "odd", Unreadable: errors.New("nonsense")},
	}
}

func TestReport(t *testing.T) {
	f := &file{passwords: []string{"Schule2026!", "Willkommen2026", "", "nobody's"}}
	r := report(t, Options{Breached: f, Words: strings.NewReader("# a remark\r\n\r\n schule \nzzz\n"), OlderThan: 365 * day}, domain()...)
	for what, got := range map[string][2]string{
		"counts":       {fmt.Sprint(r.Accounts, r.Disabled, r.Compared, r.NotComparable, r.NoPassword), "13 3 10 1 1"},
		"breached":     {text(r.Breached), "alice Bob fresh/must zoe"}, // not those of the empty password, which is told by itself
		"guessable":    {text(r.Guessable), "alice Bob carol zoe"},
		"empty":        {text(r.Empty), "void void2/off"},
		"notRequired":  {text(r.NotRequired) + fmt.Sprint(r.NotRequired[0].Changed.IsZero()), "Guest/offtrue"},
		"reversible":   {text(r.Reversible), "svc"},
		"old":          {text(r.Old), "alice left/off"}, // exactly as old as asked about is not older
		"neverChanged": {text(r.NeverChanged), "Bob fresh/must zoe"},
		"unreadable":   {strings.Join(r.Unreadable, " "), "odd"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %s, want %s", what, got[0], got[1])
		}
	}
	var groups []string
	for _, g := range r.Shared {
		groups = append(groups, fmt.Sprint(text(g.Accounts), " ", g.NeverChanged, " ", g.Breached, " ", g.Guessable))
	}
	if got := strings.Join(groups, "; "); got != "alice Bob zoe 2 true true; left/off svc 0 false false" {
		t.Errorf("shared: %s", got)
	}
	if !r.Attention() {
		t.Error("that needs no attention")
	}
	if !slices.IsSorted(f.asked) || len(slices.Compact(f.asked)) != 5 {
		t.Errorf("the file was asked for %d hashes, in ascending order: %v; want each of 5 once", len(f.asked), slices.IsSorted(f.asked))
	}
}

// What was not asked for is null to scripts, and not an empty list.
func TestNotAskedFor(t *testing.T) {
	r := report(t, Options{}, domain()...)
	if got := text(r.Breached) + text(r.Guessable) + text(r.Old); got != strings.Repeat("not asked for", 3) {
		t.Errorf("%s", got)
	}
	written, err := json.Marshal(report(t, Options{}))
	const want = `{"accounts":0,"disabled":0,"compared":0,"not_comparable":0,"no_password":0,"breached":null,"guessable":null,` +
		`"shared":[],"empty":[],"not_required":[],"reversible":[],"old":null,"never_changed":[],"unreadable":[]}`
	if err != nil || string(written) != want {
		t.Errorf("%s, %v", written, err)
	}
}

func TestAttention(t *testing.T) {
	one, off := []Account{{Name: "a"}}, []Account{{Name: "a", Disabled: true}}
	for what, c := range map[string]struct {
		report Report
		want   bool
	}{
		"nothing":         {Report{Accounts: 9, NotComparable: 3}, false},
		"first passwords": {Report{NeverChanged: one}, false},
		"disabled":        {Report{Breached: off, NotRequired: off, Shared: []Group{{Accounts: slices.Concat(off, off)}}}, false},
		"breached":        {Report{Breached: one}, true},
		"guessable":       {Report{Guessable: one}, true},
		"empty":           {Report{Empty: one}, true},
		"not required":    {Report{NotRequired: one}, true},
		"reversible":      {Report{Reversible: one}, true},
		"old":             {Report{Old: slices.Concat(off, one)}, true},
		"unreadable":      {Report{Unreadable: []string{"a"}}, true},
		"shared with one": {Report{Shared: []Group{{Accounts: slices.Concat(off, one)}}}, true},
	} {
		if got := c.report.Attention(); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// An answer that could not be told must not pass for "nothing".
func TestFaults(t *testing.T) {
	torn := errors.New("the file is cut off")
	for _, c := range []struct {
		options Options
		says    string
	}{
		{Options{Breached: &file{err: torn}}, "looking for breached passwords: the file is cut off"},
		{Options{Words: &broken{torn}}, "guessing passwords: the file is cut off"},
		{Options{Words: strings.NewReader("good\nb\xe4d\n")}, "line 2 is not UTF-8"},
		{Options{Words: strings.NewReader("good\n" + strings.Repeat("x", 5000))}, "line 2 is longer"},
	} {
		s := New(c.options)
		if err := s.Add(holding("alice", "secret-secret", 2, 1, 0, day)); err != nil {
			t.Fatal(err)
		}
		if r, err := s.Report(t.Context()); err == nil || r != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, %v; want %s", r, err, c.says)
		}
		s.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, o := range []Options{{Breached: &file{}}, {Words: strings.NewReader("word")}} {
		s := New(o)
		if err := s.Add(holding("alice", "secret-secret", 2, 1, 0, day)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Report(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
}

type broken struct{ err error }

func (b *broken) Read([]byte) (int, error) { return 0, b.err }

// Which of 3,000 accounts share a password, told by the table and by a map.
func TestShared(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	want := map[string][]string{}
	var accounts []directory.Account
	for i := range 3000 {
		name, password := fmt.Sprintf("user%04d", i), fmt.Sprint("p", random.IntN(2000))
		want[password] = append(want[password], name)
		accounts = append(accounts, holding(name, password, 3, 2, 0, day))
	}
	r := report(t, Options{}, accounts...)
	var got, wanted []string
	for i, g := range r.Shared {
		if i > 0 && len(g.Accounts) > len(r.Shared[i-1].Accounts) {
			t.Error("the largest group is not the first")
		}
		got = append(got, text(g.Accounts))
	}
	for _, names := range want {
		if len(names) > 1 {
			wanted = append(wanted, strings.Join(names, " "))
		}
	}
	slices.Sort(got)
	slices.Sort(wanted)
	if len(got) < 100 || !slices.Equal(got, wanted) {
		t.Errorf("%d groups, want %d", len(got), len(wanted))
	}
}

// No hash outlives the survey in its tables, nor in those that it outgrew.
func TestClose(t *testing.T) {
	s := New(Options{})
	var tables [][]entry
	for i := range 5000 {
		a := holding(fmt.Sprint("user", i), fmt.Sprint("p", i), 3, 2, 0, day)
		_ = s.Add(a)
		if n := len(tables); n == 0 || &tables[n-1][0] != &s.hashes.entries[0] {
			tables = append(tables, s.hashes.entries[:cap(s.hashes.entries)])
		}
	}
	if _, err := s.Report(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := s.hashes.first
	s.Close()
	if len(tables) < 3 {
		t.Fatalf("the table grew %d times", len(tables)-1)
	}
	for _, table := range tables {
		for _, e := range table {
			if e != (entry{}) {
				t.Fatal("a hash is left")
			}
		}
	}
	if slices.Max(first) != 0 || s.hashes.entries != nil {
		t.Error("the index is left")
	}
}

func TestGuesses(t *testing.T) {
	g := newGuesser(now)
	for word, passwords := range map[string]string{
		"schule":   "schule Schule SCHULE Schule1 Schule2026! schule2027 Schule@2026 Schule26! 5chule Schule123! Schule! Schule.2025",
		"password": "P@ssw0rd P@ssw0rd1 p@$$w0rd P@$$W0RD! Passw0rd2026 P455w0rd",
		"McDonald": "McDonald McDonald1 Mcdonald1 MCDONALD",
		"münchen":  "München2026 MÜNCHEN! münchen01",
		"ǆ":        "ǆ1 Ǆ!",
		"1860":     "1860! 1860",
	} {
		for i, password := range strings.Fields(passwords) {
			got, n := false, 0
			for guess := range g.guesses(word) {
				n++
				got = got || bytes.Equal(guess[:], hashOf(password))
			}
			if want := password != "5chule" && password != "P455w0rd"; got != want {
				t.Errorf("%s: %s is guessed: %v", word, password, got)
			}
			if i == 0 {
				t.Logf("%s: %d guesses", word, n)
			}
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add([]byte("\uFEFFone\n#two\n three \r\n"))
	f.Add([]byte("\xff\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for word, err := range words(bytes.NewReader(text)) {
			if err == nil && (word == "" || word != strings.TrimSpace(word) || word[0] == '#' || strings.ContainsAny(word, "\n") || !bytes.Contains(text, []byte(word))) {
				t.Errorf("%q is told of as a word", word)
			}
			if err == nil {
				for form := range slices.Values(forms(word)) {
					if form == "" {
						t.Errorf("%q can be written as nothing", word)
					}
				}
			}
		}
	})
}

func BenchmarkGuesses(b *testing.B) {
	g, n := newGuesser(now), 0
	s := New(Options{})
	for i := range 100_000 {
		_ = s.Add(holding(fmt.Sprint("user", i), fmt.Sprint("p", i), 3, 2, 0, day))
	}
	s.hashes.sort()
	b.ReportAllocs()
	for b.Loop() {
		n = 0
		for guess := range g.guesses("password") {
			n += 1 + len(s.hashes.find(guess))
		}
	}
	b.ReportMetric(float64(n), "guesses/word")
}

// BenchmarkReport: 100,000 accounts, a tenth of which share 100 passwords.
func BenchmarkReport(b *testing.B) {
	var accounts []directory.Account
	for i := range 100_000 {
		password := fmt.Sprint("p", i)
		if i%10 == 0 {
			password = fmt.Sprint("q", i%1000)
		}
		accounts = append(accounts, holding(fmt.Sprint("user", i), password, 3, 2, 0, day))
	}
	b.ReportAllocs()
	for b.Loop() {
		s := New(Options{Now: now})
		for _, a := range accounts {
			_ = s.Add(a)
		}
		if _, err := s.Report(b.Context()); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
