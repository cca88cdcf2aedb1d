package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/samba-pwsync/samba-pwsync/internal/nopoll"
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
	Policies []NamedPolicy // in the order of their precedence
	Proof    string        // directory.proof
	Targets  []HookTarget  // sorted by name

	// NoTarget says that nobody wants any password: the file has no section of a target, not even one with a fault.
	NoTarget bool
}

// HookTarget is what the hook needs to know of a target: which passwords it takes, its type tells.
type HookTarget struct{ Name, Type string }

// BuiltinHook is what the hook works with where no file can be read.
func BuiltinHook() HookConfig {
	return Default().ForHook()
}

// ForHook returns the part of the configuration that the hook needs. Targets of a type that is not known are left out.
func (c *Config) ForHook() HookConfig {
	h := HookConfig{StateDir: c.StateDir, Hook: c.Hook, Policy: c.Policy, Policies: c.Policies, Proof: c.Directory.Proof}
	for name, t := range c.Target {
		if t.Type != "" {
			h.Targets = append(h.Targets, HookTarget{name, t.Type})
		}
	}
	slices.SortFunc(h.Targets, func(a, b HookTarget) int { return strings.Compare(a.Name, b.Name) })
	return h
}

// Paths returns the layout of the state folder.
func (c HookConfig) Paths() Paths { return pathsBelow(c.StateDir) }

// LoadHook reads the file for the hook, which goes by what it returns unless it has a copy of what it last read without a fault
// (internal/gate). What it returns is always usable: where what the hook reads has a fault (the error,
// a Faults, says which), StateDir, OnCaptureError and Proof are what the file says if that can be told, else the defaults (so
// that no fault hands passwords to the agent); and Policy is the default one as a whole, unless the fault is certainly not in it. So a slip in an editor neither locks
// the domain out nor lets weak passwords in, and captures still go where they belong.
//
// Faults in [target] and [notify], and in [directory] beside its proof, are not the hook's: Load lists them.
func LoadHook(path string) (HookConfig, error) {
	text, _, err := Read(path)
	if err != nil {
		return BuiltinHook(), err
	}
	return ParseHook(path, text)
}

// Read reads the file as it is, for ParseHook, and tells which file that was. The error is a Faults.
func Read(path string) ([]byte, fs.FileInfo, error) {
	text, info, fault := readFile(path)
	if fault != nil {
		return nil, nil, Faults{*fault}
	}
	return text, info, nil
}

// ParseHook is LoadHook of a text that was read from the file at path.
func ParseHook(path string, text []byte) (HookConfig, error) {
	c, all := decode(path, text)
	usable := c.ForHook()
	usable.NoTarget = len(c.Target) == 0
	var faults Faults
	for _, fault := range all {
		switch section, key, _ := strings.Cut(fault.Key, "."); section {
		case "target":
			usable.NoTarget = false
			continue
		case "notify":
			continue
		case "directory":
			if key != "" && key != "proof" {
				continue
			}
		case "", "policy":
			usable.Policy, usable.Policies = Default().Policy, nil
		}
		faults = append(faults, fault)
	}
	if len(faults) > 0 {
		usable.NoTarget = false // who can tell
		return usable, faults
	}
	return usable, nil
}

// LikelyStateDir is what a file's state_dir is, if it is written as people write it. It is for finding what only has to do with this very text.
func LikelyStateDir(text []byte) string {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("[")) {
			break
		}
		value, ok := bytes.CutPrefix(line, []byte("state_dir"))
		value, quoted := bytes.CutPrefix(bytes.TrimLeft(value, " \t="), []byte(`"`))
		if dir, _, closed := bytes.Cut(value, []byte(`"`)); ok && quoted && closed {
			return string(dir)
		}
	}
	return Default().StateDir
}

// load reads the file as far as it makes sense. A key that is faulty by itself keeps its default.
func load(path string) (*Config, Faults) {
	text, _, fault := readFile(path)
	if fault != nil {
		return Default(), Faults{*fault}
	}
	return decode(path, text)
}

func decode(path string, text []byte) (*Config, Faults) {
	c := Default()
	c.file = path
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

func readFile(path string) ([]byte, fs.FileInfo, *Fault) {
	f, err := nopoll.Open(path)
	if err != nil {
		remedy := "make it readable for root"
		if errors.Is(err, fs.ErrNotExist) {
			remedy = "`samba-pwsync init` writes an example"
		}
		return nil, nil, &Fault{File: path, Problem: reading(err), Remedy: remedy}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, &Fault{File: path, Problem: reading(err), Remedy: "give a readable file"}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, &Fault{File: path, Problem: reading(err), Remedy: "give a readable file"}
	}
	if len(text) > maxFile {
		return nil, nil, &Fault{File: path, Problem: "is larger than 1 MiB", Remedy: "give a configuration file"}
	}
	return text, info, nil
}

// reading leaves out the path: a fault names the file anyway.
func reading(err error) string {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Sprintf("reading: %v", err)
}
