// Package internal_test holds the arrows of docs/design.md: who may import whom. It parses the sources itself, because the answer
// of `go list` run from a test would be cached with the test.
package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/samba-pwsync/samba-pwsync/"

// source is one file of the module that is not a test.
type source struct {
	pkg     string // folder, from the module's root: "internal/seal"
	file    string
	imports []string // module's own packages without the module's path
	syntax  *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	root := ".."
	var all []source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		s := source{pkg: path.Dir(filepath.ToSlash(rel)), file: rel, syntax: syntax}
		for _, spec := range syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, strings.TrimPrefix(imported, module))
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d sources found: the test does not see the module", len(all))
	}
	return all
}

// under reports whether pkg is one of the folders or below one.
func under(pkg string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return pkg == f || strings.HasPrefix(pkg, f+"/") })
}

func isStandard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".") && !under(imported, "internal", "cmd", "samba", "integration")
}

// onlyBy lists what only certain folders may import.
var onlyBy = map[string][]string{
	// Clear text lives here and nowhere else (internal/cloud holds access tokens in the same type; internal/proof makes Kerberos keys
	// of it, where [directory] proof = "aes256", and nothing of it gets out of there).
	"internal/keyring": {"cmd/samba-pwsync"},
	"internal/secret":  {"internal/seal", "internal/policy", "internal/gate", "internal/proof", "internal/deliver", "internal/target", "internal/cloud", "cmd/samba-pwsync-hook", "cmd/samba-pwsync"},

	// Each vendor's SDK, and each fixed library, in the one place that it is good for.
	"google.golang.org/api":                 {"internal/target/google"},
	"github.com/microsoftgraph":             {"internal/target/entra"},
	"github.com/microsoft":                  {"internal/target/entra"},
	"github.com/Azure":                      {"internal/target/entra", "internal/cloud"},
	"github.com/jcmturner/gokrb5":           {"internal/proof", "integration"},
	"github.com/go-ldap/ldap":               {"samba/directory", "internal/route", "integration"},
	"github.com/urfave/cli":                 {"cmd"},
	"go.etcd.io/bbolt":                      {"internal/queue", "internal/ledger", "internal/boltfile"},
	"github.com/fsnotify/fsnotify":          {"internal/spool/notify"},
	"github.com/pelletier/go-toml":          {"internal/config", "cmd/cloud-sandbox", "internal/sandbox"},
	"github.com/coreos/go-systemd":          {"cmd/samba-pwsync"},
	"github.com/santhosh-tekuri/jsonschema": {"internal/sandbox"},
	"github.com/FastFilter/xorfilter":       {"internal/breached"},
	"internal/sandbox":                      {"internal/sandbox", "cmd/cloud-sandbox", "internal/target/targettest", "integration"},
	"internal/cloud":                        {"internal/target"},
	"internal/target/google":                {"cmd/samba-pwsync"},
	"internal/target/entra":                 {"cmd/samba-pwsync"},
	"internal/target/google/accepts":        {"internal/target/google", "internal/gate"}, // the one part of a target that the hook links
	"internal/target/entra/accepts":         {"internal/target/entra", "internal/gate"},
	"github.com/wneessen/go-mail":           {"internal/notice/mail"},
	"internal/notice":                       {"internal/notice", "cmd/samba-pwsync"},
	"internal/trial":                        {"integration/torture", "internal/crash"}, // for tests
	"internal/crash":                        {},                                        // for tests
	"internal/ramdisk":                      {},                                        // for tests
	"crypto/hpke":                           {"internal/seal"},
	"golang.org/x/crypto/md4":               {"samba/dsdb"},
	"golang.org/x/text":                     {"internal/policy/words/generate", "internal/sandbox"}, // the hook links a table made of it
}

