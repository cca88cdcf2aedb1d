package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/durable"
	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// site is a forwarder's state folder, both clouds, and an agent that looks each second.
type site struct {
	options
	dir     string
	ports   [3]string
	sandbox *process
	client  *sandbox.Client
	header  []byte // of all captures
	box     []byte
	version uint32 // of the passwords that are put next
	unwatch func()
}

// process is one that was started.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func newSite(ctx context.Context, o options) (s *site, err error) {
	s = &site{options: o, unwatch: func() {}}
	if s.dir, err = os.MkdirTemp(o.dir, "pwsync-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for i := range s.ports {
		if s.ports[i], err = freePort(); err != nil {
			return s, err
		}
	}
	s.client = sandbox.NewClient(filepath.Join(s.dir, "clouds", "control.sock"))
	if err := s.startSandbox(ctx); err != nil {
		return s, err
	}
	return s, s.reset()
}

func (s *site) close() error {
	s.unwatch()
	if s.sandbox != nil {
		s.sandbox.stop()
	}
	return os.RemoveAll(s.dir)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *site) startSandbox(ctx context.Context) (err error) {
	s.sandbox, err = s.run(ctx, s.otherCPUs, "cloud-sandbox", "serve", "--dir", filepath.Join(s.dir, "clouds"), "--name", "127.0.0.1",
		"--google-listen", s.ports[0], "--microsoft-listen", s.ports[1], "--trap-listen", s.ports[2])
	if err != nil {
		return err
	}
	return s.until(ctx, func() (bool, error) {
		_, err := s.requests(ctx)
		return err == nil, nil
	})
}

// run starts a program on some processors. What it says goes to a file.
func (s *site) run(ctx context.Context, cpus, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(s.dir, program+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", cpus, filepath.Join(s.bin, program)}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // what it is, its log says
		close(p.ended)
	}()
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // if it has not ended
	<-p.ended
}

// reset makes a new state folder, with an agent beside it.
func (s *site) reset() error {
	s.unwatch()
	s.version++
	if err := os.RemoveAll(s.state()); err != nil {
		return err
	}
	if err := s.configure(0, ""); err != nil {
		return err
	}
	if text, err := exec.Command(filepath.Join(s.bin, "samba-pwsync"), "--config", s.config(), "init").CombinedOutput(); err != nil {
		return fmt.Errorf("init: %w: %s", err, text)
	}
	key, err := seal.LoadPublic(filepath.Join(s.state(), "keys", "forwarder.pub"))
	if err != nil {
		return err
	}
	if s.header, err = (capture.Header{ID: capture.NewID(), Time: time.Now(), Host: "dc1", Account: "user"}).Marshal(); err != nil {
		return err
	}
	if s.box, err = seal.Close(key, capture.SecretInfo(s.header), []byte("Benchmark-2026")); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			_ = change.WriteMark(s.outgoing(), change.Mark{AsOf: time.Now(), Host: "dc1", InvocationID: dsdb.GUID{9}})
			_ = sleep(ctx, time.Second)
		}
	})
	s.unwatch = func() { cancel(); watching.Wait() }
	return nil
}

func (s *site) state() string    { return filepath.Join(s.dir, "state") }
func (s *site) outgoing() string { return filepath.Join(s.state(), "spool", "outgoing") }
func (s *site) config() string   { return filepath.Join(s.dir, "samba-pwsync.toml") }

// configure writes the configuration: both targets, and what is not the default.
func (s *site) configure(rate float64, format string) error {
	targets, err := os.ReadFile(filepath.Join(s.dir, "clouds", "targets.toml"))
	if err != nil {
		return err
	}
	more := ""
	if rate > 0 {
		more = fmt.Sprintf("rate = %g\n", rate)
	}
	text := fmt.Sprintf("state_dir = %q\n\n%s", s.state(), targets)
	text = strings.ReplaceAll(text, "\nuser ", "\n"+more+"user ")
	if format != "" {
		text = strings.Replace(text, "\nsubject ", fmt.Sprintf("\npassword_format = %q\nsubject ", format), 1)
	}
	return os.WriteFile(s.config(), []byte(text), 0o600)
}

// forwarder is one that runs.
type forwarder struct {
	*process
}

