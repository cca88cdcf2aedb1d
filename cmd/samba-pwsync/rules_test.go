package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

func TestRulesFollowTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "samba-pwsync.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte("state_dir = "+fmt.Sprintf("%q", dir)+"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	const target = "[target.cloud]\ntype = \"google\"\ncredentials_file = \"/etc/g.json\"\n"
	write(target)
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	rules := rulesOf(cfg)
	for _, step := range []struct {
		text, want string
		fails      bool
	}{
		{target, "{true []}", false},
		{target + "[policy]\npreflight = false\n", "{false []}", false},
		{"[policy.staff]\nfilter = \"(a=b)\"\nprecedence = 2\n[policy.pupils]\nbase_dn = \"OU=P,DC=x\"\nprecedence = 1\n", "{true [{pupils OU=P,DC=x } {staff  (a=b)}]}", false},
		{"[policy.staff]\nfilter = \"(a=b\"\nprecedence = 2\n", "{true [{pupils OU=P,DC=x } {staff  (a=b)}]}", true},
		{"[policy]\npreflight = true\n", "{false []}", false}, // of no target
		{target + "[policy]\npreflight = false\n[policy.staff]\nfilter = \"(a=b)\"\nprecedence = 2\npreflight = true\n", "{true [{staff  (a=b)}]}", false},
	} {
		write(step.text)
		for range 2 {
			got, err := rules()
			if fmt.Sprint(got) != step.want || (err != nil) != step.fails {
				t.Errorf("%s: %v, %v", step.text, got, err)
			}
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, err := rules(); err == nil || fmt.Sprint(got) != "{true [{staff  (a=b)}]}" {
		t.Errorf("without a file: %v, %v", got, err)
	}
}
