package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/samba-pwsync/samba-pwsync/internal/attempt"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/gate"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
)

func policyCommand() *cli.Command {
	return &cli.Command{
		Name:   "policy",
		Usage:  "explain the password policy, and prepare it",
		Action: missingCommand,
		Subcommands: []*cli.Command{{
			Name:  "test",
			Usage: "tell what the hook would say to a password",
			Description: "Reads the password from standard input up to the end, or asks for it on a terminal; one newline at the end does not " +
				"belong to it. Prints the reasons for a refusal, which policy holds and why, and what each of its rules says; " +
				"nothing is kept. With --account it is the policy of that account, as the agent last asked the directory, and unless --upn or --full-name is given, " +
				"the directory is asked for these; without, it is the policy of an account that is not known. The programs that the key also names are run. Run it as root: others cannot read all that the hook can. " +
				"Exit code 0: accepted, 1: refused.",
			Flags: []cli.Flag{
				configFlag(),
				&cli.StringFlag{Name: "account", Usage: "the account's sAMAccountName `NAME`"},
				&cli.StringFlag{Name: "upn", Usage: "its userPrincipalName `UPN`, which Samba would tell the hook"},
				&cli.StringFlag{Name: "full-name", Usage: "its displayName `NAME`, likewise"},
			},
			Before: noArguments,
			Action: runPolicyTest,
		}, {
			Name:  "compile",
			Usage: "compile the files of banned words now",
			Description: "serve does so by itself when they change. It is for a machine on which serve does not run, or may not see the files; until words " +
				"are compiled, the hook reads all of them at each password.",
			Flags:  []cli.Flag{configFlag()},
			Before: noArguments,
			Action: runPolicyCompile,
		}},
	}
}

func runPolicyTest(c *cli.Context) error {
	// Exactly what the hook would use, also when the file is broken.
	conf := gate.LoadNow(configPath(c))
	if conf.Err != nil {
		complain(c.App.ErrWriter, conf.Err.Error())
		if conf.NoCopy != nil {
			complain(c.App.ErrWriter, conf.NoCopy.Error())
		}
		instead := "these rules"
		if !conf.Since.IsZero() {
			instead = "its copy of the configuration of " + conf.Since.Format(time.DateTime)
		}
		complain(c.App.ErrWriter, "so the hook goes by "+instead+": "+rules(conf.Policy))
	}
	stdin, err := standardInput(c)
	if err != nil {
		return err
	}
	n := names{account: c.String("account"), upn: c.String("upn"), fullName: c.String("full-name")}
	if n.account != "" && n.upn == "" && n.fullName == "" {
		n.unknown = n.ask(c.Context, configPath(c))
		if err := c.Context.Err(); err != nil {
			return fmt.Errorf("asking the directory: %w", context.Cause(c.Context))
		}
	}
	return judge(c.App.Writer, conf, n, stdin)
}

func rules(p config.Policy) string {
	text := fmt.Sprintf("mode %s, %d to %d characters", p.Mode, p.MinLength, p.MaxLength)
	if p.Complexity {
		text += ", Samba's complexity"
	}
	return text
}

// names are what Samba would tell the hook of an account.
type names struct {
	account, upn, fullName string
	unknown                error // why the directory did not tell the last two
}

const displayName = "displayName"

// ask has the directory tell the names that belong to the account's.
func (n *names) ask(ctx context.Context, file string) error {
	cfg, err := config.Load(file)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return err
	case err != nil:
		return errors.New("the configuration, which says where the directory is, has a fault")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	dc, err := directory.Dial(ctx, cfg.Directory.URL)
	if err != nil {
		return err
	}
	defer dc.Close()
	accounts, err := dc.Namesakes(ctx, "sAMAccountName", []string{n.account}, []string{displayName})
	switch {
	case err != nil:
		return err
	case len(accounts) != 1:
		return directory.ErrNotFound
	}
	n.upn, n.fullName = accounts[0].UserPrincipalName, accounts[0].Attributes[displayName]
	return nil
}

func (n names) String() string {
	if n.unknown != nil {
		return fmt.Sprintf("%s alone (--upn and --full-name give the others): %v", n.account, n.unknown)
	}
	text := n.account
	for _, name := range []string{n.upn, n.fullName} {
		if name != "" {
			text += ", " + name
		}
	}
	return text
}

