package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// testDirectory runs samba/directory's live tests where they belong: on a domain controller, as root, at its privileged socket.
func testDirectory(t *testing.T) {
	program := filepath.Join(t.TempDir(), "directory.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, "./samba/directory")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // the DC's libc is another
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the tests: %v\n%s", err, out)
	}
	code, err := os.ReadFile(program)
	must(t, err)
	must(t, company.DC.WriteFile(ctx, "/run/directory.test", "0700", string(code)))

	// They want a deleted account, one that a fine-grained policy governs, and one whose password was set, as it seems, but is not there.
	must(t, company.DC.CreateUser(ctx, "gone-for-test", company.NewPassword()))
	must(t, company.DC.DeleteUser(ctx, "gone-for-test"))
	must(t, company.DC.CreateUser(ctx, "governed-for-test", company.NewPassword()))
	administer(t, "samba-tool domain passwordsettings pso create pso-for-test 10 --complexity=off --min-pwd-length=9", "")
	administer(t, "samba-tool domain passwordsettings pso apply pso-for-test governed-for-test", "")
	administer(t, "ldbadd -H /var/lib/samba/private/sam.ldb", ldifUser("unhashed-for-test")+"pwdLastSet: -1\n")
	defer administer(t, "samba-tool domain passwordsettings pso delete pso-for-test", "")
	nestGroups(t)
	runLive(t, "^TestLive")

	// And somebody who writes as fast as the DC takes it, over LDAP, where each write is a transaction of its own.
	users := ldifUser("busy-for-test")
	for n := range 20 {
		users += "\n" + ldifUser(fmt.Sprintf("busy%d-for-test", n))
	}
	administer(t, overLDAP("ldbadd"), users)
	var writes strings.Builder
	for n := range 400 {
		writes.WriteString(ldifDescription(fmt.Sprintf("busy%d-for-test", n*7%20), fmt.Sprint(n)))
	}
	busy := make(chan struct{})
	go func() {
		defer close(busy)
		administer(t, overLDAP("ldbmodify"), writes.String()+ldifDescription("busy-for-test", "done"))
	}()
	defer func() { <-busy }()
	runLive(t, "^TestFollowLive$")
}

// nestGroups makes groups within groups, and administrators by each way in which one can be.
func nestGroups(t *testing.T) {
	t.Helper()
	for _, command := range []string{
		"samba-tool group add outer-for-test",
		"samba-tool group add inner-for-test",
		"samba-tool group add list-for-test --group-type=Distribution",
		"samba-tool group add gone-for-test",
		"samba-tool group delete gone-for-test",
		"samba-tool ou create OU=unit-for-test",
		"ldbrename -H /var/lib/samba/private/sam.ldb OU=unit-for-test," + lab.BaseDN + " OU=renamed-for-test," + lab.BaseDN,
	} {
		administer(t, command, "")
	}
	for _, name := range []string{"nested-for-test", "primary-for-test", "listed-for-test"} {
		administer(t, "ldbadd -H /var/lib/samba/private/sam.ldb", ldifUser(name))
	}
	member := func(group, member string) string {
		return "dn: CN=" + group + "," + lab.BaseDN + "\nchangetype: modify\nadd: member\nmember: CN=" + member + ",CN=Users," + lab.BaseDN + "\n\n"
	}
	administer(t, "ldbmodify -H /var/lib/samba/private/sam.ldb",
		member("inner-for-test,CN=Users", "nested-for-test")+member("outer-for-test,CN=Users", "inner-for-test")+member("Account Operators,CN=Builtin", "outer-for-test")+
			member("Administrators,CN=Builtin", "inner-for-test")+
			member("list-for-test,CN=Users", "listed-for-test")+member("Domain Admins,CN=Users", "list-for-test")+
			member("Domain Admins,CN=Users", "primary-for-test")+
			"dn: CN=primary-for-test,CN=Users,"+lab.BaseDN+"\nchangetype: modify\nreplace: primaryGroupID\nprimaryGroupID: 512\n")
}

// runLive runs those of the tests that match.
func runLive(t *testing.T, pattern string) {
	t.Helper()
	out, err := company.DC.Exec(ctx, "", "env", "SAMBA_PWSYNC_TEST_LDAPI="+lab.LDAPI, "/run/directory.test", "-test.v", "-test.run", pattern)
	if err != nil {
		t.Fatal(err)
	}
	if passed := strings.Count(out, "--- PASS"); passed == 0 || strings.Contains(out, "--- SKIP") {
		t.Errorf("%d passed, and none may be skipped:\n%s", passed, out)
	}
}

// administer runs a command on the DC; a failure does not end the test.
func administer(t *testing.T, command, stdin string) {
	t.Helper()
	if _, err := company.DC.Exec(ctx, stdin, strings.Fields(command)...); err != nil {
		t.Error(err)
	}
}

func overLDAP(command string) string {
	return command + " -H ldapi://" + strings.ReplaceAll(lab.LDAPI, "/", "%2F")
}

func ldifUser(name string) string {
	return "dn: CN=" + name + ",CN=Users," + lab.BaseDN + "\nobjectClass: user\nsAMAccountName: " + name + "\nuserAccountControl: 514\n"
}

func ldifDescription(user, text string) string {
	return "dn: CN=" + user + ",CN=Users," + lab.BaseDN + "\nchangetype: modify\nreplace: description\ndescription: " + text + "\n\n"
}
