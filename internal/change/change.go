// Package change is what the agent hands to the forwarder, all of it through the folder spool/outgoing (later also through a
// shared queue): changes, sightings, the watch mark, and notices.
//
// A Change is a proven capture: the directory held the captured password as the account's current one, under Stamp, at
// Proven. The secret box is the hook's, untouched: the agent cannot open it.
//
// A Sighting says which password version the directory holds now, without any secret. A sighting newer than a change that
// still waits supersedes it. A second Sighting of the same stamp follows when its time is over, with Wanted: which targets want the
// account, and if one of them has nothing of that stamp, why.
//
// A Notice says that an account's password was refused, so that the forwarder, which has the network, can tell whose it is. It is no part
// of what is delivered.
//
// The Mark says until when the agent's watch has seen every password stamp. The agent writes the sightings first and the mark
// after them; the forwarder reads the mark first and the sightings after it. So whatever the mark covers, the forwarder knows.
//
// The forwarder asks for all stamps anew, with a file whose name ends in AskSuffix, when it has lost some to the disk. The agent passes them on as
// those of a restored directory, whatever was known before, and removes the file after that. Until then no mark counts.
//
// Bytes: JSON with a format number, behind it a checksum (internal/checked). A file of a format that a reader does not know is an error,
// not a guess.
//
// An attacker who can write here, and seals a box to the forwarder's public key, can have any password delivered: the folder
// is the forwarder's own, 0700, and only root and the forwarder's user reach it.
package change

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/checked"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

const (
	// Suffix ends the file name of a Change.
	Suffix = ".change"
	// SightingsSuffix ends the file name of a list of sightings.
	SightingsSuffix = ".sightings"
	// AskSuffix ends the file name of what asks for the stamps of all accounts.
	AskSuffix = ".ask"
	// MaxSize bounds any of these files, in bytes.
	MaxSize = 1 << 20

	markFile = "mark"
	format   = 1
)

// ErrDamaged means that a file is torn, not what was written, no JSON, of another format, or lacks what makes it meaningful.
var ErrDamaged = errors.New("not a whole change")

// Account identifies a directory account. GUID is the identity; the rest is for people and for targets.
type Account struct {
	GUID              dsdb.GUID `json:"guid"` // objectGUID: survives renaming and moving
	SAMAccountName    string    `json:"sam_account_name"`
	UserPrincipalName string    `json:"user_principal_name,omitempty"`
}

// Route is one target that wants the account.
type Route struct {
	Target string `json:"target"` // NAME of [target.NAME]
	User   string `json:"user"`   // the account's name at the target, after user_domain

	// MustChange: the target is to demand another password at the next login there. Files of before it was there have it not: false.
	MustChange bool `json:"must_change,omitempty"`
}

// Change is a proven capture.
type Change struct {
	Capture   string     `json:"capture"` // the capture's ID, in hex
	Account   Account    `json:"account"`
	Stamp     dsdb.Stamp `json:"stamp"`
	Captured  time.Time  `json:"captured"` // the hook's clock
	Proven    time.Time  `json:"proven"`   // the agent's clock, taken before the search that proved it
	Routes    []Route    `json:"routes"`
	Header    []byte     `json:"header"`     // the capture's marshalled header: the box is bound to it
	SecretBox []byte     `json:"secret_box"` // sealed to the forwarder

	// How far the peers had been heard before the capture was taken, so before the change was made: empty if none are configured, with
	// USN 0 where it is not known.
	Peers []Peer `json:"peers,omitempty"`
}

// FileName is the name of the change's file: it sorts by the time of capture. A capture may be proven for more than one version, each of
// which has a file of its own: the forwarder shreds that of the older one.
func (c Change) FileName() string {
	return fmt.Sprintf("%020d-%s-%d%s", c.Captured.UnixNano(), c.Capture, c.Stamp.Version, Suffix)
}

// encode returns the bytes of a file.
func encode(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return checked.Wrap(text), nil
}

// decode reads the bytes of a file. Error: ErrDamaged.
func decode(b []byte, v any) error {
	text, err := checked.Text(b)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return nil
}

// Belongs reports whether a file of that name can hold the change: a disk can also give the contents of another file.
func (c Change) Belongs(name string) bool {
	return strings.HasPrefix(name, strings.TrimSuffix(c.FileName(), Suffix))
}

// Marshal returns the file's bytes.
func (c Change) Marshal() ([]byte, error) {
	return encode(struct {
		Format int `json:"format"`
		Change
	}{format, c})
}

