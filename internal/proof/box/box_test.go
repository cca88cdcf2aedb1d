package box

import (
	"bytes"
	"errors"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	want := [16]byte{1, 2, 3, 15: 0xff}
	hash, password, err := Decode(EncodeNTHash(want))
	if err != nil || hash != want || password != nil {
		t.Errorf("the hash came back as %x, %q, %v", hash, password, err)
	}
	for _, want := range []string{"x", "Pässwörd", "sixteen bytes..."} {
		hash, password, err := Decode(EncodePassword([]byte(want)))
		if err != nil || hash != [16]byte{} || string(password) != want {
			t.Errorf("%q came back as %x, %q, %v", want, hash, password, err)
		}
	}
}

func TestOtherContentIsUnknown(t *testing.T) {
	whole := EncodeNTHash([16]byte{1})
	for name, content := range map[string][]byte{
		"nothing":     nil,
		"kind alone":  whole[:1],
		"cut off":     whole[:16],
		"too long":    append(bytes.Clone(whole), 0),
		"other kind":  append([]byte{0x03}, whole[1:]...),
		"kind zero":   append([]byte{0x00}, whole[1:]...),
		"no password": EncodePassword(nil),
	} {
		if _, _, err := Decode(content); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever is read is what would have been written, so that no two contents mean the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(EncodeNTHash([16]byte{1}))
	f.Add(EncodePassword([]byte("Pässwörd")))
	f.Add(EncodePassword(nil))
	f.Fuzz(func(t *testing.T, content []byte) {
		hash, password, err := Decode(content)
		again := EncodeNTHash(hash)
		if password != nil {
			again = EncodePassword(password)
		}
		if err == nil != bytes.Equal(again, content) {
			t.Errorf("%x is read as %x, %q, %v", content, hash, password, err)
		}
	})
}
