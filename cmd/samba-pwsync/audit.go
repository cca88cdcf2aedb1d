package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/survey"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:  "audit",
		Usage: "judge the passwords that the directory holds already",
		Description: "Reads the NT hashes of all user accounts from the domain controller's privileged socket, and tells which accounts have a breached " +
			"password, share one, have the empty one, are flagged to need none or to have it stored in clear, or still have their first one. It changes " +
			"nothing, writes no file, and prints no hash and no password; between two pages of accounts it rests, so that the domain " +
			"controller stays free for others. Nevertheless the output is confidential: whoever has one password of a group has them all. " +
			"A first password is one that no other has followed, by the versions in the replication metadata, whoever set it and whenever: pwdLastSet, which " +
			"administrators can move, does not count. How old a password is, too, is told by that metadata. " +
			"An account without a stored NT hash (nt hash store in smb.conf) is not comparable. Of a hash nobody can tell whether today's policy " +
			"would refuse the password: it is not among the findings. " +
			"--breached wants a file that samba-pwsync breached import made of NTLM hashes; without it, that of [policy] breached is used if it is of such hashes. " +
			"--words wants a text in UTF-8, with a word in each line; a line that begins with # is a remark. Each word is tried in the ways in which people write it " +
			"(Summer2026!, P@ssw0rd1), and so is each account's own name on that account; it is not told which word fits. " +
			"--older-than wants days: 365d. " +
			"Exit code 0: nothing needs a person, 1: could not be told, 2: command line or configuration are wrong, 3: something needs a person, which is " +
			"everything but first passwords, of accounts that are not disabled. " +
			"--json prints an object: dc, domain and as_of; accounts, disabled, compared, not_comparable and no_password (never had one), which are numbers; breached, " +
			"guessable, empty, not_required, reversible, old and never_changed, lists of objects with account, disabled, must_change (at the next logon) " +
			"and changed (when the password was set; not there if it never was); shared, a list of objects with accounts (such a list), never_changed " +
			"(how many of them), breached and guessable, the largest first; reversible_policies, the names of the policies by which passwords of flagged accounts are " +
			"really stored in clear; unreadable, the names of accounts that could not be decoded. A list is null if it was not asked for. breached_false_rate, not there if breached was not asked for, is how likely a password that is not in the file counts as breached.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print JSON, for scripts"},
			&cli.PathFlag{Name: "breached", Usage: "look for breached passwords in `FILE`"},
			&cli.PathFlag{Name: "words", Usage: "guess: try the words in `FILE`"},
			&cli.StringFlag{Name: "older-than", Usage: "tell who has a password for more than so many `DAYS`"},
			&cli.StringFlag{Name: "filter", Usage: "only accounts that match the LDAP `FILTER`"},
		},
		Before: noArguments,
		Action: runAudit,
	}
}

// auditReport is what `audit --json` prints; scripts rely on its names.
type auditReport struct {
	DC     string    `json:"dc"`
	Domain string    `json:"domain"`
	AsOf   time.Time `json:"as_of"`
	*survey.Report
	BreachedFalseRate  float64  `json:"breached_false_rate,omitempty"` // the file of breached passwords holds so many others by chance
	ReversiblePolicies []string `json:"reversible_policies"`

	days       int    // that passwords may be old
	unsuitable string // the policy's file of breached passwords, where it cannot be used
}

