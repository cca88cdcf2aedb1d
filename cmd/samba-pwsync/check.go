package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "check configuration, keys and folders; with --connect also the directory and the targets",
		Description: "Changes nothing anywhere. Exit code 0: fine, 1: something does not work, 2: the configuration is wrong, " +
			"3: it works, and something needs attention.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "connect", Usage: "also ask the directory and each target whether they would work now"},
		},
		Before: noArguments,
		Action: runCheck,
	}
}

// checklist prints each finding and keeps the gravest for the exit code.
type checklist struct {
	out    io.Writer
	code   int
	faults int
}

func (l *checklist) ok(format string, args ...any) {
	l.print("ok", fmt.Sprintf(format, args...))
}

func (l *checklist) attention(format string, args ...any) {
	l.print("attention", fmt.Sprintf(format, args...))
	if l.code == exitOK {
		l.code = exitAttention
	}
}

// fault reports what is wrong, with hints, and the exit code that it means. The configuration's faults win over the others.
func (l *checklist) fault(code int, err error) {
	l.print("FAULT", err.Error())
	for _, hint := range hints(err) {
		l.print("", "hint: "+hint)
	}
	l.faults++
	if l.code != exitUsage {
		l.code = code
	}
}

// print writes a finding; lines after its first are indented.
func (l *checklist) print(what, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(l.out, "%-11s%s\n", what, printable(strings.TrimSuffix(line, "\n")))
		what = ""
	}
}

// verdict is the exit code as an error.
func (l *checklist) verdict() error {
	if l.code == exitOK {
		return nil
	}
	return &codedError{code: l.code}
}

func runCheck(c *cli.Context) error {
	list, path := &checklist{out: c.App.Writer}, configPath(c)
	absolute, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("finding the configuration: %w", err)
	}
	cfg, err := config.Load(path)
	if faults := config.Faults(nil); errors.As(err, &faults) {
		listFaults(list, faults)
		return list.verdict()
	}
	if err != nil {
		return err
	}
	if _, err := os.ReadDir(cfg.StateDir); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("looking into the state folder: %w", err)
	}
	ill := checkConfig(list, cfg, path)
	checkOwners(list, cfg)
	checkKeys(list, cfg)
	store := askHashStore(c.Context)
	if !c.Bool("connect") && store != storeUnknown {
		checkProof(list, cfg.Directory.Proof, store, passwords{level: aesLevel})
	}
	if c.Bool("connect") {
		complexity := checkDirectory(c.Context, list, cfg, path, store)
		checkScript(c.Context, list, hookCommand(absolute), complexity)
		checkTargets(c.Context, list, cfg, ill)
	}
	return list.verdict()
}

func listFaults(list *checklist, faults config.Faults) {
	for _, f := range faults {
		list.fault(exitUsage, errors.New(f.String()))
	}
}

// checkConfig returns the targets whose files it has found fault with.
func checkConfig(list *checklist, cfg *config.Config, path string) (ill map[string]bool) {
	faults := cfg.CheckFiles()
	listFaults(list, faults)
	ill = checkReadable(list, cfg)
	for _, f := range faults {
		if key := strings.Split(f.Key, "."); key[0] == "target" {
			ill[key[1]] = true
		}
	}
	listFaults(list, filterFaults(cfg, path))
	if len(cfg.Target) == 0 {
		list.fault(exitUsage, errNoTarget)
	}
	if list.faults == 0 {
		list.ok("configuration %s, and the files that it names", path)
	}
	return ill
}

// checkReadable looks whether the forwarder's user can read the files that the targets name, and returns the targets with one
// that he cannot. That a file is missing, CheckFiles has said.
func checkReadable(list *checklist, cfg *config.Config) (ill map[string]bool) {
	ill = map[string]bool{}
	forwarder, err := ownerOf(cfg.Paths().Forwarder)
	if err != nil {
		return ill // checkOwners says it
	}
	for _, name := range targetNames(cfg) {
		for _, file := range cfg.Target[name].Files() {
			if err := readableBy(*forwarder, file.Path); err != nil {
				list.fault(exitFailed, fmt.Errorf("target.%s.%s: %w", name, file.Key, err))
				ill[name] = true
			}
		}
	}
	return ill
}

// filterFaults judges the LDAP filters as the directory would. It stands here because the hook reads the configuration too, and
// must not pay for an LDAP library.
func filterFaults(cfg *config.Config, path string) []config.Fault {
	filters := map[string]string{"directory.filter": cfg.Directory.Filter, "directory.exclude": cfg.Directory.Exclude}
	for name, t := range cfg.Target {
		filters["target."+name+".filter"] = t.Filter
	}
	var faults []config.Fault
	for _, key := range slices.Sorted(maps.Keys(filters)) {
		filter := filters[key]
		if filter == "" {
			continue
		}
		if err := directory.ValidateFilter(filter); err != nil {
			faults = append(faults, config.Fault{File: path, Key: key, Problem: fmt.Sprintf("%q is no LDAP filter", filter),
				Remedy: "write one as RFC 4515 has it, such as (memberOf=CN=Cloud,OU=Groups,DC=example,DC=com)"})
		}
	}
	return faults
}

