package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

const (
	// Realm is the domain's Kerberos realm; the DNS name is the same in lower case.
	Realm = "SAMDOM.EXAMPLE.COM"
	// Domain is the domain's short name.
	Domain = "SAMDOM"
	// BaseDN is the domain's.
	BaseDN = "DC=samdom,DC=example,DC=com"
	// MailDomain is what the users' mail addresses end in.
	MailDomain = "example.com"

	// StateDir, ConfigFile, ServeLog and SysLog are where samba-pwsync's things lie in the DC.
	StateDir   = "/var/lib/samba-pwsync"
	ConfigFile = "/etc/samba-pwsync/samba-pwsync.toml"
	ServeLog   = "/var/log/samba-pwsync.log"
	SysLog     = "/var/log/syslog"

	// LocalSbin is where tests may put programs for the DC.
	LocalSbin = "/usr/local/sbin"

	// Veteran is a user whose password was set before samba-pwsync was installed.
	Veteran = "veteran"

	// ForwarderUser is who the forwarder is when it runs apart from the agent.
	ForwarderUser = "samba-pwsync"

	// LDAPI is the DC's privileged socket.
	LDAPI = "/var/lib/samba/private/ldap_priv/ldapi"

	certificate = "/var/lib/samba/private/tls/cert.pem"
	adminCache  = "FILE:/dev/shm/administrator" // Administrator's Kerberos ticket
	cloudDir    = "/etc/samba-pwsync/sandbox"   // credentials for the clouds
	clockFile   = "/run/clock"                  // how far the DC's clock is from the machine's (integration/image/clock)

	patience = "180" // seconds for what should take one or two: the machine may be small and busy
)

// DC is a Samba domain controller with samba-pwsync on it, as an administrator sets it up: init, configuration, include in
// smb.conf, restart, serve under a supervisor (runit here) that starts it again whenever it dies.
type DC struct {
	Container
	Host string // its DNS name

	image         string
	administrator string      // password
	tls           *tls.Config // trusts the DC's certificate
	targets       string      // their sections of the configuration
}

// setUp turns a container of the DC's image, whose entry point provisions the domain, into a DC at work.
func setUp(ctx context.Context, l *Lab, dc *DC, o Options) (*DC, error) {
	dc.administrator = l.NewPassword()
	if err := dc.waitUp(ctx); err != nil {
		return nil, err
	}
	if _, err := dc.Exec(ctx, twice(dc.administrator), "samba-tool", "user", "setpassword", "Administrator"); err != nil {
		return nil, fmt.Errorf("setting Administrator's password: %w", err)
	}
	// So that a test may change a password twice on one day.
	if _, err := dc.Exec(ctx, "", "samba-tool", "domain", "passwordsettings", "set", "--min-pwd-age=0"); err != nil {
		return nil, fmt.Errorf("allowing frequent changes: %w", err)
	}
	if _, err := dc.Exec(ctx, dc.administrator+"\n", "env", "KRB5CCNAME="+adminCache, "kinit", "Administrator"); err != nil {
		return nil, fmt.Errorf("logging in as Administrator: %w", err)
	}
	if err := dc.trustCertificate(ctx); err != nil {
		return nil, err
	}
	if err := dc.CreateUser(ctx, Veteran, l.NewPassword()); err != nil {
		return nil, fmt.Errorf("creating a user from before the installation: %w", err)
	}
	time.Sleep(time.Second) // stamps count whole seconds
	o.Progress("setting up samba-pwsync on the domain controller")
	return dc, l.Install(ctx, dc, o.Config)
}

// Install sets up samba-pwsync on a DC, as its README says, and starts it. The configuration is as in Options.
func (l *Lab) Install(ctx context.Context, dc *DC, config string) (err error) {
	if _, err := dc.Exec(ctx, "", "samba-pwsync", "init"); err != nil {
		return fmt.Errorf("running samba-pwsync init: %w", err)
	}
	if dc.targets, err = l.Sandbox.install(ctx, dc.Container, cloudDir); err != nil {
		return err
	}
	return dc.Configure(ctx, config)
}

// Configure gives samba-pwsync on the DC another configuration, and starts serve, anew if it runs.
func (dc *DC) Configure(ctx context.Context, config string) error {
	if err := dc.WriteConfig(ctx, config); err != nil {
		return err
	}
	_, err := dc.Exec(ctx, "", "samba-pwsync", "check", "--connect")
	if exit, ok := errors.AsType[*ExitError](err); ok && exit.Code == 3 {
		err = nil // it works; a second DC that is no peer is worth a word
	}
	if err != nil {
		return fmt.Errorf("running samba-pwsync check: %w", err)
	}
	if err := dc.StopServe(ctx); err != nil {
		return err
	}
	return dc.StartServe(ctx)
}

// WriteConfig writes the configuration, and leaves serve as it is.
func (dc *DC) WriteConfig(ctx context.Context, config string) error {
	return dc.WriteFile(ctx, ConfigFile, "0644", strings.TrimLeft(config, "\n")+"\n"+dc.targets)
}

