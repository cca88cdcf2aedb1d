package kills

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

// rest lets everything work, waits until the clouds hold what the directory holds, and judges what they were sent.
//
// What waits for its next attempt is hurried, as an administrator would who has mended something: else a round would last as long as the
// pauses have grown.
func (d *domain) rest() {
	if d.Failed() {
		return
	}
	d.counts.rests.Add(1)
	for _, a := range d.accounts {
		if a.gone {
			d.create(a)
		}
	}
	held := d.held("(sAMAccountName=mortal*)")
	for _, a := range d.accounts {
		if !held[a.now].Is(a.current()) {
			d.Fatalf("lab %d: the directory holds another password for %s than this test believes", d.number, a.now)
		}
	}
	var missing []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(2 * time.Second) {
		if missing = d.judge(); len(missing) == 0 {
			return
		}
		_, _ = d.DC.Exec(ctx, "", "samba-pwsync", "queue", "retry", "--all") // it may be starting
	}
	for _, what := range missing {
		d.run.Lost("lab %d: %s", d.number, what)
	}
}

// judge looks at what the clouds were sent since it last did, and says which of the directory's passwords are missing there.
func (d *domain) judge() (missing []string) {
	state, err := d.Sandbox.State(ctx)
	must(d, err)
	for _, a := range d.accounts {
		if a.met == nil {
			a.met = map[sandbox.Cloud]met{}
		}
		for _, cloud := range lab.Clouds {
			u, _ := state.User(cloud, lab.Mail(a.name))
			m := a.met[cloud]
			last := -1
			if m.sent > 0 {
				last = m.newest // unless something went wrong, it is the one that the cloud holds
			}
			for n, sent := range u.Passwords[m.sent:] {
				which := d.which(a, sent, m.newest)
				switch {
				case which < 0:
					d.run.Wrong("lab %d: %s was sent a password for %s, its %d., that the directory never took", d.number, cloud, a.name, m.sent+n+1)
				case which < m.newest:
					d.run.OutOfOrder("lab %d: %s was sent change %d of %s after change %d", d.number, cloud, which, a.name, m.newest)
				}
				m.newest, last = max(m.newest, which), which
			}
			m.sent = len(u.Passwords)
			a.met[cloud] = m
			if last != len(a.passwords)-1 {
				missing = append(missing, fmt.Sprintf("%s holds change %d of %s (%s), and the directory change %d", cloud, last, a.name, a.now, len(a.passwords)-1))
			}
		}
	}
	return missing
}

// which says which of the account's passwords a cloud was sent; -1 if none. The likeliest are tried first, since it takes milliseconds.
func (d *domain) which(a *account, sent sandbox.Password, from int) int {
	for i := range a.passwords {
		i = (from + i) % len(a.passwords)
		same, err := lab.Is(sent, a.passwords[i])
		must(d, err)
		if same {
			return i
		}
	}
	return -1
}

// nothingLeft demands that nothing is left in the spool: what was forged and refused has been shredded, and nothing was set aside but files whose
// writer was killed: a hook, which writes a capture in several pieces, or an agent between making a file and its one write, which leaves it empty.
func (d *domain) nothingLeft() {
	if !d.nothingWaits() {
		return
	}
	left, err := d.DC.Exec(ctx, "", "sh", "-c", "cd "+lab.StateDir+"/spool && find incoming outgoing -type f ! -path '*/damaged/*' ! -name 'mark*' ! -name '*.sightings'; find outgoing/damaged -type f -size +0 2>/dev/null; true")
	must(d, err)
	if left != "" {
		d.Errorf("lab %d: left in the spool:\n%s", d.number, left)
	}
	if missing := d.judge(); len(missing) > 0 {
		d.run.Lost("lab %d: at the end: %q", d.number, missing)
	}
}

// nothingWaits waits until no capture waits for its proof, or has been proven and is still kept, and no password for its target.
func (d *domain) nothingWaits() bool {
	var status struct {
		Captures  int
		Forwarder *struct {
			Targets []struct{ Waiting int }
		}
	}
	done := func() bool {
		out, _ := d.DC.Exec(ctx, "", "samba-pwsync", "status", "--json") // ends with 3 when something needs attention
		return json.Unmarshal([]byte(out), &status) == nil && status.Forwarder != nil && status.Captures == 0 &&
			!slices.ContainsFunc(status.Forwarder.Targets, func(t struct{ Waiting int }) bool { return t.Waiting > 0 })
	}
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Second) {
		if ctx.Err() != nil || time.Now().After(deadline) {
			d.Errorf("lab %d: something still waits: %+v", d.number, status)
			return false
		}
	}
	return true
}

// explain shows what is known of a failure.
func (d *domain) explain() {
	for _, command := range [][]string{
		{"samba-pwsync", "status"}, {"samba-pwsync", "queue", "list"}, {"samba-pwsync", "drift", "--all"}, {"ls", "-la", lab.StateDir + "/spool/incoming", lab.StateDir + "/spool/outgoing"},
		{"tail", "-n", "60", lab.ServeLog},
	} {
		out, err := d.DC.Exec(ctx, "", command...)
		d.Logf("lab %d: %s (%v):\n%s", d.number, strings.Join(command, " "), err, out)
	}
	for _, a := range d.accounts {
		var waits bool
		for _, m := range a.met {
			waits = waits || m.newest != len(a.passwords)-1
		}
		if waits {
			log, _ := d.DC.Exec(ctx, "", "sh", "-c", `grep -h -e "account=$1" -e "account=$2" "$3" | tail -n 40; grep -h -e "account=\"*$1" "$4" | tail -n 20`, "sh", a.name, a.now, lab.ServeLog, lab.SysLog)
			d.Logf("lab %d: about %s:\n%s", d.number, a.name, log)
		}
	}
}