// start starts a forwarder, and returns when it answers. rate 0 is the targets' default.
func (s *site) start(ctx context.Context, rate float64, format string) (*forwarder, error) {
	if err := s.configure(rate, format); err != nil {
		return nil, err
	}
	p, err := s.run(ctx, s.forwarderCPUs, "samba-pwsync", "--config", s.config(), "serve", "--role", "forwarder")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(s.state(), "forwarder", "control.sock")
	err = s.until(ctx, func() (bool, error) {
		select {
		case <-p.ended:
			log, _ := os.ReadFile(filepath.Join(s.dir, "samba-pwsync.log"))
			return false, fmt.Errorf("the forwarder ended: %s", log)
		default:
		}
		conn, err := net.Dial("unix", socket)
		if err == nil {
			err = conn.Close()
		}
		return err == nil, nil
	})
	return &forwarder{p}, err
}

// guid is account n's. They are spread like real ones.
func guid(n int) (g dsdb.GUID) {
	binary.BigEndian.PutUint64(g[:], uint64(n)*0x9E3779B97F4A7C15)
	binary.BigEndian.PutUint64(g[8:], uint64(n)+1)
	return g
}

func user(n int) string { return fmt.Sprintf("user%d@example.com", n) }

func (s *site) change(n int, at time.Time) change.Change {
	c := change.Change{
		Capture: capture.NewID().String(), Account: change.Account{GUID: guid(n), SAMAccountName: fmt.Sprint("user", n), UserPrincipalName: user(n)},
		Stamp: s.stamp(n), Captured: at, Proven: at, Header: s.header, SecretBox: s.box,
	}
	for _, target := range []string{"entra", "google"} {
		c.Routes = append(c.Routes, change.Route{Target: target, User: user(n)})
	}
	return c
}

func (s *site) stamp(n int) dsdb.Stamp {
	return dsdb.Stamp{Version: s.version, Time: time.Unix(1_790_000_000, 0).UTC(), InvocationID: dsdb.GUID{9}, USN: uint64(n) + 5000}
}

// put hands over the changes of accounts 0 to n-1, as one batch.
func (s *site) put(n int) error {
	dir := filepath.Join(s.state(), "batch")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var names []string
	for i := range n {
		c := s.change(i, time.Now().UTC())
		b, err := c.Marshal()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, c.FileName()), b, 0o600); err != nil {
			return err
		}
		names = append(names, c.FileName())
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(s.outgoing(), name)); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

// fellow is a change of somebody's own.
type fellow struct {
	user string
	at   time.Time // when it was handed over, durably
}

func (s *site) putOne(n int) (fellow, error) {
	c := s.change(n, time.Now().UTC())
	b, err := c.Marshal()
	if err != nil {
		return fellow{}, err
	}
	began := time.Now()
	aside := filepath.Join(s.state(), c.FileName())
	if err := durable.Create(aside, b, 0o600); err != nil {
		return fellow{}, err
	}
	return fellow{user(n), began}, durable.Move(aside, filepath.Join(s.outgoing(), c.FileName()))
}

