package main

import (
	"bytes"
	"errors"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestDriftMovesNoCursor(t *testing.T) {
	undecided := 3
	r := &driftReport{AsOf: time.Now(), Drift: []deliver.Drift{{
		Account: "liz\x1b[2J", Target: "google", User: "liz\u202e@example.com", Reason: deliver.TargetDenied, Detail: "no\r\nway\t!",
		Stamp: dsdb.Stamp{Time: time.Now()},
	}}, Undecided: &undecided}
	var b bytes.Buffer
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if strings.ContainsAny(text, "\x1b\r\t\u202e") || strings.Count(text, "\n") != 5 {
		t.Errorf("%q", text)
	}
	if !strings.Contains(text, "liz\ufffd[2J") || !strings.Contains(text, "still to look at 3 accounts") {
		t.Errorf("the rest is not there: %q", text)
	}
}

// The JSON is written by hand, account by account. It is what would be written of all at once.
func TestDriftAsJSON(t *testing.T) {
	undecided := 3
	for _, r := range []driftReport{
		{}, {Undecided: &undecided}, {AsOf: time.Unix(1, 0).UTC(), Drift: []deliver.Drift{{Account: "a"}}, Undecided: &undecided},
		{Drift: []deliver.Drift{{Account: "liz\x1b\u202e<\"", DC: "DC1"}, {Stamp: dsdb.Stamp{Time: time.Unix(1, 0), Version: 2}}, {Detail: "\u2028"}}},
	} {
		whole := struct {
			Drift []deliver.Drift `json:"drift"`
			driftReport
		}{append([]deliver.Drift{}, r.Drift...), r}
		var got, want bytes.Buffer
		if err := errors.Join(r.printJSON(&got), printJSON(&want, whole)); err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() {
			t.Errorf("got\n%s\nwant\n%s", got.String(), want.String())
		}
	}
}

// A forwarder that was taken over cannot fill the memory of root's command with accounts that are none.
func TestDriftOfNothing(t *testing.T) {
	in := install(t, startSandbox(t), self())
	listener, err := control.Listen(in.paths.ForwarderSocket)
	if err != nil {
		t.Fatal(err)
	}
	tells := func(v any) control.Answer { return func(url.Values) (any, error) { return v, nil } }
	go control.Serve(t.Context(), listener, map[string]control.Answer{
		"/status": tells(deliver.Status{}),
		"/drift": tells(control.Stream(func(tell func(any) error) error {
			for {
				if err := tell(struct{}{}); err != nil {
					return err
				}
			}
		})),
	})
	if out, err := exec.Command("samba-pwsync", "drift", "--config", in.config).CombinedOutput(); err == nil || !strings.Contains(string(out), "makes no sense") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestDriftInOrder(t *testing.T) {
	r := &driftReport{}
	for _, account := range []string{"adam old", "Bob lost b", "alice lost", "bob lost a", "Zoe lost", "carol lost"} {
		what := strings.Fields(account + " a")
		d := deliver.Drift{Account: what[0], Reason: change.Lost, Target: what[2]}
		if what[1] == "old" {
			d.Reason = change.BeforeInstallation
		}
		r.Drift = append(r.Drift, d)
	}
	r.sort()
	var got []string
	for _, d := range r.Drift {
		got = append(got, d.Account+" "+d.Target)
	}
	if text := strings.Join(got, ", "); text != "alice a, bob a, Bob b, carol a, Zoe a, adam a" {
		t.Errorf("in the order of %s", text)
	}
}

// Whatever needs a person demands attention: the others mend themselves, are told of by another line, or are usual.
func TestDriftThatNeedsAttention(t *testing.T) {
	for _, known := range reasons {
		r := healthy()
		r.Forwarder.Drift = map[change.Reason]int{known.reason: 2}
		r.judge()
		alarm := strings.Contains(strings.Join(r.Attention, "\n"), "2 passwords are missing at a target ("+string(known.reason))
		if alarm != known.alarm {
			t.Errorf("%s: %q", known.reason, r.Attention)
		}
		if text := printed(t, r); !strings.Contains(text, "drift      2 "+string(known.reason)+": ") {
			t.Errorf("%s is printed as\n%s", known.reason, text)
		}
	}
}
