package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// says runs a command and holds its exit code.
func (in installation) says(t *testing.T, code int, args ...string) string {
	t.Helper()
	out, err := exec.Command("samba-pwsync", append([]string{"--config", in.config}, args...)...).CombinedOutput()
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != code {
		t.Errorf("%s: exit code %d, want %d:\n%s", args, got, code, out)
	}
	return string(out)
}

// until waits for a command to say something.
func (in installation) until(t *testing.T, code int, want string, args ...string) {
	t.Helper()
	said := ""
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		out, _ := exec.Command("samba-pwsync", append([]string{"--config", in.config}, args...)...).CombinedOutput()
		if said = string(out); strings.Contains(said, want) {
			in.says(t, code, args...)
			return
		}
	}
	t.Fatalf("%s never says %q:\n%s", args, want, said)
}

// One cloud takes the password, and the other one refuses it: `why` tells that in a sentence, `queue` lists it. Then that cloud is down,
// and what waits is retried, and dropped.
func TestWhyAndQueue(t *testing.T) {
	sb := startSandbox(t)
	if err := sb.AddUser(sandbox.User{Name: liz}); err != nil {
		t.Fatal(err)
	}
	in := install(t, sb, self())
	in.says(t, 1, "why", "liz")
	in.says(t, 1, "queue", "list")
	in.start(t, self(), roleForwarder)
	if err := untilAnswers(in.paths.ForwarderSocket); err != nil {
		t.Fatal(err)
	}
	if got := in.says(t, 0, "queue", "list"); got != "Nothing is in the queue.\n" {
		t.Errorf("%q", got)
	}
	if got := in.says(t, 0, "queue", "list", "--json"); got != "{\"queue\": []}\n" {
		t.Errorf("%q", got)
	}
	if got := in.says(t, 0, "queue", "retry", "--all"); got != "Nothing waits that could be tried.\n" {
		t.Errorf("%q", got)
	}
	in.says(t, 1, "why", "liz")
	in.says(t, 1, "queue", "drop", "liz")

	in.hand(t, 1, "correcthorsebattery")
	const refused = "; entra refuses it: not complex enough, or on Microsoft's or the tenant's list of banned passwords (status 400, Request_BadRequest); the user has to choose another; the agent is not running, so nobody knows whether the directory has a newer password\n"
	in.until(t, 3, refused, "why", "liz")
	for _, name := range []string{"LIZ", liz, "00000001-0000-0000-0000-000000000000"} {
		got := in.says(t, 3, "why", name)
		if !strings.HasPrefix(got, "liz: delivered to google ") || !strings.Contains(got, " ms after the change; ") && !strings.Contains(got, " s after the change; ") || strings.Count(got, "\n") != 1 {
			t.Errorf("%q", got)
		}
	}
	var report struct {
		Accounts []struct {
			Verdict   string
			Attention bool
			Forwarder *deliver.Story
			Agent     any
		}
	}
	if err := json.Unmarshal([]byte(in.says(t, 3, "why", "liz", "--json")), &report); err != nil || len(report.Accounts) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	if a := report.Accounts[0]; !a.Attention || !strings.HasSuffix(a.Verdict+"\n", refused) || a.Agent != nil || len(a.Forwarder.Targets) != 2 || a.Forwarder.Targets[0].Outcome.Class != "rejected" ||
		a.Forwarder.Targets[1].Delivered.Took <= 0 {
		t.Errorf("%+v", a)
	}
	var list struct{ Queue []deliver.Queued }
	if err := json.Unmarshal([]byte(in.says(t, 0, "queue", "list", "--json")), &list); err != nil || len(list.Queue) != 1 || list.Queue[0].State != deliver.Refused || list.Queue[0].Sealed {
		t.Errorf("%+v, %v", list, err)
	}
	if got := in.says(t, 0, "queue", "retry", "liz"); !strings.HasPrefix(got, "Nothing waits") || !strings.Contains(got, "\n1 parked: ") {
		t.Errorf("%q", got)
	}

	if err := sb.Misbehave(sandbox.Microsoft, sandbox.Fault{Kind: "503"}); err != nil {
		t.Fatal(err)
	}
	in.hand(t, 2, password)
	in.until(t, 3, "it waits for entra, which was tried ", "why", "liz")
	if got := in.says(t, 0, "queue", "list", "--target", "entra"); !strings.Contains(got, "temporary: ") || strings.Count(got, "\n") != 2 {
		t.Errorf("%q", got)
	}
	if got := in.says(t, 0, "queue", "retry", liz, "--target", "entra"); got != "1 change is tried now.\n" {
		t.Errorf("%q", got)
	}
	if got := in.says(t, 0, "queue", "list", "--target", "google"); got != "Nothing is in the queue.\n" {
		t.Errorf("%q", got)
	}
	if got := in.says(t, 0, "queue", "drop", "liz", "--target", "entra"); !strings.HasPrefix(got, "liz: dropped, for entra") {
		t.Errorf("%q", got)
	}
	if files, err := filepath.Glob(filepath.Join(in.paths.Outgoing, "*"+change.Suffix)); err != nil || len(files) > 0 {
		t.Errorf("left: %q, %v", files, err)
	}
	in.says(t, 1, "queue", "drop", "liz")
	if got := in.says(t, 3, "why", "liz"); !strings.Contains(got, "; it was dropped from the queue for entra ") {
		t.Errorf("%q", got)
	}
	if got := in.says(t, 3, "drift"); !strings.Contains(got, "  dropped: taken out of the queue ") {
		t.Errorf("%q", got)
	}
	for _, wrong := range [][]string{{"why"}, {"why", "a", "b"}, {"why", " "}, {"queue"}, {"queue", "retry"}, {"queue", "retry", "liz", "--all"},
		{"queue", "drop"}, {"queue", "list", "liz"}, {"queue", "list", "--target", "nosuch"}, {"queue", "drop", "liz", "--all"}} {
		in.says(t, 2, wrong...)
	}
}

