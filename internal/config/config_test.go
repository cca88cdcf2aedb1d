package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/docs"
)

// write puts a configuration into a file.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "samba-pwsync.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const whole = `
state_dir = "/srv/pwsync"
ballast = 7

[hook]
on_capture_error = "refuse"
on_also_error = "refuse"

[policy]
mode = "audit"
min_length = 10
max_length = 64
complexity = false
tiers = ["10:4", "20:1"]
names = true
walks = true
banned = ["/etc/w/a.txt", "/etc/w/b.txt"]
banned_score = 6
breached = "/srv/breached.bin"
preflight = false
also = ["/usr/sbin/crackcheck -d /var/cache/cracklib/cracklib_dict", "/usr/local/sbin/other"]
audit = ["walk", "breached"]

[policy.staff]
filter = "(memberOf=CN=Staff,DC=example,DC=com)"
precedence = 20
mode = "enforce"
tiers = []
min_length = 12

[policy.pupils]
precedence = 10
base_dn = "OU=Pupils,DC=example,DC=com"
audit = []

[directory]
url = "ldapi://%2Fvar%2Flib%2Fsamba%2Fprivate%2Fldap_priv%2Fldapi"
base_dn = "OU=People\\, all,DC=samdom,DC=example,DC=com"
proof = "nthash"
filter = "(&(objectClass=user)(!(cn=x\\29)))"
exclude = ""
protected = "include"
peers = ["DC2", "dc3"]
settle = false
confirm_timeout = "1m30s"
secret_ttl = "24h"

[notify]
smtp = "mail.example.com:465"
tls = "implicit"
ca_file = "/etc/ca.pem"
user = "pwsync"
password_file = "/etc/smtp.secret"
from = "helpdesk@example.com"
subject = "Kennwort nicht übernommen"
template = "/etc/refused.txt"
command = "/usr/local/bin/tell-user --now"
address = "otherMailbox"
collect = "90s"
account_pause = "2h"
hourly = 7
audited = true

[target.google]
type = "google"
credentials_file = "/etc/g.json"
subject = "pwsync@example.com"
endpoint = "https://127.0.0.1:8443/google/"
password_format = "cleartext"
ca_file = "/etc/ca.pem"
rate = 0.5
temporary = "force-change"
disabled = "skip"

