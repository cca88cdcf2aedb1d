package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// The journal is one JSON record a line, written before the change is made and
// read again at the next start: no password that was answered with "accepted"
// is forgotten when the sandbox is killed. It is not synced, so a power cut may
// take the end of it. A last line without its end was never answered, and goes.

// A record is one change. Exactly one field is set.
type record struct {
	Add       *User       `json:"add,omitempty"`
	Remove    *reference  `json:"remove,omitempty"`
	Password  *passwordOf `json:"password,omitempty"`
	Fault     *Fault      `json:"fault,omitempty"`
	Struck    int         `json:"struck,omitempty"`
	Clear     bool        `json:"clear,omitempty"`
	Revoke    string      `json:"revoke,omitempty"`
	Violation *Violation  `json:"violation,omitempty"`
	Trapped   *Trapped    `json:"trapped,omitempty"`
}

type reference struct {
	Cloud Cloud  `json:"cloud"`
	ID    string `json:"id"`
}

type passwordOf struct {
	reference
	Password Password `json:"password"`
}

// commit writes a record and makes its change. The caller holds the lock.
func (s *Store) commit(r record) error {
	if err := s.journal.write(r); err != nil {
		return err
	}
	s.apply(r)
	s.tell()
	return nil
}

// apply makes the change that a record says, now or at the next start.
func (s *Store) apply(r record) {
	switch {
	case r.Add != nil:
		u := r.Add.clone()
		s.users[u.Cloud][u.ID] = &u
		for _, name := range append([]string{u.Name}, u.Aliases...) {
			s.names[u.Cloud][strings.ToLower(name)] = u.ID
		}
	case r.Remove != nil:
		u := s.users[r.Remove.Cloud][r.Remove.ID]
		delete(s.users[u.Cloud], u.ID)
		for _, name := range append([]string{u.Name}, u.Aliases...) {
			delete(s.names[u.Cloud], strings.ToLower(name))
		}
	case r.Password != nil:
		u := s.users[r.Password.Cloud][r.Password.ID]
		u.Passwords = append(u.Passwords, r.Password.Password)
	case r.Fault != nil:
		s.faultIDs = r.Fault.ID
		s.faults = append(s.faults, *r.Fault)
	case r.Struck != 0:
		for i := range s.faults {
			if s.faults[i].ID != r.Struck {
				continue
			}
			if s.faults[i].Times--; s.faults[i].Times == 0 {
				s.faults = append(s.faults[:i], s.faults[i+1:]...)
			}
			break
		}
	case r.Clear:
		s.faults = nil
	case r.Revoke != "":
		s.revoked[r.Revoke] = true
	case r.Violation != nil:
		s.broken = append(s.broken, *r.Violation)
	case r.Trapped != nil:
		s.trapped = append(s.trapped, *r.Trapped)
	}
}

type journal struct{ file *os.File }

func openJournal(path string, apply func(record)) (*journal, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	number := 0
	for line := range bytes.Lines(whole) {
		number++
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, number, err)
		}
		apply(r)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Truncate(int64(len(whole))); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &journal{file}, nil
}

func (j *journal) write(r record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing state: %w", err)
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing state: %w", err)
	}
	return nil
}

func (j *journal) close() error { return j.file.Close() }
