package dsdb_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/jcmturner/gokrb5/v8/crypto"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// golden is a file that integration/golden wrote: raw values of one Samba version, and what its own library read in them.
type golden struct {
	Samba              string
	Accounts           map[string]goldenAccount
	ReplUpToDateVector struct {
		Value   []byte
		Cursors []goldenCursor
	}
	DirSyncCookie struct {
		Value                         []byte
		Time                          int64
		InvocationID                  dsdb.GUID
		HighObjUpdate, HighPropUpdate uint64
		Cursors                       []goldenCursor
	}
}

type goldenAccount struct {
	UnicodePwd, SupplementalCredentials, ReplPropertyMetaData []byte
	Passwords                                                 []string // oldest first
	Stamps                                                    []struct {
		AttID        uint32
		Version      uint32
		Time         int64 // 100 ns since 1601
		InvocationID dsdb.GUID
		USN          uint64
	}
	Packages map[string]struct {
		Names                                 []string
		Raw, Current                          []byte
		Salt                                  string
		Iterations                            uint32
		Keys, ServiceKeys, OldKeys, OlderKeys []goldenKey
		Hashes                                [][]byte
		Schemes                               []struct {
			Scheme string
			Value  []byte
		}
	}
}

type goldenKey struct {
	Type       int32
	Iterations uint32
	Value      []byte
}

type goldenCursor struct {
	InvocationID dsdb.GUID
	USN          uint64
	LastSync     int64
}

// eachGolden runs a test on what each Samba version stored.
func eachGolden(t *testing.T, test func(*testing.T, golden)) {
	files, err := filepath.Glob("testdata/samba-*/directory.json")
	if err != nil || len(files) != 5 {
		t.Fatalf("%d golden files, %v; want those of five versions", len(files), err)
	}
	for _, name := range files {
		t.Run(filepath.Base(filepath.Dir(name)), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var g golden
			if err := json.Unmarshal(b, &g); err != nil {
				t.Fatal(err)
			}
			test(t, g)
		})
	}
}

func (g golden) account(t *testing.T, name string) (goldenAccount, dsdb.SupplementalCredentials) {
	t.Helper()
	a, ok := g.Accounts[name]
	if !ok {
		t.Fatalf("no account %q of Samba %s", name, g.Samba)
	}
	s, err := dsdb.ParseSupplementalCredentials(a.SupplementalCredentials)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return a, s
}

func utf16le(text string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

func sameKeys(got []dsdb.KerberosKey, want []goldenKey) bool {
	return slices.EqualFunc(got, want, func(k dsdb.KerberosKey, w goldenKey) bool {
		return k.Type == w.Type && k.Iterations == w.Iterations && bytes.Equal(k.Value, w.Value)
	})
}

// TestGoldenMetaData and those that follow hold the decoders against Samba's own library.
func TestGoldenMetaData(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		for name, a := range g.Accounts {
			m, err := dsdb.ParseReplPropertyMetaData(a.ReplPropertyMetaData)
			if err != nil || len(m) != len(a.Stamps) || len(m) == 0 {
				t.Errorf("%s: %d stamps, %v; want %d", name, len(m), err, len(a.Stamps))
				continue
			}
			for i, w := range a.Stamps {
				want := dsdb.Stamp{Version: w.Version, Time: dsdb.NTTime(w.Time), InvocationID: w.InvocationID, USN: w.USN}
				if m[i].AttID != w.AttID || !m[i].Equal(want) {
					t.Errorf("%s: %x %v, want %x %v", name, m[i].AttID, m[i].Stamp, w.AttID, want)
				}
			}
		}
	})
}

func TestGoldenPackages(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		for name := range g.Accounts {
			a, s := g.account(t, name)
			for pkg, p := range a.Packages {
				var same bool
				switch pkg {
				case "Packages":
					same = slices.Equal(s.Packages, p.Names)
				case "Primary:Kerberos":
					same = s.Kerberos.Salt == p.Salt && len(p.Keys) > 0 && sameKeys(s.Kerberos.Keys, p.Keys) && sameKeys(s.Kerberos.OldKeys, p.OldKeys)
				case "Primary:Kerberos-Newer-Keys":
					n := s.NewerKeys
					same = n.Salt == p.Salt && n.DefaultIterations == p.Iterations && len(p.Keys) > 0 && sameKeys(n.Keys, p.Keys) &&
						sameKeys(n.ServiceKeys, p.ServiceKeys) && sameKeys(n.OldKeys, p.OldKeys) && sameKeys(n.OlderKeys, p.OlderKeys)
				case "Primary:WDigest":
					same = len(p.Hashes) == 29 && slices.EqualFunc(s.WDigest, p.Hashes, func(s dsdb.Secret, w []byte) bool { return bytes.Equal(s, w) })
				case "Primary:CLEARTEXT":
					same = bytes.Equal(s.Cleartext, p.Raw)
				case "Primary:SambaGPG":
					same = bytes.Equal(s.SambaGPG, p.Raw)
				case "Primary:userPassword":
					same = bytes.Equal(s.UserPassword.Current, p.Current) && len(p.Schemes) == len(s.UserPassword.Hashes)
					for i, h := range s.UserPassword.Hashes {
						same = same && h.Scheme == p.Schemes[i].Scheme && bytes.Equal(h.Value, p.Schemes[i].Value)
					}
				}
				if !same {
					t.Errorf("%s: %s is not what Samba reads", name, pkg)
				}
			}
			if len(s.Other) > 0 || len(a.Packages) == 0 && (s.Packages != nil || s.NewerKeys != nil) {
				t.Errorf("%s: packages that Samba does not read", name)
			}
		}
	})
}

