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
)

var (
	errNoRead = errors.New("the forwarder's user cannot read it")
	errNoWay  = errors.New("the forwarder's user cannot enter it") // a folder on the way to the file
)

// fileError is trouble with a file that a target, or [notify], names, or with a folder above it.
type fileError struct {
	path   string
	reader account
	cause  error
}

func (e *fileError) Error() string { return e.cause.Error() }
func (e *fileError) Unwrap() error { return e.cause }

// readableBy judges by owners and modes whether an account can read a file, on behalf of a process that may have more rights.
// It knows nothing of access control lists, and a file that it cannot look at it lets pass.
func readableBy(reader account, path string) error {
	if reader.uid == 0 {
		return nil
	}
	groups := groupsOf(reader)
	may := func(path string, right fs.FileMode) bool {
		info, err := os.Stat(path)
		if err != nil {
			return true
		}
		switch owner := accountOf(info); {
		case owner.uid == reader.uid:
			right <<= 6
		case slices.Contains(groups, owner.gid):
			right <<= 3
		}
		return info.Mode().Perm()&right != 0
	}
	const read, enter = 4, 1
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if !may(dir, enter) {
			return &fileError{dir, reader, fmt.Errorf("%s: %w", dir, errNoWay)}
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if !may(path, read) {
		return &fileError{path, reader, fmt.Errorf("%s: %w", path, errNoRead)}
	}
	return nil
}

// groupsOf lists an account's groups: its own, and those that the system's user of that number is in.
func groupsOf(a account) []int {
	groups := []int{a.gid}
	u, err := user.LookupId(strconv.Itoa(a.uid))
	if err != nil {
		return groups
	}
	ids, err := u.GroupIds()
	if err != nil {
		return groups
	}
	for _, id := range ids {
		if gid, err := strconv.Atoi(id); err == nil {
			groups = append(groups, gid)
		}
	}
	return groups
}

// groupName is for chgrp, which takes the number too.
func groupName(gid int) string {
	number := strconv.Itoa(gid)
	if group, err := user.LookupGroupId(number); err == nil {
		return group.Name
	}
	return number
}
