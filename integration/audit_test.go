package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/canary"
	"github.com/samba-pwsync/samba-pwsync/internal/survey"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// testAudit: `samba-pwsync audit` tells of each account what is to be told, of no machine, and no password or hash.
func testAudit(t *testing.T) {
	change := func(password string) string {
		t.Helper()
		u := newUser(t)
		must(t, company.DC.LDAPSReset(ctx, u.name, "", password))
		u.arrives(t, password)
		return u.name
	}
	year := strconv.Itoa(time.Now().Year())
	const word = "vanillek"
	guessable := company.Remember("V@nillek" + year + "!")
	common := company.NewPassword()

	first := newUser(t).name // never changed since samba-tool user create
	sharedA, sharedB := change(common), change(common)
	guessed := change(guessable)
	named := fmt.Sprintf("user%02d", users.Load()+1)
	if got := change(company.Remember("User" + named[4:] + "-" + year)); got != named {
		t.Fatalf("%s is called %s", named, got)
	}
	known := company.NewPassword()
	knownTo := change(known)
	importBreached(t, "/run/audit.bin", known, "another", "one more")
	off := change(company.NewPassword())
	administer(t, "samba-tool user disable "+off, "")
	administer(t, "samba-tool user disable "+sharedB, "")
	must(t, company.DC.SetSystemAttribute(ctx, off, "userAccountControl", "546")) // disabled, and no password required
	blank := newUser(t).name
	must(t, company.DC.SetHash(ctx, blank, ""))
	bare := "bare-for-audit"
	administer(t, "ldbadd -H /var/lib/samba/private/sam.ldb", ldifUser(bare))
	administer(t, "samba-tool computer create machine-for-audit", "")
	must(t, company.DC.WriteFile(ctx, "/run/audit.words", "0600", "# words\n"+word+"\n"))

	r := audit(t, "3", "--breached", "/run/audit.bin", "--words", "/run/audit.words", "--older-than", "1d")
	ours := []string{knownTo, first, sharedA, sharedB, guessed, named, off, blank, bare}
	for what, c := range map[string]struct {
		list []survey.Account
		want string
	}{
		"breached":      {r.Breached, join(knownTo)},
		"guessable":     {r.Guessable, join(guessed, named)},
		"empty":         {r.Empty, join(blank)},
		"not required":  {r.NotRequired, join(off + "/disabled")},
		"reversible":    {r.Reversible, ""},
		"old":           {r.Old, ""},
		"never changed": {r.NeverChanged, join(first)},
	} {
		if got := marked(c.list, ours); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
	if !slices.ContainsFunc(r.NotRequired, func(a survey.Account) bool { return a.Name == "Guest" && a.Disabled && a.Changed.IsZero() }) {
		t.Errorf("Guest, who never had a password, is not told of as such: %+v", r.NotRequired)
	}
	var groups []string
	for _, g := range r.Shared {
		if names := marked(g.Accounts, ours); names != "" {
			groups = append(groups, fmt.Sprintf("%s, %d, %v", names, g.NeverChanged, g.Guessable))
		}
	}
	if got, want := strings.Join(groups, "; "), join(sharedA, sharedB+"/disabled")+", 0, false"; got != want {
		t.Errorf("shared: %s, want %s", got, want)
	}
	if r.Accounts < 10 || r.Compared < 8 || r.Disabled < 4 || r.NoPassword < 2 || r.Accounts != r.Compared+r.NotComparable+r.NoPassword || len(r.Unreadable) > 0 {
		t.Errorf("counts: %d accounts, %d disabled, %d compared, %d not comparable, %d without a password, %q unreadable",
			r.Accounts, r.Disabled, r.Compared, r.NotComparable, r.NoPassword, r.Unreadable)
	}

	one := audit(t, "0", "--filter", "(sAMAccountName="+first+")")
	if one.Accounts != 1 || len(one.NeverChanged) != 1 || one.Breached != nil || one.Guessable != nil || one.Old != nil {
		t.Errorf("with a filter: %+v", one)
	}
	// Whoever is not root gets nothing.
	said, err := company.DC.Exec(ctx, "", "sh", "-c", `setpriv --reuid=65534 --regid=65534 --clear-groups samba-pwsync audit --json 2>&1; echo $?`)
	must(t, err)
	if !strings.HasSuffix(said, "\n1\n") || strings.Contains(said, first) || !strings.Contains(said, "hint: run it as root") {
		t.Errorf("to nobody it says %s", said)
	}
}

// importBreached has samba-pwsync make a file of these passwords on the DC. The list, which holds their hashes, is not left there.
func importBreached(t *testing.T, path string, passwords ...string) {
	t.Helper()
	var lines []string
	for _, password := range passwords {
		lines = append(lines, fmt.Sprintf("%X:1\n", dsdb.NTHash(checkpassword.UTF16LE([]byte(password)))))
	}
	slices.Sort(lines)
	must(t, company.DC.WriteFile(ctx, path+".list", "0600", strings.Join(lines, "")))
	_, err := company.DC.Exec(ctx, "", "samba-pwsync", "breached", "import", "--incomplete", "-o", path, path+".list")
	must(t, err)
	_, err = company.DC.Exec(ctx, "", "rm", path+".list")
	must(t, err)
}

type auditReport struct {
	DC string `json:"dc"`
	survey.Report
}

// audit runs it both ways: no password and no hash of one is in what it prints, and a machine is not either.
func audit(t *testing.T, code string, options ...string) (r auditReport) {
	t.Helper()
	search, err := canary.New(company.Passwords())
	must(t, err)
	run := func(options ...string) string {
		t.Helper()
		said, err := company.DC.Exec(ctx, "", append([]string{"sh", "-c", `samba-pwsync audit "$@" 2>&1; echo $?`, "sh"}, options...)...)
		must(t, err)
		found, _, err := search.Scan("the audit", strings.NewReader(said))
		must(t, err)
		for _, f := range found {
			t.Error(f)
		}
		said = strings.TrimSuffix(said, "\n")
		end := strings.LastIndex(said, "\n")
		if said[end+1:] != code {
			t.Errorf("audit %q gives %s, want %s:\n%s", options, said[end+1:], code, said)
		}
		return said[:max(end, 0)]
	}
	text := run(options...)
	must(t, json.Unmarshal([]byte(run(append(options, "--json")...)), &r))
	for _, list := range [][]survey.Account{r.Breached, r.Guessable, r.Empty, r.NotRequired, r.NeverChanged} {
		for _, a := range list {
			if !strings.Contains(text, "\n  "+a.Name+" ") {
				t.Errorf("%s is in the JSON and not in the text", a.Name)
			}
		}
	}
	if strings.Contains(text, "$ ") || r.DC != company.DC.Host {
		t.Errorf("of %s it says\n%s", r.DC, text)
	}
	return r
}

// marked writes those of a list that are ours.
func marked(list []survey.Account, ours []string) string {
	var names []string
	for _, a := range list {
		if !slices.Contains(ours, a.Name) {
			continue
		}
		if a.Disabled {
			a.Name += "/disabled"
		}
		names = append(names, a.Name)
	}
	return join(names...)
}

func join(names ...string) string {
	slices.Sort(names)
	return strings.Join(names, " ")
}
