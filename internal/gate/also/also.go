// Package also runs another `check password script` as Samba would run it.
//
// What: the program gets the same password on standard input and the same environment; what it prints goes to /dev/null; exit
// code 0 accepts, any other, or death by a signal, refuses. There is no shell: the line is split at spaces. A file that is no
// program and begins with no #! is given to /bin/sh, as a shell would.
//
// Why not os/exec: the hook links this, and pays for each import at each start. One process is made, by one vfork.
//
// The child is a process group of its own, of which nothing is left when the time is up, and dies with the hook. It runs with
// the hook's umask, 077, and without core files.
//
// Whom it trusts: whoever writes the configuration, and whoever can write to the program: it sees every new password. That only root
// can is for `samba-pwsync check` to look at.
//
// What it does not solve: what the program does with the password. And the kernel's pipe holds it until the program has read it.
package also

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// ErrLate: the program did not end in time, and was killed.
var ErrLate = errors.New("it hangs, and was killed")

// Program is the file that a command line of the key also names.
func Program(command string) string {
	name, _, _ := strings.Cut(strings.TrimLeft(command, " "), " ")
	return name
}

// Run runs a command, and reports whether it accepts the password. An error means that it could not be asked. The password may
// have up to 4,096 bytes, which a pipe takes without a reader.
func Run(command string, password []byte, environ []string, until time.Time) (accepts bool, err error) {
	accepts, err = run(command, password, environ, until)
	if err != nil {
		return false, fmt.Errorf("%s: %w", Program(command), err)
	}
	return accepts, nil
}

func run(command string, password []byte, environ []string, until time.Time) (bool, error) {
	argv := strings.Fields(command)
	if len(argv) == 0 {
		return false, errors.New("no program is named")
	}
	if !time.Now().Before(until) {
		return false, errors.New("no time was left to ask it")
	}
	stdin, err := filled(password)
	if err != nil {
		return false, err
	}
	defer syscall.Close(stdin)
	null, err := syscall.Open("/dev/null", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("opening /dev/null", err)
	}
	defer syscall.Close(null)

	// The child dies with the thread that made it, so that thread has to live as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr := &syscall.ProcAttr{
		Env:   environ,
		Files: []uintptr{uintptr(stdin), uintptr(null), uintptr(null)},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	if errors.Is(err, syscall.ENOEXEC) {
		pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh"}, argv...), attr)
	}
	if err != nil {
		return false, fmt.Errorf("starting it: %w", err)
	}
	return wait(pid, until)
}

// filled makes a pipe that holds the password and ends after it.
func filled(password []byte) (readEnd int, err error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return 0, os.NewSyscallError("making a pipe", err)
	}
	n, err := syscall.Write(p[1], password)
	_ = syscall.Close(p[1])
	if err == nil && n != len(password) {
		err = syscall.EFBIG
	}
	if err == nil { // that the end of our own does not wait is nothing for the program
		err = syscall.SetNonblock(p[0], false)
	}
	if err != nil {
		_ = syscall.Close(p[0])
		return 0, os.NewSyscallError("filling a pipe", err)
	}
	return p[0], nil
}

// wait waits for the child's end. The child is only looked at first, and taken away afterwards, so that its number is still its
// own when its group is killed.
func wait(pid int, until time.Time) (bool, error) {
	ended := make(chan error, 1)
	go func() { ended <- waitFor(pid) }()
	late := time.NewTimer(time.Until(until))
	defer late.Stop()
	var cause error
	select {
	case cause = <-ended:
	case <-late.C:
		cause = ErrLate
	}
	if cause != nil {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		if errors.Is(cause, ErrLate) {
			go take(pid) // a process that sleeps uninterruptibly is not waited for
		}
		return false, cause
	}
	status, err := take(pid)
	if err != nil {
		return false, err
	}
	return status.Exited() && status.ExitStatus() == 0, nil
}

// Of waitid(2).
const (
	pPID    = 1
	wExited = 4
	wNoWait = 0x01000000
)

// waitFor returns when the child has ended, and leaves it there.
func waitFor(pid int) error {
	var info [128]byte // siginfo_t
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(pid), uintptr(unsafe.Pointer(&info)), wExited|wNoWait, 0, 0)
		if errno == 0 {
			return nil
		}
		if errno != syscall.EINTR {
			return os.NewSyscallError("waiting for it", errno)
		}
	}
}

// take takes an ended child away.
func take(pid int) (status syscall.WaitStatus, err error) {
	for {
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if err != syscall.EINTR {
			return status, os.NewSyscallError("waiting for it", err)
		}
	}
}
