package compat

import (
	"bytes"
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

//go:embed compatibility.md.tmpl
var document string

// notes explain what is not simply delivered, by the expected outcome.
var notes = map[string]string{
	"Google delivered, Entra drift: rejected": "Google has it. Entra takes no characters beyond ASCII and refused it. " +
		"`drift` reports that (`rejected`); the account's next password is tried again.",
	"drift: hash-only": "Only a hash was written, so nobody had the password. `drift` reports the account (`hash-only`).",
	"drift: not-captured": "The capture names the account that has the name now, whose password it is not, so it was shredded. " +
		"`drift` reports the account (`not-captured`). The other one's own password was delivered.",
	"drift: complexity-off password settings object simple-": "Where complexity is off, Samba does not run the hook. " +
		"`drift` reports that (`complexity-off`), and names the policy.",
	"drift: complexity-off the domain": "Where complexity is off, Samba does not run the hook. " +
		"`drift` reports that (`complexity-off`), and says that it is so in the whole domain.",

	"not sent: no password":                     "Without `fUserPwdSupport` this attribute is no password: the account keeps the one it has.",
	"not sent: refused by the policy":           "The hook refused it; the account keeps the password it has.",
	"not sent: refused by Samba after the hook": "The hook took it, and Samba refused it after that. The capture was shredded, unproven.",
	"not sent: never the account's":             "Samba ran the hook, and set no password. The capture was shredded, unproven.",
	"not sent: the account is gone":             "The account is gone. The capture was shredded.",
	"not sent: protected":                       "Administrators' passwords go nowhere (`[directory] protected`).",
	"not sent: has no userPrincipalName":        "No target knows the account: it has no value in the attribute that `user` names.",
}

// absent explains what a Samba does not offer, where its own words do not.
var absent = map[string]string{
	invalidInfoClass:                "Samba 4.13 does not know it: the levels of its SAMR end at 26.",
	"SAMR has no level 32 here":     "Samba 4.13 does not know it: the levels of its SAMR end at 26.",
	"command not found: chgpasswd4": "Samba 4.13 does not know it: its SAMR ends at ChangePasswordUser3.",
}

func note(v verdict) string {
	o := v[sandbox.Google]
	if o.kind != "not offered" {
		return notes[v.String()]
	}
	if why := absent[o.why]; why != "" {
		return why
	}
	return "Samba answers: " + o.why + "."
}

// short is what stands in the cell.
func short(v verdict) string {
	google, entra := v[sandbox.Google].kind, v[sandbox.Microsoft].kind
	switch {
	case google != entra:
		return "in part"
	case google == "not offered":
		return "absent"
	}
	return google
}

type group struct {
	Name  string
	Lines []string // of the table
}

// report is docs/compatibility.md.
func report(columns []*column, at time.Time) ([]byte, error) {
	var footnotes []string
	mark := func(v verdict) string {
		text := note(v)
		if v.String() == delivered.String() {
			return short(v)
		}
		if text == "" {
			text = v.String()
		}
		n := slices.Index(footnotes, text)
		if n < 0 {
			n = len(footnotes)
			footnotes = append(footnotes, text)
		}
		return fmt.Sprintf("%s[^%d]", short(v), n+1)
	}
	seen := func(c *column, r *row) verdict {
		i := slices.IndexFunc(c.cells, func(cell *cell) bool { return cell.row == r })
		if i < 0 {
			return nil
		}
		return c.cells[i].seen
	}

	var groups []group
	var tables [][][]string // as groups
	for _, r := range rows {
		if n := len(groups); n == 0 || groups[n-1].Name != r.group {
			groups = append(groups, group{Name: r.group})
			head := []string{""}
			for _, c := range columns {
				head = append(head, fmt.Sprintf("4.%d", c.release))
			}
			tables = append(tables, [][]string{head, nil})
		}
		line := []string{strings.ReplaceAll(r.name, `\`, `\\`)}
		for _, c := range columns {
			if v := seen(c, r); v != nil {
				line = append(line, mark(v))
			} else {
				line = append(line, "not tried")
			}
		}
		tables[len(tables)-1] = append(tables[len(tables)-1], line)
	}
	for i, table := range tables {
		groups[i].Lines = padded(table)
	}
	var sum totals
	for _, c := range columns {
		sum = sum.plus(c.totals)
	}
	var out bytes.Buffer
	t, err := template.New("compatibility").Funcs(template.FuncMap{"inc": func(n int) int { return n + 1 }}).Parse(document)
	if err == nil {
		err = t.Execute(&out, map[string]any{
			"Date": at.Format(time.DateOnly), "Versions": versions(columns), "Rows": len(rows), "Groups": groups, "Notes": footnotes, "Totals": sum,
		})
	}
	return out.Bytes(), err
}

func versions(columns []*column) []string {
	table := [][]string{{"Samba", "Debian", "changes", "delivered", "not sent", "drift", "lost", "wrongly sent", "refused"}, nil}
	for _, c := range columns {
		t := c.totals
		line := []string{c.version, c.suite}
		for _, n := range []int{t.Changes, t.Delivered, t.NotSent, t.Drift, t.Lost, t.WronglySent, t.Refused} {
			line = append(line, fmt.Sprint(n))
		}
		table = append(table, line)
	}
	return padded(table)
}

// padded makes a Markdown table that is one to the eye as well. Its second line is the rule.
func padded(table [][]string) []string {
	widths := make([]int, len(table[0]))
	for _, line := range table {
		for i, text := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	lines := make([]string, len(table))
	for n, line := range table {
		var b strings.Builder
		for i, width := range widths {
			if n == 1 {
				b.WriteString("| " + strings.Repeat("-", width) + " ")
				continue
			}
			b.WriteString("| " + line[i] + strings.Repeat(" ", width-utf8.RuneCountInString(line[i])) + " ")
		}
		lines[n] = b.String() + "|"
	}
	return lines
}

// TestReport: every expected outcome has its words, the tables fit a screen, and the same facts give the same text.
func TestReport(t *testing.T) {
	var columns []*column
	for _, release := range []int{13, 17, 22, 24, 25} {
		c := &column{suite: "trixie-backports", version: fmt.Sprintf("4.%d.13-Debian", release), release: release, totals: totals{Changes: 1}}
		for _, r := range rows {
			c.cells = append(c.cells, &cell{row: r, seen: r.expected(release)})
			if v := r.expected(release); v.String() != delivered.String() && note(v) == "" {
				t.Errorf("%s: no note explains %v", r.name, v)
			}
		}
		columns = append(columns, c)
	}
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	text, err := report(columns, at)
	must(t, err)
	again, _ := report(columns, at)
	if !bytes.Equal(text, again) {
		t.Error("the same facts give another text")
	}
	for line := range strings.Lines(string(text)) {
		if n := utf8.RuneCountInString(line); n > 121 && line[0] == '|' {
			t.Errorf("%d characters: %s", n, line)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^\| .*\|$`).FindAll(text, -1)); n < len(rows) {
		t.Errorf("%d lines of tables for %d rows", n, len(rows))
	}
	if !strings.Contains(string(text), "in part[^") || strings.Contains(string(text), "not tried") {
		t.Errorf("cells are missing:\n%s", text)
	}
}
