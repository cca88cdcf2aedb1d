package deliver

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/internal/trial"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// The model check: a directory whose accounts' passwords are changed on this DC and on others; an agent that passes on what it proves and sees,
// late and twice; targets in all moods; and the forwarder with its queue and ledger, the real ones, called step by step, and crashing at any event that
// it logs, around any request, and between what a delivery writes. The clock is simulated.
//
// What the targets are asked is held against what the directory held, which the model knows without the forwarder:
//
//   - Per account and target, stamps never go back, whatever crashed in between. Only a restored directory makes a new beginning.
//   - Nothing is sent that the forwarder has been told is not current.
//   - What waited is sent only if a mark of the last minute, younger than the last attempt, covers it, and the directory held nothing newer then.
//   - In the end, when everything works, each target holds the password of each account whose change was handed over, unless it refused it.

const modelAccounts = 3

var errBusy = errors.New("busy") // temporary, as what has no other class

var modelTargets = []string{"a", "b"}

// holding is what the directory holds for an account.
type holding struct {
	stamp  dsdb.Stamp
	serial int // of the password; 0: nobody here knows it
	gone   bool
}

// issue is a password that was captured; it holds its serial number, which counts from 1.
type issue struct {
	account int
	stamp   dsdb.Stamp
	era     int // how often the directory had been restored
	change  change.Change
	life    int  // the forwarder that met its file; 0: none yet
	again   bool // there is another file, that none has met
	asked   map[string]time.Time
}

// request is one that a target applied, and how often the directory had been restored by then, and when the password was set.
type request struct {
	stamp   dsdb.Stamp
	era, of int
}

// note is a file of sightings.
type note struct {
	at       time.Time
	file     string
	accounts map[int]holding
	reset    bool
	kept     bool // by a look that asked for all stamps first; an earlier one, that crashed, may have applied it
}

// covered is what a mark covers.
type covered struct {
	asOf     time.Time
	accounts [modelAccounts]holding
}

// mutation is a bug that is planted to see that it is found.
type mutation string

const (
	sound mutation = ""
	eager mutation = "what waited is sent without asking the watch"
	blind mutation = "sightings are not read"
)

// crashed is what a crash panics with.
type crashed struct{}

type modelWorld struct {
	testing.TB
	rt       *rapid.T
	mutation mutation
	dir      string
	bomb     int // events until the next crash; 0: none
	found    func(kind string)

	f      *Forwarder
	queue  *queue.Queue
	ledger *ledger.Ledger
	life   int // counts forwarders

	// The directory.
	accounts, snapshot [modelAccounts]holding
	invocation         dsdb.GUID
	removed            [modelAccounts]time.Time // what was proven before is void, and may be lost
	era                int
	usn                uint64

	// The agent.
	issues   []issue // by serial number - 1
	late     []int   // serial numbers: proven, and not written yet
	dirty    map[int]bool
	files    int
	marked   covered
	required map[int]int // by account: the serial number that is to arrive

	// What the forwarder has been told, for certain.
	unread []note
	told   [modelAccounts]holding
	toldAt [modelAccounts]time.Time // when the agent saw that
	void   [modelAccounts]time.Time
	known  covered

	// The targets.
	mood          map[string]error
	before, after bool               // the next request crashes, before or after it is applied
	last          map[string]request // by target and account
	holds         map[string]int     // serial number, by target and account
	refused       map[string]int     // serial number, by target and account
}

var modelKey = func() seal.PrivateKey {
	key, err := seal.Generate()
	if err != nil {
		panic(err)
	}
	return key
}()

