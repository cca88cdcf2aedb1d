// Package keyring keeps the key pairs of a role: the one that the hook seals to now, and those that it sealed to before.
//
// What: Rotate puts a new pair in the place of the current one. A Ring opens boxes with whichever key they are sealed to, and destroys a
// retired one when nothing that can still be needed is sealed to it.
//
// Why: a key that opens everything that was ever captured makes each old copy of the spool readable to whoever gets that key, once. After
// a rotation and the life of a password in the spool, what such a copy holds stays closed for good.
//
// Files, of each role: keys/ROLE.key, private; keys/ROLE.pub, which the hook reads at each run; and keys/ROLE-retired/TIME-ID.key, which were
// ROLE.key until TIME (UTC). ID is the key ID that stands in each box (internal/seal).
//
// Steps of Rotate, each durable before the next begins: the new private key is written beside the old one; the old one gets its second
// name among the retired; the new one takes the first name; then the public key follows. So at each moment ROLE.key is there, every key that the
// hook may seal to is held by somebody, and what a crash leaves is taken up by the next Rotate (or `samba-pwsync init`, for the last
// step). A Ring that meets a box whose key it does not know looks at the files again, so a running service needs to be told nothing.
//
// Whom it trusts: the folder keys/ is root's. The folder of the retired belongs to the role, which has to write there to destroy a key; whoever
// has taken the role over can put keys there that open boxes of his own, or take some away, and has better means for either. Rotate,
// which is root, follows no name in it.
//
// What it does not solve: on flash, and on file systems that copy on write, overwriting a file leaves the old blocks where they are, until the
// device erases them: minutes to months. So do backups of keys/. Destroying a key ends what the files can tell; a forensic laboratory
// with the disk in hand needs an encrypted disk against it.
package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
)

// Files is where a role's keys lie.
type Files struct {
	Private string
	Public  string
	Retired string // folder
}

const (
	timeForm = "20060102T150405Z"
	suffix   = ".key"
	// LeastKept is how long a retired key is kept at least: a hook that read the old public key still writes with it, for 5 seconds.
	LeastKept = time.Minute

	// sureAfter is how long after the start, and after the clock was found to be set, no key is destroyed: a clock that is ahead for some minutes
	// would destroy at once what may be needed for days. A keep that is shorter than that is waited for instead.
	sureAfter = time.Hour
	// clockSlack is how far the time of day and the clock that nobody sets may part between two looks.
	clockSlack = time.Second
)

// retiredFile names the file of a key that was retired then.
func retiredFile(at time.Time, id seal.KeyID) string {
	return at.UTC().Format(timeForm) + "-" + id.String() + suffix
}

// retired is one name in the folder of the retired.
type retired struct {
	file string
	id   string
	at   time.Time
}

func listRetired(dir string) ([]retired, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing retired keys: %w", err)
	}
	var all []retired
	for _, e := range entries {
		stamp, id, ok := strings.Cut(strings.TrimSuffix(e.Name(), suffix), "-")
		at, err := time.Parse(timeForm, stamp)
		if ok && err == nil && e.Type().IsRegular() && strings.HasSuffix(e.Name(), suffix) {
			all = append(all, retired{e.Name(), id, at})
		}
	}
	return all, nil
}

// Key is what is told of a key.
type Key struct {
	ID      string    `json:"id"`
	Made    time.Time `json:"made"`
	Retired time.Time `json:"retired,omitzero"` // zero: the hook seals to it
	Due     time.Time `json:"due,omitzero"`     // when it is destroyed, unless it is kept
	Kept    string    `json:"kept,omitempty"`   // why it is not destroyed though it is due

	file string // in the folder of the retired
}

// Look tells of the keys as they lie on the disk, the current one first, without a look at what is secret of them. keep is as in Tend.
func Look(files Files, keep time.Duration) ([]Key, error) {
	public, err := seal.LoadPublic(files.Public)
	if err != nil {
		return nil, err
	}
	return look(files, public.ID(), keep)
}

func look(files Files, current seal.KeyID, keep time.Duration) ([]Key, error) {
	made, err := os.Stat(files.Private)
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w", err)
	}
	published, err := os.Stat(files.Public)
	if err != nil {
		return nil, fmt.Errorf("reading public key: %w", err)
	}
	list, err := listRetired(files.Retired)
	if err != nil {
		return nil, err
	}
	all := []Key{{ID: current.String(), Made: made.ModTime()}}
	for i, old := range list {
		if old.id == current.String() {
			continue // the second name of the current one: a rotation has just begun, or was broken off
		}
		at := old.at
		if i == len(list)-1 && published.ModTime().After(at) {
			at = published.ModTime() // its rotation was completed later than it was begun
		}
		k := Key{ID: old.id, Retired: at, Due: at.Add(max(keep, LeastKept)), file: old.file}
		if info, err := os.Lstat(filepath.Join(files.Retired, old.file)); err == nil {
			k.Made = info.ModTime()
		}
		all = append(all, k)
	}
	return all, nil
}

// Ring holds a role's private keys. It implements seal.Keys. Its methods may be called concurrently.
type Ring struct {
	files Files
	found atomic.Uint64

	mu      sync.Mutex
	current seal.KeyID
	keys    map[seal.KeyID]seal.PrivateKey
	told    []Key
	looked  time.Time // at the clock
	steady  time.Time // since when it has not been set, as far as we know
}

