package proof

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/prooftest"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	right = "Pässwörd 1"
	salt  = "SAMDOM.EXAMPLE.COMalice"
)

var key = must(seal.Generate())

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// taken is a capture as the agent holds it: what was read of it, and how its keys are made.
type taken struct {
	Evidence
	capture capture.Capture
}

func take(t testing.TB, content []byte) taken {
	t.Helper()
	c := prooftest.Capture(t, key.Public(), capture.Header{ID: capture.NewID(), Time: time.Now()}, content)
	return taken{must(Open(key, c)), c}
}

func byHash(t testing.TB, password string) taken {
	return take(t, box.EncodeNTHash([16]byte(prooftest.NTHash(password))))
}

func byPassword(t testing.TB, password string) taken {
	return take(t, box.EncodePassword([]byte(password)))
}

// judge does as the agent does.
func (e taken) judge(t testing.TB, a directory.Account) Verdict {
	t.Helper()
	s := Of(a)
	v := e.Judge(s)
	if v != Underived {
		return v
	}
	if err := e.Derive(key, e.capture, s); err != nil {
		t.Fatal(err)
	}
	return e.Judge(s)
}

// account has a password that was set, of which the directory stores no NT hash.
func account(supplemental []byte) directory.Account {
	stamp := dsdb.Stamp{Version: 2, USN: 4000}
	return directory.Account{Stamp: stamp, SupplementalCredentials: supplemental,
		MetaData: dsdb.MetaData{{AttID: dsdb.AttIDUnicodePwd, Stamp: stamp}, {AttID: dsdb.AttIDSupplementalCredentials, Stamp: stamp}}}
}

func keyed(password, salt string) directory.Account {
	const n = prooftest.Iterations
	return account(prooftest.SupplementalCredentials(prooftest.AES256Key(password, salt, n), salt, n))
}

func hashed(password string) directory.Account {
	a := account(nil)
	a.NTHash = prooftest.NTHash(password)
	return a
}

func TestJudge(t *testing.T) {
	without := func(a directory.Account, f func(*directory.Account)) directory.Account { f(&a); return a }
	iterations := func(n uint32) directory.Account {
		return account(prooftest.SupplementalCredentials(prooftest.AES256Key(right, salt, 1), salt, n))
	}
	noStamp := func(a *directory.Account) { a.Stamp = dsdb.Stamp{} }
	for _, c := range []struct {
		name           string
		account        directory.Account
		hash, password Verdict // of a capture of each kind
		basis          Basis   // of the one with the password
		why            error
	}{
		{"the hash of the same", hashed(right), Current, Current, NTHash, nil},
		{"the hash of another", hashed("another"), NotYet, NotYet, NTHash, nil},
		{"the key of the same", keyed(right, salt), Unprovable, Current, AES256, nil},
		{"the key of another", keyed("another", salt), Unprovable, NotYet, AES256, nil},
		{"made when it was called otherwise", keyed(right, "SAMDOM.EXAMPLE.COMalicia"), Unprovable, Current, AES256, nil},
		{"the hash decides, the key was left behind", without(keyed(right, salt), func(a *directory.Account) {
			a.NTHash = prooftest.NTHash("another")
		}), NotYet, NotYet, NTHash, nil},
		{"the key was left behind", without(keyed(right, salt), func(a *directory.Account) {
			a.MetaData[0].USN++
			a.Stamp.USN++
		}), Unprovable, Unprovable, Nothing, errOlderKey},
		{"nothing", account(nil), Unprovable, Unprovable, Nothing, errNoKey},
		{"rubbish", account([]byte("rubbish")), Unprovable, Unprovable, Nothing, errUndecoded},
		{"a key of another length", account(prooftest.SupplementalCredentials(make([]byte, 16), salt, 4096)), Unprovable, Unprovable, Nothing, errNoKey},
		{"no iterations", iterations(0), Unprovable, Unprovable, Nothing, errIterations},
		{"few iterations", iterations(1), Unprovable, Current, AES256, nil},
		{"too many iterations", iterations(maxIterations + 1), Unprovable, Unprovable, Nothing, errIterations},
		{"the hash without stamp", without(hashed(right), noStamp), Unprovable, Unprovable, Nothing, errNoStamp},
		{"the key without stamp", without(keyed(right, salt), noStamp), Unprovable, Unprovable, Nothing, errNoStamp},
		{"no such account", directory.Account{}, Unprovable, Unprovable, Nothing, errNoStamp},
	} {
		hash, password := byHash(t, right), byPassword(t, right)
		if got := hash.judge(t, c.account); got != c.hash {
			t.Errorf("%s: with the hash %s, want %s", c.name, got, c.hash)
		}
		if got := password.judge(t, c.account); got != c.password {
			t.Errorf("%s: with the password %s, want %s", c.name, got, c.password)
		}
		stored := Of(c.account)
		if got := password.Basis(stored); got != c.basis {
			t.Errorf("%s: the basis is %q, want %q", c.name, got, c.basis)
		}
		if got := password.Why(stored); !errors.Is(got, c.why) {
			t.Errorf("%s: the reason is %v, want %v", c.name, got, c.why)
		}
		if got := hash.Why(stored); (got == nil) == (c.hash == Unprovable) || got != nil && c.why == nil && got != errNoPassword {
			t.Errorf("%s: with the hash, the reason is %v", c.name, got)
		}
	}
}

