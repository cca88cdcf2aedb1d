package state

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path, "Example.com")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.jsonl")
	s := open(t, path)
	must(t, s.AddUser(User{Cloud: Google, ID: "1", Name: "Liz@example.com", Aliases: []string{"l@example.com"}}))
	must(t, s.AddUser(User{Cloud: Microsoft, ID: "1", Name: "liz@example.com"}))
	must(t, s.AddUser(User{Cloud: Google, ID: "2", Name: "bob@example.com"}))
	must(t, s.SetPassword(Google, "1", Password{Value: "a", Requested: time.Now()}))
	must(t, s.SetPassword(Google, "1", Password{Value: "b", Hash: "crypt"}))
	must(t, s.RemoveUser(Google, "bob@example.com"))
	must(t, s.AddFault(Fault{Cloud: Google, Kind: "503", Times: 2, Delay: time.Second}))
	must(t, s.AddFault(Fault{Cloud: Google, Kind: "404", Times: 1}))
	must(t, s.AddFault(Fault{Cloud: Google, Kind: "500"}))
	for range 2 {
		f, ok, err := s.TakeFault(func(f Fault) bool { return f.Kind != "503" })
		must(t, err)
		if !ok {
			t.Error("no fault was taken")
		}
		if _, _, err := s.TakeFault(func(Fault) bool { return false }); err != nil || f.ID == 1 {
			t.Errorf("fault %v, %v", f, err)
		}
	}
	must(t, s.Revoke("token"))
	must(t, s.Violate(Violation{Cloud: Google, Reason: "r"}))
	must(t, s.Trap(Trapped{Host: "h", BodyBytes: 3}))
	before := s.State()
	must(t, s.Close())

	again := open(t, path)
	defer again.Close()
	after := again.State()
	if a, b := text(before), text(after); a != b {
		t.Errorf("before\n%s\nafter\n%s", a, b)
	}
	if len(after.Faults) != 2 || after.Faults[1].Kind != "500" {
		t.Errorf("faults %v", after.Faults)
	}
	if !again.Revoked("token") || again.Revoked("other") {
		t.Error("revoked tokens are not kept")
	}
	if u, ok := again.Find(Google, "L@EXAMPLE.com"); !ok || len(u.Passwords) != 2 || u.Passwords[1].Hash != "crypt" {
		t.Errorf("found %v", u)
	}
	if _, ok := again.Find(Google, "bob@example.com"); ok {
		t.Error("bob is there again")
	}
	must(t, again.AddFault(Fault{Cloud: Google, Kind: "502"}))
	if f := again.State().Faults; f[len(f)-1].ID != 4 {
		t.Errorf("a fault's id is used again: %v", f)
	}
	must(t, again.ClearFaults())
	if f := again.State().Faults; len(f) != 0 {
		t.Errorf("faults %v", f)
	}
}

// text shows a state without the monotonic clock.
func text(s State) string {
	var b strings.Builder
	for _, u := range s.Users {
		b.WriteString(u.Name + " " + string(u.Cloud))
		for _, p := range u.Passwords {
			b.WriteString(" " + p.Value + p.Hash + p.Requested.UTC().String()[:19] + p.Applied.UTC().Format(time.RFC3339Nano))
		}
		b.WriteString("\n")
	}
	for _, f := range s.Faults {
		b.WriteString(f.Kind + f.Delay.String() + "\n")
	}
	for _, v := range s.Violations {
		b.WriteString(v.Reason + "\n")
	}
	for _, x := range s.Trapped {
		b.WriteString(x.Host + "\n")
	}
	return b.String()
}

func TestUnfinishedLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.jsonl")
	s := open(t, path)
	must(t, s.AddUser(User{Cloud: Google, ID: "1", Name: "liz@example.com"}))
	must(t, s.Close())
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(`{"password":{"cloud":"google","id":"1"`)
	must(t, err)
	must(t, f.Close())

	s = open(t, path)
	must(t, s.SetPassword(Google, "1", Password{Value: "a"}))
	must(t, s.Close())
	s = open(t, path)
	defer s.Close()
	if u, _ := s.Find(Google, "1"); len(u.Passwords) != 1 {
		t.Errorf("passwords %v", u.Passwords)
	}
}

func TestDamagedLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.jsonl")
	must(t, os.WriteFile(path, []byte("{\"clear\":true}\nnonsense\n"), 0o600))
	if _, err := Open(path, "example.com"); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("error %v", err)
	}
}

func TestOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.jsonl")
	must(t, open(t, path).Close())
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestNamesAreUnique(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.jsonl"))
	defer s.Close()
	must(t, s.AddUser(User{Cloud: Google, ID: "1", Name: "liz@example.com", Aliases: []string{"l@example.com"}}))
	for _, u := range []User{
		{Cloud: Google, ID: "1", Name: "x@example.com"},
		{Cloud: Google, ID: "2", Name: "LIZ@example.com"},
		{Cloud: Google, ID: "2", Name: "l@example.com"},
		{Cloud: Google, ID: "2", Name: "x@example.com", Aliases: []string{"liz@example.com"}},
	} {
		if err := s.AddUser(u); err == nil {
			t.Errorf("%v was added", u)
		}
	}
	if err := s.RemoveUser(Google, "nobody@example.com"); err == nil {
		t.Error("nobody was removed")
	}
	if err := s.SetPassword(Google, "7", Password{}); err == nil {
		t.Error("nobody's password was set")
	}
	must(t, s.AddUser(User{Cloud: Google, ID: "2", Name: "x@other.example"}))
	if !s.HasDomain(Google, "OTHER.example") || s.HasDomain(Microsoft, "other.example") || !s.HasDomain(Microsoft, "example.com") {
		t.Error("domains do not follow from users")
	}
}

// TestCopies: nobody changes the store through what it returns.
func TestCopies(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.jsonl"))
	defer s.Close()
	must(t, s.AddUser(User{Cloud: Google, ID: "1", Name: "liz@example.com", Aliases: []string{"l@example.com"}}))
	must(t, s.SetPassword(Google, "1", Password{Value: "a"}))
	want := s.State()
	for _, u := range []User{want.Users[0].clone(), s.Users(Google)[0]} {
		u.Aliases[0], u.Passwords[0].Value = "x", "x"
	}
	s.State().Users[0].Passwords[0].Value = "x"
	if got := s.State(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestChanged(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.jsonl"))
	defer s.Close()
	changed := s.Changed()
	select {
	case <-changed:
		t.Fatal("changed before any change")
	default:
	}
	s.Count(Google, "users.get", "nobody@example.com")
	select {
	case <-changed:
	default:
		t.Fatal("not changed by a counted request")
	}
}

func TestParseCloud(t *testing.T) {
	for name, want := range map[string]Cloud{"google": Google, "Microsoft": Microsoft, "entra": Microsoft} {
		if got, err := ParseCloud(name); got != want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if _, err := ParseCloud("amazon"); err == nil {
		t.Error("amazon is a cloud")
	}
}
