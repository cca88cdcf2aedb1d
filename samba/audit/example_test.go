package audit_test

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/samba-pwsync/samba-pwsync/samba/audit"
)

// Which password changes stand? Those whose transaction was committed.
func ExampleReader() {
	log := strings.NewReader(`
[2026/11/22 17:36:06.013733,  0] ../../source4/smbd/server.c:920(binary_smbd_main)
  samba version 4.17.12-Debian started.
{"timestamp": "2026-11-22T17:36:12.249614+0000", "type": "passwordChange", "passwordChange": {"version": {"major": 1, "minor": 1}, "eventId": 4724, "statusCode": 0, "status": "Success", "remoteAddress": "ipv4:192.0.2.7:49152", "userSid": "S-1-5-21-1-2-3-500", "dn": "CN=alice,CN=Users,DC=samdom,DC=example,DC=com", "action": "Reset", "transactionId": "c84a4519-d98c-4979-8ed0-865065108150", "sessionId": "e0dc6c4a-8b2b-4ef8-8c30-38c396ee74af"}}
{"timestamp": "2026-11-22T17:36:12.289903+0000", "type": "dsdbTransaction", "dsdbTransaction": {"version": {"major": 1, "minor": 0}, "action": "commit", "transactionId": "c84a4519-d98c-4979-8ed0-865065108150", "duration": 209999}}
`)
	changes := map[string][]audit.PasswordChange{} // by transaction
	for r := audit.NewReader(log); ; {
		event, err := r.Next()
		if errors.Is(err, io.EOF) {
			return // or wait, and go on when the log has grown
		} else if err != nil {
			fmt.Println(err)
			return
		}
		switch {
		case event.PasswordChange != nil && event.PasswordChange.StatusCode == 0:
			id := event.PasswordChange.TransactionID
			changes[id] = append(changes[id], *event.PasswordChange)
		case event.Transaction != nil:
			id := event.Transaction.TransactionID
			if event.Transaction.Action == "commit" {
				for _, c := range changes[id] {
					from, _ := c.RemoteAddress.AddrPort()
					fmt.Println(c.Action, c.DN, "from", from.Addr())
				}
			}
			delete(changes, id)
		}
	}
	// Output: Reset CN=alice,CN=Users,DC=samdom,DC=example,DC=com from 192.0.2.7
}
