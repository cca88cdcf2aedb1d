package notices

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/refusal"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// fake is a directory in which an account's filters match it by name.
type fake struct {
	accounts map[string]directory.Account
	excluded string
	down     error
	asked    int
}

func (f *fake) AccountByName(_ context.Context, name string, attrs []string) (directory.Account, error) {
	f.asked++
	a, ok := f.accounts[strings.ToLower(name)]
	switch {
	case f.down != nil:
		return directory.Account{}, f.down
	case !ok:
		return directory.Account{}, directory.ErrNotFound
	}
	shown := map[string]string{}
	for _, name := range attrs {
		if v, ok := a.Attributes[name]; ok {
			shown[name] = v
		}
	}
	a.Attributes = shown
	return a, nil
}

func (f *fake) Matches(_ context.Context, guid dsdb.GUID, filter string) (bool, error) {
	return filter == "(excluded=x)" && f.accounts[f.excluded].GUID == guid, nil
}

func (f *fake) Protected(_ context.Context, guid dsdb.GUID) (bool, error) {
	return f.accounts["administrator"].GUID == guid, nil
}

type world struct {
	*testing.T
	*Notices
	dc  *fake
	log *bytes.Buffer
}

// test runs f in a bubble, with the accounts alice, bob, carol, ….
func test(t *testing.T, change func(*Options), f func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, log: &bytes.Buffer{}, dc: &fake{accounts: map[string]directory.Account{}, excluded: "excluded"}}
		for i, name := range []string{"alice", "bob", "carol", "administrator", "excluded", "disabled"} {
			a := directory.Account{GUID: dsdb.GUID{byte(i + 1)}, SAMAccountName: name, UserPrincipalName: name + "@upn",
				Attributes: map[string]string{"mail": name + "@example.com", "displayName": "The " + name}}
			if name == "disabled" {
				a.UserAccountControl = dsdb.UFAccountDisable
			}
			w.dc.accounts[name] = a
		}
		out, err := spool.Open(t.TempDir(), ".notice")
		if err != nil {
			t.Fatal(err)
		}
		routes, err := route.New([]route.Target{{Name: "cloud", UserAttribute: "mail"}}, route.Scope{Exclude: "(excluded=x)"})
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Spool: out, Routes: routes, Address: "mail", Collect: time.Minute, AccountPause: time.Hour, Hourly: 100,
			Log: event.New(slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})))}
		if change != nil {
			change(&o)
		}
		w.Notices = New(o)
		f(w)
	})
}

func refused(account string, rules ...string) refusal.Record {
	return refusal.Record{Time: time.Now(), Account: account, Policy: "default", Rules: rules}
}

// sent returns the notices that are handed over now, and takes them away.
func (w *world) sent() (notices []change.Notice) {
	w.Helper()
	if err := w.Send(w.Context(), w.dc); err != nil {
		w.Fatal(err)
	}
	names, err := w.Spool.List()
	if err != nil {
		w.Fatal(err)
	}
	for _, name := range names {
		b, err := w.Spool.Read(name, change.MaxSize)
		if err != nil {
			w.Fatal(err)
		}
		n, err := change.ParseNotice(b)
		if err != nil {
			w.Fatal(err)
		}
		notices = append(notices, n)
		if err := w.Spool.Remove(name); err != nil {
			w.Fatal(err)
		}
	}
	return notices
}

