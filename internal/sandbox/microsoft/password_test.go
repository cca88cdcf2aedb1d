package microsoft

import (
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
)

func TestTooWeak(t *testing.T) {
	liz := state.User{GivenName: "Elizabeth", FamilyName: "Poll"}
	lax := state.User{PasswordPolicies: "DisablePasswordExpiration, DisableStrongPassword"}
	names := []string{"Elizabeth", "Poll", "Li", "example"}
	for _, c := range []struct {
		password string
		user     state.User
		want     string
	}{
		{"Correct-Horse-7", liz, ""},
		{"correct horse battery 7", liz, ""}, // lower, digit, symbol
		{"Ab1~`\"(); <>", liz, ""},
		{"Aa1-" + strings.Repeat("x", 252), liz, ""},
		{"Aa1-" + strings.Repeat("x", 253), liz, "length"},
		{"Aa1-xyz", liz, "length"},
		{"Gänsefüßchen-8", liz, "not allowed"},
		{"Tab\tAnd-Spaces1", liz, "not allowed"},
		{"correcthorse7", liz, "three kinds"},
		{"correcthorse7", lax, ""},
		{"CorrectHorse", liz, "three kinds"},
		// Examples of Microsoft's documentation.
		{"C0ntos0Blank12", liz, "little more"},
		{"ContoS0Bl@nkf9!", liz, ""},
		{"p0LL23fb-", liz, "a name"},
		{"Example-2026!", liz, "a name"},
		{"-Li2-abcXYZ", liz, ""},
		{"P@ssword", lax, "nearly"},
		{"P@$$w0rd1", liz, "nearly"},
		{"Passwort", lax, "nearly"},
		{"Summer-Winter-1", liz, ""},
		{"Summer+Winter", liz, "little more"},
		{"abcdefg", lax, "length"},
		{"Secret-1!", liz, "little more"},
	} {
		got := tooWeak(c.password, c.user, names)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%q: %q, want %q", c.password, got, c.want)
		}
	}
}

func TestNear(t *testing.T) {
	for other, want := range map[string]bool{
		"abcdef": true, "abcdeg": true, "abcdefg": true, "abcde": true, "bcdef": true, "abXcdef": true, "abdef": true,
		"abcdgh": false, "abcd": false, "abcdefgh": false, "": false, "abdcef": false,
	} {
		if near("abcdef", other) != want || near(other, "abcdef") != want {
			t.Errorf("%q: %t", other, !want)
		}
	}
}

func TestPoints(t *testing.T) {
	for normal, want := range map[string]int{
		"": 0, "abc": 3, "password": 1, "xpasswordy": 3, "contosoblankl2": 4, "administrator": 1, "adminblank": 2,
	} {
		if got := points(normal); got != want {
			t.Errorf("%q: %d, want %d", normal, got, want)
		}
	}
}
