package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReadableBy(t *testing.T) {
	dir := t.TempDir()
	reachable(t, dir)
	path := filepath.Join(dir, "key.json")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	const someone = 987654 // whom no system knows
	var (
		owner    = accountOf(info)
		group    = account{someone, owner.gid}
		stranger = account{someone, someone}
	)
	for _, tc := range []struct {
		name      string
		dir, file fs.FileMode
		reader    account
		want      error
	}{
		{"owner", 0o700, 0o400, owner, nil},
		{"group", 0o710, 0o040, group, nil},
		{"others", 0o701, 0o004, stranger, nil},
		{"root", 0o000, 0o000, account{0, someone}, nil},
		{"owner only", 0o755, 0o600, group, errNoRead},
		{"group only", 0o755, 0o640, stranger, errNoRead},
		{"not the group", 0o755, 0o604, group, errNoRead},
		{"way of the owner only", 0o700, 0o644, group, errNoWay},
		{"way of the group only", 0o710, 0o644, stranger, errNoWay},
		{"seen and not entered", 0o744, 0o644, stranger, errNoWay},
	} {
		if tc.name == "owner" && owner.uid == 0 {
			continue // root's rights do not come from modes
		}
		if err := errors.Join(os.Chmod(path, tc.file), os.Chmod(dir, tc.dir)); err != nil {
			t.Fatal(err)
		}
		err := readableBy(tc.reader, path)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := readableBy(stranger, filepath.Join(dir, "none")); !errors.Is(err, errNoWay) {
		t.Errorf("below a closed folder: %v", err)
	}
	if err := readableBy(owner, filepath.Join(dir, "none")); err != nil {
		t.Errorf("what is not there: %v", err)
	}
}
