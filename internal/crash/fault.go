package crash

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Effect is what happens to a system call.
type Effect int

// The effects.
const (
	Fail  Effect = iota // it does nothing, and returns Errno
	Short               // a write takes half of what it was given; anything else fails
	Delay               // it is late by some milliseconds
	Kill                // the program is killed before it
)

// Fault is what a disk does to a program: some of the calls by which it opens, reads, writes, syncs, makes or removes something below a folder.
type Fault struct {
	First  int // the first of these calls that is affected, from 0
	Calls  int // how many in a row; the disk is well after that
	Effect Effect
	Errno  syscall.Errno
	Reads  bool // calls that read count too
}

func (f Fault) String() string {
	what := map[Effect]string{Fail: f.Errno.Error(), Short: "short writes, " + f.Errno.Error(), Delay: "late", Kill: "killed"}[f.Effect]
	reads := ""
	if f.Reads {
		reads = ", reading too"
	}
	return fmt.Sprintf("%s at calls %d to %d%s", what, f.First, f.First+f.Calls-1, reads)
}

// RandomFault draws a fault among the first of so many calls.
func RandomFault(r *rand.Rand, calls int, kill bool) Fault {
	f := Fault{First: r.IntN(calls), Calls: []int{1, 1, 2, 10, 1 + r.IntN(200)}[r.IntN(5)]}
	errnos := []syscall.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO}
	f.Errno = errnos[r.IntN(len(errnos))]
	f.Reads = f.Errno == unix.EIO && r.IntN(2) == 0
	switch n := r.IntN(10); {
	case n == 0:
		f.Effect = Delay
	case n == 1:
		f.Effect = Short
	case n < 4 && kill:
		f.Effect = Kill
	}
	return f
}

// Endured is what came of a program under a fault.
type Endured struct {
	Calls  int      // that count, in all
	Hit    []string // what was affected, in words: the first 20
	Said   []string // what it said, without "begin"
	Killed bool
	Exit   int
	Output string
}

// Begin is what a program says from when on its calls count, for Endure.
const Begin = "begin"

// Endure runs a program under a fault below a folder. Its calls count from when it says Begin; waits false: from its start.
//
// The program may have threads, and no processes of its own that touch the folder.
func Endure(cmd *exec.Cmd, root string, fault Fault, waits bool) (Endured, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return Endured{}, fmt.Errorf("injecting faults: %w", err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	var out bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout, cmd.Stderr = &out, &out
	}
	if err := cmd.Start(); err != nil {
		return Endured{}, fmt.Errorf("injecting faults: %w", err)
	}
	i := &injector{pid: cmd.Process.Pid, root: root, fault: fault, counts: !waits, results: map[int]int64{}}
	if i.cwd = cmd.Dir; i.cwd == "" {
		i.cwd, _ = os.Getwd()
	}
	err = i.follow()
	if err != nil {
		_ = cmd.Process.Kill()
	}
	for err != nil { // until nothing is left of it
		if _, gone := unix.Wait4(-1, nil, unix.WALL|unix.WNOTHREAD, nil); gone != nil {
			break
		}
	}
	_ = cmd.Wait() // it has been waited for; this ends the copying of its streams
	if err != nil {
		return i.Endured, fmt.Errorf("injecting faults: %w", err)
	}
	i.Exit, i.Output = i.status.ExitStatus(), out.String()
	if !i.status.Exited() {
		i.Exit = -1
	}
	return i.Endured, nil
}

type injector struct {
	Endured
	pid     int
	root    string
	cwd     string
	fault   Fault
	counts  bool
	results map[int]int64 // by thread: what the call returns that it is in the middle of
	status  unix.WaitStatus
}

