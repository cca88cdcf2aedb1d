package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/breached/importer"
	"github.com/samba-pwsync/samba-pwsync/internal/survey"
)

func TestParseDays(t *testing.T) {
	for text, want := range map[string]int{"": 0, "1d": 1, "365d": 365, "100000d": 100_000} {
		if got, err := parseDays(text); err != nil || got != want {
			t.Errorf("parseDays(%q) = %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"d", "365", "0d", "-1d", "1.5d", "1y", "365 d", "100001d", "99999999999999999999d"} {
		if got, err := parseDays(text); err == nil {
			t.Errorf("parseDays(%q) = %d", text, got)
		}
	}
}

// What holds the directory's kind of hashes is used, and a policy's file of the other kind is not.
func TestOpenHashes(t *testing.T) {
	dir := t.TempDir()
	of := func(kind breached.Kind, hash string) string {
		list, path := filepath.Join(dir, kind.String()+".txt"), filepath.Join(dir, kind.String()+".bin")
		if err := os.WriteFile(list, []byte(hash+":3\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		o := importer.Options{Output: path, Lists: []string{list}, Bits: 16, MinCount: 1, Incomplete: true}
		if _, err := importer.Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ntlm := of(breached.NTLM, "0123456789ABCDEF0123456789ABCDEF")
	sha1 := of(breached.SHA1, "0123456789ABCDEF0123456789ABCDEF01234567")
	for _, c := range []struct {
		asked, policy      string
		opened, unsuitable string
		fault              error
	}{
		{"", "", "", "", nil},
		{ntlm, "", "NTLM", "", nil},
		{ntlm, sha1, "NTLM", "", nil},
		{"", ntlm, "NTLM", "", nil},
		{"", sha1, "", sha1, nil},
		{sha1, ntlm, "", "", errNoNTLM},
		{dir + "/none", ntlm, "", "", errNoBreached},
		{"", dir + "/none", "", "", errNoBreached},
		{dir + "/NTLM.txt", "", "", "", breached.ErrForeign},
	} {
		file, unsuitable, err := openHashes(c.asked, c.policy)
		opened := ""
		if file != nil {
			opened = file.Kind().String()
			if err := file.Close(); err != nil {
				t.Error(err)
			}
		}
		if opened != c.opened || unsuitable != c.unsuitable || !errors.Is(err, c.fault) || (err != nil) != (c.fault != nil) {
			t.Errorf("asked for %q, policy %q: opened %q, unsuitable %q, %v", c.asked, c.policy, opened, unsuitable, err)
		}
	}
}

// audited is a report with something in each list.
func audited() *auditReport {
	set := func(name string, day int, marks string) survey.Account {
		return survey.Account{Name: name, Disabled: strings.Contains(marks, "off"), MustChange: strings.Contains(marks, "must"),
			Changed: time.Date(2026, 3, day, 12, 0, 0, 0, time.UTC)}
	}
	alice, bob, zoe := set("alice", 1, ""), set("Bob", 2, "off must"), set("zoe", 3, "must")
	never := survey.Account{Name: "Guest", Disabled: true}
	return &auditReport{DC: "dc1.example.com", Domain: "example.com", AsOf: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), days: 30,
		ReversiblePolicies: []string{"the domain's", "kiosk"}, BreachedFalseRate: 1.0 / 65536,
		Report: &survey.Report{Accounts: 12, Disabled: 2, Compared: 9, NotComparable: 1, NoPassword: 1,
			Breached: []survey.Account{alice}, Guessable: []survey.Account{bob}, Empty: []survey.Account{zoe}, NotRequired: []survey.Account{never},
			Reversible: []survey.Account{alice}, Old: []survey.Account{alice, bob}, NeverChanged: []survey.Account{bob, zoe}, Unreadable: []string{"odd"},
			Shared: []survey.Group{
				{Accounts: []survey.Account{alice, bob, zoe}, NeverChanged: 2, Breached: true, Guessable: true},
				{Accounts: []survey.Account{set("left", 4, "off"), set("svc", 5, "")}},
			}}}
}

// The output is a contract: --json with scripts, the other with those who wrote to us what they see.
func TestAuditOutput(t *testing.T) {
	nothing := &auditReport{DC: "dc1.example.com", Domain: "example.com", AsOf: audited().AsOf, ReversiblePolicies: []string{},
		unsuitable: "/var/lib/samba-pwsync/policy/breached.bin",
		Report: &survey.Report{Accounts: 3, Compared: 3, Shared: []survey.Group{}, Empty: []survey.Account{}, NotRequired: []survey.Account{},
			Reversible: []survey.Account{}, NeverChanged: []survey.Account{}, Unreadable: []string{}}}
	for name, r := range map[string]*auditReport{"found": audited(), "nothing": nothing} {
		var text, script bytes.Buffer
		if err := r.print(&text); err != nil {
			t.Fatal(err)
		}
		if err := printJSON(&script, r); err != nil {
			t.Fatal(err)
		}
		for extension, got := range map[string][]byte{".txt": text.Bytes(), ".json": script.Bytes()} {
			path := filepath.Join("testdata", "audit", name+extension)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %v: got\n%s", path, err, got)
			}
		}
	}
}

// Names come from the directory.
func TestAuditMovesNoCursor(t *testing.T) {
	r := audited()
	for _, list := range [][]survey.Account{r.Breached, r.Shared[0].Accounts, r.NeverChanged} {
		list[0].Name = "liz\x1b[2J\u202e\n"
	}
	r.Unreadable[0], r.ReversiblePolicies[0], r.Domain = "\x1b[2J", "\x1b[2J", "\r"
	var b bytes.Buffer
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); strings.ContainsAny(text, "\x1b\r\u202e") || strings.Count(text, "liz\ufffd[2J\ufffd\ufffd ") != 3 {
		t.Errorf("%q", text)
	}
}
