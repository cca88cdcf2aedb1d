package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/breached"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/gate"
	"github.com/samba-pwsync/samba-pwsync/internal/keyring"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/words"
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
	checkNotify(c.Context, list, cfg.Notify, c.Bool("connect"))
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
	checkPolicies(list, cfg)
	if list.faults == 0 {
		list.ok("configuration %s, and the files that it names", path)
		if len(cfg.Target) == 0 {
			list.ok("%s", noTarget)
		}
	}
	return ill
}

// allPolicies are the policies by the name of their section, in the order of precedence.
func allPolicies(cfg *config.Config) iter.Seq2[string, config.Policy] {
	return func(yield func(string, config.Policy) bool) {
		if !yield("policy", cfg.Policy) {
			return
		}
		for _, p := range cfg.Policies {
			if !yield("policy."+p.Name, p.Policy) {
				return
			}
		}
	}
}

// refuses reports whether a rule of a policy can refuse a password.
func refuses(p config.Policy, rule string) bool {
	return p.Mode == config.Enforce && !slices.Contains(p.Audit, rule)
}

// asksLess reports whether a policy lets passwords of fewer than three kinds of characters pass, as Microsoft does not.
func asksLess(p config.Policy) bool {
	if len(p.Tiers) == 0 {
		return !p.Complexity
	}
	return slices.ContainsFunc(p.Tiers, func(tier string) bool {
		_, categories, ok := config.ParseTier(tier)
		return ok && categories < 3
	})
}

// checkPolicies looks at what the policies' rules need, and whether they leave room for a password. That a file is missing, or
// others can write to it, CheckFiles has said.
func checkPolicies(list *checklist, cfg *config.Config) {
	lists, breachedFiles := map[string]bool{}, map[string]bool{}
	for section, p := range allPolicies(cfg) {
		if key := strings.Join(p.Banned, "\x00"); len(p.Banned) > 0 && !lists[key] {
			lists[key] = true
			_, report, err := words.CompileFiles([32]byte{}, p.Banned...)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				list.fault(exitFailed, fmt.Errorf("%s.banned: %w", section, err))
			case report.Words == 0:
				list.attention("%s.banned: there is no word of four characters or more in %s", section, strings.Join(p.Banned, ", "))
			default:
				list.ok("[%s] bans %d words", section, report.Words)
			}
		}
		if p.Breached != "" && !breachedFiles[p.Breached] {
			breachedFiles[p.Breached] = true
			file, err := breached.Open(p.Breached)
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				list.fault(exitFailed, fmt.Errorf("%s.breached: %w", section, err))
			default:
				list.ok("[%s] knows %d breached passwords; to read all of them: samba-pwsync breached info --verify", section, file.Header().Entries)
				_ = file.Close()
			}
		}
		for _, name := range targetNames(cfg) {
			if least := gate.Shortest[cfg.Target[name].Type]; p.Preflight && refuses(p, policy.RuleLength) && refuses(p, policy.RuleTarget) && p.MaxLength < least {
				list.attention("no password can be set for accounts that %s wants: it takes %d characters at least, [%s] max_length allows %d at most", name, least, section, p.MaxLength)
			}
			if cfg.Target[name].Type == config.TypeEntra && p.Preflight && refuses(p, policy.RuleTarget) && asksLess(p) {
				list.ok("[%s] may ask for fewer than 3 kinds of characters; accounts that %s wants need 3 all the same (preflight)", section, name)
			}
		}
	}
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
	for _, file := range cfg.Notify.Files() {
		if err := readableBy(*forwarder, file.Path); err != nil {
			list.fault(exitFailed, fmt.Errorf("notify.%s: %w", file.Key, err))
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
	for _, p := range cfg.Policies {
		filters["policy."+p.Name+".filter"] = p.Filter
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
	if !whole || list.faults != before {
		return
	}
	list.ok("keys in %s", paths.Keys)
	for _, role := range []struct {
		name  string
		files keyring.Files
		keep  time.Duration
	}{{roleAgent, agentKeys(paths), cfg.Directory.ConfirmTimeout}, {roleForwarder, forwarderKeys(paths), cfg.Directory.SecretTTL}} {
		keys, err := keyring.Look(role.files, role.keep)
		if err != nil {
			list.fault(exitFailed, err)
			continue
		}
		if len(keys) > 1 {
			list.ok("%s's key %s", role.name, keysRow(keys))
		}
		for _, k := range keys[1:] {
			if time.Since(k.Due) > overdueFor {
				list.attention("the retired key %s of the %s should have been destroyed %s: does serve run? samba-pwsync status tells why it is kept", k.ID, role.name, clock(k.Due))
			}
		}
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
	checkMatches(ctx, list, cfg, dc.Matching)

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
	for section, p := range allPolicies(cfg) {
		if refuses(p, policy.RuleLength) && p.MaxLength < settings.MinLength {
			list.attention("no password can be set: the domain asks for %d characters at least, [%s] max_length allows %d at most", settings.MinLength, section, p.MaxLength)
		}
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

// checkBase looks for each base_dn: below one that is not there is no account, so each capture would be found unwanted, and nobody have the policy.
func checkBase(ctx context.Context, list *checklist, cfg *config.Config, path string, exists func(context.Context, string) (bool, error)) {
	look := func(key, base string) {
		if base == "" {
			return
		}
		switch found, err := exists(ctx, base); {
		case err != nil:
			list.fault(exitFailed, fmt.Errorf("%s: %w", key, err))
		case !found:
			listFaults(list, config.Faults{{File: path, Key: key, Problem: fmt.Sprintf("the directory has no %q", base),
				Remedy: "correct it, or leave it empty for the whole domain"}})
		}
	}
	look("directory.base_dn", cfg.Directory.BaseDN)
	for _, p := range cfg.Policies {
		look("policy."+p.Name+".base_dn", p.BaseDN)
	}
}

// checkMatches tells of filters that fit nobody: a group whose name is misspelt is no error to LDAP.
func checkMatches(ctx context.Context, list *checklist, cfg *config.Config, matching func(context.Context, string, func(dsdb.GUID) error) error) {
	errOne := errors.New("one is enough")
	look := func(key, filter, so string) {
		if filter == "" {
			return
		}
		switch err := matching(ctx, filter, func(dsdb.GUID) error { return errOne }); {
		case err == nil:
			list.attention("%s: no account matches it, so %s; a group needs its whole distinguished name", key, so)
		case !errors.Is(err, errOne):
			list.fault(exitFailed, fmt.Errorf("%s: %w", key, err))
		}
	}
	for _, p := range cfg.Policies {
		look("policy."+p.Name+".filter", p.Filter, "nobody has this policy")
	}
	for _, name := range targetNames(cfg) {
		look("target."+name+".filter", cfg.Target[name].Filter, "nobody's password is sent there")
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
	for _, p := range cfg.Policies {
		filter("policy."+p.Name+".filter", p.Filter)
	}
	if cfg.Notify.On() {
		look("notify.address", cfg.Notify.Address, "who puts another's there has that one told of his own refused passwords")
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
		_, tells := t.LastChange(ctx, target.User{})
		cancel()
		_ = t.Close()
		if err != nil {
			list.fault(exitFailed, fmt.Errorf("target %s: %s: %w", name, target.Classify(err), err))
			continue
		}
		list.ok("target %s can set passwords", name)
		if errors.Is(tells, target.ErrCannotTell) {
			list.ok("target %s: %v", name, tells)
		}
	}
}
