package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

var made = time.Date(2026, 11, 22, 12, 0, 0, 123, time.UTC)

// many are accounts of which each has one of a few answers, told from its number.
func many(n int) Contents {
	c := Contents{
		Made: made, Fingerprint: [32]byte{1, 2, 3},
		Policies: []string{"students", "admins"}, Targets: []string{"entra", "google", "lab"},
	}
	for i := range n {
		c.Accounts = append(c.Accounts, Account{fmt.Sprintf("user%d", i), answer(i)})
	}
	return c
}

func answer(i int) Entry {
	return []Entry{
		{"", nil},
		{"students", []string{"entra"}},
		{"admins", []string{"entra", "lab"}},
		{"students", []string{"google"}},
		{"", []string{"entra", "google", "lab"}},
	}[i%5]
}

func stored(t testing.TB, c Contents) *Index {
	t.Helper()
	path := filepath.Join(t.TempDir(), "accounts.index")
	if err := Write(path, c); err != nil {
		t.Fatal(err)
	}
	ix, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ix.Close(); err != nil {
			t.Error(err)
		}
	})
	return ix
}

func TestFindsEverybodyAndNobodyElse(t *testing.T) {
	for _, n := range []int{0, 1, 2, perBlock - 1, perBlock, perBlock + 1, 10 * perBlock, 20_000} {
		c := many(n)
		ix := stored(t, c)
		if ix.Accounts() != n || !ix.Made().Equal(made) || ix.Fingerprint() != c.Fingerprint ||
			!reflect.DeepEqual(ix.Policies(), c.Policies) || !reflect.DeepEqual(ix.Targets(), c.Targets) {
			t.Errorf("%d accounts: %+v", n, ix.header)
		}
		for i := range n {
			e, found, err := ix.Find(fmt.Sprintf("user%d", i))
			if err != nil || !found || !reflect.DeepEqual(e, answer(i)) {
				t.Fatalf("of %d, account %d: %+v, %v, %v", n, i, e, found, err)
			}
		}
		for i := range 1000 {
			if e, found, err := ix.Find(fmt.Sprintf("nobody%d", i)); err != nil || found || !reflect.DeepEqual(e, Entry{}) {
				t.Fatalf("of %d, nobody: %+v, %v, %v", n, e, found, err)
			}
		}
	}
}

func TestNamesAsTheDirectoryComparesThem(t *testing.T) {
	c := many(10)
	c.Accounts = append(c.Accounts, Account{"Jörg Maaß", answer(1)})
	ix := stored(t, c)
	for name, want := range map[string]bool{
		"Jörg Maaß": true, "JÖRG MAAß": true, " jörg  maaß": true,
		"JÖRG MAASS": false, "Jorg Maaß": false, "JörgMaaß": false, "": false, "user": false,
	} {
		if _, found, err := ix.Find(name); err != nil || found != want {
			t.Errorf("%q: %v, %v", name, found, err)
		}
	}
}

// Of two accounts with one name it is not known whose password is to be judged.
func TestAmbiguousNamesAreUnknown(t *testing.T) {
	c := many(5)
	c.Accounts = append(c.Accounts, Account{"USER3", answer(1)}, Account{"user4", answer(4)}, Account{"uSER4", answer(4)})
	ix := stored(t, c)
	for i := range 5 {
		_, found, err := ix.Find(fmt.Sprintf("user%d", i))
		if err != nil || found != (i < 3) {
			t.Errorf("user%d: %v, %v", i, found, err)
		}
	}
	if ix.Accounts() != 3 {
		t.Errorf("%d accounts", ix.Accounts())
	}
}

