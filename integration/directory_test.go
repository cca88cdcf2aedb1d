package integration

import (
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

	// They want a deleted account, too.
	must(t, company.DC.CreateUser(ctx, "gone-for-test", company.NewPassword()))
	must(t, company.DC.DeleteUser(ctx, "gone-for-test"))

	out, err := company.DC.Exec(ctx, "", "env", "SAMBA_PWSYNC_TEST_LDAPI="+lab.LDAPI, "/run/directory.test", "-test.v", "-test.run", "^TestLive")
	if err != nil {
		t.Fatal(err)
	}
	if passed := strings.Count(out, "--- PASS"); passed == 0 || strings.Contains(out, "--- SKIP") {
		t.Errorf("%d passed, and none may be skipped:\n%s", passed, out)
	}
}
