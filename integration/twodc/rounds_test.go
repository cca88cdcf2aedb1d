package twodc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

const (
	// batchSize is how many accounts have a round at the same time.
	batchSize = 40
	// dust is how long a batch may take to settle after its last disturbance: a connection that was cut may take a minute to come back,
	// and then each forwarder waits until the other has surely heard.
	dust = 6 * time.Minute
)

// testRounds: whatever is changed where, each cloud ends with the password that AD itself settles on.
//
// A round is one account whose password is set on both DCs: in either order, in the same moment or seconds apart, sometimes twice on one
// of them, and sometimes with one more that is refused. Rounds are made in batches, on so many accounts at a time. Each batch is disturbed:
// the line between the DCs is cut while the changes are made, serve is killed on one DC, a cloud is down. When everything works again and
// neither DC has anything left to do, each round is judged: both DCs hold the same password, both clouds hold that one, and no cloud was
// sent any that no DC took.
//
// The first batch is made without peers in the configuration. Then nobody settles anything, and some rounds must end wrongly: what follows
// shows something only because they do.
func (d *domain) testRounds(t *testing.T) {
	rounds, err := strconv.Atoi(setting("PWSYNC_ROUNDS", "20"))
	must(t, err)
	seed, err := strconv.ParseUint(setting("PWSYNC_SEED", strconv.FormatInt(time.Now().Unix(), 10)), 10, 64)
	must(t, err)
	t.Logf("PWSYNC_SEED=%d", seed)
	draw := rand.New(rand.NewPCG(seed, 0))

	accounts := make([]*account, min(rounds, batchSize))
	for i := range accounts {
		accounts[i] = &account{name: fmt.Sprintf("duo%02d", i)}
	}
	d.create(t, accounts)

	must(t, d.Install(ctx, d.dcs[1], lab.DefaultConfig))
	wrong := d.batch(t, accounts, disturbance{cut: true}, draw)
	t.Logf("without peers: %d of %d rounds ended wrongly", len(wrong), len(accounts))
	if len(wrong) == 0 {
		t.Error("without peers no round ended wrongly, so what follows shows nothing")
	}

	for i, dc := range d.dcs {
		must(t, dc.Configure(ctx, peered(d.dcs[1-i])))
	}
	for done := 0; done < rounds; done += len(accounts) {
		what := disturbance{cut: true, kill: draw.IntN(2), down: lab.Clouds[draw.IntN(len(lab.Clouds))]}
		if done > 0 { // the first batch has them all, for those who try only one
			what.cut = draw.IntN(3) > 0
			if draw.IntN(3) == 0 {
				what.kill = none
			}
			if draw.IntN(3) == 0 {
				what.down = ""
			}
		}
		now := accounts[:min(len(accounts), rounds-done)]
		began := time.Now()
		wrong := d.batch(t, now, what, draw)
		t.Logf("rounds %d to %d, %v: %d ended wrongly; %v", done+1, done+len(now), what, len(wrong), time.Since(began).Round(time.Second))
		for _, w := range wrong {
			t.Error(w)
		}
	}
}

// account is one that the rounds are about.
type account struct {
	name            string
	current, former string                // what AD holds, and what it held before
	sent            map[sandbox.Cloud]int // how many passwords each cloud had been sent before this round

	mu    sync.Mutex
	taken []string // passwords that a DC took in this round
}

// step is one change of a round, or an attempt at one.
type step struct {
	at   time.Duration // since the round began
	what attempt
}

type attempt int

const (
	set       attempt = iota // an administrator sets a new password
	setSimple                // an administrator sets one that the hook refuses
	goBack                   // the user wants his former password back: the hook lets it pass, the DC's history does not
)

const none = -1

// disturbance is what goes wrong during a batch.
type disturbance struct {
	cut  bool          // the line between the DCs
	kill int           // the DC whose serve is killed, or none
	down sandbox.Cloud // or ""
}

func (w disturbance) String() string {
	s := "nothing cut"
	if w.cut {
		s = "line cut"
	}
	if w.kill != none {
		s += fmt.Sprintf(", serve killed on DC%d", w.kill+1)
	}
	if w.down != "" {
		s += fmt.Sprintf(", %s down", w.down)
	}
	return s
}

