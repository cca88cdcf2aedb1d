package directory

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// process is one of a DC's LDAP processes.
type process struct {
	fake
	mu    sync.Mutex
	asked []string // filters
	wait  chan struct{}
}

// newProcess answers every search for accounts with none, once wait is closed.
func newProcess(wait chan struct{}) *process {
	p := &process{wait: wait}
	p.answer = func(s search) *reply {
		if s.base == fakeSchema { // to keep it busy
			return &reply{}
		}
		p.mu.Lock()
		p.asked = append(p.asked, s.filter)
		p.mu.Unlock()
		if p.wait != nil {
			<-p.wait
		}
		return &reply{}
	}
	return p
}

func (p *process) questions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

// widened returns a connection with a lane to each process.
func widened(t *testing.T, processes ...*process) *DC {
	t.Helper()
	dc := dialFake(t, &processes[0].fake)
	next := 1
	dc.again = func(ctx context.Context) (*DC, error) {
		ours, theirs := net.Pipe()
		go processes[next].serve(theirs)
		next++
		return open(ctx, ours, "ldapi")
	}
	if err := dc.Widen(t.Context(), len(processes)); err != nil {
		t.Fatal(err)
	}
	if next != len(processes) {
		t.Fatalf("%d connections", next)
	}
	return dc
}

func lookUp(t *testing.T, dc *DC, name string) {
	t.Helper()
	if _, err := dc.AccountByName(t.Context(), name, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("%s: %v", name, err)
	}
}

func TestABusyProcessHoldsUpNoQuestion(t *testing.T) {
	wait := make(chan struct{})
	busy, alsoBusy, idle := newProcess(wait), newProcess(wait), newProcess(nil)
	dc := widened(t, busy, alsoBusy, idle)
	for _, name := range []string{"liz", "tom", "tim"} {
		lookUp(t, dc, name)
	}
	// The first question found out who is busy; the others were put where there is an answer.
	if b, a, i := busy.questions(), alsoBusy.questions(), idle.questions(); b != 1 || a != 1 || i != 3 {
		t.Errorf("%d, %d and %d questions", b, a, i)
	}
	close(wait)
	for dc.lanes[0].stuck.Load() != 0 { // until its answer has come
		lookUp(t, dc, "anybody")
	}
	// A machine that is busy itself may let the first appear so once more.
	before := busy.questions()
	for deadline := time.Now().Add(10 * time.Second); busy.questions() == before; lookUp(t, dc, "liz") {
		if time.Now().After(deadline) {
			t.Fatal("the first is not asked, though it is not busy any more")
		}
	}
}

func TestAllProcessesBusy(t *testing.T) {
	wait := make(chan struct{})
	p := []*process{newProcess(wait), newProcess(wait)}
	dc := widened(t, p...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := dc.AccountByName(ctx, "liz", nil)
		done <- err
	}()
	for p[1].questions() == 0 { // then both have been asked
		select {
		case err := <-done:
			t.Fatalf("an answer from nowhere: %v", err)
		default:
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(wait)
	lookUp(t, dc, "tom")
}

func TestAnswersOfEveryLaneAreAnswers(t *testing.T) {
	wait := make(chan struct{})
	defer close(wait)
	busy, idle := newProcess(wait), newProcess(nil)
	idle.answer = func(s search) *reply { return &reply{code: ldap.LDAPResultInsufficientAccessRights} }
	dc := widened(t, busy, idle)
	if _, err := dc.AccountByName(t.Context(), "liz", nil); !ldap.IsErrorWithCode(err, ldap.LDAPResultInsufficientAccessRights) {
		t.Error(err)
	}
	idle.answer = func(search) *reply { return nil } // hangs up
	if _, err := dc.AccountByName(t.Context(), "liz", nil); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

func TestPagesStayOnOneLane(t *testing.T) {
	first, second := newProcess(nil), newProcess(nil)
	pages := 0
	first.answer = func(s search) *reply {
		if s.paged {
			pages++
		}
		if s.paged && s.cookie == "" {
			return &reply{cookie: "next"}
		}
		return &reply{}
	}
	dc := widened(t, first, second)
	dc.lanes[0].stuck.Add(1) // else the first is asked anyway
	if _, _, err := dc.Unhashed(t.Context(), 1); err != nil || pages != 2 || second.questions() != 0 {
		t.Errorf("%v, %d pages, %q", err, pages, second.asked)
	}
}

func TestWidenFails(t *testing.T) {
	p := newProcess(nil)
	dc := dialFake(t, &p.fake)
	refused := errors.New("refused")
	dc.again = func(context.Context) (*DC, error) { return nil, refused }
	if err := dc.Widen(t.Context(), 3); !errors.Is(err, refused) {
		t.Error(err)
	}
	lookUp(t, dc, "liz")
	if !slices.ContainsFunc(p.asked, func(filter string) bool { return filter != "" }) {
		t.Error("it was not asked")
	}
}
