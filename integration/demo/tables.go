package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// arrives shows three changes on their way.
func (d *demo) arrives(ctx context.Context) error {
	steps := []struct {
		user, who, how string
		change         func(ctx context.Context, user, old, password string) error
	}{
		{"alice", "alice herself", "kpasswd", d.DC.KPasswd},
		{"bob", "an administrator", "samba-tool user setpassword", d.DC.SetPasswordLocal},
		{"carol", "carol herself", "LDAPS, unicodePwd", d.DC.LDAPSChange},
	}
	table := [][]string{{"user", "changed by", "with", "taken at", "DC answers", "proven", "Google", "Microsoft", "log in"}}
	for _, step := range steps {
		password := d.NewPassword()
		if err := step.change(ctx, step.user, d.passwords[step.user], password); err != nil {
			return fmt.Errorf("changing %s's password: %w", step.user, err)
		}
		answered := time.Now()
		if err := d.wait(ctx, step.user, password); err != nil {
			return err
		}
		d.passwords[step.user] = password
		_, applied, err := d.sent(ctx, step.user)
		if err != nil {
			return err
		}
		captured, proven, err := d.way(ctx, step.user)
		if err != nil {
			return err
		}
		since := func(at time.Time) string { return "+" + ms(at.Sub(captured)) }
		table = append(table, []string{step.user, step.who, step.how, captured.Format("15:04:05.000"), since(answered), since(proven),
			since(applied[sandbox.Google]), since(applied[sandbox.Microsoft]), d.verdict(d.DC.Login(step.user, password) == nil, "yes", "no")})
	}
	d.print("\nWhat changes in the domain arrives at both clouds (times since the hook took the password)\n")
	d.table(table)
	d.print("\n    \"DC answers\" is when the command that made the change has ended; samba-tool takes longer to end than the delivery takes.")
	return nil
}

// way is when the hook took the last proven password of a user, and when the agent had proven it and handed it on.
func (d *demo) way(ctx context.Context, user string) (captured, proven time.Time, err error) {
	events, err := d.DC.Events(ctx)
	if err != nil {
		return captured, proven, err
	}
	capture := ""
	for _, e := range events {
		switch {
		case e.Fields["account"] != user:
		case e.Name == "proven":
			capture, proven = e.Fields["capture"], e.Time
		case e.Name == "delivered" && e.Fields["capture"] == capture:
			took, err := time.ParseDuration(e.Fields["took"]) // since the hook took it
			if err != nil {
				return captured, proven, fmt.Errorf("reading serve's log: %w", err)
			}
			captured = e.Time.Add(-took)
		}
	}
	if captured.IsZero() {
		return captured, proven, fmt.Errorf("reading serve's log: no delivery to %s", user)
	}
	return captured, proven, nil
}

// neverSent shows what the hook sees and nobody may get.
func (d *demo) neverSent(ctx context.Context) error {
	simple, former, forged := d.NewSimplePassword(), d.passwords["alice"], d.NewForgeablePassword()
	next := d.NewPassword()
	if err := d.DC.KPasswd(ctx, "alice", former, next); err != nil {
		return fmt.Errorf("changing alice's password: %w", err)
	}
	if err := d.wait(ctx, "alice", next); err != nil {
		return err
	}
	d.passwords["alice"] = next

	attempts := []struct {
		user, what, with string
		proof            bool // the hook lets it through: only the proof stops it
		do               func() error
		refused          bool // the DC is to refuse it
	}{
		{"bob", "small letters only", "kpasswd", false,
			func() error { return d.DC.KPasswd(ctx, "bob", d.passwords["bob"], simple) }, true},
		{"alice", "the one she had before", "kpasswd", true,
			func() error { return d.DC.KPasswd(ctx, "alice", next, former) }, true},
		{"carol", "made up by mallory", "SamrValidatePassword", true,
			func() error { return d.DC.ValidatePassword(ctx, "mallory", d.passwords["mallory"], "carol", forged) }, false},
	}
	before := make([]map[sandbox.Cloud]int, len(attempts))
	answers := make([]string, len(attempts))
	for i, a := range attempts {
		var err error
		if before[i], _, err = d.sent(ctx, a.user); err != nil {
			return err
		}
		err = a.do()
		answers[i] = "accepts"
		if err != nil {
			answers[i] = "refuses"
		}
		answers[i] = d.verdict((err != nil) == a.refused, answers[i], answers[i])
	}

	table := [][]string{{"user", "password", "with", "the DC", "hook", "proof", "Google", "Microsoft"}}
	for i, a := range attempts {
		hook, err := d.hook(ctx, a.user, !a.proof)
		if err != nil {
			return err
		}
		proof := "not asked"
		if a.proof {
			waiting, cancel := context.WithTimeout(ctx, patience)
			_, err := d.DC.Eventually(waiting, func(e lab.Event) bool {
				return e.Name == "never-committed" && e.Fields["account"] == a.user
			})
			cancel()
			proof = d.verdict(err == nil, "never current", "no verdict")
		}
		after, _, err := d.sent(ctx, a.user)
		if err != nil {
			return err
		}
		row := []string{a.user, a.what, a.with, answers[i], hook, proof}
		for _, cloud := range lab.Clouds {
			sent := after[cloud] - before[i][cloud]
			row = append(row, d.verdict(sent == 0, "nothing", fmt.Sprintf("%d sent", sent)))
		}
		table = append(table, row)
	}
	d.print("\nWhat the directory does not hold is sent nowhere\n")
	d.table(table)
	d.print("\n    Samba asks the hook before it looks at the history, and for any user in anybody's name: only the proof tells.")
	return nil
}

// hook is what the hook last said about a user.
func (d *demo) hook(ctx context.Context, user string, refused bool) (string, error) {
	said, err := d.DC.HookSaid(ctx, user)
	if err != nil || len(said) == 0 {
		return "", errors.Join(err, errors.New("the hook said nothing"))
	}
	last := said[len(said)-1]
	return d.verdict((last == "refused") == refused, last, last), nil
}

// verdict marks what is as promised and counts what is not.
func (d *demo) verdict(ok bool, good, bad string) string {
	if ok {
		return colour(green, "✓ ") + good
	}
	d.broken++
	return colour(red, "✗ ") + bad
}

// table prints rows in columns, the first row as their headings.
func (d *demo) table(rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], width(cell))
		}
	}
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-width(cell))
			if n == 0 {
				cell = colour(bold, cell)
			}
			switch {
			case strings.HasPrefix(rows[len(rows)-1][i], "+"): // times stand to the right
				line.WriteString("  " + pad + cell)
			default:
				line.WriteString("  " + cell + pad)
			}
		}
		d.print("  %s", strings.TrimRight(line.String(), " "))
	}
}

const (
	bold  = "1"
	red   = "31"
	green = "32"
	start = "\x1b["
	reset = "\x1b[0m"
)

// colours are for people only.
var colours = func() bool {
	info, err := os.Stdout.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}()

func colour(code, text string) string {
	if !colours {
		return text
	}
	return start + code + "m" + text + reset
}

// width is how many columns a text takes on the screen.
func width(text string) int {
	n := utf8.RuneCountInString(text)
	for _, code := range []string{bold, red, green} {
		if with := start + code + "m"; strings.Contains(text, with) {
			n -= len(with) + len(reset)
		}
	}
	return n
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
}
