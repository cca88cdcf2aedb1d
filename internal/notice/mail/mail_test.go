package mail

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/samba-pwsync/samba-pwsync/internal/notice"
)

// server is an SMTP server that keeps what it takes, and answers as it is told.
type server struct {
	addr, caFile string

	mu     sync.Mutex
	mails  []received
	answer map[string]error // to "mail", "rcpt", "data"
	offers []string         // ways to log in
	logins []string         // by which it was tried
}

type received struct {
	from string
	to   []string
	data string
}

const serverPassword = "the server's own secret"

func (s *server) says(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answer[what]
}

func (s *server) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{server: s}, nil }

type session struct {
	*server
	received
}

func (s *session) AuthMechanisms() []string { return s.offers }

func (s *session) Auth(mechanism string) (sasl.Server, error) {
	s.mu.Lock()
	s.logins = append(s.logins, mechanism)
	s.mu.Unlock()
	judge := func(_, user, password string) error {
		if user != "pwsync" || password != serverPassword {
			// A server that says what it was sent.
			return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "no: " + user + " " + password}
		}
		return nil
	}
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(judge), nil
	case sasl.Login:
		return &loginServer{judge: judge}, nil
	}
	return endless{}, nil
}

// loginServer asks for the name, and then for the password.
type loginServer struct {
	judge  func(identity, user, password string) error
	said   []string
	greets bool
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if !l.greets {
		l.greets = true
		return []byte("Username:"), false, nil
	}
	if l.said = append(l.said, string(response)); len(l.said) == 1 {
		return []byte("Password:"), false, nil
	}
	return nil, true, l.judge("", l.said[0], l.said[1])
}

// endless is a server of SCRAM that asks for more rounds than anybody can reckon.
type endless struct{}

func (endless) Next(first []byte) (challenge []byte, done bool, err error) {
	_, nonce, _ := strings.Cut(string(first), "r=")
	return []byte("r=" + nonce + "x,s=c2FsdA==,i=9000000000000000000"), false, nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.received = received{from: from}
	return s.says("mail")
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return s.says("rcpt")
}

func (s *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.says("data"); err != nil {
		return err
	}
	s.received.data = string(b)
	s.mu.Lock()
	s.mails = append(s.mails, s.received)
	s.mu.Unlock()
	return nil
}

func (s *session) Reset()        {}
func (s *session) Logout() error { return nil }