// forbidden lists what a folder must not import.
var forbidden = map[string][]string{
	"internal/agent":        {"internal/queue", "internal/ledger", "internal/deliver", "internal/control", "net"},
	"internal/queue":        {"internal/seal", "internal/agent"},
	"internal/ledger":       {"internal/seal", "internal/agent"},
	"internal/deliver":      {"internal/agent", "internal/proof", "internal/route", "samba/directory"},
	"internal/target":       {"internal/agent", "internal/queue", "internal/ledger", "internal/deliver", "internal/seal", "internal/spool", "samba/directory"},
	"internal/notice":       {"internal/agent", "internal/queue", "internal/ledger", "internal/deliver", "internal/seal", "internal/secret", "internal/config", "samba/directory"},
	"internal/capture":      {"log", "log/slog"},
	"internal/secret":       {"log", "log/slog", "os"},
	"internal/gate":         {"net", "net/http", "log/slog", "os/exec", "os/user", "internal/event", "internal/spool", "samba/directory"}, // the hook links it
	"cmd/samba-pwsync-hook": {"net", "net/http", "log/slog", "os/exec", "os/user", "internal/event", "internal/spool/notify"},
}

// inner reports whether another entry of onlyBy says more precisely who may import a package.
func inner(imported, guarded string) bool {
	for other := range onlyBy {
		if under(imported, other) && len(other) > len(guarded) {
			return true
		}
	}
	return false
}

// TestLeaves: what the hook takes from elsewhere brings nothing with it.
func TestLeaves(t *testing.T) {
	leaves := []string{"internal/target/google/accepts", "internal/target/entra/accepts"}
	found := 0
	for _, s := range sources(t) {
		if !slices.Contains(leaves, s.pkg) {
			continue
		}
		found++
		for _, imported := range s.imports {
			if !isStandard(imported) {
				t.Errorf("%s imports %s", s.file, imported)
			}
		}
	}
	if found < len(leaves) {
		t.Errorf("only %d sources found", found)
	}
}

func TestArrows(t *testing.T) {
	for _, s := range sources(t) {
		for _, imported := range s.imports {
			if under(s.pkg, "samba") && under(imported, "internal", "cmd", "integration") {
				t.Errorf("%s imports %s: samba/ is a toolkit for other programs and stands on its own", s.file, imported)
			}
			if under(s.pkg, "internal") && under(imported, "cmd", "integration") {
				t.Errorf("%s imports %s: imports point downwards", s.file, imported)
			}
			for guarded, importers := range onlyBy {
				if under(imported, guarded) && !inner(imported, guarded) && !under(s.pkg, importers...) {
					t.Errorf("%s imports %s, which only %v may", s.file, imported, importers)
				}
			}
			for folder, list := range forbidden {
				if under(s.pkg, folder) && under(imported, list...) {
					t.Errorf("%s imports %s, which nothing below %s may", s.file, imported, folder)
				}
			}
		}
	}
}

func TestToolkitDependencies(t *testing.T) {
	allowed := map[string][]string{
		"samba/checkpassword": {},
		"samba/dsdb":          {"golang.org/x/crypto/md4"},
		"samba/audit":         {},
		"samba/directory":     {"github.com/go-ldap/ldap/v3", "samba/dsdb"},
	}
	for _, s := range sources(t) {
		list, ok := allowed[s.pkg]
		if !ok {
			continue
		}
		for _, imported := range s.imports {
			if !isStandard(imported) && !slices.Contains(list, imported) {
				t.Errorf("%s imports %s", s.file, imported)
			}
		}
	}
}

// TestOnePackageRenames: only internal/durable knows how a file gets onto the disk.
func TestOnePackageRenames(t *testing.T) {
	for _, s := range sources(t) {
		if under(s.pkg, "internal/durable", "internal/sandbox", "internal/crash", "internal/ramdisk", "integration", "internal/config/generate", "internal/policy/words/generate", "internal/target/targettest") {
			continue
		}
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); ok {
				if pkg, ok := f.X.(*ast.Ident); ok && pkg.Name == "os" && slices.Contains([]string{"Rename", "WriteFile", "CreateTemp"}, f.Sel.Name) {
					t.Errorf("%s calls os.%s: files are written by internal/durable", s.file, f.Sel.Name)
				}
			}
			return true
		})
	}
}

// TestArrowsCanFail shows that a forbidden import would be seen.
func TestArrowsCanFail(t *testing.T) {
	if under("internal/agent", onlyBy["internal/secret"]...) {
		t.Error("the agent may see clear text")
	}
	if !under("internal/target/google", onlyBy["internal/secret"]...) || under("internal/targets", "internal/target") {
		t.Error("under does not tell folders apart")
	}
	if !inner("internal/target/google/accepts", "internal/target/google") || inner("internal/target/google", "internal/target/google") {
		t.Error("inner does not tell entries apart")
	}
}
