package targettest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
)

// mustNotLeak prints an error in every way that there is, each error inside it too, and looks for the secrets.
func mustNotLeak(t testing.TB, err error, secrets ...string) {
	t.Helper()
	printed := print(err)
	for _, s := range secrets {
		for _, form := range forms(s) {
			if strings.Contains(printed, form) {
				t.Error("the error holds what was sent") // without showing it: this is somebody's log
			}
		}
	}
}

// print is all that can be got out of an error.
func print(err error) string {
	var out strings.Builder
	var walk func(error)
	walk = func(err error) {
		if err == nil {
			return
		}
		fmt.Fprintf(&out, "%v\n%+v\n%#v\n%q\n", err, err, err, err)
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).Error("failed", "error", err)
		}
		switch e := err.(type) {
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				walk(inner)
			}
		default:
			walk(errors.Unwrap(err))
		}
	}
	walk(err)
	return out.String()
}

// forms are the ways in which a secret may stand in a text.
func forms(s string) []string {
	if len(s) < 8 { // too little to be found by chance
		return nil
	}
	quoted, _ := json.Marshal(s) // a string: cannot fail
	all := []string{s, strings.Trim(string(quoted), `"`), strings.Trim(fmt.Sprintf("%q", s), `"`), url.QueryEscape(s), url.PathEscape(s),
		hex.EncodeToString([]byte(s)), base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s))}
	if strings.Contains(s, marrow) {
		all = append(all, marrow)
	}
	return all
}
