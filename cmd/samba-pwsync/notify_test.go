package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/control"
	"github.com/samba-pwsync/samba-pwsync/internal/notice"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// mailbox is an SMTP server for one test.
type mailbox struct {
	addr  string
	mu    sync.Mutex
	mails []string
}

func (m *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return m, nil }
func (m *mailbox) Reset()                                      {}
func (m *mailbox) Logout() error                               { return nil }
func (m *mailbox) Mail(string, *smtp.MailOptions) error        { return nil }
func (m *mailbox) Rcpt(string, *smtp.RcptOptions) error        { return nil }
func (m *mailbox) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, string(b))
	return err
}

func (m *mailbox) all() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.mails, "\n")
}

func openMailbox(t *testing.T) *mailbox {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mailbox{addr: listener.Addr().String()}
	server := smtp.NewServer(m)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return m
}

// A notice that the agent handed over becomes a mail and a run of the program, and its file goes away; also where the forwarder runs
// as a user of its own.
func TestForwarderTells(t *testing.T) {
	users := map[string]account{"as the same user": self()}
	if os.Geteuid() == 0 {
		users["as a user of its own"] = nobody
	}
	for name, owner := range users {
		t.Run(name, func(t *testing.T) {
			in, box := install(t, startSandbox(t), owner), openMailbox(t)
			dir := filepath.Dir(in.config)
			program, out := filepath.Join(dir, "tell"), filepath.Join(in.paths.Forwarder, "told")
			text, err := os.ReadFile(in.config)
			if err != nil {
				t.Fatal(err)
			}
			more := fmt.Sprintf("[policy.staff]\nfilter = \"(a=b)\"\nprecedence = 1\nmin_length = 11\ntiers = [\"12:3\"]\n"+
				"[notify]\nsmtp = %q\ntls = \"none\"\nfrom = \"helpdesk@example.com\"\ncommand = \"%s %s\"\n", box.addr, program, out)
			if err := os.WriteFile(in.config, append(text, more...), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(program, []byte("#!/bin/sh\ncat > $1.new && mv $1.new $1\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			s := in.start(t, owner, roleForwarder)

			now := time.Now()
			b, err := change.Notice{
				ID: "0011", Account: change.Account{GUID: dsdb.GUID{1}, SAMAccountName: "liz"}, FullName: "Liz", Address: liz, Policy: "staff",
				Rules: []string{"length", "complexity"}, Times: 1, First: now, Last: now,
			}.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			outgoing, err := spool.Open(in.paths.Outgoing, change.NoticeSuffix)
			if err != nil {
				t.Fatal(err)
			}
			if err := outgoing.Put(change.NoticeFile(now, "0011"), b); err != nil {
				t.Fatal(err)
			}
			var status forwarderStatus
			for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
				if err := control.Get(t.Context(), in.paths.ForwarderSocket, "/status", &status); err != nil {
					t.Fatal(err)
				}
				files, err := outgoing.List()
				if err != nil {
					t.Fatal(err)
				}
				if status.Notices != nil && *status.Notices == (notice.Status{Sent: 2}) && len(files) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%+v, files %v", status.Notices, files)
				}
			}
			if mail := box.all(); !strings.Contains(mail, "To: <"+liz+">") || !strings.Contains(mail, "it needs 12 to 16") {
				t.Errorf("mail:\n%s", mail)
			}
			told, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			var l notice.Letter
			if err := json.Unmarshal(told, &l); err != nil || l.Account != "liz" || l.Mail != liz || len(l.Rules) != 2 || l.MinLength != 12 {
				t.Errorf("%v: %s", err, told)
			}
			s.stop(t)
			if strings.Count(s.stderr.String(), "event=notice-sent") != 2 {
				t.Errorf("log:\n%s", s.stderr)
			}
		})
	}
}

func TestWhomToTell(t *testing.T) {
	if whomToTell(config.Default().Notify) != nil {
		t.Error("people are told without being asked for")
	}
	n := config.Default().Notify
	n.Command = "/bin/true"
	if whomToTell(n) == nil {
		t.Error("nobody is told")
	}
}
