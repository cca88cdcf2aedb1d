package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/policy/index"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/internal/refusal"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
)

const good = "Canary-Pa55wörd"

func TestTakesAPassword(t *testing.T) {
	s := newSite(t)
	before := time.Now()
	r := s.run(good, alice)
	if r.code != 0 || len(r.captures) != 1 {
		t.Fatalf("exit %d, %d captures, log %q", r.code, len(r.captures), r.line)
	}
	h := s.holds(r.captures[0], good)
	host, _ := os.Hostname()
	if h.Account != "alice" || h.UserPrincipalName != "alice@example.com" || h.FullName != "Alice Köhler" || h.Host != host {
		t.Errorf("the header says %+v", h)
	}
	if h.Time.Before(before) || h.Time.After(time.Now()) {
		t.Errorf("taken at %v, not between %v and now", h.Time, before)
	}
	if name := filepath.Base(r.captures[0]); name != h.FileName() {
		t.Errorf("the file is called %s, not %s", name, h.FileName())
	}
	if info, err := os.Stat(r.captures[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if want := `accepted capture=` + h.ID.String() + ` account="alice"`; r.line != want || r.priority != "38" {
		t.Errorf("log <%s> %q, want <38> %q", r.priority, r.line, want)
	}
	s.silent(good)
}

// Where no target is configured, no password is kept; where there is one, or something that is to be one, it is.
func TestNothingIsKeptThatNobodyWants(t *testing.T) {
	s := newSite(t)
	for _, tc := range []struct {
		config string
		kept   int
	}{
		{"", 0},
		{"[policy]\nmin_length = 9\n[directory]\nproof = \"aes256\"\n", 0},
		{"[target]\n", 0},
		{"[target.google]\n", 1},
		{"[target.google]\ntype = \"gogle\"\n", 1},
		{"[target]\ngoogle = 1\n", 1},
	} {
		s.write("state_dir = \"" + s.state + "\"\n" + tc.config)
		r := s.run(good, alice)
		if r.code != 0 || len(r.captures) != tc.kept || r.priority != "38" {
			t.Errorf("%q: exit %d, %d captures, log <%s> %q", tc.config, r.code, len(r.captures), r.priority, r.line)
		}
		for _, c := range r.captures {
			s.must(os.Remove(c))
		}
	}
	s.write("state_dir = \"" + s.state + "\"\n")
	if r := s.run("short", alice); r.code != 1 {
		t.Errorf("the policy: exit %d, log %q", r.code, r.line)
	}
	s.must(os.RemoveAll(filepath.Join(s.state, "keys")))
	if r := s.run(good, alice); r.code != 0 || r.line != `accepted account="alice"` {
		t.Errorf("without keys: exit %d, log %q", r.code, r.line)
	}
}

// For the proof by AES256 key the agent is given the password; by a slip in the configuration it is not.
func TestProof(t *testing.T) {
	for _, tc := range []struct {
		name, config    string
		password, fault bool
	}{
		{"aes256", `proof = "aes256"`, true, false},
		{"nthash", `proof = "nthash"`, false, false},
		{"a slip", `proof = "aes-256"`, false, true},
		{"aes256, and no TOML", "proof = \"aes256\"\n!!!", true, true},
		{"aes256, and others' faults", "proof = \"aes256\"\nurl = 1", true, false},
	} {
		s := newSite(t, "[directory]\n"+tc.config)
		r := s.run(good, alice)
		if r.code != 0 || len(r.captures) != 1 || strings.Contains(r.line, " config=") != tc.fault {
			t.Fatalf("%s: exit %d, %d captures, log %q", tc.name, r.code, len(r.captures), r.line)
		}
		if tc.password {
			s.holdsWith(r.captures[0], good, box.EncodePassword([]byte(good)))
		} else {
			s.holds(r.captures[0], good)
		}
		s.silent(good)
	}
}

// That a proof box holds the password shows neither in the size of the file nor in that of the box.
func TestKindsOfProofLookAlike(t *testing.T) {
	size := func(proof string) int64 {
		s := newSite(t, `[directory]`, `proof = "`+proof+`"`)
		info, err := os.Stat(s.run(good, alice).captures[0])
		s.must(err)
		return info.Size()
	}
	if hash, password := size("nthash"), size("aes256"); hash != password {
		t.Errorf("%d bytes with a hash, %d with the password", hash, password)
	}
}

func TestCanaryIsAbleToSing(t *testing.T) {
	for form, needle := range forms(good) {
		fake := &testing.T{}
		s := newSite(t)
		s.t = fake
		if err := os.WriteFile(filepath.Join(s.state, "leak"), append([]byte("xy"), needle...), 0o600); err != nil {
			t.Fatal(err)
		}
		if s.silent(good); !fake.Failed() {
			t.Errorf("a leak as %s goes unnoticed", form)
		}
	}
}

func TestWithoutNames(t *testing.T) {
	s := newSite(t)
	r := s.run(good, nil)
	if r.code != 0 || len(r.captures) != 1 || !strings.Contains(r.line, ` probe=maybe account=""`) {
		t.Fatalf("exit %d, %d captures, log %q", r.code, len(r.captures), r.line)
	}
	if h := s.holds(r.captures[0], good); h.Account != "" {
		t.Errorf("the header says %+v", h)
	}
	r = s.run(good, alice[:1]) // all that SamrValidatePassword sets
	if r.code != 0 || !strings.Contains(r.line, ` probe=maybe account="alice"`) {
		t.Errorf("exit %d, log %q", r.code, r.line)
	}
}

func TestVerdicts(t *testing.T) {
	const short, long = `it has fewer than 8 characters`, `it has more than 16 characters`
	const simple = `it mixes fewer than three of: digits, upper case, lower case, other ASCII characters, letters without case`
	const audit, off = "[policy]\nmode = \"audit\"", "[policy]\nmode = \"off\""
	const strict = "[hook]\non_capture_error = \"refuse\"\n"
	for _, tc := range []struct {
		name     string
		config   string
		password string
		code     int
		captures int
		line     string // CAPTURE stands for an ID
		priority string
	}{
		{"too short", "", "Aa1!xyz", 1, 0, `refused policy=default rules=length account="alice" reason="` + short + `"`, "36"},
		{"too long", "", "Abcdefghijklmnop1!", 1, 0, `refused policy=default rules=length account="alice" reason="` + long + `"`, "36"},
		{"too simple", "", "canarycanary", 1, 0, `refused policy=default rules=complexity account="alice" reason="` + simple + `"`, "36"},
		{"all at once", "", "canary", 1, 0, `refused policy=default rules=length,complexity account="alice" reason="` + short + `; ` + simple + `"`, "36"},
		{"longer is allowed", "[policy]\nmax_length = 64", "Abcdefghijklmnop1!", 0, 1, `accepted capture=CAPTURE account="alice"`, "38"},
		{"nothing", "", "", 1, 0, `refused account="alice" error="reading password: the password is empty"`, "36"},
		{"NUL", "", "Passw0rd\x00x", 1, 0, `refused account="alice" error="reading password: the password contains a NUL"`, "36"},
		{"stray bytes", "", "Passw0rd!\xd4\xff", 1, 0, `refused account="alice" error="reading password: the password is not UTF-8"`, "36"},
		{"64 KiB", "", strings.Repeat("Canary1!", 8192), 1, 0, `refused account="alice" error="reading password: the password is longer than 4096 bytes"`, "36"},
		{"1 MiB", "", strings.Repeat("Canary1!", 131072), 1, 0, `refused account="alice" error="reading password: the password is longer than 4096 bytes"`, "36"},
		{"a newline belongs to it", "", "Canary-Pa5\n", 0, 1, `accepted capture=CAPTURE account="alice"`, "38"},

		{"audit takes it and tells", audit, "canary", 0, 1, `accepted capture=CAPTURE policy=default audited=length,complexity account="alice" audit="` + short + `; ` + simple + `"`, "38"},
		{"off takes it", off, "canary", 0, 1, `accepted capture=CAPTURE account="alice"`, "38"},
		{"audit, nothing", audit, "", 0, 0, `accepted account="alice" error="not captured: reading password: the password is empty"`, "35"},
		{"off, stray bytes", off, "canary\xff", 0, 0, `accepted account="alice" error="not captured: reading password: the password is not UTF-8"`, "35"},
		{"off, stray bytes, strict", strict + off, "canary\xff", 2, 0, `failed account="alice" error="not captured: reading password: the password is not UTF-8"`, "35"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t, tc.config)
			r := s.run(tc.password, alice)
			line := regexp.MustCompile(`capture=[0-9a-f]{32}`).ReplaceAllString(r.line, "capture=CAPTURE")
			if r.code != tc.code || len(r.captures) != tc.captures || line != tc.line || r.priority != tc.priority {
				t.Errorf("exit %d, %d captures, log <%s> %s\nwant %d, %d, <%s> %s", r.code, len(r.captures), r.priority, line, tc.code, tc.captures, tc.priority, tc.line)
			}
			for _, file := range r.captures {
				s.holds(file, tc.password)
			}
			if len(tc.password) > 4 {
				s.silent(tc.password[:min(16, len(tc.password))])
			}
		})
	}
}

