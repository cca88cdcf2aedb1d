package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// said is what the path begins with that Say asks for.
const said = "/crash/said/"

// Say tells the tracer something that has to hold from now on. Without one it does nothing.
func Say(text string) { _, _ = os.Readlink(said + text) }

// Run runs a program under the recording, and returns what went wrong, with what the program said. If kill is not negative, the program is killed after so many calls
// that changed or synced something, should it live that long; killed says whether it was.
//
// The program may have threads, and no processes of its own that touch the folder.
func (t *Trace) Run(cmd *exec.Cmd, kill int) (killed bool, err error) {
	// All of ptrace is between two threads.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("tracing: %w", err)
	}
	w := &tracer{Trace: t, pid: cmd.Process.Pid, left: kill, fds: map[int]*file{}, calls: map[int]*call{}}
	if w.cwd = cmd.Dir; w.cwd == "" {
		w.cwd, _ = os.Getwd()
	}
	err = w.follow()
	if err != nil {
		_ = cmd.Process.Kill()
	}
	for err != nil { // until nothing is left of it
		if _, gone := unix.Wait4(-1, nil, unix.WALL|unix.WNOTHREAD, nil); gone != nil {
			break
		}
	}
	_ = cmd.Wait() // it has been waited for; this ends the copying of its streams
	switch {
	case err != nil:
		return false, fmt.Errorf("tracing: %w", err)
	case w.killed:
		return true, nil
	case !w.status.Exited() || w.status.ExitStatus() != 0:
		return false, fmt.Errorf("the traced program ended with exit code %d, signal %d: %s", w.status.ExitStatus(), w.status.Signal(), &out)
	}
	return false, nil
}

type tracer struct {
	*Trace
	pid    int
	cwd    string
	fds    map[int]*file // of those files that are below the root
	calls  map[int]*call // by thread: what it is in the middle of
	left   int           // calls until it is to be killed; negative: never
	killed bool
	status unix.WaitStatus
}

// file is an open file.
type file struct {
	node   int
	at     int64
	append bool
}

// call is a system call under way.
type call struct {
	slot int           // where its effect goes into Trace.ops; -1: it has none
	end  func(r int64) // what it did, knowing its result
	op   *op           // its effect, made by end
}

// syscallInfo is struct ptrace_syscall_info of linux/ptrace.h.
type syscallInfo struct {
	Op   uint8
	_    [3]uint8
	Arch uint32
	IP   uint64
	SP   uint64
	Data [8]uint64 // entry: number, six arguments; exit: result
}

const (
	ptraceGetSyscallInfo = 0x420e
	infoEntry            = 1
	infoExit             = 2
)

