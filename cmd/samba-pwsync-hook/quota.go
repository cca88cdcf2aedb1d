package main

import (
	"math/bits"
	"os"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/nopoll"
)

// linesAMinute bounds the log lines of probes and refusals: the first so many of a minute have one each, of the later ones those whose number is a power of
// two, which say how many there were. Any domain user can have hundreds made in a second, and others pay for the log. Accepted changes always have theirs.
const linesAMinute = 600

// worthSaying reports whether the run gets its line.
func (l line) worthSaying() bool {
	return l.nth <= linesAMinute || bits.OnesCount(uint(l.nth)) == 1
}

// count returns the how many-th probe or refusal of the minute this is. The file has a byte for each, and its time says of which minute. Where it cannot be
// kept (0), nothing is left out of the log. It is not synced, and hooks that run at once may miscount by one: neither matters.
func count(path string, now time.Time) int {
	f, err := nopoll.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return 0
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	size := info.Size()
	if info.ModTime().Unix()/60 != now.Unix()/60 {
		if f.Truncate(0) != nil {
			return 0
		}
		size = 0
	}
	if _, err := f.Write([]byte{'.'}); err != nil {
		return 0
	}
	return int(size) + 1
}
