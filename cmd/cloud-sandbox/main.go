// Command cloud-sandbox runs doubles of Google Workspace and Microsoft 365, and
// tells them what users to have and how to misbehave. See internal/sandbox.
//
//	cloud-sandbox serve --dir DIR      runs both clouds, and writes into DIR what a client needs
//	cloud-sandbox user add MAIL…       makes accounts
//	cloud-sandbox user remove MAIL…    deletes them
//	cloud-sandbox misbehave CLOUD FAULT
//	cloud-sandbox misbehave clear
//	cloud-sandbox misbehave list       which faults there are
//	cloud-sandbox show [--json]        what the clouds hold and have seen
//	cloud-sandbox verify CLOUD USER    is this (on standard input) the user's password?
//
// All but serve speak to it through its control socket in DIR.
//
// Exit codes: 0 yes or done, 1 no or failed, 2 usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// A usageError is the caller's mistake, and exits with 2.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errNo is the answer no: exit code 1 without a message of its own.
var errNo = errors.New("no")

// run is the whole program; here alone errors become exit codes.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := app(stdin, stdout, stderr)
	err := a.RunContext(ctx, append(args[:1:1], flagsFirst(a.Commands, args[1:])...))
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNo):
		return 1
	case errors.As(err, &usage):
		fmt.Fprintln(stderr, "cloud-sandbox:", err)
		return 2
	}
	fmt.Fprintln(stderr, "cloud-sandbox:", err)
	return 1
}

var (
	dirFlag = &cli.StringFlag{Name: "dir", Value: "/var/lib/cloud-sandbox", EnvVars: []string{"CLOUD_SANDBOX_DIR"}, Usage: "folder of keys, state and files for clients"}
	// socketFlag's default is a file of --dir.
	socketFlag = &cli.StringFlag{Name: "control", EnvVars: []string{"CLOUD_SANDBOX_CONTROL"}, Usage: "control `SOCKET`; DIR/control.sock unless given"}
)

func app(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	a := &cli.App{
		Name:  "cloud-sandbox",
		Usage: "doubles of Google Workspace and Microsoft 365",
		Commands: []*cli.Command{
			serveCommand(),
			{
				Name: "user", Usage: "make and delete accounts", Action: subcommandMissing,
				Subcommands: []*cli.Command{userAddCommand(), userRemoveCommand()},
			},
			misbehaveCommand(),
			showCommand(),
			verifyCommand(),
		},
		Action: subcommandMissing,

		Reader: stdin, Writer: stdout, ErrWriter: stderr,
		HideVersion:    true,
		ExitErrHandler: func(*cli.Context, error) {}, // run does it
		CommandNotFound: func(*cli.Context, string) {
			// Action says it, with an exit code.
		},
	}
	prepare(a.Commands)
	a.OnUsageError = usageErrors
	return a
}

// prepare gives all commands what they have in common.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = usageErrors
		c.HideHelpCommand = true
		if len(c.Subcommands) == 0 {
			c.Flags = append(c.Flags, dirFlag, socketFlag)
		}
		prepare(c.Subcommands)
	}
}

// usageErrors marks what the library would return as a plain error.
func usageErrors(_ *cli.Context, err error, _ bool) error { return usageError{err} }

// flagsFirst moves the flags of a command before its arguments, because people
// write "misbehave google 503 --times 3" and the library would take the flag
// for an argument.
func flagsFirst(commands []*cli.Command, args []string) []string {
	for i, arg := range args {
		for _, c := range commands {
			if c.Name != arg {
				continue
			}
			rest := args[i+1:]
			if len(c.Subcommands) > 0 {
				return append(args[:i+1:i+1], flagsFirst(c.Subcommands, rest)...)
			}
			return append(args[:i+1:i+1], permute(c, rest)...)
		}
	}
	return args
}

func permute(c *cli.Command, args []string) []string {
	var flags, others []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			others = append(others, args[i+1:]...)
			break
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			others = append(others, arg)
			continue
		}
		flags = append(flags, arg)
		if takesValue(c, strings.TrimLeft(arg, "-")) && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	return append(append(flags, "--"), others...)
}

func takesValue(c *cli.Command, name string) bool {
	for _, f := range c.Flags {
		if value, ok := f.(cli.DocGenerationFlag); ok && slices.Contains(f.Names(), name) {
			return value.TakesValue()
		}
	}
	return false
}

func subcommandMissing(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("there is no command %q; see %s --help", c.Args().First(), c.Command.HelpName)
	}
	return usagef("which command? See %s --help", c.Command.HelpName)
}

func socket(c *cli.Context) string {
	if path := c.String("control"); path != "" {
		return path
	}
	return filepath.Join(c.String("dir"), "control.sock")
}

func client(c *cli.Context) *sandbox.Client { return sandbox.NewClient(socket(c)) }

func parseClouds(name string) ([]sandbox.Cloud, error) {
	if name == "both" {
		return []sandbox.Cloud{sandbox.Google, sandbox.Microsoft}, nil
	}
	cloud, err := parseCloud(name)
	return []sandbox.Cloud{cloud}, err
}

