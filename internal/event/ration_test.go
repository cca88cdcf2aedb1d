package event

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
)

func test(t *testing.T, f func(t *testing.T, l *Log, text *bytes.Buffer)) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		f(t, New(slog.New(slog.NewTextHandler(&text, nil))), &text)
	})
}

func TestWhatAnybodyCanBringAboutIsRationed(t *testing.T) {
	test(t, func(t *testing.T, l *Log, text *bytes.Buffer) {
		for range 1000 {
			l.NeverCommitted("1234", "liz")
		}
		for n := range 500 {
			l.Unclaimed("1234", fmt.Sprint("ghost", n))
		}
		for range 30 {
			l.NeverCommitted("1234", "tom")
		}
		l.HashMissing("1234", change.Account{SAMAccountName: "tim"}, errors.New("none"))
		l.Proven(change.Change{}) // is of a change, and so has its line
		if n := strings.Count(text.String(), "\n"); n != rationLines+1 || strings.Count(text.String(), "event=proven") != 1 {
			t.Fatalf("%d lines", n)
		}
		text.Reset()
		time.Sleep(time.Minute)
		l.Summarise()
		l.Summarise()
		got := text.String()
		for _, want := range []string{"event=never-committed more=900 account=liz\n", "event=never-committed more=30 account=tom\n", "event=unclaimed more=", "accounts=49"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		if n := strings.Count(got, "\n"); n > rationSaid+3 {
			t.Errorf("%d lines:\n%s", n, got)
		}
		for name, want := range map[string]uint64{"never-committed": 1030, "unclaimed": 500, "hash-missing": 1, "proven": 1} {
			if n := l.Counters()[name]; n != want {
				t.Errorf("%d events %s, want %d", n, name, want)
			}
		}
		// The next minute has lines again, and what is told by the next event needs no Summarise.
		text.Reset()
		for range rationLines + 5 {
			l.Unprovable("1234", "liz")
		}
		time.Sleep(time.Minute)
		l.NeverCommitted("1234", "liz")
		if got := text.String(); strings.Count(got, "\n") != rationLines+2 || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "event=unprovable more=5 account=liz\n") {
			t.Errorf("log:\n%s", got)
		}
	})
}

// However many names somebody makes up, memory does not grow with them.
func TestNamesAreBounded(t *testing.T) {
	test(t, func(t *testing.T, l *Log, text *bytes.Buffer) {
		for n := range 3 * rationNames {
			l.NeverCommitted("1234", fmt.Sprint("ghost", n))
		}
		if n := len(l.ration.more); n > rationNames+1 {
			t.Errorf("%d names are kept", n)
		}
	})
}
