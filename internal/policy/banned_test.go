package policy

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
)

// list scores one point for each byte, and finds names as they are.
type list struct{}

func (list) Score(password []byte) int { return len(password) }
func (list) Contains(password []byte, name string) bool {
	return bytes.Contains(password, []byte(strings.ToLower(name)))
}

func TestBanned(t *testing.T) {
	const (
		points = Reason("it is little more than words that are banned")
		name   = Reason("it contains a name of the account, if perhaps written differently")
	)
	settings := Settings{MaxLength: 99, Banned: []string{"/words"}, BannedScore: 5}
	for _, tc := range []struct {
		name, account, upn, full, password string
		want                               []Reason
	}{
		{"enough points", "erin", "erin@example.com", "Erin M. Hagens", "abcde", nil},
		{"a point is missing", "erin", "erin@example.com", "Erin M. Hagens", "abcd", []Reason{points}},
		{"account", "hagens", "", "", "xhagensx", []Reason{name}},
		{"before the @", "x", "hagens@example.com", "", "xhagensx", []Reason{name}},
		{"behind the @", "x", "hagens@example.com", "", "xexamplex", nil},
		{"full name", "x", "", "Erin M. Hagens", "xhagensx", []Reason{name}},
		{"several names are one reason", "erin", "hagens@x", "Erin M. Hagens", "erinhagens", []Reason{name}},
		{"four characters", "poll", "", "", "xpoll", []Reason{name}},
		{"three characters", "max", "", "Max M", "xxmax", nil},
		{"both", "poll", "", "", "poll", []Reason{points, name}},
	} {
		var got []Reason
		for _, f := range Check(settings, Subject{secret.New([]byte(tc.password)), tc.account, tc.upn, tc.full}, Tools{Banned: list{}}) {
			got = append(got, f.Reason)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	settings.Banned = nil
	if got := Check(settings, Subject{Password: secret.New([]byte("a"))}, Tools{Banned: list{}}); got != nil {
		t.Errorf("no files: %v", got)
	}
}
