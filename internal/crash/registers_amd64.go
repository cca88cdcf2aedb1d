package crash

import "golang.org/x/sys/unix"

func registers(tid int, edit func(*unix.PtraceRegs)) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	edit(&r)
	return unix.PtraceSetRegs(tid, &r)
}

// cancelCall has the kernel not do the call that a thread begins.
func cancelCall(tid int) error {
	return registers(tid, func(r *unix.PtraceRegs) { r.Orig_rax = ^uint64(0) })
}

// setResult changes what the call returns that a thread ends.
func setResult(tid int, result int64) error {
	return registers(tid, func(r *unix.PtraceRegs) { r.Rax = uint64(result) })
}

// setLength changes how many bytes the write has that a thread begins.
func setLength(tid int, n uint64) error {
	return registers(tid, func(r *unix.PtraceRegs) { r.Rdx = n })
}
