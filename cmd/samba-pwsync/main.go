// Command samba-pwsync delivers password changes of a Samba AD domain to other places: the agent proves captures against the
// directory, the forwarder delivers them. `serve` in serve.go is the wiring plan.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

// version is set by the Makefile (-ldflags -X).
var version = "devel"

// Exit codes, a contract with scripts.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 2 // usage or configuration
	exitAttention = 3 // it works, and something needs a person: parked, denied, stale
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := newApp(stdin, stdout, stderr).RunContext(ctx, args)
	if err == nil {
		return exitOK
	}
	code := exitFailed
	if coded := (*codedError)(nil); errors.As(err, &coded) {
		code = coded.code
	}
	if faults := config.Faults(nil); errors.As(err, &faults) {
		code = exitUsage
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(stderr, "samba-pwsync: %s\n", text)
	}
	for _, hint := range hints(err) {
		fmt.Fprintf(stderr, "samba-pwsync: hint: %s\n", hint)
	}
	return code
}

// codedError is an error with an exit code of its own. An empty text means that everything has been said.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e *codedError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &codedError{exitUsage, fmt.Errorf(format, args...)}
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:  "samba-pwsync",
		Usage: "deliver Samba AD password changes to Google Workspace and Microsoft 365",
		Description: "Samba runs samba-pwsync-hook as its check password script; the hook seals each new password into a file. " +
			"serve proves against the directory that the password really became the account's, and delivers it. " +
			"Everything is configured in one file; see samba-pwsync.toml(5).",
		Version:         version,
		HideVersion:     true, // `version` is a command
		HideHelpCommand: true,
		Reader:          stdin,
		Writer:          stdout,
		ErrWriter:       stderr,
		Flags:           []cli.Flag{configFlag()},
		Commands: []*cli.Command{
			initCommand(), serveCommand(), checkCommand(), statusCommand(), policyCommand(), versionCommand(),
		},
		// Exit codes are made in run, and nowhere else.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   onUsageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("unknown command %q", c.Args().First())
			}
			return errors.Join(cli.ShowAppHelp(c), &codedError{code: exitUsage})
		},
	}
	for _, command := range app.Commands {
		command.OnUsageError = onUsageError
		for _, sub := range command.Subcommands {
			sub.OnUsageError = onUsageError
		}
	}
	return app
}

func onUsageError(_ *cli.Context, err error, _ bool) error { return &codedError{exitUsage, err} }

// noArguments is the Before of commands that take flags only.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("%s takes no argument %q", c.Command.FullName(), c.Args().First())
	}
	return nil
}

func configFlag() cli.Flag {
	return &cli.PathFlag{Name: "config", Usage: "the configuration `FILE`", Value: config.DefaultFile}
}

// configPath returns --config, which may stand before or after the command.
func configPath(c *cli.Context) string {
	for _, at := range c.Lineage() {
		if at.Command != nil && at.IsSet("config") {
			return at.Path("config")
		}
	}
	return config.DefaultFile
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:   "version",
		Usage:  "print the version",
		Before: noArguments,
		Action: func(c *cli.Context) error {
			_, err := fmt.Fprintf(c.App.Writer, "samba-pwsync %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