func TestNowhereToPutIt(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(s *site)
		why   string // STATE stands for the state folder
	}{
		{"no agent key", func(s *site) { s.must(os.Remove(s.key("agent"))) }, `reading public key: open STATE/keys/agent.pub: no such file or directory`},
		{"no forwarder key", func(s *site) { s.must(os.Remove(s.key("forwarder"))) }, `reading public key: open STATE/keys/forwarder.pub: no such file or directory`},
		{"half a key", func(s *site) { s.must(os.Truncate(s.key("agent"), 100)) }, `STATE/keys/agent.pub: decoding key: no PEM block of type SAMBA-PWSYNC PUBLIC KEY found`},
		{"no state folder", func(s *site) { s.must(os.RemoveAll(s.state)) }, `reading public key: open STATE/keys/agent.pub: no such file or directory`},
		{"no spool", func(s *site) { s.must(os.Remove(s.incoming())) }, `opening spool: lstat STATE/spool/incoming: no such file or directory`},
		{"a file for a spool", func(s *site) {
			s.must(os.Remove(s.incoming()))
			s.must(os.WriteFile(s.incoming(), nil, 0o600))
		}, `opening spool: STATE/spool/incoming is not a folder`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for answer, code := range map[string]int{"accept": 0, "refuse": 2} {
				s := newSite(t, "[hook]\non_capture_error = \""+answer+"\"")
				tc.spoil(s)
				r := s.run(good, alice)
				verdict := map[int]string{0: "accepted", 2: "failed"}[code]
				want := verdict + ` account="alice" error="not captured: ` + strings.ReplaceAll(tc.why, "STATE", s.state) + `"`
				if r.code != code || r.line != want || r.priority != "35" || len(r.captures) != 0 {
					t.Errorf("%s: exit %d, log <%s> %s\nwant %d, <35> %s", answer, r.code, r.priority, r.line, code, want)
				}
				if r := s.run("canary", alice); r.code != 1 {
					t.Errorf("%s: the policy is gone as well: exit %d", answer, r.code)
				}
				s.silent(good)
			}
		})
	}
}