// decided passes on that both targets want these accounts, as an agent does some minutes after each change.
func (s *site) decided(n int) error {
	const each = 500
	for first := 0; first < n; first += each {
		var some []change.Sighting
		for i := first; i < min(n, first+each); i++ {
			c := s.change(i, time.Now())
			wanted := &change.Wanted{DC: "DC1"}
			for _, route := range c.Routes {
				wanted.Routes = append(wanted.Routes, change.WantedRoute{Route: route, Reason: change.Lost})
			}
			some = append(some, change.Sighting{Account: c.Account, Stamp: c.Stamp, Wanted: wanted})
		}
		b, err := change.MarshalSightings("", some)
		if err != nil {
			return err
		}
		if err := durable.Create(filepath.Join(s.outgoing(), change.SightingsFile(time.Now(), fmt.Sprint("-", first))), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) noSightings() (bool, error) {
	names, err := filepath.Glob(filepath.Join(s.outgoing(), "*"+change.SightingsSuffix))
	return len(names) == 0, err
}

// addUsers makes accounts 0 to n-1 at both clouds.
func (s *site) addUsers(ctx context.Context, n int) error {
	for i := range n {
		for _, cloud := range []sandbox.Cloud{sandbox.Google, sandbox.Microsoft} {
			if err := s.client.AddUser(ctx, sandbox.User{Cloud: cloud, Name: user(i)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// requests returns how many passwords both clouds were asked to set.
func (s *site) requests(ctx context.Context) (n int, err error) {
	state, err := s.client.State(ctx)
	for operation, times := range state.Requests {
		if strings.Contains(operation, "update") || strings.Contains(operation, "PATCH") {
			n += times
		}
	}
	return n, err
}

// status is what is used of `status --json`.
type status struct {
	Forwarder struct {
		Targets []struct{ Waiting int }
	}
}

// waitingAt reports whether so many changes wait for each target.
func (s *site) waitingAt(ctx context.Context, n int) (bool, error) {
	var st status
	text, err := exec.CommandContext(ctx, filepath.Join(s.bin, "samba-pwsync"), "--config", s.config(), "status", "--json").Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 3 {
		err = nil // there is no agent
	}
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	if err != nil || len(st.Forwarder.Targets) == 0 {
		return false, fmt.Errorf("status: %w: %s", err, text)
	}
	for _, t := range st.Forwarder.Targets {
		if t.Waiting != n {
			return false, nil
		}
	}
	if n > 0 {
		return true, nil
	}
	left, err := filepath.Glob(filepath.Join(s.outgoing(), "*"+change.Suffix))
	return len(left) == 0, err
}

// ask runs a command, as a person does.
func (s *site) ask(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "samba-pwsync"), append([]string{"--config", s.config()}, args...)...)
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 3 {
		return nil
	}
	return err
}

// took returns how long each cloud was from a moment until it had taken the last password.
func (s *site) took(ctx context.Context, began time.Time) (map[string]time.Duration, error) {
	state, err := s.client.State(ctx)
	if err != nil {
		return nil, err
	}
	took := map[string]time.Duration{}
	for _, u := range state.Users {
		if p, ok := u.Current(); ok {
			took[string(u.Cloud)] = max(took[string(u.Cloud)], p.Applied.Sub(began))
		}
	}
	return took, nil
}

// delays waits until both clouds have taken these changes, and returns how long that took for each, in nanoseconds.
func (s *site) delays(ctx context.Context, made []fellow) (delays []float64, err error) {
	err = s.until(ctx, func() (bool, error) {
		state, err := s.client.State(ctx)
		if err != nil {
			return false, err
		}
		last := map[string]time.Time{}
		times := map[string]int{}
		for _, u := range state.Users {
			if p, ok := u.Current(); ok {
				if times[u.Name]++; p.Applied.After(last[u.Name]) {
					last[u.Name] = p.Applied
				}
			}
		}
		delays = nil
		for _, one := range made {
			if times[one.user] < 2 {
				return false, nil
			}
			delays = append(delays, float64(last[one.user].Sub(one.at)))
		}
		return true, nil
	})
	return delays, err
}

// until waits for something, for ten minutes at most.
func (s *site) until(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("waiting: %w", err)
		}
	}
}

// memory is what the kernel counts as a process's, in kB.
type memory struct{ rss, pss, own int }

func (m memory) String() string {
	return fmt.Sprintf("%d, %d MB", (m.rss+512)/1024, (m.pss+512)/1024)
}

func (f *forwarder) memory() (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", f.cmd.Process.Pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		to := map[string]*int{"Rss:": &m.rss, "Pss:": &m.pss, "Pss_Anon:": &m.own}[fields[0]]
		if to == nil {
			continue
		}
		if *to, err = strconv.Atoi(fields[1]); err != nil {
			return m, err
		}
	}
	return m, nil
}

// watch looks at the memory until the function that it returns is called, which returns the most.
func (f *forwarder) watch(ctx context.Context) func() memory {
	ctx, cancel := context.WithCancel(ctx)
	var most memory
	var looking sync.WaitGroup
	looking.Go(func() {
		for ctx.Err() == nil {
			if m, err := f.memory(); err == nil && m.rss > most.rss {
				most = m
			}
			_ = sleep(ctx, 200*time.Millisecond)
		}
	})
	return func() memory { cancel(); looking.Wait(); return most }
}

// memoryOver returns the most in the second half of a while.
func (f *forwarder) memoryOver(ctx context.Context, while time.Duration) (memory, error) {
	if err := sleep(ctx, while/2); err != nil {
		return memory{}, err
	}
	most := f.watch(ctx)
	err := sleep(ctx, while/2)
	return most(), err
}

// cpu returns what the process has used.
func (f *forwarder) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", f.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	ticks := 0
	for _, field := range fields[11:13] { // utime, stime; in hundredths of a second
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100, nil
}
