package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

// account is who owns a file.
type account struct{ uid, gid int }

func self() account { return account{os.Geteuid(), os.Getegid()} }

// lookUpUser returns nothing if no name is given.
func lookUpUser(name string) (*account, error) {
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, &codedError{exitUsage, fmt.Errorf("looking up the forwarder's user: %w", err)}
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("looking up the forwarder's user: %w", err)
	}
	return &account{uid, gid}, nil
}

// ownerOf tells whom an earlier init gave the forwarder's folder to; where there was none, it is ours. Whose that folder is does not tell by itself: an init
// that was killed may have left it ours. The state folder around it, which the forwarder's user cannot change, tells his group, and the folder of his
// retired keys, which is never in other hands at the same moment, tells him as well.
func ownerOf(forwarder string) (*account, error) {
	us, stateDir := self(), filepath.Dir(forwarder)
	var owners []account
	for _, path := range []string{forwarder, filepath.Join(stateDir, "keys", "forwarder-retired")} {
		info, err := os.Lstat(path)
		switch {
		case err == nil:
			owners = append(owners, accountOf(info))
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("looking at the forwarder's folder: %w", err)
		}
	}
	info, err := os.Stat(stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return &us, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking at the state folder: %w", err)
	}
	group := accountOf(info).gid
	if len(owners) == 0 || group == us.gid || info.Mode()&0o010 == 0 { // nobody else is let through to anything
		return &us, nil
	}
	for _, owner := range owners {
		if owner.uid != us.uid && owner.gid == group {
			return &owner, nil
		}
	}
	return nil, fmt.Errorf("%s lets the group %s pass, and whose the forwarder is cannot be told: samba-pwsync init --user NAME says it (or root)", stateDir, groupName(group))
}

func accountOf(info fs.FileInfo) account {
	stat := info.Sys().(*syscall.Stat_t)
	return account{int(stat.Uid), int(stat.Gid)}
}

type folder struct {
	path  string
	mode  fs.FileMode
	owner account
	files fs.FileMode // of the files in it, where they change hands with it; 0: they do not
}

// folders lists the state folder's parts. With one user everything is 0700. With two, the forwarder's group can pass through
// what is root's, without listing it, and the forwarder's user owns his own part; spool/outgoing stays root's, so that nobody
// can put another folder in its place under root's writes, and is writable to the user's group.
func folders(stateDir string, p config.Paths, forwarder account) []folder {
	us := self()
	through := folder{mode: 0o700, owner: us}
	outgoing := folder{path: p.Outgoing, mode: 0o700, owner: us, files: 0o600}
	if forwarder != us {
		through = folder{mode: 0o710, owner: account{us.uid, forwarder.gid}}
		outgoing = folder{path: p.Outgoing, mode: 0o770 | fs.ModeSetgid, owner: through.owner, files: 0o660}
	}
	at := func(path string) folder { f := through; f.path = path; return f }
	return []folder{
		at(stateDir),
		at(p.Keys),
		{path: p.AgentRetired, mode: 0o700, owner: us},
		{path: p.ForwarderRetired, mode: 0o700, owner: forwarder, files: 0o600},
		at(p.Spool),
		{path: p.Incoming, mode: 0o700, owner: us},
		outgoing,
		{path: p.Hook, mode: 0o700, owner: us},
		{path: p.Policy, mode: 0o700, owner: us},
		{path: p.Agent, mode: 0o700, owner: us},
		{path: p.Forwarder, mode: 0o700, owner: forwarder, files: 0o600},
	}
}

// checkOwn refuses a state folder in which others keep something: init would lock them out of it.
func checkOwn(stateDir string) error {
	entries, err := os.ReadDir(stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking into the state folder: %w", err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{"keys", "spool", "hook", "policy", "agent", "forwarder", "lost+found"}, e.Name()) {
			return &codedError{exitUsage, fmt.Errorf("state_dir %s holds %s: it has to be a folder of its own: move that elsewhere (files of hashes may lie in %s)", stateDir, e.Name(), filepath.Join(stateDir, "policy"))}
		}
	}
	return nil
}

// settle makes a folder, or gives one that is there its owner and mode.
func settle(f folder) (what string, err error) {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return "", err
	}
	what = mended
	if err := os.Mkdir(f.path, 0o700); err == nil {
		what = made
	} else if !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(f.path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", errors.New("something else has its name")
	}
	if info.Mode() == fs.ModeDir|f.mode && accountOf(info) == f.owner {
		if what == mended {
			what = kept
		}
		return what, nil
	}
	if err := handOver(f); err != nil {
		was := f
		was.owner, was.mode = accountOf(info), info.Mode()
		return "", errors.Join(err, was.restore()) // who had it goes on with it
	}
	return what, nil
}

// handOver gives a folder and its files to its owner. The folder is ours alone while they change hands, so that no name in it can become a link to something
// else meanwhile. It is not to end with this mode: where the work is broken off without a word, the next run takes it up.
func handOver(f folder) error {
	if _, err := give(f.path, self()); err != nil {
		return err
	}
	if err := os.Chmod(f.path, 0o500); err != nil {
		return err
	}
	if f.files != 0 {
		if err := giveFiles(f); err != nil {
			return err
		}
	}
	return f.restore()
}

// restore gives a folder its owner and its mode.
func (f folder) restore() error {
	if _, err := give(f.path, f.owner); err != nil {
		return err
	}
	return os.Chmod(f.path, f.mode) // after chown, which clears the setgid bit
}

// giveFiles gives the files in a folder to its owner. A forwarder that ran as another user has left databases, changes and,
// in spool/outgoing, the folder of what was set aside. Who had the folder before may have put in it what he likes: a file with
// a second name elsewhere is not touched. One that is gone by now needs no owner.
func giveFiles(f folder) error {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		mode := f.files
		switch {
		case info.IsDir():
			mode = f.mode
		case !info.Mode().IsRegular():
			continue
		case info.Sys().(*syscall.Stat_t).Nlink > 1:
			return fmt.Errorf("%s has a second name elsewhere: remove it", e.Name())
		}
		path := filepath.Join(f.path, e.Name())
		_, err = give(path, f.owner)
		if err == nil {
			err = os.Chmod(path, mode)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// give changes a file's owner if it has another, and follows no link.
func give(path string, to account) (given bool, err error) {
	info, err := os.Lstat(path)
	if err != nil || accountOf(info) == to {
		return false, err
	}
	return true, os.Lchown(path, to.uid, to.gid)
}
