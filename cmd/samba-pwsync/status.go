package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/agent/census"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/floods"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/refusals"
	"github.com/samba-pwsync/samba-pwsync/internal/ballast"
	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/gate"
	"github.com/samba-pwsync/samba-pwsync/internal/keyring"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "tell how the agent, the forwarder and the targets are",
		Description: "Asks the running serve. Exit code 0: fine, 1: could not be told, 2: the configuration is wrong, 3: something needs " +
			"attention (not running, directory down or without what passwords are proven by, a target denied or down, items parked, passwords expired " +
			"undelivered, somebody flooding the domain controller with passwords, passwords missing at a target unless they were changed before samba-pwsync was installed (see drift), a peer " +
			"silent, policies of accounts out of date, a rule of the policy that cannot be asked, the watch stale, the disk full or read-only, files set aside, " +
			"a database begun anew). /usr/share/doc/samba-pwsync/operating.md explains each line.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print JSON, for scripts"},
		},
		Before: noArguments,
		Action: runStatus,
	}
}

// report is what `status --json` prints; scripts rely on its names.
type report struct {
	Version   string           `json:"version"`
	Agent     *agentStatus     `json:"agent"`     // null: not running
	Forwarder *forwarderStatus `json:"forwarder"` // null: not running
	Captures  int              `json:"captures"`  // files in spool/incoming
	Damaged   int              `json:"damaged"`   // files that were set aside
	Corrupt   []string         `json:"corrupt"`   // databases that were damaged and begun anew: what was kept of them
	Attention []string         `json:"attention"` // empty: all is well

	units  units
	unmade []string          // folders that init makes, and that are not there
	ailing []error           // what the hook cannot ask of the policy
	disk   ballast.Condition // as it looks from here
	dir    string
}

func runStatus(c *cli.Context) error {
	cfg, err := config.Load(configPath(c))
	if err != nil {
		return err
	}
	r, err := newReport(c.Context, cfg)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, r)
	} else {
		err = r.print(c.App.Writer)
	}
	if err == nil && len(r.Attention) > 0 {
		return &codedError{code: exitAttention}
	}
	return err
}

func newReport(ctx context.Context, cfg *config.Config) (*report, error) {
	r, paths := &report{Version: version, Attention: []string{}, ailing: gate.Ailing(cfg.ForHook())}, cfg.Paths()
	owner, err := ownerOf(paths.Forwarder)
	if err != nil {
		return nil, err
	}
	r.units = unitsFor(*owner)
	for _, f := range folders(cfg.StateDir, paths, *owner) {
		if _, err := os.Lstat(f.path); errors.Is(err, fs.ErrNotExist) {
			r.unmade = append(r.unmade, f.path)
		}
	}

	var a agentStatus
	switch err := control.Get(ctx, paths.AgentSocket, "/status", &a); {
	case err == nil:
		r.Agent = &a
	case !errors.Is(err, control.ErrNotRunning):
		return nil, err
	}
	var f forwarderStatus
	switch err := control.Get(ctx, paths.ForwarderSocket, "/status", &f); {
	case err == nil:
		r.Forwarder = &f
	case !errors.Is(err, control.ErrNotRunning):
		return nil, err
	}

	for _, folder := range []struct{ dir, suffix string }{
		{paths.Incoming, capture.Suffix}, {paths.Outgoing, change.Suffix}, {paths.Outgoing, change.SightingsSuffix}, {paths.Outgoing, change.NoticeSuffix},
	} {
		s, err := spool.Open(folder.dir, folder.suffix)
		if err != nil {
			return nil, err
		}
		damaged, err := s.Damaged()
		if err != nil {
			return nil, err
		}
		r.Damaged += len(damaged)
		if folder.suffix == capture.Suffix {
			waiting, err := s.List()
			if err != nil {
				return nil, err
			}
			r.Captures = len(waiting)
		}
	}
	if r.Corrupt, err = filepath.Glob(filepath.Join(paths.Forwarder, "*.corrupt-*")); err != nil {
		return nil, err
	}
	if r.disk, err = ballast.See(cfg.StateDir); err != nil {
		return nil, err
	}
	if r.Corrupt == nil {
		r.Corrupt = []string{} // and not null, for scripts
	}
	r.dir = cfg.StateDir
	r.judge()
	return r, nil
}

// noTarget is what there is to say where no target is configured.
const noTarget = "no target is configured: the password policy works alone, and no password is kept or sent"

// unheardFor is for how long a peer may be silent: three of the rounds in which Samba asks each of its neighbours.
const unheardFor = 15 * time.Minute

// outdatedFor is for how long the policies of accounts may be as they were: longer than a large domain takes to tell them.
const outdatedFor = 15 * time.Minute

