package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// hook is the program under test, built as it is shipped but for its syslog, a socket in the folder that it is started in.
var hook string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hook")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	hook = filepath.Join(dir, "samba-pwsync-hook")
	if out, err := build(hook, "-s -w -X main.version=1.2.3 -X main.devLog=log.sock"); err != nil {
		fmt.Fprintf(os.Stderr, "building the hook: %v\n%s", err, out)
		return 1
	}
	if err := os.Chmod(dir, 0o755); err != nil { // one test runs it as another user
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(out, ldflags string) ([]byte, error) {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", ldflags, "-o", out, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd.CombinedOutput()
}

// site is an installation: state folder, keys, configuration and syslog.
type site struct {
	t                testing.TB
	dir, state       string
	config           string
	agent, forwarder seal.PrivateKey
	syslog           *net.UnixConn
	seen             []string // all log lines
}

func newSite(t testing.TB, more ...string) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "site") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &site{t: t, dir: dir, state: filepath.Join(dir, "state"), config: filepath.Join(dir, "c.toml")}
	for _, folder := range []string{"keys", "spool/incoming"} {
		s.must(os.MkdirAll(filepath.Join(s.state, folder), 0o700))
	}
	for name, key := range map[string]*seal.PrivateKey{"agent": &s.agent, "forwarder": &s.forwarder} {
		*key, err = seal.Generate()
		s.must(err)
		s.must(os.WriteFile(s.key(name), key.Public().MarshalPEM(), 0o644))
	}
	s.configure(more...)
	s.syslog, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "log.sock"), Net: "unixgram"})
	s.must(err)
	t.Cleanup(func() { _ = s.syslog.Close() })
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) key(role string) string { return filepath.Join(s.state, "keys", role+".pub") }
func (s *site) incoming() string       { return filepath.Join(s.state, "spool", "incoming") }

// configure writes a configuration that names the state folder, what is given, and a target of which the hook knows nothing.
func (s *site) configure(more ...string) {
	s.t.Helper()
	s.write("state_dir = \"" + s.state + "\"\n" + strings.Join(more, "\n") + "\n[target.later]\n")
}

func (s *site) write(config string) {
	s.t.Helper()
	s.must(os.WriteFile(s.config, []byte(config), 0o644))
}

// alice is the environment of an ordinary change.
var alice = []string{checkpassword.EnvAccount + "=alice", checkpassword.EnvUserPrincipalName + "=alice@example.com", checkpassword.EnvFullName + "=Alice Köhler"}

// command is what Samba runs.
func (s *site) command(password string, env []string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", "-c", "exec "+hook+" --config "+s.config)
	cmd.Dir, cmd.Env, cmd.Stdin = s.dir, append([]string{}, env...), strings.NewReader(password)
	return cmd
}

// asNobody makes a command run without root's rights, if they are there to be given up.
func (s *site) asNobody(cmd *exec.Cmd) {
	s.t.Helper()
	if os.Getuid() != 0 {
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	s.must(os.Chmod(filepath.Join(s.dir, "log.sock"), 0o777))
	for _, folder := range []string{s.dir, s.state, filepath.Join(s.state, "keys"), filepath.Join(s.state, "spool")} {
		s.must(os.Chmod(folder, 0o755))
	}
}

// result is what a run left behind.
type result struct {
	code     int
	priority string
	line     string // of the log, without what syslog puts in front
	captures []string
}

var logForm = regexp.MustCompile(`^<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d samba-pwsync-hook\[\d+\]: ([^\n]*)$`)

// run does one run, and sees to what holds for all: silent streams, one log line.
func (s *site) run(password string, env []string) result {
	s.t.Helper()
	return s.finish(s.command(password, env))
}

func (s *site) finish(cmd *exec.Cmd) result {
	s.t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	r := result{code: exitCode(s.t, cmd.Run()), captures: s.list()}
	if out.Len() > 0 {
		s.t.Errorf("the streams are not silent: %.500q", out.String())
	}
	lines := s.logged(1)
	if len(lines) != 1 {
		s.t.Fatalf("%d log lines: %q", len(lines), lines)
	}
	form := logForm.FindStringSubmatch(lines[0])
	if form == nil {
		s.t.Fatalf("the log line has another form: %q", lines[0])
	}
	r.priority, r.line = form[1], form[2]
	return r
}

// logged returns the lines that arrived, and waits a moment for the first few.
func (s *site) logged(expected int) []string {
	var lines []string
	buf := make([]byte, 1<<16)
	for {
		wait := time.Now().Add(time.Millisecond)
		if len(lines) < expected {
			wait = time.Now().Add(time.Second)
		}
		s.must(s.syslog.SetReadDeadline(wait))
		n, err := s.syslog.Read(buf)
		if err != nil {
			s.seen = append(s.seen, lines...)
			return lines
		}
		lines = append(lines, string(buf[:n]))
	}
}

func exitCode(t testing.TB, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	t.Fatal(err)
	return -1
}

// list returns the files in spool/incoming.
func (s *site) list() []string {
	entries, err := os.ReadDir(s.incoming())
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Join(s.incoming(), e.Name()))
	}
	return names
}

