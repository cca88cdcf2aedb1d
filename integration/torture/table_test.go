package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

func TestBound(t *testing.T) {
	for _, test := range []struct {
		result trial.Result
		want   string
	}{
		{trial.Result{Trials: 1_000_000}, "fewer than 1 in 333,333"},
		{trial.Result{Trials: 10_000}, "fewer than 1 in 3,333"},
		{trial.Result{Trials: 300}, "fewer than 1 in 100"},
		{trial.Result{Trials: 300, Lost: 1}, "nothing"},
		{trial.Result{Trials: 300, Wrong: 1}, "nothing"},
		{trial.Result{Trials: 300, OutOfOrder: 1}, "nothing"},
		{trial.Result{Trials: 2}, "nothing"},
	} {
		if got := bound(test.result); got != test.want {
			t.Errorf("%+v bounds %q, want %q", test.result, got, test.want)
		}
	}
}

func TestMerge(t *testing.T) {
	last := parts[len(parts)-1]
	one, other := newRow(parts[0], trial.Result{Trials: 10}, "here"), newRow(parts[0], trial.Result{Trials: 20}, "there")
	page := "text\n" + begin + head + "| `no more` | |\n" + one.text + end + "more text\n"
	got, err := merge([]byte(page), []row{other})
	if want := "text\n" + begin + head + other.text + end + "more text\n"; err != nil || string(got) != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
	}
	if last.name != parts[0].name {
		got, err = merge([]byte(page), []row{newRow(last, trial.Result{Trials: 30}, "here")})
		if err != nil || !strings.Contains(string(got), one.text+newRow(last, trial.Result{Trials: 30}, "here").text) {
			t.Errorf("%v: a part's row was lost, or is in the wrong place:\n%s", err, got)
		}
	}
	if _, err := merge([]byte("text\n"), nil); err == nil {
		t.Error("a page without a table was updated")
	}
}

// Each part is a test that exists and says that it is that part, and the page can take its row.
func TestParts(t *testing.T) {
	for i, p := range parts {
		if slices.ContainsFunc(parts[:i], func(other part) bool { return other.name == p.name }) {
			t.Errorf("%s is listed twice", p.name)
		}
		if strings.Contains(p.does, "|") || p.long < 1 {
			t.Errorf("%s cannot be a row", p.name)
		}
		files, err := filepath.Glob(filepath.Join("..", "..", p.where, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		form := regexp.MustCompile(`(?s)\nfunc ` + p.test + `\(.*trial\.Start\(\w+, "` + p.name + `", `)
		if !slices.ContainsFunc(files, func(file string) bool {
			text, err := os.ReadFile(file)
			return err == nil && form.Match(text)
		}) {
			t.Errorf("%s: %s has no %s that begins with trial.Start(t, %q, …)", p.name, p.where, p.test, p.name)
		}
	}
	page, err := os.ReadFile("../../docs/reliability.md")
	if err == nil {
		_, err = merge(page, nil)
	}
	if err != nil {
		t.Error(err)
	}
}
