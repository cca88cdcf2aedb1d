package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// JoinOptions say what joins the domain of a lab. The zero value is another writable DC.
type JoinOptions struct {
	Name     string                           // short; "" means dc2
	Suite    string                           // as Options.Suite
	ReadOnly bool                             // a read-only DC
	Progress func(format string, args ...any) // as Options.Progress
}

// Join adds a domain controller to the lab's domain: about 15 s. When it returns, each of two writable DCs has heard the other. It has
// the hook's line in smb.conf; the rest of samba-pwsync comes with Install.
func (l *Lab) Join(ctx context.Context, o JoinOptions) (*DC, error) {
	o.Name = cmp.Or(o.Name, "dc2")
	if o.Suite == "" {
		o.Suite = suite()
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	role := "DC"
	if o.ReadOnly {
		role = "RODC"
	}

	o.Progress("joining %s to the domain (Debian %s) as %s", o.Name, o.Suite, role)
	dc, err := l.runDC(ctx, o.Name, o.Suite, []string{"--dns", l.DC.IP, "--dns", "127.0.0.1"}, "member")
	if err != nil {
		return nil, err
	}
	dc.administrator = l.DC.administrator
	if _, err := dc.Exec(ctx, dc.administrator+"\n", "env", "KRB5CCNAME="+adminCache, "dc", "join", role, l.DC.Host); err != nil {
		return nil, fmt.Errorf("joining %s to the domain: %w", o.Name, err)
	}
	if err := dc.waitUp(ctx); err != nil {
		return nil, err
	}
	if err := dc.trustCertificate(ctx); err != nil {
		return nil, err
	}
	if !o.ReadOnly {
		if err := errors.Join(dc.hear(ctx, l.DC), l.DC.hear(ctx, dc)); err != nil {
			return nil, err
		}
	}
	return dc, nil
}

// hear makes another DC a source of this one's replication now, instead of at the next of the consistency checks that are minutes
// apart, and replicates from it.
func (dc *DC) hear(ctx context.Context, other *DC) error {
	deadline := time.Now().Add(5 * time.Minute)
	for {
		err := dc.drs(ctx, "kcc", dc.Host)
		if err == nil {
			err = dc.PullFrom(ctx, other)
		}
		// A DC whose own check is under way refuses this one.
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(time.Second)
	}
}

// PullFrom replicates the domain from another DC now, and returns when that is done.
func (dc *DC) PullFrom(ctx context.Context, other *DC) error {
	return dc.drs(ctx, "replicate", dc.Host, other.Host, BaseDN)
}

func (dc *DC) drs(ctx context.Context, args ...string) error {
	command := append([]string{"env", "KRB5CCNAME=" + adminCache, "samba-tool", "drs"}, args...)
	if _, err := dc.Exec(ctx, "", append(command, "-k", "yes")...); err != nil {
		return fmt.Errorf("asking %s for replication: %w", dc.Host, err)
	}
	return nil
}

// Cache has a read-only DC keep a user's secrets, as it may for those whom a writable one allows it.
func (dc *DC) Cache(ctx context.Context, writable *DC, user string) error {
	if _, err := writable.Exec(ctx, "", "samba-tool", "group", "addmembers", "Allowed RODC Password Replication Group", user); err != nil {
		return fmt.Errorf("allowing %s to keep %s's secrets: %w", dc.Host, user, err)
	}
	_, err := dc.Exec(ctx, "", "env", "KRB5CCNAME="+adminCache, "samba-tool", "rodc", "preload", user, "--server="+writable.Host, "-k", "yes")
	if err != nil {
		return fmt.Errorf("having %s keep %s's secrets: %w", dc.Host, user, err)
	}
	return nil
}

// CutOff parts the network between two DCs: what this one sends to the other is lost, silently, as with a broken line, so neither hears
// of the other. Everybody else still reaches both.
func (dc *DC) CutOff(ctx context.Context, other *DC) error {
	return dc.route(ctx, "add", "blackhole", other.IP)
}

// Rejoin undoes CutOff.
func (dc *DC) Rejoin(ctx context.Context, other *DC) error {
	return dc.route(ctx, "del", "blackhole", other.IP)
}

// route changes the DC's routes from a container beside it, which shares its network: the DC itself need not have the right to.
func (dc *DC) route(ctx context.Context, args ...string) error {
	_, err := docker(ctx, "", append([]string{"run", "--rm", "--network", "container:" + dc.Name, "--cap-add", "NET_ADMIN",
		"--label", label + "=" + owner(), "--entrypoint", "busybox", dc.image, "ip", "route"}, args...)...)
	if err != nil {
		return fmt.Errorf("changing the routes of %s: %w", dc.Host, err)
	}
	return nil
}

// Short is the DC's name as the directory has it.
func (dc *DC) Short() string {
	name, _, _ := strings.Cut(dc.Host, ".")
	return strings.ToUpper(name)
}