// Many targets and answers need a header of several blocks.
func TestLongHeader(t *testing.T) {
	c := Contents{Made: made}
	for i := range 300 {
		c.Targets = append(c.Targets, fmt.Sprintf("target-with-a-long-name-%d", i))
		c.Policies = append(c.Policies, fmt.Sprintf("policy-%d", i))
	}
	for i := range 300 {
		c.Accounts = append(c.Accounts, Account{fmt.Sprintf("user%d", i), Entry{c.Policies[i], c.Targets[i:min(i+20, 300)]}})
	}
	ix := stored(t, c)
	for _, a := range c.Accounts {
		if e, found, err := ix.Find(a.Name); err != nil || !found || !reflect.DeepEqual(e, a.Entry) {
			t.Fatalf("%s: %+v, %v, %v", a.Name, e, found, err)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, c := range map[string]Contents{
		"a policy that is not listed": {Accounts: []Account{{"a", Entry{Policy: "x"}}}},
		"a target that is not listed": {Accounts: []Account{{"a", Entry{Targets: []string{"x"}}}}},
		"too long names":              {Policies: make([]string, 1<<16)},
		"too long a header":           {Policies: []string{string(make([]byte, 1<<15)), string(make([]byte, 1<<15))}, Targets: manyNames(200, 1<<13)},
	} {
		if err := Write(filepath.Join(t.TempDir(), "index"), c); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func manyNames(n, size int) (all []string) {
	for range n {
		all = append(all, string(make([]byte, size)))
	}
	return all
}

// Whatever byte is not as it was written: no wrong answer, and an error for those whose answer it is.
func TestDamage(t *testing.T) {
	const accounts = 3 * perBlock
	good, err := marshal(many(accounts))
	if err != nil {
		t.Fatal(err)
	}
	errs, headers := 0, 0
	for at := 0; at < len(good); at += 11 {
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		ix, err := open(bytes.NewReader(bad), int64(len(bad)))
		if err != nil {
			if !errors.Is(err, ErrDamaged) || at >= blockSize {
				t.Fatalf("byte %d: %v", at, err)
			}
			headers++
			continue
		}
		if at < blockSize {
			t.Fatalf("byte %d of the header does not matter", at)
		}
		if at%97 != 0 { // all names for each byte would take long
			continue
		}
		for i := range accounts {
			e, found, err := ix.Find(fmt.Sprintf("user%d", i))
			if err != nil {
				errs++
				if !errors.Is(err, ErrDamaged) || found || !reflect.DeepEqual(e, Entry{}) {
					t.Fatalf("byte %d: %+v, %v, %v", at, e, found, err)
				}
			} else if !found || !reflect.DeepEqual(e, answer(i)) {
				t.Fatalf("byte %d: account %d is %+v, %v", at, i, e, found)
			}
		}
	}
	if errs == 0 || headers == 0 {
		t.Errorf("%d errors, %d of headers", errs, headers)
	}
}

func TestCutOff(t *testing.T) {
	good, err := marshal(many(3 * perBlock))
	if err != nil {
		t.Fatal(err)
	}
	for size := 0; size < len(good); size += 512 {
		if _, err := open(bytes.NewReader(good[:size]), int64(size)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes: %v", size, err)
		}
		// And one that is cut off while it is open.
		if size < blockSize {
			continue
		}
		cut := bytes.Clone(good)
		ix, err := open(bytes.NewReader(cut[:size]), int64(len(good)))
		if err != nil {
			t.Errorf("%d bytes: %v", size, err)
			continue
		}
		failed := 0
		for i := range 3 * perBlock {
			if _, _, err := ix.Find(fmt.Sprintf("user%d", i)); err != nil {
				if !errors.Is(err, ErrDamaged) {
					t.Fatal(err)
				}
				failed++
			}
		}
		if failed == 0 {
			t.Errorf("%d bytes: everybody was found", size)
		}
	}
	if _, err := open(bytes.NewReader(append(good, make([]byte, blockSize)...)), int64(len(good)+blockSize)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a block too many: %v", err)
	}
}

// A block of an older file under this one's header: the names' hashes are of another salt.
func TestBlockOfAnotherFile(t *testing.T) {
	one, err := marshal(many(100))
	if err != nil {
		t.Fatal(err)
	}
	other, err := marshal(many(100))
	if err != nil {
		t.Fatal(err)
	}
	mixed := append(bytes.Clone(one[:blockSize]), other[blockSize:]...)
	ix, err := open(bytes.NewReader(mixed), int64(len(mixed)))
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := ix.Find("user1"); found || !errors.Is(err, ErrDamaged) {
		t.Errorf("%v, %v", found, err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a folder is opened")
	}
	path := filepath.Join(dir, "accounts.index")
	if err := Write(path, many(3)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.Symlink(path, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "link")); err == nil {
		t.Error("a symbolic link is followed")
	}
}

// No name of an account is in the file, in no case.
func TestNoNames(t *testing.T) {
	b, err := marshal(Contents{Made: made, Accounts: []Account{{Name: "alexandra"}}})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(bytes.ToLower(b), []byte("alexandra")) {
		t.Error("the file holds the name")
	}
}

// counting counts reads.
type counting struct {
	r interface {
		ReadAt([]byte, int64) (int, error)
	}
	reads int
}

func (c *counting) ReadAt(b []byte, at int64) (int, error) {
	c.reads++
	return c.r.ReadAt(b, at)
}

func TestFewReads(t *testing.T) {
	b, err := marshal(many(100_000))
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{r: bytes.NewReader(b)}
	ix, err := open(c, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	most, all := 0, c.reads
	for i := range 2000 {
		c.reads = 0
		if _, found, err := ix.Find(fmt.Sprintf("user%d", i)); !found || err != nil {
			t.Fatal(found, err)
		}
		most, all = max(most, c.reads), all+c.reads
	}
	t.Logf("%d reads of 4,096 bytes at most, %.2f on average, %d bytes in all", most, float64(all)/2000, len(b))
	if most > 8 || all > 3*2000 {
		t.Errorf("%d reads at most, %d of 2,000 names", most, all)
	}
}

func FuzzOpenAndFind(f *testing.F) {
	for _, n := range []int{0, 1, perBlock + 1} {
		b, err := marshal(many(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true, "user0")
		f.Add(b, false, "")
	}
	f.Fuzz(func(t *testing.T, b []byte, reseal bool, name string) {
		if reseal { // so that what is behind the checks is reached, too
			seal(b)
		}
		ix, err := open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
			return
		}
		e, found, err := ix.Find(name)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%v", err)
		}
		if !found && !reflect.DeepEqual(e, Entry{}) {
			t.Errorf("nobody's answer is %+v", e)
		}
	})
}

// seal makes the checks of a header and of all blocks right.
func seal(b []byte) {
	if len(b) < blockSize {
		return
	}
	length := int(binary.BigEndian.Uint32(b[atLength:]))
	if length < blockSize || length > len(b) {
		return
	}
	var salt [saltSize]byte
	copy(salt[:], b[atSalt:])
	copy(b[length-checkSize:length], check(b[:length], salt, 0))
	for i := 0; length+(i+1)*blockSize <= len(b); i++ {
		block := b[length+i*blockSize:][:blockSize]
		copy(block[blockSize-checkSize:], check(block, salt, i+1))
	}
}

func BenchmarkOpenAndFind(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		path := filepath.Join(b.TempDir(), "accounts.index")
		if err := Write(path, many(n)); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("accounts=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				ix, err := Open(path)
				if err != nil {
					b.Fatal(err)
				}
				if _, found, err := ix.Find(fmt.Sprintf("user%d", i%n)); !found || err != nil {
					b.Fatal(found, err)
				}
				if err := ix.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