func TestReadOnlySpool(t *testing.T) {
	s := newSite(t)
	cmd := s.command(good, alice)
	s.asNobody(cmd)
	s.must(os.Chmod(s.incoming(), 0o555))
	r := s.finish(cmd)
	if r.code != 0 || len(r.captures) != 0 || !strings.Contains(r.line, "permission denied") || r.priority != "35" {
		t.Errorf("exit %d, %d captures, log %q", r.code, len(r.captures), r.line)
	}
}

// The disk is full: what was begun must not stay.
func TestNoRoom(t *testing.T) {
	s := newSite(t)
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	if err := syscall.Mount("tmpfs", s.incoming(), "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	defer syscall.Unmount(s.incoming(), syscall.MNT_DETACH)
	r := s.run(good, alice)
	if r.code != 0 || len(r.captures) != 0 || !strings.Contains(r.line, "no space left on device") {
		t.Errorf("exit %d, %d captures, log %q", r.code, len(r.captures), r.line)
	}
}

func TestBrokenConfig(t *testing.T) {
	for _, tc := range []struct {
		name, config string
		captures     int // 0: the state folder cannot be told
		says         string
	}{
		{"no TOML", "state_dir = \"STATE\"\n[policy]\nmode = \"off\"\n!!!\n", 1, `:4: is no TOML`},
		{"wrong type", "state_dir = \"STATE\"\n[policy]\nmode = \"off\"\nmin_length = \"1\"\n", 1, `:4: policy.min_length: is a string, not a whole number`},
		{"unknown keys", "state_dir = \"STATE\"\n[policy]\nmode = \"off\"\nx = 1\ny = 2\n", 1, `:4: policy.x: is not known`},
		{"contradiction", "state_dir = \"STATE\"\n[policy]\nmode = \"off\"\nmin_length = 99\n", 1, `:4: policy.min_length: is 99, more than max_length`},
		{"others' faults", "state_dir = \"STATE\"\n[target.x]\ntype = \"y\"\n", 1, ``},
		{"no sense from the start", "\xff\xfe", 0, `:1: is no TOML`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			s.write(strings.ReplaceAll(tc.config, "STATE", s.state))
			if r := s.run("canary", alice); r.code != 1 || len(r.captures) != 0 {
				t.Errorf("the built-in policy does not hold: exit %d, log %q", r.code, r.line)
			}
			r := s.run(good, alice)
			if r.code != 0 || len(r.captures) != tc.captures {
				t.Errorf("exit %d, %d captures, log %q", r.code, len(r.captures), r.line)
			}
			if !strings.Contains(r.line, tc.says) || strings.Contains(r.line, " config=") != (tc.says != "") {
				t.Errorf("log %q, want %q", r.line, tc.says)
			}
			if tc.says != "" && r.priority != "35" {
				t.Errorf("priority %s", r.priority)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		s := newSite(t)
		s.must(os.Remove(s.config))
		if r := s.run("canary", alice); r.code != 1 || !strings.Contains(r.line, "c.toml: reading: no such file or directory; `samba-pwsync init` writes an example") {
			t.Errorf("exit %d, log %q", r.code, r.line)
		}
	})
	t.Run("strict, broken below", func(t *testing.T) {
		s := newSite(t, "[hook]\non_capture_error = \"refuse\"\n!!!")
		s.must(os.Remove(s.key("agent")))
		if r := s.run(good, alice); r.code != 2 {
			t.Errorf("on_capture_error was readable: exit %d, log %q", r.code, r.line)
		}
	})
}

func TestNoSyslog(t *testing.T) {
	s := newSite(t)
	s.must(s.syslog.Close())
	s.must(os.RemoveAll(filepath.Join(s.dir, "log.sock")))
	cmd := s.command(good, alice)
	if code := exitCode(t, cmd.Run()); code != 0 || len(s.list()) != 1 {
		t.Errorf("exit %d, %d captures", code, len(s.list()))
	}
}

// A syslog that nobody reads must not hold up Samba.
func TestFullSyslog(t *testing.T) {
	s := newSite(t)
	start := time.Now()
	for range 30 { // net.unix.max_dgram_qlen is 10, or up to 512 on some systems; those just do not fill
		if code := exitCode(t, s.command(good, alice).Run()); code != 0 {
			t.Fatalf("exit %d", code)
		}
	}
	if took := time.Since(start); took > 3*time.Minute {
		t.Errorf("30 runs took %v", took)
	}
}

func TestHostileEnvironment(t *testing.T) {
	const account = checkpassword.EnvAccount + "="
	for _, tc := range []struct {
		name string
		env  []string
		line string
	}{
		{"newline in the name", []string{account + "a\nb"}, ` account="" ignored="SAMBA_CPS_ACCOUNT_NAME"`},
		{"no UTF-8 in the name", []string{account + "a\xff"}, ` account="" ignored="SAMBA_CPS_ACCOUNT_NAME"`},
		{"a key in the name", []string{account + `x" error="y`}, ` account="x\" error=\"y"`},
		{"text that turns around", []string{account + "a\u202eb"}, ` account="a\u202eb"`},
		{"long name", []string{account + strings.Repeat("ü", 512)}, ` account="` + strings.Repeat("ü", 128) + `"`},
		{"too long a name", []string{account + strings.Repeat("x", 1025)}, ` account="" ignored="SAMBA_CPS_ACCOUNT_NAME"`},
		{"huge variable", []string{account + strings.Repeat("x", 100000)}, ` account="" ignored="SAMBA_CPS_ACCOUNT_NAME"`},
		{"all ignored", []string{account + "\x01", checkpassword.EnvUserPrincipalName + "=\x02", checkpassword.EnvFullName + "=\x03"},
			` account="" ignored="SAMBA_CPS_ACCOUNT_NAME SAMBA_CPS_USER_PRINCIPAL_NAME SAMBA_CPS_FULL_NAME"`},
		{"a shell's tricks", []string{account + "$(id)`id`;|&"}, " account=\"$(id)`id`;|&\""},
		{"Go's variables", []string{account + "bob", "GODEBUG=fips140=on,madvdontneed=1", "GOTRACEBACK=crash", "GOGC=1", "GOMEMLIMIT=1", "GOMAXPROCS=64"}, ` account="bob"`},
		{"FIPS only", []string{account + "bob", "GODEBUG=fips140=only"}, ` account="bob"`},
		{"places", []string{account + "bob", "HOME=/nonexistent", "TMPDIR=/nonexistent", "TZ=/dev/zero", "ZONEINFO=/dev/zero", "PATH="}, ` account="bob"`},
		{"much of it", append(many(2000), account+"bob"), ` account="bob"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			r := s.run(good, tc.env)
			if r.code != 0 || len(r.captures) != 1 || !strings.HasSuffix(r.line, " probe=maybe"+tc.line) {
				t.Fatalf("exit %d, %d captures, log %q", r.code, len(r.captures), r.line)
			}
			s.holds(r.captures[0], good)
		})
	}
}

func many(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = "V" + strconv.Itoa(i) + "=" + strings.Repeat("x", 500)
	}
	return all
}

// What hangs is cut off: a named pipe that nobody writes to stands for a dead disk.
func TestHangs(t *testing.T) {
	fifo := func(s *site, path string) {
		_ = os.Remove(path)
		s.must(syscall.Mkfifo(path, 0o600))
	}
	for _, tc := range []struct {
		name  string
		make  func(t *testing.T) (*site, string)
		code  int
		line  string
		least time.Duration
	}{
		{"key, accepting", func(t *testing.T) (*site, string) {
			s := newSite(t)
			fifo(s, s.key("agent"))
			return s, good
		}, 0, `accepted account="alice" error="not captured: storing: it hangs"`, deadline},
		{"key, refusing", func(t *testing.T) (*site, string) {
			s := newSite(t, "[hook]\non_capture_error = \"refuse\"")
			fifo(s, s.key("agent"))
			return s, good
		}, 2, `failed account="alice" error="not captured: storing: it hangs"`, deadline},
		{"configuration, and a bad password", func(t *testing.T) (*site, string) {
			s := newSite(t)
			fifo(s, s.config)
			return s, "canary"
		}, 1, `c.toml: it hangs"`, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, password := tc.make(t)
			start := time.Now()
			r := s.run(password, alice)
			if r.code != tc.code || !strings.HasSuffix(r.line, tc.line) || len(r.captures) != 0 {
				t.Errorf("exit %d, log %q, want %d, %q", r.code, r.line, tc.code, tc.line)
			}
			if took := time.Since(start); took < tc.least || took > tc.least+time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
	for mode, code := range map[string]int{"enforce": 1, "off": 0} {
		t.Run("stdin, "+mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "[policy]\nmode = \""+mode+"\"")
			r, w, err := os.Pipe()
			s.must(err)
			defer r.Close()
			defer w.Close()
			cmd := s.command("", alice)
			cmd.Stdin = r
			if got := s.finish(cmd); got.code != code || !strings.HasSuffix(got.line, "reading password: it hangs\"") {
				t.Errorf("exit %d, log %q", got.code, got.line)
			}
		})
	}
}

func TestCommandLine(t *testing.T) {
	s := newSite(t)
	for _, tc := range []struct {
		args string
		code int
		out  string
		err  string
		log  int
	}{
		{"--version", 0, "samba-pwsync-hook 1.2.3\n", "", 0},
		{"--help", 0, usage, "", 0},
		{"--config=" + s.config, 0, "", "", 1},
		{"--config", 0, "", usage, 1},
		{"-config x", 0, "", usage, 1},
		{"--config x y", 0, "", usage, 1},
		{"alice", 0, "", usage, 1},
	} {
		cmd := s.command(good, alice)
		cmd.Args[2] = "exec " + hook + " " + tc.args
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		code := exitCode(t, cmd.Run())
		if log := s.logged(tc.log); code != tc.code || out.String() != tc.out || errs.String() != tc.err || len(log) != tc.log {
			t.Errorf("%s: exit %d, stdout %q, stderr %q, log %q", tc.args, code, out.String(), errs.String(), log)
		}
	}
}

// Nobody but root can look into the process, and it leaves no core file.
func TestHardened(t *testing.T) {
	s := newSite(t)
	fifo := s.key("agent") // to hold it at a known place, with the password in its memory
	s.must(os.Remove(fifo))
	s.must(syscall.Mkfifo(fifo, 0o600))
	s.must(os.Chmod(fifo, 0o644))
	cmd := s.command(good, alice)
	s.asNobody(cmd)
	s.must(cmd.Start())
	defer cmd.Wait()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // waits for the hook to open it
	s.must(err)
	defer w.Close()
	proc := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
	limits, err := os.ReadFile(filepath.Join(proc, "limits"))
	s.must(err)
	if !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
		t.Errorf("core files are possible:\n%s", limits)
	}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	s.must(err)
	if !regexp.MustCompile(`Umask:\s+0077`).Match(status) {
		t.Error("the umask is not 077")
	}
	var st syscall.Stat_t
	s.must(syscall.Stat(filepath.Join(proc, "mem"), &st))
	if st.Uid != 0 { // that of a process that can be dumped belongs to its user
		t.Error("its memory can be read by its user")
	}
}

// When Samba kills the shell because smb.conf lacks exec, the hook goes with it.
func TestDiesWithTheShell(t *testing.T) {
	s := newSite(t)
	fifo := s.key("agent")
	s.must(os.Remove(fifo))
	s.must(syscall.Mkfifo(fifo, 0o600))
	cmd := s.command(good, alice)
	cmd.Args[2] = hook + " --config " + s.config + "; exit 0" // a shell that waits
	s.must(cmd.Start())
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	s.must(err)
	defer w.Close()
	s.must(cmd.Process.Kill())
	_ = cmd.Wait()
	if lines := s.logged(1); len(lines) != 0 {
		t.Errorf("it lives on: %q", lines)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("it still reads")
	}
}

const sealedTargets = `
[target.g]
type = "google"
[target.m]
type = "entra"
`

func (s *site) refusals() []refusal.Record {
	s.t.Helper()
	f, err := os.ReadFile(filepath.Join(s.state, "spool", "refusals"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s.must(err)
	var all []refusal.Record
	for _, text := range strings.Fields(string(f)) {
		var r refusal.Record
		s.must(json.Unmarshal([]byte(text), &r))
		if time.Since(r.Time) > time.Minute || time.Since(r.Time) < 0 {
			s.t.Errorf("refused at %v", r.Time)
		}
		r.Time = time.Time{}
		all = append(all, r)
	}
	s.must(os.Remove(filepath.Join(s.state, "spool", "refusals")))
	return all
}

// The rules of the gate, as the hook applies and tells them.
func TestGate(t *testing.T) {
	record := func(policy string, audit bool, rules ...string) refusal.Record {
		return refusal.Record{Account: "alice", Policy: policy, Rules: rules, Audit: audit}
	}
	const index1 = "who has which policy and which targets: not known before `samba-pwsync serve` has asked the directory"
	for _, tc := range []struct {
		name     string
		config   string
		index    *index.Contents
		password string
		code     int
		line     string // CAPTURE, STATE and DIR stand for what they say
		priority string
		refusals []refusal.Record
	}{
		{"a target would refuse it", sealedTargets, nil, good, 1,
			`refused policy=default rules=target account="alice" reason="m would not take it: it has a character that is not printable ASCII" trouble="` + index1 + `"`, "36",
			[]refusal.Record{record("default", false, "target")}},
		{"the target does not want the account", sealedTargets, &index.Contents{Targets: []string{"g", "m"}, Accounts: []index.Account{{Name: "alice", Entry: index.Entry{Targets: []string{"g"}}}}}, good, 0,
			`accepted capture=CAPTURE account="alice"`, "38", nil},
		{"preflight is off", "[policy]\npreflight = false\n" + sealedTargets, nil, good, 0, `accepted capture=CAPTURE account="alice"`, "38", nil},
		{"a rule is audited", "[policy]\naudit = [\"target\"]\n" + sealedTargets, &index.Contents{}, good, 0,
			`accepted capture=CAPTURE policy=default audited=target account="alice" audit="m would not take it: it has a character that is not printable ASCII"`, "38",
			[]refusal.Record{record("default", true, "target")}},
		{"one audited, one not", "[policy]\naudit = [\"length\"]\n", nil, "canary", 1,
			`refused policy=default rules=complexity audited=length account="alice" reason="it mixes fewer than three of: digits, upper case, lower case, other ASCII characters, letters without case" audit="it has fewer than 8 characters"`, "36",
			[]refusal.Record{record("default", false, "complexity"), record("default", true, "length")}},
		{"the account's policy", "[policy.staff]\nfilter = \"(a=b)\"\nprecedence = 1\nmin_length = 15\nmax_length = 20\n",
			&index.Contents{Policies: []string{"staff"}, Accounts: []index.Account{{Name: "Alice", Entry: index.Entry{Policy: "staff"}}}}, good[:10], 1,
			`refused policy=staff rules=length account="alice" reason="it has fewer than 15 characters"`, "36",
			[]refusal.Record{record("staff", false, "length")}},
		{"the account's policy takes it", "[policy.staff]\nfilter = \"(a=b)\"\nprecedence = 1\nmin_length = 15\nmax_length = 20\n",
			&index.Contents{Policies: []string{"staff"}, Accounts: []index.Account{{Name: "Alice", Entry: index.Entry{Policy: "staff"}}}}, good, 0,
			`accepted capture=CAPTURE policy=staff account="alice"`, "38", nil},
		{"the names of the account", "[policy]\nnames = true\nmax_length = 30\n", nil, "xx-ALICE-55-yy", 1,
			`refused policy=default rules=name account="alice" reason="it contains the account's name; it contains a part of the full name"`, "36",
			[]refusal.Record{record("default", false, "name")}},
		{"another program refuses", "[policy]\nalso = [\"DIR/no\"]\n", nil, good, 1,
			`refused policy=default rules=also account="alice" reason="no refuses it"`, "36", []refusal.Record{record("default", false, "also")}},
		{"another program accepts", "[policy]\nalso = [\"DIR/yes\"]\n", nil, good, 0, `accepted capture=CAPTURE account="alice"`, "38", nil},
		{"another program is missing", "[policy]\nalso = [\"DIR/none -x\"]\n", nil, good, 0,
			`accepted capture=CAPTURE account="alice" trouble="rule also: DIR/none: starting it: no such file or directory"`, "35", nil},
		{"another program is missing, strict", "[policy]\nalso = [\"DIR/none -x\"]\n[hook]\non_also_error = \"refuse\"", nil, good, 1,
			`refused policy=default rules=also account="alice" reason="none refuses it" trouble="rule also: DIR/none: starting it: no such file or directory"`, "35",
			[]refusal.Record{record("default", false, "also")}},
		{"no file of breached passwords", "[policy]\nbreached = \"DIR/none\"\n", nil, good, 0,
			`accepted capture=CAPTURE account="alice" trouble="rule breached: opening breached passwords: open DIR/none: no such file or directory"`, "35", nil},
		{"audit mode", "[policy]\nmode = \"audit\"\n", nil, "Abc1", 0,
			`accepted capture=CAPTURE policy=default audited=length account="alice" audit="it has fewer than 8 characters"`, "38",
			[]refusal.Record{record("default", true, "length")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			at := func(text string) string { return strings.NewReplacer("DIR", s.dir, "STATE", s.state).Replace(text) }
			s.must(os.WriteFile(filepath.Join(s.dir, "no"), []byte("#!/bin/sh\nexit 1\n"), 0o700))
			s.must(os.WriteFile(filepath.Join(s.dir, "yes"), []byte("#!/bin/sh\n[ \"$(cat)\" = '"+good+"' ] && [ $SAMBA_CPS_ACCOUNT_NAME = alice ]\n"), 0o700))
			s.configure(at(tc.config))
			if tc.index != nil {
				s.must(os.MkdirAll(filepath.Join(s.state, "policy"), 0o700))
				s.must(index.Write(filepath.Join(s.state, "policy", "accounts.index"), *tc.index))
			}
			r := s.run(tc.password, alice)
			line := regexp.MustCompile(`capture=[0-9a-f]{32}`).ReplaceAllString(r.line, "capture=CAPTURE")
			if want := at(tc.line); r.code != tc.code || line != want || r.priority != tc.priority || len(r.captures) != 1-tc.code {
				t.Errorf("exit %d, %d captures, log <%s> %s\nwant %d, <%s> %s", r.code, len(r.captures), r.priority, line, tc.code, tc.priority, want)
			}
			if got := s.refusals(); !reflect.DeepEqual(got, tc.refusals) {
				t.Errorf("noted %+v, want %+v", got, tc.refusals)
			}
			if len(tc.password) > 8 {
				s.must(os.Remove(filepath.Join(s.dir, "yes"))) // holds it
				s.silent(tc.password)
			}
		})
	}
}

// A probe is noted as such, and so is input that is no password.
func TestNotes(t *testing.T) {
	s := newSite(t)
	s.run("canary", alice[:1])
	if got := s.refusals(); len(got) != 1 || !got[0].Probe {
		t.Errorf("%+v", got)
	}
	s.run("canary\xff", alice[:1])
	if got := s.refusals(); len(got) != 1 || !got[0].Probe || got[0].Account != "alice" || !slices.Equal(got[0].Rules, []string{refusal.Unreadable}) {
		t.Errorf("%+v", got)
	}
	// Where they cannot be noted, nothing else changes.
	s.must(os.Mkdir(filepath.Join(s.state, "spool", "refusals"), 0o700))
	if r := s.run("canary", alice); r.code != 1 || !strings.Contains(r.line, ` trouble="noting a refusal: `) || r.priority != "36" {
		t.Errorf("exit %d, <%s> %q", r.code, r.priority, r.line)
	}
}

// What was last read without a fault holds while the file has one, and the log says so each time.
func TestLastGoodConfig(t *testing.T) {
	s := newSite(t, "[policy]\nmin_length = 10\ncomplexity = false\n[hook]\non_capture_error = \"refuse\"")
	if r := s.run("canarycanary", alice); r.code != 0 {
		t.Fatalf("exit %d, %q", r.code, r.line)
	}
	info, err := os.Stat(s.config)
	s.must(err)
	instead := ` instead="the configuration of ` + info.ModTime().Format(time.DateTime) + `"`
	for _, text := range []string{"[policy]\nmin_length = 4\n!!!", "[policy]\nmin_lenght = 4\n", "[polcy]\n"} {
		s.configure(text)
		for password, code := range map[string]int{"canarycanary": 0, "canary": 1} {
			r := s.run(password, alice)
			if r.code != code || r.priority != "35" || !strings.Contains(r.line, " config=") || !strings.HasSuffix(r.line, instead) {
				t.Errorf("%q: exit %d, <%s> %s", text, r.code, r.priority, r.line)
			}
		}
	}
	s.must(os.Remove(s.key("agent")))
	if r := s.run("canarycanary", alice); r.code != 2 {
		t.Errorf("on_capture_error of the copy does not hold: exit %d, %q", r.code, r.line)
	}
	// A change counts at once, also of a file that has an old time.
	s.configure("[policy]\nmin_length = 4\ncomplexity = false\n")
	s.must(os.Chtimes(s.config, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	if r := s.run("canary", alice); r.code != 0 || strings.Contains(r.line, " config=") {
		t.Errorf("exit %d, %q", r.code, r.line)
	}
	s.configure("!")
	if r := s.run("canary", alice); r.code != 0 || !strings.Contains(r.line, `instead="the configuration of `+time.Unix(1e9, 0).Format(time.DateTime)) {
		t.Errorf("exit %d, %q", r.code, r.line)
	}
	// One that others can write to is none.
	s.must(os.Chmod(filepath.Join(s.state, "hook", "last-good.toml"), 0o666))
	if r := s.run("canary", alice); r.code != 1 || !strings.Contains(r.line, ` nocopy="reading the copy `) {
		t.Errorf("exit %d, %q", r.code, r.line)
	}
}

// A program that hangs is killed, and the hook is in time.
func TestOtherProgramHangs(t *testing.T) {
	s := newSite(t)
	s.must(os.WriteFile(filepath.Join(s.dir, "hangs"), []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700))
	s.configure("[policy]\nalso = [\"" + s.dir + "/hangs\"]\n")
	start := time.Now()
	r := s.run(good, alice)
	if took := time.Since(start); took > deadline+time.Minute {
		t.Errorf("took %v", took)
	}
	if r.code != 0 || len(r.captures) != 1 || r.priority != "35" || !strings.HasSuffix(r.line, `/hangs: it hangs, and was killed"`) {
		t.Errorf("exit %d, %d captures, <%s> %q", r.code, len(r.captures), r.priority, r.line)
	}
}

// What hangs uses up the time of what comes after it, and not that of the verdict: the rules that could be asked hold, and the line says
// which could not.
func TestMuchHangs(t *testing.T) {
	s := newSite(t)
	s.must(os.WriteFile(filepath.Join(s.dir, "hangs"), []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700))
	s.must(os.WriteFile(filepath.Join(s.dir, "words"), []byte("acmecorp\n"), 0o600))
	list := sha256.Sum256([]byte(s.dir + "/words"))
	s.must(os.Mkdir(filepath.Join(s.state, "policy"), 0o700))
	for _, name := range []string{"accounts.index", "banned-" + hex.EncodeToString(list[:8]) + ".words"} {
		s.must(syscall.Mkfifo(filepath.Join(s.state, "policy", name), 0o600))
	}
	s.configure("[hook]\non_also_error = \"refuse\"\n[policy]\nbanned = [\"" + s.dir + "/words\"]\nalso = [\"" + s.dir + "/hangs\"]\n" + sealedTargets)
	const ascii = "Canary-Pa55word"
	for _, tc := range []struct{ password, rules, trouble string }{
		{ascii, "also", "who has which policy and which targets: it hangs; rule banned: it hangs; rule also: "},
		{good, "target", "who has which policy and which targets: it hangs; rule banned: it hangs"},
	} {
		start := time.Now()
		r := s.run(tc.password, alice)
		if took := time.Since(start); took > deadline+time.Minute {
			t.Errorf("%s: took %v", tc.rules, took)
		}
		for try := 0; try < 10 && strings.Contains(r.line, "asking the policy: it hangs"); try++ { // a quarter of a second is left for all else, which a busy machine has not always
			r = s.run(tc.password, alice)
		}
		if r.code != 1 || !strings.HasPrefix(r.line, "refused policy=default rules="+tc.rules+" ") || !strings.Contains(r.line, ` trouble="`+tc.trouble) {
			t.Errorf("exit %d, <%s> %q, want rule %s and trouble %q", r.code, r.priority, r.line, tc.rules, tc.trouble)
		}
		if got := s.refusals(); len(got) == 0 || got[len(got)-1].Rules[0] != tc.rules {
			t.Errorf("noted %+v", got)
		}
	}
}
