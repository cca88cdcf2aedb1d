// Package mail tells people by a mail, over SMTP.
//
// How: one connection for each letter, as the configuration says: STARTTLS, without which nothing is sent, TLS from the beginning, or neither.
// The server's certificate is checked, against the system's authorities or those of a file. The login is PLAIN or LOGIN, within TLS.
//
// Header injection: the only value of the directory in the header and the envelope is the address, and that one holds no
// character that could end it (notice.Letter's Mail). The account's names are in the text alone, which is plain and encoded. The
// subject and the sender are the configuration's.
//
// Whom it trusts: the server with what is in the mails. Errors hold what the server answers only as its code: what it says may be
// anything, and what it was sent. Nor does more than a mebibyte of that get in: before TLS begins it may be anybody who speaks.
//
// What it does not solve: what becomes of a mail after the server took it. Bounces go to the configured sender.
package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"github.com/samba-pwsync/samba-pwsync/internal/notice"
)

// For a whole conversation with the server.
const (
	patience  = 30 * time.Second
	mostHeard = 1 << 20 // bytes
)

// Values of Options.TLS.
const (
	StartTLS = "starttls"
	Implicit = "implicit"
	None     = "none"
)

// Options say how mails are sent.
type Options struct {
	Server       string // host:port
	TLS          string
	CAFile       string // empty: the system's authorities
	User         string // empty: no login
	PasswordFile string
	From         string
	Subject      string
	Text         *notice.Text
}

// Mail is a notice.Sender.
type Mail struct {
	Options
	host  string
	port  int
	roots *x509.CertPool
}

// New looks at the options. The password's file is read anew for each mail, so that it can be replaced.
func New(o Options) (*Mail, error) {
	host, port, err := net.SplitHostPort(o.Server)
	if err != nil {
		return nil, fmt.Errorf("preparing mail: %w", err)
	}
	m := &Mail{Options: o, host: host}
	if m.port, err = strconv.Atoi(port); err != nil {
		return nil, fmt.Errorf("preparing mail: %q is no port", port)
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("preparing mail: %w", err)
		}
		m.roots = x509.NewCertPool()
		if !m.roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("preparing mail: %s holds no certificate", o.CAFile)
		}
	}
	if _, err := m.password(); err != nil {
		return nil, err
	}
	return m, nil
}

// Name implements notice.Sender.
func (*Mail) Name() string { return "mail" }

// Send implements notice.Sender.
func (m *Mail) Send(ctx context.Context, l notice.Letter) error {
	if l.Mail == "" {
		return errNoAddress
	}
	message, err := m.message(l)
	if err != nil {
		return err
	}
	err = m.talk(ctx, func(client *gomail.Client) error { return client.Send(message) })
	if message.IsDelivered() {
		return nil // whatever came after it
	}
	return err
}

// Check asks the server whether it would take mails, as far as it can be asked without one.
func (m *Mail) Check(ctx context.Context) error {
	return m.talk(ctx, func(*gomail.Client) error { return nil })
}

var errNoAddress = errors.New("the account has no e-mail address, or one that is none")

// message writes the mail.
func (m *Mail) message(l notice.Letter) (*gomail.Msg, error) {
	text, err := m.Text.For(l)
	if err != nil {
		return nil, err
	}
	message := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := errors.Join(message.From(m.From), message.To(l.Mail)); err != nil {
		return nil, fmt.Errorf("writing a mail: %w", errNoAddress)
	}
	_, domain, _ := strings.Cut(m.From, "@")
	message.SetMessageIDWithValue(l.ID + "@" + domain) // the same for each attempt: a mailbox can tell that it has it
	message.SetDate()
	message.Subject(m.Subject)
	message.SetGenHeader("Auto-Submitted", "auto-generated") // so that nobody's absence answers
	message.SetGenHeader("X-Auto-Response-Suppress", "All")
	message.SetBodyString(gomail.TypeTextPlain, text)
	return message, nil
}

// talk makes a connection for what is to be done, and ends it.
func (m *Mail) talk(ctx context.Context, do func(*gomail.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	password, err := m.password()
	if err != nil {
		return later(err) // it may be being replaced
	}
	options := []gomail.Option{
		gomail.WithPort(m.port), gomail.WithTimeout(patience), gomail.WithTLSConfig(m.tls()), gomail.WithoutNoop(), gomail.WithoutRset(), gomail.WithTLSPolicy(gomail.NoTLS),
	}
	if m.TLS == StartTLS {
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if m.User != "" {
		options = append(options, gomail.WithSMTPAuthCustom(&login{user: m.User, password: password, host: m.host}))
	}
	options = append(options, gomail.WithDialContextFunc(func(context.Context, string, string) (net.Conn, error) {
		plain, err := new(net.Dialer).DialContext(ctx, "tcp", m.Server)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = plain.Close() }) // the library closes it neither then nor after a failed greeting
		conn := net.Conn(&bounded{plain, mostHeard})
		if m.TLS == Implicit {
			secured := tls.Client(conn, m.tls())
			if err := secured.HandshakeContext(ctx); err != nil {
				_ = plain.Close() // the handshake's error says more
				return nil, err
			}
			conn = secured
		}
		return conn, nil
	}))
	client, err := gomail.NewClient(m.host, options...)
	if err != nil {
		return fmt.Errorf("preparing mail: %w", err)
	}
	if err := client.DialWithContext(ctx); err != nil {
		return m.trouble("connecting to", err)
	}
	if err := do(client); err != nil {
		return m.trouble("sending by", err)
	}
	_ = client.Close() // the server has taken it
	return nil
}

