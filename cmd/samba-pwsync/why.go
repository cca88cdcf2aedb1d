package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/agent"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

func whyCommand() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "tell in one sentence where an account's password is, and why it is not elsewhere",
		ArgsUsage: "ACCOUNT",
		Description: "ACCOUNT is a sAMAccountName, a user principal name, an objectGUID, or the account's name at a target; where several accounts have " +
			"the name, each is told of. Asks the running serve, both roles of it: what the forwarder has delivered and what waits there, and what the agent " +
			"sees in the directory now. Exit code 0: the targets that want the account have its password, or will within moments, 1: that could not be told, or nobody has " +
			"that name, 2: the configuration is wrong, 3: a target lacks it, a password has been underway for more than a minute, or one of the roles " +
			"or the directory does not answer. --json prints an object: accounts, a list of objects with verdict, " +
			"attention (exit code 3), forwarder and agent, which is all that each role knows of the account, null where it does not run.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print JSON, for scripts"},
		},
		Before: oneAccount,
		Action: runWhy,
	}
}

// oneAccount is the Before of commands about an account.
func oneAccount(c *cli.Context) error {
	if c.NArg() != 1 || strings.TrimSpace(c.Args().First()) == "" {
		return usagef(c, "%s needs an account, and only one", c.Command.HelpName)
	}
	return nil
}

// about makes a question about something; values that are empty are left out.
func about(question string, pairs ...string) string {
	values := url.Values{}
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			values.Set(pair[0], pair[1])
		}
	}
	if len(values) == 0 {
		return question
	}
	return question + "?" + values.Encode()
}

// whyReport is what `why --json` prints; scripts rely on its names.
type whyReport struct {
	Accounts []whyAccount `json:"accounts"`
}

type whyAccount struct {
	Verdict   string         `json:"verdict"`
	Attention bool           `json:"attention"`
	Forwarder *deliver.Story `json:"forwarder"` // null: not running, or it knows nothing of the account
	Agent     *agent.Known   `json:"agent"`     // null: not running

	asked bool // the forwarder
	fresh bool // the watch
}

func runWhy(c *cli.Context) error {
	cfg, err := config.Load(configPath(c))
	if err != nil {
		return err
	}
	name := strings.TrimSpace(c.Args().First())
	r, err := newWhyReport(c.Context, cfg.Paths(), name)
	if err != nil {
		return err
	}
	attention := false
	for i := range r.Accounts {
		a := &r.Accounts[i]
		a.judge()
		attention = attention || a.Attention
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, r)
	} else {
		for _, a := range r.Accounts {
			fmt.Fprintln(c.App.Writer, printable(a.Verdict))
		}
	}
	if err == nil && attention {
		return &codedError{code: exitAttention}
	}
	return err
}

// newWhyReport asks both roles. The forwarder knows the names at the targets, and the agent those in the directory.
func newWhyReport(ctx context.Context, paths config.Paths, name string) (*whyReport, error) {
	var known deliver.Stories
	running, err := answered(control.Get(ctx, paths.ForwarderSocket, about("/why", "account", name), &known))
	if err != nil {
		return nil, err
	}
	r := &whyReport{Accounts: []whyAccount{}}
	for _, story := range known.Accounts {
		a := whyAccount{Forwarder: &story, asked: true, fresh: known.Watch.Fresh}
		if a.Agent, err = askAgent(ctx, paths, story.GUID.String()); err != nil {
			return nil, err
		}
		r.Accounts = append(r.Accounts, a)
	}
	if len(r.Accounts) > 0 {
		return r, nil
	}
	seen, err := askAgent(ctx, paths, name)
	switch {
	case err != nil:
		return nil, err
	case seen == nil && !running:
		return nil, errNothingRuns
	case seen == nil || !seen.Found && seen.Error == "":
		return nil, errNoAccount
	case !seen.Found:
		return nil, fmt.Errorf("asking the directory: %s", seen.Error)
	}
	a := whyAccount{Agent: seen, asked: running, fresh: known.Watch.Fresh}
	if running {
		if err := control.Get(ctx, paths.ForwarderSocket, about("/why", "account", seen.GUID.String()), &known); err != nil {
			return nil, err
		}
		if len(known.Accounts) == 1 {
			a.Forwarder = &known.Accounts[0]
		}
	}
	r.Accounts = append(r.Accounts, a)
	return r, nil
}

