package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var root = filepath.Join("..", "..", "..")

func TestCommittedFilesAreFresh(t *testing.T) {
	files, err := render(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run go generate ./internal/config", name)
		}
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	words, err := comments(filepath.Join(root, "internal", "config", "config.go"))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, s := range sectionsOf(words) {
		if s.name != "" && s.text == "" {
			t.Errorf("section %s %s has no comment", s.name, s.kind)
		}
		for _, k := range s.keys {
			count++
			if !strings.HasSuffix(k.text, ".") {
				t.Errorf("%s.%s: the comment is %q, not sentences", s.name, k.name, k.text)
			}
			if k.required && k.sample == "" {
				t.Errorf("%s.%s has neither a default nor an example", s.name, k.name)
			}
		}
	}
	if count < 25 {
		t.Errorf("only %d keys were found", count)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		2 * time.Minute: "2m", 72 * time.Hour: "72h", 90 * time.Second: "1m30s", 30 * time.Second: "30s", 10 * time.Minute: "10m", 0: "0s",
	} {
		if got := short(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestRoffEscapes(t *testing.T) {
	if got, want := roff("A `b c` \\d. .e"), "A \\fBb c\\fP \\ed.\n\\&.e\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
