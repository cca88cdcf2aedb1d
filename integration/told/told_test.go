// Package told tries on a real domain controller whom samba-pwsync tells that a password was refused: once, whoever tried to change the
// password of the account, by the rules that refused; and nobody of what any domain user can bring about with SamrValidatePassword.
package told

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/agent"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/refusals"
	"github.com/samba-pwsync/samba-pwsync/internal/notice"
)

const (
	// patience is how long a test waits for something that should take moments: the machine may be small and busy.
	patience = 4 * time.Minute

	program = "/usr/local/bin/tell"
	script  = "#!/bin/sh\numask 022; f=/tmp/told.$$; cat > $f.new && mv $f.new $f.json\n"
)

// config also has what a target would not take refused.
var config = strings.Replace(lab.DefaultConfig, "preflight = false", "preflight = true", 1) +
	"\n[notify]\ncommand = \"" + program + "\"\ncollect = \"3s\"\n"

var ctx context.Context // ends at an interrupt: then every step fails at once, and the lab is removed

func TestMain(m *testing.M) {
	if os.Getenv("CI") != "true" && os.Getenv("PWSYNC_INTEGRATION") != "required" {
		fmt.Println("skipped: needs Docker and a few minutes; make integration runs it")
		return
	}
	var stop context.CancelFunc
	ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := m.Run()
	stop()
	os.Exit(code)
}

