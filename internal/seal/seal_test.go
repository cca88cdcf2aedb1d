package seal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newKey(t testing.TB) PrivateKey {
	t.Helper()
	key, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRoundTrip(t *testing.T) {
	key := newKey(t)
	for _, content := range [][]byte{nil, []byte("x"), []byte("Grüße-😀-1"), bytes.Repeat([]byte("a"), 1022), bytes.Repeat([]byte("a"), 1023), bytes.Repeat([]byte("a"), maxContent)} {
		box, err := Close(key.Public(), []byte("info"), content)
		if err != nil {
			t.Fatal(err)
		}
		if len(box) > MaxBox {
			t.Errorf("a box of %d bytes is larger than MaxBox", len(box))
		}
		got, err := Open(key, []byte("info"), box)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), content) {
			t.Errorf("%d bytes came back as %d", len(content), len(got.Bytes()))
		}
	}
	if _, err := Close(key.Public(), nil, make([]byte, maxContent+1)); err == nil {
		t.Error("a content too large for its length field was accepted")
	}
}

func TestLengthIsHidden(t *testing.T) {
	key := newKey(t)
	short, _ := Close(key.Public(), nil, []byte("12345678"))
	long, _ := Close(key.Public(), nil, bytes.Repeat([]byte("x"), 1000))
	if len(short) != len(long) {
		t.Errorf("boxes of %d and %d bytes tell the password's length", len(short), len(long))
	}
}

func TestOpenRefuses(t *testing.T) {
	key, other := newKey(t), newKey(t)
	box, _ := Close(key.Public(), []byte("info"), []byte("content"))
	if _, err := Open(other, []byte("info"), box); !errors.Is(err, ErrOtherKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := Open(key, []byte("other info"), box); !errors.Is(err, ErrDamaged) {
		t.Errorf("another info: %v", err)
	}
	for _, n := range []int{0, 7, 8, 9, 1127, 1128, len(box) - 1} {
		if _, err := Open(key, []byte("info"), box[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("torn after %d bytes: %v", n, err)
		}
	}
	for i := keyIDLen; i < len(box); i += 97 {
		flipped := bytes.Clone(box)
		flipped[i] ^= 1
		if _, err := Open(key, []byte("info"), flipped); !errors.Is(err, ErrDamaged) {
			t.Errorf("bit flipped in byte %d: %v", i, err)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	dir, key := t.TempDir(), newKey(t)
	private, err := key.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	privatePath, publicPath := filepath.Join(dir, "key"), filepath.Join(dir, "pub")
	if err := os.WriteFile(privatePath, private, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(publicPath, key.Public().MarshalPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	public, err := LoadPublic(publicPath)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadPrivate(privatePath)
	if err != nil {
		t.Fatal(err)
	}
	box, _ := Close(public, nil, []byte("content"))
	if got, err := Open(loaded, nil, box); err != nil || string(got.Bytes()) != "content" {
		t.Errorf("keys from files do not fit: %v", err)
	}

	if err := os.Chmod(privatePath, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPrivate(privatePath); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a readable private key: %v", err)
	}
	if _, err := LoadPublic(privatePath); err == nil || strings.Contains(err.Error(), "BEGIN") {
		t.Errorf("a private key taken for a public one: %v", err)
	}
	if _, err := ParsePublic([]byte("nonsense")); err == nil {
		t.Error("nonsense was taken for a key")
	}
}

func FuzzOpen(f *testing.F) {
	key := newKey(f)
	box, _ := Close(key.Public(), nil, []byte("content"))
	f.Add(box)
	f.Add(box[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := Open(key, nil, b); err == nil && string(got.Bytes()) != "content" {
			t.Error("a forged box was opened")
		}
	})
}

func BenchmarkClose(b *testing.B) {
	key := newKey(b)
	text := key.Public().MarshalPEM()
	for b.Loop() {
		public, _ := ParsePublic(text)
		if _, err := Close(public, []byte("info"), []byte("Passw0rd-123")); err != nil {
			b.Fatal(err)
		}
	}
}