func TestModel(t *testing.T) {
	const steps = 50 // of a check, on average
	run := trial.Start(t, "model", 5000)
	kind := ""
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() {
			switch kind { // the test has failed, and says how
			case "lost":
				run.Lost("see the sequence of steps")
			case "wrong":
				run.Wrong("see the sequence of steps")
			case "order":
				run.OutOfOrder("see the sequence of steps")
			}
		})
		// Round after round, because rapid ends one after a day, and that is one of the simulated clock.
		made := 0
		for round := uint64(0); made < run.N; round++ {
			flags(t, steps, run.Seed+round, "1000h")
			rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
				modelCheck(t, rt, sound, func(what string) { kind = what }, func() {
					if made++; made <= run.N {
						run.Trial(1)
					}
				})
			})
		}
		for _, m := range []mutation{eager, blind} {
			n, failed, enough := 0, false, false
			for round := uint64(0); !failed && n < 20_000; round++ {
				flags(t, steps, run.Seed+round, "0s")
				failed = expectFailure(t, func(tb rapid.TB) {
					rapid.Check(tb, func(rt *rapid.T) {
						modelCheck(t, rt, m, func(string) { enough = true }, func() {
							if !enough {
								n++
							}
						})
					})
				})
			}
			if !failed {
				t.Errorf("planted, and not found in %d steps: %s", n, m)
				continue
			}
			run.Note("planted \"%s\" found after %d steps", m, n)
		}
	})
}

// flags sets rapid's. Shrinking is timed by the simulated clock, too, on which each check takes hours.
func flags(t *testing.T, steps int, seed uint64, shrink string) {
	for name, value := range map[string]any{"checks": 100, "steps": steps, "seed": max(seed, 1), "nofailfile": true, "shrinktime": shrink} {
		if err := flag.Set("rapid."+name, fmt.Sprint(value)); err != nil {
			t.Fatal(err)
		}
	}
}

// mute is a test that may fail.
type mute struct {
	testing.TB
	failed bool
}

func (q *mute) Logf(string, ...any)   {}
func (q *mute) Log(...any)            {}
func (q *mute) Errorf(string, ...any) { q.failed = true }
func (q *mute) Error(...any)          { q.failed = true }
func (q *mute) Fail()                 { q.failed = true }
func (q *mute) Failed() bool          { return q.failed }
func (q *mute) Fatalf(string, ...any) { q.FailNow() }
func (q *mute) Fatal(...any)          { q.FailNow() }
func (q *mute) FailNow()              { q.failed = true; runtime.Goexit() }

func expectFailure(t *testing.T, check func(rapid.TB)) bool {
	q, done := &mute{TB: t}, make(chan struct{})
	go func() {
		defer close(done)
		check(q)
	}()
	<-done
	return q.failed
}

// modelCheck is one life of a directory. count is called for each step.
func modelCheck(t testing.TB, rt *rapid.T, mutation mutation, found func(string), count func()) {
	m := &modelWorld{
		TB: t, rt: rt, mutation: mutation, dir: memory(t), found: found, invocation: dsdb.GUID{1}, usn: 100,
		dirty: map[int]bool{}, required: map[int]int{}, mood: map[string]error{}, last: map[string]request{}, holds: map[string]int{},
		refused: map[string]int{},
	}
	defer os.RemoveAll(m.dir)
	if err := os.Mkdir(m.outgoing(), 0o700); err != nil {
		t.Fatal(err)
	}
	for n := range m.accounts {
		m.accounts[n].stamp = m.stampAfter(n, m.invocation)
		m.dirty[n] = true
	}
	m.open()
	defer m.close()
	m.snapshot = m.accounts
	actions := map[string]func(*rapid.T){}
	for name, action := range map[string]func(){
		"change": m.change, "change at once": m.changeAtOnce, "write late": m.writeLate, "write again": m.writeAgain, "replicate": m.replicate,
		"remove": m.remove, "bring back": m.bringBack, "snapshot": func() { m.snapshot = m.accounts }, "restore": m.restore,
		"watch": m.watch, "watch and scan": func() { m.watch(); m.scan() }, "scan": m.scan, "attempt": m.attempt, "attempts": m.attempts,
		"sweep": m.sweep, "mood": m.changeMood, "pass": m.pass, "crash": func() { panic(crashed{}) }, "bomb": func() { m.bomb = rapid.IntRange(1, 6).Draw(m.rt, "events") },
	} {
		actions[name] = func(rt *rapid.T) {
			m.rt = rt
			m.survive(action)
			count()
		}
	}
	rt.Repeat(actions)
	m.rt = rt
	m.survive(m.finish)
}