// serve starts a server, with a certificate of its own.
func serve(t *testing.T, mode string) *server {
	t.Helper()
	cert, ca := certificate(t)
	s := &server{answer: map[string]error{}, offers: []string{sasl.Plain}, caFile: filepath.Join(t.TempDir(), "ca.pem")}
	if err := os.WriteFile(s.caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().String()
	it := smtp.NewServer(s)
	it.Domain = "mail.example.com"
	it.ErrorLog = discard{}
	if mode == StartTLS {
		it.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	if mode == Implicit {
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	go func() { _ = it.Serve(listener) }()
	t.Cleanup(func() { _ = it.Close() })
	return s
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

func certificate(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func options(t *testing.T, s *server, mode string) Options {
	t.Helper()
	text, err := notice.ParseText(notice.Standard)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Server: s.addr, TLS: mode, CAFile: s.caFile, From: "helpdesk@example.com", Subject: "Ihr Kennwort: nicht übernommen", Text: text}
}

func open(t *testing.T, o Options) *Mail {
	t.Helper()
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func letter() notice.Letter {
	at := time.Unix(1700000000, 0)
	return notice.Letter{
		ID: "00112233", Account: "alice", FullName: "Älice\r\nBcc: eve@example.com", Mail: "alice@example.com", Policy: "default",
		Rules: []notice.Rule{{Name: "length", Reason: "it is too short"}, {Name: "walk", Reason: "it is a walk"}}, Times: 3, First: at, Last: at,
	}
}

func TestSend(t *testing.T) {
	for _, mode := range []string{StartTLS, Implicit, None} {
		t.Run(mode, func(t *testing.T) {
			s := serve(t, mode)
			m := open(t, options(t, s, mode))
			if err := m.Check(t.Context()); err != nil {
				t.Errorf("checking: %v", err)
			}
			if err := m.Send(t.Context(), letter()); err != nil {
				t.Fatal(err)
			}
			if len(s.mails) != 1 {
				t.Fatalf("%d mails", len(s.mails))
			}
			got := s.mails[0]
			if got.from != "helpdesk@example.com" || len(got.to) != 1 || got.to[0] != "alice@example.com" {
				t.Errorf("from %q to %q", got.from, got.to)
			}
			message, err := netmail.ReadMessage(strings.NewReader(got.data))
			if err != nil {
				t.Fatal(err)
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(message.Header.Get("Subject"))
			if err != nil || subject != "Ihr Kennwort: nicht übernommen" {
				t.Errorf("subject %q, %v", subject, err)
			}
			for key, want := range map[string]string{"Bcc": "", "Auto-Submitted": "auto-generated", "To": "<alice@example.com>", "From": "<helpdesk@example.com>", "Message-Id": "<00112233@example.com>"} {
				if got := message.Header.Get(key); got != want {
					t.Errorf("%s: %q, want %q", key, got, want)
				}
			}
			body, err := io.ReadAll(quotedprintable.NewReader(message.Body))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"Älice", "alice", "- it is too short", "- it is a walk", "3 new passwords"} {
				if !bytes.Contains(body, []byte(want)) {
					t.Errorf("the text lacks %q:\n%s", want, body)
				}
			}
		})
	}
}

func TestLogin(t *testing.T) {
	for _, mode := range []string{StartTLS, Implicit} {
		t.Run(mode, func(t *testing.T) {
			s := serve(t, mode)
			o := options(t, s, mode)
			o.User, o.PasswordFile = "pwsync", filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(o.PasswordFile, []byte(serverPassword+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			m := open(t, o)
			if err := m.Send(t.Context(), letter()); err != nil || len(s.mails) != 1 || len(s.logins) != 1 {
				t.Fatalf("%v; %d mails, logins %q", err, len(s.mails), s.logins)
			}
			// Another password: the error tells neither of them, nor what the server says.
			if err := os.WriteFile(o.PasswordFile, []byte("Canary-of-the-mail-server"), 0o600); err != nil {
				t.Fatal(err)
			}
			err := m.Send(t.Context(), letter())
			if !errors.Is(err, notice.ErrNotNow) || strings.Contains(err.Error(), "Canary") || !strings.Contains(err.Error(), "535") {
				t.Errorf("%v", err)
			}
		})
	}
	s := serve(t, None)
	o := options(t, s, None)
	o.User, o.PasswordFile = "pwsync", filepath.Join(t.TempDir(), "none")
	if _, err := New(o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// The password is told to the server that has the certificate, or to nobody: never by a way in which the server has us reckon, or which gives
// away what it can be guessed by.
func TestWaysToLogIn(t *testing.T) {
	for _, c := range []struct{ offers, takes string }{
		{"SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1 NTLM CRAM-MD5 LOGIN PLAIN", sasl.Plain},
		{"SCRAM-SHA-256 CRAM-MD5 XOAUTH2 LOGIN", sasl.Login},
		{"SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1-PLUS SCRAM-SHA-1", ""},
		{"NTLM", ""},
		{"CRAM-MD5", ""},
		{"XOAUTH2 GSSAPI X-PLAIN", ""},
		{"", ""},
	} {
		for _, mode := range []string{StartTLS, Implicit, None} {
			t.Run(mode+" "+c.offers, func(t *testing.T) {
				s := serve(t, mode)
				s.offers = strings.Fields(c.offers)
				o := options(t, s, mode)
				o.User, o.PasswordFile = "pwsync", filepath.Join(t.TempDir(), "secret")
				if err := os.WriteFile(o.PasswordFile, []byte(serverPassword), 0o600); err != nil {
					t.Fatal(err)
				}
				err := open(t, o).Check(t.Context())
				if c.takes == "" || mode == None { // whatever is said where it is not this: anybody may say it
					if !errors.Is(err, notice.ErrNotNow) || len(s.logins) > 0 || !strings.Contains(err.Error(), "no way to log in") {
						t.Errorf("%v; tried %q", err, s.logins)
					}
				} else if err != nil || len(s.logins) != 1 || s.logins[0] != c.takes {
					t.Errorf("%v; tried %q", err, s.logins)
				}
			})
		}
	}
}

// Nothing is sent to a server that is not the one, or that does not protect what it is sent as it should.
func TestUnprotected(t *testing.T) {
	for name, c := range map[string]struct {
		serves, wants string
		spoil         func(*Options)
		says          string
	}{
		"no STARTTLS":              {None, StartTLS, nil, "no STARTTLS"},
		"no TLS":                   {None, Implicit, nil, "does not speak TLS at once"},
		"an unknown authority":     {StartTLS, StartTLS, func(o *Options) { o.CAFile = "" }, "ca_file"},
		"an unknown one, implicit": {Implicit, Implicit, func(o *Options) { o.CAFile = "" }, "ca_file"},
		"another name":             {StartTLS, StartTLS, func(o *Options) { o.Server = strings.Replace(o.Server, "127.0.0.1", "localhost", 1) }, "another host"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, c.serves)
			o := options(t, s, c.wants)
			if c.spoil != nil {
				c.spoil(&o)
			}
			err := open(t, o).Send(t.Context(), letter())
			if !errors.Is(err, notice.ErrNotNow) || len(s.mails) > 0 || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; %d mails", err, len(s.mails))
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	no := func(code int) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "Canary: what the server says"}
	}
	for _, c := range []struct {
		name, at string
		code     int
		later    bool
	}{
		{"no such user", "rcpt", 550, false},
		{"come again", "rcpt", 450, true},
		{"not you", "mail", 550, true},
		{"spam", "data", 554, false},
		{"full", "data", 452, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, StartTLS)
			s.answer[c.at] = no(c.code)
			err := open(t, options(t, s, StartTLS)).Send(t.Context(), letter())
			if err == nil || errors.Is(err, notice.ErrNotNow) != c.later || strings.Contains(err.Error(), "Canary") {
				t.Errorf("%v", err)
			}
			if want := map[int]string{550: "550 5.1.1", 450: "450 4.1.1", 554: "554 5.1.1", 452: "452 4.1.1"}[c.code]; err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %s", err, want)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		s := serve(t, StartTLS)
		o := options(t, s, StartTLS)
		o.Server = "127.0.0.1:1"
		if err := open(t, o).Send(t.Context(), letter()); !errors.Is(err, notice.ErrNotNow) {
			t.Errorf("%v", err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		o := options(t, serve(t, None), None)
		o.Server = silent.Addr().String()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		began := time.Now()
		if err := open(t, o).Send(ctx, letter()); !errors.Is(err, notice.ErrNotNow) || time.Since(began) > patience/2 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
	t.Run("no address", func(t *testing.T) {
		s := serve(t, None)
		l := letter()
		l.Mail = ""
		if err := open(t, options(t, s, None)).Send(t.Context(), l); !errors.Is(err, errNoAddress) || errors.Is(err, notice.ErrNotNow) {
			t.Errorf("%v", err)
		}
	})
}

// What a server says, and whoever is between it and us until TLS begins, is anything. It must not fill the memory of the process that
// delivers passwords, nor get into the log, where it may be what it was sent.
func TestNonsense(t *testing.T) {
	const most = 16 << 20
	for name, c := range map[string]struct{ greeting, then, again string }{
		"a line without end":            {"220 ", "", strings.Repeat("Canary", 1<<12)},
		"an answer without end":         {"", "", strings.Repeat("220-Canary\r\n", 1<<12)},
		"no answer":                     {"Canary\r\n", "", ""},
		"an answer without code":        {"Canary, welcome to you\r\n", "", ""},
		"what it was sent":              {"220 hello\r\n", "Canary %s\r\n", ""},
		"what it was sent, with a code": {"220 hello\r\n", "999 Canary %s\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			sent := make(chan int, 1)
			go func() {
				n := 0
				defer func() { sent <- n }()
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				if _, err := io.WriteString(conn, c.greeting); err != nil {
					return
				}
				for c.again != "" && n < most {
					more, err := io.WriteString(conn, c.again)
					n += more
					if err != nil {
						return
					}
				}
				for lines := bufio.NewScanner(conn); c.then != "" && lines.Scan(); {
					if _, err := io.WriteString(conn, strings.ReplaceAll(c.then, "%s", lines.Text())); err != nil {
						return
					}
				}
			}()
			o := options(t, serve(t, None), None)
			o.Server = listener.Addr().String()
			err = open(t, o).Send(t.Context(), letter())
			if !errors.Is(err, notice.ErrNotNow) || strings.Contains(err.Error(), "Canary") || len(err.Error()) > 200 {
				t.Errorf("%v", err)
			}
			if n := <-sent; n >= most {
				t.Errorf("it took %d bytes", n)
			}
		})
	}
}
