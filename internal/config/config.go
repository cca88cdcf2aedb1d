// Package config is the one strict TOML file that both programs read.
//
// What: Load reads it for samba-pwsync and lists every fault with its line and a remedy; LoadHook reads it for the hook and
// is never without an answer. The comments of the fields below are the manual: package generate makes the man page
// samba-pwsync.toml(5) and the shipped example of them, with the defaults that Default returns and the limits that the tags
// give, so none of the three can drift from the others.
//
// Tags: toml is the key; oneof the values that there are, later those that a coming version will know; range the limits;
// form what the text must look like (forms.go); required that it may not be empty; example a value for the shipped example
// where the default is none. A field with the tag type holds the keys of one type of target. For an array, oneof and form
// are about each of its strings.
//
// Whom it trusts: whoever can write the file, for it decides where passwords go. CheckFiles tells if others than root can.
// The file holds no secret; those are in files of their own, named here.
//
// What it does not solve: whether a filter, a DN or a credential means anything. Only the directory and the targets know,
// and `samba-pwsync check --connect` asks them. It imports no LDAP, because the hook links it and pays for each import.
package config

import (
	"path/filepath"
	"time"
)

//go:generate go run ./generate

// DefaultFile is where both programs look unless --config names another file.
const DefaultFile = "/etc/samba-pwsync/samba-pwsync.toml"

// Values of keys that have a few.
const (
	Accept  = "accept" // hook.on_capture_error, hook.on_also_error
	Refuse  = "refuse"
	Enforce = "enforce" // policy.mode
	Audit   = "audit"
	Off     = "off"
	NTHash  = "nthash" // directory.proof
	AES256  = "aes256"
	Exclude = "exclude" // directory.protected
	Include = "include"

	TypeGoogle = "google" // target.NAME.type
	TypeEntra  = "entra"

	Send        = "send" // target.NAME.temporary and disabled
	Skip        = "skip"
	ForceChange = "force-change"

	StartTLS = "starttls" // notify.tls
	Implicit = "implicit"
	None     = "none"

	CryptSHA512 = "crypt-sha512" // target.NAME.password_format
	Cleartext   = "cleartext"
)

// Config is the whole file.
type Config struct {
	// Folder of the keys, the spool, the queue and the ledger. `samba-pwsync init` makes it, readable by root only. The hook
	// writes its captures below it while the directory waits, so it belongs on a local disk.
	StateDir string `toml:"state_dir" form:"path" required:"true"`

	// How much room the agent and the forwarder each keep for a full disk, in MB: a file "ballast" in their folders. It is removed when the disk is full, so that what
	// waits can be finished and new passwords be stored for some time more, and made again when there is plenty of room. 0 keeps none.
	Ballast int `toml:"ballast" range:"0 10000"`

	Hook      Hook              `toml:"hook"`
	Policy    Policy            `toml:"policy"`
	Policies  []NamedPolicy     // the sections [policy.NAME], in the order of their precedence
	Directory Directory         `toml:"directory"`
	Notify    Notify            `toml:"notify"`
	Target    map[string]Target `toml:"target"`

	file  string
	lines map[string]int // by dotted key; for faults that only CheckFiles sees
}

// Hook is `samba-pwsync-hook`, which Samba runs for each new password. It reads this file anew at each run.
type Hook struct {
	// What to answer Samba where the policy accepts the password but the hook cannot store it, because the disk is full
	// or a key is missing. With "accept" people can go on changing passwords; the ones not stored do not reach the targets,
	// and each is an error in the hook's log. With "refuse" no password in the domain can be changed until
	// the fault is mended.
	OnCaptureError string `toml:"on_capture_error" oneof:"accept refuse"`

	// What to make of a program of [policy] also that cannot be asked, because it is missing, cannot be started, or was killed since
	// it took too long (3 seconds, all of them together). With "accept" it counts as one that accepts, and each time is
	// an error in the hook's log. With "refuse" it counts as one that refuses, as Samba would have it: no password in the
	// domain can be changed until the fault is mended. A program that runs and ends with another exit code than 0, or by a
	// signal, refuses the password either way.
	OnAlsoError string `toml:"on_also_error" oneof:"accept refuse"`
}

// Policy is which passwords may be set. It is needed because Samba leaves out its own complexity rule once a
// `check password script` is configured. Each rule has a name, by which the log, `samba-pwsync policy test` and the key audit call it:
// length, complexity, name, walk, banned, breached, target, also. What is written here holds from the next password on, without a
// restart. Where the file has a fault, the hook goes on with what it last read without one, and its log says so; where it
// never read any, it enforces all the defaults below.
type Policy struct {
	// "enforce" refuses a password that the rules below refuse. "audit" accepts it, and logs what "enforce" would have
	// refused. "off" asks no rules at all.
	Mode string `toml:"mode" oneof:"enforce audit off"`

	// Shortest password, in characters as Samba and Windows count them (UTF-16 code units).
	MinLength int `toml:"min_length" range:"1 256"`

	// Longest password, counted likewise. Each target has a limit of its own: Google takes 100 characters, Microsoft 256. With
	// less than 255, commands that make up a long password fail: samba-tool with --random-password, and joining a DC with
	// --dns-backend=BIND9_DLZ; raise it to 256 for the time of such a command, and with a Google target set preflight = false.
	MaxLength int `toml:"max_length" range:"1 256"`

	// Whether to ask for characters of three of the five categories that Samba knows: digits, upper case, lower case,
	// other ASCII characters, and letters without case. Rule complexity.
	Complexity bool `toml:"complexity"`

	// How many of these categories a password needs, by its length: "8:3" asks for three from 8 characters on, and "16:1" for
	// one from 16 on, so that whoever takes a long password may choose a simple one. In ascending order. A password that is
	// shorter than the first is too short (rule length, besides min_length). Where this is given, complexity is not asked.
	Tiers []string `toml:"tiers" form:"tier" example:"8:3"`

	// Whether to refuse a password that holds the account's name, or a word of the full name, of three characters and more,
	// in whatever case: Active Directory's rule. Rule name.
	Names bool `toml:"names"`

	// Whether to refuse a password that is little else than walks over the keyboard (qwertz), sequences (abcd, 1234) and
	// repeats. Rule walk.
	Walks bool `toml:"walks"`

	// Files with words that nobody should choose, such as the names of the organisation and the town: UTF-8, a word in each
	// line; a line that begins with # is a remark. Rule banned. As Microsoft Entra ID does, case and common replacements (@ for a,
	// 0 for o) do not matter, each banned word in a password counts as one point, and so does each other character.
	Banned []string `toml:"banned" form:"path" example:"/etc/samba-pwsync/words/banned.txt"`

	// How many of these points are enough.
	BannedScore int `toml:"banned_score" range:"1 100"`

	// File of passwords that are known from break-ins elsewhere, which `samba-pwsync breached import` makes. A password that is in it
	// is refused. Empty: not asked. Rule breached.
	Breached string `toml:"breached" form:"path" example:"/var/lib/samba-pwsync/policy/breached.bin"`

	// Whether to refuse what a target would refuse: Google takes 8 to 100 characters, Microsoft 8 to 256 of ASCII with three of four
	// classes. Only targets that want the account are asked; of an account that is not known yet, because it is new or
	// no name was given, all are. Rule target.
	Preflight bool `toml:"preflight"`

	// Other programs for `check password script` that are to be asked besides, each with its arguments, separated by spaces; no
	// shell reads the line. They get the password and the environment as from Samba, and accept it with exit code 0; what they print is
	// thrown away. They are asked only about passwords that the rules above let through. Rule also.
	Also []string `toml:"also" form:"command" example:"/usr/local/sbin/other-check"`

	// Rules that refuse nothing: what they would have refused is logged and counted.
	Audit []string `toml:"audit" oneof:"length complexity name walk banned breached target also" example:"walk"`
}

// Rules are the names of the rules, as the key audit knows them.
var Rules = []string{"length", "complexity", "name", "walk", "banned", "breached", "target", "also"}

// NamedPolicy is a policy for some accounts; any number of them, each with a name of its own: one word of a-z, 0-9, "-" and
// "_", but none of the keys of [policy]. base_dn, filter or both say whose it is. Of several policies that an account could
// have, the one with the lowest precedence counts. An account that has none, or that is not known yet, has [policy]. Besides base_dn,
// filter and precedence such a section can have all keys of [policy]; those that it has not are as they are there.
type NamedPolicy struct {
	Name string

	// Distinguished name of the organisational unit, or other object, below which the accounts that are meant lie, at any depth; no
	// filter can ask for that. Empty: the whole domain.
	BaseDN string `toml:"base_dn" form:"dn" example:"OU=Students,DC=samdom,DC=example,DC=com"`

	// LDAP filter of the accounts that are meant. The agent asks the directory, and keeps what it answers for the hook: a change
	// of groups counts some time after it. Empty: all below base_dn.
	Filter string `toml:"filter" form:"filter" example:"(memberOf:1.2.840.113556.1.4.1941:=CN=Staff,OU=Groups,DC=samdom,DC=example,DC=com)"`

	// Which policy counts where several match: the one with the lowest number. No two have the same.
	Precedence int `toml:"precedence" range:"1 1000000" required:"true" example:"10"`

	Policy Policy // as it holds: with what is inherited
}

// DefaultPolicy is the name of [policy] itself.
const DefaultPolicy = "default"

// Directory is the domain controller that proves passwords, and the accounts that are meant.
type Directory struct {
	// The privileged LDAPI socket of the Samba AD DC on this machine, `ldap_priv/ldapi` below its private folder. Only there
	// a DC shows the hashes with which a password is proven.
	URL string `toml:"url" form:"ldapi" required:"true"`

	// Distinguished name below which accounts are looked for. Empty: the whole domain.
	BaseDN string `toml:"base_dn" form:"dn" example:"OU=People,DC=samdom,DC=example,DC=com"`

	// How a password is proven to be the account's current one. "nthash" compares the NT hash; it needs a directory that
	// stores one (`nt hash store` in smb.conf is not "never"). "aes256" compares the AES256 key of Kerberos where the directory
	// stores no NT hash. Its salt is the directory's to know, so the hook then seals the password itself to the agent, which
	// opens it to make the key: choose it only where "nthash" cannot work. `samba-pwsync check --connect` tells.
	Proof string `toml:"proof" oneof:"nthash aes256"`

	// LDAP filter that an account must match to be synchronised to any target. The default means people, not machines and
	// trusts.
	Filter string `toml:"filter" form:"filter"`

	// LDAP filter of accounts that are never synchronised. The default means those that Samba marked as administrators when the
	// domain was made; it marks no others, see protected. Empty: nobody is excluded.
	Exclude string `toml:"exclude" form:"filter"`

	// What becomes of administrators: the members, at any depth, of the groups that Active Directory protects (Administrators,
	// Domain, Enterprise and Schema Admins, the Operators). With "exclude" their passwords go nowhere: whoever has an
	// administrator's password at a target then has not the domain's. With "include" they are accounts like others.
	Protected string `toml:"protected" oneof:"exclude include"`

	// Short names of other domain controllers of the domain that run samba-pwsync with a forwarder of their own. What is changed
	// there is delivered from there, so it counts as drift there and not here.
	Peers []string `toml:"peers" form:"server" example:"DC2"`

	// Whether, where there are peers, what is changed here is delivered twice, some minutes apart: the second time is the last word,
	// should the same account have been changed at a peer before the DCs had heard of each other. Then the targets end with the password that
	// Active Directory has settled on. A target may ask users to log in anew each time. With false each change is delivered once, and after
	// such a collision a target may hold the password that lost, until the account's next change.
	Settle bool `toml:"settle"`

	// How long a captured password waits for the directory to hold it. Samba asks the hook before it commits, and may still
	// refuse the change; after this time the capture is shredded.
	ConfirmTimeout time.Duration `toml:"confirm_timeout" range:"1s 1h"`

	// How long a proven password waits, sealed, for a target that is down. After this time it is shredded undelivered.
	SecretTTL time.Duration `toml:"secret_ttl" range:"1m 720h"`
}

// Notify is how people are told why the policy refused their password, for Samba cannot pass a reason on. Nobody is told unless
// smtp or command is given. Neither mail nor program ever gets a password. Nobody is told of a refusal where
// Samba named neither user principal name nor full name, because any domain user can bring that about in anybody's name; so an account that has
// neither of the two attributes is never told. Nor are accounts that [directory] leaves out, and disabled ones.
type Notify struct {
	// Mail server that takes the mails: HOST:PORT. Usually the port is 25 or 587 with tls = "starttls", 465 with "implicit".
	SMTP string `toml:"smtp" form:"server and port" example:"mail.example.com:587"`

	// How the connection to it is protected. "starttls": by TLS from the server's answer on, and no mail is sent where the server does not
	// offer it. "implicit": by TLS from the beginning. "none": not at all, for a server on this machine.
	TLS string `toml:"tls" oneof:"starttls implicit none"`

	// PEM file with certificates of authorities that are trusted for it instead of the system's.
	CAFile string `toml:"ca_file" form:"path" example:"/etc/samba-pwsync/ca.pem"`

	// Name to log in with at the mail server. Empty: none is asked for.
	User string `toml:"user" form:"line" example:"pwsync"`

	// File with the password for that, and nothing else, readable by nobody else.
	PasswordFile string `toml:"password_file" form:"path" example:"/etc/samba-pwsync/smtp.secret"`

	// E-mail address that the mails come from. Needed with smtp.
	From string `toml:"from" form:"email" example:"helpdesk@example.com"`

	// Subject of the mails.
	Subject string `toml:"subject" form:"line" required:"true"`

	// File with the text of the mails, a template of Go's text/template, in UTF-8. Empty: an English text. Operating.md shows that text, and
	// what a template can use.
	Template string `toml:"template" form:"path" example:"/etc/samba-pwsync/refused.txt"`

	// Program that is run for each notice, with its arguments, separated by spaces; no shell reads the line. It gets the notice as JSON on
	// its standard input, and an environment of PATH alone. It runs as the forwarder, with what that one may do. Exit code 75: try
	// again later; any other but 0: give up. Besides smtp or in place of it.
	Command string `toml:"command" form:"command" example:"/usr/local/bin/tell-user"`

	// The directory attribute that holds the account's e-mail address. Accounts without it get no mail, but the command gets the notice.
	Address string `toml:"address" form:"attribute" required:"true"`

	// For how long refusals of an account are collected before it is told: people try more than once.
	Collect time.Duration `toml:"collect" range:"1s 15m"`

	// Within this time an account is told at most once.
	AccountPause time.Duration `toml:"account_pause" range:"1m 720h"`

	// How many notices go out in an hour at most, for all accounts together.
	Hourly int `toml:"hourly" range:"1 100000"`

	// Whether people are also told of what was not refused, but would have been if the policy or the rule were not on audit.
	Audited bool `toml:"audited"`
}

// On reports whether anybody is told anything.
func (n Notify) On() bool { return n.SMTP != "" || n.Command != "" }

// Target is a place where passwords go; any number of them, each with a name of its own: one word of a-z, 0-9, "-" and
// "_". Logs, status and ledger use the name.
type Target struct {
	// What kind of place it is.
	Type string `toml:"type" oneof:"google entra" later:"ldap exec" required:"true"`

	// The directory attribute that holds the account's name at the target. An account without it is not synchronised there. It
	// must not be one that users may write of their own accounts, such as telephoneNumber, info or
	// msDS-cloudExtensionAttribute1: whoever puts another's name there sets that one's password at the target.
	// `samba-pwsync check --connect` tells.
	User string `toml:"user" form:"attribute" required:"true"`

	// Replaces what follows the "@" of that name, or is appended where there is no "@". Empty: the name is taken as it is.
	UserDomain string `toml:"user_domain" form:"domain" example:"example.com"`

	// LDAP filter that an account must match to be synchronised to this target. The directory's filter and exclude hold
	// besides. Empty: all accounts that those let through.
	Filter string `toml:"filter" form:"filter" example:"(memberOf=CN=Cloud,OU=Groups,DC=samdom,DC=example,DC=com)"`

	// What becomes of a password that the account has to change at its next logon (pwdLastSet is 0), as after a reset by the help desk.
	// "send" sends it like any other, and the user can log in with it at the target until he changes it. "skip" does not: the target keeps the
	// old password until the user has chosen his own. "force-change" sends it, and the target too demands another one; what the user
	// chooses there stays there, and the directory does not get it.
	Temporary string `toml:"temporary" oneof:"send skip force-change"`

	// What becomes of a password that a disabled account gets: "send" sends it, so that the target has it when the account is enabled.
	// "skip" does not; once the account is enabled, it counts as drift until its next change.
	Disabled string `toml:"disabled" oneof:"send skip"`

	// Most changes a second. 0: what suits the target's own limit.
	Rate float64 `toml:"rate" range:"0 1000"`

	Google Google `type:"google"`
	Entra  Entra  `type:"entra"`
}

// Google is Google Workspace or Cloud Identity, by the Directory API.
type Google struct {
	// The JSON key file of a service account, readable by nobody else. Its "token_uri" is where access tokens come from.
	CredentialsFile string `toml:"credentials_file" form:"path" required:"true" example:"/etc/samba-pwsync/google.json"`

	// E-mail address of the administrator in whose name the service account acts (domain-wide delegation). Empty: the service
	// account itself holds an administrator role.
	Subject string `toml:"subject" form:"email" example:"pwsync@example.com"`

	// Address of the Directory API. Empty: Google's own.
	Endpoint string `toml:"endpoint" form:"https" example:"https://admin.googleapis.com"`

	// What is sent. "crypt-sha512" sends a salted hash, so that Google never sees the password; "cleartext" sends the password,
	// with which Google can also apply its own password rules.
	PasswordFormat string `toml:"password_format" oneof:"crypt-sha512 cleartext"`

	// PEM file with certificates of authorities that are trusted for this target instead of the system's.
	CAFile string `toml:"ca_file" form:"path" example:"/etc/samba-pwsync/ca.pem"`
}

// Entra is Microsoft 365 (Entra ID), by Microsoft Graph. Exactly one of client_secret_file and certificate_file
// is needed.
type Entra struct {
	// The tenant: its ID, or one of its domain names.
	TenantID string `toml:"tenant_id" form:"word" required:"true" example:"00000000-0000-0000-0000-000000000000"`

	// The application (client) ID of the app registration, which holds the permission User-PasswordProfile.ReadWrite.All.
	ClientID string `toml:"client_id" form:"word" required:"true" example:"11111111-1111-1111-1111-111111111111"`

	// File with the application's client secret and nothing else, readable by nobody else.
	ClientSecretFile string `toml:"client_secret_file" form:"path" example:"/etc/samba-pwsync/entra.secret"`

	// File with the application's certificate and its private key, PEM or PFX without a password, readable by nobody else.
	CertificateFile string `toml:"certificate_file" form:"path" example:"/etc/samba-pwsync/entra.pem"`

	// Address of Microsoft's login. Empty: the public cloud's.
	AuthorityURL string `toml:"authority_url" form:"https" example:"https://login.microsoftonline.us"`

	// Address of Microsoft Graph. Empty: the public cloud's.
	GraphURL string `toml:"graph_url" form:"https" example:"https://graph.microsoft.us"`

	// PEM file with certificates of authorities that are trusted for this target instead of the system's.
	CAFile string `toml:"ca_file" form:"path" example:"/etc/samba-pwsync/ca.pem"`
}

// Default returns the configuration of an empty file.
func Default() *Config {
	return &Config{
		StateDir: "/var/lib/samba-pwsync",
		Ballast:  16,
		Hook:     Hook{OnCaptureError: Accept, OnAlsoError: Accept},
		Policy:   Policy{Mode: Enforce, MinLength: 8, MaxLength: 16, Complexity: true, BannedScore: 5, Preflight: true},
		Directory: Directory{
			URL:            "ldapi:///var/lib/samba/private/ldap_priv/ldapi",
			Proof:          NTHash,
			Filter:         "(sAMAccountType=805306368)",
			Exclude:        "(adminCount=1)",
			Protected:      Exclude,
			Settle:         true,
			ConfirmTimeout: 2 * time.Minute,
			SecretTTL:      72 * time.Hour,
		},
		Notify: Notify{
			TLS:          StartTLS,
			Subject:      "Your new password was not accepted",
			Address:      "mail",
			Collect:      time.Minute,
			AccountPause: time.Hour,
			Hourly:       100,
		},
		Target: map[string]Target{},
	}
}

// DefaultTarget returns a target of which nothing but its section is written.
func DefaultTarget() Target {
	return Target{User: "mail", Temporary: Send, Disabled: Send, Google: Google{PasswordFormat: CryptSHA512}}
}

// File returns the path that Load was given.
func (c *Config) File() string { return c.file }

// Paths is where things are below the state folder; all absolute.
type Paths struct {
	Keys               string // folder
	AgentKey           string // private: opens proof boxes
	AgentPublicKey     string
	ForwarderKey       string // private: opens secret boxes
	ForwarderPublicKey string
	AgentRetired       string // folder: the agent's private keys of before; the agent destroys them
	ForwarderRetired   string // folder: the same of the forwarder

	Spool    string // folder
	Incoming string // folder: hook to agent
	Outgoing string // folder: agent to forwarder
	Refusals string // file: hook to agent

	Hook     string // folder: the hook's own. The agent must not write here: the configuration names programs that the hook runs
	LastGood string // the configuration as the hook last read it without a fault
	Compiled string // the same, as HookConfig.Compile has it
	Probes   string // counts what may be nobody's change, minute by minute

	Policy      string // folder: what the hook's policy needs beside the configuration; the agent writes here
	PolicyIndex string // which account has which policy and which targets
	Breached    string // where `samba-pwsync breached import` writes

	Agent           string // folder: the agent's own
	AgentSocket     string
	Forwarder       string // folder: the forwarder's own
	ForwarderSocket string
	Queue           string
	Ledger          string
}

// Paths returns the layout of the state folder.
func (c *Config) Paths() Paths { return pathsBelow(c.StateDir) }

func pathsBelow(dir string) Paths {
	dir = filepath.Clean(dir)
	at := func(name string) string { return dir + "/" + name }
	return Paths{
		Keys:               at("keys"),
		AgentKey:           at("keys/agent.key"),
		AgentPublicKey:     at("keys/agent.pub"),
		ForwarderKey:       at("keys/forwarder.key"),
		ForwarderPublicKey: at("keys/forwarder.pub"),
		AgentRetired:       at("keys/agent-retired"),
		ForwarderRetired:   at("keys/forwarder-retired"),
		Spool:              at("spool"),
		Incoming:           at("spool/incoming"),
		Outgoing:           at("spool/outgoing"),
		Refusals:           at("spool/refusals"),
		Hook:               at("hook"),
		LastGood:           at("hook/last-good.toml"),
		Compiled:           at("hook/compiled"),
		Probes:             at("hook/probes"),
		Policy:             at("policy"),
		PolicyIndex:        at("policy/accounts.index"),
		Breached:           at("policy/breached.bin"),
		Agent:              at("agent"),
		AgentSocket:        at("agent/control.sock"),
		Forwarder:          at("forwarder"),
		ForwarderSocket:    at("forwarder/control.sock"),
		Queue:              at("forwarder/queue.db"),
		Ledger:             at("forwarder/ledger.db"),
	}
}
