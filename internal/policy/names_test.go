package policy

import (
	"slices"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
)

func TestNames(t *testing.T) {
	const (
		account = Reason("it contains the account's name")
		upn     = Reason("it contains the user principal name's part before the @")
		full    = Reason("it contains a part of the full name")
	)
	for _, tc := range []struct {
		name, account, upn, full, password string
		want                               []Reason
	}{
		{"none", "erin", "erin@example.com", "Erin M. Hagens", "Xk29vTz!", nil},
		{"the account's name", "ehagens", "", "", "!eHAGENs1", []Reason{account}},
		{"a part of the account's name", "ehagens", "", "", "Hagens-1", nil},
		{"an account's name with delimiters is one", "erin.hagens", "", "", "Erin-Hagens1", nil},
		{"three characters", "max", "", "", "xMAXx", []Reason{account}},
		{"two characters", "mx", "", "", "xMXx", nil},
		{"Microsoft's example: first name", "x1", "", "Erin M. Hagens", "superERIN!1", []Reason{full}},
		{"Microsoft's example: initial", "x1", "", "Erin M. Hagens", "Summer.42", nil},
		{"Microsoft's example: last name", "x1", "", "Erin M. Hagens", "hagens99A", []Reason{full}},
		{"comma", "x1", "", "abc,def", "1DEF.", []Reason{full}},
		{"full stop", "x1", "", "abc.def", "1DEF.", []Reason{full}},
		{"hyphen", "x1", "", "abc-def", "1DEF.", []Reason{full}},
		{"underscore", "x1", "", "abc_def", "1DEF.", []Reason{full}},
		{"number sign", "x1", "", "abc#def", "1DEF.", []Reason{full}},
		{"tab", "x1", "", "abc\tdef", "1DEF.", []Reason{full}},
		{"no other delimiters", "x1", "", "O'Neill", "NEILL-77", nil},
		{"the whole of a name without delimiters", "x1", "", "O'Neill", "xO'NEILLx", []Reason{full}},
		{"the name before the @", "e4711", "erin.hagens@example.com", "", "Erin.Hagens1", []Reason{upn}},
		{"the name behind the @", "e4711", "erin.hagens@example.com", "", "example.com1", nil},
		{"the same name twice is said once", "Erin", "erin@example.com", "Erin", "erin1234", []Reason{account, full}},
		{"case beyond ASCII", "jürgen", "", "Ελένη Σακελλαρίου", "xJÜRGENx", []Reason{account}},
		{"final sigma", "x1", "", "Ηλίας", "ΗΛΊΑΣ-99", []Reason{full}},
		{"the Kelvin sign", "kim", "", "", "\u212Aim-4711", []Reason{account}},
		{"accents count", "x1", "", "Jürgen", "jurgen99", nil},
		{"an umlaut is one character", "öl", "", "", "öl-öl-öl", nil},
		{"longer than the password", "averylongaccountname", "", "", "avery", nil},
		{"no UTF-8", "abc\xff", "", "", "xABC\xffx", []Reason{account}},
	} {
		s := Subject{secret.New([]byte(tc.password)), tc.account, tc.upn, tc.full}
		var got []Reason
		for _, f := range Check(Settings{MaxLength: 99, Names: true}, s, Tools{}) {
			got = append(got, f.Reason)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