// overdueFor is for how long a retired key may stay beyond its time.
const overdueFor = time.Hour

// keys returns what the running roles tell of their keys.
func (r *report) keys() (all [][]keyring.Key) {
	if r.Agent != nil {
		all = append(all, r.Agent.Keys)
	}
	if r.Forwarder != nil {
		all = append(all, r.Forwarder.Keys)
	}
	return all
}

// parked counts what is parked, of which the list has the first thousand. Of a target that is not configured any more only the list knows.
func (f *forwarderStatus) parked() (n int) {
	for _, t := range f.Targets {
		n += t.Parked
	}
	return max(n, len(f.Parked))
}

// judge lists what needs a person.
func (r *report) judge() {
	attention := func(format string, args ...any) { r.Attention = append(r.Attention, fmt.Sprintf(format, args...)) }
	if r.Agent == nil {
		attention("the agent is not running: nothing is proven, and what waited at the forwarder is held back; systemctl start %s", r.units.agent)
	} else {
		if !r.Agent.Directory.Up {
			attention("the directory does not answer: %s", r.Agent.Directory.Error)
		}
		if p := r.Agent.Policies; r.Agent.Directory.Up && p.Error != "" && time.Since(p.AsOf) > outdatedFor {
			attention("who has which policy, and which targets want whom, is known to the hook as it last was (%s): %s", clock(p.Made), p.Error)
		}
		if until := r.Agent.Watch.PutOff; !until.IsZero() {
			attention("the forwarder has lost again and again what the agent told it (does the disk damage spool/outgoing, or something set the clock?): it is told at %s, and what waited is held back until then", clock(until))
		}
		for _, f := range r.Agent.Floods {
			attention("a flood of passwords, %s, that are nobody's (%d): somebody calls SamrValidatePassword, or a program runs wild; none of it is sent, "+
				"but the domain controller pays for it; operating.md tells how to find whom", whoseFlood(f), f.Count)
		}
		switch r.Agent.Directory.NTHash {
		case proof.NoHash:
			attention("the directory stores no NT hash (nt hash store in smb.conf), so nothing can be proven: set [directory] proof = \"aes256\"")
		case proof.Nothing:
			attention("the directory stores neither NT hash nor AES256 key, so nothing can be proven: set nt hash store = always in smb.conf")
		}
	}
	if r.Forwarder == nil {
		attention("the forwarder is not running: nothing is delivered; systemctl start %s", r.units.forwarder)
	} else {
		waiting := 0
		for _, t := range r.Forwarder.Targets {
			waiting += t.Waiting
			switch t.State {
			case deliver.Denied:
				attention("target %s denies access: %s", t.Name, t.Error)
			case deliver.Down:
				attention("target %s is down: %s", t.Name, t.Error)
			}
		}
		if n := r.Forwarder.parked(); n > 0 {
			attention("%d parked: a target refuses the user or the password; the account's next change tries again", n)
		}
		for _, t := range r.Forwarder.Targets {
			if t.Expired > 0 {
				attention("%d passwords expired undelivered at %s: their users have to change them again", t.Expired, t.Name)
			}
		}
		for _, p := range r.Forwarder.Watch.Peers {
			switch {
			case p.Heard.IsZero():
				attention("peer %s was never heard: what is delivered here stays sealed in the queue until it is; is it a domain controller that replicates with this one?", p.Name)
			case time.Since(p.Heard) > unheardFor:
				attention("peer %s has not been heard since %s: what is delivered here stays sealed in the queue until it is", p.Name, clock(p.Heard))
			}
		}
		for _, known := range reasons {
			if n := r.Forwarder.Drift[known.reason]; n > 0 && known.alarm {
				attention("%d passwords are missing at a target (%s: %s): samba-pwsync drift lists them", n, known.reason, known.why)
			}
		}
		if !r.Forwarder.Watch.Fresh && waiting > 0 {
			attention("the watch is stale: %d changes that waited are held back until an agent says that they are still current", waiting)
		}
	}
	for _, keys := range r.keys() {
		for _, k := range keys[min(1, len(keys)):] {
			if k.Kept != "" && time.Since(k.Due) > overdueFor {
				attention("the retired key %s should have been destroyed %s: %s", k.ID, clock(k.Due), k.Kept)
			}
		}
	}
	if len(r.unmade) > 0 {
		attention("%s is missing, as after an upgrade without init: run samba-pwsync init, and restart %s", strings.Join(r.unmade, ", "), r.units)
	}
	for _, err := range r.ailing {
		attention("%v", err)
	}
	r.judgeDisk(attention)
	if r.Damaged > 0 {
		attention("%d files made no sense and were set aside into spool/incoming/damaged or spool/outgoing/damaged", r.Damaged)
	}
}

