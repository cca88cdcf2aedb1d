package dsdb

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const dc1 = "b693bfda-4bd6-4c67-b992-0eb5ce7a265e" // the invocationId in testdata

func mustGUID(t *testing.T, s string) GUID {
	t.Helper()
	g, err := ParseGUID(s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGUID(t *testing.T) {
	// An objectGUID and Samba's own text of it.
	raw, _ := hex.DecodeString("18fa2ddedcdca34ca9e4101aab81f854")
	const text = "de2dfa18-dcdc-4ca3-a9e4-101aab81f854"
	g, err := GUIDFromBytes(raw)
	if err != nil || g.String() != text || g.IsZero() {
		t.Errorf("GUIDFromBytes = %v, %v; want %s", g, err, text)
	}
	for _, s := range []string{text, strings.ToUpper(text)} {
		if parsed, err := ParseGUID(s); err != nil || parsed != g {
			t.Errorf("ParseGUID(%s) = %v, %v", s, parsed, err)
		}
	}
	for _, s := range []string{
		"", text[1:], text + "0", "{" + text + "}", strings.ReplaceAll(text, "-", ""), strings.Replace(text, "-", "_", 1),
		strings.Replace(text, "d", "g", 1), strings.Replace(text, "-a9e4-", "a-9e4-", 1), strings.Replace(text, "de", "-0", 1),
	} {
		if parsed, err := ParseGUID(s); err == nil {
			t.Errorf("ParseGUID(%q) = %v, want an error", s, parsed)
		}
	}
	for _, n := range []int{0, 15, 17} {
		if got, err := GUIDFromBytes(make([]byte, n)); err == nil {
			t.Errorf("GUIDFromBytes of %d bytes = %v, want an error", n, got)
		}
	}
	if !(GUID{}).IsZero() {
		t.Error("the null GUID is not zero")
	}

	encoded, err := json.Marshal(map[GUID]GUID{g: g})
	if want := `{"` + text + `":"` + text + `"}`; err != nil || string(encoded) != want {
		t.Errorf("as JSON %s, %v; want %s", encoded, err, want)
	}
	var decoded map[GUID]GUID
	if err := json.Unmarshal(encoded, &decoded); err != nil || decoded[g] != g {
		t.Errorf("from JSON %v, %v", decoded, err)
	}
	if err := json.Unmarshal([]byte(`{"x":"y"}`), &decoded); err == nil {
		t.Error("from JSON that holds no GUID: want an error")
	}
}

func TestGUIDCompare(t *testing.T) {
	ordered := []string{ // each differs from its neighbours in another field
		"00000000-0000-0000-0000-000000000000",
		"00000000-0000-0000-0000-0000000000ff",
		"00000000-0000-0000-0001-000000000000",
		"00000000-0000-0000-0100-000000000000",
		"00000000-0000-0001-0000-000000000000",
		"00000000-0000-0100-0000-000000000000", // larger as a number, smaller as bytes
		"00000000-00ff-0000-0000-000000000000",
		"00000000-0100-0000-0000-000000000000",
		"000000ff-0000-0000-0000-000000000000",
		"01000000-0000-0000-0000-000000000000",
		"ffffffff-0000-0000-0000-000000000000",
	}
	for i := range ordered {
		for j := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := mustGUID(t, ordered[i]).Compare(mustGUID(t, ordered[j])); got != want {
				t.Errorf("%s compared to %s = %d", ordered[i], ordered[j], got)
			}
		}
	}
}

func TestStampCompare(t *testing.T) {
	early, late := time.Unix(1_000_000_000, 0), time.Unix(1_000_000_001, 0)
	small, large := mustGUID(t, "00ffffff-0000-0000-0000-000000000000"), mustGUID(t, "01000000-0000-0000-0000-000000000000")
	ordered := []Stamp{ // each later one would be older by everything that counts less
		{},
		{1, early, small, 9},
		{1, early, large, 8},
		{1, late, small, 7},
		{2, early, small, 6},
		{math.MaxUint32, early, small, 5},
	}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := a.Compare(b); got != want {
				t.Errorf("%v compared to %v = %d, want %d", a, b, got, want)
			}
			if got := a.Equal(b); got != (i == j) {
				t.Errorf("%v equal to %v = %v", a, b, got)
			}
		}
		if a.IsZero() != (i == 0) {
			t.Errorf("%v zero: %v", a, a.IsZero())
		}
	}
	a := ordered[1]
	b := a
	b.USN++
	if a.Compare(b) != 0 || a.Equal(b) {
		t.Error("stamps that differ in their USN only: want 0 from Compare, false from Equal")
	}
	b = a
	b.Time = a.Time.In(time.FixedZone("elsewhere", 3600))
	if !a.Equal(b) {
		t.Error("the same time in another zone: want equal")
	}
}

