package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

// The example goes where it is to go, folders included, is one that Load takes, and is never written over.
func TestCreateConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "samba-pwsync", "c.toml")
	if what, err := createConfig(path); what != made || err != nil {
		t.Fatalf("%q, %v", what, err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := config.Default().StateDir; cfg.StateDir != want {
		t.Errorf("state_dir is %s, want %s", cfg.StateDir, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("# mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if what, err := createConfig(path); what != kept || err != nil {
		t.Errorf("%q, %v", what, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "# mine\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestNextSteps(t *testing.T) {
	other := account{self().uid + 1, self().gid}
	for _, tc := range []struct {
		path      string
		forwarder account
		want      string
	}{
		{config.DefaultFile, self(), "systemctl enable --now samba-pwsync"},
		{config.DefaultFile, other, "systemctl enable --now samba-pwsync-agent samba-pwsync-forwarder"},
		{"/srv/c.toml", self(), "samba-pwsync --config /srv/c.toml serve"},
	} {
		if got := strings.TrimSpace(start(tc.path, tc.forwarder)); got != tc.want {
			t.Errorf("%s, %v: %q, want %q", tc.path, tc.forwarder, got, tc.want)
		}
	}
	if got := hookCommand(config.DefaultFile); got != "/usr/sbin/samba-pwsync-hook" {
		t.Errorf("hook: %s", got)
	}

	// Beside this program there is a hook: it is the one that was installed with it.
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program+"-hook", nil, 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(program + "-hook")
	if got, want := hookCommand("/srv/c.toml"), program+"-hook --config /srv/c.toml"; got != want {
		t.Errorf("hook: %s, want %s", got, want)
	}
}
