package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every wrong configuration with the messages that it must give, all of them and in this order.
var wrong = []struct {
	name string
	text string
	want []string
}{
	{"syntax", "state_dir = \"/s\"\nnonsense\n", []string{
		`F:2: is no TOML: expected '=' after key; mend the syntax of this line`,
	}},
	{"twice", "state_dir = \"/s\"\nstate_dir = \"/t\"\n", []string{
		`F:2: is no TOML: key state_dir is already defined; mend the syntax of this line`,
	}},
	{"unknown keys", "stat_dir = 1\n[polcy]\nx = 1\n[hook]\non_capture_eror = 1\nxyzzy = 1\n[policy.sub]\na = 1", []string{
		`F:1: stat_dir: is not known; did you mean state_dir? if not, remove it`,
		`F:2: polcy: is not known; did you mean policy? if not, remove it`,
		`F:5: hook.on_capture_eror: is not known; did you mean on_capture_error? if not, remove it`,
		`F:6: hook.xyzzy: is not known; remove it; what is known here: on_capture_error`,
		`F:7: policy.sub: is not known; remove it; what is known here: mode, min_length, max_length, complexity`,
	}},
	{"misplaced keys", "min_length = 9\n[hook]\nstate_dir = \"/s\"\nsecret_ttl = \"1h\"\n", []string{
		`F:1: min_length: does not belong here; move it into the section [policy]`,
		`F:3: hook.state_dir: does not belong into this section; move it up, in front of the first section`,
		`F:4: hook.secret_ttl: does not belong here; move it into the section [directory]`,
	}},
	{"wrong types", `state_dir = 7
hook = "x"
target = 3.5
[policy]
mode = true
min_length = "8"
max_length = 16.0
complexity = 1
[directory]
confirm_timeout = 120
secret_ttl = 2026-08-07
filter = ["a"]
peers = "DC2"
`, []string{
		`F:1: state_dir: is a whole number, not a string; put it in quotes`,
		`F:2: hook: is a string, not a section; write a section [hook]`,
		`F:3: target: is a number with a fraction, not a section; write a section [target.NAME] for each target`,
		`F:5: policy.mode: is true or false, not a string; put it in quotes`,
		`F:6: policy.min_length: is a string, not a whole number; write a whole number, without quotes`,
		`F:7: policy.max_length: is a number with a fraction, not a whole number; write a whole number, without quotes`,
		`F:8: policy.complexity: is a whole number, not true or false; write true or false, without quotes`,
		`F:10: directory.confirm_timeout: is a whole number, not a duration; write a number and a unit in quotes, like "90s", "2m" or "72h"`,
		`F:11: directory.secret_ttl: is a date or a time, not a duration; write a number and a unit in quotes, like "90s", "2m" or "72h"`,
		`F:12: directory.filter: is an array, not a string; put it in quotes`,
		`F:13: directory.peers: is a string, not an array of strings; put it in brackets, and each of its strings in quotes`,
	}},
	{"arrays", "[directory]\npeers = [\"DC2\", 3]\n", []string{
		`F:2: directory.peers: has a whole number in it, not only strings; put each of its strings in quotes`,
	}},
	{"empty in array", "[directory]\npeers = [\"DC2\", \"\"]\n", []string{
		`F:2: directory.peers: has an empty string in it; remove that`,
	}},
	{"out of range", `[policy]
min_length = 0
max_length = 257
[directory]
confirm_timeout = "0s"
secret_ttl = "721h"
[target.g]
type = "google"
credentials_file = "/g"
rate = nan
[target.h]
type = "google"
credentials_file = "/g"
rate = -1
`, []string{
		`F:2: policy.min_length: 0 is out of range; choose from 1 to 256`,
		`F:3: policy.max_length: 257 is out of range; choose from 1 to 256`,
		`F:5: directory.confirm_timeout: "0s" is out of range; choose from 1s to 1h`,
		`F:6: directory.secret_ttl: "721h" is out of range; choose from 1m to 720h`,
		`F:10: target.g.rate: NaN is out of range; choose from 0 to 1000`,
		`F:14: target.h.rate: -1 is out of range; choose from 0 to 1000`,
	}},
	{"min above max", "[policy]\nmax_length = 12\nmin_length = 13\n", []string{
		`F:3: policy.min_length: is 13, more than max_length, which is 12; lower min_length or raise max_length`,
	}},
	{"max below the default min", "[policy]\nmax_length = 7\n", []string{
		`F:1: policy.min_length: is 8, more than max_length, which is 7; lower min_length or raise max_length`,
	}},
	{"choices", "[hook]\non_capture_error = \"Accept\"\n[policy]\nmode = \"on\"\n[directory]\nproof = \"kerberos\"\n", []string{
		`F:2: hook.on_capture_error: "Accept" is not known; choose "accept" or "refuse"`,
		`F:4: policy.mode: "on" is not known; choose "enforce", "audit" or "off"`,
		`F:6: directory.proof: "kerberos" is not known; choose "nthash" or "aes256"`,
	}},
	{"forms", `state_dir = "var/lib"
[directory]
url = "ldaps://dc1.example.com"
base_dn = "example.com"
filter = "(&(mail=*)"
exclude = "adminCount=1"
confirm_timeout = "2 minutes"
peers = ["DC2", "dc3.example.com"]
[target.g]
type = "google"
credentials_file = "google.json"
subject = "pwsync"
endpoint = "http://localhost"
user = "mail, cn"
user_domain = "@example.com"
filter = "(a=b)(c=d)"
`, []string{
		`F:1: state_dir: "var/lib" is no absolute path; give an absolute path`,
		`F:3: directory.url: "ldaps://dc1.example.com" is no LDAPI URL; give ldapi:// and the absolute path of the privileged socket: only there a DC shows what proves a password`,
		`F:4: directory.base_dn: "example.com" is no distinguished name; give a distinguished name like OU=People,DC=example,DC=com`,
		`F:5: directory.filter: "(&(mail=*)" is no LDAP filter; give a filter in parentheses that match, like (mail=*)`,
		`F:6: directory.exclude: "adminCount=1" is no LDAP filter; give a filter in parentheses that match, like (mail=*)`,
		`F:7: directory.confirm_timeout: "2 minutes" is no duration; write a number and a unit in quotes, like "90s", "2m" or "72h"`,
		`F:8: directory.peers: "dc3.example.com" is no short server name; give the name of one domain controller without its domain, like DC2`,
		`F:11: target.g.credentials_file: "google.json" is no absolute path; give an absolute path`,
		`F:12: target.g.subject: "pwsync" is no e-mail address; give an address like pwsync@example.com`,
		`F:13: target.g.endpoint: "http://localhost" is no https URL; give https:// and a host, without a user, a query and a fragment`,
		`F:14: target.g.user: "mail, cn" is no attribute name; give the name of one directory attribute, like mail or userPrincipalName`,
		`F:15: target.g.user_domain: "@example.com" is no domain name; give a domain name without "@", like example.com`,
		`F:16: target.g.filter: "(a=b)(c=d)" is no LDAP filter; give a filter in parentheses that match, like (mail=*)`,
	}},
	{"empty", "state_dir = \"\"\n[directory]\nurl = \"\"\n[target.g]\ntype = \"google\"\ncredentials_file = \"\"\nuser = \"\"\n", []string{
		`F:1: state_dir: is empty; give an absolute path`,
		`F:3: directory.url: is empty; give ldapi:// and the absolute path of the privileged socket: only there a DC shows what proves a password`,
		`F:6: target.g.credentials_file: is empty; give an absolute path`,
		`F:7: target.g.user: is empty; give the name of one directory attribute, like mail or userPrincipalName`,
	}},
	{"target without a type", "[target.x]\ncredentials_file = \"/g\"\nusr = \"mail\"\n", []string{
		`F:1: target.x.type: is missing; add type = "google" or "entra"`,
		`F:3: target.x.usr: is not known; did you mean user? if not, remove it`,
	}},
	{"target types of later versions", "[target.x]\ntype = \"ldap\"\nurl = \"ldaps://x\"\n[target.y]\ntype = \"exec\"\n[target.z]\ntype = \"okta\"\n", []string{
		`F:2: target.x.type: "ldap" is for a later version; choose "google" or "entra"`,
		`F:3: target.x.url: does not belong here; move it into the section [directory]`,
		`F:5: target.y.type: "exec" is for a later version; choose "google" or "entra"`,
		`F:7: target.z.type: "okta" is not known; choose "google" or "entra"`,
	}},
	{"google lacks", "[target.x]\ntype = \"google\"\n", []string{
		`F:1: target.x.credentials_file: is missing; add credentials_file = "/etc/samba-pwsync/google.json"`,
	}},
	{"entra lacks", "[target.x]\ntype = \"entra\"\n", []string{
		`F:1: target.x: has neither client_secret_file nor certificate_file; give one of the two`,
		`F:1: target.x.client_id: is missing; add client_id = "11111111-1111-1111-1111-111111111111"`,
		`F:1: target.x.tenant_id: is missing; add tenant_id = "00000000-0000-0000-0000-000000000000"`,
	}},
	{"entra has both", "[target.x]\ntype = \"entra\"\ntenant_id = \"a b\"\nclient_id = \"c\"\nclient_secret_file = \"/s\"\ncertificate_file = \"/c\"\n", []string{
		`F:1: target.x: has both client_secret_file and certificate_file; give one of the two`,
		`F:3: target.x.tenant_id: "a b" is no ID; give the ID without spaces or slashes, as Microsoft's portal shows it`,
	}},
	{"keys of another type", "[target.x]\ntype = \"google\"\ncredentials_file = \"/g\"\ntenant_id = \"t\"\n[target.y]\ntype = \"entra\"\ntenant_id = \"t\"\nclient_id = \"c\"\ncertificate_file = \"/c\"\nsubject = \"a@b\"\n", []string{
		`F:4: target.x.tenant_id: belongs to targets of type "entra", and this one is of type "google"; remove it`,
		`F:10: target.y.subject: belongs to targets of type "google", and this one is of type "entra"; remove it`,
	}},
	{"target names", "[target.Google]\ntype = \"google\"\ncredentials_file = \"/g\"\n[target.\"a b\"]\ntype = \"google\"\ncredentials_file = \"/g\"\n", []string{
		`F:1: target.Google: is no name for a target; choose one word of a-z, 0-9, "-" and "_", at most 32 characters long`,
		`F:4: target."a b": is no name for a target; choose one word of a-z, 0-9, "-" and "_", at most 32 characters long`,
	}},
	{"target without a name", "[target]\ntype = \"google\"\n", []string{
		`F:2: target.type: is a string, not a section; write a section [target.type]`,
	}},
	{"targets as an array", "[[target]]\ntype = \"google\"\n", []string{
		`F:1: target: is an array, not a section; write a section [target.NAME] for each target`,
	}},
	{"a long value is cut", "state_dir = \"" + strings.Repeat("x", 100) + "\"\n", []string{
		`F:1: state_dir: "` + strings.Repeat("x", 60) + `"… is no absolute path; give an absolute path`,
	}},
	{"a value cannot break the line", "[policy]\nmode = \"a\\nb\"\n", []string{
		`F:2: policy.mode: "a\nb" is not known; choose "enforce", "audit" or "off"`,
	}},
	{"too large", "# " + strings.Repeat("x", maxFile), []string{
		`F: is larger than 1 MiB; give a configuration file`,
	}},
}

