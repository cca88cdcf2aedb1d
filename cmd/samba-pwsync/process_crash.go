package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// roleCrashReporter is the role of the process that reads what Go's runtime says in a crash: for censorCrashes, and nobody else.
const roleCrashReporter = "crash-reporter"

// censorCrashes puts another process between Go's runtime and the log, and returns the way there for all else; restore undoes it.
//
// In a crash the runtime tells what the panic said, the words that each function was given, and what the processor's registers held: lengths of
// passwords, and pieces of hashes and keys. It has no setting that leaves them out and ends the process by a signal, as harden needs. It writes to
// file descriptor 2 and nowhere else, and nothing else in the process runs any more. So that descriptor becomes a pipe to a process
// that passes on what may be in a log. What others here write to os.Stderr, unasked, goes the same way.
func censorCrashes() (stderr *os.File, restore func(), err error) {
	kept, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, nil, fmt.Errorf("hardening: %w", err)
	}
	stderr = os.NewFile(uintptr(kept), "stderr")
	out, in, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("hardening: %w", err)
	}
	defer in.Close()
	defer out.Close()
	reporter := exec.Command("/proc/self/exe", "serve", "--role", roleCrashReporter)
	reporter.Args[0] = os.Args[0]
	reporter.Stdin, reporter.Stderr = out, stderr
	if err := reporter.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting the %s: %w", roleCrashReporter, err)
	}
	if err := unix.Dup3(int(in.Fd()), 2, 0); err != nil { // Fd makes it block, which the runtime relies on
		return nil, nil, fmt.Errorf("hardening: %w", err)
	}
	return stderr, func() {
		_ = unix.Dup3(kept, 2, 0)
		_ = reporter.Wait() // it has nothing more to read
	}, nil
}

// runCrashReporter is the other process. It ends with the one that it hears, and not by a signal that is meant to end that.
func runCrashReporter(crash io.Reader, log io.Writer) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP)
	reportCrash(crash, log)
	return nil
}

// reportCrash passes on what may be told of a crash.
func reportCrash(crash io.Reader, log io.Writer) {
	r := bufio.NewReader(crash)
	var c censor
	for {
		line, long, err := r.ReadLine()
		if err != nil {
			return // it crashed, or it ended well
		}
		if text := c.pass(string(line)); text != "" {
			complain(log, "crash: "+text)
		}
		for long && err == nil {
			_, long, err = r.ReadLine()
		}
	}
}

// censor reads a crash line by line. What the panic said cannot look like more than its first line: the runtime indents the others.
type censor struct {
	function string // whose place the next line tells
}

var (
	goroutineLine = regexp.MustCompile(`^goroutine (\d+) .*\[([A-Za-z0-9 .,()?-]+)\]:$`)
	functionLine  = regexp.MustCompile(`^(?:created by )?([^ \t]+?)(?:\([^()]*\)| in goroutine \d+)?$`)
	placeLine     = regexp.MustCompile(`^\t(.+:\d+)(?: .*)?$`)
	signalLine    = regexp.MustCompile(`^SIG[A-Z0-9]+: [a-z ]+$`)
	numbers       = regexp.MustCompile(`\d+`)
)

// pass returns what may be told of a line; empty if nothing.
func (c *censor) pass(line string) string {
	function := c.function
	c.function = ""
	const ofRuntime = "panic: runtime error: "
	switch {
	case strings.HasPrefix(line, ofRuntime), strings.HasPrefix(line, "fatal error: "): // the runtime's own words, but for lengths in them
		return numbers.ReplaceAllString(line, "N")
	case strings.HasPrefix(line, "panic: "):
		return "panic: (what it said may be secret)"
	case signalLine.MatchString(line):
		return line
	case line == "runtime stack:":
		return line
	}
	if m := goroutineLine.FindStringSubmatch(line); m != nil {
		return "goroutine " + m[1] + ", " + m[2] + ":"
	}
	if m := placeLine.FindStringSubmatch(line); m != nil && function != "" {
		return "  " + function + " " + filepath.Base(m[1])
	}
	if m := functionLine.FindStringSubmatch(line); m != nil {
		c.function = m[1]
	}
	return ""
}
