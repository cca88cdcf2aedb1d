package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

const manHead = `.\" Made by internal/config/generate from the comments in internal/config/config.go. Change those.
.Dd November 22, 2026
.Dt SAMBA-PWSYNC.TOML 5
.Os samba-pwsync
.Sh NAME
.Nm samba-pwsync.toml
.Nd configuration of samba-pwsync
.Sh DESCRIPTION
.Xr samba-pwsync 8
and
.Xr samba-pwsync-hook 8
read one TOML file:
.Pa %s ,
or the one that
.Fl -config
names.
It holds no secrets; it names the files that do.
.Pp
The file is strict: a key that is not known is an error, and so is a value that makes no sense.
.Ic samba-pwsync check
lists every fault with its line and a remedy.
All keys have defaults but those marked as needed, so a file that holds nothing but a remark is a valid one; one of 0 bytes the hook takes for a file that is about to be written.
The hook reads the file at each run;
.Ic samba-pwsync serve
reads it when it starts, but for the policies, which count within seconds of a change.
.Pp
A duration is a string of numbers and units, like
.Ql 90s ,
.Ql 2m
or
.Ql 72h .
`

const manTail = `.Sh FILES
.Bl -tag -width Ds
.It Pa %s
The configuration.
.El
.Sh EXAMPLES
All people of the domain but its administrators, to Google Workspace and to Microsoft 365:
.Bd -literal -offset indent
[target.google]
type = "google"
credentials_file = "/etc/samba-pwsync/google.json"
subject = "pwsync@example.com"

[target.microsoft365]
type = "entra"
tenant_id = "00000000-0000-0000-0000-000000000000"
client_id = "11111111-1111-1111-1111-111111111111"
client_secret_file = "/etc/samba-pwsync/entra.secret"
user = "userPrincipalName"
user_domain = "example.com"
.Ed
.Sh SEE ALSO
.Xr smb.conf 5 ,
.Xr samba-pwsync 8 ,
.Xr samba-pwsync-hook 8
`

// manPage writes samba-pwsync.toml(5) in mdoc(7).
func manPage(sections []section) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, manHead, config.DefaultFile)
	for _, s := range sections {
		switch {
		case s.name == "":
			b.WriteString(".Sh TOP OF THE FILE\n")
		case s.kind != "":
			fmt.Fprintf(&b, ".Ss type = \\(dq%s\\(dq\n", s.kind)
		default:
			fmt.Fprintf(&b, ".Sh SECTION [%s]\n", s.name)
		}
		b.WriteString(roff(s.text))
		if len(s.keys) > 0 {
			b.WriteString(".Bl -tag -width Ds\n")
			for _, k := range s.keys {
				manKey(&b, k)
			}
			b.WriteString(".El\n")
		}
	}
	fmt.Fprintf(&b, manTail, config.DefaultFile)
	return b.Bytes()
}

func manKey(b *bytes.Buffer, k key) {
	fmt.Fprintf(b, ".It Ic %s\n%s", k.name, roff(k.text))
	facts := strings.ToUpper(k.kind[:1]) + k.kind[1:]
	if k.choices != "" {
		facts = k.choices
	}
	if k.limits != "" {
		facts += ", " + k.limits
	}
	if k.required {
		facts += "; needed"
	} else {
		facts += "; default: " + k.standard
	}
	b.WriteString(".br\n" + roff(facts+"."))
}

// roff writes a text in lines of one sentence each, with `code` in bold.
func roff(text string) string {
	if text == "" {
		return ""
	}
	text = strings.ReplaceAll(text, `\`, `\e`)
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			part = `\fB` + part + `\fP`
		}
		b.WriteString(part)
	}
	lines := strings.Split(strings.ReplaceAll(b.String(), ". ", ".\n"), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