// login is PLAIN, or LOGIN where the server offers only that. Of the others SCRAM lets the server say how many rounds we are to reckon, which may be
// years of it, and NTLM and CRAM-MD5 give away what a password can be guessed by; the library's own choice falls back to all of them.
// The server is known by its certificate, so it is told the password as it is.
type login struct {
	smtp.Auth            // the one that was chosen
	user, password, host string
}

var errNoLogin = errors.New("it offers no way to log in that we use (PLAIN or LOGIN, within TLS)")

// Start implements smtp.Auth.
func (l *login) Start(server *smtp.ServerInfo) (mechanism string, first []byte, err error) {
	switch {
	case !server.TLS:
		return "", nil, errNoLogin
	case slices.Contains(server.Auth, string(gomail.SMTPAuthPlain)):
		l.Auth = smtp.PlainAuth("", l.user, l.password, l.host, false)
	case slices.Contains(server.Auth, string(gomail.SMTPAuthLogin)):
		l.Auth = smtp.LoginAuth(l.user, l.password, l.host, false)
	default:
		return "", nil, errNoLogin
	}
	return l.Auth.Start(server)
}

// bounded is a connection from which no more than left bytes are read. The library reads lines of any length, and keeps them.
type bounded struct {
	net.Conn
	left int
}

var errTooMuch = errors.New("it says more than a mail server has to say")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errTooMuch
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (m *Mail) tls() *tls.Config {
	return &tls.Config{ServerName: m.host, RootCAs: m.roots, MinVersion: tls.VersionTLS12}
}

func (m *Mail) password() (string, error) {
	if m.PasswordFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(m.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("reading the mail server's password: %w", err)
	}
	password := strings.TrimRight(string(b), "\r\n")
	if password == "" || len(password) > 1024 {
		return "", fmt.Errorf("reading the mail server's password: %s holds none", m.PasswordFile)
	}
	return password, nil
}

// trouble is an error without what the server said. What it refuses for good, of the recipient or of the mail, is given up.
func (m *Mail) trouble(doing string, err error) error {
	var answer *textproto.Error
	sent := (*gomail.SendError)(nil)
	if errors.As(err, &sent) {
		code := sent.ErrorCode()
		words := fmt.Sprintf("%s %s: %s", doing, m.Server, sent.Reason)
		if code != 0 {
			words += fmt.Sprintf(": it answers with %d %s", code, sent.EnhancedStatusCode())
		}
		err := errors.New(strings.TrimSpace(words))
		if code >= 500 && (sent.Reason == gomail.ErrSMTPRcptTo || sent.Reason == gomail.ErrSMTPDataClose) {
			return err
		}
		return later(err) // also where it does not like us: somebody may mend that
	}
	if errors.As(err, &answer) {
		return later(fmt.Errorf("%s %s: it answers with %d", doing, m.Server, answer.Code))
	}
	return later(fmt.Errorf("%s %s: %w", doing, m.Server, ours(err)))
}

// ours is an error whose text is made on this machine: the library, too, quotes what it cannot read.
func ours(err error) error {
	var (
		untrusted *tls.CertificateVerificationError
		host      x509.HostnameError
		noTLS     tls.RecordHeaderError
		dns       *net.DNSError
		op        *net.OpError
	)
	switch {
	case errors.Is(err, errTooMuch):
		return errTooMuch
	case errors.As(err, &host):
		return errors.New("its certificate is made for another host")
	case errors.As(err, &untrusted):
		return errors.New("its certificate is not trusted: it has expired, or ca_file is needed")
	case errors.As(err, &noTLS):
		return errors.New(`it does not speak TLS at once: tls = "starttls"?`)
	case errors.As(err, &dns):
		return dns
	case errors.As(err, &op):
		return op
	case strings.HasPrefix(err.Error(), "STARTTLS mode"):
		return errors.New("it offers no STARTTLS")
	case errors.Is(err, errNoLogin):
		return errNoLogin
	case errors.Is(err, io.EOF):
		return errors.New("it closed the connection")
	}
	return errors.New("it does not answer as a mail server does")
}

func later(err error) error { return fmt.Errorf("%w: %w", notice.ErrNotNow, err) }
