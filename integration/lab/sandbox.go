package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/GehirnInc/crypt/sha512_crypt"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

const (
	sandboxHost = "cloud-sandbox"
	sandboxDir  = "/sandbox" // in its container
)

// Clouds are the two that the sandbox stands in for.
var Clouds = []sandbox.Cloud{sandbox.Google, sandbox.Microsoft}

// Sandbox is the container with Google's and Microsoft's doubles. Its client speaks to it over a socket in the folder that the
// container shares with this machine.
type Sandbox struct {
	Container
	*sandbox.Client

	dir string // sandboxDir, on the host
}

func startSandbox(ctx context.Context, l *Lab, image string) (*Sandbox, error) {
	c, err := l.run(ctx, "sandbox", image,
		[]string{"--network-alias", sandboxHost, "--volume", l.dir + ":" + sandboxDir, "--user", strconv.Itoa(os.Getuid()) + ":" + strconv.Itoa(os.Getgid())},
		"serve", "--dir", sandboxDir, "--google-listen", "0.0.0.0:8443", "--microsoft-listen", "0.0.0.0:8444",
		"--name", sandboxHost, "--domain", MailDomain, "--client-dir", cloudDir)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{Container: c, Client: sandbox.NewClient(filepath.Join(l.dir, "control.sock")), dir: l.dir}
	ready, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		if _, err = s.State(ready); err == nil {
			return s, nil
		}
		select {
		case <-ready.Done():
			logs, _ := docker(context.Background(), "", "logs", c.Name)
			return nil, fmt.Errorf("waiting for the cloud sandbox: %w\n%s", err, logs)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// install copies what a client of the clouds needs, credentials included, into a container, and returns the targets' sections
// for its samba-pwsync.toml.
func (s *Sandbox) install(ctx context.Context, c Container, dir string) (targets string, err error) {
	for _, name := range []string{"ca.pem", "google-credentials.json", "entra-client-secret", "entra-client-certificate.pem"} {
		contents, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			return "", fmt.Errorf("reading the sandbox's credentials: %w", err)
		}
		if err := c.WriteFile(ctx, dir+"/"+name, "0600", string(contents)); err != nil {
			return "", err
		}
	}
	toml, err := os.ReadFile(filepath.Join(s.dir, "targets.toml"))
	if err != nil {
		return "", fmt.Errorf("reading the sandbox's targets: %w", err)
	}
	return string(toml), nil
}

// AddUsers makes the users of those mail addresses known to both clouds.
func (s *Sandbox) AddUsers(ctx context.Context, mails ...string) error {
	for _, mail := range mails {
		for _, cloud := range Clouds {
			if err := s.AddUser(ctx, sandbox.User{Cloud: cloud, Name: mail}); err != nil {
				return fmt.Errorf("adding %s to %s: %w", mail, cloud, err)
			}
		}
	}
	return nil
}

// Is says whether what a cloud was sent is that password.
func Is(p sandbox.Password, password string) (bool, error) {
	switch {
	case p.Hash == "":
		return p.Value == password, nil
	case p.Hash == "crypt" && strings.HasPrefix(p.Value, "$6$"):
		return sha512_crypt.New().Verify(p.Value, []byte(password)) == nil, nil
	default:
		return false, fmt.Errorf("a cloud was sent a hash of kind %q that is not $6$", p.Hash)
	}
}