func (i *injector) follow() error {
	var status unix.WaitStatus
	if _, err := wait(i.pid, &status); err != nil {
		return err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(i.pid, options); err != nil {
		return err
	}
	if err := unix.PtraceSyscall(i.pid, 0); err != nil {
		return err
	}
	for {
		tid, err := wait(-1, &status)
		switch {
		case err != nil:
			return err
		case status.Exited(), status.Signaled():
			if tid == i.pid {
				i.status = status
				return nil
			}
			continue
		case !status.Stopped():
			continue
		}
		deliver := 0
		switch signal := status.StopSignal(); {
		case signal == unix.SIGTRAP|0x80:
			if err := i.stop(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		case signal == unix.SIGTRAP, signal == unix.SIGSTOP: // a new thread
		default:
			deliver = int(signal)
		}
		if i.Killed {
			continue
		}
		if err := unix.PtraceSyscall(tid, deliver); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
}

func (i *injector) stop(tid int) error {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	switch {
	case errno != 0:
		return errno
	case info.Op == infoExit:
		result, ours := i.results[tid]
		delete(i.results, tid)
		if !ours {
			return nil
		}
		return setResult(tid, result)
	case info.Op != infoEntry:
		return nil
	}
	number, args := int(info.Data[0]), info.Data[1:7]
	if number == unix.SYS_READLINKAT {
		path, err := text(tid, args[1])
		if what, ok := strings.CutPrefix(path, said); ok && what == Begin {
			i.counts = true
		} else if ok {
			i.Said = append(i.Said, what)
		}
		return err
	}
	if !i.counts {
		return nil
	}
	name, writes, err := i.touches(tid, number, args)
	if err != nil || name == "" || !writes && !i.fault.Reads {
		return err
	}
	at := i.Calls
	i.Calls++
	if at < i.fault.First || at >= i.fault.First+i.fault.Calls {
		return nil
	}
	if len(i.Hit) < 20 {
		i.Hit = append(i.Hit, name)
	}
	switch i.fault.Effect {
	case Delay:
		time.Sleep(20 * time.Millisecond)
		return nil
	case Kill:
		i.Killed = true
		return unix.Kill(i.pid, unix.SIGKILL)
	case Short:
		if (number == unix.SYS_WRITE || number == unix.SYS_PWRITE64) && args[2] > 1 {
			return setLength(tid, args[2]/2)
		}
	}
	i.results[tid] = -int64(i.fault.Errno)
	return cancelCall(tid)
}

// touches names the call if it is about something below the root, and says whether it changes or syncs something.
func (i *injector) touches(tid, number int, args []uint64) (name string, writes bool, err error) {
	byPath := func(call string, dirfd, at uint64) (string, bool, error) {
		path, err := text(tid, at)
		if err != nil {
			return "", false, err
		}
		if !filepath.IsAbs(path) {
			if int32(dirfd) != unix.AT_FDCWD {
				return "", false, nil
			}
			path = filepath.Join(i.cwd, path)
		}
		rel, ok := i.below(path)
		if !ok {
			return "", false, nil
		}
		return call + " " + rel, true, nil
	}
	byFile := func(call string, writes bool) (string, bool, error) {
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", i.pid, int32(args[0])))
		if err != nil {
			return "", false, nil // closed
		}
		rel, ok := i.below(strings.TrimSuffix(path, " (deleted)"))
		if !ok {
			return "", false, nil
		}
		return call + " " + rel, writes, nil
	}
	switch number {
	case unix.SYS_OPENAT:
		name, _, err := byPath("open", args[0], args[1])
		return name, args[2]&(unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT) != 0, err
	case unix.SYS_MKDIRAT:
		return byPath("mkdir", args[0], args[1])
	case unix.SYS_UNLINKAT:
		return byPath("unlink", args[0], args[1])
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return byPath("rename", args[2], args[3])
	case unix.SYS_LINKAT:
		return byPath("link", args[2], args[3])
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		return byFile("write", true)
	case unix.SYS_FTRUNCATE:
		return byFile("truncate", true)
	case unix.SYS_FALLOCATE:
		return byFile("fallocate", true)
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		return byFile("sync", true)
	case unix.SYS_FCHMOD:
		return byFile("chmod", true)
	case unix.SYS_READ, unix.SYS_PREAD64:
		return byFile("read", false)
	case unix.SYS_GETDENTS64:
		return byFile("list", false)
	}
	return "", false, nil
}

func (i *injector) below(path string) (rel string, ok bool) {
	rel, err := filepath.Rel(i.root, filepath.Clean(path))
	return rel, err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