func TestStampJSON(t *testing.T) {
	s := Stamp{3, time.Date(2026, 11, 22, 14, 35, 38, 0, time.UTC), mustGUID(t, dc1), math.MaxUint64}
	const text = `{"version":3,"time":"2026-11-22T14:35:38Z","invocation_id":"` + dc1 + `","usn":18446744073709551615}`
	for want, in := range map[string]Stamp{
		text: s,
		`{"version":0,"time":"0001-01-01T00:00:00Z","invocation_id":"00000000-0000-0000-0000-000000000000","usn":0}`: {},
	} {
		encoded, err := json.Marshal(in)
		if err != nil || string(encoded) != want {
			t.Errorf("as JSON %s, %v; want %s", encoded, err, want)
		}
		var out Stamp
		if err := json.Unmarshal(encoded, &out); err != nil || !out.Equal(in) || out.IsZero() != in.IsZero() {
			t.Errorf("from JSON %v, %v; want %v", out, err, in)
		}
	}
	if got, want := s.String(), "3@2026-11-22T14:35:38Z by "+dc1+"/18446744073709551615"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
	if got := (Stamp{}).String(); got != "none" {
		t.Errorf("String of the zero Stamp = %q", got)
	}
}

func TestParseReplPropertyMetaData(t *testing.T) {
	id := mustGUID(t, dc1)
	at := func(version uint32, ticks int64, usn uint64) Stamp { return Stamp{version, NTTime(ticks), id, usn} }
	for _, c := range []struct {
		file                             string
		entries                          int
		password, supplementalCredential Stamp
	}{
		{"created.bin", 23, at(2, 134398317370000000, 4113), at(1, 134398317370000000, 4113)},
		{"nohash.bin", 23, at(6, 134398317440000000, 4119), at(5, 134398317440000000, 4119)},
		{"bare.bin", 21, at(1, 134398317450000000, 4124), Stamp{}},
	} {
		raw, err := os.ReadFile(filepath.Join("testdata", c.file))
		if err != nil {
			t.Fatal(err)
		}
		m, err := ParseReplPropertyMetaData(raw)
		if err != nil || len(m) != c.entries {
			t.Errorf("%s: %d entries, %v; want %d", c.file, len(m), err, c.entries)
			continue
		}
		if got, ok := m.Password(); !ok || !got.Equal(c.password) {
			t.Errorf("%s: password %v, %v; want %v", c.file, got, ok, c.password)
		}
		if got := m.PasswordUSN(); got != c.password.USN { // this DC made the change, so both are its own
			t.Errorf("%s: password written under %d, want %d", c.file, got, c.password.USN)
		}
		if got, ok := m.Stamp(AttIDSupplementalCredentials); !got.Equal(c.supplementalCredential) || ok == got.IsZero() {
			t.Errorf("%s: supplementalCredentials %v, %v; want %v", c.file, got, ok, c.supplementalCredential)
		}
	}
}

func TestPasswordWithoutUnicodePwd(t *testing.T) {
	s := Stamp{Version: 4}
	m := make(MetaData, 2)
	m[0].AttID = 3
	m[1].AttID, m[1].Stamp, m[1].LocalUSN = AttIDSupplementalCredentials, s, 7
	if got := m.PasswordUSN(); got != 7 {
		t.Errorf("PasswordUSN = %d", got)
	}
	if got, ok := m.Password(); !ok || !got.Equal(s) {
		t.Errorf("Password = %v, %v; want supplementalCredentials' stamp", got, ok)
	}
	if got, ok := m[:1].Password(); ok {
		t.Errorf("Password = %v of an object that has none", got)
	}
}

// Versions of the two attributes; 0: never written.
func TestFirstPassword(t *testing.T) {
	for _, c := range []struct {
		hash, keys uint32
		want       bool
		how        string
	}{
		{0, 0, false, "none of them is readable"},
		{1, 0, false, "added without a password"},
		{1, 1, true, "added with its password"},
		{2, 1, true, "added, and given its password then"},
		{2, 2, false, "added with its password, which was changed"},
		{3, 2, false, "given its password after it was added, and changed"},
		{3, 1, false, "migrated, and changed"},
		{2, 0, true, "migrated"},
		{3, 0, false, "migrated, and another hash set"},
	} {
		var m MetaData
		if c.hash > 0 {
			m = append(m, AttributeStamp{AttID: AttIDUnicodePwd, Stamp: Stamp{Version: c.hash}})
		}
		if c.keys > 0 {
			m = append(m, AttributeStamp{AttID: AttIDSupplementalCredentials, Stamp: Stamp{Version: c.keys}})
		}
		if got := m.FirstPassword(); got != c.want {
			t.Errorf("%s: %v", c.how, got)
		}
	}
}

