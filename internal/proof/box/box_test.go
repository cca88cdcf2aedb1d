package box

import (
	"bytes"
	"errors"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	want := [16]byte{1, 2, 3, 15: 0xff}
	got, err := Decode(EncodeNTHash(want))
	if err != nil || got != want {
		t.Errorf("came back as %x, %v", got, err)
	}
}

func TestOtherContentIsUnknown(t *testing.T) {
	whole := EncodeNTHash([16]byte{1})
	for name, content := range map[string][]byte{
		"nothing":    nil,
		"kind alone": whole[:1],
		"cut off":    whole[:16],
		"too long":   append(bytes.Clone(whole), 0),
		"other kind": append([]byte{0x02}, whole[1:]...),
	} {
		if _, err := Decode(content); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
