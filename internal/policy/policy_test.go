package policy

import (
	"fmt"
	"slices"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
)

const (
	short  = Reason("it has fewer than 8 characters")
	long   = Reason("it has more than 16 characters")
	simple = Reason("it mixes fewer than three of: digits, upper case, lower case, other ASCII characters, letters without case")
)

func TestCheck(t *testing.T) {
	enforce := Settings{Mode: Enforce, MinLength: 8, MaxLength: 16, Complexity: true}
	with := func(change func(*Settings)) Settings {
		s := enforce
		change(&s)
		return s
	}
	audit := with(func(s *Settings) { s.Mode = Audit })
	off := with(func(s *Settings) { s.Mode = Off })
	unknown := with(func(s *Settings) { s.Mode = "auditt" })
	anyMix := with(func(s *Settings) { s.Complexity = false })

	for _, tc := range []struct {
		name     string
		settings Settings
		password string
		want     []Reason
	}{
		{"good", enforce, "Passw0rd", nil},
		{"shortest", enforce, "Abcdef1!", nil},
		{"one too short", enforce, "Abcde1!", []Reason{short}},
		{"longest", enforce, "Abcdefghijklmn1!", nil},
		{"one too long", enforce, "Abcdefghijklmno1!", []Reason{long}},
		{"umlauts count once", enforce, "Ääöüß123", nil},
		{"beyond the BMP counts twice: long enough", enforce, "Ab1😀😀😀", []Reason(nil)},
		{"beyond the BMP counts twice: too long", enforce, "Ab1😀😀😀😀😀😀😀", []Reason{long}},
		{"too simple", enforce, "abcdefgh1", []Reason{simple}},
		{"too simple, and allowed", anyMix, "abcdefgh1", nil},
		{"letters without case are a category", enforce, "abcdef1漢", nil},
		{"everything wrong at once", enforce, "abc", []Reason{short, simple}},
		{"nothing", enforce, "", []Reason{short, simple}},
		{"no UTF-8", enforce, "Abcdef1\xff", []Reason{simple}},
		{"audit tells", audit, "abc", []Reason{short, simple}},
		{"off is silent", off, "abc", nil},
		{"an unknown mode tells", unknown, "abc", []Reason{short, simple}},
	} {
		if got := Check(tc.settings, secret.New([]byte(tc.password))); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestOnlyKnownModesLetThrough(t *testing.T) {
	for mode, want := range map[string]bool{Enforce: true, Audit: false, Off: false, "": true, "OFF": true, "audit ": true} {
		if got := (Settings{Mode: mode}).Enforces(); got != want {
			t.Errorf("mode %q enforces: %v", mode, got)
		}
	}
}

// A reason may depend on the settings and on nothing else: whatever else it said would be about the password.
func FuzzCheck(f *testing.F) {
	f.Add([]byte("Passw0rd"), 8, 16)
	f.Add([]byte("\xff\x00"), 0, 0)
	f.Fuzz(func(t *testing.T, password []byte, lo, hi int) {
		possible := []Reason{
			Reason(fmt.Sprintf("it has fewer than %d characters", lo)),
			Reason(fmt.Sprintf("it has more than %d characters", hi)),
			simple,
		}
		for _, r := range Check(Settings{MinLength: lo, MaxLength: hi, Complexity: true}, secret.New(password)) {
			if !slices.Contains(possible, r) {
				t.Errorf("unexpected reason %q", r)
			}
		}
	})
}