func TestGoldenCursors(t *testing.T) {
	same := func(got []dsdb.Cursor, want []goldenCursor) bool {
		return len(want) > 0 && slices.EqualFunc(got, want, func(c dsdb.Cursor, w goldenCursor) bool {
			return c.InvocationID == w.InvocationID && c.USN == w.USN && c.LastSync.Equal(dsdb.NTTime(w.LastSync))
		})
	}
	eachGolden(t, func(t *testing.T, g golden) {
		cursors, err := dsdb.ParseReplUpToDateVector(g.ReplUpToDateVector.Value)
		if err != nil || !same(cursors, g.ReplUpToDateVector.Cursors) || cursors[0].LastSync.IsZero() {
			t.Errorf("replUpToDateVector: %v, %v; want %v", cursors, err, g.ReplUpToDateVector.Cursors)
		}
		want := g.DirSyncCookie
		c, err := dsdb.ParseDirSyncCookie(want.Value)
		if err != nil || !c.Time.Equal(dsdb.NTTime(want.Time)) || c.InvocationID != want.InvocationID || c.InvocationID.IsZero() ||
			c.HighObjUpdate != want.HighObjUpdate || c.HighPropUpdate != want.HighPropUpdate || !same(c.Cursors, want.Cursors) {
			t.Errorf("DirSync cookie: %+v, %v; want %+v", c, err, want)
		}
	})
}

// TestGoldenProves derives from the passwords what the directory derived.
func TestGoldenProves(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		// Of the keys' own password, which for one account is not that of the hash.
		for name, at := range map[string]int{
			"changed": 2, "renamed": 0, "schemes": 1, "nohash": 1, "gpg": 1, "cleartext": 1, "bypassed": 0,
		} {
			if _, ok := g.Accounts[name]; !ok && name == "nohash" && strings.HasPrefix(g.Samba, "4.13.") {
				continue // does not know the option
			}
			a, s := g.account(t, name)
			key, salt, ok := s.AES256()
			if !ok || key.Iterations != 4096 || s.NewerKeys.DefaultIterations != 4096 {
				t.Errorf("%s: no AES256 key of 4096 iterations", name)
				continue
			}
			derive := func(password string) []byte {
				e, err := crypto.GetEtype(key.Type)
				if err != nil {
					t.Fatal(err)
				}
				derived, err := e.StringToKey(password, salt, "00001000")
				if err != nil {
					t.Fatal(err)
				}
				return derived
			}
			if !bytes.Equal(key.Value, derive(a.Passwords[at])) {
				t.Errorf("%s: the AES256 key is not that of %q and salt %q", name, a.Passwords[at], salt)
			}
			if name == "changed" && (!bytes.Equal(s.NewerKeys.OldKeys[0].Value, derive(a.Passwords[1])) ||
				!bytes.Equal(s.NewerKeys.OlderKeys[0].Value, derive(a.Passwords[0]))) {
				t.Error("the older keys are not those of the older passwords")
			}
		}
		for name, a := range g.Accounts {
			if len(a.Passwords) == 0 {
				continue
			}
			hash := dsdb.NTHash(utf16le(a.Passwords[len(a.Passwords)-1]))
			if stored := name != "nohash"; stored != bytes.Equal(a.UnicodePwd, hash[:]) || !stored && a.UnicodePwd != nil {
				t.Errorf("%s: unicodePwd is not the NT hash of %q", name, a.Passwords[len(a.Passwords)-1])
			}
		}

		if _, s := g.account(t, "renamed"); s.NewerKeys.Salt != "SAMDOM.EXAMPLE.COMnewname" {
			t.Errorf("salt of the renamed account: %q", s.NewerKeys.Salt)
		}
		if a, s := g.account(t, "cleartext"); !bytes.Equal(s.Cleartext, utf16le(a.Passwords[1])) {
			t.Error("the clear text is not the password")
		}
		if _, s := g.account(t, "gpg"); !bytes.HasPrefix(s.SambaGPG, []byte("-----BEGIN PGP MESSAGE-----\n")) {
			t.Error("no OpenPGP message")
		}
		a, s := g.account(t, "schemes")
		var kinds []string
		for _, h := range s.UserPassword.Hashes {
			kinds = append(kinds, h.Scheme+string(h.Value[:3]))
		}
		if !slices.Equal(kinds, []string{"{CRYPT}$5$", "{CRYPT}$6$"}) || !bytes.Equal(s.UserPassword.Current, a.UnicodePwd) {
			t.Errorf("Primary:userPassword holds %q", kinds)
		}
	})
}

func TestGoldenFirstPassword(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		first := 0
		for name, a := range g.Accounts {
			m, err := dsdb.ParseReplPropertyMetaData(a.ReplPropertyMetaData)
			if err != nil {
				t.Fatal(err)
			}
			want := len(a.Passwords) == 1
			if want {
				first++
			}
			if got := m.FirstPassword(); got != want {
				t.Errorf("%s, with %d passwords: %v", name, len(a.Passwords), got)
			}
		}
		if first == 0 {
			t.Error("none has its first password")
		}
	})
}

func TestGoldenHashOnly(t *testing.T) {
	eachGolden(t, func(t *testing.T, g golden) {
		for name := range g.Accounts {
			a, s := g.account(t, name)
			m, err := dsdb.ParseReplPropertyMetaData(a.ReplPropertyMetaData)
			if err != nil {
				t.Fatal(err)
			}
			want := name == "hashonly" || name == "bypassed" || name == "bare" || name == "smartcard" && withoutKeys(g.Samba)
			if got := m.HashOnly(s); got != want {
				t.Errorf("%s: %v", name, got)
			}
		}
	})
}

// withoutKeys tells the versions in which a smartcard's account gets no keys.
func withoutKeys(samba string) bool {
	return strings.HasPrefix(samba, "4.13.") || strings.HasPrefix(samba, "4.17.")
}