type domain struct {
	*lab.Lab
	markers atomic.Int32
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// letters returns what the program was given so far about an account.
func (d *domain) letters(t *testing.T, account string) (letters []notice.Letter) {
	t.Helper()
	text, err := d.DC.Exec(ctx, "", "sh", "-c", "cat /tmp/told.*.json 2>/dev/null || true")
	must(t, err)
	for decoder := json.NewDecoder(strings.NewReader(text)); decoder.More(); {
		var l notice.Letter
		must(t, decoder.Decode(&l))
		if strings.EqualFold(l.Account, account) {
			letters = append(letters, l)
		}
	}
	return letters
}

// letter waits for the one letter about an account.
func (d *domain) letter(t *testing.T, account string) notice.Letter {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		if l := d.letters(t, account); len(l) > 0 {
			return l[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s was not told", account)
		}
	}
}

// passed waits until everything was told that is to be told of what was refused before. Notices go out in the order in which the passwords were
// refused: so one more is refused, of an account of its own, and when that is told, so are the others.
func (d *domain) passed(t *testing.T) {
	t.Helper()
	account := fmt.Sprintf("marker%d", d.markers.Add(1))
	d.user(t, account)
	if d.DC.LDAPSReset(ctx, account, "", d.NewSimplePassword()) == nil {
		t.Fatal("the reset was not refused")
	}
	d.letter(t, account)
}

// user makes an account; its first password is returned.
func (d *domain) user(t *testing.T, name string) string {
	t.Helper()
	password := d.NewPassword()
	must(t, d.DC.CreateUser(ctx, name, password))
	return password
}

// refused counts what the hook said about an account.
func (d *domain) refused(t *testing.T, account string) (n int) {
	t.Helper()
	said, err := d.DC.HookSaid(ctx, account)
	must(t, err)
	for _, answer := range said {
		if answer == "refused" {
			n++
		}
	}
	return n
}

// counted is what status tells of the default policy; nothing, if nobody can tell.
func (d *domain) counted(t *testing.T) refusals.Policy {
	t.Helper()
	text, err := d.DC.Exec(ctx, "", "samba-pwsync", "status", "--json") // ends with 3 when something needs attention
	var report struct{ Agent agent.Status }
	if json.Unmarshal([]byte(text), &report) != nil {
		t.Logf("asking for the status: %v", err)
	}
	for _, p := range report.Agent.Refusals.Policies {
		if p.Policy == "default" && !p.Audit {
			return p
		}
	}
	return refusals.Policy{}
}

func TestTold(t *testing.T) {
	l, err := lab.Start(ctx, lab.Options{})
	if err != nil {
		t.Fatalf("starting the lab: %v", err)
	}
	d := &domain{Lab: l}
	t.Cleanup(func() {
		if t.Failed() {
			log, err := l.DC.Exec(context.Background(), "", "tail", "-n", "60", lab.ServeLog)
			t.Logf("the end of serve's log (%v):\n%s", err, log)
		}
		if err := l.Close(); err != nil {
			t.Errorf("removing the lab: %v", err)
		}
	})
	must(t, l.DC.WriteFile(ctx, program, "0755", script))
	must(t, l.DC.Configure(ctx, config))

	t.Run("Own", d.testOwn)
	t.Run("Who", func(t *testing.T) {
		t.Run("Probes", func(t *testing.T) { t.Parallel(); d.testProbes(t) })
		t.Run("Again", func(t *testing.T) { t.Parallel(); d.testAgain(t) })
		t.Run("LeftOut", func(t *testing.T) { t.Parallel(); d.testLeftOut(t) })
	})
	t.Run("Counted", d.testCounted)
	t.Run("Split", d.testSplit)
	t.Run("NoPassword", d.testNoPassword)
}

// Somebody tries three times, in two wrong ways, which a target would not take either: one notice, with each rule once. The agent comes when all
// three have been tried, or they may take longer than it collects.
func (d *domain) testOwn(t *testing.T) {
	password := d.user(t, "own")
	must(t, d.DC.StopServe(ctx))
	for _, bad := range []string{d.Remember(d.NewPassword()[:7]), d.NewSimplePassword(), d.Remember(d.NewPassword()[:7])} {
		if d.DC.KPasswd(ctx, "own", password, bad) == nil {
			t.Fatal("the change was not refused")
		}
	}
	must(t, d.DC.StartServe(ctx))
	got := d.letter(t, "own")
	names := []string{}
	for _, r := range got.Rules {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	if got.Mail != lab.Mail("own") || got.Times != 3 || strings.Join(names, " ") != "complexity length target" || got.MinLength != 8 || got.Audit {
		t.Errorf("told %+v", got)
	}
	must(t, d.DC.KPasswd(ctx, "own", password, d.NewPassword()))
}

// Anybody can have Samba ask about anybody's password: nobody is told.
func (d *domain) testProbes(t *testing.T) {
	d.user(t, "victim")
	mallory := d.user(t, "mallory")
	before := d.counted(t).Probes.Total
	const probes = 30
	for range probes {
		if err := d.DC.ValidatePassword(ctx, "mallory", mallory, "victim", d.forgeable()); err == nil {
			t.Fatal("the password was not refused")
		}
	}
	if n := d.refused(t, "victim"); n != probes {
		t.Fatalf("the hook refused %d of %d, so this test shows nothing", n, probes)
	}
	d.passed(t)
	if l := d.letters(t, "victim"); len(l) > 0 {
		t.Errorf("the victim was told: %+v", l)
	}
	if n := d.counted(t).Probes.Total - before; n != probes {
		t.Errorf("counted %d probes", n)
	}
}

// forgeable draws a password that SamrValidatePassword hands to the hook unharmed (see lab.NewForgeablePassword), which is long enough
// for Samba to run the hook at all, and too simple for the hook.
func (d *domain) forgeable() string {
	var b strings.Builder
	for _, letter := range d.NewSimplePassword()[:7] {
		b.WriteRune(letter)
		b.WriteRune('가' + letter)
	}
	return d.Remember(b.String())
}

// However often it is tried: one notice an hour.
func (d *domain) testAgain(t *testing.T) {
	d.user(t, "stubborn")
	admin, err := d.DC.Administrator()
	must(t, err)
	defer admin.Close()
	for range 100 {
		if admin.Reset("stubborn", d.NewSimplePassword()) == nil {
			t.Fatal("the reset was not refused")
		}
	}
	first := d.letter(t, "stubborn")
	d.passed(t)
	if l := d.letters(t, "stubborn"); len(l) != 1 || first.Times < 1 || first.Times > 100 {
		t.Errorf("told %d times: %+v", len(l), l)
	}
}

// [directory] exclude = "(adminCount=1)" in the lab's configuration; and an account that there is not.
func (d *domain) testLeftOut(t *testing.T) {
	d.user(t, "leftout")
	must(t, d.DC.SetAttribute(ctx, "leftout", "adminCount", "1"))
	if d.DC.LDAPSReset(ctx, "leftout", "", d.NewSimplePassword()) == nil {
		t.Fatal("the reset was not refused")
	}
	if d.DC.CreateUser(ctx, "stillborn", d.NewSimplePassword()) == nil {
		t.Fatal("the account was created")
	}
	d.passed(t)
	for _, account := range []string{"leftout", "stillborn"} {
		if d.refused(t, account) == 0 {
			t.Errorf("the hook refused nothing of %s, so this test shows nothing", account)
		}
		if l := d.letters(t, account); len(l) > 0 {
			t.Errorf("told %+v", l)
		}
	}
}

// status counts what the hook logged, also across a restart.
func (d *domain) testCounted(t *testing.T) {
	log, err := d.DC.HookLog(ctx)
	must(t, err)
	logged := uint64(strings.Count(log, "]: refused "))
	must(t, d.DC.StopServe(ctx))
	if d.DC.LDAPSReset(ctx, "own", "", d.NewSimplePassword()) == nil { // while nobody counts
		t.Fatal("the reset was not refused")
	}
	logged++
	must(t, d.DC.StartServe(ctx))
	var got refusals.Policy
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if got = d.counted(t); got.Passwords.Total == logged {
			break
		}
	}
	if got.Passwords.Total != logged || got.Passwords.LastDay != logged || got.Passwords.Started != 1 || len(got.Rules) < 2 {
		t.Errorf("counted %+v, the hook logged %d", got, logged)
	}
	text, err := d.DC.Exec(ctx, "", "sh", "-c", "samba-pwsync status || [ $? = 3 ]")
	must(t, err)
	if !strings.Contains(strings.Join(strings.Fields(text), " "), fmt.Sprintf("refused policy default: %d in 24 h, ", logged)) {
		t.Errorf("status:\n%s", text)
	}
}

// With a forwarder of its own, which cannot ask the directory, beside an agent that has no network.
func (d *domain) testSplit(t *testing.T) {
	must(t, d.DC.SplitServe(ctx))
	defer func() { must(t, d.DC.JoinServe(ctx)) }()
	password := d.user(t, "split")
	if d.DC.KPasswd(ctx, "split", password, d.NewSimplePassword()) == nil {
		t.Fatal("the change was not refused")
	}
	if got := d.letter(t, "split"); got.Times != 1 || len(got.Rules) == 0 || got.Rules[0].Reason == "" {
		t.Errorf("told %+v", got)
	}
}

// Nothing that was written holds a password that was drawn here.
func (d *domain) testNoPassword(t *testing.T) {
	text, err := d.DC.Exec(ctx, "", "sh", "-c", "cat /tmp/told.* "+lab.StateDir+"/spool/refusals* "+lab.StateDir+"/agent/refusals.json "+lab.ServeLog+" "+lab.SysLog+" 2>/dev/null || true")
	must(t, err)
	if !strings.Contains(text, `"stubborn"`) {
		t.Fatal("nothing was read")
	}
	for i, password := range d.Passwords() {
		if strings.Contains(text, password) {
			t.Errorf("password %d stands there", i)
		}
	}
}