// checkOwners looks at whose the parts of the state folder are. That they are missing, or open to others, checkConfig has said.
func checkOwners(list *checklist, cfg *config.Config) {
	paths := cfg.Paths()
	forwarder, err := ownerOf(paths.Forwarder)
	if err != nil {
		list.fault(exitFailed, err)
		return
	}
	owners := map[string]account{
		paths.AgentKey: self(), paths.AgentPublicKey: self(), paths.ForwarderKey: *forwarder, paths.ForwarderPublicKey: self(),
	}
	for _, f := range folders(cfg.StateDir, paths, *forwarder) {
		owners[f.path] = f.owner
	}
	for _, path := range slices.Sorted(maps.Keys(owners)) {
		info, err := os.Lstat(path)
		if err != nil {
			continue
		}
		if is, want := accountOf(info), owners[path]; is != want {
			list.fault(exitFailed, fmt.Errorf("%s: %w (%d:%d, not %d:%d)", path, errNotAsInit, is.uid, is.gid, want.uid, want.gid))
		}
	}
}

func checkKeys(list *checklist, cfg *config.Config) {
	paths, before := cfg.Paths(), list.faults
	whole := checkKey(list, paths.AgentKey, paths.AgentPublicKey)
	whole = checkKey(list, paths.ForwarderKey, paths.ForwarderPublicKey) && whole
	if whole && list.faults == before {
		list.ok("keys in %s", paths.Keys)
	}
}

// checkKey reports whether both halves of a key are there; that they are not, checkConfig has said.
func checkKey(list *checklist, private, public string) bool {
	key, errPrivate := seal.LoadPrivate(private)
	pub, errPublic := seal.LoadPublic(public)
	for _, err := range []error{errPrivate, errPublic} {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			list.fault(exitFailed, err)
		}
	}
	if errPrivate != nil || errPublic != nil {
		return false
	}
	if pub.ID() != key.Public().ID() {
		list.fault(exitFailed, fmt.Errorf("%s and %s: %w", public, private, errStrangers))
	}
	return true
}

// checkDirectory also reports whether password complexity is on for everybody, without which Samba does not run the hook.
func checkDirectory(ctx context.Context, list *checklist, cfg *config.Config, path string, store hashStore) (complexity bool) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	dc, err := directory.Dial(ctx, cfg.Directory.URL)
	if err != nil {
		list.fault(exitFailed, err)
		return false
	}
	defer dc.Close()
	root, err := dc.Root(ctx)
	if err != nil {
		list.fault(exitFailed, err)
		return false
	}
	list.ok("directory %s, domain %s, over %s", root.DNSHostName, root.DomainName, cfg.Directory.URL)
	checkControllers(ctx, list, cfg, path, root.InvocationID, dc.Controllers)
	checkBase(ctx, list, cfg, path, dc.Exists)

	settings, err := dc.PasswordSettings(ctx)
	if err != nil {
		list.fault(exitFailed, err)
		return false
	}
	complexity = true
	if !settings.Complexity {
		complexity = false
		list.attention("the domain's password complexity is off: Samba does not run the hook; samba-tool domain passwordsettings set --complexity=on")
	}
	for _, pso := range settings.FineGrained {
		if !pso.Complexity {
			complexity = false
			list.attention("complexity is off in the fine-grained policy %s: Samba does not run the hook for its users; samba-tool domain passwordsettings pso set %q --complexity=on", pso.Name, pso.Name)
		}
	}
	if complexity {
		list.ok("password complexity is on")
	}
	held := passwords{level: root.DomainFunctionality}
	if held.unhashed, held.more, err = dc.Unhashed(ctx, 5); err != nil {
		list.fault(exitFailed, err)
	} else {
		checkProof(list, cfg.Directory.Proof, store, held)
	}
	checkAttributes(ctx, list, cfg, dc.SelfWritable)
	if cfg.Policy.Mode == config.Enforce && cfg.Policy.MaxLength < settings.MinLength {
		list.attention("no password can be set: the domain asks for %d characters at least, [policy] max_length allows %d at most", settings.MinLength, cfg.Policy.MaxLength)
	}
	return complexity
}

