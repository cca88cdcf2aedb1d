// Package proof judges captures: is the captured password the account's current one?
//
// What: Evidence is what an opened proof box tells of a captured password; Of is what one search told of the account's. Judge
// compares the two. Pause and Overdue say how long a capture may wait for its proof.
//
// Why: a check password script that answered 0 proves nothing. Afterwards Samba can still refuse the change (history), and any
// domain user can have the script run with somebody else's name and a password of his choice (SamrValidatePassword). The
// directory alone knows, and it is asked by comparing hashes, never by a login attempt: nobody gets locked out.
//
// How: where the directory stores the NT hash, that is compared, whatever the box holds. Where it does not (`nt hash store = never`)
// the AES256 key of Kerberos is, if the box holds the password: the key is made of password and salt (RFC 3962), with the salt and
// the iterations that are stored beside it, so that an account which was renamed since its last change is proven all the same.
// The key counts only if the change that the stamp names stored it: a hash that is written past Samba's password module leaves the
// older password's key behind.
//
// A password is in clear here for as long as one key takes to be made, a millisecond or two. Evidence keeps hash and keys, and the
// box is opened anew for each key. That also bounds what a capture costs: the same key is not made twice.
//
// Whom it trusts: the directory, and nobody else. Where a capture comes from and what it claims has no weight here.
//
// What it does not solve: where neither is stored nothing can be proven; that is a verdict of its own. And gokrb5, which makes the
// keys, makes copies of the password that cannot be wiped; they go with the garbage.
package proof

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/crypto/rfc3962"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Verdict is the answer of one look.
type Verdict string

// The verdicts. That a password never becomes current shows only by waiting: see Overdue.
const (
	Current    Verdict = "current"    // the directory holds the captured password now
	NotYet     Verdict = "not yet"    // it holds another one: not committed yet, refused, forged, or replaced since
	Underived  Verdict = "underived"  // it holds a key, and Derive has not made the captured password's yet
	Unprovable Verdict = "unprovable" // it stores nothing that could be compared
)

// Basis is what a capture and an account are compared by.
type Basis string

// The bases. With the last two nothing can be proven.
const (
	NTHash  Basis = "stored"  // the NT hash, which is stored
	AES256  Basis = "aes256"  // the AES256 key
	NoHash  Basis = "missing" // no NT hash is stored, and the capture holds no password of which a key could be made
	Nothing Basis = "none"    // neither NT hash nor AES256 key is stored
)

// maxIterations bounds the price of a key. Samba and Windows use 4,096.
const maxIterations = 1 << 16

// Stored is what one search found of an account's password; made by Of.
type Stored struct {
	hash       []byte
	key        []byte // AES256
	salt       string
	iterations uint32
	lack       error // why there is no key
}

// Format implements fmt.Formatter without what is stored.
func (Stored) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[stored]")) }

var (
	errNoStamp    = errors.New("the directory does not tell when the password was set")
	errNoKey      = errors.New("neither NT hash nor AES256 key is stored: set `nt hash store = always` in smb.conf")
	errUndecoded  = errors.New("no NT hash is stored, and what else is cannot be read")
	errOlderKey   = errors.New("no NT hash is stored, and the AES256 key is of an older password")
	errIterations = errors.New("no NT hash is stored, and the AES256 key is made with an absurd number of iterations")
)

// Of reads what an account that was looked up with its supplementalCredentials can be compared by.
func Of(a directory.Account) Stored {
	if a.Stamp.IsZero() {
		return Stored{lack: errNoStamp}
	}
	s := Stored{hash: a.NTHash}
	if len(s.hash) > 0 {
		return s
	}
	all, err := dsdb.ParseSupplementalCredentials(a.SupplementalCredentials)
	key, salt, ok := all.AES256()
	switch {
	case err != nil:
		s.lack = fmt.Errorf("%w: %w", errUndecoded, err)
	case !ok:
		s.lack = errNoKey
	case a.MetaData.HashOnly(all):
		s.lack = errOlderKey
	case key.Iterations == 0 || key.Iterations > maxIterations:
		s.lack = errIterations
	default:
		s.key, s.salt, s.iterations = key.Value, salt, key.Iterations
	}
	return s
}

// Evidence is what is kept of a captured password: its NT hash, and the keys made of it so far. It hangs behind a func, so that fmt
// prints an address and no hash, also where the Evidence is a field of something else. Copies share it, and its methods may be
// called concurrently.
type Evidence struct {
	held func() *held
}

type held struct {
	password bool // the box holds it, so keys can be made

	mu    sync.Mutex
	hash  [16]byte
	keys  []derived // the newest last
	wiped bool
}

type derived struct {
	salt       string
	iterations uint32
	key        []byte
}

// keptKeys is how many keys an Evidence keeps: more than there are looks at a time, so that none goes before it was compared.
const keptKeys = 64

// Open reads the proof box of a capture. Errors: seal.ErrOtherKey, seal.ErrDamaged, box.ErrUnknown.
func Open(key seal.Keys, c capture.Capture) (Evidence, error) {
	overwriteStack(len(c.ProofBox)) // grows the stack now: one that grows later leaves its old place as it is
	e, err := open(key, c)
	overwriteStack(len(c.ProofBox))
	return e, err
}

