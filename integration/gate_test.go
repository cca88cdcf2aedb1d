package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// testGate: what the hook's policy says on a real domain controller, beyond length and complexity.
func testGate(t *testing.T) {
	conf, err := company.DC.Exec(ctx, "", "cat", lab.ConfigFile)
	must(t, err)
	write := func(t *testing.T, change func(string) string) {
		t.Helper()
		must(t, company.DC.WriteFile(ctx, lab.ConfigFile, "0644", change(conf)))
	}
	restore := func(t *testing.T) {
		t.Cleanup(func() { write(t, func(conf string) string { return conf }) })
	}
	instead := func(of, by string) func(string) string {
		return func(conf string) string {
			if !strings.Contains(conf, of) {
				t.Fatalf("the configuration has no %q", of)
			}
			return strings.Replace(conf, of, by, 1)
		}
	}
	preflight := instead("preflight = false", "preflight = true")

	t.Run("policy test asks the directory for names", func(t *testing.T) {
		restore(t)
		u := newUser(t)
		must(t, company.DC.SetAttribute(ctx, u.name, "displayName", "Zaphod Quuxly"))
		write(t, instead("preflight = false", "preflight = false\nnames = true"))
		text := said(t, "sh", "-c", "echo Quuxly-12ab | samba-pwsync policy test --account "+u.name+" 2>&1")
		for _, part := range []string{"\nnames       " + u.name + ", " + lab.UserPrincipalName(u.name) + ", Zaphod Quuxly\n", "\nname        refuses: "} {
			if !strings.Contains(text, part) {
				t.Errorf("policy test says %q, and not %q", text, part)
			}
		}
		// As the hook does, which Samba tells.
		if err := company.DC.LDAPSReset(ctx, u.name, "", "Quuxly-12ab"); err == nil || !strings.Contains(lastLine(t, u.name), "rules=name ") {
			t.Errorf("%v, and the hook said %q", err, lastLine(t, u.name))
		}
		if text := said(t, "sh", "-c", "echo Quuxly-12ab | samba-pwsync policy test --account nobody-of-that-name 2>&1"); !strings.Contains(text, "\nnames       nobody-of-that-name alone (") {
			t.Errorf("policy test says %q", text)
		}
	})

	t.Run("what a target would refuse", func(t *testing.T) {
		restore(t)
		u, excluded := newUser(t), newUser(t)
		must(t, company.DC.SetAttribute(ctx, excluded.name, "adminCount", "1"))
		write(t, preflight)

		refusedPassword := company.Remember(company.NewPassword()[:10] + "äöü")
		if err := company.DC.LDAPSReset(ctx, u.name, "", refusedPassword); err == nil {
			t.Fatal("a password that Entra ID would refuse was not refused")
		}
		line := lastLine(t, u.name)
		if !strings.Contains(line, ": refused policy=default rules=target ") || !strings.Contains(line, "would not take it: it has a character that is not printable ASCII") {
			t.Errorf("the hook said %q", line)
		}
		must(t, company.DC.Login(u.name, u.password()))

		// Of an account that no target wants nothing is asked, as soon as the agent knows that.
		accepted := company.Remember(company.NewPassword()[:10] + "äöü")
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Second) {
			if err = company.DC.LDAPSReset(ctx, excluded.name, "", accepted); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("refused for an account that no target wants: %v\n%s", err, lastLine(t, excluded.name))
			}
		}
		excluded.never(t, accepted)
		u.never(t, refusedPassword)

		// Of one that nobody knows yet, all targets are asked.
		if _, err := company.DC.Exec(ctx, strings.Repeat(refusedPassword+"\n", 2), "samba-tool", "user", "create", "gate-unknown"); err == nil {
			t.Error("a new account was made with a password that Entra ID would refuse")
		}

		next := company.NewPassword()
		must(t, company.DC.KPasswd(ctx, u.name, u.password(), next))
		u.arrives(t, next)
	})

	t.Run("another program", func(t *testing.T) {
		restore(t)
		const program = "/usr/local/sbin/other-check"
		must(t, company.DC.WriteFile(ctx, program, "0755", "#!/bin/sh\ncase \"$(cat)\" in *Sesame*) exit 1;; esac\n[ \"$SAMBA_CPS_ACCOUNT_NAME\" = \"$1\" ]\n"))
		u := newUser(t)
		write(t, instead("preflight = false", "preflight = false\nalso = [\""+program+" "+u.name+"\"]"))
		if err := company.DC.KPasswd(ctx, u.name, u.password(), company.Remember("Sesame-"+company.NewPassword()[:8])); err == nil {
			t.Fatal("what the other program refuses was not refused")
		}
		if line := lastLine(t, u.name); !strings.Contains(line, ": refused policy=default rules=also ") {
			t.Errorf("the hook said %q", line)
		}
		next := company.NewPassword()
		must(t, company.DC.KPasswd(ctx, u.name, u.password(), next))
		u.arrives(t, next)

		_, err := company.DC.Exec(ctx, "", "rm", program)
		must(t, err)
		next = company.NewPassword()
		must(t, company.DC.LDAPSReset(ctx, u.name, "", next))
		u.arrives(t, next)
		if line := lastLine(t, u.name); !strings.Contains(line, `trouble="rule also: `+program+`: starting it: no such file or directory"`) {
			t.Errorf("the hook said %q", line)
		}
	})

	t.Run("the last good configuration", func(t *testing.T) {
		restore(t)
		u := newUser(t)
		write(t, instead("preflight = false", "preflight = false\nmin_length = 12"))
		next := company.Remember(company.NewPassword() + "ab")
		must(t, company.DC.LDAPSReset(ctx, u.name, "", next))
		u.arrives(t, next)
		write(t, instead("preflight = false", "preflight = false\nmin_length = 8\nmin_lenght = 8"))
		if err := company.DC.LDAPSReset(ctx, u.name, "", company.Remember(company.NewPassword()[:10])); err == nil {
			t.Fatal("the last good policy does not hold")
		}
		line := lastLine(t, u.name)
		if !strings.Contains(line, "rules=length") || !strings.Contains(line, "policy.min_lenght: is not known") || !strings.Contains(line, ` instead="the configuration of `) {
			t.Errorf("the hook said %q", line)
		}
		if text := said(t, "sh", "-c", "echo Ab1-Ab1-Ab | samba-pwsync policy test 2>&1"); !strings.Contains(text, "so the hook goes by its copy of the configuration of ") ||
			!strings.Contains(text, "refused: it has fewer than 12 characters") {
			t.Errorf("policy test says %q", text)
		}
		next = company.Remember(company.NewPassword() + "ab")
		must(t, company.DC.LDAPSReset(ctx, u.name, "", next))
		u.arrives(t, next)
	})
}

// lastLine is what the hook said last about an account.
func lastLine(t *testing.T, account string) string {
	t.Helper()
	log, err := company.DC.HookLog(ctx)
	must(t, err)
	last := ""
	for line := range strings.Lines(log) {
		if strings.Contains(line, " samba-pwsync-hook[") && strings.Contains(line, ` account="`+account+`"`) {
			last = strings.TrimSpace(line)
		}
	}
	return last
}