// create makes the accounts, known to both DCs and both clouds.
func (d *domain) create(t *testing.T, accounts []*account) {
	t.Helper()
	admin, err := d.dcs[0].Administrator()
	must(t, err)
	defer admin.Close()
	for _, a := range accounts {
		must(t, d.Sandbox.AddUsers(ctx, lab.Mail(a.name)))
		a.former, a.current = d.NewPassword(), d.NewPassword()
		must(t, admin.Create(a.name, a.former))
		must(t, admin.Reset(a.name, a.current))
	}
	d.agree(t, accounts)
	for _, a := range accounts {
		for _, cloud := range lab.Clouds {
			held, err := d.Sandbox.Verify(ctx, cloud, lab.Mail(a.name), a.current, patience)
			must(t, err)
			if !held {
				t.Fatalf("%s does not hold %s's first password", cloud, a.name)
			}
		}
	}
}

// agree waits until both DCs hold the same for all accounts, and returns it.
func (d *domain) agree(t *testing.T, accounts []*account) map[string]lab.Held {
	t.Helper()
	var held [2]map[string]lab.Held
	eventually(t, dust, "both DCs hold the same", func() bool {
		for i, dc := range d.dcs {
			var err error
			held[i], err = dc.Held(ctx, "(sAMAccountName=duo*)")
			must(t, err)
		}
		for _, a := range accounts {
			one, ok := held[0][a.name]
			if other := held[1][a.name]; !ok || !one.Stamp.Equal(other.Stamp) || one.Hash != other.Hash {
				return false
			}
		}
		return true
	})
	return held[0]
}