func (m *modelWorld) outgoing() string { return filepath.Join(m.dir, "outgoing") }

// survive runs a step; if the forwarder crashes in it, there is a new one.
func (m *modelWorld) survive(step func()) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case crashed:
			m.close()
			m.open()
		default:
			panic(p)
		}
	}()
	step()
}

// The bomb is in the log.
func (m *modelWorld) Enabled(context.Context, slog.Level) bool { return true }
func (m *modelWorld) WithAttrs([]slog.Attr) slog.Handler       { return m }
func (m *modelWorld) WithGroup(string) slog.Handler            { return m }
func (m *modelWorld) Handle(context.Context, slog.Record) error {
	if m.bomb > 0 {
		if m.bomb--; m.bomb == 0 {
			panic(crashed{})
		}
	}
	return nil
}

func (m *modelWorld) open() {
	m.bomb, m.before, m.after = 0, false, false
	m.life++
	m.known = covered{}
	log := event.New(slog.New(m))
	var err1, err2, err3 error
	m.queue, err1 = queue.Open(filepath.Join(m.dir, "queue.db"), log)
	m.ledger, err2 = ledger.Open(filepath.Join(m.dir, "ledger.db"), log)
	o := Options{Outgoing: m.outgoing(), Key: modelKey, Queue: m.queue, Ledger: m.ledger, SecretTTL: 10_000 * time.Hour, Log: log}
	for _, name := range modelTargets {
		o.Targets = append(o.Targets, Target{Name: name, Target: &modelTarget{m, name}})
	}
	if err := errors.Join(err1, err2); err != nil {
		m.Fatal(err)
	}
	m.f, err3 = New(o)
	if err := errors.Join(err3, m.f.recall()); err != nil {
		m.Fatal(err)
	}
	m.f.fail = func(err error) { m.Fatal(err) }
}

func (m *modelWorld) close() {
	if err := errors.Join(m.queue.Close(), m.ledger.Close()); err != nil {
		m.Fatal(err)
	}
}

// The directory.

func (m *modelWorld) account() int { return rapid.IntRange(0, modelAccounts-1).Draw(m.rt, "account") }

// stampAfter is the stamp of the next change of an account.
func (m *modelWorld) stampAfter(n int, invocation dsdb.GUID) dsdb.Stamp {
	m.usn++
	return dsdb.Stamp{Version: m.accounts[n].stamp.Version + 1, Time: time.Now().UTC().Truncate(time.Second), InvocationID: invocation, USN: m.usn}
}

// commit changes a password here, and proves it.
func (m *modelWorld) commit() (serial int) {
	n := m.account()
	if m.accounts[n].gone {
		m.rt.Skip("gone")
	}
	tick()
	serial = len(m.issues) + 1
	m.accounts[n] = holding{stamp: m.stampAfter(n, m.invocation), serial: serial}
	m.dirty[n] = true
	delete(m.required, n)
	now := time.Now().UTC().Round(0)
	id := capture.NewID()
	header, err := capture.Header{ID: id, Time: now, Host: "dc1", Account: user(byte(n))}.Marshal()
	if err != nil {
		m.Fatal(err)
	}
	box, err := seal.Close(modelKey.Public(), capture.SecretInfo(header), []byte(fmt.Sprint("serial ", serial)))
	if err != nil {
		m.Fatal(err)
	}
	c := change.Change{
		Capture: id.String(), Account: account(byte(n + 1)), Stamp: m.accounts[n].stamp, Captured: now, Proven: now, Header: header, SecretBox: box,
	}
	for _, name := range modelTargets {
		c.Routes = append(c.Routes, change.Route{Target: name, User: user(byte(n))})
	}
	m.issues = append(m.issues, issue{account: n, stamp: c.Stamp, era: m.era, change: c, asked: map[string]time.Time{}})
	return serial
}

