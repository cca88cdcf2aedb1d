package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/breached/importer"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

func breachedCommand() *cli.Command {
	return &cli.Command{
		Name:   "breached",
		Usage:  "keep the file of passwords that are known from breaches",
		Action: missingCommand,
		Subcommands: []*cli.Command{{
			Name:      "import",
			Usage:     "make the file of lists of hashes",
			ArgsUsage: "FILE...",
			Description: "Reads lists such as Have I Been Pwned's, with lines of HASH:COUNT in the order of the hashes, SHA-1 or NTLM, and makes one " +
				"file of all of them, in which the hook looks passwords up without asking anybody. A FILE may also be the folder of range files " +
				"(00000.txt to FFFFF.txt) that the downloader writes. The file that is in force stays until the new one is whole. " +
				"What was interrupted goes on with the same command. A list that lacks hashes, as one does that was cut off, is refused. " +
				"Without --output the file is the one that [policy] breached names, or else breached.bin in the state folder's policy/. With 16 bits one " +
				"of 65,536 passwords that are in no list is refused all the same; with 8 bits one of 256, and the file has half the size. A line " +
				"without a count was seen once. " +
				"/usr/share/doc/samba-pwsync/operating.md tells where to get lists.",
			Flags: []cli.Flag{
				configFlag(),
				&cli.PathFlag{Name: "output", Aliases: []string{"o"}, Usage: "the `FILE` to be made"},
				&cli.IntFlag{Name: "bits", Usage: "8 or 16 `BITS` for each fingerprint", Value: 16},
				&cli.Uint64Flag{Name: "min-count", Usage: "leave out what was seen fewer than `N` times", Value: 1},
				&cli.BoolFlag{Name: "incomplete", Usage: "take lists that lack hashes"},
			},
			Action: runBreachedImport,
		}, {
			Name:        "info",
			Usage:       "tell what the file holds",
			ArgsUsage:   "[FILE]",
			Description: "Without FILE it is the one that [policy] breached names, or else breached.bin in the state folder's policy/. Exit code 0: fine, 1: it is not there, damaged, or not finished.",
			Flags: []cli.Flag{
				configFlag(),
				&cli.BoolFlag{Name: "verify", Usage: "read all of it and check that it is undamaged"},
			},
			Action: runBreachedInfo,
		}, {
			Name:      "test",
			Usage:     "tell whether the file holds a password",
			ArgsUsage: "[FILE]",
			Description: "Reads the password from standard input up to the end, or asks for it on a terminal; one newline at the end does not " +
				"belong to it. Without FILE it is the one that [policy] breached names, or else breached.bin in the state folder's policy/. Exit code 0: it does not, 1: it does, or that could not be told.",
			Flags:  []cli.Flag{configFlag()},
			Action: runBreachedTest,
		}},
	}
}

// breachedFile is the file that the hook's usual policy asks, or would.
func breachedFile(c *cli.Context) (string, error) {
	hook, err := config.LoadHook(configPath(c))
	if err != nil {
		return "", err
	}
	if hook.Policy.Breached != "" {
		return hook.Policy.Breached, nil
	}
	return hook.Paths().Breached, nil
}

func runBreachedImport(c *cli.Context) error {
	o := importer.Options{
		Output:     c.Path("output"),
		Lists:      c.Args().Slice(),
		Bits:       c.Int("bits"),
		MinCount:   c.Uint64("min-count"),
		Incomplete: c.Bool("incomplete"),
	}
	if len(o.Lists) == 0 {
		return usagef(c, "%s needs the lists to import", c.Command.HelpName)
	}
	for _, list := range o.Lists {
		if strings.HasPrefix(list, "-") {
			return usagef(c, "%s: flags stand before the lists (a list whose name begins so is written ./%s)", c.Command.HelpName, list)
		}
	}
	if o.Bits != 8 && o.Bits != 16 {
		return usagef(c, "--bits has to be 8 or 16")
	}
	if o.MinCount == 0 {
		return usagef(c, "--min-count has to be 1 or more")
	}
	var err error
	if o.Output == "" {
		o.Output, err = breachedFile(c)
	} else {
		o.Output, err = filepath.Abs(o.Output)
	}
	if err != nil {
		return err
	}
	show := newProgress(c.App.ErrWriter)
	o.Progress = show.tell
	r, err := importer.Run(c.Context, o)
	show.end()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted at %d %%; what was in force stays, and the same command goes on from there", show.percent())
	}
	if err != nil {
		return err
	}
	if r.Resumed > 0 {
		fmt.Fprintf(c.App.Writer, "an interrupted import was at %d %%, and went on from there\n", r.Resumed*100/breached.Shards)
	}
	describe(c.App.Writer, o.Output, r.Header)
	if hook, err := config.LoadHook(configPath(c)); err == nil && !asked(hook, o.Output) {
		fmt.Fprintf(c.App.Writer, "no policy asks it; to have the hook ask it, put this into [policy]: breached = %q\n", o.Output)
	}
	return nil
}