// batch makes one round with each account, and returns what ended wrongly.
func (d *domain) batch(t *testing.T, accounts []*account, what disturbance, draw *rand.Rand) (wrong []string) {
	t.Helper()
	d.remember(t, accounts)
	if what.cut {
		must(t, d.dcs[1].CutOff(ctx, d.dcs[0]))
	}
	if what.down != "" {
		must(t, d.Sandbox.Misbehave(ctx, what.down, sandbox.Fault{Kind: "503"}))
	}
	heal, killAfter := time.Duration(draw.IntN(5000))*time.Millisecond, time.Duration(draw.IntN(4000))*time.Millisecond

	var admins [2]chan *lab.Session
	for i := range admins {
		admins[i] = d.administrators(t, i)
	}
	plans := make([][2][]step, len(accounts))
	for n := range plans {
		plans[n] = d.plan(draw)
	}
	// While the DCs are sure to hold the current passwords, however long that takes.
	d.steps(t, accounts, plans, admins, func(s step) bool { return s.what == goBack }).Wait()
	all := d.steps(t, accounts, plans, admins, func(s step) bool { return s.what != goBack })
	if what.kill != none {
		all.Go(func() {
			if err := d.dcs[what.kill].KillServe(ctx, killAfter); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow() // what was changed is not known
	}
	time.Sleep(heal) // the rest of the outage, nothing that is waited for
	if what.down != "" {
		must(t, d.Sandbox.Behave(ctx))
	}
	if what.cut {
		must(t, d.dcs[1].Rejoin(ctx, d.dcs[0]))
	}
	return d.judge(t, accounts)
}

// steps begins those steps of the plans that are wanted, each at its time.
func (d *domain) steps(t *testing.T, accounts []*account, plans [][2][]step, admins [2]chan *lab.Session, wanted func(step) bool) *sync.WaitGroup {
	began, all := time.Now(), &sync.WaitGroup{}
	for n, a := range accounts {
		for i, steps := range plans[n] {
			all.Go(func() {
				for _, step := range steps {
					if !wanted(step) {
						continue
					}
					time.Sleep(time.Until(began.Add(step.at)))
					if err := d.change(a, i, admins[i], step); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	return all
}

// remember notes where the clouds stand.
func (d *domain) remember(t *testing.T, accounts []*account) {
	t.Helper()
	state, err := d.Sandbox.State(ctx)
	must(t, err)
	for _, a := range accounts {
		a.taken, a.sent = nil, map[sandbox.Cloud]int{}
		for _, cloud := range lab.Clouds {
			u, _ := state.User(cloud, lab.Mail(a.name))
			a.sent[cloud] = len(u.Passwords)
		}
	}
}

// administrators opens sessions at a DC. One connection has one change at a time; of many new ones at a time Samba refuses some.
func (d *domain) administrators(t *testing.T, dc int) chan *lab.Session {
	t.Helper()
	sessions := make(chan *lab.Session, 8)
	for range cap(sessions) {
		admin, err := d.dcs[dc].Administrator()
		must(t, err)
		t.Cleanup(func() { admin.Close() })
		sessions <- admin
	}
	return sessions
}

// plan draws a round: the steps at each DC.
func (d *domain) plan(draw *rand.Rand) (plan [2][]step) {
	upTo := func(d time.Duration) time.Duration { return time.Duration(draw.Int64N(int64(d))) }
	first, later := draw.IntN(2), time.Duration(0)
	begin := upTo(3 * time.Second)
	switch draw.IntN(3) {
	case 0: // at the same moment
	case 1: // one DC has not heard of the other's change yet
		later = upTo(time.Second)
	case 2: // unless the line is cut, it may have
		later = upTo(8 * time.Second)
	}
	refused := attempt(draw.IntN(4)) // in half of the rounds none
	for i := range plan {
		at := begin
		if i != first {
			at += later
		}
		if refused == goBack && i == first {
			plan[i] = append(plan[i], step{0, goBack})
		}
		plan[i] = append(plan[i], step{at, set})
		if draw.IntN(4) == 0 {
			plan[i] = append(plan[i], step{at + upTo(2*time.Second), set})
		}
		if refused == setSimple && i == first {
			plan[i] = append(plan[i], step{at, setSimple})
		}
	}
	return plan
}

// change makes one step of a round at a DC.
func (d *domain) change(a *account, dc int, admins chan *lab.Session, s step) error {
	admin := <-admins
	defer func() { admins <- admin }()
	switch s.what {
	case set:
		password := d.NewPassword()
		if err := admin.Reset(a.name, password); err != nil {
			return fmt.Errorf("setting %s's password on DC%d: %w", a.name, dc+1, err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.taken = append(a.taken, password)
	case setSimple:
		return refuses(dc, a, admin.Reset(a.name, d.NewSimplePassword()))
	case goBack:
		return refuses(dc, a, d.dcs[dc].LDAPSChange(ctx, a.name, a.current, a.former))
	}
	return nil
}

// refuses demands that it was the password that a DC did not like: ERROR_PASSWORD_RESTRICTION, under either of two LDAP codes.
func refuses(dc int, a *account, err error) error {
	if err != nil && strings.Contains(err.Error(), "0000052D") {
		return nil
	}
	return fmt.Errorf("DC%d was to refuse a password for %s: %v", dc+1, a.name, err)
}

// judge waits until the dust has settled, and tells which clouds hold another password than AD, or were sent one that no DC took.
func (d *domain) judge(t *testing.T, accounts []*account) (wrong []string) {
	t.Helper()
	d.agree(t, accounts)
	eventually(t, dust, "neither DC has anything left to do", func() bool {
		return askStatus(t, d.dcs[0]).done() && askStatus(t, d.dcs[1]).done()
	})
	held := d.agree(t, accounts)
	state, err := d.Sandbox.State(ctx)
	must(t, err)
	for _, a := range accounts {
		a.former = a.current
		for _, password := range a.taken {
			if held[a.name].Is(password) {
				a.current = password
			}
		}
		if a.former == a.current {
			t.Fatalf("AD holds a password for %s that nobody set", a.name)
		}
		var stale []sandbox.Cloud
		for _, cloud := range lab.Clouds {
			u, _ := state.User(cloud, lab.Mail(a.name))
			if current, ok := u.Current(); !ok || !is(t, current, a.current) {
				stale = append(stale, cloud)
			}
			for _, sent := range u.Passwords[a.sent[cloud]:] {
				if !slices.ContainsFunc(a.taken, func(password string) bool { return is(t, sent, password) }) {
					t.Errorf("%s was sent a password for %s that no DC took", cloud, a.name)
				}
			}
		}
		if stale != nil {
			wrong = append(wrong, fmt.Sprintf("%s's password is not held by %v", a.name, stale))
		}
	}
	return wrong
}

func is(t *testing.T, sent sandbox.Password, password string) bool {
	t.Helper()
	same, err := lab.Is(sent, password)
	must(t, err)
	return same
}
