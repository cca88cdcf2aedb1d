// Package flood has somebody ask a real domain controller about passwords as fast as it answers (SamrValidatePassword, for which Samba runs the hook, and which
// anybody in the domain may call in anybody's name), while passwords are really changed: his victim's and others'.
//
// Real changes have to reach both clouds, in order (but for one that was replaced by the next before it was sent), and nothing else may; the spool and the log stay bounded; `status` names the flood. How long changes
// take beside it is noted and not judged, for the machine is the DC, the clouds and the attacker in one.
package flood

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/floods"
	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
)

const (
	// patience is how long a test waits for something that should take moments: the machine may be small and busy.
	patience = 3 * time.Minute
	// connections is over how many the attacker asks: more than Samba has RPC workers.
	connections = 8
	// slack is how many captures may be there beyond the bound, because as many hooks run at once, or real changes wait.
	slack = 64
)

// Captures wait for as long as they do by default, so that those of the flood do.
const config = `
state_dir = "/var/lib/samba-pwsync"

[policy]
preflight = false
`

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

func TestFlood(t *testing.T) {
	r := trial.Start(t, "flood", 2000)
	d := newDomain(t, r)
	d.measure(t, "alone", 20, "", 0)
	d.measure(t, "victim's name", 0, "victim", r.N/4)
	d.status(t, "victim")
	if rate := d.measure(t, "ever new names", 0, "", r.N/2); rate > 2*floods.PerDC && r.N/2 > 4*floods.PerDC { // as many in each minute as it takes
		d.status(t, "")
	}
	must(t, d.DC.WithoutNames(ctx)) // as Samba before 4.11
	d.measure(t, "no names", 0, "victim", r.N-r.N/4-r.N/2)
}

// domain is a lab with an attacker, his victim, and others.
type domain struct {
	*lab.Lab
	run     *trial.Run
	admin   *lab.Session
	mallory string // his password
	users   []string
	sent    map[string][]set // each user's passwords, oldest first
}

// set is a password that was set, and when the DC said so.
type set struct {
	password string
	answered time.Time
}

func newDomain(t *testing.T, r *trial.Run) *domain {
	l, err := lab.Start(ctx, lab.Options{Config: config, Disk: true})
	if err != nil {
		t.Fatalf("starting the lab: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, err := l.DC.Exec(context.Background(), "", "tail", "-n", "40", lab.ServeLog)
			t.Logf("the end of serve's log (%v):\n%s", err, log)
		}
		if err := l.Close(); err != nil {
			t.Errorf("removing the lab: %v", err)
		}
	})
	d := &domain{Lab: l, run: r, mallory: l.NewPassword(), sent: map[string][]set{}}
	must(t, l.DC.ConfigureSamba(ctx, "log level = 1")) // the lab's own is for other tests, and a hundred lines for each call
	must(t, l.DC.CreateUser(ctx, "mallory", d.mallory))
	// The lab's clouds know users by their user principal name, which one account here has not.
	_, err = l.DC.Exec(ctx, "", "sed", "-i", "s/\"userPrincipalName\"/\"mail\"/", lab.ConfigFile)
	must(t, err)
	must(t, l.DC.StopServe(ctx))
	must(t, l.DC.StartServe(ctx))
	d.login(t)
	for _, name := range []string{"victim", "other1", "other2", "plain"} {
		must(t, l.Sandbox.AddUsers(ctx, lab.Mail(name)))
		password := l.NewPassword()
		must(t, d.admin.Create(name, password))
		d.users, d.sent[name] = append(d.users, name), []set{{password, time.Now()}}
	}
	// One account has neither user principal name nor full name, so that its captures look like those of the flood.
	must(t, l.DC.SetAttribute(ctx, "plain", "userPrincipalName"))
	return d
}

func (d *domain) login(t *testing.T) {
	t.Helper()
	if d.admin != nil {
		d.admin.Close()
	}
	var err error
	d.admin, err = d.DC.Administrator()
	must(t, err)
}

