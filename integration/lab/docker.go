package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// label marks everything that a lab makes; its value names the process that owns it (see owner).
const label = "org.samba-pwsync.lab"

// A Container is a running container of the lab.
type Container struct {
	Name string
	IP   string // in the lab's network; the host reaches it
}

// ExitError is how a command in a container ended when it did not end with 0.
type ExitError struct {
	Command string
	Code    int
	Output  string // what it wrote to stdout and stderr
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit code %d: %s", e.Command, e.Code, strings.TrimSpace(e.Output))
}

// Exec runs a command in the container, gives it stdin, and returns what it wrote to stdout. Secrets belong on stdin: the
// arguments are seen by everybody on the host and stay in Docker's events. A command that ends with another code than 0
// is an *ExitError.
func (c Container) Exec(ctx context.Context, stdin string, command ...string) (string, error) {
	return docker(ctx, stdin, append([]string{"exec", "-i", c.Name}, command...)...)
}

// Stream runs a command in the container and copies its stdout to w.
func (c Container) Stream(ctx context.Context, w io.Writer, command ...string) error {
	return stream(ctx, nil, w, append([]string{"exec", c.Name}, command...)...)
}

// WriteFile puts a file into the container without naming its contents anywhere else.
func (c Container) WriteFile(ctx context.Context, path, mode, contents string) error {
	_, err := c.Exec(ctx, contents, "sh", "-c", `umask 077; mkdir -p "${1%/*}"; cat >"$1"; chmod "$2" "$1"`, "write", path, mode)
	if err != nil {
		return fmt.Errorf("writing %s in %s: %w", path, c.Name, err)
	}
	return nil
}

// Files copies the container's whole file system to w, as a tar archive; what is mounted there is not in it.
func (c Container) Files(ctx context.Context, w io.Writer) error {
	return stream(ctx, nil, w, "export", c.Name)
}

// Output copies to w what the container's programs wrote to their standard output and error, as Docker keeps it.
func (c Container) Output(ctx context.Context, w io.Writer) error {
	cmd := exec.CommandContext(ctx, "docker", "logs", c.Name)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("reading the output of %s: %w", c.Name, err)
	}
	return nil
}

// Describe copies to w all that Docker keeps about the container.
func (c Container) Describe(ctx context.Context, w io.Writer) error {
	return stream(ctx, nil, w, "inspect", c.Name)
}

func docker(ctx context.Context, stdin string, args ...string) (string, error) {
	var out bytes.Buffer
	err := stream(ctx, strings.NewReader(stdin), &out, args...)
	return out.String(), err
}

func stream(ctx context.Context, stdin io.Reader, stdout io.Writer, args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("running docker %s: %w", args[0], ctx.Err())
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return fmt.Errorf("running docker: %w", err)
	}
	output := stderr.String()
	if b, ok := stdout.(*bytes.Buffer); ok {
		output = b.String() + output
	}
	return &ExitError{Command: "docker " + strings.Join(args, " "), Code: exit.ExitCode(), Output: output}
}

// owner names this process for as long as it lives: its number and the moment of its start, since numbers come again.
func owner() string { return process(os.Getpid()) }

func process(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The command's name, in brackets, may itself hold blanks and brackets; the fields after the last bracket do not.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if fields[0] == "Z" || fields[0] == "X" {
		return "" // dead, and nobody has asked for its exit code
	}
	return fmt.Sprintf("%d.%s", pid, fields[19]) // field 22 of proc(5): starttime
}

func alive(owner string) bool {
	var pid int
	_, _ = fmt.Sscanf(owner, "%d.", &pid)
	return pid > 0 && process(pid) == owner
}

// Clean removes the containers, networks and folders of labs whose process is gone: killed, or the machine went down.
func Clean(ctx context.Context) error {
	dead := func(kind string, args ...string) ([]string, error) {
		out, err := docker(ctx, "", append(args, "--filter", "label="+label, "--format", `{{.ID}} {{.Label "`+label+`"}}`)...)
		if err != nil {
			return nil, fmt.Errorf("looking for old %s: %w", kind, err)
		}
		var ids []string
		for line := range strings.Lines(out) {
			if id, of, _ := strings.Cut(strings.TrimSpace(line), " "); !alive(of) {
				ids = append(ids, id)
			}
		}
		return ids, nil
	}
	containers, err := dead("containers", "ps", "-a")
	if err != nil {
		return err
	}
	networks, err := dead("networks", "network", "ls")
	if err != nil {
		return err
	}
	for _, id := range containers {
		if _, err := docker(ctx, "", "rm", "-f", "-v", id); err != nil && !beaten(err) {
			return fmt.Errorf("removing an old container: %w", err)
		}
	}
	for _, id := range networks {
		if _, err := docker(ctx, "", "network", "rm", id); err != nil && !beaten(err) {
			return fmt.Errorf("removing an old network: %w", err)
		}
	}
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	for _, folder := range folders {
		of, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(folder), folderPrefix), "-")
		if !alive(of) {
			_ = os.RemoveAll(folder) // best effort: a folder that stays harms nobody
		}
	}
	return nil
}

// beaten reports whether another process that cleans up was quicker.
func beaten(err error) bool {
	exit, ok := errors.AsType[*ExitError](err)
	said := ""
	if ok {
		said = strings.ToLower(exit.Output)
	}
	return strings.Contains(said, "no such container") || strings.Contains(said, "already in progress") || strings.Contains(said, "not found")
}

// RunIn runs a command in the image of a suite's domain controller without starting one: for what Samba's programs and libraries say by
// themselves. A command that ends with another code than 0 is an *ExitError.
func RunIn(ctx context.Context, suite string, stdin io.Reader, stdout io.Writer, command ...string) error {
	build, err := checkout()
	if err != nil {
		return err
	}
	image := "samba-pwsync/dc:" + suite + "-" + build
	if err := haveImage(ctx, image); err != nil {
		return err
	}
	args := []string{"run", "--rm", "-i", "--network", "none", "--label", label + "=" + owner(), "--entrypoint", command[0], image}
	return stream(ctx, stdin, stdout, append(args, command[1:]...)...)
}