func parseCloud(name string) (sandbox.Cloud, error) {
	cloud, err := sandbox.ParseCloud(name)
	if err != nil {
		return "", usageError{err}
	}
	return cloud, nil
}

func userAddCommand() *cli.Command {
	return &cli.Command{
		Name: "add", Usage: "make accounts", ArgsUsage: "MAIL...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "cloud", Value: "both", Usage: "google, microsoft or both"},
			&cli.StringFlag{Name: "id", Usage: "the vendor's id; random unless given"},
			&cli.StringSliceFlag{Name: "alias", Usage: "another mail address of the user"},
			&cli.BoolFlag{Name: "admin", Usage: "Google's super administrator, Microsoft's holder of an administrator role"},
			&cli.BoolFlag{Name: "federated", Usage: "Microsoft: the domain signs in elsewhere"},
			&cli.BoolFlag{Name: "synced", Usage: "Microsoft: the user is synced from a directory"},
			&cli.StringFlag{Name: "immutable-id", Usage: "Microsoft: onPremisesImmutableId"},
			&cli.StringFlag{Name: "password-policies", Usage: "Microsoft: such as DisableStrongPassword"},
		},
		Action: func(c *cli.Context) error {
			clouds, err := parseClouds(c.String("cloud"))
			switch {
			case err != nil:
				return err
			case !c.Args().Present():
				return usagef("which user? Give a mail address")
			case c.NArg() > 1 && (c.IsSet("id") || c.IsSet("alias") || c.IsSet("immutable-id")):
				return usagef("--id, --alias and --immutable-id are for one user")
			}
			for _, mail := range c.Args().Slice() {
				for _, cloud := range clouds {
					if err := client(c).AddUser(c.Context, sandbox.User{
						Cloud: cloud, Name: mail, ID: c.String("id"), Aliases: c.StringSlice("alias"), Admin: c.Bool("admin"),
						Federated: c.Bool("federated"), Synced: c.Bool("synced"), ImmutableID: c.String("immutable-id"),
						PasswordPolicies: c.String("password-policies"),
					}); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

func userRemoveCommand() *cli.Command {
	return &cli.Command{
		Name: "remove", Usage: "delete accounts", ArgsUsage: "MAIL...",
		Flags: []cli.Flag{&cli.StringFlag{Name: "cloud", Value: "both", Usage: "google, microsoft or both"}},
		Action: func(c *cli.Context) error {
			clouds, err := parseClouds(c.String("cloud"))
			if err != nil {
				return err
			}
			if !c.Args().Present() {
				return usagef("which user? Give a mail address")
			}
			for _, mail := range c.Args().Slice() {
				for _, cloud := range clouds {
					if err := client(c).RemoveUser(c.Context, cloud, mail); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

func misbehaveCommand() *cli.Command {
	return &cli.Command{
		Name: "misbehave", Usage: "order a fault, clear them all, or list those there are", ArgsUsage: "CLOUD FAULT | clear | list",
		Description: "Which faults there are says: cloud-sandbox misbehave list",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "user", Usage: "only for requests that name this user"},
			&cli.StringFlag{Name: "on", Usage: "only on token, read or write requests"},
			&cli.IntFlag{Name: "times", Usage: "so many requests; until cleared unless given"},
			&cli.DurationFlag{Name: "retry-after", Usage: "the header of that name"},
			&cli.DurationFlag{Name: "delay", Usage: "wait before anything else"},
		},
		Action: func(c *cli.Context) error {
			switch args := c.Args().Slice(); {
			case slices.Equal(args, []string{"clear"}):
				return client(c).Behave(c.Context)
			case slices.Equal(args, []string{"list"}):
				return listFaults(c.App.Writer)
			case len(args) == 2:
				cloud, err := parseCloud(args[0])
				if err != nil {
					return err
				}
				fault := sandbox.Fault{
					Kind: args[1], User: c.String("user"), On: c.String("on"), Times: c.Int("times"),
					RetryAfter: c.Duration("retry-after"), Delay: c.Duration("delay"),
				}
				if err := sandbox.CheckFault(cloud, fault); err != nil {
					return usageError{err}
				}
				return client(c).Misbehave(c.Context, cloud, fault)
			}
			return usagef("misbehave how? Give a cloud and a fault, or clear, or list")
		},
	}
}

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "say by the exit code whether the cloud holds the password on standard input", ArgsUsage: "CLOUD USER",
		Flags: []cli.Flag{&cli.DurationFlag{Name: "wait", Usage: "so long for it to become true"}},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("verify what? Give a cloud and a user")
			}
			cloud, err := parseCloud(c.Args().Get(0))
			if err != nil {
				return err
			}
			text, err := io.ReadAll(io.LimitReader(c.App.Reader, 4096))
			if err != nil {
				return fmt.Errorf("reading password: %w", err)
			}
			password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
			held, err := client(c).Verify(c.Context, cloud, c.Args().Get(1), password, c.Duration("wait"))
			if err == nil && !held {
				err = errNo
			}
			return err
		},
	}
}
