package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/ballast"
	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/ledger"
	"github.com/samba-pwsync/samba-pwsync/internal/queue"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// world is a forwarder with everything around it: the folder that an agent writes to, databases, targets.
type world struct {
	testing.TB
	dir     string // state; outgoing is below it
	key     seal.PrivateKey
	keys    seal.Keys     // nil: key
	text    *bytes.Buffer // what was logged
	log     *event.Log
	ttl     time.Duration
	places  map[string]*place
	targets []Target
	dozes   atomic.Bool
	told    atomic.Int64             // files of sightings
	asked   atomic.Int64             // how often the forwarder asked for all of them
	all     func() []change.Sighting // what is answered then; nil: nothing

	f       *Forwarder
	queue   *queue.Queue
	ledger  *ledger.Ledger
	ended   <-chan error // of a run that ends by itself; halt then ends the rest
	halt    func()
	stop    func()
	unwatch func()
}

// newWorld makes a world with these targets; nothing runs yet.
func newWorld(t testing.TB, names ...string) *world {
	t.Helper()
	key, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, dir: memory(t), key: key, text: new(bytes.Buffer), places: map[string]*place{}}
	w.log = event.New(slog.New(slog.NewTextHandler(w.text, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for _, name := range names {
		w.places[name] = &place{TB: t, held: map[string]string{}, busy: map[string]bool{}}
		w.targets = append(w.targets, Target{Name: name, Target: w.places[name]})
	}
	w.mkdir()
	return w
}

func (w *world) mkdir() {
	w.Helper()
	if err := os.Mkdir(w.outgoing(), 0o700); err != nil {
		w.Fatal(err)
	}
}

// memory makes a folder in memory where there is one: hours of simulated time are thousands of fsyncs.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "deliver")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (w *world) outgoing() string { return filepath.Join(w.dir, "outgoing") }

// open opens the databases and makes the forwarder. Where the disk does not let it, it waits, as serve does.
func (w *world) open() {
	w.Helper()
	err := w.openDatabases()
	for ; ballast.IsTrouble(err); err = w.openDatabases() {
		w.log.WaitingForDisk("forwarder", err)
		time.Sleep(5 * time.Second)
	}
	if err != nil {
		w.Fatal(err)
	}
	keys := w.keys
	if keys == nil {
		keys = w.key
	}
	w.f, err = New(Options{
		Outgoing: w.outgoing(), Key: keys, Queue: w.queue, Ledger: w.ledger, Lost: w.ledger.Forgot(), Targets: w.targets, SecretTTL: w.ttl, Log: w.log,
	})
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) openDatabases() (err error) {
	if w.queue, err = queue.Open(filepath.Join(w.dir, "queue.db"), w.log); err != nil {
		return err
	}
	if w.ledger, err = ledger.Open(filepath.Join(w.dir, "ledger.db"), w.log); err != nil {
		return errors.Join(err, w.queue.Close())
	}
	return nil
}

// close closes the databases.
func (w *world) close() {
	w.Helper()
	if err := w.queue.Close(); err != nil {
		w.Error(err)
	}
	if err := w.ledger.Close(); err != nil {
		w.Error(err)
	}
}

// start runs a forwarder in a synctest bubble: a file is found at the next full second. w.stop stops it and waits until it
// has stopped.
func (w *world) start() {
	w.Helper()
	w.open()
	ctx, cancel := context.WithCancel(context.Background())
	ticks := make(chan struct{}, 1)
	go w.every(ctx, func() {
		select {
		case ticks <- struct{}{}:
		default:
		}
	})
	ended := make(chan error)
	go func() { ended <- w.f.run(ctx, ticks) }()
	w.ended, w.halt = ended, cancel
	w.stop = func() {
		w.Helper()
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
		w.close()
	}
}

// pass lets time pass, and then waits until nothing moves.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// watched starts an agent's watch: a mark each second. w.unwatch ends it.
func (w *world) watched() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		w.every(ctx, func() {
			began := time.Now()
			w.answer()
			w.mark(began)
		})
	})
	w.unwatch = func() { cancel(); done.Wait() }
}