// names lists the accounts of the notices that are handed over now.
func (w *world) names() string {
	w.Helper()
	var names []string
	for _, n := range w.sent() {
		names = append(names, n.Account.SAMAccountName)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (w *world) expect(want string) {
	w.Helper()
	if got := w.names(); got != want {
		w.Errorf("told %q, want %q", got, want)
	}
}

// Three tries are one notice, with each rule once, when they have been collected.
func TestCollects(t *testing.T) {
	test(t, nil, func(w *world) {
		first := time.Now()
		w.Add([]refusal.Record{refused("Alice", "length", "banned")})
		w.expect("")
		time.Sleep(30 * time.Second)
		last := refused("alice", "length", "walk")
		last.Policy = "staff"
		w.Add([]refusal.Record{refused("alice", "length"), last})
		w.expect("")
		time.Sleep(30 * time.Second)
		n := w.sent()
		if len(n) != 1 {
			t.Fatalf("%d notices", len(n))
		}
		got, want := n[0], change.Notice{
			ID: n[0].ID, Account: change.Account{GUID: dsdb.GUID{1}, SAMAccountName: "alice", UserPrincipalName: "alice@upn"},
			FullName: "The alice", Address: "alice@example.com", Policy: "staff", Rules: []string{"length", "banned", "walk"}, Times: 3,
			First: first, Last: last.Time,
		}
		if !got.First.Equal(want.First) || !got.Last.Equal(want.Last) {
			t.Errorf("from %v to %v", got.First, got.Last)
		}
		got.First, got.Last, want.First, want.Last = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		if fmt.Sprint(got) != fmt.Sprint(want) || len(got.ID) != 32 {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		w.expect("")
	})
}

func TestWhoIsToldNothing(t *testing.T) {
	test(t, nil, func(w *world) {
		probe, audited, old, early := refused("alice", "length"), refused("alice", "length"), refused("alice", "length"), refused("alice", "length")
		probe.Probe, audited.Audit = true, true
		old.Time = old.Time.Add(-2 * time.Hour)
		early.Time = early.Time.Add(2 * time.Hour)
		w.Add([]refusal.Record{probe, audited, old, early})
		for _, account := range []string{"", "nobody", "administrator", "excluded", "disabled"} {
			w.Add([]refusal.Record{refused(account, "length")})
		}
		time.Sleep(time.Minute)
		w.expect("")
		if w.dc.asked != 4 || w.log.Len() > 0 {
			t.Errorf("asked %d times; log: %s", w.dc.asked, w.log)
		}
		if len(w.pending) != 0 {
			t.Errorf("still pending: %v", w.pending)
		}
		// An account without an address: for the command.
		w.dc.accounts["bob"] = directory.Account{GUID: dsdb.GUID{2}, SAMAccountName: "bob"}
		w.Add([]refusal.Record{refused("bob", "length")})
		time.Sleep(time.Minute)
		if n := w.sent(); len(n) != 1 || n[0].Address != "" {
			t.Errorf("%+v", n)
		}
	})
}

// However many probes there are: nobody is told, and the directory is not asked.
func TestFloodOfProbes(t *testing.T) {
	test(t, nil, func(w *world) {
		for range 1000 {
			for _, account := range []string{"alice", "bob", "nobody"} {
				r := refused(account, "length")
				r.Probe = true
				w.Add([]refusal.Record{r})
			}
			time.Sleep(time.Minute)
			w.expect("")
		}
		if w.dc.asked != 0 {
			t.Errorf("asked %d times", w.dc.asked)
		}
	})
}

func TestLimits(t *testing.T) {
	test(t, func(o *Options) { o.Hourly = 2 }, func(w *world) {
		// An account once an hour, however often it tries.
		told := 0
		for range 3 * 60 {
			for range 10 {
				w.Add([]refusal.Record{refused("alice", "length")})
			}
			time.Sleep(time.Minute)
			told += len(w.sent())
		}
		if told != 3 {
			t.Errorf("told %d times in three hours", told)
		}
		time.Sleep(2 * time.Hour)

		// All together twice an hour.
		for _, account := range []string{"alice", "bob", "carol"} {
			w.Add([]refusal.Record{refused(account, "length")})
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		w.expect("alice bob")
		w.Add([]refusal.Record{refused("carol", "length")})
		time.Sleep(time.Minute)
		w.expect("")
		if n := strings.Count(w.log.String(), "event=notices-limited"); n != 1 {
			t.Errorf("said %d times", n)
		}
		time.Sleep(time.Hour)
		w.Add([]refusal.Record{refused("carol", "length")})
		time.Sleep(time.Minute)
		w.expect("carol")
	})
}

// Of what was refused and what was only audited an account is told the first.
func TestAudited(t *testing.T) {
	test(t, func(o *Options) { o.Audited = true }, func(w *world) {
		audited := refused("alice", "walk")
		audited.Audit = true
		other := refused("bob", "walk")
		other.Audit = true
		w.Add([]refusal.Record{audited, refused("alice", "length"), other})
		time.Sleep(time.Minute)
		for _, n := range w.sent() {
			if n.Audit != (n.Account.SAMAccountName == "bob") {
				t.Errorf("%+v", n)
			}
		}
	})
}

func TestDirectoryDown(t *testing.T) {
	test(t, nil, func(w *world) {
		w.Add([]refusal.Record{refused("alice", "length")})
		time.Sleep(time.Minute)
		w.dc.down = directory.ErrUnavailable
		if err := w.Send(t.Context(), w.dc); !errors.Is(err, directory.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		w.dc.down = nil
		w.expect("alice")

		// A DC that was away for long: nobody wants to know any more.
		w.Add([]refusal.Record{refused("bob", "length")})
		time.Sleep(2 * time.Hour)
		w.expect("")

		// An answer that is wrong costs that notice, and not the others.
		w.dc.down = errors.New("malformed")
		w.Add([]refusal.Record{refused("bob", "length")})
		time.Sleep(time.Minute)
		w.expect("")
		w.dc.down = nil
		w.Add([]refusal.Record{refused("carol", "length")})
		time.Sleep(time.Minute)
		w.expect("carol")
		if !strings.Contains(w.log.String(), "event=agent-trouble") {
			t.Errorf("log: %s", w.log)
		}
	})
}

func TestFullDisk(t *testing.T) {
	test(t, nil, func(w *world) {
		if err := os.RemoveAll(w.Spool.Dir()); err != nil {
			t.Fatal(err)
		}
		w.Add([]refusal.Record{refused("alice", "length")})
		time.Sleep(time.Minute)
		if err := w.Send(t.Context(), w.dc); err != nil || !strings.Contains(w.log.String(), "event=agent-trouble") || len(w.told) > 0 {
			t.Errorf("%v, told %v, log %s", err, w.told, w.log)
		}
	})
}

func TestMuchIsBounded(t *testing.T) {
	test(t, nil, func(w *world) {
		for i := range maxCollected + 10 {
			w.Add([]refusal.Record{refused(fmt.Sprint("account", i), fmt.Sprint("rule", i))})
		}
		for i := range maxRules + 10 {
			w.Add([]refusal.Record{refused("account0", fmt.Sprint("rule", i))})
		}
		if len(w.pending) != maxCollected || len(w.pending[key{"account0", false}].rules) != maxRules {
			t.Errorf("%d accounts, %d rules", len(w.pending), len(w.pending[key{"account0", false}].rules))
		}
	})
}

func TestAddressOf(t *testing.T) {
	for address, want := range map[string]string{
		"mail": "alice@example.com", "userPrincipalName": "alice@upn", "SAMACCOUNTNAME": "alice", "displayname": "The alice", "other": "",
	} {
		test(t, func(o *Options) { o.Address = address }, func(w *world) {
			w.Add([]refusal.Record{refused("alice", "length")})
			time.Sleep(time.Minute)
			if n := w.sent(); len(n) != 1 || n[0].Address != want || n[0].FullName != "The alice" {
				t.Errorf("%s: %+v", address, n)
			}
		})
	}
}