[target]
m365-1 = { type = "entra", tenant_id = "example.onmicrosoft.com", client_id = "c", certificate_file = "/etc/e.pem", user = "userPrincipalName", user_domain = "example.com", filter = "(mail=*)", rate = 20 }
`

func TestLoad(t *testing.T) {
	path := write(t, whole)
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	policy := Policy{Mode: Audit, MinLength: 10, MaxLength: 64, Tiers: []string{"10:4", "20:1"}, Names: true, Walks: true,
		Banned: []string{"/etc/w/a.txt", "/etc/w/b.txt"}, BannedScore: 6, Breached: "/srv/breached.bin",
		Also: []string{"/usr/sbin/crackcheck -d /var/cache/cracklib/cracklib_dict", "/usr/local/sbin/other"}, Audit: []string{"walk", "breached"}}
	pupils, staff := policy, policy
	pupils.Audit = []string{}
	staff.Mode, staff.Tiers, staff.MinLength = Enforce, []string{}, 12
	want := &Config{
		StateDir: "/srv/pwsync",
		Ballast:  7,
		Hook:     Hook{OnCaptureError: Refuse, OnAlsoError: Refuse},
		Policy:   policy,
		Policies: []NamedPolicy{
			{"pupils", "OU=Pupils,DC=example,DC=com", "", 10, pupils},
			{"staff", "", "(memberOf=CN=Staff,DC=example,DC=com)", 20, staff},
		},
		Directory: Directory{
			URL:            "ldapi://%2Fvar%2Flib%2Fsamba%2Fprivate%2Fldap_priv%2Fldapi",
			BaseDN:         `OU=People\, all,DC=samdom,DC=example,DC=com`,
			Proof:          NTHash,
			Filter:         `(&(objectClass=user)(!(cn=x\29)))`,
			Protected:      Include,
			Peers:          []string{"DC2", "dc3"},
			ConfirmTimeout: 90 * time.Second,
			SecretTTL:      24 * time.Hour,
		},
		Notify: Notify{
			SMTP: "mail.example.com:465", TLS: Implicit, CAFile: "/etc/ca.pem", User: "pwsync", PasswordFile: "/etc/smtp.secret",
			From: "helpdesk@example.com", Subject: "Kennwort nicht übernommen", Template: "/etc/refused.txt",
			Command: "/usr/local/bin/tell-user --now", Address: "otherMailbox",
			Collect: 90 * time.Second, AccountPause: 2 * time.Hour, Hourly: 7, Audited: true,
		},
		Target: map[string]Target{
			"google": {Type: TypeGoogle, User: "mail", Rate: 0.5, Temporary: ForceChange, Disabled: Skip, Google: Google{
				CredentialsFile: "/etc/g.json", Subject: "pwsync@example.com", Endpoint: "https://127.0.0.1:8443/google/",
				PasswordFormat: Cleartext, CAFile: "/etc/ca.pem",
			}},
			"m365-1": {Type: TypeEntra, User: "userPrincipalName", UserDomain: "example.com", Filter: "(mail=*)", Rate: 20, Temporary: Send, Disabled: Send,
				Google: Google{PasswordFormat: CryptSHA512},
				Entra:  Entra{TenantID: "example.onmicrosoft.com", ClientID: "c", CertificateFile: "/etc/e.pem"}},
		},
		file:  path,
		lines: got.lines,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if line := got.lines["target.m365-1.certificate_file"]; line != 76 {
		t.Errorf("certificate_file is on line %d", line)
	}
}

func TestEmptyFileIsTheDefault(t *testing.T) {
	got, err := Load(write(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.file, want.lines = got.file, got.lines
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestDefaultsFitTheirOwnTags(t *testing.T) {
	walk := func(keys []key) {
		for _, k := range keys {
			if text, ok := k.field.Interface().(string); ok && !k.field.IsZero() {
				if problem, _ := judgeText(k.tag, text); problem != "" {
					t.Errorf("the default of %s %s", k.name, problem)
				}
			}
			if sample := k.tag.Get("example"); sample != "" && k.field.Kind() != reflect.Int {
				if problem, _ := judgeText(k.tag, sample); problem != "" {
					t.Errorf("the example of %s %s", k.name, problem)
				}
			}
			if form := k.tag.Get("form"); form != "" && forms[form].fits == nil {
				t.Errorf("%s has an unknown form", k.name)
			}
		}
	}
	root := keysOf(reflect.ValueOf(Default()).Elem())
	walk(root)
	walk(keysOf(reflect.ValueOf(&NamedPolicy{}).Elem()))
	for _, k := range root {
		if k.field.Kind() == reflect.Struct {
			walk(keysOf(k.field))
		}
	}
	target := DefaultTarget()
	walk(keysOf(reflect.ValueOf(&target).Elem()))
	for _, keys := range typeKeys(reflect.ValueOf(&target).Elem()) {
		walk(keys)
	}
}

func TestShippedExample(t *testing.T) {
	text := string(docs.ExampleConfig)
	got, err := Load(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.file, want.lines = got.file, got.lines
	if !reflect.DeepEqual(got, want) {
		t.Errorf("as shipped, the example is not the default: %+v", got)
	}

	// With every key switched on it is still right, but for the two credentials of which one is to be chosen.
	text = regexp.MustCompile(`(?m)^#([a-z\[])`).ReplaceAllString(text, "$1")
	_, err = Load(write(t, text))
	if faults := (Faults)(nil); !errors.As(err, &faults) || len(faults) != 1 || faults[0].Problem != "has both client_secret_file and certificate_file" {
		t.Errorf("everything switched on: %v", err)
	}
}

