// Package systemd holds the units, and no Go but this test of them.
package systemd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/docs"
)

const (
	program = "/usr/sbin/samba-pwsync"
	agent   = "samba-pwsync-agent.service"
)

// What a unit may have for itself: what it is, who it is, what it reaches. In everything else the three are the same.
var own = []string{
	"Description", "Wants", "After", "Conflicts", "ExecStart", "User", "Group", "PrivateUsers",
	"ReadWritePaths", "StateDirectory", "StateDirectoryMode", "InaccessiblePaths", "TemporaryFileSystem", "BindReadOnlyPaths",
	"RestrictAddressFamilies", "PrivateNetwork", "IPAddressDeny",
}

func units(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.service")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Fatalf("units: %v", files)
	}
	return files
}

// settings returns the lines of a unit that are neither empty nor comments, each under its section.
func settings(t *testing.T, file string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	section := ""
	for line := range strings.Lines(string(text)) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "["):
			section = line
		case line != "" && !strings.HasPrefix(line, "#"):
			lines = append(lines, section+line)
		}
	}
	return lines
}

// values returns what stands behind a key of a unit, of all its lines.
func values(t *testing.T, file, name string) (all []string) {
	t.Helper()
	for _, line := range settings(t, file) {
		if _, value, _ := strings.Cut(line, "="); key(line) == name {
			all = append(all, strings.Fields(value)...)
		}
	}
	return all
}

func key(line string) string {
	_, line, _ = strings.Cut(line, "]")
	name, _, _ := strings.Cut(line, "=")
	return name
}

func TestCommonPart(t *testing.T) {
	var common []string
	for i, file := range units(t) {
		lines := slices.DeleteFunc(settings(t, file), func(line string) bool { return slices.Contains(own, key(line)) })
		if i == 0 {
			common = lines
		}
		for _, line := range common {
			if !slices.Contains(lines, line) {
				t.Errorf("%s lacks %s", file, line)
			}
		}
		for _, line := range lines {
			if !slices.Contains(common, line) {
				t.Errorf("%s alone has %s", file, line)
			}
		}
		if !t.Failed() && !slices.Equal(lines, common) {
			t.Errorf("%s has the common settings in another order", file)
		}
	}
	if len(common) < 30 {
		t.Errorf("only %d settings are common", len(common))
	}
}

// Who can write into keys/ replaces the forwarder's public key, and reads what the hook seals from then on. The folders of the retired keys
// hold no public one; each role destroys its own.
func TestKeysAreNotWritable(t *testing.T) {
	const state = "/var/lib/samba-pwsync"
	for _, file := range units(t) {
		writable, retired := 0, 0
		for _, line := range settings(t, file) {
			if key(line) != "ReadWritePaths" {
				continue
			}
			_, value, _ := strings.Cut(line, "=")
			for path := range strings.FieldsSeq(value) {
				writable++
				path = filepath.Clean(strings.TrimLeft(path, "-+"))
				if path == state+"/keys/agent-retired" && !strings.Contains(file, "forwarder") || path == state+"/keys/forwarder-retired" && !strings.Contains(file, "agent") {
					retired++
					continue
				}
				if strings.HasPrefix(state+"/keys/", path+"/") || strings.HasPrefix(path+"/", state+"/keys/") {
					t.Errorf("%s can write to %s", file, path)
				}
			}
		}
		if writable == 0 {
			t.Errorf("%s can write nowhere", file)
		}
		if retired == 0 {
			t.Errorf("%s cannot destroy a retired key", file)
		}
	}
}

// Who is root gets his capabilities back, and the network, from any of root's services that takes orders at a socket. So the agent of a split installation sees
// none in /run but those that are named here: each of them had a reason.
func TestAgentSeesNoSocketsOfRoot(t *testing.T) {
	if !slices.Contains(values(t, agent, "TemporaryFileSystem"), "/run:ro") {
		t.Error("it sees /run")
	}
	want := []string{"-/run/samba", "-/run/systemd/journal/dev-log", "-/run/systemd/journal/socket", "-/run/systemd/journal/stdout", "-/run/systemd/notify"}
	sees := slices.DeleteFunc(values(t, agent, "BindReadOnlyPaths"), func(path string) bool { return strings.HasPrefix(path, "-/etc/samba-pwsync") })
	if slices.Sort(sees); !slices.Equal(sees, want) {
		t.Errorf("it sees %q, want %q", sees, want)
	}
	for _, key := range []string{"BindPaths", "RuntimeDirectory", "RootDirectory", "RootImage"} {
		if more := values(t, agent, key); len(more) > 0 {
			t.Errorf("%s=%s", key, more)
		}
	}
	for _, path := range values(t, agent, "ReadWritePaths") {
		if path = strings.TrimLeft(path, "-+"); strings.HasPrefix(path, "/run") || strings.HasPrefix(path, "/var/run") {
			t.Errorf("it can write to %s", path)
		}
	}
	hidden := values(t, agent, "InaccessiblePaths")
	for _, path := range []string{"-/var/snap", "-/var/lib/lxd", "-/var/lib/incus"} {
		if !slices.Contains(hidden, path) {
			t.Errorf("it sees %s", path)
		}
	}
}

// The agent of a split installation compiles the banned words, and sees nothing else of the folder in which credentials lie.
func TestAgentSeesBannedWords(t *testing.T) {
	const folder = "/etc/samba-pwsync"
	sees := slices.DeleteFunc(values(t, agent, "BindReadOnlyPaths"), func(path string) bool { return !strings.HasPrefix(path, "-"+folder) })
	if !slices.Equal(sees, []string{"-" + folder + "/samba-pwsync.toml", "-" + folder + "/words"}) {
		t.Errorf("it sees %q", sees)
	}
	if !strings.Contains(string(docs.ExampleConfig), `"`+folder+`/words/`) {
		t.Error("the example keeps banned words elsewhere")
	}
}

// An installation that was made before there was a folder for what the agent leaves the hook gets one.
func TestAgentHasAFolderForThePolicy(t *testing.T) {
	for _, file := range units(t) {
		for _, want := range []string{"[Service]StateDirectory=samba-pwsync/policy", "[Service]StateDirectoryMode=0700"} {
			if slices.Contains(settings(t, file), want) == strings.Contains(file, "forwarder") {
				t.Errorf("%s: %s is the agent's", file, want)
			}
		}
	}
}

// Where systemd is at hand, it understands each line and finds little that is still open.
func TestSystemdAnalyze(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	self, err := os.Executable() // verify wants a program that there is
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range units(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), file)
		if err := os.WriteFile(copied, bytes.ReplaceAll(text, []byte("="+program+" "), []byte("="+self+" ")), 0o644); err != nil {
			t.Fatal(err)
		}
		// What it says of this machine's other units is not for us to mend.
		out, err := exec.Command(analyze, "verify", "--man=no", copied).CombinedOutput()
		if bytes.Contains(out, []byte(file)) {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
		// In tenths: exposure under 2.5 of 10.
		if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=24", copied).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

// What the program does for itself (PR_SET_DUMPABLE, RLIMIT_CORE), and what only the kernel's control group can: no page of it goes to a swap.
func TestNothingOfMemoryReachesTheDisk(t *testing.T) {
	for _, file := range units(t) {
		for _, want := range []string{"[Service]LimitCORE=0", "[Service]MemorySwapMax=0"} {
			if !slices.Contains(settings(t, file), want) {
				t.Errorf("%s lacks %s", file, want)
			}
		}
	}
}
