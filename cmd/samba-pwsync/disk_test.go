package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/ramdisk"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// patience is how long a condition may take to come true on a slow machine.
const patience = 3 * time.Minute

// comes waits until something is so.
func comes(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come: %s", what)
		}
	}
}

// attention returns what `status` says that needs a person.
func (in installation) attention(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("samba-pwsync", "status", "--config", in.config).CombinedOutput()
	if err != nil && err.(*exec.ExitError).ExitCode() != exitAttention {
		t.Fatalf("status: %v: %s", err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "ATTENTION") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// marks writes the mark now and then, as an agent does, whatever becomes of it.
func (in installation) marks(t *testing.T) {
	done, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(done); <-ended })
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				_ = change.WriteMark(in.paths.Outgoing, change.Mark{AsOf: time.Now(), Host: "dc1", InvocationID: dsdb.GUID{2}})
			}
		}
	}()
}

// spent is how much time of a processor the service has used.
func (s *service) spent(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(s.Process.Pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text)[strings.LastIndex(string(text), ")"):])
	user, err1 := strconv.Atoi(fields[12])
	system, err2 := strconv.Atoi(fields[13])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// The forwarder on a disk that fills up, with a real file system: first the reserve lets it go on, then it waits, with an alarm, without ending and
// without turning in circles. When there is room again, it goes on by itself.
func TestFullDisk(t *testing.T) {
	for name, disk := range map[string]func(testing.TB, int64, int) string{"tmpfs": ramdisk.Small, "ext4": ramdisk.Ext4} {
		t.Run(name, func(t *testing.T) {
			sb := startSandbox(t)
			if err := sb.AddUser(sandbox.User{Name: liz}); err != nil {
				t.Fatal(err)
			}
			state := disk(t, 32<<20, 0)
			in := installOn(t, sb, self(), t.TempDir(), state, "ballast = 4\n")
			s := in.begin(t, self(), roleForwarder)
			in.marks(t)
			in.hand(t, 1, "Older-Horse-6")
			holds(t, sb, "Older-Horse-6")
			comes(t, "the reserve", func() bool { return exists(filepath.Join(in.paths.Forwarder, "ballast")) })

			filler := ramdisk.Fill(t, state)
			comes(t, "the alarm", func() bool { return strings.Contains(in.attention(t), "full") })
			comes(t, "the reserve's end", func() bool { return !exists(filepath.Join(in.paths.Forwarder, "ballast")) })
			in.hand(t, 2, password)
			holds(t, sb, password)

			ramdisk.Fill(t, state)
			comes(t, "the alarm of the full disk", func() bool { return strings.Contains(in.attention(t), "is full since") })
			before := s.spent(t)
			time.Sleep(5 * time.Second)
			if used := s.spent(t) - before; used > 2*time.Second {
				t.Errorf("it used %v of a processor in 5 s", used)
			}
			lines := strings.Count(s.stderr.String(), "forwarder-trouble")
			if lines > 20 {
				t.Errorf("%d lines of trouble", lines)
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			in.hand(t, 3, "Third-Horse-8")
			holds(t, sb, "Third-Horse-8")
			comes(t, "all well", func() bool { return !strings.Contains(in.attention(t), "disk") })
			comes(t, "the reserve again", func() bool { return exists(filepath.Join(in.paths.Forwarder, "ballast")) })
			if err := s.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("it ended: %v", err)
			}
			s.stop(t)
		})
	}
}

// A forwarder that is to start on a disk that is full, or read-only, waits for it, and says so; it does not end.
func TestStartOnASickDisk(t *testing.T) {
	state := ramdisk.Ext4(t, 32<<20, 0)
	sb := startSandbox(t)
	if err := sb.AddUser(sandbox.User{Name: liz}); err != nil {
		t.Fatal(err)
	}
	in := installOn(t, sb, self(), t.TempDir(), state, "ballast = 4\n")
	in.hand(t, 1, password)
	remount := func(option string) {
		t.Helper()
		if out, err := exec.Command("mount", "-o", "remount,"+option, state).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	remount("ro")
	s := in.begin(t, self(), roleForwarder)
	comes(t, "that it waits", func() bool { return strings.Contains(s.stderr.String(), "event=waiting-for-disk") })
	if text := in.attention(t); !strings.Contains(text, "is read-only") {
		t.Errorf("status says %s", text)
	}
	remount("rw")
	filler := ramdisk.Fill(t, state)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	comes(t, "that it is ready", func() bool { return len(s.hears) > 0 && <-s.hears == "READY=1" })
	in.marks(t)
	holds(t, sb, password)
	s.stop(t)
	if n := strings.Count(s.stderr.String(), "event=waiting-for-disk"); n != 1 {
		t.Errorf("that it waits was said %d times", n)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
