package audit

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

const change = `{"timestamp": "2026-11-22T17:36:21.849474+0100", "type": "passwordChange", "passwordChange": {"version": {"major": 1, "minor": 2}, ` +
	`"eventId": 4723, "statusCode": 19, "status": "Constraint violation", "remoteAddress": "ipv4:127.0.0.1:39216", ` +
	`"userSid": "S-1-5-21-1-2-3-1108", "dn": "CN=u2,CN=Users,DC=samdom,DC=example,DC=com", "action": "Change", ` +
	`"transactionId": "19735e1a-29c6-4580-8887-02d31fb4ffa3", "sessionId": "beb31f6e-cdb5-46fc-89b3-dbf53d7c824b"}}`

func TestParse(t *testing.T) {
	e, err := Parse([]byte(change))
	if err != nil {
		t.Fatal(err)
	}
	want := PasswordChange{
		EventID: EventPasswordChange, StatusCode: 19, Status: "Constraint violation", RemoteAddress: "ipv4:127.0.0.1:39216",
		UserSID: "S-1-5-21-1-2-3-1108", DN: "CN=u2,CN=Users,DC=samdom,DC=example,DC=com", Action: "Change",
		TransactionID: "19735e1a-29c6-4580-8887-02d31fb4ffa3", SessionID: "beb31f6e-cdb5-46fc-89b3-dbf53d7c824b",
	}
	if e.Type != TypePasswordChange || e.Version != (Version{1, 2}) || e.PasswordChange == nil || *e.PasswordChange != want {
		t.Errorf("%+v, %+v", e, e.PasswordChange)
	}
	if at := time.Date(2026, 11, 22, 16, 36, 21, 849474000, time.UTC); !e.Time.Equal(at) {
		t.Errorf("time %v, want %v", e.Time, at)
	}
	edited := func(old, new string) []byte { return []byte(strings.Replace(change, old, new, 1)) }
	for name, line := range map[string][]byte{
		"blanks around, as 4.13 has them": []byte("  " + change + "\r\n"),
		"a later minor version":           edited(`"minor": 2`, `"minor": 9, "patch": 1`),
		"an unknown field":                edited(`"eventId"`, `"new": [1], "eventId"`),
		"no connection":                   edited(`"ipv4:127.0.0.1:39216"`, `null`),
	} {
		if e, err := Parse(line); err != nil || e.PasswordChange.DN != want.DN {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	if e, err := Parse(edited(`"type": "passwordChange"`, `"type": "groupChange"`)); err != nil || e.Type != "groupChange" || e.PasswordChange != nil {
		t.Errorf("a type that is not decoded: %+v, %v", e, err)
	}
	for name, line := range map[string][]byte{
		"another major version": edited(`"major": 1`, `"major": 2`),
		"no version":            edited(`"version"`, `"vision"`),
		"no timestamp":          edited(`"timestamp"`, `"time"`),
		"another time":          edited(`T17:36`, ` 17:36`),
		"no type":               edited(`"type"`, `"kind"`),
		"no body":               edited(`"passwordChange": {`, `"body": {`),
		"an empty body":         []byte(change[:strings.Index(change, `{"version`)] + "null}"),
		"a number as a name":    edited(`"action": "Change"`, `"action": 1`),
		"cut off":               []byte(change[:len(change)-1]),
		"two in one line":       []byte(change + change),
	} {
		if e, err := Parse(line); err == nil || errors.Is(err, ErrNoEvent) {
			t.Errorf("%s: %+v, %v", name, e, err)
		} else if strings.Contains(err.Error(), "u2") {
			t.Errorf("%s: the error repeats the line: %v", name, err)
		}
	}
	for _, line := range []string{"", "  Auth: [SMB2,NTLMSSP] user [" + change + "]", "[2026/11/22 17:36:06, 0] ../../server.c:920(main)", `"{"`} {
		if e, err := Parse([]byte(line)); !errors.Is(err, ErrNoEvent) {
			t.Errorf("%s: %+v, %v", line, e, err)
		}
	}
}

func TestParseOtherTypes(t *testing.T) {
	parse := func(kind, body string) Event {
		t.Helper()
		e, err := Parse([]byte(`{"timestamp": "2026-11-22T17:36:20.426204+0000", "type": "` + kind + `", "` + kind + `": {"version": {"major": 1, "minor": 0}, ` +
			body + `}}`))
		if err != nil || e.Type != kind || e.Version != (Version{1, 0}) {
			t.Fatalf("%s: %+v, %v", kind, e, err)
		}
		return e
	}
	c := parse(TypeChange, `"performedAsSystem": true, "attributes": {"a": {"actions": [{"action": "add", "values": [{"base64": true, "truncated": true, "value": "eA=="}]},`+
		` {"action": "replace", "redacted": true}]}}`).Change
	want := []Action{{Action: "add", Values: []Value{{"eA==", true, true}}}, {Action: "replace", Redacted: true}}
	if got := c.Attributes["a"].Actions; !c.PerformedAsSystem || len(got) != 2 || !slices.Equal(got[0].Values, want[0].Values) || !got[1].Redacted {
		t.Errorf("%+v, want %+v", c, want)
	}
	failed := Transaction{Action: "prepare", TransactionID: "x", Duration: 3, StatusCode: 1, Status: "Operations error", Reason: "why"}
	if got := parse(TypeTransaction, `"action": "prepare", "transactionId": "x", "duration": 3, "statusCode": 1, "status": "Operations error", `+
		`"reason": "why"`).Transaction; *got != failed {
		t.Errorf("%+v, want %+v", *got, failed)
	}
	update := ReplicatedUpdate{StatusCode: 0, Status: "Success", TransactionID: "x", ObjectCount: 2, LinkCount: 1, PartitionDN: "DC=a", Error: "WERR_OK",
		ErrorCode: 4294967295, SourceDSA: "y", InvocationID: "z"}
	if got := parse(TypeReplicatedUpdate, `"statusCode": 0, "status": "Success", "transactionId": "x", "objectCount": 2, "linkCount": 1, `+
		`"partitionDN": "DC=a", "error": "WERR_OK", "errorCode": 4294967295, "sourceDsa": "y", "invocationId": "z"`).ReplicatedUpdate; *got != update {
		t.Errorf("%+v, want %+v", *got, update)
	}
	if got := parse(TypeAuthentication, `"status": "NT_STATUS_OK", "workstation": null, "duration": 5`).Authentication; *got != (Authentication{
		Status: "NT_STATUS_OK", Duration: 5}) {
		t.Errorf("%+v", *got)
	}
}

func TestAddrPort(t *testing.T) {
	for address, want := range map[Address]string{
		"ipv4:192.0.2.1:49152":   "192.0.2.1:49152",
		"ipv6:2001:db8::1:49152": "[2001:db8::1]:49152",
		"ipv6:::1:636":           "[::1]:636",
		"":                       "", "unix:/run/ldapi": "", "unix:": "", "ipv4:192.0.2.1": "", "ipv6:192.0.2.1:1": "", "ipv4:::1:1": "",
		"ipv4:192.0.2.1:65536": "", "ipv5:192.0.2.1:1": "",
	} {
		if got, ok := address.AddrPort(); ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %v, %v", address, got, ok)
		}
	}
}

// growing is a log that has, at each time, only so much to read.
type growing struct{ pieces []string }

func (g *growing) Read(p []byte) (int, error) {
	if len(g.pieces) == 0 {
		return 0, io.EOF
	}
	piece := g.pieces[0]
	if piece == "" {
		g.pieces = g.pieces[1:]
		return 0, io.EOF
	}
	n := copy(p, piece)
	if g.pieces[0] = piece[n:]; g.pieces[0] == "" {
		g.pieces = g.pieces[1:]
	}
	return n, nil
}

func TestReader(t *testing.T) {
	long := "{" + strings.Repeat("x", maxLine) + "\n"
	r := NewReader(&growing{[]string{
		"[2026/11/22 17:36:06, 0] header\n  text\n", change + "\n" + change[:50], "", "", change[50:], "", "\n" + long + "{]\n", change + "\n",
		change + change + "[2026/11/22 17:36:06, 0] header\n\n\n", change + change[:30] + "\n", "  " + change,
	}})
	var got []string
	for range 13 {
		e, err := r.Next()
		var of *LineError
		switch {
		case errors.As(err, &of):
			got = append(got, strings.Join(strings.Fields(of.Error())[:2], " "))
		case errors.Is(err, io.EOF):
			got = append(got, "end")
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, e.PasswordChange.Action)
		}
	}
	want := []string{"Change", "end", "end", "end", "Change", "line 5:", "line 6:", "Change", "Change", "Change", "Change", "line 11:", "end"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestReaderTellsOfTheReader(t *testing.T) {
	broken := errors.New("broken")
	if e, err := NewReader(io.MultiReader(strings.NewReader("x\n"), errReader{broken})).Next(); !errors.Is(err, broken) {
		t.Errorf("%+v, %v", e, err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func FuzzParse(f *testing.F) {
	f.Add([]byte(change))
	f.Add([]byte(`{"timestamp": "2026-11-22T17:36:20.426204+0000", "type": "dsdbTransaction", "dsdbTransaction": {"version": {"major": 1, "minor": 0}, ` +
		`"action": "commit", "transactionId": "494f7ef6-d512-4fa6-9b51-6f4f6546293d", "duration": 83876}}`))
	f.Add([]byte(`{"timestamp": "2026-11-22T17:36:20.407893+0000", "type": "dsdbChange", "dsdbChange": {"version": {"major": 1, "minor": 0}, ` +
		`"attributes": {"unicodePwd": {"actions": [{"action": "replace", "redacted": true}]}}}}`))
	f.Add([]byte(`{"type": "Authentication", "Authentication": {"version": null}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Parse(line)
		if err != nil {
			return
		}
		set := 0
		for _, is := range []bool{
			e.PasswordChange != nil, e.Change != nil, e.ReplicatedUpdate != nil, e.Transaction != nil, e.Authentication != nil,
		} {
			if is {
				set++
			}
		}
		if set > 1 || set == 1 && e.Version.Major != 1 {
			t.Errorf("%+v", e)
		}
		if e.PasswordChange != nil {
			e.PasswordChange.RemoteAddress.AddrPort()
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add(change+"\n", "rest")
	f.Add("  "+change, "\n{\n")
	f.Add(change+change[:9], change[9:]+"text\n")
	f.Fuzz(func(t *testing.T, first, second string) {
		events := func(pieces ...string) (n int) {
			r := NewReader(&growing{pieces})
			for ends := 0; ends < 3; {
				_, err := r.Next()
				if errors.Is(err, io.EOF) {
					ends++
				} else if err == nil {
					n++
				}
			}
			return n
		}
		if whole, apart := events(first+second), events(first, "", second); whole != apart {
			t.Errorf("%d events at once, %d as the log grows", whole, apart)
		}
	})
}
