package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

const maxFile = 1 << 20

// Load reads the file. The error is a Faults that lists everything that is wrong, and then there is no Config.
func Load(path string) (*Config, error) {
	c, faults := load(path)
	if len(faults) > 0 {
		return nil, faults
	}
	return c, nil
}

// HookConfig is the part of the file that the hook needs.
type HookConfig struct {
	StateDir string
	Hook     Hook
	Policy   Policy
	Proof    string // directory.proof
}

// BuiltinHook is what the hook works with where no file can be read.
func BuiltinHook() HookConfig {
	c := Default()
	return HookConfig{c.StateDir, c.Hook, c.Policy, c.Directory.Proof}
}

// Paths returns the layout of the state folder.
func (c HookConfig) Paths() Paths { return pathsBelow(c.StateDir) }

// LoadHook reads the file for the hook. What it returns is always usable: where what the hook reads has a fault (the error,
// a Faults, says which), StateDir, OnCaptureError and Proof are what the file says if that can be told, else the defaults (so
// that no fault hands passwords to the agent); and Policy is the default one as a whole, unless the fault is certainly not in it. So a slip in an editor neither locks
// the domain out nor lets weak passwords in, and captures still go where they belong.
//
// Faults in [target], and in [directory] beside its proof, are not the hook's: Load lists them.
func LoadHook(path string) (HookConfig, error) {
	c, all := load(path)
	usable := HookConfig{c.StateDir, c.Hook, c.Policy, c.Directory.Proof}
	var faults Faults
	for _, fault := range all {
		switch section, key, _ := strings.Cut(fault.Key, "."); section {
		case "target":
			continue
		case "directory":
			if key != "" && key != "proof" {
				continue
			}
		case "", "policy":
			usable.Policy = Default().Policy
		}
		faults = append(faults, fault)
	}
	if len(faults) > 0 {
		return usable, faults
	}
	return usable, nil
}

// load reads the file as far as it makes sense. A key that is faulty by itself keeps its default.
func load(path string) (*Config, Faults) {
	c := Default()
	c.file = path
	text, fault := readFile(path)
	if fault != nil {
		return c, Faults{*fault}
	}
	doc, fault := parse(text)
	c.lines = doc.lines
	d := decoder{file: path, lines: doc.lines}
	if fault != nil {
		d.faults = append(d.faults, Fault{path, fault.Line, "", fault.Problem, fault.Remedy})
		doc.tree = salvage(doc)
	}
	d.config(c, doc.tree)
	d.faults.sort()
	return c, d.faults
}

// salvage makes a tree of the keys that the hook can take from a file that is otherwise no TOML.
func salvage(doc document) map[string]any {
	tree := map[string]any{}
	if dir, ok := doc.texts["state_dir"]; ok {
		tree["state_dir"] = dir
	}
	if answer, ok := doc.texts["hook.on_capture_error"]; ok {
		tree["hook"] = map[string]any{"on_capture_error": answer}
	}
	if proof, ok := doc.texts["directory.proof"]; ok {
		tree["directory"] = map[string]any{"proof": proof}
	}
	return tree
}

func readFile(path string) ([]byte, *Fault) {
	f, err := os.Open(path)
	if err != nil {
		remedy := "make it readable for root"
		if errors.Is(err, fs.ErrNotExist) {
			remedy = "`samba-pwsync init` writes an example"
		}
		return nil, &Fault{File: path, Problem: reading(err), Remedy: remedy}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, &Fault{File: path, Problem: reading(err), Remedy: "give a readable file"}
	}
	if len(text) > maxFile {
		return nil, &Fault{File: path, Problem: "is larger than 1 MiB", Remedy: "give a configuration file"}
	}
	return text, nil
}

// reading leaves out the path: a fault names the file anyway.
func reading(err error) string {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Sprintf("reading: %v", err)
}
