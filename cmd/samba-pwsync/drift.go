package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
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

func driftCommand() *cli.Command {
	return &cli.Command{
		Name:  "drift",
		Usage: "list the accounts whose password a target lacks, and why",
		Description: "Asks the running serve. An account is listed for each target that wants it and lacks the password that the directory holds. A password " +
			"that was not captured cannot be delivered: its account is listed until the next change. After an installation these are all " +
			"accounts (before-installation). What is changed at the domain controllers that [directory] peers names is theirs to deliver, " +
			"and is listed with --all only, as is what is not sent because of temporary or disabled = \"skip\". A change is looked at when confirm_timeout is over, and every account once " +
			"a day, because a group's new member does not change itself. Exit code 0: nothing is listed, 1: could not be told, 2: the " +
			"configuration is wrong, 3: something is listed. --json prints an object: drift, a list of objects with account, guid, " +
			"user_principal_name, target, user (the account there), reason, detail, stamp (version, time, invocation_id, usn), seen and dc " +
			"(where it was changed); undecided, how many accounts the agent has still to look at, null if it does not run; as_of, until " +
			"when the directory has been seen, not there if that is not known. The reasons, explained in " +
			"/usr/share/doc/samba-pwsync/operating.md: " + strings.Join(reasonNames(), ", ") + ".",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print JSON, for scripts"},
			&cli.BoolFlag{Name: "all", Usage: "list also what is rightly not sent from here"},
		},
		Before: noArguments,
		Action: runDrift,
	}
}

// reasons explains each reason, in the order of the manual.
var reasons = []struct {
	reason change.Reason
	alarm  bool // status demands attention, and does not do so for another reason already
	why    string
	cure   string // what to do about it; empty: nothing but the next change
}{
	{change.BeforeInstallation, false, "changed before samba-pwsync was installed", ""},
	{change.AtOtherDC, true, "changed at a domain controller without samba-pwsync", "install it there, and name it in [directory] peers"},
	{change.AtPeer, false, "changed at a domain controller that delivers by itself", "ask there: samba-pwsync drift"},
	{change.Disabled, false, "not sent: the account is disabled, and disabled is \"skip\" for this target", ""},
	{change.Temporary, false, "not sent: it has to be changed at the next logon, and temporary is \"skip\" for this target", ""},
	{change.NameShared, true, "not sent: another account has the same name at the target", "give one of them another name, or leave it out by a filter"},
	{change.HashOnly, true, "only a hash was set, so nobody knows the password", ""},
	{change.ComplexityOff, true, "not shown to the hook, because complexity is off", "switch it on there"},
	{change.Unprovable, true, "the directory stores nothing to prove it by", "see samba-pwsync check --connect"},
	{change.NotCaptured, true, "not captured by the hook", "see samba-pwsync check, and the hook's errors in the system's log"},
	{change.WantedSince, true, "the target did not want the account at that time", ""},
	{change.Lost, true, "captured, and lost on its way", "see the log of the forwarder, and what was set aside"},
	{deliver.Waiting, false, "waits to be sent", ""},
	{deliver.TargetDenied, false, "waits, because the target denies access", "see samba-pwsync status"},
	{deliver.TargetDown, false, "waits, because the target is down", "see samba-pwsync status"},
	{change.Reason(target.NoUser), false, "the target knows no such user", "create the user there, or correct the account's attribute"},
	{change.Reason(target.Forbidden), false, "the target lets us set others' passwords, and not this user's", "see its administrator roles; cloud administrators are best left out"},
	{change.Reason(target.Rejected), false, "the target refused the password", "change it to one that the target takes"},
	{change.Reason(ledger.Expired), false, "waited longer than secret_ttl, and was shredded", ""},
	{change.Reason(ledger.Dropped), false, "taken out of the queue by samba-pwsync queue drop", ""},
	{change.Reason(ledger.NameTaken), true, "another account has the name at the target", "give one of them another name"},
}

func reasonNames() (names []string) {
	for _, r := range reasons {
		names = append(names, string(r.reason))
	}
	return names
}

// explain says a reason, by its name and in words, with what to do about it.
func explain(reason change.Reason, detail string) string {
	for _, r := range reasons {
		if r.reason != reason {
			continue
		}
		text := string(reason) + ": " + r.why
		if detail != "" {
			text += " (" + detail + ")"
		}
		if r.cure != "" {
			text += "; " + r.cure
		}
		return text
	}
	return string(reason) // of another version's forwarder
}