// tick keeps two events of the directory from being at the same nanosecond.
func tick() { time.Sleep(time.Millisecond) }

func (m *modelWorld) change() { m.late = append(m.late, m.commit()) }

func (m *modelWorld) changeAtOnce() {
	m.put(m.commit())
	if rapid.Bool().Draw(m.rt, "met") {
		m.scan()
	}
}

// replicate brings a change from another DC, of which nobody here has the password: after this one's, or at the same time, in which case it wins.
func (m *modelWorld) replicate() {
	n := m.account()
	if m.accounts[n].gone {
		m.rt.Skip("gone")
	}
	tick()
	s := m.stampAfter(n, dsdb.GUID{byte(rapid.IntRange(2, 3).Draw(m.rt, "DC"))})
	if rapid.Bool().Draw(m.rt, "conflict") {
		s.Version--
		s.Time = s.Time.Add(time.Second)
	}
	if s.Compare(m.accounts[n].stamp) <= 0 {
		m.rt.Skip("lost the conflict")
	}
	m.accounts[n] = holding{stamp: s}
	m.dirty[n] = true
	delete(m.required, n)
}

func (m *modelWorld) remove() {
	n := m.account()
	if m.accounts[n].gone {
		m.rt.Skip("gone")
	}
	tick()
	m.accounts[n].gone = true
	m.removed[n] = time.Now()
	m.dirty[n] = true
	delete(m.required, n)
}

func (m *modelWorld) bringBack() {
	n := m.account()
	if !m.accounts[n].gone {
		m.rt.Skip("there")
	}
	tick()
	m.accounts[n].gone = false
	m.dirty[n] = true
}

// restore brings the directory back to the snapshot. That takes a while, and the first thing that an agent does after it is to look at everything.
func (m *modelWorld) restore() {
	m.write(false) // what is proven has been seen by the watch before long
	time.Sleep(20 * time.Second)
	m.era++
	m.accounts, m.invocation, m.late = m.snapshot, dsdb.GUID{1, byte(m.era)}, nil
	clear(m.required)
	m.write(true)
}

// The agent.

// put writes a change's file.
func (m *modelWorld) put(serial int) {
	i := &m.issues[serial-1]
	b, err := i.change.Marshal()
	if err == nil {
		err = durable.Create(filepath.Join(m.outgoing(), i.change.FileName()), b, 0o600)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		m.Fatal(err)
	}
	if m.accounts[i.account].serial == serial && !m.accounts[i.account].gone && i.era == m.era && i.change.Proven.After(m.removed[i.account]) {
		m.required[i.account] = serial
	}
}

func (m *modelWorld) writeLate() {
	if len(m.late) == 0 {
		m.rt.Skip("nothing is late")
	}
	at := rapid.IntRange(0, len(m.late)-1).Draw(m.rt, "which")
	m.put(m.late[at])
	m.late = slices.Delete(m.late, at, at+1)
}

// writeAgain repeats a change, as an agent does that was killed before it had shredded the capture: it proves it anew.
func (m *modelWorld) writeAgain() {
	n := m.account()
	serial := m.accounts[n].serial
	if serial == 0 || m.accounts[n].gone || m.issues[serial-1].era != m.era {
		m.rt.Skip("nobody has the password")
	}
	if i := &m.issues[serial-1]; rapid.Bool().Draw(m.rt, "as another capture") {
		i.change.Captured = i.change.Captured.Add(1)
		i.change.Proven = time.Now().UTC().Round(0)
		i.again = true
	}
	required := m.required[n]
	m.put(serial)
	if required == 0 { // if it was shredded with the account, or the directory's past, it may stay so
		delete(m.required, n)
	}
}

