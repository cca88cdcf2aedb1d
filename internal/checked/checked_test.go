package checked

import (
	"bytes"
	"errors"
	"testing"
)

const text = `{"usn":1234567,"seen":"2026-11-22"}`

func TestRoundTrip(t *testing.T) {
	for _, text := range []string{text, "", "}", "\n"} {
		if got, err := Text(Wrap([]byte(text))); err != nil || string(got) != text {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestOlderFiles(t *testing.T) {
	if got, err := Text([]byte(text)); err != nil || string(got) != text {
		t.Errorf("%q, %v", got, err)
	}
}

// Whichever two bits flip, and wherever the file is cut off, it is noticed, or the text is what it was.
func TestDamage(t *testing.T) {
	whole := Wrap([]byte(text))
	flip := func(b []byte, bit int) { b[bit/8] ^= 1 << (bit % 8) }
	for one := range 8 * len(whole) {
		for other := one; other < 8*len(whole); other++ {
			b := bytes.Clone(whole)
			flip(b, one)
			if other > one {
				flip(b, other)
			}
			if got, err := Text(b); !errors.Is(err, ErrDamaged) {
				t.Fatalf("bits %d and %d: %q, %v", one, other, got, err)
			}
		}
	}
	for n := range whole {
		if got, err := Text(whole[:n]); err == nil && string(got) != text {
			t.Errorf("%d bytes: %q", n, got)
		}
	}
	for _, b := range [][]byte{append(bytes.Clone(whole), 0), append(bytes.Clone(whole), '}'), make([]byte, len(whole))} {
		if got, err := Text(b); !errors.Is(err, ErrDamaged) && string(got) != string(b) {
			t.Errorf("%q: %q, %v", b, got, err)
		}
	}
}
