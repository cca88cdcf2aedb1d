package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

var update = flag.Bool("update", false, "write docs/man/samba-pwsync.8")

// The manual page samba-pwsync(8) is made of the commands, flags and descriptions that --help prints, and of the words below.
// It is made here because only this package knows the commands: go generate ./cmd/samba-pwsync
func TestManPage(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "man", "samba-pwsync.8")
	want := manPage(newApp(strings.NewReader(""), io.Discard, io.Discard))
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/man/samba-pwsync.8 is stale: run go generate ./cmd/samba-pwsync")
	}
	for _, word := range []string{"init", "key rotate", "serve", "check", "status", "why", "queue list", "queue retry", "queue drop", "audit", "policy test", "breached import", "version", "-connect", "-log-level", "-user"} {
		if !bytes.Contains(got, []byte(" "+word)) {
			t.Errorf("the manual does not tell of %s", word)
		}
	}
	// Where there is a mandoc, it has nothing to warn of.
	if mandoc, err := exec.LookPath("mandoc"); err == nil {
		if out, err := exec.Command(mandoc, "-T", "lint", "-W", "warning", path).CombinedOutput(); err != nil {
			t.Errorf("mandoc: %v\n%s", err, out)
		}
	}
}

// manPage writes samba-pwsync(8) in mdoc(7).
func manPage(app *cli.App) []byte {
	var b bytes.Buffer
	b.WriteString(manHead)
	fmt.Fprintf(&b, ".Sh NAME\n.Nm samba-pwsync\n.Nd %s\n.Sh SYNOPSIS\n", app.Usage)
	for _, c := range commands(app) {
		synopsis(&b, c)
	}
	b.WriteString(".Sh DESCRIPTION\n" + roff(app.Description) + manDescription)
	b.WriteString(".Bl -tag -width Ds\n")
	for _, c := range commands(app) {
		fmt.Fprintf(&b, ".It Ic %s\n%s", c.name, roff(strings.ToUpper(c.Usage[:1])+c.Usage[1:]+"."))
		if c.Description != "" {
			b.WriteString(roff(c.Description))
		}
		flags := ownFlags(c.Command)
		if len(flags) == 0 {
			continue
		}
		b.WriteString(".Bl -tag -width Ds\n")
		for _, f := range flags {
			placeholder, usage := flagWordsOf(f)
			fmt.Fprintf(&b, ".It Fl -%s%s\n%s", f.Names()[0], argument(placeholder), roff(strings.ToUpper(usage[:1])+usage[1:]+"."))
		}
		b.WriteString(".El\n")
	}
	b.WriteString(".El\n")
	fmt.Fprintf(&b, manTail, config.DefaultFile, config.Default().StateDir)
	return b.Bytes()
}

// command is a command with its whole name: "policy test".
type command struct {
	name string
	*cli.Command
}

// commands lists what can be run, in the order of --help.
func commands(app *cli.App) []command {
	var all []command
	for _, c := range app.Commands {
		if len(c.Subcommands) == 0 {
			all = append(all, command{c.Name, c})
		}
		for _, sub := range c.Subcommands {
			all = append(all, command{c.Name + " " + sub.Name, sub})
		}
	}
	return all
}

// ownFlags leaves out --config, which all have.
func ownFlags(c *cli.Command) []cli.Flag {
	var own []cli.Flag
	for _, f := range c.Flags {
		if f.Names()[0] != "config" {
			own = append(own, f)
		}
	}
	return own
}

func synopsis(b *bytes.Buffer, c command) {
	fmt.Fprintf(b, ".Nm\n.Op Fl -config Ar file\n.Cm %s\n", c.name)
	for _, f := range ownFlags(c.Command) {
		placeholder, _ := flagWordsOf(f)
		fmt.Fprintf(b, ".Op Fl -%s%s\n", f.Names()[0], argument(placeholder))
	}
	switch name, repeated := strings.CutSuffix(c.ArgsUsage, "..."); {
	case c.ArgsUsage == "":
	case strings.HasPrefix(name, "["):
		fmt.Fprintf(b, ".Op Ar %s\n", strings.ToLower(strings.Trim(name, "[]")))
	case repeated:
		fmt.Fprintf(b, ".Ar %s ...\n", strings.ToLower(name))
	default:
		fmt.Fprintf(b, ".Ar %s\n", strings.ToLower(name))
	}
}

// flagWordsOf returns the placeholder of a flag's value, if it has one, and what the flag means.
func flagWordsOf(f cli.Flag) (placeholder, usage string) {
	usage = f.(cli.DocGenerationFlag).GetUsage()
	if parts := strings.Split(usage, "`"); len(parts) == 3 {
		placeholder = strings.ToLower(parts[1])
		usage = parts[0] + placeholder + parts[2]
	}
	if standard := f.(cli.DocGenerationFlag).GetDefaultText(); standard != "" && f.(cli.DocGenerationFlag).TakesValue() {
		usage += "; default: " + strings.Trim(standard, `"`)
	}
	return placeholder, usage
}

func argument(placeholder string) string {
	if placeholder == "" {
		return ""
	}
	return " Ar " + placeholder
}

