// Package targettest is the contract of a target as tests, the same for all: a target is what passes Run.
//
// Why: the contract of package target is what the forwarder relies on when a cloud is down, slow, wrong or hostile, that is,
// when nobody is looking. Written once as tests, a new target gets it with ten lines.
//
// The tests speak to a double of the server (the targets' own parts are all real), and to a liar: a server that answers
// everything, and puts what it was sent into every place of its answer.
//
// What it does not solve: whether the double is like the vendor. That is judged in package sandbox, against what the vendor
// publishes.
package targettest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// Suite is a target with its double.
type Suite struct {
	// New makes a fresh target, which speaks to the double, or if at is given to a server that stands in its place for
	// everything.
	New func(t testing.TB, at *Server) target.Target
	// Double is the server that the target speaks to.
	Double Double
	// Users are accounts of the double, Strangers names of accounts whose passwords it does not let us set, for whatever
	// reason.
	Users, Strangers []string
	// Faults are the double's own, beside those that all have (see commonFaults), with the class of the error.
	Faults map[string]target.Class
}

// Double is a server whose state and faults are in the test's hands.
type Double interface {
	// Misbehave makes a fault pending, Behave drops all.
	Misbehave(t testing.TB, f Fault)
	Behave(t testing.TB)
	// Verify reports whether password is what the server holds for user now.
	Verify(user, password string) bool
	// Writes counts the requests to set a password that reached the server, Logins those for a token or a session.
	Writes() int
	Logins() int
	// Trapped counts the requests that another host got, to which the server had sent us on.
	Trapped() int
	// Violations tells of requests that were wrong in form.
	Violations() []string
}

// Fault is an order to misbehave.
type Fault struct {
	Kind       string
	On         string // "token", "read" or "write"; empty: where the kind belongs
	Times      int    // 0: until Behave
	RetryAfter time.Duration
	Delay      time.Duration
}

// Server is where a target may be sent in place of its double.
type Server struct {
	URL    string // without a slash at the end
	CAFile string
}

// The password of the tests. Its middle is in no other text; around it stands what JSON, HTML and URLs write differently.
const (
	canary   = "Kx7" + marrow + "<&\"\\%+'é 9"
	marrow   = "zQcAnArYv"
	password = "Correct-Horse-7" // for the tests that are not about leaks
)

// commonFaults are those that each double has.
var commonFaults = map[string]target.Class{
	"404":           target.NoUser,
	"409":           target.Temporary,
	"412":           target.Temporary,
	"429":           target.Throttled,
	"500":           target.Temporary,
	"502":           target.Temporary,
	"503":           target.Temporary,
	"504":           target.Temporary,
	"504-applied":   target.Temporary,
	"cut":           target.Temporary,
	"cut-applied":   target.Temporary,
	"redirect":      target.Denied,
	"echo":          target.Rejected,
	"expired-token": target.Throttled,
}

// loginFaults strike before anything can be written.
var loginFaults = map[string]target.Class{
	"invalid-grant":  target.Denied,
	"invalid-client": target.Denied,
	"503":            target.Temporary,
	"cut":            target.Temporary,
	"redirect":       target.Denied,
	"echo":           target.Denied,
}

// Run runs the contract.
func Run(t *testing.T, s Suite) {
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"set", s.set},
		{"set twice", s.setTwice},
		{"applied but the answer was lost", s.lostAnswer},
		{"classes", s.classes},
		{"classes at login", s.loginClasses},
		{"strangers", s.strangers},
		{"retry after", s.retryAfter},
		{"revoked token", s.revokedToken},
		{"no redirect", s.noRedirect},
		{"check", s.check},
		{"at the same time", s.concurrent},
		{"gives up with its caller", s.givesUp},
		{"accepts", s.accepts},
		{"never echoes", s.neverEchoes},
		{"silent", s.silent},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Cleanup(func() { s.Double.Behave(t) })
			test.run(t)
			if v := s.Double.Violations(); len(v) > 0 {
				t.Errorf("requests wrong in form: %q", v)
			}
		})
	}
}

