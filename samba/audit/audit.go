// Package audit reads Samba's audit events in JSON, as far as they tell of passwords: who changed whose, over which connection,
// in which transaction, and whether that transaction was committed.
//
// Samba writes them where smb.conf asks for one of these classes, each event as one line of JSON:
//
//	log level = 1 dsdb_password_json_audit:5 dsdb_json_audit:5 dsdb_transaction_json_audit:10 auth_json_audit:3
//
// A DC's own processes write to log.samba (up to Samba 4.24 behind two blanks), between lines of other kinds, which a Reader passes
// over; local tools such as samba-tool write to their standard error. Parse takes one event, a Reader a stream that may still grow.
//
// That an event says "Success" does not mean that the change stands: it is written inside the transaction. The Transaction event with
// its TransactionID and the action "commit" says so; "rollback" takes everything back. Samba writes "commit" only at level 10. A wrong
// old password is refused before there is a PasswordChange: that is an Authentication event. And a change that arrives by replication
// shows as a Transaction only: Samba knows a ReplicatedUpdate, but up to 4.25 does not write it (log_operation compares the wrong way).
//
// It trusts the log no more than the file system does: whoever can write there can write events. Within an event, names come from
// clients. Passwords and hashes are not in them; Samba leaves such values out ("redacted").
//
// Fields are those of source4/dsdb/samdb/ldb_modules/audit_log.c and auth/auth_log.c. Samba adds fields with a new minor version, and
// these are ignored here; a major version other than 1 means that fields changed their meaning, and is an error.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// The types of events that Parse decodes; there are others.
const (
	TypePasswordChange   = "passwordChange"   // class dsdb_password_json_audit
	TypeChange           = "dsdbChange"       // class dsdb_json_audit
	TypeReplicatedUpdate = "replicatedUpdate" // the same
	TypeTransaction      = "dsdbTransaction"  // class dsdb_transaction_json_audit
	TypeAuthentication   = "Authentication"   // class auth_json_audit
)

// Event is one audit event: one of the pointers is set, the one that belongs to Type; none if Type is not one of the above.
type Event struct {
	Time    time.Time // on the DC's clock, with its zone
	Type    string
	Version Version // zero for the types that are not decoded

	PasswordChange   *PasswordChange
	Change           *Change
	ReplicatedUpdate *ReplicatedUpdate
	Transaction      *Transaction
	Authentication   *Authentication
}

// Version is that of an event type's fields. Samba 4.13 writes 1.1 for PasswordChange and 1.2 for Authentication, 4.25 writes 1.2 and
// 1.3; the others are 1.0 from one to the other.
type Version struct {
	Major int `json:"major"`
	Minor int `json:"minor"`
}

// Event IDs of PasswordChange and Authentication, as in Windows' event log (librpc/idl/windows_event_ids.idl).
const (
	EventLogon           = 4624
	EventLogonFailed     = 4625
	EventPasswordChange  = 4723 // by the account's owner, who gave the old one
	EventPasswordReset   = 4724 // by somebody with the right to
	EventDirectoryChange = 5136 // "Auth info change": keys other than the password
)

// PasswordChange says that an account's password was changed or set, or that this was refused.
type PasswordChange struct {
	EventID       int     `json:"eventId"`
	StatusCode    int     `json:"statusCode"` // LDAP result code (RFC 4511); 0: done, if the transaction is committed
	Status        string  `json:"status"`     // the same in words
	RemoteAddress Address `json:"remoteAddress"`
	UserSID       string  `json:"userSid"` // who did it: S-1-5-18 is SYSTEM, root on the DC
	DN            string  `json:"dn"`      // whose
	Action        string  `json:"action"`  // "Change", "Reset" or "Auth info change"
	TransactionID string  `json:"transactionId"`
	SessionID     string  `json:"sessionId"` // of the connection; as in Samba's Authorization events
}

// Change says that an object was added, modified, deleted or renamed, or that this was refused.
type Change struct {
	StatusCode        int                  `json:"statusCode"`
	Status            string               `json:"status"`
	Operation         string               `json:"operation"` // "Add", "Modify", "Delete" or "Rename"
	RemoteAddress     Address              `json:"remoteAddress"`
	PerformedAsSystem bool                 `json:"performedAsSystem"`
	UserSID           string               `json:"userSid"`
	DN                string               `json:"dn"`
	TransactionID     string               `json:"transactionId"`
	SessionID         string               `json:"sessionId"`
	Attributes        map[string]Attribute `json:"attributes"` // as the client named them
}

// Attribute lists what was asked for of one attribute, in order.
type Attribute struct {
	Actions []Action `json:"actions"`
}

// Action is one part of a modification.
type Action struct {
	Action   string  `json:"action"`   // "add", "delete", "replace"
	Redacted bool    `json:"redacted"` // the values are secret and left out
	Values   []Value `json:"values"`
}

// Value is the value of an attribute; Samba cuts it after 1,024 bytes.
type Value struct {
	Value     string `json:"value"`
	Base64    bool   `json:"base64"`
	Truncated bool   `json:"truncated"`
}