func (w *tracer) follow() error {
	var status unix.WaitStatus
	if _, err := wait(w.pid, &status); err != nil {
		return err
	}
	if !status.Stopped() {
		return fmt.Errorf("the program did not start: %v", status)
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(w.pid, options); err != nil {
		return err
	}
	if err := unix.PtraceSyscall(w.pid, 0); err != nil {
		return err
	}
	for {
		tid, err := wait(-1, &status)
		switch {
		case err != nil:
			return err
		case status.Exited(), status.Signaled():
			if tid == w.pid {
				w.status = status
				return nil
			}
			continue
		case !status.Stopped():
			continue
		}
		deliver := 0
		switch signal := status.StopSignal(); {
		case signal == unix.SIGTRAP|0x80:
			if err := w.stop(tid); err != nil {
				return err
			}
			if w.left == 0 && !w.killed && !w.busy() {
				w.killed = true
				if err := unix.Kill(w.pid, unix.SIGKILL); err != nil {
					return err
				}
				continue
			}
		case signal == unix.SIGTRAP, signal == unix.SIGSTOP: // a new thread
		default:
			deliver = int(signal)
		}
		if w.killed {
			continue // none gets any further
		}
		if err := unix.PtraceSyscall(tid, deliver); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
}

func wait(pid int, status *unix.WaitStatus) (int, error) {
	for {
		tid, err := unix.Wait4(pid, status, unix.WALL|unix.WNOTHREAD, nil)
		if !errors.Is(err, unix.EINTR) {
			return tid, err
		}
	}
}

// busy reports whether a thread is in the middle of a call that may have an effect: if it were killed now, nobody would know.
func (w *tracer) busy() bool {
	for _, c := range w.calls {
		if c != nil && c.slot >= 0 {
			return true
		}
	}
	return false
}

func (w *tracer) stop(tid int) error {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	switch {
	case errno == unix.ESRCH:
		return nil
	case errno != 0:
		return fmt.Errorf("asking for the system call: %w", errno)
	case info.Op == infoEntry:
		c, err := w.enter(tid, int(info.Data[0]), info.Data[1:7])
		w.calls[tid] = c
		return err
	case info.Op == infoExit:
		c := w.calls[tid]
		delete(w.calls, tid)
		if c == nil {
			return nil
		}
		c.end(int64(info.Data[0]))
		if c.op == nil {
			return nil
		}
		if c.op.kind == sync { // counts from its return on, anything else from its beginning
			w.ops = append(w.ops, *c.op)
		} else {
			w.ops[c.slot] = *c.op
		}
		if w.left > 0 {
			w.left--
		}
	}
	return nil
}

// enter looks at a call that begins.
func (w *tracer) enter(tid, number int, args []uint64) (*call, error) {
	c := &call{slot: -1}
	effect := func(end func(r int64)) (*call, error) {
		c.slot = len(w.ops)
		w.ops = append(w.ops, op{})
		c.end = func(r int64) {
			if r >= 0 {
				end(r)
			}
		}
		return c, nil
	}
	after := func(end func(r int64)) (*call, error) {
		c.end = func(r int64) {
			if r >= 0 {
				end(r)
			}
		}
		return c, nil
	}
	switch number {
	case unix.SYS_EXIT_GROUP:
		w.ops = append(w.ops, op{kind: ack, name: fmt.Sprintf("exit %d", int(args[0]))})
	case unix.SYS_READLINKAT:
		path, err := text(tid, args[1])
		if what, ok := strings.CutPrefix(path, said); ok {
			w.ops = append(w.ops, op{kind: ack, name: what})
		}
		return nil, err
	case unix.SYS_OPENAT:
		rel, inside, err := w.path(tid, args[0], args[1])
		if err != nil || !inside {
			return nil, err
		}
		return effect(func(r int64) { w.opened(c, rel, int(args[2]), int(r)) })
	case unix.SYS_CLOSE:
		delete(w.fds, int(args[0])) // before it returns another thread may have opened a file by that number
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		f := w.fds[int(args[0])]
		if f == nil {
			return nil, nil
		}
		data := make([]byte, args[2])
		if err := memory(tid, args[1], data); err != nil {
			return nil, err
		}
		return effect(func(r int64) {
			off := int64(args[3])
			if number == unix.SYS_WRITE {
				if f.append {
					f.at = int64(len(w.live.content[f.node]))
				}
				off = f.at
				f.at += r
			}
			c.op = &op{kind: write, node: f.node, off: off, data: data[:r]}
			w.live.write(f.node, off, data[:r])
		})
	case unix.SYS_READ:
		if f := w.fds[int(args[0])]; f != nil {
			return after(func(r int64) { f.at += r })
		}
	case unix.SYS_LSEEK:
		if f := w.fds[int(args[0])]; f != nil {
			return after(func(r int64) { f.at = r })
		}
	case unix.SYS_FTRUNCATE:
		f := w.fds[int(args[0])]
		if f == nil {
			return nil, nil
		}
		return effect(func(int64) {
			c.op = &op{kind: truncate, node: f.node, off: int64(args[1])}
			w.live.truncate(f.node, int64(args[1]))
		})
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		if f := w.fds[int(args[0])]; f != nil {
			return effect(func(int64) { c.op = &op{kind: sync, node: f.node} })
		}
	case unix.SYS_MKDIRAT:
		rel, inside, err := w.path(tid, args[0], args[1])
		if err != nil || !inside {
			return nil, err
		}
		return effect(func(int64) { w.made(c, rel, true) })
	case unix.SYS_UNLINKAT:
		rel, inside, err := w.path(tid, args[0], args[1])
		if err != nil || !inside {
			return nil, err
		}
		return effect(func(int64) {
			dir, name, node := w.find(rel)
			c.op = &op{kind: remove, dir: dir, name: name, node: node}
			delete(w.live.entries[dir], name)
		})
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		from, inside1, err1 := w.path(tid, args[0], args[1])
		to, inside2, err2 := w.path(tid, args[2], args[3])
		if err := errors.Join(err1, err2); err != nil || !inside1 && !inside2 {
			return nil, err
		}
		if !inside1 || !inside2 || number == unix.SYS_RENAMEAT2 && args[4] != 0 {
			return nil, errors.New("a rename that cannot be followed")
		}
		return effect(func(int64) {
			dir, name, node := w.find(from)
			dir2, name2, _ := w.find(to)
			c.op = &op{kind: rename, dir: dir, name: name, dir2: dir2, name2: name2, node: node}
			delete(w.live.entries[dir], name)
			w.live.entries[dir2][name2] = node
		})
	case unix.SYS_MMAP:
		if f := w.fds[int(int32(args[4]))]; f != nil && args[3]&unix.MAP_SHARED != 0 && args[2]&unix.PROT_WRITE != 0 {
			return nil, errors.New("a shared, writable memory map cannot be followed")
		}
	case unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_FALLOCATE, unix.SYS_DUP, unix.SYS_DUP3:
		if w.fds[int(args[0])] != nil {
			return nil, fmt.Errorf("system call %d on a file cannot be followed", number)
		}
	case unix.SYS_LINKAT:
		_, inside, err := w.path(tid, args[2], args[3])
		if inside {
			err = errors.New("a hard link cannot be followed")
		}
		return nil, err
	}
	return nil, nil
}

// opened notes an open file, which may be a new one.
func (w *tracer) opened(c *call, rel string, flags, fd int) {
	_, _, node := w.find(rel)
	switch {
	case node < 0:
		node = w.made(c, rel, false)
	case flags&unix.O_TRUNC != 0:
		c.op = &op{kind: truncate, node: node}
		w.live.truncate(node, 0)
	}
	w.fds[fd] = &file{node: node, append: flags&unix.O_APPEND != 0}
}

func (w *tracer) made(c *call, rel string, folder bool) int {
	dir, name, _ := w.find(rel)
	node := w.node(folder)
	c.op = &op{kind: create, dir: dir, name: name, node: node}
	w.live.entries[dir][name] = node
	return node
}

// path reads a path argument, and makes it relative to the root if it is below it.
func (w *tracer) path(tid int, dirfd, at uint64) (rel string, inside bool, err error) {
	path, err := text(tid, at)
	if err != nil {
		return "", false, err
	}
	if !filepath.IsAbs(path) {
		if int32(dirfd) != unix.AT_FDCWD {
			return "", false, nil // what was opened below the root is not used in this way: Check would tell
		}
		path = filepath.Join(w.cwd, path)
	}
	rel, err = filepath.Rel(w.root, filepath.Clean(path))
	if err != nil {
		return "", false, err
	}
	return rel, rel != ".." && !strings.HasPrefix(rel, "../"), nil
}

// text reads a string of the program's.
func text(tid int, at uint64) (string, error) {
	const page = 4096
	var b []byte
	for len(b) < 2*page {
		part := make([]byte, page-at%page) // what lies in one page can be read, or none of it
		if err := memory(tid, at, part); err != nil {
			return "", err
		}
		b = append(b, part...)
		at += uint64(len(part))
		if end := strings.IndexByte(string(b), 0); end >= 0 {
			return string(b[:end]), nil
		}
	}
	return "", errors.New("a path that does not end")
}

func memory(tid int, at uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if err == nil && n != len(b) {
		err = fmt.Errorf("%d of %d bytes", n, len(b))
	}
	if err != nil {
		return fmt.Errorf("reading the program's memory: %w", err)
	}
	return nil
}
