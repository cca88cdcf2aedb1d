package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
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
		`F:6: hook.xyzzy: is not known; remove it; what is known here: on_capture_error, on_also_error`,
		`F:7: policy.sub.precedence: is missing; add precedence = 10`,
		`F:8: policy.sub.a: is not known; remove it; what is known here: base_dn, filter, precedence, mode, min_length, max_length, complexity, tiers, names, walks, banned, banned_score, breached, preflight, also, audit`,
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
	{"notify", `[notify]
smtp = "mail.example.com"
tls = "yes"
from = "helpdesk"
subject = "a\nb"
command = "tell me"
address = ""
collect = "0s"
hourly = 0
`, []string{
		`F:2: notify.smtp: "mail.example.com" is no server with a port; give HOST:PORT, like mail.example.com:587`,
		`F:3: notify.tls: "yes" is not known; choose "starttls", "implicit" or "none"`,
		`F:4: notify.from: "helpdesk" is no e-mail address; give an address like pwsync@example.com`,
		`F:5: notify.subject: "a\nb" is no line of text; give one line of text`,
		`F:6: notify.command: "tell me" is no command; give the absolute path of a program, and its arguments; there is no shell, so what needs one belongs into a script`,
		`F:7: notify.address: is empty; give the name of one directory attribute, like mail or userPrincipalName`,
		`F:8: notify.collect: "0s" is out of range; choose from 1s to 15m`,
		`F:9: notify.hourly: 0 is out of range; choose from 1 to 100000`,
	}},
	{"mail without a sender", "[notify]\nsmtp = \"[::1]:25\"\nuser = \"me\"\n", []string{
		`F:1: notify.from: is missing, and smtp is given; add from = "helpdesk@example.com"`,
		`F:3: notify.user: is given, and password_file is not; give both or neither`,
	}},
	{"mail without a user", "[notify]\npassword_file = \"/s\"\n", []string{
		`F:2: notify.password_file: is given, and user is not; give both or neither`,
	}},
	{"the mail server's password in clear", "[notify]\nuser = \"me\"\npassword_file = \"/s\"\ntls = \"none\"\n", []string{
		`F:4: notify.tls: would have the mail server's password sent in clear; choose "starttls" or "implicit", or remove user and password_file`,
	}},
	{"min above max", "[policy]\nmax_length = 12\nmin_length = 13\n", []string{
		`F:3: policy.min_length: is 13, more than max_length, which is 12; lower min_length or raise max_length`,
	}},
	{"max below the default min", "[policy]\nmax_length = 7\n", []string{
		`F:1: policy.min_length: is 8, more than max_length, which is 7; lower min_length or raise max_length`,
	}},
	{"keys of the policy", `[policy]
tiers = ["8:3", "12"]
banned = "/etc/words"
banned_score = 0
breached = "breached.bin"
also = ["check"]
audit = ["walks"]
preflight = "yes"
`, []string{
		`F:2: policy.tiers: "12" is no tier; give LENGTH:CATEGORIES, like "12:3": 1 to 256 characters, 0 to 5 categories`,
		`F:3: policy.banned: is a string, not an array of strings; put it in brackets, and each of its strings in quotes`,
		`F:4: policy.banned_score: 0 is out of range; choose from 1 to 100`,
		`F:5: policy.breached: "breached.bin" is no absolute path; give an absolute path`,
		`F:6: policy.also: "check" is no command; give the absolute path of a program, and its arguments; there is no shell, so what needs one belongs into a script`,
		`F:7: policy.audit: "walks" is not known; choose "length", "complexity", "name", "walk", "banned", "breached", "target" or "also"`,
		`F:8: policy.preflight: is a string, not true or false; write true or false, without quotes`,
	}},
	{"a shell's words", "[policy]\nalso = [\"/usr/bin/env | cat\"]\n", []string{
		`F:2: policy.also: "/usr/bin/env | cat" is no command; give the absolute path of a program, and its arguments; there is no shell, so what needs one belongs into a script`,
	}},
	{"tiers", "[policy]\nmax_length = 20\ntiers = [\"12:3\", \"8:2\"]\n[policy.a]\nfilter = \"(a=b)\"\nprecedence = 1\ntiers = [\"8:3\", \"12:3\"]\n" +
		"[policy.b]\nfilter = \"(a=b)\"\nprecedence = 2\ntiers = [\"8:3\", \"21:1\"]\n[policy.c]\nfilter = \"(a=b)\"\nprecedence = 3\ntiers = []\nmax_length = 7\n", []string{
		`F:3: policy.tiers: "8:2" comes after a tier that begins at 12 characters; sort them by length, each length once`,
		`F:7: policy.a.tiers: "12:3" asks no less of longer passwords than the tier in front of it; remove it or lower its number of categories`,
		`F:11: policy.b.tiers: "21:1" begins above max_length, which is 20; raise max_length or remove the tier`,
		`F:12: policy.c.min_length: is 8, more than max_length, which is 7; lower min_length or raise max_length`,
	}},
	{"named policies", `[policy.staff]
filter = "(a=b)"
precedence = 10
[policy.pupils]
precedence = 10
filter = ""
names = 1
[policy.default]
filter = "a=b"
precedence = 0
[policy.Guests]
filter = "(a=b)"
precedence = "1"
[policy.audit]
filter = "(a=b)"
[policy.nobody]
precedence = 30
filter = ""
[policy.unit]
precedence = 40
base_dn = "Pupils"
`, []string{
		`F:3: policy.staff.precedence: is 10, as that of policy.pupils; give each policy a number of its own`,
		`F:7: policy.pupils.names: is a whole number, not true or false; write true or false, without quotes`,
		`F:8: policy.default: is what [policy] itself is called; choose another name`,
		`F:9: policy.default.filter: "a=b" is no LDAP filter; give a filter in parentheses that match, like (mail=*)`,
		`F:10: policy.default.precedence: 0 is out of range; choose from 1 to 1000000`,
		`F:11: policy.Guests: is no name for a policy; choose one word of a-z, 0-9, "-" and "_", at most 32 characters long`,
		`F:13: policy.Guests.precedence: is a string, not a whole number; write a whole number, without quotes`,
		`F:14: policy.audit: is a section, not an array of strings; a policy cannot have the name of a key: choose another name`,
		`F:16: policy.nobody: says of no accounts that they are meant; write base_dn or filter`,
		`F:21: policy.unit.base_dn: "Pupils" is no distinguished name; give a distinguished name like OU=People,DC=example,DC=com`,
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
		{"nothing", "", with(func(c *HookConfig) { c.NoTarget = true }), 0},
		{"all right", head + "[policy]\nmode = \"off\"\n", with(func(c *HookConfig) {
			*c = own
			c.Policy.Mode, c.NoTarget = Off, true
		}), 0},
		{"a target that is none yet", head + "[target.x]\n", own, 0},
		{"what may be a target", "target = 3\n" + head, own, 0},
		{"what may have been a target", head + "[taget.x]\ntype = \"google\"\n", own, 1},
		{"others' faults do not matter", head + "[policy]\nmin_length = 12\n[directory]\nurl = 3\nx = 1\nproof = \"aes256\"\n[target.g]\n", with(func(c *HookConfig) {
			*c = own
			c.Policy.MinLength, c.Proof = 12, AES256
		}), 0},
		{"targets, those whose type is known", head + "[target.z]\ntype = \"entra\"\nx = 1\n[target.a]\ntype = \"google\"\n[target.b]\ntype = \"okta\"\n", with(func(c *HookConfig) {
			*c = own
			c.Targets = []HookTarget{{"a", "google"}, {"z", "entra"}}
		}), 0},
		{"a fault in a named policy, all of it built in", head + "[policy]\nmin_length = 12\n[policy.a]\nfilter = \"(a=b)\"\n", own, 1},
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
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
		faults, _ := err.(Faults)
		if len(faults) != tc.faults || (err == nil) != (tc.faults == 0) {
			t.Errorf("%s: %d faults, want %d: %v", tc.name, len(faults), tc.faults, err)
		}
	}
	if got, err := LoadHook(filepath.Join(t.TempDir(), "none")); !reflect.DeepEqual(got, builtin) || err == nil {
		t.Errorf("no file: %+v, %v", got, err)
	}
}

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	text := `state_dir = "` + state + `"
[policy]
banned = ["` + dir + `/words"]
breached = "` + dir + `/breached.bin"
also = ["` + dir + `/check -d x"]
[policy.staff]
precedence = 1
filter = "(a=b)"
banned = ["` + dir + `/words", "` + dir + `/more"]
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
		"D/c.toml:3: policy.banned: D/words does not exist; put the file there or correct the path",
		"D/c.toml:4: policy.breached: D/breached.bin does not exist; put the file there or correct the path",
		"D/c.toml:5: policy.also: D/check does not exist; put the file there or correct the path",
		"D/c.toml:9: policy.staff.banned: D/more does not exist; put the file there or correct the path",
		"D/c.toml:12: target.g.credentials_file: D/google.json does not exist; put the file there or correct the path",
		"D/c.toml:13: target.g.ca_file: D/ca.pem does not exist; put the file there or correct the path",
		"D/c.toml:18: target.e.client_secret_file: D/secret does not exist; put the file there or correct the path",
	)

	for _, folder := range []string{"keys", "spool/incoming", "spool/outgoing", "hook", "policy", "agent", "forwarder", "keys/agent-retired", "keys/forwarder-retired"} {
		if err := os.MkdirAll(filepath.Join(state, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"agent", "forwarder"} {
		put(filepath.Join(state, "keys", name+".key"), 0o600)
		put(filepath.Join(state, "keys", name+".pub"), 0o644)
	}
	put(filepath.Join(dir, "words"), 0o644)
	put(filepath.Join(dir, "more"), 0o644)
	put(filepath.Join(dir, "breached.bin"), 0o644)
	put(filepath.Join(dir, "check"), 0o755)
	put(filepath.Join(dir, "google.json"), 0o640)
	put(filepath.Join(dir, "ca.pem"), 0o644)
	put(filepath.Join(dir, "secret"), 0o400)
	check("all right")

	for name, mode := range map[string]fs.FileMode{
		"c.toml": 0o666, "words": 0o664, "more": 0o666, "breached.bin": 0o646, "check": 0o775, "google.json": 0o644, "ca.pem": 0o664, "state/keys/agent.key": 0o640, "state/spool/incoming": 0o711,
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
		"D/c.toml:3: policy.banned: D/words has mode 0664: others can write to it; run `chmod g-w,o-w D/words`",
		"D/c.toml:4: policy.breached: D/breached.bin has mode 0646: others can write to it; run `chmod g-w,o-w D/breached.bin`",
		"D/c.toml:5: policy.also: D/check has mode 0775: others can write to it; run `chmod g-w,o-w D/check`",
		"D/c.toml:9: policy.staff.banned: D/more has mode 0666: others can write to it; run `chmod g-w,o-w D/more`",
		"D/c.toml:12: target.g.credentials_file: D/google.json has mode 0644: others can read it; run `chmod g-w,o-rwx D/google.json`",
		"D/c.toml:13: target.g.ca_file: D/ca.pem has mode 0664: others can write to it; run `chmod g-w,o-w D/ca.pem`",
		"D/c.toml:18: target.e.client_secret_file: D/secret is no file; put a file there or correct the path",
	)

	if err := os.Chmod(filepath.Join(dir, "check"), 0o644); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range c.CheckFiles() {
		got = append(got, f.Problem+"; "+f.Remedy)
	}
	if want := dir + "/check cannot be run; run `chmod u+x " + dir + "/check`"; !slices.Contains(got, want) {
		t.Errorf("%q is not among %q", want, got)
	}
	if os.Getuid() == 0 {
		if err := errors.Join(os.Chmod(filepath.Join(dir, "check"), 0o755), os.Chown(filepath.Join(dir, "check"), 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(c.CheckFiles(), func(f Fault) bool { return f.Key == "policy.also" })
		if i < 0 || !strings.Contains(c.CheckFiles()[i].Problem, "belongs to another user") {
			t.Errorf("a program of another user's is let through: %v", c.CheckFiles())
		}
	}
}
