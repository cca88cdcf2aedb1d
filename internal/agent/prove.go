package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/agent/docket"
	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
	"github.com/samba-pwsync/samba-pwsync/internal/route"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// maxLooks bounds the searches at a time. Samba works off one connection's searches in turn: more of them would only put a
// fresh capture's search behind a longer line.
const maxLooks = 16

// prove looks at subjects as they have their turn, while the DC answers, until ctx ends.
func (a *Agent) prove(ctx context.Context) {
	var looks sync.WaitGroup
	defer looks.Wait()
	slots := make(chan struct{}, maxLooks)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		dc, err := a.link.get(ctx)
		if err != nil {
			return
		}
		s, err := a.docket.Next(ctx)
		if err != nil {
			return
		}
		looks.Go(func() {
			a.look(ctx, dc, s)
			<-slots
		})
	}
}

// look makes one search and acts on the answer.
func (a *Agent) look(ctx context.Context, dc Directory, s *docket.Subject) {
	began := time.Now()
	account, err := a.ask(ctx, dc, s)
	if errors.Is(err, directory.ErrUnavailable) {
		a.link.lost(dc, err)
	}
	if errors.Is(err, directory.ErrUnavailable) || ctx.Err() != nil {
		a.docket.Unanswered(s)
		return
	}
	if err == nil && !s.GUID.IsZero() && a.handed.holds(account) {
		a.docket.Done(s, false) // by a capture that named it
		return
	}
	stored := proof.Of(account)
	unfinished := false
	for derived := true; derived; {
		derived = false
		for _, f := range a.docket.Judge(s, account, stored, err, began) {
			switch {
			case ctx.Err() != nil:
				a.docket.Unanswered(s)
				return
			case f.Verdict == proof.Underived:
				derived = true
				if err := a.derive(f, stored); err != nil {
					a.docket.Skip(f, began)
					a.complain(ctx, f, err, "making the key of a capture")
					unfinished = true
				}
			case f.Verdict == proof.Current:
				if err := a.handOver(ctx, dc, f, account, began); err != nil {
					a.complain(ctx, f, err, "handing over a proven change")
					unfinished = true
				}
			case f.Overdue:
				a.dismiss(f, err)
			case f.News:
				a.log.HashMissing(f.Header.ID.String(), identity(account), f.Evidence.Why(stored))
			}
		}
	}
	a.docket.Done(s, unfinished)
}

// ask makes the search. Of captures without a name the directory cannot be asked: there the watch is sent to see who moved.
func (a *Agent) ask(ctx context.Context, dc Directory, s *docket.Subject) (directory.Account, error) {
	attributes := a.routes.Attributes()
	if a.docket.NeedsKeys(s) {
		attributes = append(slices.Clip(attributes), "supplementalCredentials")
	}
	switch {
	case !s.GUID.IsZero():
		return dc.AccountByGUID(ctx, s.GUID, attributes)
	case s.Name != "":
		return dc.AccountByName(ctx, s.Name, attributes)
	}
	if err := a.watch.Glance(ctx, dc); err != nil {
		return directory.Account{}, err
	}
	return directory.Account{}, directory.ErrNotFound
}

// derive makes the key that a capture is to be compared by.
func (a *Agent) derive(f docket.Finding, stored proof.Stored) error {
	c, err := a.reread(f)
	if err != nil {
		return err
	}
	return f.Evidence.Derive(a.key, c, stored)
}

// reread returns a capture that is in the docket. The error is errGone if its file is not what it was.
func (a *Agent) reread(f docket.Finding) (capture.Capture, error) {
	c, err := a.read(f.File)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, capture.ErrDamaged) || err == nil && c.Header != f.Header {
		return capture.Capture{}, errGone
	}
	return c, err
}

// handed remembers which password version of each account has been handed over. Another capture of the same one says nothing
// new: somebody made it with SamrValidatePassword, who knows the password or guesses. It is not handed over, so that nobody can keep the
// targets busy that way, and the forwarder does not learn which guess was right. Nor is it dropped before its time is over: somebody may
// have set the same password once more, and Samba runs the hook before it commits. A restart forgets, which costs one repetition of what was
// captured before the change or right after it; of anything later the docket tells that it is not the change.
type handed struct {
	mu    sync.Mutex
	known map[dsdb.GUID]version
	busy  map[dsdb.GUID]bool // accounts of which a capture is being handed over
}

// version is a password version of which a capture was proven.
type version struct {
	stamp   dsdb.Stamp
	targets []string // to which it was handed over; none: nobody wanted it
}

func newHanded() *handed { return &handed{known: map[dsdb.GUID]version{}, busy: map[dsdb.GUID]bool{}} }

// begin reports whether an account's capture may be handed over now: one at a time, so that no two of one version are. If so, end is
// to be called.
func (h *handed) begin(guid dsdb.GUID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy[guid] {
		return false
	}
	h.busy[guid] = true
	return true
}

func (h *handed) end(guid dsdb.GUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.busy, guid)
}

func (h *handed) holds(a directory.Account) bool {
	targets, _ := h.targets(a)
	return len(targets) > 0
}

// targets returns for whom the account's password was handed over; ok is false if no capture of it was proven.
func (h *handed) targets(a directory.Account) (targets []string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, found := h.known[a.GUID]
	if !found || !p.stamp.Equal(a.Stamp) {
		return nil, false
	}
	return p.targets, true
}