// sample is what was seen of the DC at a moment.
type sample struct {
	files, kilobytes int // of the spool
	memory           int // of serve, in KB
}

// measure makes real changes while the flood lasts, or as many as asked if there is none, and notes how long they took.
func (d *domain) measure(t *testing.T, what string, changes int, victim string, calls int) (perMinute float64) {
	t.Helper()
	d.login(t) // Samba may have been restarted
	before := d.lines(t)
	began := time.Now()
	over := make(chan struct{})
	var flood sync.WaitGroup
	if calls > 0 {
		flood.Go(func() {
			defer close(over)
			d.ask(t, calls, victim)
		})
	}
	var worst sample
	flooding := func() bool {
		select {
		case <-over:
			return false
		default:
			return calls > 0
		}
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for flooding() {
			s := d.sample(t)
			worst = sample{max(worst.files, s.files), max(worst.kilobytes, s.kilobytes), max(worst.memory, s.memory)}
			time.Sleep(time.Second)
		}
	}()
	var own []time.Duration
	for n := 0; n < changes || flooding(); n++ {
		name, password := d.users[n%len(d.users)], d.NewPassword()
		asked := time.Now()
		must(t, d.admin.Reset(name, password))
		now := time.Now()
		own = append(own, now.Sub(asked))
		d.sent[name] = append(d.sent[name], set{password, now})
		time.Sleep(200 * time.Millisecond)
	}
	flood.Wait()
	took := time.Since(began)
	<-watched
	times, overtaken := d.arrived(t, began)
	after := d.lines(t)
	d.run.Note("%s: %d changes (%d overtaken by the next), DC's own p50 %s p99 %s, then to both clouds p50 %s p99 %s", what, len(own), overtaken, at(own, 50), at(own, 99), at(times, 50), at(times, 99))
	if calls == 0 {
		return 0
	}
	d.run.Trial(calls)
	d.run.Note("%.0f calls/s, at most %d captures, %d KB, serve %d MB; %d lines by serve, %d by the hook", float64(calls)/took.Seconds(), worst.files, worst.kilobytes, worst.memory>>10,
		after.serve-before.serve, after.hook-before.hook)
	t.Logf("%s: %d calls in %v", what, calls, took.Round(time.Second))
	if worst.files > capture.MaxDoubtful+slack {
		t.Errorf("%s: %d captures waited", what, worst.files)
	}
	// Each real change has its lines; of the rest there is a number a minute.
	minutes := int(took.Minutes()) + 2
	if most := 10*len(own) + 120*minutes; after.serve-before.serve > most {
		t.Errorf("%s: serve wrote %d lines in %v, more than %d", what, after.serve-before.serve, took.Round(time.Second), most)
	}
	if most := 10*len(own) + 620*minutes; after.hook-before.hook > most {
		t.Errorf("%s: the hook wrote %d lines in %v, more than %d", what, after.hook-before.hook, took.Round(time.Second), most)
	}
	return float64(calls) / took.Minutes()
}

// ask has mallory ask the DC about passwords.
func (d *domain) ask(t *testing.T, calls int, victim string) {
	command := []string{"validate-passwords", "mallory", strconv.Itoa(calls), strconv.Itoa(connections)}
	if victim != "" {
		command = append(command, victim)
	}
	out, err := d.DC.Exec(ctx, d.mallory+"\n", command...)
	var answer struct{ Said map[string]int }
	if err == nil {
		err = json.Unmarshal([]byte(out), &answer)
	}
	if err != nil || answer.Said["0"] != calls {
		t.Errorf("asking about %d passwords: %v, %s", calls, err, out)
	}
}

