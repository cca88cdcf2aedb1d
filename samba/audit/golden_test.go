package audit

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGolden reads the logs of real DCs, in which integration/golden changed a password in every way that they tell apart.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/samba-*/log.samba")
	if err != nil || len(files) != 5 {
		t.Fatalf("%d logs, %v; want those of five versions", len(files), err)
	}
	for _, name := range files {
		t.Run(filepath.Base(filepath.Dir(name)), func(t *testing.T) {
			file, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			testLog(t, file)
		})
	}
}

func testLog(t *testing.T, log io.Reader) {
	var changes []string // in the order of the log
	ended := map[string]string{}
	transactions := map[string]string{} // of the changes
	for r := NewReader(log); ; {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Error(err)
			continue
		}
		if e.Time.Year() < 2026 {
			t.Errorf("time %v", e.Time)
		}
		switch {
		case e.PasswordChange != nil:
			p := e.PasswordChange
			_, remote := p.RemoteAddress.AddrPort()
			what := p.Action + " " + p.Status
			if !remote {
				what += ", no address"
			}
			changes = append(changes, what)
			transactions[what] = p.TransactionID
			if !strings.HasPrefix(p.DN, "CN=audited,") || !strings.HasPrefix(p.UserSID, "S-1-5-21-") || len(p.SessionID) != 36 ||
				(p.StatusCode == 0) != (p.Status == "Success") || (p.EventID == EventPasswordReset) != (p.Action == "Reset") {
				t.Errorf("%+v", p)
			}
		case e.Change != nil:
			c := e.Change
			for _, attribute := range []string{"unicodePwd", "clearTextPassword"} {
				for _, action := range c.Attributes[attribute].Actions {
					if !action.Redacted || len(action.Values) > 0 {
						t.Errorf("a value of %s is shown", attribute)
					}
				}
			}
			if len(c.TransactionID) != 36 || c.Operation == "" || c.DN == "" {
				t.Errorf("%+v", c)
			}
		case e.Transaction != nil:
			ended[e.Transaction.TransactionID] = e.Transaction.Action
			if e.Transaction.Duration == 0 {
				t.Errorf("%+v", e.Transaction)
			}
		case e.Authentication != nil:
			a := e.Authentication
			if a.ClientAccount == "" || a.EventID != EventLogon && a.EventID != EventLogonFailed ||
				a.EventID == EventLogon && a.Status != "NT_STATUS_OK" {
				t.Errorf("%+v", a)
			}
		}
	}
	// Over LDAPS by an administrator; over SMB; over Kerberos, refused by history; over LDAPS by its owner.
	want := []string{"Reset Success", "Change Success", "Change Constraint violation, no address", "Change Success"}
	if !slices.Equal(changes, want) {
		t.Errorf("changes %q, want %q", changes, want)
	}
	for what, end := range map[string]string{want[0]: "commit", want[2]: "rollback"} {
		if got := ended[transactions[what]]; got != end {
			t.Errorf("%s: %q, want %q", what, got, end)
		}
	}
}