func TestFaults(t *testing.T) {
	for _, tc := range wrong {
		path := write(t, tc.text)
		_, err := Load(path)
		if got := faultsOf(err, path); !slices.Equal(got, tc.want) {
			t.Errorf("%s:\n%s\nwant:\n%s", tc.name, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
		}
	}
}

func TestNoFile(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "F: reading: no such file or directory; `samba-pwsync init` writes an example",
		dir:                        "F: reading: is a directory; give a readable file",
	} {
		if _, err := Load(path); !slices.Equal(faultsOf(err, path), []string{want}) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestLoadHook(t *testing.T) {
	builtin := BuiltinHook()
	with := func(change func(*HookConfig)) HookConfig {
		c := builtin
		change(&c)
		return c
	}
	own := with(func(c *HookConfig) { c.StateDir, c.Hook.OnCaptureError = "/s", Refuse })
	const head = "state_dir = \"/s\"\n[hook]\non_capture_error = \"refuse\"\n"
	for _, tc := range []struct {
		name   string
		text   string
		want   HookConfig
		faults int
	}{
		{"nothing", "", builtin, 0},
		{"all right", head + "[policy]\nmode = \"off\"\n", with(func(c *HookConfig) {
			*c = own
			c.Policy.Mode = Off
		}), 0},
		{"others' faults do not matter", head + "[policy]\nmin_length = 12\n[directory]\nurl = 3\nx = 1\nproof = \"aes256\"\n[target.g]\n", with(func(c *HookConfig) {
			*c = own
			c.Policy.MinLength, c.Proof = 12, AES256
		}), 0},
		{"bad proof, the policy holds", head + "[policy]\nmin_length = 12\n[directory]\nproof = \"AES256\"\n", with(func(c *HookConfig) {
			*c = own
			c.Policy.MinLength = 12
		}), 1},
		{"the directory is no section", "directory = 3\n" + head, own, 1},
		{"no TOML behind the proof", head + "[directory]\nproof = \"aes256\"\nrubbish", with(func(c *HookConfig) {
			*c = own
			c.Proof = AES256
		}), 1},
		{"no TOML behind a bad proof", head + "[directory]\nproof = \"x\"\nrubbish", own, 2},
		{"one fault in the policy, all of it built in", head + "[policy]\nmode = \"off\"\nmin_length = 1\ncomplexity = \"no\"\n", own, 1},
		{"unknown key in the policy", head + "[policy]\nmode = \"off\"\nmin_lenght = 1\n", own, 1},
		{"the policy is no section", "policy = 3\n" + head, own, 1},
		{"min above max", head + "[policy]\nmode = \"off\"\nmin_length = 100\n", own, 1},
		{"bad state_dir, the rest holds", "state_dir = \"s\"\n[hook]\non_capture_error = \"refuse\"\n[policy]\nmode = \"audit\"\n", with(func(c *HookConfig) {
			c.Hook.OnCaptureError, c.Policy.Mode = Refuse, Audit
		}), 1},
		{"unknown key beside on_capture_error", head + "x = 1\n", own, 1},
		{"bad on_capture_error", "state_dir = \"/s\"\n[hook]\non_capture_error = \"maybe\"\n", with(func(c *HookConfig) { c.StateDir = "/s" }), 1},
		{"unknown section", head + "[polcy]\nmode = \"off\"\n", own, 1},
		{"no TOML at the end", head + "[policy]\nmode = \"off\"\nrubbish", own, 1},
		{"no TOML in between", "state_dir = \"/s\"\n!\n[hook]\non_capture_error = \"refuse\"\n", with(func(c *HookConfig) { c.StateDir = "/s" }), 1},
		{"no TOML, and bad values before", "state_dir = \"s\"\n[hook]\non_capture_error = \"x\"\n!\n", builtin, 3},
		{"no TOML from the start", "\x00", builtin, 1},
		{"no UTF-8", head + "# \xff\n", own, 1},
		{"twice", head + "on_capture_error = \"accept\"\n", own, 1},
	} {
		got, err := LoadHook(write(t, tc.text))
		if got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
		faults, _ := err.(Faults)
		if len(faults) != tc.faults || (err == nil) != (tc.faults == 0) {
			t.Errorf("%s: %d faults, want %d: %v", tc.name, len(faults), tc.faults, err)
		}
	}
	if got, err := LoadHook(filepath.Join(t.TempDir(), "none")); got != builtin || err == nil {
		t.Errorf("no file: %+v, %v", got, err)
	}
}

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	text := `state_dir = "` + state + `"
[target.g]
type = "google"
credentials_file = "` + dir + `/google.json"
ca_file = "` + dir + `/ca.pem"
[target.e]
type = "entra"
tenant_id = "t"
client_id = "c"
client_secret_file = "` + dir + `/secret"
`
	path := filepath.Join(dir, "c.toml")
	put := func(path string, mode fs.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // past the umask
			t.Fatal(err)
		}
	}
	put(path, 0o644)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, want ...string) {
		t.Helper()
		var got []string
		for _, f := range c.CheckFiles() {
			got = append(got, strings.ReplaceAll(f.String(), dir, "D"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant:\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	check("nothing there",
		"D/c.toml:1: state_dir: D/state does not exist; run `samba-pwsync init`",
		"D/c.toml:4: target.g.credentials_file: D/google.json does not exist; put the file there or correct the path",
		"D/c.toml:5: target.g.ca_file: D/ca.pem does not exist; put the file there or correct the path",
		"D/c.toml:10: target.e.client_secret_file: D/secret does not exist; put the file there or correct the path",
	)

	for _, folder := range []string{"keys", "spool/incoming", "spool/outgoing", "agent", "forwarder"} {
		if err := os.MkdirAll(filepath.Join(state, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"agent", "forwarder"} {
		put(filepath.Join(state, "keys", name+".key"), 0o600)
		put(filepath.Join(state, "keys", name+".pub"), 0o644)
	}
	put(filepath.Join(dir, "google.json"), 0o640)
	put(filepath.Join(dir, "ca.pem"), 0o644)
	put(filepath.Join(dir, "secret"), 0o400)
	check("all right")

	for name, mode := range map[string]fs.FileMode{
		"c.toml": 0o666, "google.json": 0o644, "ca.pem": 0o664, "state/keys/agent.key": 0o640, "state/spool/incoming": 0o711,
	} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(state, "keys", "agent.pub")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "secret")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "secret"), 0o700); err != nil {
		t.Fatal(err)
	}
	check("spoiled",
		"D/c.toml: D/c.toml has mode 0666: others can write to it; run `chmod g-w,o-w D/c.toml`",
		"D/c.toml:1: state_dir: D/state/spool/incoming has mode 0711: others can enter it; run `chmod o-rwx D/state/spool/incoming`",
		"D/c.toml:1: state_dir: D/state/keys/agent.pub does not exist; run `samba-pwsync init`",
		"D/c.toml:1: state_dir: D/state/keys/agent.key has mode 0640: others can read it; run `chmod g-rwx,o-rwx D/state/keys/agent.key`",
		"D/c.toml:4: target.g.credentials_file: D/google.json has mode 0644: others can read it; run `chmod g-w,o-rwx D/google.json`",
		"D/c.toml:5: target.g.ca_file: D/ca.pem has mode 0664: others can write to it; run `chmod g-w,o-w D/ca.pem`",
		"D/c.toml:10: target.e.client_secret_file: D/secret is no file; put a file there or correct the path",
	)
}
