package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

func showCommand() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "what the clouds hold and have seen",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "everything, with the passwords"}},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("show takes no arguments")
			}
			s, err := client(c).State(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				e := json.NewEncoder(c.App.Writer)
				e.SetIndent("", "  ")
				return e.Encode(s)
			}
			return show(c.App.Writer, s)
		},
	}
}

// show prints a line for each user with both clouds beside each other, then
// whatever is out of the ordinary. It prints no password.
func show(out io.Writer, s sandbox.State) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	names := map[string]bool{}
	for _, u := range s.Users {
		names[u.Name] = true
	}
	fmt.Fprintln(w, "USER\tGOOGLE\tMICROSOFT")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(w, "%s\t%s\t%s\n", name, cell(s, sandbox.Google, name), cell(s, sandbox.Microsoft, name))
	}
	for _, f := range s.Faults {
		fmt.Fprintf(w, "\nfault\t%s %s%s%s\t%s", f.Cloud, f.Kind, prefixed(" on ", f.On), prefixed(" for ", f.User), times(f.Times))
	}
	for _, v := range s.Violations {
		fmt.Fprintf(w, "\nviolation\t%s %s\t%s", v.Cloud, v.Request, v.Reason)
	}
	for _, t := range s.Trapped {
		what := "nothing secret"
		if t.Secret() {
			what = fmt.Sprintf("token: %t, body: %d bytes", t.Authorization, t.BodyBytes)
		}
		fmt.Fprintf(w, "\ntrapped\t%s %s\t%s", t.Host, t.Request, what)
	}
	if len(s.Faults)+len(s.Violations)+len(s.Trapped) > 0 {
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// cell is one user at one cloud.
func cell(s sandbox.State, cloud sandbox.Cloud, name string) string {
	u, ok := s.User(cloud, name)
	if !ok {
		return "no account"
	}
	var notes []string
	for note, set := range map[string]bool{
		"admin": u.Admin, "delegated admin": u.Delegated, "federated": u.Federated, "synced": u.Synced,
	} {
		if set {
			notes = append(notes, note)
		}
	}
	slices.Sort(notes)
	suffix := prefixed(", ", strings.Join(notes, ", "))
	current, ok := u.Current()
	switch {
	case !ok:
		return "no password set" + suffix
	case len(u.Passwords) == 1:
		return "1 password, " + shortTime(current.Applied.Local()) + suffix
	}
	return fmt.Sprintf("%d passwords, last %s%s", len(u.Passwords), shortTime(current.Applied.Local()), suffix)
}

func listFaults(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, cloud := range []sandbox.Cloud{sandbox.Google, sandbox.Microsoft} {
		kinds, err := sandbox.Kinds(cloud)
		if err != nil {
			return err
		}
		for _, k := range kinds {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", cloud, k.Name, strings.Join(k.On, ","), k.Help)
		}
	}
	return w.Flush()
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func times(n int) string {
	switch n {
	case 0:
		return "until cleared"
	case 1:
		return "once more"
	}
	return fmt.Sprintf("%d times more", n)
}

// shortTime is a time of day, with the date if that is not today's.
func shortTime(t time.Time) string {
	if t.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return t.Format("15:04:05.000")
	}
	return t.Format(time.DateTime)
}
