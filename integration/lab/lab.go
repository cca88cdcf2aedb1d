// Package lab is a small company in Docker: a real Samba domain controller with samba-pwsync installed on it as its README says,
// and the cloud sandbox, in a network of their own. More domain controllers can join, and the line between two can be cut.
//
// Why: what samba-pwsync promises is about Samba, not about our idea of Samba. The integration tests and `make demo` drive this
// domain controller as people do, over every route by which a password changes.
//
// It runs the docker command and needs an engine on this machine, since it speaks LDAPS and Kerberos to the DC's own address.
// The images come from integration/image/build.sh (make images). Everything is labelled with the process that made it: Close
// removes it, and what a killed process left behind goes when the next lab starts.
//
// Passwords are drawn here, remembered (Passwords) for the canary test, and given to programs on stdin only: a command
// line is seen by every process of the machine and stays in Docker's events.
package lab

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const folderPrefix = "samba-pwsync-lab-"

// Options of a lab. The zero value is a lab as the tests want it.
type Options struct {
	Suite    string                           // Debian suite of the DC's image; "" means $SAMBA_SUITE, else bookworm
	Progress func(format string, args ...any) // told what is being started; nil: silence
	Config   string                           // TOML in front of the targets' sections; "" means DefaultConfig
	Clock    bool                             // the DC has a clock of its own, for SetClock
	// Disk has what the DC reads and writes for each password, and its logs, lie in volumes, on the machine's own file system, as a DC's do; what Docker has for a
	// container may be many times slower. Who searches a container for passwords does not look there.
	Disk bool
}

// DefaultConfig is samba-pwsync.toml without targets. confirm_timeout is short, because the tests wait for it to see that a
// password which the directory never took is not sent. Passwords that a target would refuse are let through: some tests are about those.
const DefaultConfig = `
state_dir = "/var/lib/samba-pwsync"

[policy]
preflight = false

[directory]
exclude = "(adminCount=1)"
confirm_timeout = "8s"
`

// A Lab is a running DC and a running sandbox. More DCs may have joined.
type Lab struct {
	DC      *DC
	Sandbox *Sandbox

	build   string // whose images these are (see checkout)
	dir     string // the sandbox's store, on the host
	network string
	started []string // containers
	events  *record

	mu        sync.Mutex
	passwords []string
}

