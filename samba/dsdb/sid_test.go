package dsdb

import (
	"encoding/hex"
	"testing"
)

func TestParseSID(t *testing.T) {
	for in, want := range map[string]SID{
		"01020000000000052000000020020000":                         "S-1-5-32-544",
		"010500000000000515000000010000000200000003000000f4010000": "S-1-5-21-1-2-3-500",
		"010100000000000100000000":                                 "S-1-1-0",
		"0100ffffffffffff":                                         "S-1-281474976710655",
	} {
		b, _ := hex.DecodeString(in)
		if got, err := ParseSID(b); err != nil || got != want {
			t.Errorf("%s: %s, %v", in, got, err)
		}
		for n := range b {
			if got, err := ParseSID(b[:n]); err == nil {
				t.Errorf("%s cut after %d bytes: %s", in, n, got)
			}
		}
	}
}

func TestProtected(t *testing.T) {
	for sid, want := range map[SID]bool{
		"S-1-5-32-544":        true, // Administrators
		"S-1-5-32-548":        true, // Account Operators
		"S-1-5-32-545":        false,
		"S-1-5-21-1-2-3-512":  true, // Domain Admins
		"S-1-5-21-1-2-3-519":  true, // Enterprise Admins
		"S-1-5-21-1-2-3-513":  false,
		"S-1-5-21-1-2-3-1512": false,
		"S-1-5-21-512":        false,
		"S-1-18-512":          false,
		"":                    false,
	} {
		if got := sid.Protected(); got != want {
			t.Errorf("%s: %v", sid, got)
		}
	}
}

func FuzzParseSID(f *testing.F) {
	f.Add([]byte("\x01\x02\x00\x00\x00\x00\x00\x05\x20\x00\x00\x00\x20\x02\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if sid, err := ParseSID(b); err == nil {
			sid.Protected()
		}
	})
}
