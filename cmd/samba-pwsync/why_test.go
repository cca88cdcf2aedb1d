package main

import (
	"cmp"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/agent"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func TestVerdict(t *testing.T) {
	now := time.Now()
	at := time.Date(2026, 3, 1, 14, 3, 12, 0, time.Local)
	older, newer := dsdb.Stamp{Version: 1, Time: at}, dsdb.Stamp{Version: 2, Time: at}
	const day = "2026-03-01 14:03:12"
	delivered := deliver.TargetStory{Target: "google", State: deliver.Up, Wanted: true, Delivered: &deliver.Delivery{Stamp: newer, At: at, FirstAt: at, Took: 41 * time.Millisecond, Newest: true}}
	missing := func(name string, why change.Reason, reason string) deliver.TargetStory {
		return deliver.TargetStory{Target: name, State: deliver.Up, User: "liz@example.com", Wanted: true, Missing: why,
			Outcome: &deliver.Outcome{Class: target.Class(why), Reason: reason, Stamp: newer, At: at, Attempts: 1}}
	}
	parked := missing("entra", "rejected", "setting password: password refused by the target: it has fewer than 3 character classes")
	parked.Queued = &deliver.Queued{State: deliver.Refused, Captured: at}
	held := missing("entra", "rejected", "")
	held.Delivered = &deliver.Delivery{Stamp: older, At: at, FirstAt: at}
	confirmed := delivered
	confirmed.Delivered = &deliver.Delivery{Stamp: newer, At: at, FirstAt: at, Took: time.Second, Newest: true, Confirmed: at}
	settling := delivered
	settling.Queued = &deliver.Queued{State: deliver.Settling, Captured: at}
	waits := func(state deliver.State, text string, q deliver.Queued) deliver.TargetStory {
		q.State = cmp.Or(q.State, deliver.Pending)
		return deliver.TargetStory{Target: "entra", State: state, Since: at, Error: text, Next: now.Add(time.Hour), Wanted: true, Queued: &q}
	}
	trying := waits(deliver.Up, "", deliver.Queued{Captured: now})
	trying.Queued.State = deliver.Trying
	found := func() *agent.Known {
		return &agent.Known{Found: true, Account: "liz", Stamp: newer, Targets: []change.Route{{Target: "google"}}}
	}
	none := &agent.Known{} // stands for: it does not run
	captured := func(oldest time.Time) *agent.Known {
		k := found()
		k.Captures, k.Oldest = 1, oldest
		return k
	}
	story := func(targets ...deliver.TargetStory) *deliver.Story {
		return &deliver.Story{Account: "liz", Stamp: newer, Decided: true, Targets: targets}
	}
	for name, c := range map[string]struct {
		account   whyAccount // the agent, if it is not said, knows no more than the forwarder
		want      string
		attention bool
	}{
		"as in the manual": {whyAccount{Forwarder: story(parked, delivered), Agent: found()}, "delivered to google " + day + ", 41 ms after the change; " +
			"entra refuses it: the password has fewer than 3 character classes; the user has to choose another", true},
		"not wanted, and denied": {whyAccount{Forwarder: story(waits(deliver.Denied, "no", deliver.Queued{Captured: now.Add(-time.Hour), State: deliver.Shelved, Class: queue.Unwanted}))},
			"entra does not want the account any more; what waits is kept, should it want it again, until secret_ttl is over", false},
		"not wanted any more": {whyAccount{Forwarder: story(waits(deliver.Up, "", deliver.Queued{Captured: now.Add(-time.Hour), State: deliver.Shelved, Class: queue.Unwanted, Attempts: 2})), fresh: true},
			"entra does not want the account any more; what waits is kept, should it want it again, until secret_ttl is over", false},
		"delivered":  {whyAccount{Forwarder: story(delivered)}, "delivered to google " + day + ", 41 ms after the change", false},
		"confirmed":  {whyAccount{Forwarder: story(confirmed)}, "delivered to google " + day + ", 1.0 s after the change, and confirmed there", false},
		"settling":   {whyAccount{Forwarder: story(settling)}, "delivered to google " + day + ", 41 ms after the change, and once more when the other domain controllers have been heard", false},
		"holds":      {whyAccount{Forwarder: story(held)}, "entra refuses it, and holds the one delivered " + day + "; the user has to choose another", true},
		"no user":    {whyAccount{Forwarder: story(missing("entra", "no-user", "no such user at the target: 404 from Graph"))}, "entra cannot set the password of a user liz@example.com: 404 from Graph; put that right there or in the directory, and have the password changed", true},
		"expired":    {whyAccount{Forwarder: story(missing("entra", change.Reason(ledger.Expired), "timeout"))}, "it waited for entra longer than secret_ttl, until " + day + ", and was shredded: timeout; the user has to change it again", true},
		"dropped":    {whyAccount{Forwarder: story(missing("entra", change.Reason(ledger.Dropped), ""))}, "it was dropped from the queue for entra " + day + "; the user has to change it again", true},
		"name taken": {whyAccount{Forwarder: story(missing("entra", change.Reason(ledger.NameTaken), "the name is the account bob's now"))}, "entra has another account as liz@example.com: the name is the account bob's now; give one of them another name there", true},
		"never captured": {whyAccount{Forwarder: story(missing("entra", change.ComplexityOff, ""), delivered, missing("google2", change.ComplexityOff, ""))},
			"delivered to google " + day + ", 41 ms after the change; entra and google2 lack it: complexity-off: not shown to the hook, because complexity is off; switch it on there", true},
		"a peer's":       {whyAccount{Forwarder: story(missing("entra", change.AtPeer, ""))}, "entra lacks it: peer: changed at a domain controller that delivers by itself; ask there: samba-pwsync drift", false},
		"trying":         {whyAccount{Forwarder: story(trying), fresh: true}, "it is being sent to entra", false},
		"new":            {whyAccount{Forwarder: story(waits(deliver.Up, "", deliver.Queued{Captured: now})), fresh: true}, "it waits for entra", false},
		"waited":         {whyAccount{Forwarder: story(waits(deliver.Up, "", deliver.Queued{Captured: at})), fresh: true}, "it waits for entra", true},
		"stale":          {whyAccount{Forwarder: story(waits(deliver.Up, "", deliver.Queued{Captured: at}))}, "it waits for entra, held back until an agent tells that it is still current", true},
		"tried":          {whyAccount{Forwarder: story(waits(deliver.Up, "", deliver.Queued{Captured: at, Attempts: 3, Reason: "timeout", Due: at})), fresh: true}, "it waits for entra, which was tried 3 times: timeout", true},
		"denied":         {whyAccount{Forwarder: story(waits(deliver.Denied, "grant X", deliver.Queued{Captured: now}))}, "it waits for entra, which denies access since " + day + ": grant X", true},
		"throttled":      {whyAccount{Forwarder: story(waits(deliver.Throttled, "429", deliver.Queued{Captured: now}))}, "it waits for entra, which asked for a pause until " + clock(now.Add(time.Hour)), true},
		"down":           {whyAccount{Forwarder: story(waits(deliver.Down, "503", deliver.Queued{Captured: now}))}, "it waits for entra, which is down since " + day + ": 503; it is tried again by " + clock(now.Add(time.Hour)), true},
		"gone":           {whyAccount{Forwarder: &deliver.Story{Account: "liz", Gone: true}, Agent: none}, "the account was deleted, or cannot be read; nothing of it is sent", false},
		"nobody's":       {whyAccount{Forwarder: story(), Agent: &agent.Known{Found: true, Account: "liz", Stamp: newer, Unwanted: []string{"the account matches exclude"}}}, "no target wants the account (the account matches exclude)", false},
		"decided":        {whyAccount{Forwarder: story()}, "no target wanted the account when its password was last looked at", false},
		"just installed": {whyAccount{Forwarder: &deliver.Story{Account: "liz"}, Agent: &agent.Known{Found: true, Account: "liz", Targets: found().Targets}}, "nothing has been heard of its password yet", false},
		"to be judged":   {whyAccount{Agent: &agent.Known{Found: true, Account: "liz", Stamp: newer, Undecided: true, Targets: []change.Route{{Target: "google"}}}}, "its password was set " + day + "; whether a target lacks it is looked at when confirm_timeout is over", false},
		"a capture waits": {whyAccount{Forwarder: story(delivered), Agent: captured(now)},
			"a captured password waits for its proof since " + clock(now) + "; delivered to google " + day + ", 41 ms after the change", false},
		"a capture waits for long": {whyAccount{Forwarder: story(delivered), Agent: captured(at)},
			"a captured password waits for its proof since " + day + "; delivered to google " + day + ", 41 ms after the change", true},
		"newer in the directory": {whyAccount{Forwarder: &deliver.Story{Account: "liz", Stamp: older, Targets: []deliver.TargetStory{delivered}}, Agent: &agent.Known{Found: true, Account: "liz", Stamp: dsdb.Stamp{Version: 2, Time: now}}},
			"the directory holds a newer password, of " + clock(now) + ", which is about to be looked at; delivered to google " + day + ", 41 ms after the change", false},
		"newer in the directory for long": {whyAccount{Forwarder: &deliver.Story{Account: "liz", Stamp: older, Targets: []deliver.TargetStory{delivered}}},
			"the directory holds a newer password, of " + day + ", which should have been looked at by now; delivered to google " + day + ", 41 ms after the change", true},
		"no agent": {whyAccount{Forwarder: story(delivered), Agent: none},
			"delivered to google " + day + ", 41 ms after the change; the agent is not running, so nobody knows whether the directory has a newer password", true},
		"no directory": {whyAccount{Forwarder: story(delivered), Agent: &agent.Known{Error: "timeout"}},
			"the directory could not be asked (timeout), so nobody knows whether it has a newer password; delivered to google " + day + ", 41 ms after the change", true},
		"no directory for the routes": {whyAccount{Forwarder: story(delivered), Agent: &agent.Known{Found: true, Account: "liz", Stamp: newer, Error: "timeout"}},
			"the directory could not be asked (timeout); delivered to google " + day + ", 41 ms after the change", true},
	} {
		a := c.account
		a.asked = true
		switch a.Agent {
		case nil:
			a.Agent = found()
		case none:
			a.Agent = nil
		}
		a.judge()
		if a.Verdict != "liz: "+c.want || a.Attention != c.attention {
			t.Errorf("%s:\n got %q, %v\nwant %q, %v", name, a.Verdict, a.Attention, "liz: "+c.want, c.attention)
		}
	}
	a := whyAccount{Agent: found()}
	if a.judge(); !a.Attention || !strings.HasPrefix(a.Verdict, "liz: the forwarder is not running") {
		t.Errorf("%+v", a)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1: "1 ms", 41 * time.Millisecond: "41 ms", 1500 * time.Millisecond: "1.5 s", 42 * time.Second: "42 s", 42 * time.Minute: "42 min", 70 * time.Hour: "70 h",
	} {
		if got := short(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