// environ is the environment in which Samba would run the hook.
func (n names) environ() []string {
	environ := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SAMBA_CPS_") })
	for name, value := range map[string]string{
		checkpassword.EnvAccount: n.account, checkpassword.EnvUserPrincipalName: n.upn, checkpassword.EnvFullName: n.fullName,
	} {
		if value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	return environ
}

// judge says about the password on stdin what the hook would, and why.
func judge(out io.Writer, conf gate.Conf, n names, stdin io.Reader) error {
	request, unreadable := checkpassword.Read(stdin, func(string) string { return "" })
	// A newline at the end is the shell's, not the password's; Samba sends none.
	password := secret.New(bytes.TrimSuffix(request.Password, []byte("\n")))
	defer password.Destroy()
	if unreadable == nil && len(password.Bytes()) == 0 {
		unreadable = checkpassword.ErrEmpty
	}
	until := time.Now().Add(5 * time.Second)
	if unreadable != nil {
		account := attempt.Run(func(c *attempt.Course) gate.Account {
			account, _ := conf.Account(c, n.account, until)
			return account
		})
		if account.Settings.Enforces() {
			fmt.Fprintf(out, "refused: %s\n", unreadable)
			return &codedError{code: exitFailed}
		}
		fmt.Fprintf(out, "accepted\nwould be refused, were the policy's mode not %q: %s\n", account.Settings.Mode, unreadable)
		return nil
	}

	v := attempt.Run(func(c *attempt.Course) gate.Verdict {
		return conf.Decide(c, gate.Request{Environ: n.environ(), Subject: policy.Subject{
			Password: password, Account: n.account, UserPrincipalName: n.upn, FullName: n.fullName,
		}}, until)
	})
	if !v.Refused() {
		fmt.Fprintln(out, "accepted")
	}
	for _, f := range v.Findings {
		switch {
		case !f.Audited:
			fmt.Fprintf(out, "refused: %s\n", f.Reason)
		case !v.Settings.Enforces():
			fmt.Fprintf(out, "would be refused, were the policy's mode not %q: %s\n", v.Settings.Mode, f.Reason)
		default:
			fmt.Fprintf(out, "would be refused, were the rule %s not only audited: %s\n", f.Rule, f.Reason)
		}
	}
	explainVerdict(out, conf, n, v)
	if v.Refused() {
		return &codedError{code: exitFailed}
	}
	return nil
}

// explainVerdict says which policy holds and why, and what each rule says.
func explainVerdict(out io.Writer, conf gate.Conf, n names, v gate.Verdict) {
	fmt.Fprintf(out, "\npolicy      %s, mode %s: %s\n", v.Policy, v.Settings.Mode, printable(whyPolicy(conf, n.account, v)))
	for _, t := range v.Troubles {
		if t.Rule == "" {
			fmt.Fprintf(out, "            %s\n", printable(t.Err.Error()))
		}
	}
	if len(conf.Targets) > 0 {
		targets := "none of the targets"
		if len(v.Targets) > 0 {
			targets = strings.Join(v.Targets, ", ")
		}
		fmt.Fprintf(out, "wanted by   %s\n", targets)
	}
	if n.account != "" {
		fmt.Fprintf(out, "names       %s\n", printable(n.String()))
	}
	for _, rule := range policy.Rules() {
		fmt.Fprintf(out, "%-11s %s\n", rule, printable(saysRule(rule, v)))
	}
}

func whyPolicy(conf gate.Conf, account string, v gate.Verdict) string {
	asked := "as the agent asked the directory at " + v.Made.Format(time.DateTime)
	switch {
	case len(conf.Policies) == 0:
		return "there is no other"
	case account == "":
		return "no account is named, as with --account"
	case v.Made.IsZero():
		return "who has another is not known"
	case !v.Known:
		hint := ""
		if strings.ContainsAny(account, `@\`) {
			hint = " (accounts are looked up by sAMAccountName, without a domain)"
		}
		return fmt.Sprintf("%s is not known, %s; so it is taken for a new account%s", account, asked, hint)
	case v.Policy == config.DefaultPolicy:
		return fmt.Sprintf("no other is for %s, %s", account, asked)
	default:
		return fmt.Sprintf("it is the first that is for %s, %s", account, asked)
	}
}

func saysRule(rule string, v gate.Verdict) string {
	s := v.Settings
	on := map[string]bool{
		policy.RuleLength: true, policy.RuleComplexity: s.Complexity || len(s.Tiers) > 0, policy.RuleName: s.Names, policy.RuleWalk: s.Walks,
		policy.RuleBanned: len(s.Banned) > 0, policy.RuleBreached: s.Breached != "", policy.RuleTarget: s.Preflight, policy.RuleAlso: len(s.Also) > 0,
	}
	if !on[rule] || s.Mode == policy.Off {
		return "off"
	}
	var reasons, troubles []string
	audited := ""
	for _, f := range v.Findings {
		if f.Rule == rule {
			if reasons = append(reasons, string(f.Reason)); f.Audited {
				audited = ", but only audited"
			}
		}
	}
	for _, t := range v.Troubles {
		if t.Rule == rule {
			troubles = append(troubles, t.Err.Error())
		}
	}
	switch {
	case len(troubles) > 0 && len(reasons) > 0:
		return "refuses" + audited + ", cannot be asked: " + strings.Join(troubles, "; ")
	case len(troubles) > 0:
		return "cannot be asked, and refuses nothing: " + strings.Join(troubles, "; ")
	case len(reasons) > 0:
		return "refuses" + audited + ": " + strings.Join(reasons, "; ")
	case rule == policy.RuleAlso && v.Refused():
		return "not asked, since another rule refuses"
	case rule == policy.RuleTarget && len(v.Targets) == 0:
		return "kept: no target wants the account"
	default:
		return "kept"
	}
}

// standardInput is what the password is read from. On a terminal it asks for the password, which is not shown.
func standardInput(c *cli.Context) (io.Reader, error) {
	f, ok := c.App.Reader.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return c.App.Reader, nil
	}
	fmt.Fprint(c.App.ErrWriter, "Password: ")
	defer fmt.Fprintln(c.App.ErrWriter)
	b, err := readHidden(c.Context, int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("reading password: %w", err)
	}
	return bytes.NewReader(b), nil
}

// readHidden reads a line from a terminal that does not show it meanwhile. A signal that ends ctx gives the terminal its echo back.
func readHidden(ctx context.Context, fd int) ([]byte, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done(): // the read goes on until the process ends, right after this
		return nil, errors.Join(context.Cause(ctx), term.Restore(fd, before))
	}
}
