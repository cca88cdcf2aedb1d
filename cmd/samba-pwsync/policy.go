package main

import (
	"bytes"
	"context"
	"errors"
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
		Name:   "policy",
		Usage:  "explain the password policy",
		Action: missingCommand,
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
	if err := harden(); err != nil {
		return err
	}
	// Exactly what the hook would use, also when the file is broken.
	hook, err := config.LoadHook(configPath(c))
	if err != nil {
		complain(c.App.ErrWriter, err.Error())
		complain(c.App.ErrWriter, "so the hook goes by these rules: "+rules(hook.Policy))
	}
	stdin, err := standardInput(c)
	if err != nil {
		return err
	}
	return judge(c.App.Writer, policy.Settings(hook.Policy), stdin)
}

func rules(p config.Policy) string {
	text := fmt.Sprintf("mode %s, %d to %d characters", p.Mode, p.MinLength, p.MaxLength)
	if p.Complexity {
		text += ", Samba's complexity"
	}
	return text
}

// judge says about the password on stdin what the hook would.
func judge(out io.Writer, settings policy.Settings, stdin io.Reader) error {
	request, unreadable := checkpassword.Read(stdin, func(string) string { return "" })
	// A newline at the end is the shell's, not the password's; Samba sends none.
	password := secret.New(bytes.TrimSuffix(request.Password, []byte("\n")))
	defer password.Destroy()
	if unreadable == nil && len(password.Bytes()) == 0 {
		unreadable = checkpassword.ErrEmpty
	}
	reasons := policy.Check(settings, password)
	if unreadable != nil {
		reasons = []policy.Reason{policy.Reason(unreadable.Error())}
	}
	if len(reasons) > 0 && settings.Enforces() {
		for _, reason := range reasons {
			fmt.Fprintf(out, "refused: %s\n", reason)
		}
		return &codedError{code: exitFailed}
	}
	fmt.Fprintln(out, "accepted")
	for _, reason := range reasons {
		fmt.Fprintf(out, "would be refused, were the policy's mode not %q: %s\n", settings.Mode, reason)
	}
	return nil
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