// sweep has the ledger forget what is older than all that waits, or may be written again.
func (m *modelWorld) sweep() {
	tick()
	before := time.Now()
	older := func(proven time.Time) {
		if proven.Before(before) {
			before = proven
		}
	}
	for _, serial := range m.late {
		older(m.issues[serial-1].change.Proven)
	}
	for _, h := range m.accounts {
		if h.serial > 0 {
			older(m.issues[h.serial-1].change.Proven)
		}
	}
	for _, item := range items(m, m.queue) {
		older(item.Proven)
	}
	files, err := m.f.changes.List()
	if err != nil {
		m.Fatal(err)
	}
	for _, file := range files {
		if c, state := read(m.f, m.f.changes, file, parseChange); state == good {
			older(c.Proven)
		}
	}
	if _, err := m.ledger.Sweep(before); err != nil {
		m.Fatal(err)
	}
}

func (m *modelWorld) watch() {
	tick()
	m.look()
	if rapid.IntRange(0, 3).Draw(m.rt, "mark") == 0 {
		return
	}
	m.marked = covered{time.Now().UTC().Round(0), m.accounts}
	if err := change.WriteMark(m.outgoing(), change.Mark{AsOf: m.marked.asOf, Host: "dc1", InvocationID: m.invocation}); err != nil {
		m.Fatal(err)
	}
}

// look passes on who moved, or everybody if the forwarder asked for that.
func (m *modelWorld) look() {
	asked, err := m.f.asks.List()
	if err != nil {
		m.Fatal(err)
	}
	m.write(len(asked) > 0)
	for _, name := range asked {
		if err := m.f.asks.Discard(name); err != nil {
			m.Fatal(err)
		}
	}
}

// write passes on who moved, or after a restore everybody.
func (m *modelWorld) write(all bool) {
	m.files++
	now := time.Now()
	n := note{at: now, file: change.SightingsFile(now, fmt.Sprintf("-%09d", m.files)), accounts: map[int]holding{}, reset: all}
	var sightings []change.Sighting
	for i, h := range m.accounts {
		if all && !h.gone || m.dirty[i] && !all {
			n.accounts[i] = h
			s := change.Sighting{Account: account(byte(i + 1)), Stamp: h.stamp, Gone: h.gone, Reset: all}
			if h.gone {
				s.Stamp = dsdb.Stamp{}
			}
			sightings = append(sightings, s)
		} else if all {
			n.accounts[i] = h
		}
	}
	if all {
		sightings = append(sightings, change.Sighting{Whole: true})
	}
	clear(m.dirty)
	if len(sightings) == 0 {
		return
	}
	m.unread = append(m.unread, n)
	if m.mutation == blind && !all {
		return
	}
	b, err := change.MarshalSightings("", sightings)
	if err == nil {
		err = durable.Create(filepath.Join(m.outgoing(), n.file), b, 0o600)
	}
	if err != nil {
		m.Fatal(err)
	}
}

// The forwarder.

func (m *modelWorld) scan() {
	if rapid.IntRange(0, 9).Draw(m.rt, "crash") == 0 {
		if _, _, err := m.f.applySightings(); err != nil {
			m.Fatal(err)
		}
		panic(crashed{})
	}
	m.scanWhole()
}

// scanWhole is a look at the folder to its end. What it told the forwarder counts from then on.
func (m *modelWorld) scanWhole() {
	var met []int
	for i := range m.issues {
		if _, err := os.Stat(filepath.Join(m.outgoing(), m.issues[i].change.FileName())); err == nil && (m.issues[i].life == 0 || m.issues[i].again) {
			met = append(met, i)
		}
	}
	if err := m.f.scan(); err != nil {
		m.Fatal(err)
	}
	for _, i := range met {
		m.issues[i].life, m.issues[i].again, m.issues[i].asked = m.life, false, map[string]time.Time{}
	}
	unread := m.unread
	m.unread = nil
	for _, n := range unread {
		if _, err := os.Stat(filepath.Join(m.outgoing(), n.file)); err == nil { // it is asked for first
			n.kept = true
			m.unread = append(m.unread, n)
			continue
		}
		for i, h := range n.accounts {
			m.told[i], m.toldAt[i] = h, n.at
			if h.gone || n.reset {
				m.void[i] = n.at
			}
		}
	}
	m.known = m.marked
}