// The vectors of RFC 3962, appendix B, for AES256.
func TestKeysOfRFC3962(t *testing.T) {
	for _, c := range []struct {
		iterations          uint32
		password, salt, key string
	}{
		{1, "password", "ATHENA.MIT.EDUraeburn", "fe697b52bc0d3ce14432ba036a92e65bbb52280990a2fa27883998d72af30161"},
		{2, "password", "ATHENA.MIT.EDUraeburn", "a2e16d16b36069c135d5e9d2e25f896102685618b95914b467c67622225824ff"},
		{1200, "password", "ATHENA.MIT.EDUraeburn", "55a6ac740ad17b4846941051e1e8b0a7548d93b0ab30a8bc3ff16280382b8c2a"},
		{5, "password", "\x12\x34\x56\x78\x78\x56\x34\x12", "97a4e786be20d81a382d5ebc96d5909cabcdadc87ca48f574504159f16c36e31"},
		{1200, strings.Repeat("X", 64), "pass phrase equals block size", "89adee3608db8bc71f1bfbfe459486b05618b70cbae22092534e56c553ba4b34"},
		{1200, strings.Repeat("X", 65), "pass phrase exceeds block size", "d78c5c9cb872a8c9dad4697f0bb5b2d21496c82beb2caeda2112fceea057401b"},
		{50, "\U0001D11E", "EXAMPLE.COMpianist", "4b6d9839f84406df1f09cc166db4b83c571848b784a3d6bdc346589a3e393f9e"},
	} {
		a := account(prooftest.SupplementalCredentials(must(hex.DecodeString(c.key)), c.salt, c.iterations))
		if got := byPassword(t, c.password).judge(t, a); got != Current {
			t.Errorf("%q with salt %q: %s", c.password, c.salt, got)
		}
	}
}

// What real DCs stored: of an account's passwords, which integration/golden tells, the last is current and no other, by hash and by
// key; but no key that a change by hash left behind proves anything.
func TestWhatSambaStored(t *testing.T) {
	files, err := filepath.Glob("../../samba/dsdb/testdata/samba-*/directory.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		var golden struct {
			Accounts map[string]struct {
				UnicodePwd, SupplementalCredentials, ReplPropertyMetaData []byte
				Passwords                                                 []string // oldest first
			}
		}
		if err := json.Unmarshal(must(os.ReadFile(file)), &golden); err != nil {
			t.Fatal(err)
		}
		byHash, byKey := 0, 0
		for name, g := range golden.Accounts {
			a := directory.Account{MetaData: must(dsdb.ParseReplPropertyMetaData(g.ReplPropertyMetaData))}
			a.Stamp, _ = a.MetaData.Password()
			for i, password := range g.Passwords {
				want := NotYet
				if i == len(g.Passwords)-1 {
					want = Current
				}
				if a.NTHash = g.UnicodePwd; len(a.NTHash) > 0 {
					byHash++
					if got := byPassword(t, password).judge(t, a); got != want {
						t.Errorf("%s: %s, password %d by hash: %s, want %s", file, name, i+1, got, want)
					}
				}
				if name == "hashonly" || name == "bypassed" {
					want = Unprovable
				}
				byKey++
				a.NTHash, a.SupplementalCredentials = nil, g.SupplementalCredentials
				if got := byPassword(t, password).judge(t, a); got != want {
					t.Errorf("%s: %s, password %d by key: %s, want %s", file, name, i+1, got, want)
				}
			}
		}
		if byHash < 3 || byKey < 3 {
			t.Errorf("%s: %d comparisons by hash, %d by key", file, byHash, byKey)
		}
	}
}