// arrived waits until both clouds hold everybody's last password, and returns how long after the DC's answer the later of the two had each of those that were set
// since began, and how many of these did not arrive at both, because the next one was there before they were sent.
func (d *domain) arrived(t *testing.T, began time.Time) (times []time.Duration, overtaken int) {
	t.Helper()
	for _, name := range d.users {
		for _, cloud := range lab.Clouds {
			last := d.sent[name][len(d.sent[name])-1]
			held, err := d.Sandbox.Verify(ctx, cloud, lab.Mail(name), last.password, patience)
			must(t, err)
			if !held {
				d.run.Lost("%s does not hold the last password of %s", cloud, name)
			}
		}
	}
	held, err := d.Sandbox.State(ctx)
	must(t, err)
	for _, name := range d.users {
		late, arrivals := map[int]time.Duration{}, map[int]int{}
		for _, cloud := range lab.Clouds {
			for i, at := range d.match(held, cloud, name) {
				late[i] = max(late[i], at.Sub(d.sent[name][i].answered))
				arrivals[i]++
			}
		}
		for i, s := range d.sent[name] {
			switch {
			case s.answered.Before(began):
			case arrivals[i] == len(lab.Clouds):
				times = append(times, late[i])
			default:
				overtaken++
			}
		}
	}
	return times, overtaken
}

// match returns when a cloud took which of an account's passwords. What it was sent besides, or in another order, is a finding.
func (d *domain) match(held sandbox.State, cloud sandbox.Cloud, name string) map[int]time.Time {
	taken, next := map[int]time.Time{}, 0
	known, _ := held.User(cloud, lab.Mail(name))
	for _, p := range known.Passwords {
		i := next
		for i < len(d.sent[name]) && !is(p, d.sent[name][i].password) {
			i++
		}
		switch {
		case i < len(d.sent[name]):
			taken[i], next = p.Applied, i+1
		case slices.ContainsFunc(d.sent[name][:next], func(s set) bool { return is(p, s.password) }):
			d.run.OutOfOrder("%s was sent an old password of %s", cloud, name)
		default:
			d.run.Wrong("%s was sent a password of %s that nobody set", cloud, name)
		}
	}
	return taken
}

func is(p sandbox.Password, password string) bool {
	same, err := lab.Is(p, password)
	return same && err == nil
}

// status demands that status names the flood: by its account, or, if that is empty, as one of many names.
func (d *domain) status(t *testing.T, account string) {
	t.Helper()
	text, err := d.DC.Exec(ctx, "", "sh", "-c", "samba-pwsync status --json; echo $?")
	must(t, err)
	text, code, _ := cutLast(strings.TrimSpace(text), "\n")
	var status struct {
		Agent struct {
			Floods []struct {
				Account string
				Count   int
			} `json:"floods"`
		} `json:"agent"`
	}
	must(t, json.Unmarshal([]byte(text), &status))
	for _, f := range status.Agent.Floods {
		if f.Account == account && code == "3" {
			return
		}
	}
	t.Errorf("status (exit code %s) does not name a flood in the name %q: %+v", code, account, status.Agent.Floods)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func (d *domain) sample(t *testing.T) (s sample) {
	out, err := d.DC.Exec(ctx, "", "sh", "-c", `ls /var/lib/samba-pwsync/spool/incoming | grep -c capture$; du -sk /var/lib/samba-pwsync/spool/incoming | cut -f1
		cat /proc/$(cat /etc/service/samba-pwsync/supervise/pid)/status | sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p'`)
	if err == nil {
		_, err = fmt.Sscan(out, &s.files, &s.kilobytes, &s.memory)
	}
	if err != nil {
		t.Errorf("looking at the DC: %v: %s", err, out)
	}
	return s
}

// lines counts what was logged.
type lines struct{ serve, hook int }

func (d *domain) lines(t *testing.T) (n lines) {
	t.Helper()
	out, err := d.DC.Exec(ctx, "", "sh", "-c", `cat `+lab.ServeLog+` | grep -vc level=DEBUG; grep -c 'samba-pwsync-hook\[' `+lab.SysLog)
	must(t, err)
	_, err = fmt.Sscan(out, &n.serve, &n.hook)
	must(t, err)
	return n
}

func at(times []time.Duration, percent int) string {
	if len(times) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(times))
	return fmt.Sprintf("%.0f ms", float64(sorted[(len(sorted)-1)*percent/100])/float64(time.Millisecond))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