func askAgent(ctx context.Context, paths config.Paths, name string) (*agent.Known, error) {
	var known agent.Known
	if running, err := answered(control.Get(ctx, paths.AgentSocket, about("/why", "account", name), &known)); err != nil || !running {
		return nil, err
	}
	return &known, nil
}

// answered tells that nobody answers from what else went wrong.
func answered(err error) (bool, error) {
	if errors.Is(err, control.ErrNotRunning) {
		return false, nil
	}
	return err == nil, err
}

// onItsWay is how long a password may be underway before that needs somebody.
const onItsWay = time.Minute

// intended are the reasons for which a target lacks a password by configuration.
var intended = []change.Reason{change.AtPeer, change.Disabled, change.Temporary}

// judge makes the verdict: what was delivered, then what was not, in one sentence.
func (a *whyAccount) judge() {
	var good, bad []string
	lacking := map[string][]string{} // targets, by why they lack it
	if s := a.Forwarder; s != nil && !s.Gone {
		for _, t := range s.Targets {
			text, attention := a.at(t)
			a.Attention = a.Attention || attention
			switch {
			case text == "" && t.Missing != "" && t.Queued == nil:
				why := explain(t.Missing, t.Detail)
				if lacking[why] == nil {
					bad = append(bad, why)
				}
				lacking[why] = append(lacking[why], t.Target)
				a.Attention = a.Attention || !slices.Contains(intended, t.Missing)
			case text == "":
			case attention:
				bad = append(bad, text)
			default:
				good = append(good, text)
			}
		}
	}
	for i, why := range bad {
		switch names := lacking[why]; {
		case len(names) == 1:
			bad[i] = names[0] + " lacks it: " + why
		case len(names) > 1:
			bad[i] = strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1] + " lack it: " + why
		}
	}
	parts := append(append(a.before(), good...), bad...)
	if len(parts) == 0 {
		parts = []string{a.nothing()}
	}
	if a.Agent == nil && !a.Forwarder.Gone {
		a.Attention = true
		parts = append(parts, "the agent is not running, so nobody knows whether the directory has a newer password")
	}
	a.Verdict = a.name() + ": " + strings.Join(parts, "; ")
}

func (a *whyAccount) name() string {
	switch {
	case a.Agent != nil && a.Agent.Found:
		return a.Agent.Account
	case a.Forwarder.Account != "":
		return a.Forwarder.Account
	}
	return a.Forwarder.GUID.String()
}

// before tells what comes before all targets.
func (a *whyAccount) before() (parts []string) {
	known, s := a.Agent, a.Forwarder
	if !a.asked {
		a.Attention = true
		parts = append(parts, "the forwarder is not running, and only it knows what it has delivered")
	}
	switch {
	case s != nil && s.Gone && (known == nil || !known.Found):
		return append(parts, "the account was deleted, or cannot be read; nothing of it is sent")
	case known == nil:
		return parts
	case known.Error != "":
		a.Attention = true
		text := "the directory could not be asked (" + known.Error + ")"
		if !known.Found {
			text += ", so nobody knows whether it has a newer password"
		}
		parts = append(parts, text)
	case !known.Found:
		return append(parts, "the directory holds no such user account any more")
	}
	if s != nil && known.Stamp.Compare(s.Stamp) > 0 {
		text := "the directory holds a newer password, of " + clock(known.Stamp.Time)
		if time.Since(known.Stamp.Time) > onItsWay {
			a.Attention = true
			text += ", which should have been looked at by now"
		} else {
			text += ", which is about to be looked at"
		}
		parts = append(parts, text)
	}
	if known.Captures > 0 {
		a.Attention = a.Attention || time.Since(known.Oldest) > onItsWay
		parts = append(parts, fmt.Sprintf("a captured password waits for its proof since %s", clock(known.Oldest)))
	}
	return parts
}

// nothing is the verdict where there is nothing to say about any target.
func (a *whyAccount) nothing() string {
	known, s := a.Agent, a.Forwarder
	switch {
	case known != nil && known.Found && len(known.Targets) == 0:
		return "no target wants the account (" + strings.Join(known.Unwanted, "; ") + ")"
	case s != nil && s.Decided:
		return "no target wanted the account when its password was last looked at"
	case known != nil && known.Undecided:
		return "its password was set " + clock(known.Stamp.Time) + "; whether a target lacks it is looked at when confirm_timeout is over"
	default:
		return "nothing has been heard of its password yet"
	}
}