// answer tells the forwarder what the directory holds, if it asked for that.
func (w *world) answer() {
	w.Helper()
	asked, err := filepath.Glob(filepath.Join(w.outgoing(), "*"+change.AskSuffix))
	if err != nil {
		w.Error(err)
	}
	if len(asked) > 0 && w.all != nil {
		w.tell(w.all()...)
	}
	for _, name := range asked {
		w.asked.Add(1)
		if err := durable.Remove(name); err != nil {
			w.Error(err)
		}
	}
}

// every does something at once and then each second, until ctx ends.
func (w *world) every(ctx context.Context, do func()) {
	for ctx.Err() == nil {
		do()
		pause := scanEvery
		if w.dozes.Load() {
			pause = dozing
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// dozing is the time between two passes of an agent's watch where each takes the DC long.
const dozing = 20 * time.Second

// doze is pass for long times, at a twentieth of the cost: the agent's watch is slow, and the folder is looked at as seldom.
func (w *world) doze(d time.Duration) {
	w.dozes.Store(true)
	w.pass(d - dozing)
	w.dozes.Store(false)
	w.pass(dozing)
}

func (w *world) mark(asOf time.Time) {
	w.Helper()
	if err := change.WriteMark(w.outgoing(), change.Mark{AsOf: asOf, Host: "dc1", InvocationID: dsdb.GUID{9}}); err != nil {
		w.Error(err)
	}
}

func account(n byte) change.Account {
	name := user(n)
	return change.Account{GUID: dsdb.GUID{n, 1}, SAMAccountName: name, UserPrincipalName: name + "@example.com"}
}

func stamp(version int) dsdb.Stamp {
	return dsdb.Stamp{
		Version: uint32(version), Time: time.Date(1999, 1, 1, 0, 0, version, 0, time.UTC), InvocationID: dsdb.GUID{9}, USN: uint64(version),
	}
}

func user(n byte) string { return fmt.Sprintf("user%d", n) }

// password is version version of account n's password.
func password(n byte, version int) string { return fmt.Sprintf("Canary-%d-%04d", n, version) }

// versionOf is the version of a password.
func versionOf(w testing.TB, password string) (version int) {
	w.Helper()
	if _, err := fmt.Sscanf(password[strings.LastIndex(password, "-")+1:], "%d", &version); err != nil {
		w.Fatalf("this is no password of ours: %q", password)
	}
	return version
}

// change makes a change as the agent would that has just proven it.
func (w *world) change(n byte, version int, targets ...string) change.Change {
	w.Helper()
	now := time.Now().UTC().Round(0)
	id := capture.NewID()
	header, err := capture.Header{ID: id, Time: now, Host: "dc1", Account: user(n)}.Marshal()
	if err != nil {
		w.Fatal(err)
	}
	box, err := seal.Close(w.key.Public(), capture.SecretInfo(header), []byte(password(n, version)))
	if err != nil {
		w.Fatal(err)
	}
	c := change.Change{
		Capture: id.String(), Account: account(n), Stamp: stamp(version), Captured: now, Proven: now, Header: header, SecretBox: box,
	}
	for _, name := range targets {
		c.Routes = append(c.Routes, change.Route{Target: name, User: user(n)})
	}
	return c
}

// put stores a change in the outgoing folder and returns the file's name.
func (w *world) put(c change.Change) string {
	w.Helper()
	b, err := c.Marshal()
	if err != nil {
		w.Fatal(err)
	}
	w.write(c.FileName(), b)
	return c.FileName()
}

func (w *world) write(name string, b []byte) {
	w.Helper()
	if err := durable.Create(filepath.Join(w.outgoing(), name), b, 0o600); err != nil {
		w.Fatal(err)
	}
}

// sight passes on that the directory holds this version of account n's password.
func (w *world) sight(n byte, version int) {
	w.Helper()
	w.tell(change.Sighting{Account: account(n), Stamp: stamp(version)})
}

// tell passes on what the agent sees.
func (w *world) tell(sightings ...change.Sighting) {
	w.Helper()
	name := change.SightingsFile(time.Now(), fmt.Sprint(w.told.Add(1)))
	b, err := change.MarshalSightings(name, sightings)
	if err != nil {
		w.Fatal(err)
	}
	w.write(name, b)
}

// files returns the names in the outgoing folder, the mark aside.
func (w *world) files() (names []string) {
	w.Helper()
	entries, err := os.ReadDir(w.outgoing())
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "mark" && e.Name() != "mark.new" && !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

func (w *world) items() []queue.Item { w.Helper(); return items(w, w.queue) }

// items returns all that is in a queue, the longest captured first.
func items(t testing.TB, q *queue.Queue) (all []queue.Item) {
	t.Helper()
	if err := q.Each("", func(i queue.Item, _ bool) error { all = append(all, i); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// settled fails the test unless all secrets are gone and nothing waits.
func (w *world) settled() {
	w.Helper()
	if files := w.files(); len(files) > 0 {
		w.Errorf("left in outgoing: %q", files)
	}
	for _, t := range w.f.Status().Targets {
		if t.Waiting > 0 {
			w.Errorf("%d items wait for %s", t.Waiting, t.Name)
		}
	}
}

// happened fails the test unless an event happened so often.
func (w *world) happened(name string, times int) {
	w.Helper()
	if n := w.log.Counters()[name]; n != uint64(times) {
		w.Errorf("event %s happened %d times, want %d", name, n, times)
	}
}

func (w *world) status(name string) TargetStatus {
	w.Helper()
	for _, t := range w.f.Status().Targets {
		if t.Name == name {
			return t
		}
	}
	w.Fatalf("no target %s", name)
	return TargetStatus{}
}

// place is a target in memory that records what it is asked, and fails the test if it is asked about one user twice at once.
// It stands for the contract of internal/target; the real targets are tested where they are.
type place struct {
	testing.TB
	mu     sync.Mutex
	answer func(ctx context.Context, user, password string) error // nil: yes
	check  func() error                                           // nil: yes
	held   map[string]string

	lastChange func(user string) (time.Time, error) // nil: cannot tell
	busy       map[string]bool
	calls      []call
	checks     []time.Time
}

type call struct {
	user    string
	version int
	at      time.Time
	err     error
	must    bool // change it at the next login
}

func (p *place) SetPassword(ctx context.Context, u target.User, s secret.Secret) error {
	name := strings.ToLower(u.Name)
	p.mu.Lock()
	if p.busy[name] {
		p.Errorf("two passwords at once for %s", name)
	}
	password, answer := string(s.Bytes()), p.answer
	p.busy[name] = true
	i := len(p.calls)
	p.calls = append(p.calls, call{name, versionOf(p, password), time.Now(), nil, u.MustChange})
	p.mu.Unlock()

	var err error
	if answer != nil {
		err = answer(ctx, name, password)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[i].err = err
	p.busy[name] = false
	if err == nil {
		p.held[name] = password
	}
	return err
}

func (p *place) Check(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks = append(p.checks, time.Now())
	if p.check == nil {
		return nil
	}
	return p.check()
}

func (p *place) LastChange(_ context.Context, u target.User) (time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lastChange == nil {
		return time.Time{}, target.ErrCannotTell
	}
	return p.lastChange(strings.ToLower(u.Name))
}

func (p *place) Accepts(secret.Secret) []target.Reason { return nil }
func (p *place) Close() error                          { return nil }

// answers changes what the place answers from now on.
func (p *place) answers(answer func(ctx context.Context, user, password string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// fails makes the place answer with this error, or take passwords again if it is nil.
func (p *place) fails(err error) {
	p.answers(func(context.Context, string, string) error { return err })
}

func (p *place) checksWith(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.check = func() error { return err }
}

// holds fails the test unless the place holds this version of account n's password; version 0: none.
func (p *place) holds(n byte, version int) {
	p.Helper()
	p.holdsFor(user(n), n, version)
}

// holdsFor is holds for any name.
func (p *place) holdsFor(name string, n byte, version int) {
	p.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	want := ""
	if version > 0 {
		want = password(n, version)
	}
	if got := p.held[name]; got != want {
		p.Errorf("%s's password is %q, want %q", name, got, want)
	}
}

// asked returns a copy of the calls so far.
func (p *place) asked() []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// inOrder fails the test if a user was ever sent an older password after a newer one.
func (p *place) inOrder() {
	p.Helper()
	newest := map[string]int{}
	for _, c := range p.asked() {
		if c.version < newest[c.user] {
			p.Errorf("%s was sent version %d after %d", c.user, c.version, newest[c.user])
		}
		newest[c.user] = c.version
	}
}
