package google

import (
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
)

const clear = "Correct-Horse-7"

// stored is the same password in all forms. The crypt strings are glibc's.
var stored = []state.Password{
	{Hash: "crypt", Value: "$6$rounds=1000$saltsalt$cRCviLs5JlE0rrYWkfgbaOulHbwQk3Opce0t2TAiJjwte2OYWsx.cKPwoTkQWgMe/0LDOeVNZWnq..y0S5psL1"},
	{Hash: "crypt", Value: "$6$abcdefgh$Hy3nhnZk2xhqm/hcKSo/x7S7qSFb2COZ9QiKN/mOKKxGc5kYUhHn0EiZ3e.n71cwBTclXfQWfUNw8H6vT8llt."},
	{Hash: "crypt", Value: "$6$rounds=10000$abcdefghabcdefgh$nEGwTgbBxruGacgy4VfzU/ndmTrhyHIMISgHAGqJq6dTorc6qghpXlDlldL.fe.lxBbORuGdsrabUmc/ekbYd0"},
	{Hash: "crypt", Value: "$5$rounds=9000$ab$8IodwBZfMCOX/8z5Q724OU33/FVJAEXtg8ANltMkN0/"},
	{Hash: "crypt", Value: "$1$abcd$zWfFucY5JOr.7uJ4BvPKd0"},
	{Hash: "MD5", Value: "ebf2ab53747a2240becb504eecd6d767"},
	{Hash: "SHA-1", Value: "4CBB29805546015ef297f9308108132b4082a5ad"},
	{Hash: "", Value: clear},
}

func TestMatches(t *testing.T) {
	for _, p := range stored {
		if reason := malformed(p.Value, p.Hash); reason != "" {
			t.Errorf("%s: %s", p.Value, reason)
		}
		if !Matches(p, clear) {
			t.Errorf("%s does not match", p.Value)
		}
		for _, other := range []string{"", clear + " ", strings.ToUpper(clear), p.Value + "x"} {
			if Matches(p, other) {
				t.Errorf("%s matches %q", p.Value, other)
			}
		}
	}
}

func TestMalformed(t *testing.T) {
	long := strings.Repeat("a", 86)
	for _, p := range []state.Password{
		{Hash: "", Value: "Correct-\uFFFD-7"},
		{Hash: "MD5", Value: clear},
		{Hash: "MD5", Value: "4cbb29805546015ef297f9308108132b4082a5ad"},
		{Hash: "SHA-1", Value: "ebf2ab53747a2240becb504eecd6d767"},
		{Hash: "crypt", Value: clear},
		{Hash: "crypt", Value: ""},
		{Hash: "crypt", Value: "$6$salt$" + long[:85]},
		{Hash: "crypt", Value: "$6$salt$" + long + "a"},
		{Hash: "crypt", Value: "$6$salt$" + long + "\n"},
		{Hash: "crypt", Value: "$6$" + strings.Repeat("s", 17) + "$" + long},
		{Hash: "crypt", Value: "$6$rounds=10001$salt$" + long},
		{Hash: "crypt", Value: "$6$rounds=0100$salt$" + long},
		{Hash: "crypt", Value: "$6$rounds=99999999999999999999$salt$" + long},
		{Hash: "crypt", Value: "$5$salt$" + long},
		{Hash: "crypt", Value: "$5$rounds=50000$salt$" + long[:43]},
		{Hash: "crypt", Value: "$2b$10$abcdefghijklmnopqrstuv"},
		{Hash: "crypt", Value: "$y$j9T$salt$" + long[:43]},
		{Hash: "crypt", Value: "{CRYPT}" + stored[0].Value},
		{Hash: "crypt", Value: "abJnggxhB/yWI"}, // DES
	} {
		if reason := malformed(p.Value, p.Hash); reason == "" {
			t.Errorf("%s %q is taken", p.Hash, p.Value)
		} else if p.Value != "" && strings.Contains(reason, p.Value) {
			t.Errorf("the reason holds the password: %s", reason)
		}
	}
}

func TestMask(t *testing.T) {
	list := map[string]any{"kind": "k", "users": []any{
		map[string]any{"id": "1", "name": map[string]any{"givenName": "Liz", "fullName": "Liz S"}, "suspended": false},
	}}
	for text, want := range map[string]string{
		"kind":                                 `{"kind":"k"}`,
		"users(id)":                            `{"users":[{"id":"1"}]}`,
		"users/id":                             `{"users":[{"id":"1"}]}`,
		"users/id,kind":                        `{"kind":"k","users":[{"id":"1"}]}`,
		"kind,users(id,name/givenName)":        `{"kind":"k","users":[{"id":"1","name":{"givenName":"Liz"}}]}`,
		"users(name(fullName),suspended),kind": `{"kind":"k","users":[{"name":{"fullName":"Liz S"},"suspended":false}]}`,
		"nextPageToken":                        `{}`,
		"users(*)":                             `{"users":[{"id":"1","name":{"fullName":"Liz S","givenName":"Liz"},"suspended":false}]}`,
	} {
		m, err := parseMask(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := string(reply(200, m.apply(list)).Body); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", ",", "a,", "a(", "a(b", "a)", "a()", "(a)", "a/", "a(b))"} {
		if m, err := parseMask(text); err == nil {
			t.Errorf("%q is taken: %v", text, m)
		}
	}
}