// fresh makes a target that has no token and no connection yet.
func (s Suite) fresh(t testing.TB) target.Target {
	t.Helper()
	tgt := s.New(t, nil)
	t.Cleanup(func() {
		if err := tgt.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return tgt
}

// attempt sets a password and looks at the error, whatever it is.
func (s Suite) attempt(t testing.TB, tgt target.Target, user, password string) error {
	t.Helper()
	p := secret.New([]byte(password))
	err := tgt.SetPassword(t.Context(), target.User{Name: user}, p)
	if string(p.Bytes()) != password {
		t.Error("the target changed the caller's password")
	}
	mustNotLeak(t, err, password)
	return err
}

func (s Suite) mustSet(t testing.TB, tgt target.Target, user, password string) {
	t.Helper()
	if err := s.attempt(t, tgt, user, password); err != nil {
		t.Fatalf("setting password: %v", err)
	}
	s.mustHold(t, user, password)
}

func (s Suite) mustHold(t testing.TB, user, password string) {
	t.Helper()
	if !s.Double.Verify(user, password) {
		t.Fatal("the double does not hold the password")
	}
}

func (s Suite) mustBe(t testing.TB, err error, want target.Class) {
	t.Helper()
	if got := target.Classify(err); got != want {
		t.Errorf("class %s, want %s: %v", got, want, err)
	}
}

// mustWrite runs f and tells if it made another number of requests than n: one attempt a call is the contract.
func (s Suite) mustWrite(t testing.TB, n int, f func()) {
	t.Helper()
	before := s.Double.Writes()
	f()
	if made := s.Double.Writes() - before; made != n {
		t.Errorf("%d requests to set the password, want %d", made, n)
	}
}

func (s Suite) set(t *testing.T) {
	tgt := s.fresh(t)
	s.mustWrite(t, 1, func() { s.mustSet(t, tgt, s.Users[0], password) })
	if s.Double.Verify(s.Users[0], password+" ") {
		t.Error("the double holds any password: these tests prove nothing")
	}
}

func (s Suite) setTwice(t *testing.T) {
	tgt := s.fresh(t)
	s.mustWrite(t, 3, func() {
		s.mustSet(t, tgt, s.Users[0], password)
		s.mustSet(t, tgt, s.Users[0], password)
		s.mustSet(t, tgt, s.Users[0], password+"8")
	})
}

func (s Suite) lostAnswer(t *testing.T) {
	for i, kind := range []string{"504-applied", "cut-applied"} {
		t.Run(kind, func(t *testing.T) {
			tgt := s.fresh(t)
			applied := fmt.Sprint(password, i)
			s.Double.Misbehave(t, Fault{Kind: kind, Times: 1})
			s.mustWrite(t, 1, func() { s.mustBe(t, s.attempt(t, tgt, s.Users[0], applied), target.Temporary) })
			s.mustHold(t, s.Users[0], applied)
			s.mustSet(t, tgt, s.Users[0], applied)
		})
	}
}

func (s Suite) classes(t *testing.T) {
	tgt := s.fresh(t)
	s.mustSet(t, tgt, s.Users[0], password)
	for _, faults := range []map[string]target.Class{commonFaults, s.Faults} {
		for kind, want := range faults {
			t.Run(kind, func(t *testing.T) {
				defer s.Double.Behave(t)
				s.Double.Misbehave(t, Fault{Kind: kind, On: "write", Times: 1})
				s.mustWrite(t, 1, func() { s.mustBe(t, s.attempt(t, tgt, s.Users[0], canaryFor(tgt)), want) })
				s.mustSet(t, tgt, s.Users[0], password) // and the target is none the worse
			})
		}
	}
}

func (s Suite) loginClasses(t *testing.T) {
	for kind, want := range loginFaults {
		t.Run(kind, func(t *testing.T) {
			defer s.Double.Behave(t)
			tgt := s.fresh(t)
			s.Double.Misbehave(t, Fault{Kind: kind, On: "token"})
			logins := s.Double.Logins()
			s.mustWrite(t, 0, func() { s.mustBe(t, s.attempt(t, tgt, s.Users[0], canaryFor(tgt)), want) })
			if n := s.Double.Logins() - logins; n != 1 {
				t.Errorf("%d requests for a token, want 1", n)
			}
			err := tgt.Check(t.Context())
			s.mustBe(t, err, want)
			mustNotLeak(t, err, canary)
			s.Double.Behave(t)
			s.mustSet(t, tgt, s.Users[0], password)
		})
	}
}

func (s Suite) strangers(t *testing.T) {
	tgt := s.fresh(t)
	s.mustSet(t, tgt, s.Users[0], password)
	for _, name := range s.Strangers {
		s.mustWrite(t, 1, func() {
			err := s.attempt(t, tgt, name, password)
			if class := target.Classify(err); class != target.Forbidden { // where the answer does not tell whether it is about us
				s.mustBe(t, err, target.NoUser)
			}
		})
	}
	for _, name := range []string{"", ".", "..", "a\nb@example.com", "a b@example.com", "\xff@example.com"} {
		s.mustWrite(t, 0, func() { s.mustBe(t, s.attempt(t, tgt, name, password), target.NoUser) })
	}
	for _, name := range []string{"../x", "a/b@example.com", "a?b@example.com", "a#b@example.com", "a%2e@example.com", "{a}@example.com"} {
		s.mustBe(t, s.attempt(t, tgt, name, password), target.NoUser) // and the double sees one user's name, not another path
	}
}

func (s Suite) retryAfter(t *testing.T) {
	tgt := s.fresh(t)
	for _, kind := range []string{"429", "503"} {
		s.Double.Misbehave(t, Fault{Kind: kind, Times: 1, RetryAfter: 7 * time.Second})
		err := s.attempt(t, tgt, s.Users[0], password)
		s.mustBe(t, err, target.Throttled)
		if d := target.Delay(err); d != 7*time.Second {
			t.Errorf("%s: to be retried after %v, want 7s", kind, d)
		}
	}
}

// revokedToken: one refused token costs one attempt, not the target.
func (s Suite) revokedToken(t *testing.T) {
	tgt := s.fresh(t)
	s.mustSet(t, tgt, s.Users[0], password)
	for range 3 { // each time anew
		s.Double.Misbehave(t, Fault{Kind: "expired-token", On: "write", Times: 1})
		s.mustBe(t, s.attempt(t, tgt, s.Users[0], password), target.Throttled)
		s.mustSet(t, tgt, s.Users[0], password)
	}
	s.Double.Misbehave(t, Fault{Kind: "401"})
	s.mustBe(t, s.attempt(t, tgt, s.Users[0], password), target.Throttled)
	s.mustBe(t, s.attempt(t, tgt, s.Users[0], password), target.Denied)
	s.mustBe(t, tgt.Check(t.Context()), target.Denied)
	s.Double.Behave(t)
	if err := tgt.Check(t.Context()); err != nil {
		t.Errorf("checking after the trouble: %v", err)
	}
	s.mustSet(t, tgt, s.Users[0], password)
}

func (s Suite) noRedirect(t *testing.T) {
	for _, on := range []string{"token", "read", "write"} {
		tgt := s.fresh(t)
		s.Double.Misbehave(t, Fault{Kind: "redirect", On: on})
		if on != "read" {
			s.mustBe(t, s.attempt(t, tgt, s.Users[0], password), target.Denied)
		}
		if on != "write" {
			s.mustBe(t, tgt.Check(t.Context()), target.Denied)
		}
		s.Double.Behave(t)
	}
	if n := s.Double.Trapped(); n > 0 {
		t.Errorf("%d requests followed a redirect to another host", n)
	}
}

func (s Suite) check(t *testing.T) {
	tgt := s.fresh(t)
	s.mustSet(t, tgt, s.Users[0], password)
	s.mustWrite(t, 0, func() {
		if err := tgt.Check(t.Context()); err != nil {
			t.Errorf("checking: %v", err)
		}
		for kind, want := range map[string]target.Class{"503": target.Temporary, "429": target.Throttled, "cut": target.Temporary} {
			s.Double.Misbehave(t, Fault{Kind: kind, On: "read"})
			s.mustBe(t, tgt.Check(t.Context()), want)
			s.Double.Behave(t)
		}
	})
	s.mustHold(t, s.Users[0], password)
}

// concurrent: never twice at once for one account, as the contract has it.
func (s Suite) concurrent(t *testing.T) {
	tgt := s.fresh(t)
	logins := s.Double.Logins()
	var all sync.WaitGroup
	for i, user := range s.Users {
		all.Go(func() {
			for n := range 5 {
				p := secret.New(fmt.Append(nil, password, i, n))
				tgt.Accepts(p)
				if err := tgt.SetPassword(t.Context(), target.User{Name: user}, p); err != nil {
					t.Errorf("setting password: %v", err)
				}
				if !s.Double.Verify(user, fmt.Sprint(password, i, n)) {
					t.Errorf("the double holds another password for %s", user)
				}
			}
		})
	}
	all.Go(func() {
		if err := tgt.Check(t.Context()); err != nil {
			t.Errorf("checking: %v", err)
		}
	})
	all.Wait()
	if n := s.Double.Logins() - logins; n > 2 { // Check asks for one of its own
		t.Errorf("%d requests for a token, want at most 2", n)
	}
}

// givesUp: one caller hangs, at login or at the write; another one with less patience does not wait for it.
func (s Suite) givesUp(t *testing.T) {
	for _, on := range []string{"token", "write"} {
		t.Run(on, func(t *testing.T) {
			defer s.Double.Behave(t)
			tgt := s.fresh(t)
			s.Double.Misbehave(t, Fault{Kind: "slow", On: on, Delay: time.Hour})
			patient, cancel := context.WithCancel(t.Context())
			var hanging sync.WaitGroup
			hanging.Go(func() {
				err := tgt.SetPassword(patient, target.User{Name: s.Users[0]}, secret.New([]byte(canary)))
				if !errors.Is(err, context.Canceled) {
					t.Errorf("the cancelled caller got: %v", err)
				}
				mustNotLeak(t, err, canary)
			})
			hurried, done := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer done()
			start := time.Now()
			err := tgt.SetPassword(hurried, target.User{Name: s.Users[1]}, secret.New([]byte(canary)))
			if !errors.Is(err, context.DeadlineExceeded) || target.Classify(err) != target.Temporary {
				t.Errorf("the hurried caller got: %v", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("the hurried caller waited %v", took)
			}
			start = time.Now()
			cancel()
			hanging.Wait()
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("the cancelled caller waited another %v", took)
			}
		})
	}
}

// passwords are of all lengths near the limits, of few and of many kinds of characters.
var passwords = rapid.Custom(func(t *rapid.T) string {
	alphabet := rapid.SampledFrom([]string{
		"abcdefghijkmnopqrstuvwxyz", "ABCDEFGHJKLMN23456789", "abcDEF234",
		"abcDEF234 @#$%^&*-_!+=[]{}|\\:',.?/`~\"();<>", "abcDEF234\t\x7f", "abcDEF2äß€😀\u2028",
	}).Draw(t, "alphabet")
	length := rapid.OneOf(rapid.IntRange(6, 20), rapid.SampledFrom([]int{1, 7, 8, 99, 100, 101, 255, 256, 257, 300})).Draw(t, "length")
	return rapid.StringOfN(rapid.SampledFrom([]rune(alphabet)), length, length, -1).Draw(t, "password")
})

func (s Suite) accepts(t *testing.T) {
	tgt := s.fresh(t)
	user := s.Users[0]
	s.mustSet(t, tgt, user, password)
	rapid.Check(t, func(r *rapid.T) {
		p := passwords.Draw(r, "password")
		reasons := tgt.Accepts(secret.New([]byte(p)))
		err := s.attempt(t, tgt, user, p)
		switch {
		case err == nil && !s.Double.Verify(user, p):
			r.Fatal("the double holds another password")
		case err == nil && reasons != nil:
			r.Fatalf("Accepts warns (%q) of a password that is taken", reasons)
		case err != nil && target.Classify(err) != target.Rejected:
			r.Fatalf("class %s: %v", target.Classify(err), err)
		case err != nil && reasons == nil:
			r.Fatalf("Accepts does not warn of a password that is refused: %v", err)
		}
	})
	for _, p := range []string{"", "\xff\xfeabcDEF234", "abcDEF2\xc3"} {
		if tgt.Accepts(secret.New([]byte(p))) == nil {
			t.Errorf("Accepts does not warn of %q", p)
		}
	}
	s.mustWrite(t, 0, func() { s.mustBe(t, s.attempt(t, tgt, user, "\xff\xfeabcDEF234"), target.Rejected) })
}

// inSilence is set in the process that silent starts.
const inSilence = "TARGETTEST_IN_SILENCE"

// silent runs the tests that succeed and some that fail again, with every variable set that makes a vendor's library talk.
func (s Suite) silent(t *testing.T) {
	if os.Getenv(inSilence) != "" {
		return
	}
	name := strings.Split(t.Name(), "/")[0]
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+name+"$/^(set|classes|check)$")
	again.Env = append(os.Environ(), inSilence+"=1", "GOOGLE_SDK_GO_LOGGING_LEVEL=debug", "AZURE_SDK_GO_LOGGING=all")
	var stdout, stderr strings.Builder
	again.Stdout, again.Stderr = &stdout, &stderr
	if err := again.Run(); err != nil {
		t.Fatalf("running again: %v", err)
	}
	if !strings.Contains(stdout.String(), "--- PASS: "+name+"/classes") {
		t.Fatal("the tests did not run again")
	}
	if stderr.Len() > 0 {
		t.Errorf("the target wrote %d bytes to stderr", stderr.Len())
	}
	for _, p := range []string{marrow, password} {
		if strings.Contains(stdout.String(), p) {
			t.Error("a password stands on stdout")
		}
	}
}

// canaryFor is the canary as the target takes it.
func canaryFor(tgt target.Target) string {
	if tgt.Accepts(secret.New([]byte(canary))) == nil {
		return canary
	}
	return strings.ReplaceAll(canary, "é", "")
}
