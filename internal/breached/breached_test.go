package breached_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/breached/importer"
)

// What Have I Been Pwned has of "password", in both kinds.
const (
	sha1List = "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:52256179\n"
	ntlmList = "8846F7EAEE8FB117AD06BDD830B7586C:52256179\n"
)

func imported(t testing.TB, list string, bits int) string {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "list")
	if err := os.WriteFile(name, []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "breached.bin")
	if _, err := importer.Run(t.Context(), importer.Options{Output: out, Lists: []string{name}, Bits: bits}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestHoldsPassword(t *testing.T) {
	for _, list := range []string{sha1List, ntlmList} {
		f, err := breached.Open(imported(t, list, 16))
		if err != nil {
			t.Fatal(err)
		}
		for password, want := range map[string]bool{"password": true, "Password": false, "": false, "passwor\xff": false, strings.Repeat("x", 4096): false} {
			b := []byte(password)
			held, err := f.HoldsPassword(b)
			if held != want || err != nil {
				t.Errorf("%v: %q is held: %v, %v", f.Kind(), password, held, err)
			}
			if string(b) != password {
				t.Errorf("%v: the password is changed", f.Kind())
			}
		}
		if _, err := f.Holds(make([]byte, 15)); err == nil {
			t.Errorf("%v: 15 bytes are taken for a hash", f.Kind())
		}
		if _, err := f.Holds(make([]byte, 36-f.Kind().Size())); err == nil {
			t.Errorf("%v: a hash of the other kind is taken", f.Kind())
		}
		if err := errors.Join(f.Close(), f.Close()); err != nil {
			t.Error(err)
		}
		if _, err := f.HoldsPassword([]byte("password")); err == nil {
			t.Error("a closed file answers")
		}
	}
}

// TestFormat holds the format: what version 1 wrote stays readable, whatever becomes of the library that wrote it.
func TestFormat(t *testing.T) {
	for bits, text := range map[int]string{
		8:  "00000000000000000010000000000000000000db00000030",
		16: "0000000000000000000000000000000000001024000000000000000000000000000000000000db8800000000000030fc",
	} {
		fingerprints, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if bits == 16 && binary.NativeEndian.Uint16([]byte{0, 1}) == 1 { // such a machine has them the other way round
			for i := 0; i < len(fingerprints); i += 2 {
				fingerprints[i], fingerprints[i+1] = fingerprints[i+1], fingerprints[i]
			}
		}
		e := breached.Entry{Offset: breached.DataStart, Seed: 0x910A2DEC89025CC1, Entries: 3, SegmentLength: 8, SegmentCount: 1}
		for key, want := range map[uint64]bool{0: true, 0x1111111111111111: true, 0x2222222222222222: true, 0x3333333333333333: false} {
			if got := e.Contains(fingerprints, bits, key); got != want {
				t.Errorf("%d bits: key %X is held: %v", bits, key, got)
			}
		}
	}
	h := breached.Header{Kind: breached.NTLM, Bits: 8, Entries: 3, Size: 4, Created: time.Unix(5, 0), MinCount: 6, Source: [16]byte{7}}
	const want = "7077627265616368" + "0100" + "0208" + "0201" + "0000" + "0300000000000000" + "0400000000000000" + "0500000000000000" + "0600000000000000" +
		"07000000000000000000000000000000" + "00000000" + "bc4fa248"
	if got := hex.EncodeToString(h.Encode()[:72]); binary.NativeEndian.Uint16([]byte{0, 1}) != 1 && got != want {
		t.Errorf("the header is\n%s, want\n%s", got, want)
	}
	hash, err := hex.DecodeString("5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8")
	if err != nil {
		t.Fatal(err)
	}
	if shard, key := breached.Shard(hash); shard != 0x5BA || key != 0x0682250B6CF8331B {
		t.Errorf("shard %X, key %X", shard, key)
	}
}

func TestDamage(t *testing.T) {
	whole, err := os.ReadFile(imported(t, sha1List, 16))
	if err != nil {
		t.Fatal(err)
	}
	const at = 4096 + 0x5BA*64 // the entry of the one hash
	for _, tc := range []struct {
		name   string
		mutate func(b []byte) []byte
		open   error // that Open returns
		holds  error // that HoldsPassword returns
		verify error
	}{
		{name: "nothing", mutate: func(b []byte) []byte { return b }},
		{name: "empty", mutate: func(b []byte) []byte { return nil }, open: breached.ErrDamaged},
		{name: "half a page", mutate: func(b []byte) []byte { return b[:2048] }, open: breached.ErrDamaged},
		{name: "cut off by a byte", mutate: func(b []byte) []byte { return b[:len(b)-1] }, open: breached.ErrDamaged},
		{name: "grown by a byte", mutate: func(b []byte) []byte { return append(b, 0) }, open: breached.ErrDamaged},
		{name: "text", mutate: func(b []byte) []byte { return bytes.Repeat([]byte(sha1List), 10_000) }, open: breached.ErrForeign},
		{name: "zeros", mutate: func(b []byte) []byte { return make([]byte, len(b)) }, open: breached.ErrForeign},
		{name: "the header's first byte", mutate: func(b []byte) []byte { b[0] ^= 1; return b }, open: breached.ErrForeign},
		{name: "the header's count", mutate: func(b []byte) []byte { b[16] ^= 1; return b }, open: breached.ErrDamaged},
		{name: "the entry", mutate: func(b []byte) []byte { b[at+20] ^= 1; return b }, holds: breached.ErrDamaged, verify: breached.ErrDamaged},
		{name: "another's entry", mutate: func(b []byte) []byte { copy(b[at:at+64], b[at-64:at]); return b }, holds: breached.ErrDamaged, verify: breached.ErrDamaged},
		{name: "no entry", mutate: func(b []byte) []byte { clear(b[at : at+64]); return b }, holds: breached.ErrDamaged, verify: breached.ErrDamaged},
		{name: "an empty entry", mutate: func(b []byte) []byte { copy(b[at:], breached.Entry{}.Encode(0x5BA)); return b }, verify: breached.ErrDamaged},
		{name: "another shard's entry", mutate: func(b []byte) []byte { b[at-64] ^= 1; return b }, verify: breached.ErrDamaged},
		{name: "a fingerprint", mutate: func(b []byte) []byte { b[breached.DataStart+1] ^= 1; return b }, verify: breached.ErrDamaged},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "x")
			if err := os.WriteFile(name, tc.mutate(bytes.Clone(whole)), 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := breached.Open(name)
			if !errors.Is(err, tc.open) || (err == nil) != (tc.open == nil) {
				t.Fatalf("opening: %v, want %v", err, tc.open)
			}
			if err != nil {
				if !strings.Contains(err.Error(), name) {
					t.Errorf("the error does not name the file: %v", err)
				}
				return
			}
			defer f.Close()
			if _, err := f.HoldsPassword([]byte("password")); !errors.Is(err, tc.holds) || (err == nil) != (tc.holds == nil) {
				t.Errorf("looking up: %v, want %v", err, tc.holds)
			}
			if err := f.Verify(func(int) error { return nil }); !errors.Is(err, tc.verify) || (err == nil) != (tc.verify == nil) {
				t.Errorf("verifying: %v, want %v", err, tc.verify)
			}
		})
	}
}

