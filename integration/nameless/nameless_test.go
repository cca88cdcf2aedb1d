// Package nameless tries on real domain controllers what Samba before 4.11 leaves to be found out: whose password the hook was shown.
// SAMBA_CPS_* is unset in front of the hook, in a domain with a crowd of other accounts, and every promise has to hold all the same.
//
// SAMBA_SUITES names the Debian suites, one lab each, one after the other (default: SAMBA_SUITE, else bookworm); `make compat` names all
// that there are. PWSYNC_CROWD is how many other accounts there are, for those who are in a hurry (default: 20,000).
package nameless

import (
	"context"
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
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

const (
	// patience is how long a test waits for something that should take moments: the machine may be small and busy.
	patience = 5 * time.Minute
	// atOnce is how many accounts change their passwords at the same time.
	atOnce = 200
)

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

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func TestWithoutNames(t *testing.T) {
	crowd, err := strconv.Atoi(setting("PWSYNC_CROWD", "20000"))
	if err != nil {
		t.Fatalf("reading PWSYNC_CROWD: %v", err)
	}
	for suite := range strings.FieldsSeq(setting("SAMBA_SUITES", setting("SAMBA_SUITE", "bookworm"))) {
		t.Run(suite, func(t *testing.T) {
			d := newDomain(t, suite, crowd)
			t.Run("Routes", d.testRoutes)
			t.Run("AtOnce", d.testAtOnce)
			t.Run("Twins", d.testTwins)
			t.Run("RefusedByHistory", d.testRefusedByHistory)
			t.Run("Forged", d.testForged)
			t.Run("Guessed", d.testGuessed)
			t.Run("Foreseen", d.testForeseen)
			if suite != "bullseye" { // Samba 4.13 always stores NT hashes
				t.Run("AES256", d.testAES256)
			}
			t.Run("NothingElse", func(t *testing.T) { d.arrived(t, d.users...) })
		})
	}
}

// domain is a lab whose hook is told no names.
type domain struct {
	*lab.Lab
	log   *lab.Record
	mu    sync.Mutex
	users []*user
}

// user is an account that exists in the domain and in both clouds.
type user struct {
	name string
	sent []string // what the clouds must have got, oldest first
}

func (u *user) password() string { return u.sent[len(u.sent)-1] }

func newDomain(t *testing.T, suite string, crowd int) *domain {
	l, err := lab.Start(ctx, lab.Options{Suite: suite})
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
	must(t, l.DC.WithoutNames(ctx))
	began := time.Now()
	must(t, l.DC.AddCrowd(ctx, 0, crowd))
	t.Logf("a crowd of %d accounts was added in %.0f s", crowd, time.Since(began).Seconds())
	return &domain{Lab: l, log: l.DC.Record(ctx)}
}

// newUsers creates accounts, whose first passwords thereby arrive at both clouds.
func (d *domain) newUsers(t *testing.T, n int) []*user {
	t.Helper()
	d.mu.Lock()
	made := make([]*user, n)
	for i := range made {
		made[i] = &user{name: fmt.Sprintf("user%03d", len(d.users))}
		d.users = append(d.users, made[i])
	}
	d.mu.Unlock()
	admin, err := d.DC.Administrator()
	must(t, err)
	defer admin.Close()
	for _, u := range made {
		must(t, d.Sandbox.AddUsers(ctx, lab.Mail(u.name)))
		u.sent = []string{d.NewPassword()}
		must(t, admin.Create(u.name, u.password()))
	}
	d.arrived(t, made...)
	return made
}

func (d *domain) newUser(t *testing.T) *user {
	t.Helper()
	return d.newUsers(t, 1)[0]
}

// arrived waits until both clouds were sent as many passwords as they must have been, and demands that it is these, in order.
func (d *domain) arrived(t *testing.T, users ...*user) {
	t.Helper()
	var held sandbox.State
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		var err error
		held, err = d.Sandbox.State(ctx)
		must(t, err)
		late := slices.IndexFunc(users, func(u *user) bool {
			return slices.ContainsFunc(lab.Clouds, func(cloud sandbox.Cloud) bool { return len(history(held, cloud, u)) < len(u.sent) })
		})
		if late < 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v a password of %s has not arrived", patience, users[late].name)
		}
	}
	for _, u := range users {
		for _, cloud := range lab.Clouds {
			if got := history(held, cloud, u); !slices.EqualFunc(got, u.sent, is) {
				t.Errorf("%s was sent %d passwords for %s, and they are not the %d that it must have been sent", cloud, len(got), u.name, len(u.sent))
			}
		}
	}
}

