package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
)

func queueCommand() *cli.Command {
	targetFlag := func() cli.Flag {
		return &cli.StringFlag{Name: "target", Usage: "only what waits for the target `NAME`"}
	}
	account := "ACCOUNT is a sAMAccountName, a user principal name, an objectGUID, or the account's name at a target. "
	return &cli.Command{
		Name:  "queue",
		Usage: "list, retry or drop what waits for the targets",
		Subcommands: []*cli.Command{
			{
				Name:  "list",
				Usage: "list what is in the queue, the longest captured first",
				Description: "States: waiting; trying, a request is under way; settling, delivered, and once more when the peers have been heard; parked, refused by " +
					"the target and without its password; shelved, of an account that the target has stopped wanting: not sent unless it wants it again. --json prints an object: queue, a list of objects with account, guid, target, user, state, stamp, " +
					"captured, due, refused (when it was parked), attempts, class and reason (of the last attempt) and sealed (its password is still here).",
				Flags:  []cli.Flag{configFlag(), targetFlag(), &cli.BoolFlag{Name: "json", Usage: "print JSON, for scripts"}},
				Before: noArguments,
				Action: runQueueList,
			},
			{
				Name:      "retry",
				Usage:     "try now what waits",
				ArgsUsage: "[ACCOUNT]",
				Description: account + "With --all instead, everything that waits is tried now. So is a target that denied access or was down. A pause that a target asked for is " +
					"kept, and nothing goes but under the usual rules. What is parked has no password any more: only the account's next change helps.",
				Flags:  []cli.Flag{configFlag(), targetFlag(), &cli.BoolFlag{Name: "all", Usage: "everything that waits"}},
				Action: runQueueRetry,
			},
			{
				Name:      "drop",
				Usage:     "take an account's changes out of the queue, and shred its password",
				ArgsUsage: "ACCOUNT",
				Description: account + "The record stays: the account is listed by samba-pwsync drift until its next change. With --target the password is kept for as long as another " +
					"target needs it. What is parked leaves the queue, too, and status with it.",
				Flags:  []cli.Flag{configFlag(), targetFlag()},
				Before: oneAccount,
				Action: runQueueDrop,
			},
		},
		Action: missingCommand,
	}
}

func forwarderSocket(c *cli.Context) (string, error) {
	cfg, err := config.Load(configPath(c))
	if err != nil {
		return "", err
	}
	if name := c.String("target"); name != "" && !slices.Contains(targetNames(cfg), name) {
		return "", usagef(c, "no target %q is configured: there is %s", name, strings.Join(targetNames(cfg), ", "))
	}
	return cfg.Paths().ForwarderSocket, nil
}

// noForwarder says that the forwarder has to run.
func noForwarder(err error) error {
	if errors.Is(err, control.ErrNotRunning) {
		return errNoForwarder
	}
	return err
}

func runQueueList(c *cli.Context) error {
	socket, err := forwarderSocket(c)
	if err != nil {
		return err
	}
	var list queueList = &queueTable{out: c.App.Writer}
	if c.Bool("json") {
		list = &queueJSON{out: c.App.Writer}
	}
	broken := error(nil)
	err = control.Each(c.Context, socket, about("/queue", "target", c.String("target")), func(q deliver.Queued) {
		if broken == nil {
			broken = list.add(q)
		}
	})
	if err = errors.Join(noForwarder(err), broken); err != nil {
		return err
	}
	return list.end()
}

// queueList prints items as they come: they may be a hundred thousand.
type queueList interface {
	add(deliver.Queued) error
	end() error
}

// queueTable prints a table, a thousand rows at a time.
type queueTable struct {
	out  io.Writer
	w    *tabwriter.Writer
	rows int
}

func (t *queueTable) add(q deliver.Queued) error {
	if t.w == nil {
		t.w = tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t.w, "ACCOUNT\tTARGET\tUSER\tSTATE\tCAPTURED\tATTEMPTS\tNEXT\tWHY")
	}
	due := "-"
	if !q.Due.IsZero() && q.State == deliver.Pending {
		due = clock(q.Due)
	}
	row := []string{q.Account, q.Target, q.User, string(q.State), clock(q.Captured), fmt.Sprint(q.Attempts), due, strings.TrimPrefix(string(q.Class)+": "+q.Reason, ": ")}
	if q.Class == "" || q.State == deliver.Settling {
		row[len(row)-1] = ""
	}
	for i := range row {
		row[i] = printable(row[i])
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	if t.rows++; t.rows%1000 == 0 {
		return t.w.Flush()
	}
	return nil
}

