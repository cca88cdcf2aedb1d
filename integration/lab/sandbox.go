package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
)

const (
	sandboxHost   = "cloud-sandbox"
	sandboxDir    = "/sandbox" // in its container
	sandboxBinary = "/cloud-sandbox"
)

// Clouds are the two that the sandbox stands in for.
var Clouds = []state.Cloud{state.Google, state.Microsoft}

// Sandbox is the container with Google's and Microsoft's doubles.
type Sandbox struct {
	Container

	dir string // sandboxDir, on the host
}

func startSandbox(ctx context.Context, l *Lab) (*Sandbox, error) {
	c, err := l.run(ctx, "sandbox", "samba-pwsync/sandbox:latest",
		[]string{"--network-alias", sandboxHost, "--volume", l.dir + ":" + sandboxDir, "--user", strconv.Itoa(os.Getuid()) + ":" + strconv.Itoa(os.Getgid())},
		"serve", "--dir", sandboxDir, "--google-listen", "0.0.0.0:8443", "--microsoft-listen", "0.0.0.0:8444",
		"--name", sandboxHost, "--domain", MailDomain, "--client-dir", cloudDir)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{Container: c, dir: l.dir}
	ready, cancel := context.WithTimeout(ctx, 20*time.Second)
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

func (s *Sandbox) command(ctx context.Context, stdin string, args ...string) (string, error) {
	return s.Exec(ctx, stdin, append([]string{sandboxBinary}, args...)...)
}

// AddUser makes the user of that mail address known to both clouds.
func (s *Sandbox) AddUser(ctx context.Context, mail ...string) error {
	_, err := s.command(ctx, "", append([]string{"user", "add", "--dir", sandboxDir}, mail...)...)
	return err
}

// Misbehave makes a cloud fail until Behave: fault as `cloud-sandbox misbehave --help` lists them, flags as it takes them.
func (s *Sandbox) Misbehave(ctx context.Context, cloud state.Cloud, fault string, flags ...string) error {
	_, err := s.command(ctx, "", append(append([]string{"misbehave", "--dir", sandboxDir}, flags...), string(cloud), fault)...)
	return err
}

// Behave ends every misbehaviour.
func (s *Sandbox) Behave(ctx context.Context) error {
	_, err := s.command(ctx, "", "misbehave", "--dir", sandboxDir, "clear")
	return err
}

// State is everything that the sandbox holds.
func (s *Sandbox) State(ctx context.Context) (held state.State, err error) {
	out, err := s.command(ctx, "", "show", "--dir", sandboxDir, "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &held)
	}
	if err != nil {
		return held, fmt.Errorf("asking the sandbox what it holds: %w", err)
	}
	return held, nil
}

// Holds says whether password is what the cloud holds for the user now.
func (s *Sandbox) Holds(ctx context.Context, cloud state.Cloud, user, password string) (bool, error) {
	_, err := s.command(ctx, password, "verify", "--dir", sandboxDir, string(cloud), user)
	if exit, ok := errors.AsType[*ExitError](err); ok && exit.Code == 1 {
		return false, nil
	}
	return err == nil, err
}