// history is what a cloud was sent for a user, oldest first.
func history(held sandbox.State, cloud sandbox.Cloud, u *user) []sandbox.Password {
	known, _ := held.User(cloud, lab.Mail(u.name))
	return known.Passwords
}

func is(sent sandbox.Password, password string) bool {
	same, err := lab.Is(sent, password)
	return same && err == nil
}

func (d *domain) testRoutes(t *testing.T) {
	routes := append(d.DC.Routes(), lab.Route{Name: "samba-tool user create", Change: func(ctx context.Context, user, _, password string) error {
		if err := d.DC.DeleteUser(ctx, user); err != nil {
			return err
		}
		return d.DC.CreateUser(ctx, user, password)
	}})
	users := d.newUsers(t, len(routes))
	for i, route := range routes {
		t.Run(route.Name, func(t *testing.T) {
			u, password := users[i], d.NewPassword()
			must(t, route.Change(ctx, u.name, u.password(), password))
			must(t, d.DC.Login(u.name, password))
			u.sent = append(u.sent, password)
			d.arrived(t, u)
		})
	}
}

// Many accounts, each over a connection of its own, all at the same time.
func (d *domain) testAtOnce(t *testing.T) {
	users := d.newUsers(t, atOnce)
	sessions := make([]*lab.Session, atOnce)
	for i := range sessions {
		var err error
		sessions[i], err = d.DC.Administrator()
		must(t, err)
		defer sessions[i].Close()
	}
	var changes sync.WaitGroup
	errs := make([]error, atOnce)
	for i, u := range users {
		password := d.NewPassword()
		u.sent = append(u.sent, password)
		changes.Go(func() { errs[i] = sessions[i].Reset(u.name, password) })
	}
	changes.Wait()
	for _, err := range errs {
		must(t, err)
	}
	d.arrived(t, users...)
}

// Without NT hashes a key has to be made for each account that a capture is held against, which takes a millisecond or two.
func (d *domain) testAES256(t *testing.T) {
	must(t, d.DC.ConfigureSamba(ctx, "nt hash store = never"))
	must(t, d.DC.Configure(ctx, strings.Replace(lab.DefaultConfig, "[directory]", "[directory]\nproof = \"aes256\"", 1)))
	d.testAtOnce(t)
}

// Two accounts get the same password in the same second. Both are delivered; a third, which has had it for a while, is not
// delivered again.
func (d *domain) testTwins(t *testing.T) {
	for range 3 {
		users := d.newUsers(t, 3)
		password := d.NewPassword()
		var changes sync.WaitGroup
		errs := make([]error, 2)
		must(t, d.DC.LDAPSReset(ctx, users[2].name, "", password))
		for _, u := range users {
			u.sent = append(u.sent, password)
		}
		d.arrived(t, users[2])
		time.Sleep(5 * time.Second) // its capture has had its time
		for i, u := range users[:2] {
			changes.Go(func() { errs[i] = d.DC.LDAPSReset(ctx, u.name, "", password) })
		}
		changes.Wait()
		must(t, errs[0])
		must(t, errs[1])
		d.arrived(t, users...)
	}
}