// checkControllers looks whether this DC, and those that are named as peers, are DCs on which passwords change, and whether there are others.
func checkControllers(ctx context.Context, list *checklist, cfg *config.Config, path string, self dsdb.GUID,
	controllers func(context.Context) ([]directory.Controller, error)) {
	dcs, err := controllers(ctx)
	if err != nil {
		list.fault(exitFailed, err)
		return
	}
	here := slices.ContainsFunc(dcs, func(dc directory.Controller) bool { return dc.InvocationID == self && dc.Writable })
	for _, dc := range dcs {
		switch named := slices.ContainsFunc(cfg.Directory.Peers, func(peer string) bool { return strings.EqualFold(dc.Name, peer) }); {
		case dc.InvocationID == self && !dc.Writable:
			list.fault(exitFailed, errReadOnly)
		case here && dc.InvocationID != self && dc.Writable && !named:
			list.attention("passwords change at %s, too, and it is not among [directory] peers: install samba-pwsync there and name each in the other's peers; until then what is changed there is drift", dc.Name)
		}
	}
	for _, peer := range cfg.Directory.Peers {
		problem := ""
		switch i := slices.IndexFunc(dcs, func(dc directory.Controller) bool { return strings.EqualFold(dc.Name, peer) }); {
		case i < 0:
			problem = fmt.Sprintf("the domain has no domain controller %q", peer)
		case dcs[i].InvocationID == self:
			problem = fmt.Sprintf("%q is this domain controller itself", peer)
		case !dcs[i].Writable:
			problem = fmt.Sprintf("%q is a read-only domain controller: no password changes there", peer)
		default:
			list.ok("peer %s: a writable domain controller; that samba-pwsync runs there, with this one among its peers, cannot be seen from here", dcs[i].Name)
			continue
		}
		listFaults(list, config.Faults{{File: path, Key: "directory.peers", Problem: problem,
			Remedy: "name the other writable domain controllers that run samba-pwsync"}})
	}
}

// checkBase looks for base_dn: below one that is not there is no account, and each capture would be found unwanted.
func checkBase(ctx context.Context, list *checklist, cfg *config.Config, path string, exists func(context.Context, string) (bool, error)) {
	base := cfg.Directory.BaseDN
	if base == "" {
		return
	}
	switch found, err := exists(ctx, base); {
	case err != nil:
		list.fault(exitFailed, fmt.Errorf("directory.base_dn: %w", err))
	case !found:
		listFaults(list, config.Faults{{File: path, Key: "directory.base_dn", Problem: fmt.Sprintf("the directory has no %q", base),
			Remedy: "correct it, or leave it empty for the whole domain"}})
	}
}

// inFilter finds the attributes that a filter asks for. In a filter's values, a parenthesis is escaped.
var inFilter = regexp.MustCompile(`\(\s*([A-Za-z][A-Za-z0-9-]*)[^=()]*=`)

// checkAttributes tells of attributes that users may write of themselves. Where one of them names the account at a target, a
// user can name another's there, and so set that one's password; where a filter asks for one, each user can have it match
// himself or not.
func checkAttributes(ctx context.Context, list *checklist, cfg *config.Config, selfWritable func(context.Context, string) (bool, error)) {
	found := false
	look := func(key, attribute, danger string) {
		switch writable, err := selfWritable(ctx, attribute); {
		case errors.Is(err, directory.ErrNotFound):
			list.attention("%s: the directory knows no attribute %s, so no account has it", key, attribute)
		case err != nil:
			list.fault(exitFailed, err)
		case writable:
			list.attention("%s: users may write their own %s, unless you have forbidden it: %s", key, attribute, danger)
		default:
			return
		}
		found = true
	}
	filter := func(key, filter string) {
		for _, match := range inFilter.FindAllStringSubmatch(filter, -1) {
			look(key, match[1], "each decides whether the filter matches him")
		}
	}
	filter("directory.filter", cfg.Directory.Filter)
	filter("directory.exclude", cfg.Directory.Exclude)
	for _, name := range targetNames(cfg) {
		look("target."+name+".user", cfg.Target[name].User, "who puts another's name there sets that one's password at the target")
		filter("target."+name+".filter", cfg.Target[name].Filter)
	}
	if !found {
		list.ok("users choose neither whose password they set nor whether they are synchronised")
	}
}

// checkTargets asks the targets whose files are as they should be: of the others enough has been said.
func checkTargets(ctx context.Context, list *checklist, cfg *config.Config, ill map[string]bool) {
	for _, name := range targetNames(cfg) {
		if ill[name] {
			continue
		}
		t, err := openTarget(name, cfg.Target[name])
		if err != nil {
			list.fault(exitUsage, err)
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		err = t.Check(ctx)
		cancel()
		_ = t.Close()
		if err != nil {
			list.fault(exitFailed, fmt.Errorf("target %s: %s: %w", name, target.Classify(err), err))
			continue
		}
		list.ok("target %s can set passwords", name)
	}
}