// Whether hash or key is compared, the answer is the same. Not so for passwords with a NUL at the end, of which the hook takes
// none: a key is the same with it and without (HMAC).
func FuzzBasesAgree(f *testing.F) {
	f.Add(right, right, salt)
	f.Add("x", "x", "")
	f.Add("pass", "Pass", salt)
	f.Add("\U0001D11E", "\U0001D11F", "EXAMPLE.COMpianist")
	f.Fuzz(func(t *testing.T, captured, stored, salt string) {
		for _, text := range []string{captured, stored, salt} {
			if !utf8.ValidString(text) || len(text) > 4096 || strings.Contains(text, "\x00") {
				return // the hook takes no such password, and no directory stores such a salt
			}
		}
		if captured == "" {
			return
		}
		want := NotYet
		if captured == stored {
			want = Current
		}
		for name, got := range map[string]Verdict{
			"hash by hash":     byHash(t, captured).judge(t, hashed(stored)),
			"password by hash": byPassword(t, captured).judge(t, hashed(stored)),
			"password by key":  byPassword(t, captured).judge(t, keyed(stored, salt)),
		} {
			if got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
	})
}

// A key is made once for each salt, however often it is looked, and no more of them are kept than needed.
func TestKeysAreKept(t *testing.T) {
	e := byPassword(t, right)
	for range 3 {
		for n := range 2 {
			s := Of(keyed(right, fmt.Sprint(n)))
			if e.Judge(s) == Underived {
				if err := e.Derive(key, e.capture, s); err != nil {
					t.Fatal(err)
				}
			}
			if got := e.Judge(s); got != Current {
				t.Fatal(got)
			}
		}
	}
	if got := len(e.held().keys); got != 2 {
		t.Errorf("%d keys were made for 2 salts", got)
	}
	for n := range 2 * keptKeys {
		s := Stored{key: make([]byte, 32), salt: fmt.Sprint("other", n), iterations: 1}
		if err := e.Derive(key, e.capture, s); err != nil {
			t.Fatal(err)
		}
		if got := e.Judge(s); got != NotYet {
			t.Fatalf("the key made last is not there: %s", got)
		}
	}
	if got := len(e.held().keys); got != keptKeys {
		t.Errorf("%d keys are kept", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	other := must(seal.Generate())
	moved := byHash(t, right).capture
	moved.Raw = append(slices.Clone(moved.Raw), 0)
	strange := prooftest.Capture(t, key.Public(), capture.Header{}, []byte{3})
	for name, c := range map[string]struct {
		key     seal.PrivateKey
		capture capture.Capture
		want    error
	}{
		"another key":     {other, byHash(t, right).capture, seal.ErrOtherKey},
		"a moved box":     {key, moved, seal.ErrDamaged},
		"strange content": {key, strange, box.ErrUnknown},
	} {
		if _, err := Open(c.key, c.capture); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err := byPassword(t, right).Derive(c.key, c.capture, Of(keyed(right, salt))); !errors.Is(err, c.want) {
			t.Errorf("%s, for a key: %v, want %v", name, err, c.want)
		}
	}
}

func TestEvidencePrintsNoSecret(t *testing.T) {
	e := byPassword(t, right)
	if got := e.judge(t, keyed(right, salt)); got != Current {
		t.Fatal(got)
	}
	holder := struct{ kept Evidence }{e.Evidence}
	secrets := [][]byte{[]byte(right), e.held().hash[:4], e.held().keys[0].key[:4]}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, value := range []any{holder, &holder, holder.kept, &holder.kept} {
			text := fmt.Sprintf(verb, value)
			for _, s := range secrets {
				for _, trace := range []string{hex.EncodeToString(s), strings.Trim(fmt.Sprint(s), "[]"), string(s)} {
					if strings.Contains(text, trace) {
						t.Errorf("%s of %T prints %s", verb, value, text)
					}
				}
			}
		}
	}
}

func TestStoredPrintsNoSecret(t *testing.T) {
	s := Stored{hash: []byte("hhhh"), key: []byte("hhhh"), salt: "hhhh"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, value := range []any{s, &s, []Stored{s}} {
			if text := fmt.Sprintf(verb, value); strings.Contains(text, "hhhh") || strings.Contains(text, "104") || strings.Contains(text, "68") {
				t.Errorf("%s of %T prints %s", verb, value, text)
			}
		}
	}
}

func TestWipe(t *testing.T) {
	e := byPassword(t, right)
	stored := Of(keyed(right, salt))
	if got := e.judge(t, keyed(right, salt)); got != Current {
		t.Fatal(got)
	}
	made := e.held().keys[0].key
	e.Wipe()
	if err := e.Derive(key, e.capture, stored); err != nil { // by a look that was under way
		t.Fatal(err)
	}
	if h := e.held(); !bytes.Equal(h.hash[:], make([]byte, 16)) || !bytes.Equal(made, make([]byte, 32)) || len(h.keys) > 0 {
		t.Error("hash or key is still there")
	}
}

// The price of a look at an account without NT hash: the first one, and each after it.
func BenchmarkKey(b *testing.B) {
	e, stored := byPassword(b, right), Of(keyed(right, salt))
	b.Run("made", func(b *testing.B) {
		for b.Loop() {
			if err := e.Derive(key, e.capture, stored); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("kept", func(b *testing.B) {
		for b.Loop() {
			if e.Judge(stored) != Current {
				b.Fatal("not current")
			}
		}
	})
}

func TestPause(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ waited, want time.Duration }{
		{-time.Hour, 3 * ms}, {0, 3 * ms}, {300 * ms, 3 * ms}, {302 * ms, 4 * ms},
		{1300 * ms, 503 * ms}, {10 * time.Second, 4853 * ms}, {11 * time.Second, 5 * time.Second}, {time.Hour, 5 * time.Second},
	} {
		if got := Pause(c.waited); got != c.want {
			t.Errorf("after %v the pause is %v, want %v", c.waited, got, c.want)
		}
	}
}

// A capture that is never proven costs this many looks, each one search.
func TestLooksUntilTheDefaultTimeout(t *testing.T) {
	looks := 0
	for waited := time.Duration(0); waited < 2*time.Minute; waited += Pause(waited) {
		looks++
	}
	if looks < 120 || looks > 150 {
		t.Errorf("%d looks", looks)
	}
}

func TestEachPauseGrowsByHalf(t *testing.T) {
	waited := eager + time.Millisecond
	for pause := Pause(waited); ; {
		waited += pause
		next := Pause(waited)
		if next == lastPause {
			break
		}
		if ratio := float64(next) / float64(pause); ratio < 1.49 || ratio > 1.51 {
			t.Fatalf("after %v the pause grows from %v to %v", waited, pause, next)
		}
		pause = next
	}
}

func TestOverdue(t *testing.T) {
	const s, timeout = time.Second, 2 * time.Minute
	for name, c := range map[string]struct {
		age, waited, timeout time.Duration
		want                 bool
	}{
		"fresh":                               {s, s, timeout, false},
		"just before":                         {timeout - 1, timeout - 1, timeout, false},
		"just now":                            {timeout, timeout, timeout, true},
		"from the future, fresh":              {-time.Hour, s, timeout, false},
		"from the future, had its time":       {-time.Hour, timeout, timeout, true},
		"old already when found":              {time.Hour, 0, timeout, false},
		"old already, settled":                {time.Hour, settle, timeout, true},
		"clock jumped ahead while it waits":   {24 * time.Hour, 100 * time.Millisecond, timeout, false},
		"a timeout shorter than settling":     {time.Hour, 5 * s, 5 * s, true},
		"a timeout shorter than settling, no": {time.Hour, 4 * s, 5 * s, false},
	} {
		if got := Overdue(c.age, c.waited, c.timeout); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