// ReplicatedUpdate says that changes of another DC were taken in, or that this failed. It does not say which.
type ReplicatedUpdate struct {
	StatusCode    int    `json:"statusCode"`
	Status        string `json:"status"`
	TransactionID string `json:"transactionId"`
	ObjectCount   int    `json:"objectCount"`
	LinkCount     int    `json:"linkCount"`
	PartitionDN   string `json:"partitionDN"`
	Error         string `json:"error"`
	ErrorCode     int64  `json:"errorCode"`
	SourceDSA     string `json:"sourceDsa"`    // objectGUID of the other DC's settings
	InvocationID  string `json:"invocationId"` // of the other DC
}

// Transaction says how a transaction of the database ended.
type Transaction struct {
	Action        string `json:"action"` // "commit" or "rollback"; with a Status: "begin", "prepare commit" and so on, which failed
	TransactionID string `json:"transactionId"`
	Duration      int64  `json:"duration"`   // microseconds
	StatusCode    int    `json:"statusCode"` // only of a failure, as are the following
	Status        string `json:"status"`
	Reason        string `json:"reason"`
}

// Authentication says that somebody proved who they are, or failed to. Password changes over SAMR and Kerberos, in which the old
// password is proven, are among them: ServiceDescription is "SAMR Password Change", "LDAP Password Change" or "Kerberos KDC" then.
type Authentication struct {
	EventID            int     `json:"eventId"`
	LogonType          int     `json:"logonType"` // 2 interactive, 3 network, 8 network with the password in clear
	Status             string  `json:"status"`    // "NT_STATUS_OK", "NT_STATUS_WRONG_PASSWORD", …
	LocalAddress       Address `json:"localAddress"`
	RemoteAddress      Address `json:"remoteAddress"`
	ServiceDescription string  `json:"serviceDescription"`
	AuthDescription    string  `json:"authDescription"`
	ClientDomain       string  `json:"clientDomain"` // as the client gave them, whether they exist or not
	ClientAccount      string  `json:"clientAccount"`
	Workstation        string  `json:"workstation"`
	BecameAccount      string  `json:"becameAccount"` // as the directory has them
	BecameDomain       string  `json:"becameDomain"`
	BecameSID          string  `json:"becameSid"`
	PasswordType       string  `json:"passwordType"`
	Duration           int64   `json:"duration"` // microseconds
}

// Address is the end of a connection as Samba writes it, "ipv4:192.0.2.1:49152", "ipv6:2001:db8::1:49152" or "unix:" and a path;
// empty where there is no connection, as for a tool on the DC itself.
type Address string

// AddrPort returns the IP address and the port; ok is false where there is none.
func (a Address) AddrPort() (_ netip.AddrPort, ok bool) {
	family, rest, _ := strings.Cut(string(a), ":")
	colon := strings.LastIndexByte(rest, ':')
	if colon < 0 {
		return netip.AddrPort{}, false
	}
	ip, port := rest[:colon], rest[colon:]
	if family == "ipv6" {
		ip = "[" + ip + "]"
	} else if family != "ipv4" {
		return netip.AddrPort{}, false
	}
	parsed, err := netip.ParseAddrPort(ip + port)
	return parsed, err == nil && parsed.Addr().Is6() == (family == "ipv6")
}

// ErrNoEvent is Parse's error of a line that is of another kind.
var ErrNoEvent = errors.New("not an audit event")

var errMajorVersion = errors.New("a version that is not known here")

// Parse decodes one event, without a newline; blanks around it do not matter. What does not begin as a JSON object is
// ErrNoEvent. What does, but is not whole, has no timestamp or type, or lacks what its type promises, is another error. The text of
// errors does not repeat the line.
func Parse(line []byte) (Event, error) {
	line = bytes.TrimSpace(line)
	if !bytes.HasPrefix(line, []byte("{")) {
		return Event{}, ErrNoEvent
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(line, &members); err != nil {
		return Event{}, fmt.Errorf("decoding audit event: %w", err)
	}
	var e Event
	var timestamp string
	if err := errors.Join(member(members, "timestamp", &timestamp), member(members, "type", &e.Type)); err != nil {
		return Event{}, fmt.Errorf("decoding audit event: %w", err)
	}
	var err error
	if e.Time, err = time.Parse("2006-01-02T15:04:05-0700", timestamp); err != nil {
		return Event{}, errors.New("decoding audit event: timestamp of another form")
	}
	if err := e.decode(members); err != nil {
		return Event{}, fmt.Errorf("decoding audit event: %w", err)
	}
	return e, nil
}

func (e *Event) decode(members map[string]json.RawMessage) error {
	var body any
	switch e.Type {
	case TypePasswordChange:
		e.PasswordChange = new(PasswordChange)
		body = e.PasswordChange
	case TypeChange:
		e.Change = new(Change)
		body = e.Change
	case TypeReplicatedUpdate:
		e.ReplicatedUpdate = new(ReplicatedUpdate)
		body = e.ReplicatedUpdate
	case TypeTransaction:
		e.Transaction = new(Transaction)
		body = e.Transaction
	case TypeAuthentication:
		e.Authentication = new(Authentication)
		body = e.Authentication
	default:
		return nil
	}
	versioned := struct{ Version *Version }{&e.Version}
	if err := member(members, e.Type, &versioned); err != nil {
		return err
	}
	if e.Version.Major != 1 {
		return fmt.Errorf("%s: %w", e.Type, errMajorVersion)
	}
	return member(members, e.Type, body)
}

// member decodes one member, which must be there and not null.
func member(members map[string]json.RawMessage, name string, into any) error {
	raw, ok := members[name]
	if !ok || string(raw) == "null" {
		return fmt.Errorf("%s is missing", name)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