// at tells of one target; text is empty if there is nothing to tell, or only why the target lacks the password.
func (a *whyAccount) at(t deliver.TargetStory) (text string, attention bool) {
	holds := ""
	if t.Delivered != nil && !t.Delivered.Newest {
		holds = ", and holds the one delivered " + clock(t.Delivered.FirstAt)
	}
	reason := ""
	if t.Outcome != nil {
		reason = spoken(t.Outcome.Reason)
	}
	if q := t.Queued; q != nil && q.State.Underway() {
		return a.waits(t, *q)
	}
	switch t.Missing {
	case change.Reason(target.Rejected):
		return fmt.Sprintf("%s refuses it%s; the user has to choose another", t.Target, after(": ", reason)+holds), true
	case change.Reason(target.NoUser):
		return fmt.Sprintf("%s cannot set the password of a user %s%s; put that right there or in the directory, and have the password changed", t.Target, t.User,
			after(": ", reason)), true
	case change.Reason(ledger.Expired):
		return fmt.Sprintf("it waited for %s longer than secret_ttl, until %s, and was shredded%s; the user has to change it again", t.Target, clock(t.Outcome.At), after(": ", reason)+holds), true
	case change.Reason(ledger.Dropped):
		return fmt.Sprintf("it was dropped from the queue for %s %s%s; the user has to change it again", t.Target, clock(t.Outcome.At), holds), true
	case change.Reason(ledger.NameTaken):
		return fmt.Sprintf("%s has another account as %s%s; give one of them another name there", t.Target, t.User, after(": ", reason)), true
	case "":
	default:
		return "", false
	}
	if t.Delivered == nil || !t.Delivered.Newest {
		return "", false
	}
	text = "delivered to " + t.Target + " " + clock(t.Delivered.FirstAt)
	if t.Delivered.Took > 0 {
		text += ", " + short(t.Delivered.Took) + " after the change"
	}
	if !t.Delivered.Confirmed.IsZero() {
		text += ", and confirmed there"
	}
	if t.Queued != nil && t.Queued.State == deliver.Settling {
		text += ", and once more when the other domain controllers have been heard"
	}
	return text, false
}

// waits tells of what waits for a target.
func (a *whyAccount) waits(t deliver.TargetStory, q deliver.Queued) (text string, attention bool) {
	late := time.Since(q.Captured) > onItsWay
	switch {
	case q.State == deliver.Trying:
		return "it is being sent to " + t.Target, late
	case q.State == deliver.Shelved:
		return t.Target + " does not want the account any more; what waits is kept, should it want it again, until secret_ttl is over", false
	case t.State == deliver.Denied:
		return "it waits for " + t.Target + ", which denies access since " + clock(t.Since) + after(": ", t.Error), true
	case t.State == deliver.Down:
		return "it waits for " + t.Target + ", which is down since " + clock(t.Since) + after(": ", t.Error) + next(t.Next), true
	case t.State == deliver.Throttled:
		return "it waits for " + t.Target + ", which asked for a pause until " + clock(t.Next), true
	case !a.fresh && time.Since(q.Captured) > 10*time.Second:
		return "it waits for " + t.Target + ", held back until an agent tells that it is still current", true
	case q.Attempts > 0:
		times := "once"
		if q.Attempts > 1 {
			times = fmt.Sprintf("%d times", q.Attempts)
		}
		return fmt.Sprintf("it waits for %s, which was tried %s%s%s", t.Target, times, after(": ", spoken(q.Reason)), next(q.Due)), late
	default:
		return "it waits for " + t.Target, late
	}
}

// next tells when something is tried again.
func next(at time.Time) string {
	if at.Before(time.Now()) {
		return ""
	}
	return "; it is tried again by " + clock(at)
}

// after puts a text behind a separator, if there is one.
func after(separator, text string) string {
	if text == "" {
		return ""
	}
	return separator + text
}

// spoken takes the class, which the sentence has told, out of a target's reason.
func spoken(reason string) string {
	for _, class := range []error{target.ErrRejected, target.ErrNoUser} {
		if _, rest, found := strings.Cut(reason, class.Error()); found {
			reason = strings.TrimPrefix(rest, ": ")
		}
	}
	if rest, ok := strings.CutPrefix(reason, "it "); ok {
		return "the password " + rest
	}
	return reason
}

// short writes a duration for a person.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", max(1, d.Milliseconds()))
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	default:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
}