func runAudit(c *cli.Context) error {
	o := survey.Options{Now: time.Now()}
	days, err := parseDays(c.String("older-than"))
	if err != nil {
		return usagef(c, "--older-than: %v", err)
	}
	o.OlderThan = time.Duration(days) * 24 * time.Hour
	filter := c.String("filter")
	if filter != "" {
		if err := directory.ValidateFilter(filter); err != nil {
			return usagef(c, "--filter: %v", err)
		}
	}
	cfg, err := config.Load(configPath(c))
	if err != nil {
		return err
	}
	if path := c.Path("words"); path != "" {
		words, err := os.Open(path)
		if err != nil {
			return usagef(c, "--words: %v", err)
		}
		defer words.Close()
		o.Words = words
	}
	file, unsuitable, err := openHashes(c.Path("breached"), cfg.Policy.Breached)
	if err != nil {
		return err
	}
	if file != nil {
		defer file.Close()
		o.Breached = file
	}
	r, err := newAuditReport(c.Context, cfg.Directory.URL, filter, o)
	if err != nil {
		return err
	}
	r.days, r.unsuitable = days, unsuitable
	if file != nil {
		r.BreachedFalseRate = file.Header().FalseRate()
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, r)
	} else {
		err = r.print(c.App.Writer)
	}
	switch {
	case err == nil && r.Accounts == 0:
		return &codedError{exitAttention, errors.New("no account was looked at: none matches the filter")}
	case err == nil && r.Attention():
		return &codedError{code: exitAttention}
	}
	return err
}

// openHashes opens the file of breached passwords that was asked for, or else the policy's: that may be of hashes which the
// directory does not have, and is then left alone.
func openHashes(asked, policy string) (file *breached.File, unsuitable string, err error) {
	path := cmp.Or(asked, policy)
	if path == "" {
		return nil, "", nil
	}
	file, err = breached.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", fmt.Errorf("%w: %s", errNoBreached, path)
	case err != nil:
		return nil, "", err
	case file.Kind() == breached.NTLM:
		return file, "", nil
	}
	kind := file.Kind()
	if err := file.Close(); err != nil {
		return nil, "", err
	}
	if asked == "" {
		return nil, policy, nil
	}
	return nil, "", fmt.Errorf("%s is of %v hashes: %w", path, kind, errNoNTLM)
}

// maxDays keeps a time.Duration from overflowing.
const maxDays = 100_000

// parseDays reads "365d"; nothing is 0.
func parseDays(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	number, ok := strings.CutSuffix(text, "d")
	days, err := strconv.Atoi(number)
	if !ok || err != nil || days < 1 || days > maxDays {
		return 0, fmt.Errorf("%q is no number of days: write one like 365d", text)
	}
	return days, nil
}

func newAuditReport(ctx context.Context, url, filter string, o survey.Options) (*auditReport, error) {
	dc, err := directory.Dial(ctx, url)
	if err != nil {
		return nil, err
	}
	defer dc.Close()
	root, err := dc.Root(ctx)
	if err != nil {
		return nil, err
	}
	settings, err := dc.PasswordSettings(ctx)
	if err != nil {
		return nil, err
	}
	s := survey.New(o)
	defer s.Close()
	if err := dc.Accounts(ctx, filter, nil, s.Add); err != nil {
		return nil, err
	}
	found, err := s.Report(ctx)
	if err != nil {
		return nil, err
	}
	r := &auditReport{DC: root.DNSHostName, Domain: root.DomainName, AsOf: o.Now, Report: found, ReversiblePolicies: []string{}}
	if settings.Reversible {
		r.ReversiblePolicies = append(r.ReversiblePolicies, "the domain's")
	}
	for _, pso := range settings.FineGrained {
		if pso.Reversible {
			r.ReversiblePolicies = append(r.ReversiblePolicies, pso.Name)
		}
	}
	return r, nil
}

// finding is one list of the report: a line among the counts, and a section below them.
type finding struct {
	name, option string // the option that asks for it; empty: always asked for
	list         []survey.Account
	says         string
}

