package change

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func sample() Change {
	now := time.Unix(1700000000, 42).UTC()
	return Change{
		Capture:   "00112233445566778899aabbccddeeff",
		Account:   Account{GUID: dsdb.GUID{1}, SAMAccountName: "alice", UserPrincipalName: "alice@example.com"},
		Stamp:     dsdb.Stamp{Version: 3, Time: now.Truncate(time.Second), InvocationID: dsdb.GUID{2}, USN: 4711},
		Captured:  now,
		Proven:    now.Add(time.Millisecond),
		Routes:    []Route{{Target: "google", User: "alice@example.com"}},
		Header:    []byte("header"),
		SecretBox: []byte("box"),
		Peers:     []Peer{{"DC2", dsdb.GUID{8}, 4711, now}, {Name: "DC3"}},
	}
}

func TestRoundTrip(t *testing.T) {
	want := sample()
	b, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("came back as %+v, %v", got, err)
	}
	s := []Sighting{
		{Account: want.Account, Stamp: want.Stamp}, {Account: want.Account, Gone: true}, {Whole: true},
		{Account: want.Account, Stamp: want.Stamp, Wanted: &Wanted{}},
		{Account: want.Account, Stamp: want.Stamp, Wanted: &Wanted{DC: "DC1", Routes: []WantedRoute{{want.Routes[0], ComplexityOff, "the domain"}}}},
	}
	b, err = MarshalSightings("x", s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseSightings("x", b); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("came back as %+v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Change){
		"no capture": func(c *Change) { c.Capture = "" },
		"no account": func(c *Change) { c.Account.GUID = dsdb.GUID{} },
		"no stamp":   func(c *Change) { c.Stamp = dsdb.Stamp{} },
		"no routes":  func(c *Change) { c.Routes = nil },
		"no header":  func(c *Change) { c.Header = nil },
		"no box":     func(c *Change) { c.SecretBox = nil },
	} {
		c := sample()
		spoil(&c)
		b, _ := c.Marshal()
		if _, err := Parse(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "{", `{"format":2}`, "null", "[]"} {
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := ParseSightings("x", []byte(text)); !errors.Is(err, ErrDamaged) {
			t.Errorf("sightings %q: %v", text, err)
		}
	}
}

func TestMark(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadMark(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no mark yet: %v", err)
	}
	want := Mark{
		AsOf: time.Unix(1700000000, 0).UTC(), Host: "dc1", InvocationID: dsdb.GUID{7},
		Peers: []Peer{{"DC2", dsdb.GUID{8}, 4711, time.Unix(1699999990, 0).UTC()}, {Name: "DC3"}},
	}
	for range 2 {
		if err := WriteMark(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ReadMark(dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("came back as %+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mark"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadMark(dir); err == nil {
		t.Error("a torn mark was read")
	}
}

func FuzzParse(f *testing.F) {
	b, _ := sample().Marshal()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err == nil && (len(c.Routes) == 0 || c.Account.GUID.IsZero()) {
			t.Error("a change without meaning was read")
		}
	})
}

func FuzzParseSightings(f *testing.F) {
	for _, s := range [][]Sighting{nil, {{Account: sample().Account, Stamp: sample().Stamp, Wanted: &Wanted{Routes: []WantedRoute{{Reason: Lost}}}}}, {{Whole: true}}} {
		b, _ := MarshalSightings("x", s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSightings("x", b)
		if err != nil {
			return
		}
		again, err := MarshalSightings("x", s)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseSightings("x", again); err != nil || len(back) != len(s) {
			t.Errorf("%d sightings came back as %d, %v", len(s), len(back), err)
		}
	})
}

func TestSightingsFile(t *testing.T) {
	early, late := time.Unix(1700000000, 5), time.Unix(1700000000, 10)
	if a, b := SightingsFile(early, "z"), SightingsFile(late, "a"); a >= b || filepath.Ext(a) != SightingsSuffix {
		t.Errorf("%s is not before %s", a, b)
	}
}

// What the disk damages, and contents that are another file's, are noticed.
func TestDamage(t *testing.T) {
	c := sample()
	b, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	name := SightingsFile(c.Captured, "a")
	s, err := MarshalSightings(name, []Sighting{{Account: c.Account, Stamp: c.Stamp}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseSightings(name, s); err != nil {
		t.Error(err)
	}
	if _, err := ParseSightings(SightingsFile(c.Captured, "b"), s); !errors.Is(err, ErrDamaged) {
		t.Errorf("another file's: %v", err)
	}
	if !c.Belongs(c.FileName()) || !c.Belongs(strings.TrimSuffix(c.FileName(), Suffix)+"-x"+Suffix) || c.Belongs("1"+c.FileName()) {
		t.Error("whose name is whose is not told")
	}
	for i := range b {
		spoilt := bytes.Clone(b)
		spoilt[i] ^= 1
		if _, err := Parse(spoilt); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a bit of byte %d flipped: %v", i, err)
		}
	}
	for i := range s {
		spoilt := bytes.Clone(s)
		spoilt[i] ^= 1
		if _, err := ParseSightings(name, spoilt); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a bit of byte %d of sightings flipped: %v", i, err)
		}
	}
}