// driftReport is what `drift --json` prints; scripts rely on its names.
type driftReport struct {
	Drift     []deliver.Drift `json:"-"`              // by account and target; printJSON prints it before the rest, as drift
	AsOf      time.Time       `json:"as_of,omitzero"` // until when the directory has been seen; zero: not since the start
	Undecided *int            `json:"undecided"`
}

// mostDrift is more than two hundred thousand accounts with four targets, and takes some hundred megabytes. A forwarder that tells of more is none.
const mostDrift = 1_000_000

func runDrift(c *cli.Context) error {
	cfg, err := config.Load(configPath(c))
	if err != nil {
		return err
	}
	r, err := newDriftReport(c.Context, cfg.Paths())
	if err != nil {
		return err
	}
	if !c.Bool("all") {
		r.leaveOutRightful()
	}
	if c.Bool("json") {
		err = r.printJSON(c.App.Writer)
	} else {
		err = r.print(c.App.Writer)
	}
	if err == nil && len(r.Drift) > 0 {
		return &codedError{code: exitAttention}
	}
	return err
}

func newDriftReport(ctx context.Context, paths config.Paths) (*driftReport, error) {
	var f deliver.Status
	r := &driftReport{}
	err := control.Get(ctx, paths.ForwarderSocket, "/status", &f)
	if err == nil {
		r.AsOf = f.Watch.AsOf
		r.Drift, err = control.Gather(ctx, paths.ForwarderSocket, "/drift", mostDrift, func(d deliver.Drift) bool {
			return d.GUID != "" && d.Target != "" && d.Reason != ""
		})
	}
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return nil, errNoForwarder
	case err != nil:
		return nil, err
	}
	r.sort()
	var a agent.Status
	switch err := control.Get(ctx, paths.AgentSocket, "/status", &a); {
	case err == nil:
		r.Undecided = &a.Followup.Undecided
	case !errors.Is(err, control.ErrNotRunning):
		return nil, err
	}
	return r, nil
}

// sort sorts by account and target; last come those of before the installation, which in the first months are many and ask for nothing.
func (r *driftReport) sort() {
	key := func(d deliver.Drift) (old int, account string) {
		if d.Reason == change.BeforeInstallation {
			old = 1
		}
		return old, strings.ToLower(d.Account)
	}
	slices.SortFunc(r.Drift, func(a, b deliver.Drift) int {
		oldA, accountA := key(a)
		oldB, accountB := key(b)
		return cmp.Or(oldA-oldB, strings.Compare(accountA, accountB), cmp.Compare(a.GUID, b.GUID), cmp.Compare(a.Target, b.Target))
	})
}

func (r *driftReport) leaveOutRightful() {
	r.Drift = slices.DeleteFunc(r.Drift, func(d deliver.Drift) bool { return d.Reason.Rightly() })
}

// printJSON is the function of that name, and prints one account after the other: the text of all of them is much longer than they are.
func (r *driftReport) printJSON(out io.Writer) error {
	rest, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	w := bufio.NewWriter(out)
	w.WriteString("{\n  \"drift\": [")
	before, after := "\n    ", ""
	for _, d := range r.Drift {
		text, err := json.MarshalIndent(d, "    ", "  ")
		if err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
		var b bytes.Buffer
		escapeJSON(&b, before+string(text))
		w.Write(b.Bytes())
		before, after = ",\n    ", "\n  "
	}
	fmt.Fprintf(w, "%s],%s\n", after, bytes.TrimPrefix(rest, []byte("{")))
	return w.Flush()
}

func (r *driftReport) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if len(r.Drift) > 0 {
		row("ACCOUNT", "TARGET", "USER", "CHANGED", "WHY")
	}
	for i, d := range r.Drift {
		row(d.Account, d.Target, d.User, clock(d.Stamp.Time), explain(d.Reason, d.Detail))
		if i%1000 != 999 {
			continue
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintln(out, printable(fmt.Sprintf(format, args...))) }
	if len(r.Drift) == 0 {
		say("Nothing is known to be missing at any target.")
	} else {
		say("What was not captured is delivered after the account's next change.")
	}
	if r.AsOf.IsZero() {
		say("No agent has told of the directory since the forwarder started.")
	} else {
		say("The directory has been seen until %s.", clock(r.AsOf))
	}
	switch n := r.Undecided; {
	case n == nil:
		say("The agent is not running: what has changed since is not among these.")
	case *n > 0:
		say("The agent has still to look at %d accounts.", *n)
	}
	return nil
}