// judgeDisk says of each role's disk what is wrong, once if it is the same; where none runs that would know, what can be seen from here.
func (r *report) judgeDisk(attention func(format string, args ...any)) {
	var said []ballast.Condition
	for _, d := range r.disks() {
		if d.Condition == "" || slices.Contains(said, d.Condition) {
			continue
		}
		if d.Condition == ballast.Well {
			continue
		}
		said = append(said, d.Condition)
		switch d.Condition {
		case ballast.Low:
			attention("the disk of %s is nearly full (%s free): make room; %s", r.dir, megabytes(d.Free), reserve(d))
		case ballast.Full:
			attention("the disk of %s is full since %s (%s): make room; %s", r.dir, clock(d.Since), d.Error, reserve(d))
		case ballast.ReadOnly:
			attention("the disk of %s is read-only since %s: no password can be stored; see dmesg, check the file system, mount it anew", r.dir, clock(d.Since))
		default:
			attention("the disk of %s does not work since %s: %s", r.dir, clock(d.Since), d.Error)
		}
	}
	if len(said) == 0 && r.disk == ballast.ReadOnly {
		attention("the disk of %s is read-only: no password can be stored; see dmesg, check the file system, mount it anew", r.dir)
	}
	if len(said) == 0 && r.disk == ballast.Full {
		attention("the disk of %s is full: make room", r.dir)
	}
	for _, path := range r.Corrupt {
		attention("a database was damaged and begun anew; what it was is kept as %s: check the disk, then remove that", path)
	}
}

// disks returns what the running roles tell of theirs.
func (r *report) disks() (all []ballast.Status) {
	if r.Agent != nil {
		all = append(all, r.Agent.Disk)
	}
	if r.Forwarder != nil {
		all = append(all, r.Forwarder.Disk)
	}
	return all
}

// reserve tells what is left of a role's ballast.
func reserve(d ballast.Status) string {
	if d.Wanted > 0 && d.Ballast == 0 {
		return "the reserve is in use"
	}
	return "there is no reserve"
}

func megabytes(bytes int64) string {
	if bytes < 0 {
		return "unknown"
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/(1<<20))
}

// diskRow tells how the disk of the running roles is: "well, 1042.3 MB free, 16 MB in reserve for each role".
func diskRow(all []ballast.Status) string {
	d := all[0]
	for _, other := range all[1:] {
		if d.Condition == ballast.Well {
			d.Condition = other.Condition
		}
		d.Ballast = min(d.Ballast, other.Ballast)
	}
	return fmt.Sprintf("%s, %s free, %d MB in reserve for each role", d.Condition, megabytes(d.Free), d.Ballast>>20)
}