// roff writes a text in lines of one sentence each.
func roff(text string) string {
	text = strings.ReplaceAll(text, `\`, `\e`)
	lines := strings.Split(strings.ReplaceAll(text, ". ", ".\n"), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

const manHead = `.\" Made by cmd/samba-pwsync/man_test.go of the command line itself: go generate ./cmd/samba-pwsync
.Dd November 22, 2026
.Dt SAMBA-PWSYNC 8
.Os samba-pwsync
`

const manDescription = `.Pp
.Cm init
makes keys and folders,
.Cm serve
does the work,
.Cm queue
tells it to try sooner, or to drop, what waits, and the other commands only look.
No command takes a password on its command line or from the environment.
.Pp
All commands but
.Cm version
read the configuration that
.Fl -config
names, before the command or after it; see
.Sx FILES
for the one they read otherwise.
.Fl -help
after a command explains it.
`

const manTail = `.Sh SIGNALS
.Cm serve
ends with exit code 0 on
.Dv SIGTERM
and
.Dv SIGINT .
A delivery under way gets ten seconds to finish; a second signal does not wait for it.
Nothing is lost either way: what has not been delivered is on disk, sealed, and is taken up by the next start.
The configuration is read once, at the start, but for the policies, which count within seconds of a change.
.Sh ENVIRONMENT
.Bl -tag -width Ds
.It Ev NOTIFY_SOCKET , WATCHDOG_USEC , WATCHDOG_PID
Set by systemd.
.Cm serve
tells it when it is ready, that it lives if the unit has a
.Ql WatchdogSec ,
and when it stops.
.It Ev HTTPS_PROXY , NO_PROXY
The proxy by which
.Cm serve
and
.Cm check Fl -connect
reach the targets.
.It Ev GODEBUG
As for every Go program, but for
.Ql http2debug ,
which would write passwords to standard error, and
.Ql clobberfree=1 ,
which has memory overwritten when it is freed: the program starts itself anew, without the one and with the other.
.It Ev AZURE_REGIONAL_AUTHORITY_NAME , MSAL_FORCE_REGION , GOOGLE_SDK_GO_LOGGING_LEVEL , AZURE_SDK_GO_LOGGING
Without effect.
The libraries would ask another host for access tokens, or log requests.
.El
.Sh FILES
.Bl -tag -width Ds
.It Pa %[1]s
The configuration, unless
.Fl -config
names another one; see
.Xr samba-pwsync.toml 5 .
.It Pa %[2]s
The state folder, unless the configuration names another one.
In it:
.Bl -tag -width Ds
.It Pa keys/
Two key pairs.
Both public keys are the hook's.
.Pa agent.key
opens the hashes of captured passwords, or with proof = "aes256" the passwords themselves until they are proven;
.Pa forwarder.key
opens the passwords.
Those from before a rotation lie in
.Pa agent-retired/
and
.Pa forwarder-retired/
until they are destroyed.
Whoever has a private key and the spool reads what waits there, so they do not belong into the same backup.
.It Pa spool/incoming/
Captures, from the hook to the agent.
.It Pa spool/outgoing/
Proven changes, from the agent to the forwarder, what the agent has seen of the directory, and who is to be told of a refused password.
.It Pa spool/refusals
What the policy refused, from the hook to the agent.
.It Pa hook/
The configuration as the hook last read it without a fault, for the time when it has one, and the same in a form that is read faster.
.It Pa policy/
What the hook's policy needs beside the configuration.
.It Pa agent/ , forwarder/
What each role remembers, its lock, and the socket that answers
.Cm status ,
.Cm why
and
.Cm queue .
.Pa forwarder/
belongs to the user that
.Cm init Fl -user
named.
.It Pa damaged/
In a spool folder: files that made no sense, set aside for somebody to look at.
.El
.El
.Sh EXIT STATUS
.Bl -tag -width Ds
.It 0
Fine.
.It 1
It failed; of
.Cm policy test :
the password is refused; of
.Cm breached test :
it is known.
.It 2
The command line or the configuration is wrong.
.It 3
It works, and something needs a person: a role does not run, a target denies access, a password was refused by a target.
.El
.Pp
What went wrong is said on standard error, and below it, after
.Ql hint:\& ,
what to do about it.
.Cm check
and
.Cm status
list their findings on standard output.
.Sh EXAMPLES
Install it on a domain controller:
.Bd -literal -offset indent
samba-pwsync init
editor %[1]s
editor /etc/samba/smb.conf      # check password script = exec /usr/sbin/samba-pwsync-hook
systemctl restart samba-ad-dc
samba-pwsync check --connect
systemctl enable --now samba-pwsync
.Ed
.Pp
Ask what the hook would say to a password, without showing it:
.Bd -literal -offset indent
samba-pwsync policy test
.Ed
.Pp
Have the hook refuse passwords that are known from breaches; operating.md tells where to get the list:
.Bd -literal -offset indent
samba-pwsync breached import pwnedpasswords.txt
editor /etc/samba-pwsync/samba-pwsync.toml      # [policy] breached = "/var/lib/samba-pwsync/policy/breached.bin"
samba-pwsync breached info --verify
.Ed
.Pp
Somebody cannot log on at Google; where is the password?
.Bd -literal -offset indent
samba-pwsync why liz
.Ed
.Pp
Let monitoring look at it:
.Bd -literal -offset indent
samba-pwsync status --json | jq -r '.attention[]'
.Ed
.Pp
Run the forwarder without root's rights; its group has to be able to read the files that the targets name:
.Bd -literal -offset indent
useradd --system --home /nonexistent --shell /usr/sbin/nologin samba-pwsync
systemctl disable --now samba-pwsync
samba-pwsync init --user samba-pwsync
chgrp samba-pwsync /etc/samba-pwsync/google.json && chmod 0640 /etc/samba-pwsync/google.json
samba-pwsync check --connect
systemctl enable --now samba-pwsync-agent samba-pwsync-forwarder
.Ed
.Sh SEE ALSO
.Xr samba-pwsync.toml 5 ,
.Xr smb.conf 5 ,
.Xr samba-pwsync-hook 8
`