// asked reports whether a policy asks a file.
func asked(hook config.HookConfig, path string) bool {
	if hook.Policy.Breached == path {
		return true
	}
	for _, p := range hook.Policies {
		if p.Policy.Breached == path {
			return true
		}
	}
	return false
}

func runBreachedInfo(c *cli.Context) error {
	f, path, err := openBreached(c)
	if err != nil {
		return err
	}
	defer f.Close()
	describe(c.App.Writer, path, f.Header())
	if !c.Bool("verify") {
		return nil
	}
	show := newProgress(c.App.ErrWriter)
	err = f.Verify(func(shard int) error {
		show.tell(importer.Progress{Shards: shard + 1})
		return c.Context.Err()
	})
	show.end()
	if err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer, "verified  it is undamaged")
	return nil
}

func runBreachedTest(c *cli.Context) error {
	f, path, err := openBreached(c)
	if err != nil {
		return err
	}
	defer f.Close()
	stdin, err := standardInput(c)
	if err != nil {
		return err
	}
	request, err := checkpassword.Read(stdin, func(string) string { return "" })
	// A newline at the end is the shell's, not the password's.
	password := secret.New(bytes.TrimSuffix(request.Password, []byte("\n")))
	defer password.Destroy()
	if err == nil && len(password.Bytes()) == 0 {
		err = checkpassword.ErrEmpty
	}
	if err != nil {
		return err
	}
	held, err := f.HoldsPassword(password.Bytes())
	if err != nil {
		return err
	}
	if held {
		fmt.Fprintf(c.App.Writer, "breached: %s holds it\n", path)
		return &codedError{code: exitFailed}
	}
	fmt.Fprintf(c.App.Writer, "not breached: %s does not hold it\n", path)
	return nil
}

// openBreached opens the file that the command line names, or else the usual one.
func openBreached(c *cli.Context) (_ *breached.File, path string, err error) {
	switch c.Args().Len() {
	case 0:
		path, err = breachedFile(c)
	case 1:
		path, err = filepath.Abs(c.Args().First())
	default:
		err = usagef(c, "%s takes one file", c.Command.HelpName)
	}
	if err != nil {
		return nil, "", err
	}
	f, err := breached.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("%w: %s", errNoBreached, path)
	}
	return f, path, err
}

// describe prints what a file says about itself.
func describe(out io.Writer, path string, h breached.Header) {
	seen := ""
	if h.MinCount > 1 {
		seen = fmt.Sprintf(", seen %s times or more", thousands(h.MinCount))
	}
	fmt.Fprintf(out, "file      %s, %s bytes\n", path, thousands(h.Size))
	fmt.Fprintf(out, "holds     %s %v hashes%s\n", thousands(h.Entries), h.Kind, seen)
	fmt.Fprintf(out, "made      %s\n", h.Created.Local().Format("2006-01-02 15:04"))
	fmt.Fprintf(out, "refuses   besides them, one of %s other passwords (%.2g %%, %d bits)\n", thousands(uint64(1/h.FalseRate()+0.5)), 100*h.FalseRate(), h.Bits)
}

// thousands writes a number with a comma before each three digits.
func thousands(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// progress tells how far a long work is: on a terminal in one line, elsewhere in a line now and then.
type progress struct {
	out      io.Writer
	terminal bool
	began    time.Time
	told     time.Time
	first    int // shards that were there at the beginning
	importer.Progress
}

func newProgress(out io.Writer) *progress {
	f, ok := out.(*os.File)
	return &progress{out: out, terminal: ok && term.IsTerminal(int(f.Fd())), first: -1}
}

func (p *progress) tell(now importer.Progress) {
	at := time.Now()
	if p.Progress = now; p.first < 0 {
		p.first, p.began, p.told = now.Shards, at, at
		return
	}
	every := 20 * time.Second
	if p.terminal {
		every = 200 * time.Millisecond
	}
	if at.Sub(p.told) < every {
		return
	}
	p.told = at
	text := fmt.Sprintf("%d %%", p.percent())
	if now.Entries > 0 {
		text += ", " + thousands(now.Entries) + " hashes"
	}
	if done := now.Shards - p.first; done > 0 {
		left := time.Duration(float64(at.Sub(p.began)) / float64(done) * float64(breached.Shards-now.Shards))
		text += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", text)
	} else {
		complain(p.out, text)
	}
}

// end clears the line.
func (p *progress) end() {
	if p.terminal && p.first >= 0 {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func (p *progress) percent() int { return p.Shards * 100 / breached.Shards }
