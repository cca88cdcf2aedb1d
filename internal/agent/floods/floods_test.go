package floods

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/event"
)

func test(t *testing.T, f func(t *testing.T, b *Book, log *bytes.Buffer)) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f(t, New(event.New(slog.New(slog.NewTextHandler(&log, nil)))), &log)
	})
}

func come(b *Book, n int, account string, certain bool) {
	for range n {
		b.Came(account, certain)
	}
}

func TestFloodInAName(t *testing.T) {
	test(t, func(t *testing.T, b *Book, log *bytes.Buffer) {
		come(b, PerAccount, "liz", true)
		come(b, PerAccount, "tom", false)
		if all := b.Status(); len(all) != 0 || log.Len() > 0 {
			t.Fatalf("%+v, %s", all, log)
		}
		b.Came("Liz", false)
		began := time.Now()
		time.Sleep(2 * time.Minute)
		come(b, 50, "liz", false)
		all := b.Status()
		if len(all) != 1 || all[0].Account != "Liz" || all[0].Count != PerAccount+51 || !all[0].Since.Equal(began) || !all[0].Last.Equal(time.Now()) {
			t.Fatalf("%+v", all)
		}
		time.Sleep(over - time.Second)
		if b.Look(); len(b.Status()) != 1 {
			t.Error("it is over too soon")
		}
		time.Sleep(time.Second)
		if b.Look(); len(b.Status()) != 0 {
			t.Error("it is not over")
		}
		if text := log.String(); strings.Count(text, "event=flood ") != 1 || strings.Count(text, "event=flood-over account=Liz count=151 lasted=2m0s") != 1 {
			t.Errorf("log:\n%s", text)
		}
	})
}

func TestManyChangesAreNoFlood(t *testing.T) {
	test(t, func(t *testing.T, b *Book, log *bytes.Buffer) {
		for minute := range 3 {
			for n := range 2 * PerDC {
				b.Came(fmt.Sprint("user", minute, "-", n), true) // certainly theirs
			}
			for n := range PerDC / 2 {
				b.Came(fmt.Sprint("plain", minute, "-", n), false)
			}
			come(b, PerDC/2, "", false)
			time.Sleep(time.Minute)
		}
		if all := b.Status(); len(all) != 0 || log.Len() > 0 {
			t.Errorf("%+v, %s", all, log)
		}
	})
}

func TestFloodInManyNames(t *testing.T) {
	test(t, func(t *testing.T, b *Book, log *bytes.Buffer) {
		for n := range 3 * names {
			b.Came(fmt.Sprint("ghost", n), false)
		}
		come(b, 200, "liz", false)
		all := b.Status()
		if len(all) != 1 || all[0].Account != "" || all[0].Count != 3*names+200 {
			t.Fatalf("%+v", all)
		}
		time.Sleep(time.Minute)
		for n := range 3 * floods {
			come(b, PerAccount+1, fmt.Sprint("user", n), false)
		}
		if all = b.Status(); len(all) != floods || len(b.counts) > names {
			t.Errorf("%d floods, %d names", len(all), len(b.counts))
		}
		if n := strings.Count(log.String(), "\n"); n != floods {
			t.Errorf("%d lines", n)
		}
	})
}
