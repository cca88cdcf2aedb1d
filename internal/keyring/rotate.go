package keyring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
)

// ErrBusy means that another rotation is under way.
var ErrBusy = errors.New("another rotation is under way")

// Rotation is what Rotate did.
type Rotation struct {
	Old, New string // key IDs
	// Resumed: a rotation that had been broken off was completed, and no other one begun.
	Resumed bool
}

// Rotate gives a role a new key pair. give hands a private key to the role's user. It may be repeated after any error and any crash.
func Rotate(files Files, give func(path string) error, now time.Time) (Rotation, error) {
	lock, err := os.Open(filepath.Dir(files.Private))
	if err != nil {
		return Rotation{}, fmt.Errorf("locking keys: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrBusy
		}
		return Rotation{}, fmt.Errorf("locking keys: %w", err)
	}
	r := &rotation{files: files, give: give, now: now}
	for _, step := range r.steps() {
		if err := step(); err != nil {
			return Rotation{}, fmt.Errorf("rotating %s: %w", files.Private, err)
		}
		if r.result.Resumed {
			break
		}
	}
	return r.result, nil
}

// rotation is one Rotate, cut where a crash may cut it.
type rotation struct {
	files  Files
	give   func(path string) error
	now    time.Time
	old    seal.PrivateKey
	next   seal.PrivateKey
	result Rotation
}

func (r *rotation) steps() []func() error {
	return []func() error{r.resume, r.make, r.retire, r.exchange, r.publish}
}

func (r *rotation) nextFile() string { return r.files.Private + ".next" }

// resume completes what was broken off before its last step.
func (r *rotation) resume() (err error) {
	if r.old, err = seal.LoadPrivate(r.files.Private); err != nil {
		return err
	}
	public, err := seal.LoadPublic(r.files.Public)
	if err != nil {
		return err
	}
	id := r.old.Public().ID()
	if public.ID() == id {
		return nil
	}
	r.result = Rotation{Old: public.ID().String(), New: id.String(), Resumed: true}
	return durable.Replace(r.files.Public, r.old.Public().MarshalPEM(), 0o644)
}

// make writes the new private key. Nobody has sealed to what an earlier one left here.
func (r *rotation) make() (err error) {
	if err := durable.Shred(r.nextFile()); err != nil {
		return err
	}
	if r.next, err = seal.Generate(); err != nil {
		return err
	}
	text, err := r.next.MarshalPEM()
	if err != nil {
		return err
	}
	defer clear(text)
	if err := durable.Create(r.nextFile(), text, 0o600); err != nil {
		return err
	}
	return r.give(r.nextFile())
}

// retire gives the old key its second name.
func (r *rotation) retire() error {
	id := r.old.Public().ID()
	list, err := listRetired(r.files.Retired)
	if err != nil {
		return err
	}
	for _, before := range list {
		if before.id == id.String() { // of a rotation that got no further; the contents are the current key's, so the name only
			if err := durable.Remove(filepath.Join(r.files.Retired, before.file)); err != nil {
				return err
			}
		}
	}
	return durable.Link(r.files.Private, filepath.Join(r.files.Retired, retiredFile(r.now, id)))
}

// exchange puts the new key into the place of the old one, whose file lives on under its second name.
func (r *rotation) exchange() error { return durable.Move(r.nextFile(), r.files.Private) }

// publish has the hook seal to the new key, from its next run.
func (r *rotation) publish() error {
	r.result = Rotation{Old: r.old.Public().ID().String(), New: r.next.Public().ID().String()}
	return durable.Replace(r.files.Public, r.next.Public().MarshalPEM(), 0o644)
}