func (m *modelWorld) attempt() {
	m.attemptAt(rapid.SampledFrom(modelTargets).Draw(m.rt, "target"), true)
}

func (m *modelWorld) attempts() {
	for _, name := range modelTargets {
		for n := 0; n < 20 && m.attemptAt(name, false); n++ { // one that is refused as a whole is due again at once
		}
	}
}

// attemptAt does with an item what a lane does, and crashes on the way if it may and is to. It reports whether there was one.
func (m *modelWorld) attemptAt(name string, mayCrash bool) bool {
	ctx, l := context.Background(), m.f.lanes[name]
	if m.mutation == eager {
		m.f.watch.asOf = time.Now()
	}
	proven, due := m.f.watch.window(time.Now())
	lease, ok, err := m.f.queue.Lease(name, proven, due)
	if err != nil {
		m.Fatal(err)
	}
	if !ok {
		return false
	}
	crash := "no"
	if mayCrash {
		crash = rapid.SampledFrom([]string{"no", "before the request", "after the request", "after the ledger", "before the file is shredded"}).Draw(m.rt, "crash")
	}
	m.before, m.after = crash == "before the request", crash == "after the request"
	if crash != "after the ledger" && crash != "before the file is shredded" {
		l.attempt(ctx, ctx, lease, func(error) {})
		m.before, m.after = false, false // it was not wanted
		return true
	}
	if !m.f.wanted(ctx, lease) {
		return true
	}
	password, err := m.f.open(lease.Item)
	if err != nil {
		m.f.unreadable(ctx, lease, err)
		return true
	}
	err = l.target.SetPassword(ctx, target.User{Name: lease.User}, password)
	if err != nil {
		l.conclude(ctx, lease, err, true, false)
		return true
	}
	err = m.ledger.Record(ledger.Entry{
		Target: name, User: lease.User, Place: lease.Place, Account: lease.Account, Stamp: lease.Stamp, Proven: lease.Proven, Class: target.Delivered,
		At: time.Now(), Attempts: lease.Attempts + 1,
	})
	if err == nil && crash == "before the file is shredded" {
		err = m.queue.Return(lease.Done())
	}
	if err != nil {
		m.Fatal(err)
	}
	panic(crashed{})
}

func (m *modelWorld) changeMood() {
	m.mood[rapid.SampledFrom(modelTargets).Draw(m.rt, "target")] = rapid.SampledFrom([]error{
		nil, nil, errBusy, errBusy, target.ErrDenied, target.ErrRejected, target.ErrNoUser,
	}).Draw(m.rt, "mood")
}

func (m *modelWorld) pass() {
	time.Sleep(rapid.SampledFrom([]time.Duration{time.Second, 2 * time.Second, 9 * time.Second, 30 * time.Second, 61 * time.Second, 20 * time.Minute}).Draw(m.rt, "time"))
}

// finish lets everything work, and looks at what the targets hold.
func (m *modelWorld) finish() {
	m.bomb = 0
	clear(m.mood)
	for range 60 {
		time.Sleep(time.Minute)
		m.look()
		m.marked = covered{time.Now().UTC().Round(0), m.accounts}
		if err := change.WriteMark(m.outgoing(), change.Mark{AsOf: m.marked.asOf, Host: "dc1", InvocationID: m.invocation}); err != nil {
			m.Fatal(err)
		}
		m.scanWhole()
		m.attempts()
		if !slices.ContainsFunc(items(m, m.queue), func(i queue.Item) bool { return !i.Parked }) && m.f.begun && !m.f.lost && !m.f.asking {
			break
		}
	}
	for n, serial := range m.required {
		for _, name := range modelTargets {
			if at := placeAt(name, n); m.holds[at] != serial && m.refused[at] != serial {
				m.fail("lost", "%s holds password %d of account %d, and %d was handed over", name, m.holds[at], n, serial)
			}
		}
	}
}