func (r *report) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	if a := r.Agent; a == nil {
		row("agent", "not running; %d captures wait", r.Captures)
	} else {
		up := "down since " + clock(a.Directory.Since) + ": " + a.Directory.Error
		if a.Directory.Up {
			up = a.Directory.DC + " answers since " + clock(a.Directory.Since)
		}
		row("agent", "running")
		row("directory", "%s", up)
		if len(a.Keys) > 0 {
			row("agent's key", "%s", keysRow(a.Keys))
		}
		row("captures", "%d waiting, %d proven, %d never committed, %d unwanted", a.Captures.Pending, a.Captures.Proven, a.Captures.Never, a.Captures.Unwanted)
		for _, f := range a.Floods {
			row("flood", "%s: asked about %d passwords since %s, last %s", whoseFlood(f), f.Count, clock(f.Since), clock(f.Last))
		}
		if n := a.Captures.Crowded; n > 0 {
			row("", "%d captures went before their time, because too many of their kind waited", n)
		}
		if n := a.Followup.Undecided; n > 0 {
			row("followup", "%d accounts still to be looked at for samba-pwsync drift", n)
		}
		if a.Policies.Kept {
			row("policies", "%s", policiesRow(a.Policies))
		}
		for _, p := range a.Refusals.Policies {
			name, text := refusedRow(p, a.Refusals.Since)
			row(name, "%s", text)
		}
		if n := a.Refusals.Full; n > 0 {
			row("refused", "more than was counted: the hook's list was full %d times, while no agent ran or by a flood of probes; the hook's log has them all", n)
		}
	}
	if f := r.Forwarder; f == nil {
		row("forwarder", "not running")
	} else {
		row("forwarder", "running")
		if len(f.Keys) > 0 {
			row("forwarder's key", "%s", keysRow(f.Keys))
		}
		fresh := "stale"
		if f.Watch.Fresh {
			fresh = "fresh"
		}
		row("watch", "%s, directory seen as of %s", fresh, clock(f.Watch.AsOf))
		if len(f.Targets) == 0 {
			row("targets", "%s", noTarget)
		}
		for _, t := range f.Targets {
			text := fmt.Sprintf("%s; %d waiting, %d parked, %d accounts delivered", t.State, t.Waiting, t.Parked, t.Delivered)
			if t.Confirmed > 0 {
				text += fmt.Sprintf(", %d of them confirmed", t.Confirmed)
			}
			if t.Shelved > 0 {
				text += fmt.Sprintf(", %d shelved", t.Shelved)
			}
			if t.Settling > 0 {
				text += fmt.Sprintf(", %d settling", t.Settling)
			}
			if t.Expired > 0 {
				text += fmt.Sprintf(", %d expired", t.Expired)
			}
			if !t.LastDelivered.IsZero() {
				text += ", last " + clock(t.LastDelivered)
			}
			if t.Median > 0 {
				text += fmt.Sprintf(", median %v after the change", t.Median.Round(time.Millisecond))
			}
			row(t.Name, "%s", text)
			if t.Error != "" {
				row("", "since %s: %s", clock(t.Since), t.Error)
			}
		}
		for _, p := range f.Watch.Peers {
			row("peer", "%s, last heard %s", p.Name, clock(p.Heard))
		}
		if n := f.Notices; n != nil {
			row("notices", "%d sent, %d waiting, %d given up", n.Sent, n.Waiting, n.Lost)
		}
		for _, p := range f.Parked {
			row("parked", "%s at %s (%s) since %s: %s", p.Account, p.Target, p.User, clock(p.Since), p.Reason)
		}
		if n := f.parked() - len(f.Parked); n > 0 {
			row("", "and %d more: samba-pwsync queue list", n)
		}
		for _, known := range reasons {
			if n := f.Drift[known.reason]; n > 0 {
				row("drift", "%d %s: %s", n, known.reason, known.why)
			}
		}
	}
	if disks := r.disks(); len(disks) > 0 && disks[0].Condition != "" {
		row("disk", "%s", diskRow(disks))
	}
	for _, text := range r.Attention {
		row("ATTENTION", "%s", text)
	}
	return w.Flush()
}

// whoseFlood says in whose name somebody has Samba ask about passwords.
func whoseFlood(f floods.Flood) string {
	if f.Account == "" {
		return "in many names, or in none"
	}
	return "in the name of " + f.Account
}

// policiesRow tells how many accounts have which policy: "203 accounts, as of …: default 170, staff 33".
func policiesRow(s census.Status) string {
	if s.AsOf.IsZero() {
		return "the directory has not been asked yet who has which"
	}
	text := fmt.Sprintf("%d accounts, as of %s", s.Accounts, clock(s.AsOf))
	for i, name := range slices.Sorted(maps.Keys(s.Policies)) {
		separator := ", "
		if i == 0 {
			separator = ": "
		}
		text += fmt.Sprintf("%s%s %d", separator, name, s.Policies[name])
	}
	if s.Pending {
		text += "; groups or units have changed since, and are still to be looked at"
	}
	return text
}

// refusedRow tells what a policy refused, or audited: "policy staff: 3 in 24 h, 5 since …".
func refusedRow(p refusals.Policy, since time.Time) (name, text string) {
	name = "refused"
	if p.Audit {
		name = "audited"
	}
	text = fmt.Sprintf("policy %s: %d in 24 h, %d since %s", p.Policy, p.Passwords.LastDay, p.Passwords.Total, clock(since))
	for i, rule := range p.Rules {
		separator := ", "
		if i == 0 {
			separator = "; "
		}
		text += fmt.Sprintf("%s%s %d of %d", separator, rule.Rule, rule.LastDay, rule.Total)
	}
	if n := p.Probes; n.Total > 0 {
		text += fmt.Sprintf("; perhaps probes %d of %d", n.LastDay, n.Total)
	}
	return name, text
}

// printJSON escapes what printable takes away, so that scripts get it and a terminal does not. (encoding/json escapes only the
// control characters below U+0020.)
func printJSON(out io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	var b bytes.Buffer
	escapeJSON(&b, string(text))
	_, err = fmt.Fprintln(out, b.String())
	return err
}

func escapeJSON(b *bytes.Buffer, text string) {
	for _, c := range text {
		if c == '\n' || unicode.IsPrint(c) {
			b.WriteRune(c)
			continue
		}
		for _, unit := range utf16.Encode([]rune{c}) {
			fmt.Fprintf(b, `\u%04x`, unit)
		}
	}
}

// clock prints a time for a person: the date only where it is not today's.
func clock(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	t = t.Local()
	if y, m, d := time.Now().Date(); t.Year() == y && t.Month() == m && t.Day() == d {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}
