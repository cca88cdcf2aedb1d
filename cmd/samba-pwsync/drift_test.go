package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
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