func (m *modelWorld) fail(kind, format string, args ...any) {
	m.found(kind)
	m.rt.Fatalf(kind+": "+format, args...)
}

func placeAt(name string, account int) string { return fmt.Sprint(name, " ", account) }

// modelTarget is a target. It holds each request against the directory.
type modelTarget struct {
	m    *modelWorld
	name string
}

func (t *modelTarget) Check(context.Context) error           { return nil }
func (t *modelTarget) Accepts(secret.Secret) []target.Reason { return nil }
func (t *modelTarget) Close() error                          { return nil }

func (t *modelTarget) LastChange(context.Context, target.User) (time.Time, error) {
	return time.Time{}, target.ErrCannotTell
}

func (t *modelTarget) SetPassword(_ context.Context, u target.User, s secret.Secret) error {
	m, serial := t.m, 0
	if _, err := fmt.Sscanf(string(s.Bytes()), "serial %d", &serial); err != nil {
		m.fail("wrong", "sent %q", s.Bytes())
	}
	i := &m.issues[serial-1]
	at := placeAt(t.name, i.account)
	if !strings.EqualFold(u.Name, user(byte(i.account))) {
		m.fail("wrong", "account %d's password was sent to %s", i.account, u.Name)
	}
	t.judge(i, serial)
	i.asked[t.name] = time.Now()
	if m.before {
		panic(crashed{})
	}
	err := m.mood[t.name]
	switch {
	case err == nil:
		m.holds[at] = serial
		m.last[at] = request{i.stamp, m.era, i.era}
	case errors.Is(err, target.ErrRejected), errors.Is(err, target.ErrNoUser):
		m.refused[at] = serial
	case errors.Is(err, errBusy) && rapid.Bool().Draw(m.rt, "applied, and the answer was lost"):
		m.holds[at] = serial
		m.last[at] = request{i.stamp, m.era, i.era}
	}
	if m.after {
		panic(crashed{})
	}
	return err
}

// judge is what may be sent, by the words of docs/design.md.
func (t *modelTarget) judge(i *issue, serial int) {
	m, now := t.m, time.Now()
	what := fmt.Sprintf("%s, account %d, password %d, %v", t.name, i.account, serial, i.stamp)
	if last := m.last[placeAt(t.name, i.account)]; last.era == m.era && last.of == m.era && i.era == m.era && i.stamp.Compare(last.stamp) < 0 {
		m.fail("order", "%s was sent after %v", what, last.stamp)
	}
	outdated := func(by holding, before time.Time) bool {
		stamp := by.stamp
		if by.gone {
			stamp = dsdb.Stamp{}
		}
		order := i.stamp.Compare(stamp)
		return order < 0 || order > 0 && i.change.Proven.Before(before)
	}
	maybe := slices.ContainsFunc(m.unread, func(n note) bool {
		h, told := n.accounts[i.account]
		return n.kept && told && !outdated(h, n.at)
	})
	if told := m.told[i.account]; !maybe && outdated(told, m.void[i.account]) {
		m.fail("wrong", "%s was sent after the forwarder had been told that the directory holds %+v", what, told)
	}
	asked, again := i.asked[t.name]
	if !again && i.life == m.life && now.Sub(i.change.Proven) <= provenFor {
		return
	}
	switch {
	case now.Sub(m.known.asOf) > markFor:
		m.fail("wrong", "%s had waited, and was sent with the directory last seen %v ago", what, now.Sub(m.known.asOf))
	case m.known.asOf.Before(asked):
		m.fail("wrong", "%s was tried again, and the directory was not looked at in between", what)
	case m.toldAt[i.account].After(m.known.asOf): // what the forwarder was told since then has been judged above: the account came back, say
	case outdated(m.known.accounts[i.account], m.known.asOf):
		m.fail("wrong", "%s had waited, and was sent while the directory held %+v", what, m.known.accounts[i.account])
	}
}
