package integration

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/census"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/index"
)

// The configuration of the policies; none of them asks more of a password than [policy] does.
const (
	chainRule = "memberOf:1.2.840.113556.1.4.1941:="
	policies  = lab.DefaultConfig + `
[policy.leaders]
precedence = 10
filter = "(memberOf=CN=leaders,CN=Users,` + lab.BaseDN + `)"

[policy.staff]
precedence = 20
filter = "(` + chainRule + `CN=staff,CN=Users,` + lab.BaseDN + `)"

[policy.pupils]
precedence = 30
base_dn = "OU=School,` + lab.BaseDN + `"
`
)

// testWhosePolicy: the file that the hook asks says of each account what the directory says, soon after a change. How soon is logged and not
// judged: seconds, in a domain of this size on a machine that has time (docs/operating.md).
func testWhosePolicy(t *testing.T) {
	for _, command := range []string{
		"samba-tool group add leaders", "samba-tool group add staff", "samba-tool group add teachers", "samba-tool group add maths",
		"samba-tool ou create OU=School", "samba-tool ou create OU=Year5,OU=School",
	} {
		administer(t, command, "")
	}
	for _, name := range []string{"head", "teacher", "novice", "pupil", "porter", "admin5", "nameless"} {
		ldif := ldifUser(name)
		if name != "nameless" { // at the targets
			ldif += "userPrincipalName: " + lab.UserPrincipalName(name) + "\n"
		}
		administer(t, "ldbadd -H /var/lib/samba/private/sam.ldb", ldif)
	}
	member(t, "add", "leaders", "head")
	member(t, "add", "staff", "teachers")
	member(t, "add", "teachers", "maths")
	member(t, "add", "maths", "teacher")
	member(t, "add", "staff", "head")
	member(t, "add", "Domain Admins", "admin5")
	move(t, "CN=pupil,CN=Users", "CN=pupil,OU=Year5,OU=School")

	must(t, company.DC.Configure(ctx, policies))
	t.Cleanup(func() { must(t, company.DC.Configure(ctx, lab.DefaultConfig)) })

	const both = " entra google"
	finds(t, map[string]string{
		"head": "leaders" + both, "HEAD": "leaders" + both, "teacher": "staff" + both, "novice": both, "pupil": "pupils" + both, "porter": both,
		"admin5": "", "nameless": "", "Administrator": "", "krbtgt": "", "nobody": "unknown",
	})

	// Accounts that change themselves.
	administer(t, "ldbadd -H /var/lib/samba/private/sam.ldb", ldifUser("fresh")+"userPrincipalName: "+lab.UserPrincipalName("fresh")+"\n")
	move(t, "CN=porter,CN=Users", "CN=porter,OU=School")
	must(t, company.DC.SetAttribute(ctx, "novice", "sAMAccountName", "Jörg"))
	must(t, company.DC.SetAttribute(ctx, "nameless", "userPrincipalName", lab.UserPrincipalName("nameless")))
	must(t, company.DC.DeleteUser(ctx, "head"))
	finds(t, map[string]string{"fresh": both, "porter": "pupils" + both, "novice": "unknown", "jörg": both, "JÖRG": both, "nameless": both, "head": "unknown"})

	// Those that do not: groups, groups within groups, administrators, and units.
	settled(t)
	for _, step := range []struct {
		name string
		do   func()
		want map[string]string
	}{
		{"joins a group", func() { member(t, "add", "leaders", "porter") }, map[string]string{"porter": "leaders" + both}},
		{"joins a group within a group", func() { member(t, "add", "maths", "novice") }, map[string]string{"Jörg": "staff" + both}},
		{"leaves", func() { member(t, "delete", "maths", "teacher") }, map[string]string{"teacher": both, "Jörg": "staff" + both}},
		{"a group leaves a group", func() { member(t, "delete", "teachers", "maths") }, map[string]string{"Jörg": both}},
		{"a group joins a group", func() { member(t, "add", "leaders", "maths"); member(t, "add", "staff", "maths") }, map[string]string{"Jörg": "staff" + both}},
		{"becomes an administrator", func() { member(t, "add", "Account Operators,CN=Builtin", "maths") }, map[string]string{"Jörg": "staff"}},
		{"a group is deleted", func() { administer(t, "samba-tool group delete maths", "") }, map[string]string{"Jörg": both}},
		{"a unit is renamed", func() { move(t, "OU=School", "OU=Academy") }, map[string]string{"pupil": both, "porter": "leaders" + both}},
		{"and gets its name again", func() { move(t, "OU=Academy", "OU=School") }, map[string]string{"pupil": "pupils" + both}},
		{"a unit moves", func() { move(t, "OU=Year5,OU=School", "OU=Year5") }, map[string]string{"pupil": both}},
	} {
		began := time.Now()
		step.do()
		took := finds(t, step.want)
		t.Logf("%s: %.1f s, of which %.1f s after the change", step.name, time.Since(began).Seconds(), took.Seconds())
	}

	// The configuration changes, and serve is not restarted.
	must(t, company.DC.WriteConfig(ctx, strings.Replace(policies, "OU=School", "OU=Year5", 1)+"\n[policy.newest]\nprecedence = 1\nfilter = \"(sAMAccountName=fresh)\"\n"))
	finds(t, map[string]string{"pupil": "pupils" + both, "fresh": "newest" + both, "porter": "leaders" + both})

	// One with a fault changes nothing, and is told.
	must(t, company.DC.WriteConfig(ctx, policies+"\n[policy.broken]\nprecedence = 10\n"))
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := company.DC.Eventually(soon, func(e lab.Event) bool {
		return e.Name == "census-trouble" && strings.Contains(e.Fields["error"], "policy.broken")
	})
	must(t, err)
	finds(t, map[string]string{"pupil": "pupils" + both, "fresh": "newest" + both})

	// Without serve the last answers stay.
	must(t, company.DC.WriteConfig(ctx, policies))
	must(t, company.DC.StopServe(ctx))
	member(t, "add", "leaders", "teacher")
	finds(t, map[string]string{"teacher": both})
	must(t, company.DC.StartServe(ctx))
	finds(t, map[string]string{"teacher": "leaders" + both})

	status := settled(t)
	if !status.Kept || status.Error != "" || status.Accounts < 8 || status.Policies["leaders"] != 2 || !maps.Equal(status.Targets, map[string]int{"entra": status.Targets["google"], "google": status.Targets["google"]}) {
		t.Errorf("status says %+v", status)
	}
	text := indexFile(t)
	for _, name := range []string{"teacher", "pupil", "Administrator"} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(name)) && name != "pupil" { // there is a policy of that name
			t.Errorf("the index holds the name %s", name)
		}
	}
}

