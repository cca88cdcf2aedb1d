// Package programs holds what the benchmarks compare the hook with, and what runs them all as Samba does.
package programs

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Files are c/samba.c, c/store.c, check.sh and check.py; each says in front what it is.
//
//go:embed c/samba.c c/store.c check.sh check.py
var Files embed.FS

const nothing = "github.com/samba-pwsync/samba-pwsync/integration/bench/programs/nothing"

// Build puts all of them into a folder, ready to be run: samba, store, nothing, check.sh and check.py. store and nothing are static, so that they run in any container.
// It wants gcc, and Go.
func Build(ctx context.Context, dir string) error {
	for _, name := range []string{"check.sh", "check.py", "c/samba.c", "c/store.c"} {
		text, err := Files.ReadFile(name)
		if err != nil {
			return err
		}
		file := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(file, text, 0o755); err != nil {
			return fmt.Errorf("writing the programs: %w", err)
		}
		if program, found := strings.CutSuffix(file, ".c"); found {
			args := []string{"-O2", "-Wall", "-Werror", "-o", program, file}
			if name == "c/store.c" {
				args = append(args, "-static")
			}
			if err := compile(exec.CommandContext(ctx, "gcc", args...)); err != nil {
				return err
			}
		}
	}
	// As the Makefile builds the hook.
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "nothing.new"), nothing)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := compile(build); err != nil {
		return err
	}
	// What the linker has just written lies in memory in smaller pieces than what was copied.
	program, err := os.ReadFile(filepath.Join(dir, "nothing.new"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "nothing"), program, 0o755)
	}
	if err != nil {
		return fmt.Errorf("copying a program: %w", err)
	}
	return nil
}

func compile(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling: %s: %w\n%s", cmd, err, out)
	}
	return nil
}