// Open reads the keys.
func Open(files Files) (*Ring, error) {
	now := time.Now()
	r := &Ring{files: files, looked: now, steady: now}
	if err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// Reload reads the keys anew. On an error the ring stays as it was.
func (r *Ring) Reload() error {
	_, err := r.reload()
	return err
}

// reload also returns which retired keys are there and could not be read, by ID.
func (r *Ring) reload() (unread map[string]error, err error) {
	current, err := seal.LoadPrivate(r.files.Private)
	if err != nil {
		return nil, err
	}
	list, err := listRetired(r.files.Retired)
	if err != nil {
		return nil, err
	}
	id := current.Public().ID()
	keys := map[seal.KeyID]seal.PrivateKey{id: current}
	unread = map[string]error{}
	for _, old := range list {
		key, err := seal.LoadPrivate(filepath.Join(r.files.Retired, old.file))
		switch {
		case errors.Is(err, fs.ErrNotExist): // destroyed meanwhile
		case err != nil:
			unread[old.id] = err
		default:
			keys[key.Public().ID()] = key
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current, r.keys = id, keys
	return unread, nil
}

// Find implements seal.Keys. A key that is not known is looked for on the disk, so the first box of a new key finds it. Of one that is there and
// cannot be read the error is the disk's: nothing that is sealed to it is given up for that.
func (r *Ring) Find(id seal.KeyID) (seal.PrivateKey, error) {
	r.found.Add(1)
	if key, ok := r.known(id); ok {
		return key, nil
	}
	unread, err := r.reload()
	if err != nil {
		return seal.PrivateKey{}, err
	}
	if key, ok := r.known(id); ok {
		return key, nil
	}
	if err := unread[id.String()]; err != nil {
		return seal.PrivateKey{}, err
	}
	return seal.PrivateKey{}, seal.ErrOtherKey
}

func (r *Ring) known(id seal.KeyID) (seal.PrivateKey, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key, ok := r.keys[id]
	return key, ok
}

// Used counts how often a key was asked for: that something secret has been in memory since.
func (r *Ring) Used() uint64 { return r.found.Load() }

// Status tells of the keys as Tend last found them, the current one first.
func (r *Ring) Status() []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.told)
}

// sure returns from when on a key may be destroyed, as far as the clock is concerned.
func (r *Ring) sure(now time.Time, keep time.Duration) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if by := now.Round(0).Sub(r.looked.Round(0)) - now.Sub(r.looked); by.Abs() > clockSlack {
		r.steady = now
	}
	r.looked = now
	return r.steady.Add(min(sureAfter, max(keep, LeastKept)))
}

// Tend destroys the retired keys that had their time and are not needed, and returns which. now is read from the clock; keep is how long after its retirement a key may be
// needed; needed says whether something that waits is sealed to it. An error of one key does not keep the others from being destroyed.
func (r *Ring) Tend(now time.Time, keep time.Duration, needed func(seal.KeyID) (bool, error)) (destroyed []string, err error) {
	if err := r.Reload(); err != nil {
		return nil, err
	}
	public, err := seal.LoadPublic(r.files.Public)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	current := r.current
	r.mu.Unlock()
	all, err := look(r.files, current, keep)
	if err != nil {
		return nil, err
	}
	told := all[:1:1]
	var errs []error
	sure := r.sure(now, keep)
	for _, k := range all[1:] {
		if k.Due.Before(sure) {
			k.Due = sure
		}
		switch why, err := r.why(k, now, public.ID(), needed); {
		case err != nil:
			k.Kept = "what waits cannot be read"
			errs = append(errs, err)
			told = append(told, k)
		case why != "" || now.Before(k.Due):
			k.Kept = why
			told = append(told, k)
		default:
			if err := durable.Shred(filepath.Join(r.files.Retired, k.file)); err != nil {
				k.Kept = "it cannot be overwritten"
				errs = append(errs, fmt.Errorf("destroying a retired key: %w", err))
				told = append(told, k)
				continue
			}
			destroyed = append(destroyed, k.ID)
		}
	}
	if len(destroyed) > 0 {
		errs = append(errs, r.Reload()) // forgets them
	}
	r.mu.Lock()
	r.told = told
	r.mu.Unlock()
	return destroyed, errors.Join(errs...)
}

// why says for what reason a key is to be kept although it is due.
func (r *Ring) why(k Key, now time.Time, public seal.KeyID, needed func(seal.KeyID) (bool, error)) (string, error) {
	if k.ID == public.String() {
		return "the hook still seals to it: the rotation was broken off, and samba-pwsync init completes it", nil
	}
	if now.Before(k.Due) {
		return "", nil
	}
	r.mu.Lock()
	var id seal.KeyID
	readable := false
	for held := range r.keys {
		if held.String() == k.ID {
			id, readable = held, true
		}
	}
	r.mu.Unlock()
	if !readable {
		return "", nil // opens nothing: half destroyed, by a crash
	}
	waits, err := needed(id)
	if err != nil || !waits {
		return "", err
	}
	return "passwords that wait are sealed to it", nil
}