// finds waits until the hook would find what is wanted of all accounts: policy and targets, or "unknown". It returns how long that took.
func finds(t *testing.T, want map[string]string) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		got := indexed(t, slices.Collect(maps.Keys(want)))
		if maps.Equal(got, want) {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			t.Fatalf("after %v the hook finds %q, want %q; status: %+v", patience, got, want, policyStatus(t))
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// settled waits until the agent has nothing more to ask.
func settled(t *testing.T) (status census.Status) {
	t.Helper()
	waitUntil(t, "the agent knows who has which policy", patience, func() bool {
		status = policyStatus(t)
		return !status.Pending && status.Error == ""
	})
	return status
}

func indexed(t *testing.T, names []string) map[string]string {
	t.Helper()
	found := map[string]string{}
	text := indexFile(t)
	if text == "" {
		return found
	}
	path := filepath.Join(t.TempDir(), "accounts.index")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	ix, err := index.Open(path)
	must(t, err)
	defer ix.Close()
	for _, name := range names {
		e, known, err := ix.Find(name)
		must(t, err)
		found[name] = "unknown"
		if known {
			found[name] = strings.Join(append([]string{e.Policy}, e.Targets...), " ")
		}
	}
	return found
}

// indexFile reads the file on the DC; empty: there is none yet.
func indexFile(t *testing.T) string {
	t.Helper()
	out, err := company.DC.Exec(ctx, "", "sh", "-c", "base64 "+lab.StateDir+"/policy/accounts.index 2>/dev/null || true")
	must(t, err)
	text, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(out, "\n", ""))
	must(t, err)
	return string(text)
}

func policyStatus(t *testing.T) census.Status {
	t.Helper()
	out, _ := company.DC.Exec(ctx, "", "samba-pwsync", "status", "--json") // exit code 3: something else needs attention
	var report struct {
		Agent *struct {
			Policies census.Status `json:"policies"`
		} `json:"agent"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.Agent == nil {
		return census.Status{Pending: true}
	}
	return report.Agent.Policies
}

// member adds somebody, or a group, to a group, or deletes him from it. Both lie in CN=Users, unless group says otherwise.
func member(t *testing.T, what, group, name string) {
	t.Helper()
	if !strings.Contains(group, ",") {
		group += ",CN=Users"
	}
	dn := "CN=" + name + ",CN=Users," + lab.BaseDN
	if out, err := company.DC.Exec(ctx, "", "ldbsearch", "-H", "/var/lib/samba/private/sam.ldb", "(&(cn="+name+")(!(isDeleted=TRUE)))", "dn"); err == nil {
		for line := range strings.Lines(out) {
			if found, ok := strings.CutPrefix(line, "dn: CN="+name+","); ok {
				dn = "CN=" + name + "," + strings.TrimSpace(found)
			}
		}
	}
	administer(t, "ldbmodify -H /var/lib/samba/private/sam.ldb", fmt.Sprintf("dn: CN=%s,%s\nchangetype: modify\n%s: member\nmember: %s\n", group, lab.BaseDN, what, dn))
}

// move renames an object; both names are without the domain's.
func move(t *testing.T, from, to string) {
	t.Helper()
	administer(t, "ldbrename -H /var/lib/samba/private/sam.ldb "+from+","+lab.BaseDN+" "+to+","+lab.BaseDN, "")
}