func (r *auditReport) findings() []finding {
	reversible := "flagged to have the password stored in clear, which no password policy has Samba do now; take the flag away"
	if len(r.ReversiblePolicies) > 0 {
		reversible = "the password is stored in clear, by a flag of the account, and by these password policies where they govern it: " +
			strings.Join(r.ReversiblePolicies, ", ") + "; take the flag away, then change the password"
	}
	known := "the password is known from break-ins elsewhere; have it changed"
	if rate := r.BreachedFalseRate; rate > 0 {
		known = fmt.Sprintf("the password is known from break-ins elsewhere (of %.0f that are not, one is told of by mistake); have it changed", 1/rate)
	}
	option := "--breached"
	if r.unsuitable != "" {
		option += "; " + r.unsuitable + " is of other hashes than the directory's"
	}
	return []finding{
		{"breached", option, r.Breached, known},
		{"guessable", "--words", r.Guessable, "a word of the list, or the account's own name, with little added; have them changed"},
		{"empty", "", r.Empty, "the password is the empty one; set another, or disable the account"},
		{"not required", "", r.NotRequired, "flagged to need no password (PASSWD_NOTREQD); take the flag away"},
		{"reversible", "", r.Reversible, reversible},
		{"old", "--older-than", r.Old, fmt.Sprintf("not changed for more than %d days", r.days)},
		{"never changed", "", r.NeverChanged, "the first password that the account got, which whoever set it may know"},
	}
}

func (r *auditReport) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	row("domain", "%s, asked of %s", r.Domain, r.DC)
	row("accounts", "%d, %d of them disabled", r.Accounts, r.Disabled)
	row("compared", "%d", r.Compared)
	if r.NotComparable > 0 {
		row("not comparable", "%d: Samba stores no NT hash of them (nt hash store in smb.conf)", r.NotComparable)
	}
	if r.NoPassword > 0 {
		row("no password", "%d: they never had one", r.NoPassword)
	}
	sharing := 0
	for _, g := range r.Shared {
		sharing += len(g.Accounts)
	}
	row("shared", "%d in %d groups", sharing, len(r.Shared))
	for _, f := range r.findings() {
		if f.list == nil {
			row(f.name, "not asked for: %s", f.option)
		} else {
			row(f.name, "%d", len(f.list))
		}
	}
	row("unreadable", "%d", len(r.Unreadable))
	if len(r.Shared) > 0 {
		fmt.Fprintf(w, "\nshared: accounts of one group have the same password; have them changed\n")
	}
	for _, g := range r.Shared {
		fmt.Fprintf(w, "  %s\n", describeGroup(g))
		printAccounts(w, "    ", g.Accounts)
	}
	for _, f := range r.findings() {
		if len(f.list) > 0 {
			fmt.Fprintf(w, "\n%s: %s\n", f.name, printable(f.says))
			printAccounts(w, "  ", f.list)
		}
	}
	if len(r.Unreadable) > 0 {
		fmt.Fprintf(w, "\nunreadable: the directory holds nonsense about the account; run samba-tool dbcheck\n")
	}
	for _, name := range r.Unreadable {
		fmt.Fprintf(w, "  %s\n", printable(name))
	}
	return w.Flush()
}

// describeGroup says what the accounts of a group have in common.
func describeGroup(g survey.Group) string {
	text := fmt.Sprintf("%d accounts", len(g.Accounts))
	if g.NeverChanged > 0 {
		text += fmt.Sprintf(", %d never changed", g.NeverChanged)
	}
	if 2*g.NeverChanged > len(g.Accounts) {
		text += " (somebody's default password?)"
	}
	if g.Breached {
		text += ", breached"
	}
	if g.Guessable {
		text += ", guessable"
	}
	return text
}

func printAccounts(w io.Writer, indent string, list []survey.Account) {
	for _, a := range list {
		notes := []string{"never set"}
		if !a.Changed.IsZero() {
			notes[0] = "set " + a.Changed.Local().Format(time.DateOnly)
		}
		if a.Disabled {
			notes = append(notes, "disabled")
		}
		if a.MustChange {
			notes = append(notes, "must change at the next logon")
		}
		fmt.Fprintf(w, "%s%s\t%s\n", indent, printable(a.Name), strings.Join(notes, ", "))
	}
}
