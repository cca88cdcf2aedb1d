package main

import (
	"debug/buildinfo"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The hook is paid for at each start and runs as root: what is linked into it is looked at in the program itself.
func TestLinksLittle(t *testing.T) {
	info, err := os.Stat(hook)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= 4<<20 {
		t.Errorf("the stripped program has %d bytes, more than 4 MiB", info.Size())
	}

	build1, err := buildinfo.ReadFile(hook)
	if err != nil {
		t.Fatal(err)
	}
	var modules []string
	for _, dep := range build1.Deps {
		modules = append(modules, dep.Path)
	}
	if want := []string{"github.com/FastFilter/xorfilter", "github.com/pelletier/go-toml/v2", "golang.org/x/crypto"}; !slices.Equal(modules, want) {
		t.Errorf("the modules are %v, want %v", modules, want)
	}

	named := filepath.Join(t.TempDir(), "named")
	if out, err := build(named, ""); err != nil {
		t.Fatalf("building with symbols: %v\n%s", err, out)
	}
	file, err := elf.Open(named)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if libraries, _ := file.ImportedLibraries(); len(libraries) > 0 {
		t.Errorf("not static: %v", libraries)
	}
	symbols, err := file.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string]bool{}
	for _, symbol := range symbols {
		path, name, _ := cutLast(symbol.Name, "/")
		name, _, _ = strings.Cut(name, ".")
		if path != "" {
			name = path + "/" + name
		}
		packages[name] = true
	}
	for _, forbidden := range []string{"net", "net/http", "net/url", "log", "log/slog", "regexp", "flag", "os/exec", "os/user", "os/signal", "text/template", "crypto/tls", "crypto/x509"} {
		if packages[forbidden] {
			t.Errorf("package %s is linked", forbidden)
		}
	}
	for _, needed := range []string{"crypto/hpke", "golang.org/x/crypto/md4"} {
		if !packages[needed] {
			t.Errorf("package %s is not found: this test looks at the wrong thing", needed)
		}
	}
}

// The large stack is worth something only if it is there before the other packages are initialised; Go's order of them could change.
func TestStackComesFirst(t *testing.T) {
	run := exec.Command(hook, "--version")
	run.Env = []string{"GODEBUG=inittrace=1"}
	var trace strings.Builder
	run.Stderr = &trace
	if err := run.Run(); err != nil {
		t.Fatal(err)
	}
	stack, others := strings.Index(trace.String(), "/internal/stack @"), strings.Index(trace.String(), "init internal/godebug @")
	if stack < 0 || others < stack {
		t.Errorf("internal/stack is not initialised before what uses the stack:\n%s", trace.String())
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// BenchmarkHook runs what Samba runs, and beside it a program that does nothing: the difference is the hook's price.
func BenchmarkHook(b *testing.B) {
	s := newSite(b)
	go func() { // as syslog would
		buf := make([]byte, 1<<12)
		for {
			if _, err := s.syslog.Read(buf); err != nil {
				return
			}
		}
	}()
	for _, bc := range []struct{ name, command string }{
		{"true", "exec /bin/true"},
		{"hook", "exec " + hook + " --config " + s.config},
	} {
		b.Run(bc.name, func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Command("/bin/sh", "-c", bc.command)
				cmd.Dir, cmd.Env, cmd.Stdin = s.dir, alice, strings.NewReader(good)
				if err := cmd.Run(); err != nil && bc.name == "hook" { // true does not read, and may be gone before it is written to
					b.Fatal(err)
				}
			}
		})
	}
}