// Parse reads a change's file. Error: ErrDamaged.
func Parse(b []byte) (Change, error) {
	var f struct {
		Format int `json:"format"`
		Change
	}
	if err := decode(b, &f); err != nil {
		return Change{}, err
	}
	switch c := f.Change; {
	case f.Format != format:
		return Change{}, fmt.Errorf("%w: format %d, this version reads %d", ErrDamaged, f.Format, format)
	case c.Capture == "" || c.Account.GUID.IsZero() || c.Stamp.IsZero() || len(c.Routes) == 0 || len(c.Header) == 0 || len(c.SecretBox) == 0:
		return Change{}, fmt.Errorf("%w: capture, account, stamp, routes or box is missing", ErrDamaged)
	default:
		return c, nil
	}
}

// Sighting is the password version that the directory holds for an account, or that the account is no more.
type Sighting struct {
	Account Account    `json:"account"`
	Stamp   dsdb.Stamp `json:"stamp"`           // zero if Gone
	Gone    bool       `json:"gone,omitempty"`  // the account was deleted, or cannot be decoded: nothing that waits for it counts as current
	Reset   bool       `json:"reset,omitempty"` // the directory was restored or rolled back: the stamp holds, even if it is older than one seen before
	Wanted  *Wanted    `json:"wanted,omitempty"`
	// Whole ends the sightings of a directory that was restored or rolled back; it is of no account. An account that was not among those
	// marked Reset since the time of the file is not there.
	Whole bool `json:"whole,omitempty"`
}

// SightingsFile names a file of sightings by when the look at the directory began whose result it holds; files of one look are told
// apart by unique.
func SightingsFile(began time.Time, unique string) string {
	return fmt.Sprintf("%020d-%s%s", began.UnixNano(), unique, SightingsSuffix)
}

// MarshalSightings returns the bytes of a file of sightings, which are for that name only: a disk can also give the contents of another file.
func MarshalSightings(name string, sightings []Sighting) ([]byte, error) {
	return encode(struct {
		Format    int        `json:"format"`
		Name      string     `json:"name,omitempty"` // files of before it was there have it not
		Sightings []Sighting `json:"sightings"`
	}{format, name, sightings})
}

// ParseSightings reads the file of sightings of that name. Error: ErrDamaged.
func ParseSightings(name string, b []byte) ([]Sighting, error) {
	var f struct {
		Format    int        `json:"format"`
		Name      string     `json:"name"`
		Sightings []Sighting `json:"sightings"`
	}
	if err := decode(b, &f); err != nil {
		return nil, err
	}
	if f.Format != format {
		return nil, fmt.Errorf("%w: format %d, this version reads %d", ErrDamaged, f.Format, format)
	}
	if f.Name != "" && f.Name != name {
		return nil, fmt.Errorf("%w: it is the file %q", ErrDamaged, f.Name)
	}
	return f.Sightings, nil
}

// AskFile names a file that asks for the stamps of all accounts. What is in it does not matter.
func AskFile(at time.Time, unique string) string {
	return fmt.Sprintf("%020d-%s%s", at.UnixNano(), unique, AskSuffix)
}

// Peer is another domain controller that has a forwarder of its own, and how far the agent's DC has heard it.
type Peer struct {
	Name         string    `json:"name"`                   // as configured
	InvocationID dsdb.GUID `json:"invocation_id,omitzero"` // zero: the directory knows no such DC
	USN          uint64    `json:"usn,omitempty"`          // its highestCommittedUSN, as it was last told: all that it originated until then has arrived
	Heard        time.Time `json:"heard,omitzero"`         // when the agent's DC last pulled from it and succeeded; the agent's clock
}

// Mark says that every password stamp that the agent's DC held at AsOf has been passed on.
type Mark struct {
	AsOf         time.Time `json:"as_of"` // the agent's clock
	Host         string    `json:"host"`
	InvocationID dsdb.GUID `json:"invocation_id"` // the DC that was read
	Peers        []Peer    `json:"peers,omitempty"`
}

// WriteMark puts the mark into the outgoing folder, in place of the one before. It is not synced: a power cut may bring an
// older mark back, which only makes the forwarder wait for the next one.
func WriteMark(dir string, m Mark) error {
	b, err := encode(m)
	if err != nil {
		return fmt.Errorf("writing mark: %w", err)
	}
	mode, err := durable.ModeLike(dir)
	if err != nil {
		return fmt.Errorf("writing mark: %w", err)
	}
	if err := durable.Publish(filepath.Join(dir, markFile), b, mode); err != nil {
		return fmt.Errorf("writing mark: %w", err)
	}
	return nil
}

// ReadMark returns the newest mark in the outgoing folder; the error is fs.ErrNotExist while no agent has written one.
func ReadMark(dir string) (Mark, error) {
	var m Mark
	b, err := durable.ReadSmall(filepath.Join(dir, markFile))
	if err != nil {
		return m, fmt.Errorf("reading mark: %w", err)
	}
	if err := decode(b, &m); err != nil {
		return Mark{}, fmt.Errorf("reading mark: %w", err)
	}
	return m, nil
}