func TestPaths(t *testing.T) {
	c := Default()
	c.StateDir = "/s/"
	got := reflect.ValueOf(c.Paths())
	want := map[string]string{
		"Keys": "/s/keys", "AgentKey": "/s/keys/agent.key", "AgentPublicKey": "/s/keys/agent.pub",
		"ForwarderKey": "/s/keys/forwarder.key", "ForwarderPublicKey": "/s/keys/forwarder.pub",
		"AgentRetired": "/s/keys/agent-retired", "ForwarderRetired": "/s/keys/forwarder-retired",
		"Spool": "/s/spool", "Incoming": "/s/spool/incoming", "Outgoing": "/s/spool/outgoing", "Refusals": "/s/spool/refusals",
		"Hook": "/s/hook", "LastGood": "/s/hook/last-good.toml", "Compiled": "/s/hook/compiled", "Probes": "/s/hook/probes", "Policy": "/s/policy", "PolicyIndex": "/s/policy/accounts.index",
		"Breached": "/s/policy/breached.bin",
		"Agent":    "/s/agent", "AgentSocket": "/s/agent/control.sock", "Forwarder": "/s/forwarder",
		"ForwarderSocket": "/s/forwarder/control.sock", "Queue": "/s/forwarder/queue.db", "Ledger": "/s/forwarder/ledger.db",
	}
	if got.NumField() != len(want) {
		t.Errorf("%d paths, want %d", got.NumField(), len(want))
	}
	for name, path := range want {
		if f := got.FieldByName(name); !f.IsValid() || f.String() != path {
			t.Errorf("%s is %v, want %s", name, f, path)
		}
	}
	if hook := (HookConfig{StateDir: "/s"}).Paths(); hook != c.Paths() {
		t.Errorf("the hook looks elsewhere: %+v", hook)
	}
}

// faultsOf returns the faults without the name of the file.
func faultsOf(err error, path string) []string {
	if err == nil {
		return nil
	}
	return strings.Split(strings.ReplaceAll(err.Error(), path, "F"), "\n")
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(whole))
	f.Add(docs.ExampleConfig)
	f.Add([]byte("[policy]\ntiers = [\"8:3\", \"9:9\"]\n[policy.a]\nfilter = \"(a=b)\"\nprecedence = 1\n[policy.b]\nprecedence = 1\n[policy.mode]"))
	f.Add([]byte("[policy]\nmin_length = 20\n[[target]]\n\"a.b\".c = {d = [1979-05-27]}\nx = nan"))
	path := filepath.Join(f.TempDir(), "fuzz.toml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v with error %v", c, err)
		}
		hook, hookErr := LoadHook(path)
		if err == nil && hookErr != nil {
			t.Errorf("the hook complains about what is right: %v", hookErr)
		}
		if p := hook.Policy; hookErr != nil && strings.Contains(hookErr.Error(), ": policy") && (!reflect.DeepEqual(p, Default().Policy) || hook.Policies != nil) {
			t.Errorf("a broken policy is followed: %+v, %+v", p, hook.Policies)
		}
		names, precedences := map[string]bool{DefaultPolicy: true}, map[int]bool{}
		for i, p := range append([]NamedPolicy{{Policy: hook.Policy}}, hook.Policies...) {
			if p.Policy.MinLength < 1 || p.Policy.MaxLength > 256 || p.Policy.MinLength > p.Policy.MaxLength || p.Policy.BannedScore < 1 {
				t.Errorf("a policy that makes no sense: %+v", p)
			}
			if i > 0 && (!isName(p.Name) || names[p.Name] || precedences[p.Precedence] || p.Filter != "" && !isFilter(p.Filter) || p.Filter+p.BaseDN == "") {
				t.Errorf("a policy that makes no sense: %+v", p)
			}
			names[p.Name], precedences[p.Precedence] = true, true
		}
		if a := hook.Hook.OnCaptureError; a != Accept && a != Refuse {
			t.Errorf("on_capture_error = %q", a)
		}
		if !filepath.IsAbs(hook.StateDir) {
			t.Errorf("state_dir = %q", hook.StateDir)
		}
	})
}

func BenchmarkLoadHook(b *testing.B) {
	path := write(b, whole)
	for b.Loop() {
		if _, err := LoadHook(path); err != nil {
			b.Fatal(err)
		}
	}
}
