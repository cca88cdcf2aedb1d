package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/gate"
)

type verdict string

const (
	accepted verdict = "accepted"
	refused  verdict = "refused"
	failed   verdict = "failed"
)

// Severities of syslog. The zero value means: what the verdict deserves.
const (
	severityError   = 3
	severityWarning = 4
	severityInfo    = 6

	facilityAuth = 4
)

// line is what the log says about a run. There is no field for a password, a hash or a length.
type line struct {
	verdict  verdict
	severity int
	capture  string // its ID; empty if nothing was kept
	file     string // and its file's name
	probe    bool   // perhaps nobody's password changes: see maybeProbe
	nth      int    // of this minute's probes and refusals; 0: it is neither, or they cannot be counted
	account  string // as given
	shredded int    // captures that went, because too many of their kind waited
	gate.Verdict
	err     error     // why there is no capture
	ignored []string  // names of variables whose value made no sense
	config  error     // what is wrong with the configuration
	copyOf  time.Time // then: of when the configuration is that holds instead; zero if there is none
	noCopy  error     // and why its copy cannot be read
	late    bool      // storing hangs: nothing more is to be written
}

// Limits of a value, in bytes, since a datagram has one, and a name made up by somebody must not push out the rest.
const (
	maxAccount = 256
	maxError   = 400
)

// text writes the line out: words and quoted values, so that no value can look like another key or another line.
func (l line) text() string {
	var b strings.Builder
	b.WriteString(string(l.verdict))
	if l.capture != "" {
		b.WriteString(" capture=" + l.capture)
	}
	if l.probe {
		b.WriteString(" probe=maybe")
	}
	if l.nth > linesAMinute {
		b.WriteString(" nth=" + strconv.Itoa(l.nth))
	}
	if l.shredded > 0 {
		b.WriteString(" shredded=" + strconv.Itoa(l.shredded))
	}
	value := func(key, value string, limit int) {
		b.WriteString(" " + key + "=" + strconv.Quote(value[:min(limit, len(value))]))
	}
	refusing, audited := l.Rules(false), l.Rules(true)
	if len(l.Findings) > 0 || l.Policy != "" && l.Policy != config.DefaultPolicy {
		b.WriteString(" policy=" + l.Policy)
	}
	if len(refusing) > 0 {
		b.WriteString(" rules=" + strings.Join(refusing, ","))
	}
	if len(audited) > 0 {
		b.WriteString(" audited=" + strings.Join(audited, ","))
	}
	value("account", l.account, maxAccount)
	if len(refusing) > 0 {
		value("reason", l.reasons(false), maxError)
	}
	if len(audited) > 0 {
		value("audit", l.reasons(true), maxError)
	}
	if len(l.Troubles) > 0 {
		value("trouble", l.troubles(), maxError)
	}
	if l.err != nil {
		value("error", l.err.Error(), maxError)
	}
	if len(l.ignored) > 0 {
		value("ignored", strings.Join(l.ignored, " "), maxError)
	}
	if l.config != nil {
		value("config", configWords(l.config), maxError)
		if !l.copyOf.IsZero() {
			value("instead", "the configuration of "+l.copyOf.Format(time.DateTime), maxError)
		}
		if l.noCopy != nil {
			value("nocopy", l.noCopy.Error(), maxError)
		}
	}
	return b.String()
}

// reasons are those of findings that refuse, or of those that are only audited.
func (l line) reasons(audited bool) string {
	var words []string
	for _, f := range l.Findings {
		if f.Audited == audited {
			words = append(words, string(f.Reason))
		}
	}
	return strings.Join(words, "; ")
}

// troubles are what could not be asked.
func (l line) troubles() string {
	var words []string
	for _, t := range l.Troubles {
		if t.Rule == "" {
			words = append(words, t.Err.Error())
		} else {
			words = append(words, "rule "+t.Rule+": "+t.Err.Error())
		}
	}
	return strings.Join(words, "; ")
}

// configWords names the first fault; `samba-pwsync check` lists them all.
func configWords(err error) string {
	faults := config.Faults{}
	if !errors.As(err, &faults) {
		return err.Error()
	}
	words := faults[0].String()
	if more := len(faults) - 1; more > 0 {
		words += fmt.Sprintf(" (and %d more: run samba-pwsync check)", more)
	}
	return words
}

// priority is what syslog sorts by.
func (l line) priority() int {
	severity := l.severity
	switch {
	case l.config != nil || slices.ContainsFunc(l.Troubles, func(t gate.Trouble) bool { return !t.Minor }):
		severity = severityError
	case severity != 0:
	case l.verdict == accepted && len(l.Troubles) == 0:
		severity = severityInfo
	default:
		severity = severityWarning
	}
	return facilityAuth<<3 | severity
}

// send gives the line to syslog as one datagram, in the form that syslog(3) sends. It never waits: where nobody listens,
// or too slowly, the line is lost, for Samba's database is locked meanwhile.
func send(l line) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	datagram := fmt.Sprintf("<%d>%s samba-pwsync-hook[%d]: %s", l.priority(), time.Now().Format(time.Stamp), syscall.Getpid(), l.text())
	_ = syscall.Sendto(fd, []byte(datagram), syscall.MSG_NOSIGNAL, &syscall.SockaddrUnix{Name: devLog})
}