func (h *handed) note(a directory.Account, routes []change.Route) {
	p := version{stamp: a.Stamp}
	for _, r := range routes {
		p.targets = append(p.targets, r.Target)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known[a.GUID] = p
}

var (
	errGone = errors.New("the capture's file is not there any more, or another one")
	errBusy = errors.New("another capture of the account is being handed over")
)

// handOver gives a proven capture to the targets that want its account. began is when the search began that proved it.
// It may be repeated after any error and any crash.
func (a *Agent) handOver(ctx context.Context, dc Directory, f docket.Finding, account directory.Account, began time.Time) error {
	if !a.handed.begin(account.GUID) {
		return errBusy
	}
	defer a.handed.end(account.GUID)
	if a.handed.holds(account) {
		if !f.Overdue { // the same password may be on its way into the directory once more, as a version of its own
			return nil
		}
		a.log.Repeated(f.Header.ID.String(), identity(account))
		return a.finish(f)
	}
	routes, refusals, err := a.routes.Of(ctx, dc, account)
	if err != nil {
		return err
	}
	who, why := identity(account), inWords(refusals)
	if len(routes) == 0 {
		a.handed.note(account, nil)
		if err := a.finish(f); err != nil {
			return err
		}
		a.log.Unwanted(f.Header.ID.String(), who, why)
		return nil
	}
	c, err := a.reread(f)
	if err != nil {
		return err
	}
	proven := change.Change{
		Capture:   c.ID.String(),
		Account:   who,
		Stamp:     account.Stamp,
		Captured:  c.Time,
		Proven:    began,
		Routes:    routes,
		Header:    c.Raw,
		SecretBox: c.SecretBox,
		Peers:     a.watch.PeersBefore(c.Time),
	}
	if err := a.put(proven, f.Orphan); err != nil {
		return err
	}
	a.handed.note(account, routes)
	if err := a.finish(f); err != nil {
		return err
	}
	a.log.Proven(proven)
	if why != "" {
		a.log.Skipped(proven.Capture, who, why)
	}
	return nil
}

func inWords(refusals []route.Refusal) string {
	texts := make([]string, len(refusals))
	for i, r := range refusals {
		texts[i] = r.String()
	}
	return strings.Join(texts, "; ")
}

// put stores a change under its own name, so that a repetition after a crash meets what it left. An orphan may be proven for
// more than one account, and needs a name for each.
func (a *Agent) put(c change.Change, orphan bool) error {
	name := c.FileName()
	if orphan {
		name = strings.TrimSuffix(name, change.Suffix) + "-" + c.Account.GUID.String() + change.Suffix
	}
	b, err := c.Marshal()
	if err != nil {
		return fmt.Errorf("encoding change: %w", err)
	}
	err = a.outgoing.Put(name, b)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if old, err := a.outgoing.Read(name, change.MaxSize); err == nil {
		if there, err := change.Parse(old); err == nil && there.Stamp.Equal(c.Stamp) {
			// An agent that was killed may have written it and not synced, and after this the capture is shredded.
			if err := a.outgoing.Sync(name); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	// Torn by the crash, taken by the forwarder just now, or of a change that replication has replaced by another of the same version.
	if err := a.outgoing.Remove(name); err != nil {
		return fmt.Errorf("replacing %s: %w", name, err)
	}
	return a.outgoing.Put(name, b)
}

// finish shreds a capture that has been handed over or that nobody wants. An orphan stays: see package docket.
func (a *Agent) finish(f docket.Finding) error {
	if f.Orphan {
		return nil
	}
	if err := a.incoming.Remove(f.File); err != nil {
		return err // it stays in the docket: the next scan would take it in anew, and have its account looked up at once
	}
	a.docket.Remove(f)
	return nil
}

// complain about a capture of which something failed that was to be done. It stays and is looked at again.
func (a *Agent) complain(ctx context.Context, f docket.Finding, err error, doing string) {
	switch {
	case ctx.Err() != nil, errors.Is(err, directory.ErrUnavailable), errors.Is(err, directory.ErrNotFound), errors.Is(err, errBusy):
		// The DC went away, or the account, after the search; or another search was quicker. The next one deals with it.
	case errors.Is(err, errGone):
		a.docket.Remove(f) // what is there now will be met by the next scan
	default:
		if a.docket.FirstTrouble(f) {
			a.log.AgentTrouble(doing, err)
		}
	}
}

// dismiss ends a capture that had its time; cause is the error of its last search, if it was one.
func (a *Agent) dismiss(f docket.Finding, cause error) {
	// The DC did answer, but not the question. That says nothing about the capture, so one that is certainly of a change is kept for a human. Of
	// others anybody can have as many made as he likes, in the name of an account that cannot be looked up.
	unanswered := cause != nil && !errors.Is(cause, directory.ErrNotFound)
	id, name := f.Header.ID.String(), f.Header.Account
	if unanswered && !f.Header.Doubtful() {
		if a.setAside(f.File, name, cause) {
			a.docket.Remove(f)
		}
		return
	}
	if err := a.incoming.Remove(f.File); err != nil { // it stays, and has its turn again
		if a.docket.FirstTrouble(f) {
			a.log.AgentTrouble("shredding a capture", err)
		}
		return
	}
	a.docket.Remove(f)
	switch {
	case unanswered:
		a.log.Unanswered(id, name, cause)
	case f.Matched:
	case f.Orphan && f.Earlier:
		a.log.Unclaimed(id, name)
	case f.Verdict == proof.Unprovable:
		a.log.Unprovable(id, name)
	default:
		a.log.NeverCommitted(id, name)
	}
}

func identity(a directory.Account) change.Account {
	return change.Account{GUID: a.GUID, SAMAccountName: a.SAMAccountName, UserPrincipalName: a.UserPrincipalName}
}