// The hook accepts the password, and after it Samba refuses the change.
func (d *domain) testRefusedByHistory(t *testing.T) {
	u := d.newUser(t)
	old := u.password()
	u.sent = append(u.sent, d.NewPassword())
	must(t, d.DC.LDAPSReset(ctx, u.name, "", u.password()))
	d.arrived(t, u)
	for _, route := range d.DC.Routes() {
		if !route.Own {
			continue // an administrator's reset does not ask the history
		}
		t.Run(route.Name, func(t *testing.T) {
			d.neverCommitted(t, func() {
				if err := route.Change(ctx, u.name, u.password(), old); err == nil {
					t.Fatal("the change was not refused")
				}
			})
			d.arrived(t, u)
		})
	}
}

// Any user can have the hook shown a password of his choice, and nobody's name with it.
func (d *domain) testForged(t *testing.T) {
	mallory, victim := d.newUser(t), d.newUser(t)
	for range 3 {
		d.neverCommitted(t, func() {
			must(t, d.DC.ValidatePassword(ctx, mallory.name, mallory.password(), victim.name, d.NewForgeablePassword()))
		})
	}
	d.arrived(t, victim)
	victim.sent = append(victim.sent, d.NewPassword())
	must(t, d.DC.LDAPSReset(ctx, victim.name, "", victim.password()))
	d.arrived(t, victim)
}

// Somebody guesses a password that an account really has, but whose change the hook was not shown. It is the account's current one, and it
// is not sent: the account got it before it was guessed.
func (d *domain) testGuessed(t *testing.T) {
	mallory, victim := d.newUser(t), d.newUser(t)
	password := d.NewForgeablePassword()
	must(t, d.DC.WithoutComplexity(ctx, victim.name, func() error { return d.DC.LDAPSReset(ctx, victim.name, "", password) }))
	time.Sleep(5 * time.Second) // longer before the guess than clocks may differ
	d.neverCommitted(t, func() {
		must(t, d.DC.ValidatePassword(ctx, mallory.name, mallory.password(), victim.name, password))
	})
	d.arrived(t, victim)
}

// Where the guess came first, it cannot be told from a real change. So testGuessed knows that its guesses are the password. The capture gets
// the time that it has by default: a guess and a change may take a slow machine longer than the lab's three seconds.
func (d *domain) testForeseen(t *testing.T) {
	must(t, d.DC.Configure(ctx, strings.Replace(lab.DefaultConfig, "confirm_timeout", "# confirm_timeout", 1)))
	mallory, password, foreseen := d.newUser(t), d.NewForgeablePassword(), "foreseen"
	must(t, d.DC.CreateUser(ctx, foreseen, d.NewPassword()))
	must(t, d.DC.WithoutComplexity(ctx, foreseen, func() error {
		must(t, d.DC.ValidatePassword(ctx, mallory.name, mallory.password(), mallory.name, password))
		return d.DC.LDAPSReset(ctx, foreseen, "", password)
	}))
	proven := func() bool {
		return d.count(func(e lab.Event) bool { return e.Name == "proven" && e.Fields["account"] == foreseen }) == 2
	}
	d.wait(t, "the guess to be foreseen's new password", proven)
}

// neverCommitted demands that what happens in do has the hook accept one password that turns out to be nobody's new one. It tells by the
// capture, for another one may be given up at any time: of twins, one capture can serve both.
func (d *domain) neverCommitted(t *testing.T, do func()) {
	t.Helper()
	before, err := d.DC.Unnamed(ctx)
	must(t, err)
	do()
	var taken []string
	d.wait(t, "the hook to accept the password", func() bool {
		all, err := d.DC.Unnamed(ctx)
		must(t, err)
		taken = all[len(before):]
		return len(taken) > 0
	})
	d.wait(t, "the capture to have had its time", func() bool {
		return d.count(func(e lab.Event) bool { return e.Name == "never-committed" && e.Fields["capture"] == taken[0] }) == 1
	})
	if len(taken) != 1 {
		t.Errorf("the hook took %d passwords, and this test is about one", len(taken))
	}
}

func (d *domain) count(match func(lab.Event) bool) int { return d.log.Count(match) }

func (d *domain) wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
