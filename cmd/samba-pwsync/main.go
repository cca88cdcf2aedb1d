// Command samba-pwsync delivers password changes of a Samba AD domain to other places: the agent proves captures against the
// directory, the forwarder delivers them. `serve` in serve.go is the wiring plan; every other command only looks, but for
// `init`, which makes keys and folders, and `queue`, which asks the forwarder to retry or to drop what waits.
//
// Scripts rely on the commands, their flags, the exit codes and the names in JSON; testdata/script holds them. Whatever is wrong
// is said on standard error, and what to do about it is in hints.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unicode"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

//go:generate go test -run TestManPage . -update

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
	if err := errors.Join(cleanEnvironment(), unreadable()); err != nil {
		complain(os.Stderr, err.Error())
		os.Exit(exitFailed)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &output{w: stdout}
	app := newApp(stdin, out, stderr)
	err := app.RunContext(ctx, flagsFirst(app, args))
	if err == nil {
		err = out.err
	}
	if err == nil {
		return exitOK
	}
	if text := err.Error(); text != "" {
		complain(stderr, text)
	}
	for _, hint := range hints(err) {
		complain(stderr, "hint: "+hint)
	}
	return exitCode(err)
}

// output remembers that what it was to write was not written, so that the commands need not ask after each line.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("writing output: %w", err)
	}
	return n, err
}

// complain writes a text to standard error, each line of it with the program's name in front.
func complain(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "samba-pwsync: %s\n", printable(strings.TrimSuffix(line, "\n")))
	}
}

// printable takes away what would move a terminal's cursor. Whatever is printed for a person passes through it: names come from
// the directory, where others write, and the forwarder's answers from a process that talks to the internet.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

// exitCode is the one place that turns an error into an exit code.
func exitCode(err error) int {
	var (
		usage  *usageError
		faults config.Faults
		coded  *codedError
	)
	switch {
	case errors.As(err, &usage), errors.As(err, &faults):
		return exitUsage
	case errors.As(err, &coded):
		return coded.code
	default:
		return exitFailed
	}
}

// codedError is an error with an exit code of its own. Without a cause everything has been said already.
type codedError struct {
	code  int
	cause error
}

func (e *codedError) Error() string {
	if e.cause == nil {
		return ""
	}
	return e.cause.Error()
}

func (e *codedError) Unwrap() error { return e.cause }

// usageError says that the command line is wrong.
type usageError struct {
	text string
	ask  string // the command whose --help tells what is right
}

func (e *usageError) Error() string { return e.text }

func usagef(c *cli.Context, format string, args ...any) error {
	ask := c.App.Name
	if c.Command != nil && c.Command.HelpName != "" {
		ask = c.Command.HelpName
	}
	return &usageError{fmt.Sprintf(format, args...), ask}
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:  "samba-pwsync",
		Usage: "deliver Samba AD password changes to Google Workspace and Microsoft 365",
		Description: "Samba runs samba-pwsync-hook as its check password script; the hook seals each new password into a file. " +
			"serve proves against the directory that the password really became the account's, and delivers it. " +
			"Everything is configured in one file; see samba-pwsync.toml(5).",
		HideVersion:     true, // `version` is a command
		HideHelpCommand: true, // --help is understood everywhere; `help` is ours, since cli's explains some commands in other words than --help
		Reader:          stdin,
		Writer:          stdout,
		ErrWriter:       stderr,
		Flags:           []cli.Flag{configFlag(), cli.HelpFlag}, // cli adds it only where there is no command help
		Commands: []*cli.Command{
			initCommand(), keyCommand(), serveCommand(), checkCommand(), statusCommand(), driftCommand(), whyCommand(), queueCommand(), auditCommand(), policyCommand(),
			breachedCommand(), helpCommand(), versionCommand(),
		},
		// Exit codes are made in run, and nowhere else.
		ExitErrHandler: func(*cli.Context, error) {},
		Action:         missingCommand,
	}
	strict(&app.OnUsageError, nil)
	for _, command := range app.Commands {
		strict(&command.OnUsageError, command)
		for _, sub := range command.Subcommands {
			strict(&sub.OnUsageError, sub)
		}
	}
	cli.HelpPrinter = printHelp
	return app
}

// flagWords writes the errors of package flag with the two dashes that --help shows.
var flagWords = strings.NewReplacer(
	"flag provided but not defined: -", "unknown flag --",
	"flag needs an argument: -", "flag needs an argument: --",
)

// strict makes a command report flags that it does not know in our words, without its whole help.
func strict(onUsageError *cli.OnUsageErrorFunc, command *cli.Command) {
	if command != nil {
		command.HideHelpCommand = true
	}
	*onUsageError = func(c *cli.Context, err error, _ bool) error {
		return usagef(c, "%s", flagWords.Replace(err.Error()))
	}
}

// printHelp breaks long lines, which cli does not do by itself.
func printHelp(out io.Writer, template string, data any) {
	cli.HelpPrinterCustom(out, template, data, map[string]any{"wrapAt": func() int { return 100 }})
}

// missingCommand is the Action of what needs a command after it.
func missingCommand(c *cli.Context) error {
	name := c.App.Name
	if c.Command.HelpName != "" {
		name = c.Command.HelpName
	}
	if c.Args().Present() {
		return usagef(c, "unknown command %q", strings.TrimPrefix(name+" "+c.Args().First(), c.App.Name+" "))
	}
	return usagef(c, "%s needs a command", name)
}

// noArguments is the Before of commands that take flags only. It does not repeat the argument, which may be a password.
func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return usagef(c, "%s takes no arguments", c.Command.HelpName)
	}
	return nil
}

func configFlag() cli.Flag {
	return &cli.PathFlag{Name: "config", Usage: "the configuration `FILE`", Value: config.DefaultFile}
}

// configPath returns --config, which may stand before or after the command. The one after it wins.
func configPath(c *cli.Context) string {
	for _, at := range c.Lineage() {
		if at.Command != nil && at.IsSet("config") {
			return at.Path("config")
		}
	}
	return config.DefaultFile
}

// helpCommand prints what --help after the named command prints.
func helpCommand() *cli.Command {
	return &cli.Command{
		Name:      "help",
		Usage:     "explain a command, as --help after it does",
		ArgsUsage: "[COMMAND]...",
		Action: func(c *cli.Context) error {
			return c.App.RunContext(c.Context, append(append([]string{c.App.Name}, c.Args().Slice()...), "--help"))
		},
	}
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:   "version",
		Usage:  "print the version",
		Before: noArguments,
		Action: func(c *cli.Context) error {
			fmt.Fprintf(c.App.Writer, "samba-pwsync %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
