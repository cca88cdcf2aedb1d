package capture

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func sample() Header {
	return Header{ID: NewID(), Time: time.Unix(1700000000, 123456789).UTC(), Host: "dc1", Account: "jörg", UserPrincipalName: "jörg@example.com", FullName: "Jörg Ω"}
}

func TestRoundTrip(t *testing.T) {
	for _, h := range []Header{sample(), {ID: NewID(), Time: time.Unix(0, 0).UTC()}} {
		raw, err := h.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		c, err := Parse(Encode(raw, []byte("proof"), []byte("secret")))
		if err != nil {
			t.Fatal(err)
		}
		if c.Header != h || !bytes.Equal(c.Raw, raw) || string(c.ProofBox) != "proof" || string(c.SecretBox) != "secret" {
			t.Errorf("came back as %+v", c)
		}
		if again, err := ParseHeader(raw); err != nil || again != h {
			t.Errorf("header came back as %+v, %v", again, err)
		}
	}
}

func TestTornFilesAreDamaged(t *testing.T) {
	raw, _ := sample().Marshal()
	whole := Encode(raw, []byte("proof"), []byte("secret"))
	for n := range whole {
		if _, err := Parse(whole[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("torn after %d of %d bytes: %v", n, len(whole), err)
		}
	}
	if _, err := Parse(append(whole, 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte too many: %v", err)
	}
	if _, err := ParseHeader(whole); !errors.Is(err, ErrDamaged) {
		t.Errorf("a header with a tail: %v", err)
	}
}

func TestMarshalRefuses(t *testing.T) {
	for _, account := range []string{strings.Repeat("a", MaxName+1), "\xff"} {
		if _, err := (Header{Account: account}).Marshal(); err == nil {
			t.Errorf("account %.8q was accepted", account)
		}
	}
}

func TestInfosDiffer(t *testing.T) {
	raw, _ := sample().Marshal()
	if bytes.Equal(ProofInfo(raw), SecretInfo(raw)) {
		t.Error("a secret box could be opened as a proof box")
	}
}

func TestFileNameSortsByTime(t *testing.T) {
	early, late := sample(), sample()
	late.Time = early.Time.Add(time.Nanosecond)
	if early.FileName() >= late.FileName() || !IsFile(early.FileName()) || strings.Contains(early.FileName(), "jörg") {
		t.Errorf("%s, %s", early.FileName(), late.FileName())
	}
}

func FuzzParse(f *testing.F) {
	raw, _ := sample().Marshal()
	f.Add(Encode(raw, []byte("proof"), []byte("secret")))
	f.Add(Encode(raw, nil, nil))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		raw, err := c.Marshal()
		if err != nil || !bytes.Equal(raw, c.Raw) || !bytes.Equal(Encode(raw, c.ProofBox, c.SecretBox), b) {
			t.Error("two different files mean the same capture")
		}
	})
}