// Both roles are asked. The forwarder knows what it delivered, also while the directory does not answer.
func TestWhyAsksBoth(t *testing.T) {
	sb := startSandbox(t)
	if err := sb.AddUser(sandbox.User{Name: liz}); err != nil {
		t.Fatal(err)
	}
	in := install(t, sb, self())
	in.start(t, self(), roleAll)
	for _, socket := range []string{in.paths.AgentSocket, in.paths.ForwarderSocket} {
		if err := untilAnswers(socket); err != nil {
			t.Fatal(err)
		}
	}
	if got := in.says(t, 1, "why", "liz"); !strings.Contains(got, "asking the directory: the directory does not answer\n") {
		t.Errorf("%q", got)
	}
	in.hand(t, 1, password)
	in.until(t, 3, "delivered to google ", "why", "liz")
	if got := in.says(t, 3, "why", "liz"); !strings.HasPrefix(got, "liz: the directory could not be asked (the directory does not answer), so nobody knows whether it has a newer password; delivered to entra ") {
		t.Errorf("%q", got)
	}
	if got := in.says(t, 3, "why", "liz", "--json"); strings.Contains(got, "null") || !strings.Contains(got, `"agent": {`) {
		t.Errorf("%q", got)
	}
}

// What others chose does not move the cursor, in either form.
func TestQueueMovesNoCursor(t *testing.T) {
	q := deliver.Queued{Account: "liz\x1b[2J", Target: "google", User: "a\tb\u202e", State: deliver.Pending, Stamp: dsdb.Stamp{Version: 1}, Class: "temporary", Reason: "no\r\nway"}
	var b bytes.Buffer
	for _, l := range []queueList{&queueTable{out: &b}, &queueJSON{out: &b}} {
		b.Reset()
		if err := errors.Join(l.add(q), l.add(q), l.end()); err != nil {
			t.Fatal(err)
		}
		if text := b.String(); strings.ContainsAny(text, "\x1b\r\t\u202e") || strings.Count(text, "\n") > 4 {
			t.Errorf("%q", text)
		}
	}
	var list struct{ Queue []deliver.Queued }
	if err := json.Unmarshal(b.Bytes(), &list); err != nil || len(list.Queue) != 2 || list.Queue[1].User != q.User || list.Queue[1].Account != q.Account {
		t.Errorf("%+v, %v", list, err)
	}
}

// Rows that are several megabytes together are printed as they come.
func TestQueueStreams(t *testing.T) {
	most := 0
	w := writer(func(p []byte) { most = max(most, len(p)) })
	for _, l := range []queueList{&queueTable{out: w}, &queueJSON{out: w}} {
		for n := range 30_000 {
			if err := l.add(deliver.Queued{Account: fmt.Sprint(n), Target: "google", State: deliver.Pending}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.end(); err != nil || most > 1<<20 {
			t.Errorf("%d bytes at once, %v", most, err)
		}
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }
