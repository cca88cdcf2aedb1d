// Package config is the one strict TOML file that both programs read.
//
// What: Load reads it for samba-pwsync and lists every fault with its line and a remedy; LoadHook reads it for the hook and
// is never without an answer. The comments of the fields below are the manual: package generate makes the man page
// samba-pwsync.toml(5) and the shipped example of them, with the defaults that Default returns and the limits that the tags
// give, so none of the three can drift from the others.
//
// Tags: toml is the key; oneof the values that there are, later those that a coming version will know; range the limits;
// form what the text must look like (forms.go); required that it may not be empty; example a value for the shipped example
// where the default is none. A field with the tag type holds the keys of one type of target.
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
	Accept  = "accept" // hook.on_capture_error
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

	CryptSHA512 = "crypt-sha512" // target.NAME.password_format
	Cleartext   = "cleartext"
)

// Config is the whole file.
type Config struct {
	// Folder of the keys, the spool, the queue and the ledger. `samba-pwsync init` makes it, readable by root only. The hook
	// writes its captures below it while the directory waits, so it belongs on a local disk.
	StateDir string `toml:"state_dir" form:"path" required:"true"`

	Hook      Hook              `toml:"hook"`
	Policy    Policy            `toml:"policy"`
	Directory Directory         `toml:"directory"`
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
}

// Policy is which passwords may be set. It is needed because Samba leaves out its own complexity rule once a
// `check password script` is configured. Where this section has a fault, the hook enforces all the defaults below.
type Policy struct {
	// "enforce" refuses a password that the rules below refuse. "audit" accepts it, and logs what "enforce" would have
	// refused. "off" asks no rules at all.
	Mode string `toml:"mode" oneof:"enforce audit off"`

	// Shortest password, in characters as Samba and Windows count them (UTF-16 code units).
	MinLength int `toml:"min_length" range:"1 256"`

	// Longest password, counted likewise. Each target has a limit of its own: Google takes 100 characters, Microsoft 256. With
	// less than 255, commands that make up a long password fail: samba-tool with --random-password, and joining a DC with
	// --dns-backend=BIND9_DLZ; raise it to 256 for the time of such a command.
	MaxLength int `toml:"max_length" range:"1 256"`

	// Whether to ask for characters of three of the five categories that Samba knows: digits, upper case, lower case,
	// other ASCII characters, and letters without case.
	Complexity bool `toml:"complexity"`
}

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
		Hook:     Hook{OnCaptureError: Accept},
		Policy:   Policy{Mode: Enforce, MinLength: 8, MaxLength: 16, Complexity: true},
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
		Target: map[string]Target{},
	}
}

// DefaultTarget returns a target of which nothing but its section is written.
func DefaultTarget() Target {
	return Target{User: "mail", Google: Google{PasswordFormat: CryptSHA512}}
}

// Paths is where things are below the state folder; all absolute.
type Paths struct {
	Keys               string // folder
	AgentKey           string // private: opens proof boxes
	AgentPublicKey     string
	ForwarderKey       string // private: opens secret boxes
	ForwarderPublicKey string

	Spool    string // folder
	Incoming string // folder: hook to agent
	Outgoing string // folder: agent to forwarder

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
	at := func(name ...string) string { return filepath.Join(append([]string{dir}, name...)...) }
	return Paths{
		Keys:               at("keys"),
		AgentKey:           at("keys", "agent.key"),
		AgentPublicKey:     at("keys", "agent.pub"),
		ForwarderKey:       at("keys", "forwarder.key"),
		ForwarderPublicKey: at("keys", "forwarder.pub"),
		Spool:              at("spool"),
		Incoming:           at("spool", "incoming"),
		Outgoing:           at("spool", "outgoing"),
		Agent:              at("agent"),
		AgentSocket:        at("agent", "control.sock"),
		Forwarder:          at("forwarder"),
		ForwarderSocket:    at("forwarder", "control.sock"),
		Queue:              at("forwarder", "queue.db"),
		Ledger:             at("forwarder", "ledger.db"),
	}
}
