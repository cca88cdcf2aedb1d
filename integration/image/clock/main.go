//go:build linux && amd64

// Command clock runs a program, and all that it starts, under a clock of their own: CLOCK_REALTIME is the machine's, plus what a file says.
//
//	clock FILE COMMAND [ARGUMENT]...
//
// FILE holds a number of seconds, perhaps negative; what makes no sense there changes nothing. The clock that nobody sets (CLOCK_MONOTONIC)
// stays the machine's, and so do the times of files, which only the kernel writes.
//
// Why: a container has no clock of its own, and setting the machine's would hit everybody. A library that is loaded before others (faketime)
// does not reach Go's static programs. So the programs run under ptrace(2): the C library's and Go's page of system calls in user space
// (vDSO) is taken from each at its start, a seccomp filter stops each question for the time of day, and it is answered here. Nothing else is
// stopped, so a domain controller hardly notices. Needs the capability SYS_PTRACE, for programs that may not be dumped.
//
// It is the first process of its container: it takes leave of whoever ends there, and ends with its COMMAND.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inner is the name under which this program runs itself, to put the filter on before it becomes COMMAND.
const inner = "clock-inner"

// All of ptrace is between two threads, and the filter is a thread's.
func init() { runtime.LockOSThread() }

func main() {
	var err error
	switch {
	case os.Args[0] == inner:
		err = become(os.Args[1:])
	case len(os.Args) < 3:
		err = errors.New("usage: clock FILE COMMAND [ARGUMENT]")
	default:
		err = run(os.Args[1], os.Args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "clock:", err)
		os.Exit(1)
	}
}

// become puts the filter on and becomes the command.
func become(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return fmt.Errorf("setting the filter: %w", err)
	}
	return syscall.Exec(path, command, os.Environ())
}

// filter stops questions for the time of day. In struct seccomp_data the call's number is at 0, the architecture at 4, the first argument at 16.
var filter = func() []unix.SockFilter {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	jump := func(is uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: is, Jt: yes, Jf: no}
	}
	end := func(what uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what} }
	return []unix.SockFilter{
		load(4),
		jump(unix.AUDIT_ARCH_X86_64, 0, 7),
		load(0),
		jump(unix.SYS_GETTIMEOFDAY, 6, 0),
		jump(unix.SYS_TIME, 5, 0),
		jump(unix.SYS_CLOCK_GETTIME, 0, 3),
		load(16),
		jump(unix.CLOCK_REALTIME, 2, 0),
		jump(unix.CLOCK_REALTIME_COARSE, 1, 0),
		end(unix.SECCOMP_RET_ALLOW),
		end(unix.SECCOMP_RET_TRACE),
	}
}()

// run starts the command and answers until it has ended.
func run(file string, command []string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	c := &clock{file: f}
	cmd := exec.Cmd{Path: "/proc/self/exe", Args: append([]string{inner}, command...), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	var status unix.WaitStatus
	if _, err := wait(cmd.Process.Pid, &status); err != nil || !status.Stopped() {
		return fmt.Errorf("starting: %v, %v", status, err)
	}
	const options = unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC |
		unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(cmd.Process.Pid, options); err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	if err := unix.PtraceCont(cmd.Process.Pid, 0); err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	met := map[int]bool{cmd.Process.Pid: true}
	for {
		tid, err := wait(-1, &status)
		if err != nil {
			return fmt.Errorf("waiting: %w", err)
		}
		if !status.Stopped() {
			delete(met, tid)
			if tid == cmd.Process.Pid {
				return fmt.Errorf("the command has ended: exit code %d, signal %d", status.ExitStatus(), status.Signal())
			}
			continue
		}
		deliver := 0
		switch signal := status.StopSignal(); {
		case status.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
			err = c.answer(tid)
		case status.TrapCause() == unix.PTRACE_EVENT_EXEC:
			err = withoutVDSO(tid)
		case signal == unix.SIGTRAP: // a fork, which the child tells of itself
		case signal == unix.SIGSTOP && !met[tid]: // the child
		default:
			deliver = int(signal)
		}
		met[tid] = true
		if err != nil && !errors.Is(err, unix.ESRCH) { // killed meanwhile
			fmt.Fprintln(os.Stderr, "clock:", err)
		}
		if err := unix.PtraceCont(tid, deliver); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("tracing: %w", err)
		}
	}
}

func wait(pid int, status *unix.WaitStatus) (int, error) {
	for {
		tid, err := unix.Wait4(pid, status, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return tid, err
		}
	}
}

// clock knows what the time is.
type clock struct {
	file *os.File
	by   time.Duration // as the file last made sense
}

func (c *clock) now() time.Time {
	var b [32]byte
	n, _ := c.file.ReadAt(b[:], 0) // at its end, always
	if by, err := strconv.ParseFloat(strings.TrimSpace(string(b[:n])), 64); err == nil {
		c.by = time.Duration(by * float64(time.Second))
	}
	return time.Now().Add(c.by)
}

// answer answers the call that a thread has stopped at the beginning of, in the kernel's place.
func (c *clock) answer(tid int) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return fmt.Errorf("reading registers: %w", err)
	}
	now := c.now()
	at, small := uint64(0), uint64(now.Nanosecond())
	result := uint64(0)
	switch r.Orig_rax {
	case unix.SYS_CLOCK_GETTIME:
		at = r.Rsi
	case unix.SYS_GETTIMEOFDAY: // nobody asks for the time zone that may come with it
		at, small = r.Rdi, small/1000
	case unix.SYS_TIME:
		result = uint64(now.Unix())
	}
	if at != 0 {
		b := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(now.Unix())), small)
		if _, err := unix.PtracePokeData(tid, uintptr(at), b); err != nil {
			return fmt.Errorf("writing the time: %w", err)
		}
	}
	r.Orig_rax, r.Rax = ^uint64(0), result // no call, and what it returns
	if err := unix.PtraceSetRegs(tid, &r); err != nil {
		return fmt.Errorf("writing registers: %w", err)
	}
	return nil
}

// withoutVDSO hides from a program that has just been loaded where the kernel put its answers in user space. It is told in the auxiliary
// vector (getauxval(3)), which lies on the new stack behind the arguments and the environment.
func withoutVDSO(tid int) error {
	const null, ignore, sysinfoEHDR = 0, 1, 33
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return fmt.Errorf("reading registers: %w", err)
	}
	at := uintptr(r.Rsp)
	word := func() (uint64, error) {
		var b [8]byte
		if _, err := unix.PtracePeekData(tid, at, b[:]); err != nil {
			return 0, fmt.Errorf("reading the stack: %w", err)
		}
		at += 8
		return binary.LittleEndian.Uint64(b[:]), nil
	}
	if _, err := word(); err != nil { // how many arguments there are
		return err
	}
	for range 2 { // arguments, environment
		for more := true; more; {
			w, err := word()
			if err != nil {
				return err
			}
			more = w != 0
		}
	}
	for {
		kind, err := word()
		if err != nil {
			return err
		}
		switch kind {
		case null:
			return nil
		case sysinfoEHDR:
			if _, err := unix.PtracePokeData(tid, at-8, binary.LittleEndian.AppendUint64(nil, ignore)); err != nil {
				return fmt.Errorf("writing the stack: %w", err)
			}
			return nil
		}
		at += 8
	}
}
