package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func TestFlagsFirst(t *testing.T) {
	app := newApp(strings.NewReader(""), io.Discard, io.Discard)
	for line, want := range map[string]string{
		"":                                    "",
		"why":                                 "why",
		"why liz":                             "why -- liz",
		"why liz --json":                      "why --json -- liz",
		"why --json liz":                      "why --json -- liz",
		"why liz --config f --json":           "why --config f --json -- liz",
		"why liz --config":                    "why --config -- liz",
		"why liz --config=f":                  "why --config=f -- liz",
		"why liz ann --json":                  "why --json -- liz ann",
		"why --json -- -liz --json":           "why --json -- -liz --json",
		"why -":                               "why -- -",
		"why liz --nonsense":                  "why --nonsense -- liz",
		"--config f why liz --json":           "--config f why --json -- liz",
		"queue drop liz --target google":      "queue drop --target google -- liz",
		"queue --help drop liz":               "queue --help drop -- liz",
		"queue retry --all --target google":   "queue retry --all --target google",
		"queue list --json liz --target x":    "queue list --json liz --target x", // not about an account
		"--config=f queue retry liz --target": "--config=f queue retry --target -- liz",
		"policy test Passw0rd --x":            "policy test Passw0rd --x",
		"nosuch liz --json":                   "nosuch liz --json",
	} {
		got := flagsFirst(app, append([]string{"samba-pwsync"}, strings.Fields(line)...))
		if want := append([]string{"samba-pwsync"}, strings.Fields(want)...); !slices.Equal(got, want) {
			t.Errorf("%q becomes %q, want %q", line, got, want)
		}
	}
}