func TestOpenOfOtherThings(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{pipe: breached.ErrForeign, dir: breached.ErrForeign, filepath.Join(dir, "none"): os.ErrNotExist, "/dev/zero": breached.ErrForeign} {
		if _, err := breached.Open(name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// The kernel answers a look at a mapped page that is no longer in the file with SIGBUS, which would end the hook, and have Samba refuse the change.
func TestCutOffWhileOpen(t *testing.T) {
	name := imported(t, sha1List, 16)
	f, err := breached.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				if held, err := f.HoldsPassword([]byte("password")); held || !errors.Is(err, breached.ErrDamaged) {
					t.Errorf("held %v, %v", held, err)
				}
			}
		})
	}
	all.Wait()
	if err := f.Verify(func(int) error { return nil }); !errors.Is(err, breached.ErrDamaged) {
		t.Errorf("verifying: %v", err)
	}
}

// An import puts a new file under the name; who has the old one open goes on with it.
func TestReplacedWhileOpen(t *testing.T) {
	name := imported(t, sha1List, 16)
	f, err := breached.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Rename(imported(t, ntlmList, 8), name); err != nil {
		t.Fatal(err)
	}
	if held, err := f.HoldsPassword([]byte("password")); !held || err != nil {
		t.Errorf("held %v, %v", held, err)
	}
}