func (t *queueTable) end() error {
	if t.w == nil {
		_, err := fmt.Fprintln(t.out, "Nothing is in the queue.")
		return err
	}
	return t.w.Flush()
}

// queueJSON prints one object with a list, an item in each line.
type queueJSON struct {
	out  io.Writer
	rows int
}

func (j *queueJSON) add(q deliver.Queued) error {
	before := ",\n"
	if j.rows++; j.rows == 1 {
		before = "{\"queue\": [\n"
	}
	text, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("encoding an item: %w", err)
	}
	var b bytes.Buffer
	b.WriteString(before)
	escapeJSON(&b, string(text))
	_, err = j.out.Write(b.Bytes())
	return err
}

func (j *queueJSON) end() error {
	text := "\n]}\n"
	if j.rows == 0 {
		text = "{\"queue\": []}\n"
	}
	_, err := io.WriteString(j.out, text)
	return err
}

func runQueueRetry(c *cli.Context) error {
	account, all := strings.TrimSpace(c.Args().First()), c.Bool("all")
	if c.NArg() > 1 || all == (account != "") {
		return usagef(c, "%s needs an account, or --all", c.Command.HelpName)
	}
	socket, err := forwarderSocket(c)
	if err != nil {
		return err
	}
	var r deliver.Retried
	if err := control.Post(c.Context, socket, about("/queue/retry", "account", account, "target", c.String("target")), &r); err != nil {
		return noForwarder(err)
	}
	if !all {
		if err := onlyOne(account, r.Accounts); err != nil {
			return err
		}
	}
	say := func(format string, args ...any) {
		fmt.Fprintln(c.App.Writer, printable(fmt.Sprintf(format, args...)))
	}
	switch n := r.Due + r.Trying; n {
	case 0:
		say("Nothing waits that could be tried.")
	case 1:
		say("1 change is tried now.")
	default:
		say("%d changes are tried now.", n)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Paused)) {
		say("%s asked for a pause until %s, which is kept.", name, clock(r.Paused[name]))
	}
	if r.Settling > 0 {
		say("%d settling: delivered already, and once more when the other domain controllers have been heard.", r.Settling)
	}
	if r.Parked > 0 {
		say("%d parked: the target refused them and the passwords are gone; put right what samba-pwsync why ACCOUNT tells, and have the passwords changed.", r.Parked)
	}
	return nil
}

func runQueueDrop(c *cli.Context) error {
	socket, err := forwarderSocket(c)
	if err != nil {
		return err
	}
	account := strings.TrimSpace(c.Args().First())
	var g deliver.Gone
	if err := control.Post(c.Context, socket, about("/queue/drop", "account", account, "target", c.String("target")), &g); err != nil {
		return noForwarder(err)
	}
	if err := onlyOne(account, g.Accounts); err != nil {
		return err
	}
	if len(g.Dropped) == 0 {
		return errNotQueued
	}
	for _, d := range g.Dropped {
		text := "dropped, for " + d.Target
		if d.State == deliver.Trying {
			text += "; a request was under way, so it may have arrived: see samba-pwsync why"
		}
		fmt.Fprintln(c.App.Writer, printable(d.Account+": "+text))
	}
	if len(g.Kept) > 0 {
		fmt.Fprintln(c.App.Writer, printable("The password is kept, sealed, for "+strings.Join(g.Kept, ", ")+"."))
	}
	return nil
}

// onlyOne holds that a name means one account.
func onlyOne(name string, guids []string) error {
	switch len(guids) {
	case 0:
		return errNoAccount
	case 1:
		return nil
	}
	return fmt.Errorf("%d accounts are called %s, and nothing was done: name one by its objectGUID, %s", len(guids), name, strings.Join(guids, " or "))
}