// Start brings a lab up: about 15 s, most of it Samba's provisioning and first start. On error nothing stays.
func Start(ctx context.Context, o Options) (_ *Lab, err error) {
	if o.Suite == "" {
		o.Suite = suite()
	}
	if o.Config == "" {
		o.Config = DefaultConfig
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	build, err := checkout()
	if err != nil {
		return nil, err
	}
	sandboxImage := "samba-pwsync/sandbox:" + build
	if err := haveImage(ctx, sandboxImage); err != nil {
		return nil, err
	}
	if err := Clean(ctx); err != nil {
		return nil, err
	}

	l := &Lab{build: build, events: recordEvents()}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if l.dir, err = os.MkdirTemp("", folderPrefix+owner()+"-"); err != nil {
		return nil, fmt.Errorf("making the sandbox's folder: %w", err)
	}
	l.network = "samba-pwsync-" + filepath.Base(l.dir)[len(folderPrefix):]
	if _, err = docker(ctx, "", "network", "create", "--label", label+"="+owner(), l.network); err != nil {
		return nil, fmt.Errorf("creating a network: %w", err)
	}

	o.Progress("provisioning and starting a Samba AD domain controller (Debian %s)", o.Suite)
	flags := []string{"--dns", "127.0.0.1"}
	if o.Clock {
		flags = append(flags, "--cap-add", "SYS_PTRACE", "--env", "CLOCK="+clockFile)
	}
	if o.Disk {
		for _, folder := range []string{"/var", "/etc/samba-pwsync", LocalSbin} {
			flags = append(flags, "--volume", folder)
		}
	}
	dc, err := l.runDC(ctx, "dc1", o.Suite, flags)
	if err != nil {
		return nil, err
	}
	o.Progress("starting the cloud sandbox")
	if l.Sandbox, err = startSandbox(ctx, l, sandboxImage); err != nil {
		return nil, err
	}
	if l.DC, err = setUp(ctx, l, dc, o); err != nil {
		return nil, err
	}
	return l, nil
}

func suite() string { return cmp.Or(os.Getenv("SAMBA_SUITE"), "bookworm") }

// checkout names this checkout's images, as integration/image/build.sh does: by the folder that holds go.mod.
func checkout() (string, error) {
	top, err := filepath.Abs(".")
	for ; err == nil; top = filepath.Dir(top) {
		if _, err := os.Stat(filepath.Join(top, "go.mod")); err == nil {
			break
		}
		if top == filepath.Dir(top) {
			err = errors.New("no go.mod above the current folder")
		}
	}
	if err == nil {
		top, err = filepath.EvalSymlinks(top)
	}
	if err != nil {
		return "", fmt.Errorf("looking for the checkout: %w", err)
	}
	sum := sha256.Sum256([]byte(top))
	return hex.EncodeToString(sum[:4]), nil
}

// haveImage says what to do when an image is missing.
func haveImage(ctx context.Context, image string) error {
	if _, err := docker(ctx, "", "image", "inspect", image); err != nil {
		return fmt.Errorf("looking for image %s (make images builds it): %w", image, err)
	}
	return nil
}

// runDC starts a container of a DC's image. Docker's resolver asks the DNS servers among the flags for what it does not know: the
// domain's own names.
func (l *Lab) runDC(ctx context.Context, name, suite string, flags []string, args ...string) (*DC, error) {
	image := "samba-pwsync/dc:" + suite + "-" + l.build
	if err := haveImage(ctx, image); err != nil {
		return nil, err
	}
	dc := &DC{Host: name + "." + strings.ToLower(Realm), image: image}
	flags = append(flags, "--hostname", dc.Host, "--network-alias", dc.Host)
	if suite == "bullseye" { // its Samba sets ACLs in the trusted namespace while it provisions
		flags = append(flags, "--cap-add", "SYS_ADMIN")
	}
	var err error
	dc.Container, err = l.run(ctx, name, image, flags, args...)
	return dc, err
}

// run starts a container of the lab.
func (l *Lab) run(ctx context.Context, name, image string, flags []string, args ...string) (Container, error) {
	c := Container{Name: l.network + "-" + name}
	l.started = append(l.started, c.Name)
	command := append([]string{"run", "-d", "--name", c.Name, "--network", l.network, "--label", label + "=" + owner()}, flags...)
	if _, err := docker(ctx, "", append(append(command, image), args...)...); err != nil {
		return c, fmt.Errorf("starting %s: %w", image, err)
	}
	ip, err := docker(ctx, "", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", c.Name)
	if err != nil {
		return c, fmt.Errorf("asking for the address of %s: %w", image, err)
	}
	c.IP = trim(ip)
	return c, nil
}

// Close removes the lab. It may be called when the context that started the lab is over, and more than once.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	l.events.close()
	var errs []error
	for _, name := range l.started {
		if _, err := docker(ctx, "", "rm", "-f", "-v", name); err != nil {
			errs = append(errs, fmt.Errorf("removing container: %w", err))
		}
	}
	if l.network != "" {
		if _, err := docker(ctx, "", "network", "rm", l.network); err != nil {
			errs = append(errs, fmt.Errorf("removing network: %w", err))
		}
	}
	if l.dir != "" {
		if err := os.RemoveAll(l.dir); err != nil {
			errs = append(errs, fmt.Errorf("removing the sandbox's folder: %w", err))
		}
	}
	if len(errs) == 0 {
		l.started, l.network, l.dir = nil, "", ""
	}
	return errors.Join(errs...)
}

// NewPassword draws a password that Samba, the hook's default policy, Google and Entra all accept, with characters that every
// sloppy layer on the way (shell, URL, JSON, HTML, TOML) would change.
func (l *Lab) NewPassword() string {
	const special = "!#$%&()*+,-./:;<=>?@[]^_{|}~'\"\\"
	classes := []string{"abcdefghkmnpqrstuvwxyz", "ABCDEFGHKLMNPQRSTUVWXYZ", "23456789", special}
	password := make([]byte, 14)
	for i := range password {
		class := classes[i%len(classes)]
		n, _ := rand.Int(rand.Reader, big.NewInt(int64(len(class)))) // never fails: crypto/rand ends the program instead
		password[i] = class[n.Int64()]
	}
	return l.Remember(string(password))
}

// NewSimplePassword draws a password that is long enough and yet one that Samba's complexity rule refuses: lower case only.
func (l *Lab) NewSimplePassword() string {
	letters := func(r rune) rune { return 'a' + r%26 }
	return l.Remember(strings.Map(letters, rand.Text()[:12]))
}

// NewForgeablePassword draws a password that SamrValidatePassword hands to the hook unharmed. Samba takes the length in UTF-16,
// twice the number of characters, for the length of the UTF-8 text, so the hook gets whatever lies in memory behind a password of
// plain letters. One whose characters take two bytes each on average comes out whole: half of them one byte, half three.
func (l *Lab) NewForgeablePassword() string {
	var b strings.Builder
	for i, letter := range l.NewPassword() {
		if i%4 == 3 {
			letter = '-' // of the special characters a harmless one
		}
		b.WriteRune(letter)
		b.WriteRune('가' + letter) // some Hangul syllable
		if i == 6 {
			break
		}
	}
	return l.Remember(b.String())
}

// Remember adds a password to those that the canary test looks for, and returns it.
func (l *Lab) Remember(password string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passwords = append(l.passwords, password)
	return password
}

// Passwords returns every password drawn so far.
func (l *Lab) Passwords() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.passwords...)
}

// DockerEvents is what the engine has reported about the lab's containers so far: every command run in one, for example.
func (l *Lab) DockerEvents() []byte { return l.events.bytes() }

// record keeps the engine's events in memory; the engine itself forgets all but the last few hundred.
type record struct {
	stop context.CancelFunc
	done chan struct{}
	mu   sync.Mutex
	buf  bytes.Buffer
}

func recordEvents() *record {
	ctx, stop := context.WithCancel(context.Background())
	r := &record{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		_ = stream(ctx, nil, r, "events", "--filter", "label="+label+"="+owner()) // ends when it is told to
	}()
	return r
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *record) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.buf.Bytes())
}

func (r *record) close() {
	r.stop()
	<-r.done
}