func TestHashOnly(t *testing.T) {
	at := func(version uint32, usn uint64) Stamp {
		return Stamp{Version: version, Time: time.Unix(1_000_000_000, 0), USN: usn}
	}
	keys := SupplementalCredentials{NewerKeys: &KerberosNewerKeys{}}
	desKeys := SupplementalCredentials{Kerberos: &Kerberos{}}
	none := SupplementalCredentials{}
	for name, c := range map[string]struct {
		hash, supplemental Stamp
		s                  SupplementalCredentials
		want               bool
	}{
		"by password":                         {at(3, 9), at(2, 9), keys, false},
		"by password, functional level 2003":  {at(3, 9), at(2, 9), desKeys, false},
		"hash over SAMR":                      {at(3, 9), at(2, 9), none, true},
		"hash past the password module":       {at(3, 9), at(2, 8), keys, true},
		"the same, never set before":          {at(1, 9), Stamp{}, none, true},
		"keys, and no stamp of them":          {at(1, 9), Stamp{}, keys, true},
		"unicodePwd was never written at all": {Stamp{}, at(1, 9), keys, false},
	} {
		var m MetaData
		for attid, s := range map[uint32]Stamp{AttIDUnicodePwd: c.hash, AttIDSupplementalCredentials: c.supplemental} {
			if !s.IsZero() {
				m = append(m, MetaData{{AttID: attid, Stamp: s}}...)
			}
		}
		if got := m.HashOnly(c.s); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestParseReplPropertyMetaDataRefuses(t *testing.T) {
	good, err := os.ReadFile("testdata/bare.bin")
	if err != nil {
		t.Fatal(err)
	}
	with := func(at int, b ...byte) []byte {
		damaged := slices.Clone(good)
		copy(damaged[at:], b)
		return damaged
	}
	for name, b := range map[string][]byte{
		"empty":                nil,
		"half a header":        good[:8],
		"header only":          good[:16],
		"an entry cut off":     good[:len(good)-48],
		"a byte cut off":       good[:len(good)-1],
		"a byte too many":      append(slices.Clone(good), 0),
		"version 2":            with(0, 2),
		"version 0":            with(0, 0),
		"one entry too many":   with(8, good[8]+1),
		"four billion entries": with(8, 0xFF, 0xFF, 0xFF, 0xFF),
		"the year 10000":       with(16+8, binary.LittleEndian.AppendUint64(nil, 265_046_774_400)...),
		"the largest time":     with(16+8, binary.LittleEndian.AppendUint64(nil, math.MaxUint64)...),
	} {
		if m, err := ParseReplPropertyMetaData(b); err == nil {
			t.Errorf("%s: %d entries, want an error", name, len(m))
		}
	}
}

func TestNTTime(t *testing.T) {
	for ticks, want := range map[int64]string{
		1:                   "1601-01-01T00:00:00.0000001Z",
		116444736000000000:  "1970-01-01T00:00:00Z",
		134398317371920490:  "2026-11-22T14:35:37.192049Z",
		2650467743999999999: "9999-12-31T23:59:59.9999999Z",
	} {
		if got := NTTime(ticks).Format(time.RFC3339Nano); got != want {
			t.Errorf("NTTime(%d) = %s, want %s", ticks, got, want)
		}
	}
	for _, never := range []int64{0, -1, math.MinInt64, math.MaxInt64, math.MaxInt64 - 1, 2650467744000000000} {
		if got := NTTime(never); !got.IsZero() {
			t.Errorf("NTTime(%d) = %v, want the zero time", never, got)
		}
	}
}

func TestNTHash(t *testing.T) {
	for password, want := range map[string]string{
		"":                  "31d6cfe0d16ae931b73c59d7e0c089c0",
		"password":          "8846f7eaee8fb117ad06bdd830b7586c",
		"C4rol-first!":      "abdef40b45c4e78de7ce02db20809a91", // these two as Samba stored them
		"Zweites-Paßwort-2": "30739ff6368a8835db32741d486d215a",
	} {
		var utf16le []byte
		for _, r := range password {
			utf16le = append(utf16le, byte(r), byte(r>>8))
		}
		if got := NTHash(utf16le); hex.EncodeToString(got[:]) != want {
			t.Errorf("NTHash(%q) = %x, want %s", password, got, want)
		}
	}
}

func FuzzParseReplPropertyMetaData(f *testing.F) {
	files, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(files) == 0 {
		f.Fatal("no testdata", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseReplPropertyMetaData(b)
		if err != nil {
			return
		}
		if len(b) != 16+48*len(m) {
			t.Errorf("%d entries from %d bytes", len(m), len(b))
		}
		for _, e := range m { // what is accepted must survive being stored
			encoded, err := json.Marshal(e.Stamp)
			if err != nil {
				t.Fatal(err)
			}
			var back Stamp
			if err := json.Unmarshal(encoded, &back); err != nil || !back.Equal(e.Stamp) {
				t.Errorf("%v comes back from JSON as %v, %v", e.Stamp, back, err)
			}
		}
	})
}
