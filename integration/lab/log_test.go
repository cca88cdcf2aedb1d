package lab

import (
	"bytes"
	"log/slog"
	"maps"
	"testing"
)

func TestParseFields(t *testing.T) {
	var line bytes.Buffer
	log := slog.New(slog.NewTextHandler(&line, nil))
	log.Info(`it "works"`, "event", "delivered", "account", "o'hara=x", "error", "", "targets", []string{"google", "entra"}, "n", 3)
	got := parseFields(line.String())
	delete(got, "time")
	want := map[string]string{"level": "INFO", "msg": `it "works"`, "event": "delivered", "account": "o'hara=x", "error": "", "targets": "[google entra]", "n": "3"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := parseFields(`Nov 22 14:42:11 dc1 auth.info samba-pwsync-hook[7]: accepted capture=01ab account="al ice"`); got["capture"] != "01ab" || got["account"] != "al ice" {
		t.Errorf("hook's line: got %v", got)
	}
	if got := parseFields(`event=proven msg="torn by a ki`); got["event"] != "proven" {
		t.Errorf("torn line: got %v", got)
	}
}

func TestOwnerIsAliveOnlyAsItself(t *testing.T) {
	if !alive(owner()) {
		t.Error("this process counts as dead")
	}
	for _, other := range []string{owner() + "1", "1.1", "0.0", "", "x"} {
		if alive(other) {
			t.Errorf("%q counts as alive", other)
		}
	}
}
