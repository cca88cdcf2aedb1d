package integration

import (
	"bytes"
	"io"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/integration/canary"
	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// testWellBehaved: after all that was asked of them, neither cloud was sent a request that its vendor's own description does not
// allow, and nothing secret followed a redirect.
func testWellBehaved(t *testing.T) {
	held, err := company.Sandbox.State(ctx)
	must(t, err)
	for _, v := range held.Violations {
		t.Errorf("%s: %s: %s", v.Cloud, v.Request, v.Reason)
	}
	for _, trapped := range held.Trapped {
		if trapped.Secret() {
			t.Errorf("a redirect to %s was followed with something secret", trapped.Host)
		}
	}
	if len(held.Users) == 0 || len(held.Requests) == 0 {
		t.Error("the sandbox saw nothing, so this test shows nothing")
	}
}

// testCanary looks for every password used so far, in every shape, in everything written: the DC's whole file system (spool,
// queue, ledger, its logs, serve's, /tmp, /run), Docker's logs and descriptions and events, and the command lines and environments
// of all processes that ran meanwhile.
//
// It looks while passwords are on their way: one is in the spool because serve is down, one in the queue because the clouds are.
// And it looks for one more, which it has left in each of those places itself: a search that does not find that one shows nothing.
func testCanary(t *testing.T) {
	queued, spooled := newUser(t), newUser(t)
	for _, cloud := range lab.Clouds {
		misbehave(t, cloud, "503")
	}
	inQueue, inSpool := company.NewPassword(), company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, queued.name, "", inQueue))
	verdict(t, "queued", queued.name, 2)
	must(t, company.DC.StopServe(ctx))
	must(t, company.DC.LDAPSReset(ctx, spooled.name, "", inSpool))
	files, err := company.DC.Exec(ctx, "", "find", lab.StateDir, "-name", "*.capture")
	must(t, err)
	if len(strings.Fields(files)) != 1 {
		t.Errorf("want one capture in the spool while the search runs, got %q", files)
	}

	passwords := company.Passwords()
	planted := company.NewPassword()
	plant(t, planted)

	search, err := canary.New(append(passwords, planted))
	must(t, err)
	var size int64
	controlled := map[string]bool{}
	judge := func(source string) func([]canary.Finding, int64, error) {
		return func(found []canary.Finding, n int64, err error) {
			must(t, err)
			size += n
			for _, f := range found {
				if f.Password == len(passwords) {
					controlled[source] = true
				} else {
					t.Error(f)
				}
			}
		}
	}

	dc, clouds := company.DC.Container, company.Sandbox.Container
	judge("files")(search.ScanTar("the DC", reading(func(w io.Writer) error { return dc.Files(ctx, w) })))
	judge("memory files")(search.ScanTar("the DC", reading(func(w io.Writer) error {
		return dc.Stream(ctx, w, "tar", "-c", "/dev/shm")
	})))
	judge("output")(search.Scan("the DC's output", reading(func(w io.Writer) error { return dc.Output(ctx, w) })))
	judge("output of the clouds")(search.Scan("the sandbox's output", reading(func(w io.Writer) error { return clouds.Output(ctx, w) })))
	for _, c := range []lab.Container{dc, clouds} {
		judge("description")(search.Scan("docker inspect", reading(func(w io.Writer) error { return c.Describe(ctx, w) })))
	}
	judge("events")(search.Scan("docker events", bytes.NewReader(company.DockerEvents())))
	for contents, where := range processes.Seen() {
		_, file := path.Split(where)
		judge(file)(search.Scan(where, strings.NewReader(contents)))
	}
	for _, source := range []string{"files", "memory files", "output", "events", "cmdline", "environ"} {
		if !controlled[source] {
			t.Errorf("the password that was left in %s on purpose was not found, so this search shows nothing", source)
		}
	}
	t.Logf("looked for %d passwords in %d MB", len(passwords), size>>20)

	must(t, company.Sandbox.Behave(ctx))
	must(t, company.DC.StartServe(ctx))
	queued.arrives(t, inQueue)
	spooled.arrives(t, inSpool)
}

// plant leaves a password in each place where testCanary looks.
func plant(t *testing.T, password string) {
	t.Helper()
	_, err := company.DC.Exec(ctx, password+"\n", "tee", "/var/log/planted", "/dev/shm/planted", "/proc/1/fd/1")
	must(t, err)
	// Two processes live until they were seen.
	const live = `until [ -e /run/seen ]; do sleep 0.1; done`
	var living sync.WaitGroup
	for _, command := range [][]string{{"sh", "-c", live, "sh", password}, {"env", "PLANTED=" + password, "sh", "-c", live}} {
		living.Go(func() {
			if _, err := company.DC.Exec(ctx, "", command...); err != nil {
				t.Error(err)
			}
		})
	}
	defer living.Wait()
	defer func() { must(t, company.DC.WriteFile(ctx, "/run/seen", "0600", "")) }()
	waitUntil(t, "the processes were seen", patience, func() bool {
		seen := map[string]bool{}
		for contents, where := range processes.Seen() {
			seen[path.Base(where)] = seen[path.Base(where)] || strings.Contains(contents, "\x00"+password+"\x00") || strings.Contains(contents, "PLANTED="+password)
		}
		return seen["cmdline"] && seen["environ"]
	})
}

// reading turns a writer's work into a reader.
func reading(copyTo func(io.Writer) error) io.Reader {
	r, w := io.Pipe()
	go func() { w.CloseWithError(copyTo(w)) }()
	return r
}