// waitUp waits until Samba answers, for five minutes at most: on the privileged LDAPI socket, over LDAPS and SMB, and as KDC.
func (dc *DC) waitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		_, err := dc.Exec(ctx, "", "sh", "-c", `
			[ -S `+LDAPI+` ] && ldbsearch -H ldapi://$(echo `+LDAPI+` | sed s,/,%2F,g) -s base -b "" defaultNamingContext >/dev/null &&
			for port in 88 445 464 636; do bash -c "</dev/tcp/127.0.0.1/$port" || exit 1; done`)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			logs, _ := docker(context.Background(), "", "logs", "--tail", "20", dc.Name)
			return fmt.Errorf("waiting for the domain controller: %w\n%s", err, logs)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (dc *DC) trustCertificate(ctx context.Context) error {
	text, err := dc.Exec(ctx, "", "cat", certificate)
	if err != nil {
		return fmt.Errorf("reading the DC's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(text)) {
		return errors.New("reading the DC's certificate: no PEM")
	}
	dc.tls = &tls.Config{RootCAs: roots, ServerName: dc.Host}
	return nil
}

// StartServe starts samba-pwsync serve under its supervisor; from then on it is started again whenever it dies.
func (dc *DC) StartServe(ctx context.Context) error { return dc.StartService(ctx, Serve) }

// StopServe ends samba-pwsync serve in an orderly way and waits until it is gone.
func (dc *DC) StopServe(ctx context.Context) error { return dc.StopService(ctx, Serve) }

// StartService starts one of the services that are samba-pwsync.
func (dc *DC) StartService(ctx context.Context, name string) error {
	return dc.service(ctx, "up", name)
}

// StopService ends one of them in an orderly way and waits until it is gone.
func (dc *DC) StopService(ctx context.Context, name string) error {
	return dc.service(ctx, "-w", patience, "down", name)
}

// SplitServe replaces samba-pwsync serve by its two halves, as the hardened installation has them: the agent, root without
// capabilities, and the forwarder, which is the user ForwarderUser.
func (dc *DC) SplitServe(ctx context.Context) error {
	if err := dc.StopServe(ctx); err != nil {
		return err
	}
	if _, err := dc.Exec(ctx, "", "sh", "-c", `
		set -e
		id "$1" >/dev/null 2>&1 || useradd --system --no-create-home "$1"
		samba-pwsync init --user "$1"
		chown -R "$1" "$2"`, "sh", ForwarderUser, cloudDir); err != nil {
		return fmt.Errorf("handing the forwarder's part to its user: %w", err)
	}
	return dc.service(ctx, "up", Agent, Forwarder)
}

// JoinServe undoes SplitServe.
func (dc *DC) JoinServe(ctx context.Context) error {
	if err := dc.service(ctx, "-w", patience, "down", Agent, Forwarder); err != nil {
		return err
	}
	if _, err := dc.Exec(ctx, "", "samba-pwsync", "init", "--user", "root"); err != nil {
		return fmt.Errorf("handing the forwarder's part back to root: %w", err)
	}
	return dc.StartServe(ctx)
}

// The services that are samba-pwsync: one, or after SplitServe the other two.
const (
	Serve     = "samba-pwsync"
	Agent     = "samba-pwsync-agent"
	Forwarder = "samba-pwsync-forwarder"
)

// KillServe is Kill of samba-pwsync serve.
func (dc *DC) KillServe(ctx context.Context, later time.Duration) error {
	return dc.Kill(ctx, Serve, later)
}

// Kill waits until a service runs, lets it live a little longer, and sends it SIGKILL. Its supervisor starts it again, a second
// later if it died young. When Kill returns, the supervisor knows that it is dead.
func (dc *DC) Kill(ctx context.Context, service string, later time.Duration) error {
	_, err := dc.Exec(ctx, "", "sh", "-c", `
		file=/etc/service/$1/supervise/pid
		until pid=$(cat "$file") && [ -n "$pid" ]; do sleep 0.01; done
		sleep "$2"
		kill -KILL "$pid" || exit
		while [ "$(cat "$file")" = "$pid" ]; do sleep 0.01; done`, "sh", service, fmt.Sprintf("%.3f", later.Seconds()))
	if err != nil {
		return fmt.Errorf("killing %s: %w", service, err)
	}
	return nil
}

// HostPIDs returns the numbers that this machine's kernel gives the DC's processes whose command line begins with words.
func (dc *DC) HostPIDs(ctx context.Context, words string) ([]int, error) {
	out, err := docker(ctx, "", "top", dc.Name, "-eo", "pid,args")
	if err != nil {
		return nil, fmt.Errorf("listing the DC's processes: %w", err)
	}
	var pids []int
	for line := range strings.Lines(out) {
		number, args, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pid, err := strconv.Atoi(number); err == nil && strings.HasPrefix(strings.TrimPrefix(strings.TrimSpace(args), "/usr/sbin/"), words) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// StopSamba stops Samba and waits until it is gone.
func (dc *DC) StopSamba(ctx context.Context) error {
	return dc.service(ctx, "-w", patience, "down", "samba")
}

// StartSamba starts Samba and waits until it answers.
func (dc *DC) StartSamba(ctx context.Context) error {
	if err := dc.service(ctx, "up", "samba"); err != nil {
		return err
	}
	return dc.waitUp(ctx)
}

const (
	databases = "/var/lib/samba"
	snapshot  = databases + ".snapshot"
)

// Snapshot keeps Samba's databases for Restore. Samba is restarted for that.
func (dc *DC) Snapshot(ctx context.Context) error {
	return dc.whileDown(ctx, "cp -a "+databases+" "+snapshot)
}

// Restore puts Samba's databases back to what they were at the Snapshot, as a snapshot of the machine's disk does; what is ours stays as it is.
func (dc *DC) Restore(ctx context.Context) error {
	return dc.whileDown(ctx, "find "+databases+" -mindepth 1 -delete && cp -a "+snapshot+"/. "+databases+" && rm -rf "+snapshot)
}

func (dc *DC) whileDown(ctx context.Context, command string) error {
	if err := dc.StopSamba(ctx); err != nil {
		return err
	}
	if _, err := dc.Exec(ctx, "", "sh", "-c", command); err != nil {
		return fmt.Errorf("with Samba's databases: %w", err)
	}
	return dc.StartSamba(ctx)
}

// ConfigureSamba adds lines to the [global] section of smb.conf, where they win over what stands there, and restarts Samba.
func (dc *DC) ConfigureSamba(ctx context.Context, lines ...string) error {
	if err := dc.StopSamba(ctx); err != nil {
		return err
	}
	text := strings.Join(append(lines, ""), "\n")
	if _, err := dc.Exec(ctx, text, "tee", "-a", "/etc/samba/smb.conf.d/container.conf"); err != nil {
		return fmt.Errorf("writing smb.conf: %w", err)
	}
	return dc.StartSamba(ctx)
}

// WithoutNames takes the variables away that tell the hook whose password it is, as if this were Samba before 4.11.
func (dc *DC) WithoutNames(ctx context.Context) error {
	return dc.ConfigureSamba(ctx, "check password script = exec env -u SAMBA_CPS_ACCOUNT_NAME -u SAMBA_CPS_USER_PRINCIPAL_NAME"+
		" -u SAMBA_CPS_FULL_NAME /usr/sbin/samba-pwsync-hook")
}

// WithNames undoes WithoutNames.
func (dc *DC) WithNames(ctx context.Context) error {
	return dc.ConfigureSamba(ctx, "check password script = exec /usr/sbin/samba-pwsync-hook")
}

// MortalHook has Samba run the hook by way of a script that HookDies speaks to.
func (dc *DC) MortalHook(ctx context.Context) error {
	return dc.ConfigureSamba(ctx, "check password script = exec /usr/local/sbin/mortal-hook")
}

// HookDies has the next run of the hook be killed (SIGKILL) after that time, unless it has ended by then. It takes MortalHook.
func (dc *DC) HookDies(ctx context.Context, after time.Duration) error {
	_, err := dc.Exec(ctx, fmt.Sprintf("%.4f\n", after.Seconds()), "sh", "-c", "cat >/run/hook-dies.$$ && mv /run/hook-dies.$$ /run/hook-dies")
	if err != nil {
		return fmt.Errorf("arming the hook: %w", err)
	}
	return nil
}

// HideLDAPI takes the name of the DC's privileged socket away, or gives it back. Connections that are open stay.
func (dc *DC) HideLDAPI(ctx context.Context, hide bool) error {
	from, to := LDAPI, LDAPI+".hidden"
	if !hide {
		from, to = to, from
	}
	if _, err := dc.Exec(ctx, "", "mv", from, to); err != nil {
		return fmt.Errorf("hiding the privileged socket (%v): %w", hide, err)
	}
	return nil
}

// SetClock sets the DC's clock to so much after, or before, the machine's: for Samba, the hook and serve, and not for what Exec runs. Samba
// is asked for the time, to see that it was done. It takes Options.Clock.
func (dc *DC) SetClock(ctx context.Context, by time.Duration) error {
	if err := dc.WriteFile(ctx, clockFile, "0600", fmt.Sprintf("%.0f\n", by.Seconds())); err != nil {
		return err
	}
	return dc.ldaps("Administrator", dc.administrator, func(conn *ldap.Conn) error {
		found, err := conn.Search(ldap.NewSearchRequest("", ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false, "(objectClass=*)", []string{"currentTime"}, nil))
		if err != nil || len(found.Entries) != 1 {
			return fmt.Errorf("asking the DC for the time: %w", err)
		}
		now, err := time.Parse("20060102150405.0Z", found.Entries[0].GetAttributeValue("currentTime"))
		if off := now.Sub(time.Now().Add(by)); err != nil || off.Abs() > time.Minute {
			return fmt.Errorf("setting the DC's clock by %v: it is off by %v: %v", by, off, err)
		}
		return nil
	})
}

func (dc *DC) service(ctx context.Context, args ...string) error {
	if _, err := dc.Exec(ctx, "", append([]string{"sv"}, args...)...); err != nil {
		return fmt.Errorf("asking the DC's supervisor: %w", err)
	}
	return nil
}

func trim(s string) string { return strings.TrimSpace(s) }