// overwriteStack clears what functions that have returned left below the caller's frame: a goroutine that then waits for the next capture would keep
// the hash of this one there, where no garbage collector comes. i may be anything; it keeps the compiler from leaving the work out.
//
//go:noinline
func overwriteStack(i int) byte {
	var room [8 << 10]byte
	clear(room[:])
	return room[i&(len(room)-1)]
}

//go:noinline
func open(key seal.Keys, c capture.Capture) (Evidence, error) {
	content, err := unseal(key, c)
	if err != nil {
		return Evidence{}, err
	}
	defer content.Destroy()
	hash, password, err := box.Decode(content.Bytes())
	if err != nil {
		return Evidence{}, fmt.Errorf("reading proof: %w", err)
	}
	h := &held{hash: hash}
	if password != nil {
		utf16 := checkpassword.UTF16LE(password)
		defer clear(utf16)
		h.hash, h.password = dsdb.NTHash(utf16), true
	}
	return Evidence{func() *held { return h }}, nil
}

func unseal(key seal.Keys, c capture.Capture) (secret.Secret, error) {
	content, err := seal.Open(key, capture.ProofInfo(c.Raw), c.ProofBox)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("opening proof box: %w", err)
	}
	return content, nil
}

// HasPassword reports whether the box holds the password, so that the account's supplementalCredentials are of use.
func (e Evidence) HasPassword() bool { return e.held().password }

// Basis says what e and an account are compared by.
func (e Evidence) Basis(s Stored) Basis {
	switch {
	case len(s.hash) == len(e.held().hash):
		return NTHash
	case s.lack == errNoStamp:
		return Nothing
	case !e.HasPassword():
		return NoHash
	case s.lack != nil:
		return Nothing
	}
	return AES256
}

var errNoPassword = errors.New(`no NT hash is stored: set [directory] proof = "aes256"`)

// Why says why e and an account cannot be compared, nil if they can.
func (e Evidence) Why(s Stored) error {
	switch e.Basis(s) {
	case NoHash:
		return errNoPassword
	case Nothing:
		return s.lack
	}
	return nil
}

// Judge compares e with what one search found of an account. The comparison takes the same time wherever the values differ.
func (e Evidence) Judge(s Stored) Verdict {
	h := e.held()
	h.mu.Lock()
	defer h.mu.Unlock()
	var mine, stored []byte
	switch e.Basis(s) {
	case NTHash:
		mine, stored = h.hash[:], s.hash
	case AES256:
		i := h.find(s)
		if i < 0 {
			return Underived
		}
		mine, stored = h.keys[i].key, s.key
	default:
		return Unprovable
	}
	if subtle.ConstantTimeCompare(mine, stored) == 1 {
		return Current
	}
	return NotYet
}

func (h *held) find(s Stored) int {
	return slices.IndexFunc(h.keys, func(d derived) bool { return d.salt == s.salt && d.iterations == s.iterations })
}

// Derive makes the key for which Judge answered Underived, of the capture that e was opened from.
func (e Evidence) Derive(key seal.Keys, c capture.Capture, s Stored) error {
	content, err := unseal(key, c)
	if err != nil {
		return err
	}
	defer content.Destroy()
	_, password, err := box.Decode(content.Bytes())
	if err != nil {
		return fmt.Errorf("reading proof: %w", err)
	}
	made, err := rfc3962.StringToKeyIter(string(password), s.salt, int64(s.iterations), crypto.Aes256CtsHmacSha96{})
	if err != nil {
		return fmt.Errorf("making an AES256 key: %w", err)
	}
	e.held().keep(derived{s.salt, s.iterations, made})
	return nil
}

func (h *held) keep(d derived) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wiped {
		clear(d.key)
		return
	}
	if len(h.keys) == keptKeys {
		clear(h.keys[0].key)
		h.keys = slices.Delete(h.keys, 0, 1)
	}
	h.keys = append(h.keys, d)
}

// Wipe overwrites hash and keys, for every copy of e. Nothing is to be judged with it afterwards.
func (e Evidence) Wipe() {
	h := e.held()
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.hash[:])
	for _, d := range h.keys {
		clear(d.key)
	}
	h.keys, h.wiped = nil, true
}

const (
	eager      = 300 * time.Millisecond // most changes are committed by then
	firstPause = 3 * time.Millisecond
	lastPause  = 5 * time.Second

	// settle is how long a capture is kept at least after it was first seen, however old its time says it is: the clock may have
	// been set, or the machine suspended, while Samba's transaction was open. Samba gives the script 10 s.
	settle = 15 * time.Second
)

// Pause says when to look again after a look that proved nothing; waited is the time since the capture was first seen. It is 3 ms
// at first; from 300 ms on it grows with half of what passed since, which makes each pause 1.5 times the one before.
func Pause(waited time.Duration) time.Duration {
	return min(firstPause+max(0, waited-eager)/2, lastPause)
}

// Overdue reports whether a capture has had its time: age since the hook took it by the wall clock, which may jump or lie in the
// future, waited since it was first seen by a clock that does not jump.
func Overdue(age, waited, timeout time.Duration) bool {
	return waited >= timeout || age >= timeout && waited >= min(settle, timeout)
}
