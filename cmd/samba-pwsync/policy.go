package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

func policyCommand() *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "explain the password policy",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("unknown command %q", "policy "+c.Args().First())
			}
			return usagef("policy needs a command: policy test")
		},
		Subcommands: []*cli.Command{{
			Name:  "test",
			Usage: "tell what the hook would say to a password",
			Description: "Reads the password from standard input up to the end, or asks for it on a terminal; one newline at the end does not " +
				"belong to it. Prints the reasons for a refusal. Exit code 0: accepted, 1: refused.",
			Flags:  []cli.Flag{configFlag()},
			Before: noArguments,
			Action: runPolicyTest,
		}},
	}
}

func runPolicyTest(c *cli.Context) error {
	// Exactly what the hook would use, also when the file is broken.
	hook, err := config.LoadHook(configPath(c))
	if err != nil {
		fmt.Fprintf(c.App.ErrWriter, "samba-pwsync: %v\nsamba-pwsync: the hook reads the same; where a fault is in [policy] it enforces the built-in one\n", err)
	}
	password, err := readPassword(c.App.Reader, c.App.ErrWriter)
	if err != nil {
		return err
	}
	defer password.Destroy()
	settings := policy.Settings(hook.Policy)
	reasons := policy.Check(settings, password)
	if len(reasons) > 0 && settings.Enforces() {
		for _, reason := range reasons {
			fmt.Fprintf(c.App.Writer, "refused: %s\n", reason)
		}
		return &codedError{code: exitFailed}
	}
	fmt.Fprintln(c.App.Writer, "accepted")
	for _, reason := range reasons {
		fmt.Fprintf(c.App.Writer, "would be refused, were the policy's mode not %q: %s\n", settings.Mode, reason)
	}
	return nil
}

// readPassword reads a password as the hook would get it from Samba.
func readPassword(stdin io.Reader, prompt io.Writer) (secret.Secret, error) {
	if f, ok := stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(prompt, "Password: ")
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(prompt)
		if err != nil {
			return secret.Secret{}, fmt.Errorf("reading password: %w", err)
		}
		stdin = bytes.NewReader(b)
	}
	// A newline at the end is the shell's, not the password's; Samba sends none.
	b, err := io.ReadAll(io.LimitReader(stdin, checkpassword.MaxPassword+2))
	if err != nil {
		return secret.Secret{}, fmt.Errorf("reading password: %w", err)
	}
	defer clear(b)
	request, err := checkpassword.Read(bytes.NewReader(bytes.TrimSuffix(b, []byte("\n"))), func(string) string { return "" })
	if err != nil {
		return secret.Secret{}, fmt.Errorf("reading password: %w", err)
	}
	return secret.New(request.Password), nil
}
