package integration

import (
	"strings"
	"testing"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

// smbConf is the part of smb.conf to which the test adds its options.
const smbConf = "/etc/samba/smb.conf.d/container.conf"

// testByAES256Key: with proof = "aes256" a domain in which no NT hash is stored is served as any other: what changes arrives, what was
// not committed does not. And check says, for each proof and each kind of domain, whether they suit each other.
func testByAES256Key(t *testing.T) {
	mallory, victim := newUser(t), newUser(t)
	checkSays(t, "ok         passwords are proven by NT hash")
	setProof(t, "aes256")
	t.Cleanup(func() { setProof(t, "nthash") })
	checkSays(t, `attention  Samba stores NT hashes: set [directory] proof = "nthash"`)
	mallory.changes(t) // the hook gives the password, and the hash is what is compared

	if _, err := company.DC.Exec(ctx, "", "testparm", "-s", "--parameter-name=nt hash store"); err != nil {
		t.Log("this Samba is of before 4.17 and stores every hash")
		return
	}
	edit(t, smbConf, `$a\`+"\t"+`nt hash store = never`)
	restartSamba(t)
	t.Cleanup(func() {
		edit(t, smbConf, "/nt hash store/d")
		restartSamba(t)
	})
	checkSays(t, "ok         passwords are proven by AES256 key")

	var routes []lab.Route
	for _, route := range company.DC.Routes() {
		if !route.NTLM { // or Samba refuses it
			routes = append(routes, route)
		}
	}
	t.Run("Arrives", func(t *testing.T) { testArrivesOver(t, routes) })
	t.Run("NeverSent", func(t *testing.T) {
		t.Run("refused by the password history", func(t *testing.T) { t.Parallel(); testRefusedByHistory(t, routes) })
		t.Run("forged with SamrValidatePassword", func(t *testing.T) { t.Parallel(); testForged(t, mallory) })
		t.Run("the hash of before is still there", func(t *testing.T) {
			t.Parallel()
			forged := company.NewForgeablePassword()
			must(t, company.DC.ValidatePassword(ctx, mallory.name, mallory.password(), victim.name, forged))
			verdict(t, "never-committed", victim.name, 1)
			victim.changes(t)
			victim.never(t, forged)
		})
	})
	t.Run("renamed since", testRenamed)
	t.Run("without a name", testWithoutName)
	t.Run("forgotten", forgotten) // here the agent had passwords in clear
	t.Run("with the wrong proof", testWrongProof)
}

// changes sets a new password, which arrives.
func (u *user) changes(t *testing.T) {
	t.Helper()
	password := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
	u.arrives(t, password)
}

// The salt of a key is of the name that the account had when its password was set.
func testRenamed(t *testing.T) {
	u := newUser(t)
	must(t, company.DC.StopServe(ctx))
	password := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
	must(t, company.DC.SetAttribute(ctx, u.name, "sAMAccountName", u.name+"-new"))
	must(t, company.DC.StartServe(ctx))
	u.arrives(t, password)
	u.changes(t)
}

// Samba before 4.11 tells the script no name. Two of the users choose the same password at the same time.
func testWithoutName(t *testing.T) {
	const script = "/etc/samba/smb.conf.d/samba-pwsync.conf"
	edit(t, script, "s,exec ,exec env -u SAMBA_CPS_ACCOUNT_NAME -u SAMBA_CPS_USER_PRINCIPAL_NAME -u SAMBA_CPS_FULL_NAME ,")
	restartSamba(t)
	t.Cleanup(func() {
		edit(t, script, "s,exec .* ,exec ,")
		restartSamba(t)
	})
	t.Run("several", func(t *testing.T) {
		same := company.NewPassword()
		for _, name := range []string{"one", "another", "the same", "the same"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				u := newUser(t)
				password := same
				if name != "the same" {
					password = company.NewPassword()
				}
				must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
				u.arrives(t, password)
			})
		}
	})
}

// Where only the key could be compared, and the hook was not told, nothing is sent, and everybody is told why.
func testWrongProof(t *testing.T) {
	u := newUser(t)
	setProof(t, "nthash")
	t.Cleanup(func() { setProof(t, "aes256") })
	checkSays(t, "FAULT      no new password can be proven: Samba stores no NT hashes (nt hash store in smb.conf)")
	password := company.NewPassword()
	must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
	verdict(t, "hash-missing", u.name, 1)
	verdict(t, "unprovable", u.name, 1)
	u.gotNothingElse(t)
	if status := said(t, "samba-pwsync", "status"); !strings.Contains(status, `set [directory] proof = "aes256"`) {
		t.Errorf("status says\n%s", status)
	}
	setProof(t, "aes256")
	u.changes(t)
	u.never(t, password)
}

// setProof changes samba-pwsync.toml: the next run of the hook goes by it.
func setProof(t *testing.T, proof string) {
	t.Helper()
	edit(t, lab.ConfigFile, `/^proof = /d; /^\[directory\]/a proof = "`+proof+`"`)
}

func edit(t *testing.T, file, script string) {
	t.Helper()
	_, err := company.DC.Exec(ctx, "", "sed", "-i", script, file)
	must(t, err)
}

func restartSamba(t *testing.T) {
	t.Helper()
	must(t, company.DC.StopSamba(ctx))
	must(t, company.DC.StartSamba(ctx))
}

// checkSays demands that a line of `check --connect` begins so.
func checkSays(t *testing.T, line string) {
	t.Helper()
	text := said(t, "samba-pwsync", "check", "--connect")
	if !strings.Contains("\n"+text, "\n"+line) {
		t.Errorf("check does not say %q:\n%s", line, text)
	}
}

// said returns what a command in the DC printed, whatever its exit code.
func said(t *testing.T, command ...string) string {
	t.Helper()
	text, err := company.DC.Exec(ctx, "", append([]string{"sh", "-c", `"$@" || true`, "sh"}, command...)...)
	must(t, err)
	return text
}
