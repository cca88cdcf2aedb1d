package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
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
	capture  string          // its ID; empty if nothing was kept
	probe    bool            // perhaps nobody's password changes: see maybeProbe
	account  string          // as given
	reasons  []policy.Reason // why it is refused
	audit    []policy.Reason // why it would be refused if the policy enforced
	err      error           // why there is no capture
	ignored  []string        // names of variables whose value made no sense
	config   error           // what is wrong with the configuration
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
	value := func(key, value string, limit int) {
		b.WriteString(" " + key + "=" + strconv.Quote(value[:min(limit, len(value))]))
	}
	value("account", l.account, maxAccount)
	if len(l.reasons) > 0 {
		value("reason", join(l.reasons), maxError)
	}
	if len(l.audit) > 0 {
		value("audit", join(l.audit), maxError)
	}
	if l.err != nil {
		value("error", l.err.Error(), maxError)
	}
	if len(l.ignored) > 0 {
		value("ignored", strings.Join(l.ignored, " "), maxError)
	}
	if l.config != nil {
		value("config", configWords(l.config), maxError)
	}
	return b.String()
}

func join(reasons []policy.Reason) string {
	words := make([]string, len(reasons))
	for i, r := range reasons {
		words[i] = string(r)
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
	case l.config != nil:
		severity = severityError
	case severity != 0:
	case l.verdict == accepted:
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
