package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// CheckFiles looks at every file and folder that the configuration names, and at the configuration itself: does it
// exist, and can others than its owner (a secret: read it; the rest: write it) where they must not. Nothing is opened.
func (c *Config) CheckFiles() []Fault {
	check := files{config: c}
	check.look(nil, c.file, public)

	state := []string{"state_dir"}
	if check.look(state, c.StateDir, folderOfState) {
		paths := c.Paths()
		for _, folder := range []string{paths.Keys, paths.Spool, paths.Incoming, paths.Outgoing, paths.Hook, paths.Policy, paths.Agent, paths.Forwarder,
			paths.AgentRetired, paths.ForwarderRetired} {
			check.look(state, folder, folderOfState)
		}
		for _, file := range []string{paths.AgentPublicKey, paths.ForwarderPublicKey} {
			check.look(state, file, ownPublic)
		}
		for _, file := range []string{paths.AgentKey, paths.ForwarderKey} {
			check.look(state, file, ownSecret)
		}
	}
	seen := map[string]bool{"": true}
	for _, p := range append([]NamedPolicy{{Policy: c.Policy}}, c.Policies...) {
		key := []string{"policy"}
		if p.Name != "" {
			key = append(key, p.Name)
		}
		at := func(name string) []string { return append(slices.Clone(key), name) }
		for _, path := range p.Policy.Banned {
			if !seen[path] {
				check.look(at("banned"), path, public)
			}
			seen[path] = true
		}
		if path := p.Policy.Breached; !seen[path] {
			check.look(at("breached"), path, public)
			seen[path] = true
		}
		for _, command := range p.Policy.Also {
			path, _, _ := strings.Cut(command, " ")
			if !seen[path] {
				check.look(at("also"), path, program)
			}
			seen[path] = true
		}
	}
	for name, t := range c.Target {
		for _, file := range t.Files() {
			k := public
			if file.Secret {
				k = secret
			}
			check.look([]string{"target", name, file.Key}, file.Path, k)
		}
	}
	for _, file := range c.Notify.Files() {
		k := public
		if file.Secret {
			k = secret
		}
		check.look([]string{"notify", file.Key}, file.Path, k)
	}
	check.faults.sort()
	return slices.Clip(check.faults)
}

// File is a file that a key of a target, or of [notify], names.
type File struct {
	Key, Path string
	Secret    bool
}

// Files lists the files that the target names.
func (t Target) Files() []File {
	var all []File
	switch t.Type {
	case TypeGoogle:
		all = []File{{"credentials_file", t.Google.CredentialsFile, true}, {"ca_file", t.Google.CAFile, false}}
	case TypeEntra:
		all = []File{
			{"client_secret_file", t.Entra.ClientSecretFile, true}, {"certificate_file", t.Entra.CertificateFile, true},
			{"ca_file", t.Entra.CAFile, false},
		}
	}
	return slices.DeleteFunc(all, func(f File) bool { return f.Path == "" })
}

// Files lists the files that are needed to tell people.
func (n Notify) Files() []File {
	all := []File{{"ca_file", n.CAFile, false}, {"password_file", n.PasswordFile, true}, {"template", n.Template, false}}
	if program, _, _ := strings.Cut(n.Command, " "); n.Command != "" {
		all = append(all, File{"command", program, false})
	}
	return slices.DeleteFunc(all, func(f File) bool { return f.Path == "" })
}

// kind is what a file or a folder is to us.
type kind struct {
	folder bool
	runs   bool        // it is a program
	open   fs.FileMode // permissions that it must not have
	init   bool        // `samba-pwsync init` makes it
}

var (
	public        = kind{open: 0o022}
	program       = kind{open: 0o022, runs: true}
	secret        = kind{open: 0o027} // the group may read it: the forwarder runs as a user of its own
	ownPublic     = kind{open: 0o022, init: true}
	ownSecret     = kind{open: 0o077, init: true}
	folderOfState = kind{open: 0o007, folder: true, init: true}
)

type files struct {
	config *Config
	faults Faults
}

// look notes what is wrong with a file, and reports whether there is one at all.
func (f *files) look(key []string, path string, k kind) bool {
	if path == "" {
		return false
	}
	fault := func(problem, remedy string) {
		f.faults = append(f.faults, Fault{f.config.file, f.config.lines[dotted(key)], dotted(key), problem, remedy})
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && k.init:
		fault(path+" does not exist", "run `samba-pwsync init`")
	case errors.Is(err, fs.ErrNotExist):
		fault(path+" does not exist", "put the file there or correct the path")
	case err != nil:
		fault(path+": "+reading(err), "make it reachable")
	case k.folder != info.IsDir() || !k.folder && !info.Mode().IsRegular():
		want := "file"
		if k.folder {
			want = "folder"
		}
		fault(path+" is no "+want, "put a "+want+" there or correct the path")
	case k.runs && info.Mode().Perm()&0o100 == 0:
		fault(path+" cannot be run", "run `chmod u+x "+path+"`")
	case k.runs && !isRoots(info):
		fault(path+" belongs to another user, who so sees every new password", "run `chown root "+path+"`")
	case info.Mode().Perm()&k.open != 0:
		fault(fmt.Sprintf("%s has mode %04o: %s", path, info.Mode().Perm(), who(info.Mode().Perm()&k.open)),
			fmt.Sprintf("run `chmod %s %s`", takeAway(k.open), path))
	}
	return err == nil
}

// isRoots reports whether a file belongs to root, or to the user of this process.
func isRoots(info fs.FileInfo) bool {
	uid := int(info.Sys().(*syscall.Stat_t).Uid)
	return uid == 0 || uid == os.Geteuid()
}

// who says in words what the excess permissions allow.
func who(excess fs.FileMode) string {
	if excess&0o044 != 0 {
		return "others can read it"
	}
	if excess&0o022 != 0 {
		return "others can write to it"
	}
	return "others can enter it"
}

// takeAway is the argument of chmod that removes permissions.
func takeAway(open fs.FileMode) string {
	var parts []string
	for _, class := range []struct {
		name  string
		shift int
	}{{"g", 3}, {"o", 0}} {
		what := ""
		for i, letter := range "rwx" {
			if open>>class.shift&(4>>i) != 0 {
				what += string(letter)
			}
		}
		if what != "" {
			parts = append(parts, class.name+"-"+what)
		}
	}
	return strings.Join(parts, ",")
}