func TestVerifyStops(t *testing.T) {
	f, err := breached.Open(imported(t, sha1List, 16))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stop := errors.New("stop")
	if err := f.Verify(func(shard int) error {
		if shard == 9 {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// FuzzFile lays any bytes over the header, the table and the fingerprints of a file: no answer may be a crash.
func FuzzFile(f *testing.F) {
	whole, err := os.ReadFile(imported(f, sha1List, 16))
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	const at = 4096 + 0x5BA*64
	f.Add([]byte{}, []byte{}, []byte{}, uint32(len(whole)))
	f.Add(whole[:72], whole[at:at+64], whole[breached.DataStart:], uint32(len(whole)))
	f.Add([]byte("pwbrpart"), make([]byte, 64), []byte{1, 2, 3}, uint32(5))
	f.Fuzz(func(t *testing.T, header, entry, fingerprints []byte, size uint32) {
		b := bytes.Clone(whole)
		copy(b[:4096], header)
		copy(b[at:at+64], entry)
		copy(b[breached.DataStart:], fingerprints)
		b = b[:min(int(size), len(b))]
		name := filepath.Join(dir, "x")
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		file, err := breached.Open(name)
		if err != nil {
			return
		}
		defer file.Close()
		_, _ = file.HoldsPassword([]byte("password"))
		_, _ = file.HoldsPassword([]byte("Password"))
		_ = file.Verify(func(int) error { return nil })
	})
}

// FuzzEntry has checksums that fit, as somebody who wants to harm would see to: an entry that is taken has no look-up read outside of the file.
func FuzzEntry(f *testing.F) {
	f.Add(uint64(breached.DataStart), uint64(1), uint32(1), uint32(4), uint32(1), uint64(7), true, uint32(64))
	f.Add(uint64(breached.DataStart), uint64(1), uint32(1), uint32(3), uint32(1<<31), uint64(7), false, uint32(1<<16))
	f.Add(^uint64(63), ^uint64(0), ^uint32(0), uint32(1<<31), ^uint32(0), uint64(0), true, ^uint32(0))
	f.Fuzz(func(t *testing.T, offset, seed uint64, entries, length, count uint32, key uint64, wide bool, room uint32) {
		bits := 8
		if wide {
			bits = 16
		}
		room %= 1 << 20
		file := make([]byte, breached.DataStart+int(room))
		e := breached.Entry{Offset: offset, Seed: seed, Entries: entries, SegmentLength: length, SegmentCount: count}
		copy(file[breached.At(5):], e.Encode(5))
		got, err := breached.DecodeEntry(file, 5, bits, uint64(len(file)))
		if err != nil {
			return
		}
		if got != e {
			t.Fatalf("%+v came back as %+v", e, got)
		}
		if e.Entries > 0 {
			e.Contains(file[e.Offset:][:e.Bytes(bits):e.Bytes(bits)], bits, key)
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(breached.Header{Kind: breached.NTLM, Bits: 8}.Encode())
	f.Add([]byte("pwbreach"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := breached.DecodeHeader(b)
		if err != nil {
			return
		}
		if again, err := breached.DecodeHeader(h.Encode()); err != nil || again != h {
			t.Fatalf("%+v came back as %+v (error: %v)", h, again, err)
		}
	})
}

// BenchmarkHoldsPassword is what the hook does, a file that is in memory aside: opening, one look-up, closing.
func BenchmarkHoldsPassword(b *testing.B) {
	name := imported(b, sha1List, 16)
	b.ReportAllocs()
	for b.Loop() {
		f, err := breached.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		if held, err := f.HoldsPassword([]byte("password")); !held || err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