// open reads a capture with the private keys, as agent and forwarder would. An error means that they would notice damage.
func (s *site) open(file string) (h capture.Header, password string, proof []byte, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return h, "", nil, err
	}
	c, err := capture.Parse(b)
	if err != nil {
		return h, "", nil, err
	}
	content, err := seal.Open(s.agent, capture.ProofInfo(c.Raw), c.ProofBox)
	if err != nil {
		return h, "", nil, err
	}
	clear, err := seal.Open(s.forwarder, capture.SecretInfo(c.Raw), c.SecretBox)
	if err != nil {
		return h, "", nil, err
	}
	return c.Header, string(clear.Bytes()), content.Bytes(), nil
}

// holds checks that a file is a whole capture of that password, to be proven by NT hash.
func (s *site) holds(file, password string) capture.Header {
	s.t.Helper()
	return s.holdsWith(file, password, box.EncodeNTHash(dsdb.NTHash(checkpassword.UTF16LE([]byte(password)))))
}

func (s *site) holdsWith(file, password string, proof []byte) capture.Header {
	s.t.Helper()
	h, got, inBox, err := s.open(file)
	if err != nil {
		s.t.Fatal(err)
	}
	if got != password {
		s.t.Error("the secret box holds another password")
	}
	if !bytes.Equal(inBox, proof) {
		s.t.Error("the proof box holds something else")
	}
	return h
}

// forms are the ways in which a password could lie around.
func forms(password string) map[string][]byte {
	utf16 := checkpassword.UTF16LE([]byte(password))
	hash := dsdb.NTHash(utf16)
	all := map[string][]byte{"UTF-8": []byte(password), "UTF-16LE": utf16, "NT hash": hash[:], "URL-escaped": []byte(url.QueryEscape(password))}
	for name, b := range map[string][]byte{"UTF-8": []byte(password), "UTF-16LE": utf16, "NT hash": hash[:]} {
		all[name+" in hex"] = []byte(hex.EncodeToString(b))
		all[name+" in HEX"] = []byte(strings.ToUpper(hex.EncodeToString(b)))
		// Where it begins within three bytes changes base64: look for the part that stays the same.
		for skip := range 3 {
			all[fmt.Sprintf("%s in base64, %d", name, skip)] = []byte(base64.RawStdEncoding.EncodeToString(b[skip:][:(len(b)-skip)/3*3]))
		}
	}
	return all
}

// silent checks that no file of the site and no log line holds the password in any form.
func (s *site) silent(password string) {
	s.t.Helper()
	written := map[string][]byte{"log": []byte(strings.Join(s.seen, "\n"))}
	s.must(filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		written[path], err = os.ReadFile(path)
		return err
	}))
	for where, b := range written {
		for form, needle := range forms(password) {
			if bytes.Contains(b, needle) {
				s.t.Errorf("%s holds the password as %s", where, form)
			}
		}
	}
}
