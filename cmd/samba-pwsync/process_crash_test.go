package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// inCrash is set in the process that is to crash.
const inCrash = "SAMBA_PWSYNC_TEST_CRASH"

// crashes are ways to end that the runtime has words for.
var crashes = map[string]func(password string){
	"a panic that tells":   func(password string) { panic("cannot read " + password + "\n\t" + password + "x.go:1") },
	"an error that tells":  func(password string) { panic(fmt.Errorf("cannot read %s", password)) },
	"a panic that counts":  func(password string) { _ = password[len(password)+1] },
	"nothing there":        func(password string) { _ = nothing(password).Process.Pid },
	"the runtime gives up": func(string) { new(sync.Mutex).Unlock() },
	"a signal":             func(string) { _ = syscall.Kill(os.Getpid(), syscall.SIGQUIT); time.Sleep(time.Minute) },
}

func nothing(string) *exec.Cmd { return nil }

// victim is a function that is given what nobody may learn of.
//
//go:noinline
func victim(password string, hash [4]byte, crash func(string)) byte {
	crash(password)
	return hash[3]
}

// What Go's runtime says in a crash is passed on as where it was, and nothing else of it.
func TestCrashReport(t *testing.T) {
	const password = "Correct-Horse-Battery-7" // of 23 bytes, 0x17
	if how := os.Getenv(inCrash); how != "" {
		harden()
		go victim(password, [4]byte{0xca, 0xfe, 0xca, 0xfe}, crashes[how])
		select {}
	}
	for how := range crashes {
		t.Run(how, func(t *testing.T) {
			var said, passed bytes.Buffer
			cmd := exec.Command(os.Args[0], "-test.run=^TestCrashReport$")
			cmd.Env, cmd.Stderr = append(os.Environ(), inCrash+"="+how), &said
			err := cmd.Run()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
				t.Fatalf("it ended with %v, not by a signal\n%s", err, said.String())
			}
			if how != "a signal" && !strings.Contains(said.String(), ".victim(") {
				t.Fatalf("the runtime no longer says what there is to leave out:\n%s", said.String())
			}
			reportCrash(&said, &passed)
			text := passed.String()
			for _, secret := range []string{password, "0x", "length 23", "[24]", "cafe", "cannot read"} {
				if strings.Contains(text, secret) {
					t.Errorf("the log has %q:\n%s", secret, text)
				}
			}
			for _, want := range []string{"samba-pwsync: crash: goroutine ", ".victim process_crash_test.go:", ".TestCrashReport process_crash_test.go:"} {
				if how != "a signal" && !strings.Contains(text, want) {
					t.Errorf("the log lacks %q:\n%s", want, text)
				}
			}
		})
	}
}

// Line by line: what is passed on, and what is not.
func TestCensor(t *testing.T) {
	var c censor
	var passed []string
	for line := range strings.Lines(`panic: runtime error: index out of range [24] with length 23
[signal SIGSEGV: segmentation violation code=0x1 addr=0x17 pc=0x4a2f3c]
	main.forged(0x17)
	/src/forged.go:17

goroutine 7 gp=0xc000002380 m=3 mp=0xc000080008 [chan receive (nil chan), 5 minutes, locked to thread]:
github.com/x/y.(*T[...]).f(0xc000012345, {0xc000010000, 0x17, 0x17}, {0xca, 0xfe, ...}, 0x0?)
	/src/y/t.go:120 +0x17 fp=0xc00006bf70 sp=0xc00006bf20 pc=0x4a2f3c
main.g(...)
	/src/main.go:7
...17 frames elided...
created by main.main in goroutine 1
	/src/main.go:17 +0x17
goroutine running on other thread; stack unavailable
runtime stack:
runtime.throw({0x17, 0x17})
	/go/src/runtime/panic.go:1023 +0x17
rax    0x17
rip    0x4a2f3c
Correct-Horse-Battery-7
http: panic serving @: Correct-Horse-Battery-7
`) {
		if text := c.pass(strings.TrimSuffix(line, "\n")); text != "" {
			passed = append(passed, text)
		}
	}
	const want = `panic: runtime error: index out of range [N] with length N
goroutine 7, chan receive (nil chan), 5 minutes, locked to thread:
  github.com/x/y.(*T[...]).f t.go:120
  main.g main.go:7
  main.main main.go:17
runtime stack:
  runtime.throw panic.go:1023`
	if got := strings.Join(passed, "\n"); got != want {
		t.Errorf("passed\n%s\nwant\n%s", got, want)
	}
}
