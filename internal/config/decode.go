package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decoder fills a Config from a tree and collects what does not fit. A key with a fault leaves its field as it was.
type decoder struct {
	file   string
	lines  map[string]int
	faults Faults
}

// fault notes a problem of a key, at the line of the key or of the nearest table around it.
func (d *decoder) fault(path []string, problem, remedy string) {
	line := 0
	for n := len(path); n > 0 && line == 0; n-- {
		line = d.lines[dotted(path[:n])]
	}
	d.faults = append(d.faults, Fault{d.file, line, dotted(path), problem, remedy})
}

func (d *decoder) config(c *Config, tree map[string]any) {
	tree, named := splitPolicies(tree)
	d.table(nil, keysOf(reflect.ValueOf(c).Elem()), tree, misplaced)
	d.policy([]string{"policy"}, c.Policy)
	d.policies(c, named)
	d.notify(c.Notify)
}

// notify looks for what does not fit together in [notify].
func (d *decoder) notify(n Notify) {
	at := func(key string) []string { return []string{"notify", key} }
	if n.SMTP != "" && n.From == "" {
		d.fault(at("from"), "is missing, and smtp is given", `add from = "helpdesk@example.com"`)
	}
	switch {
	case n.User != "" && n.PasswordFile == "":
		d.fault(at("user"), "is given, and password_file is not", "give both or neither")
	case n.User == "" && n.PasswordFile != "":
		d.fault(at("password_file"), "is given, and user is not", "give both or neither")
	case n.User != "" && n.TLS == None:
		d.fault(at("tls"), "would have the mail server's password sent in clear", `choose "starttls" or "implicit", or remove user and password_file`)
	}
}

// splitPolicies takes the sections [policy.NAME] out of the tree.
func splitPolicies(tree map[string]any) (rest, named map[string]any) {
	policy, _ := tree["policy"].(map[string]any)
	known := keysOf(reflect.ValueOf(&Policy{}).Elem())
	own, named := map[string]any{}, map[string]any{}
	for name, value := range policy {
		_, isSection := value.(map[string]any)
		if isSection && !slices.ContainsFunc(known, func(k key) bool { return k.name == name }) {
			named[name] = value
		} else {
			own[name] = value
		}
	}
	if len(named) == 0 {
		return tree, nil
	}
	rest = maps.Clone(tree)
	rest["policy"] = own
	return rest, named
}

// policies reads the sections [policy.NAME]; [policy], from which they inherit, has been read.
func (d *decoder) policies(c *Config, named map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(named)) {
		path := []string{"policy", name}
		switch {
		case name == DefaultPolicy:
			d.fault(path, "is what [policy] itself is called", "choose another name")
		case !isName(name):
			d.fault(path, "is no name for a policy", goodName)
		}
		p := NamedPolicy{Name: name, Policy: c.Policy}
		keys := append(keysOf(reflect.ValueOf(&p).Elem()), keysOf(reflect.ValueOf(&p.Policy).Elem())...)
		before := len(d.faults)
		d.table(path, keys, named[name].(map[string]any), misplaced)
		if len(d.faults) == before && p.BaseDN == "" && p.Filter == "" {
			d.fault(path, "says of no accounts that they are meant", "write base_dn or filter")
		}
		if len(d.faults) == before { // else what is wrong with one key would be said of others as well
			d.policy(path, p.Policy)
		}
		for _, other := range c.Policies {
			if other.Precedence == p.Precedence && p.Precedence != 0 {
				d.fault(append(path, "precedence"), fmt.Sprintf("is %d, as that of policy.%s", p.Precedence, other.Name), "give each policy a number of its own")
			}
		}
		c.Policies = append(c.Policies, p)
	}
	slices.SortStableFunc(c.Policies, func(a, b NamedPolicy) int { return a.Precedence - b.Precedence })
}

// policy looks for what does not fit together in a policy.
func (d *decoder) policy(path []string, p Policy) {
	at := func(key string) []string { return append(slices.Clone(path), key) }
	if p.MinLength > p.MaxLength {
		d.fault(at("min_length"), fmt.Sprintf("is %d, more than max_length, which is %d", p.MinLength, p.MaxLength),
			"lower min_length or raise max_length")
	}
	length, categories := 0, 6
	for _, tier := range p.Tiers {
		l, n, _ := ParseTier(tier) // its form has been judged
		switch {
		case l <= length:
			d.fault(at("tiers"), fmt.Sprintf("%s comes after a tier that begins at %d characters", quote(tier), length), "sort them by length, each length once")
		case n >= categories:
			d.fault(at("tiers"), fmt.Sprintf("%s asks no less of longer passwords than the tier in front of it", quote(tier)), "remove it or lower its number of categories")
		case l > p.MaxLength:
			d.fault(at("tiers"), fmt.Sprintf("%s begins above max_length, which is %d", quote(tier), p.MaxLength), "raise max_length or remove the tier")
		default:
			length, categories = l, n
			continue
		}
		return
	}
}

// ParseTier reads a tier: from how many UTF-16 code units on a password needs how many of Samba's five categories.
func ParseTier(tier string) (length, categories int, ok bool) {
	before, after, ok := strings.Cut(tier, ":")
	length, err1 := strconv.Atoi(before)
	categories, err2 := strconv.Atoi(after)
	ok = ok && err1 == nil && err2 == nil && 1 <= length && length <= 256 && 0 <= categories && categories <= 5
	return length, categories, ok
}

// key is one key that a table may hold, and the field that it fills.
type key struct {
	name  string
	tag   reflect.StructTag
	field reflect.Value
}

// keysOf lists the keys of a struct, in the order of its fields.
func keysOf(s reflect.Value) []key {
	var keys []key
	for i := range s.NumField() {
		tag := s.Type().Field(i).Tag
		if name := tag.Get("toml"); name != "" {
			keys = append(keys, key{name, tag, s.Field(i)})
		}
	}
	return keys
}

// table fills keys from a table. elsewhere explains a key that is none of them but known in another place.
func (d *decoder) table(path []string, keys []key, tree map[string]any, elsewhere func(name string) (problem, remedy string)) {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
		at := append(slices.Clone(path), k.name)
		if value, ok := tree[k.name]; ok {
			d.value(at, k, value)
		} else if k.tag.Get("required") != "" && k.field.IsZero() {
			d.fault(at, "is missing", "add "+k.name+" = "+sample(k))
		}
	}
	for name := range tree {
		if slices.Contains(names, name) {
			continue
		}
		at := append(slices.Clone(path), name)
		problem, remedy := elsewhere(name)
		if problem == "" {
			problem, remedy = "is not known", advice(name, names)
		}
		d.fault(at, problem, remedy)
	}
}

func (d *decoder) value(path []string, k key, value any) {
	switch field := k.field.Addr().Interface().(type) {
	case *string:
		if text, ok := value.(string); !ok {
			d.wrongType(path, value, "a string", "put it in quotes")
		} else if problem, remedy := judgeText(k.tag, text); problem != "" {
			d.fault(path, problem, remedy)
		} else {
			*field = text
		}
	case *time.Duration:
		const remedy = `write a number and a unit in quotes, like "90s", "2m" or "72h"`
		text, ok := value.(string)
		if !ok {
			d.wrongType(path, value, "a duration", remedy)
			return
		}
		duration, err := time.ParseDuration(text)
		if err != nil {
			d.fault(path, fmt.Sprintf("%s is no duration", quote(text)), remedy)
		} else if lo, hi := limits(k.tag, mustDuration); duration < lo || duration > hi {
			d.outOfRange(path, k.tag, quote(text))
		} else {
			*field = duration
		}
	case *bool:
		if b, ok := value.(bool); !ok {
			d.wrongType(path, value, "true or false", "write true or false, without quotes")
		} else {
			*field = b
		}
	case *int:
		if n, ok := value.(int64); !ok {
			d.wrongType(path, value, "a whole number", "write a whole number, without quotes")
		} else if lo, hi := limits(k.tag, mustInt); n < lo || n > hi {
			d.outOfRange(path, k.tag, strconv.FormatInt(n, 10))
		} else {
			*field = int(n)
		}
	case *float64:
		f, ok := value.(float64)
		if n, whole := value.(int64); whole {
			f, ok = float64(n), true
		}
		if !ok {
			d.wrongType(path, value, "a number", "write a number, without quotes")
		} else if lo, hi := limits(k.tag, mustFloat); !(f >= lo && f <= hi) { // so that NaN is out of range
			d.outOfRange(path, k.tag, strconv.FormatFloat(f, 'g', -1, 64))
		} else {
			*field = f
		}
	case *[]string:
		elements, ok := value.([]any)
		if !ok {
			d.wrongType(path, value, "an array of strings", "put it in brackets, and each of its strings in quotes")
			return
		}
		texts := make([]string, len(elements))
		for i, element := range elements {
			if texts[i], ok = element.(string); !ok {
				d.fault(path, "has "+typeOf(element)+" in it, not only strings", "put each of its strings in quotes")
				return
			}
			problem, remedy := judgeText(k.tag, texts[i])
			if texts[i] == "" {
				problem, remedy = "has an empty string in it", "remove that"
			}
			if problem != "" {
				d.fault(path, problem, remedy)
				return
			}
		}
		*field = texts
	case *map[string]Target:
		if tree, ok := d.section(path, value, "write a section [target.NAME] for each target"); ok {
			for name, value := range tree {
				d.target(*field, append(slices.Clone(path), name), value)
			}
		}
	default: // a section
		if tree, ok := d.section(path, value, "write a section ["+dotted(path)+"]"); ok {
			d.table(path, keysOf(k.field), tree, misplaced)
		}
	}
}

func (d *decoder) section(path []string, value any, remedy string) (map[string]any, bool) {
	tree, ok := value.(map[string]any)
	if !ok {
		d.wrongType(path, value, "a section", remedy)
	}
	return tree, ok
}

// target reads one [target.NAME], whose keys depend on its type.
func (d *decoder) target(targets map[string]Target, path []string, value any) {
	tree, ok := d.section(path, value, "write a section ["+dotted(path)+"]")
	if !ok {
		return
	}
	name := path[len(path)-1]
	if !isName(name) {
		d.fault(path, "is no name for a target", goodName)
	}
	t := DefaultTarget()
	keys := keysOf(reflect.ValueOf(&t).Elem())
	kind, _ := tree["type"].(string)
	special := typeKeys(reflect.ValueOf(&t).Elem())
	mine, known := special[kind]
	if !known {
		// Which keys are right cannot be told before the type is.
		tree = maps.Clone(tree)
		for _, theirs := range special {
			for _, k := range theirs {
				delete(tree, k.name)
			}
		}
	}
	d.table(path, append(keys, mine...), tree, func(name string) (problem, remedy string) {
		for other, theirs := range special {
			if slices.ContainsFunc(theirs, func(k key) bool { return k.name == name }) {
				return fmt.Sprintf("belongs to targets of type %q, and this one is of type %q", other, kind), "remove it"
			}
		}
		return misplaced(name)
	})
	if kind == TypeEntra && (tree["client_secret_file"] == nil) == (tree["certificate_file"] == nil) {
		problem := "has neither client_secret_file nor certificate_file"
		if tree["certificate_file"] != nil {
			problem = "has both client_secret_file and certificate_file"
		}
		d.fault(path, problem, "give one of the two")
	}
	targets[name] = t
}

// typeKeys lists the keys that only one type of target has, by type.
func typeKeys(target reflect.Value) map[string][]key {
	special := map[string][]key{}
	for i := range target.NumField() {
		if kind := target.Type().Field(i).Tag.Get("type"); kind != "" {
			special[kind] = keysOf(target.Field(i))
		}
	}
	return special
}

const goodName = `choose one word of a-z, 0-9, "-" and "_", at most 32 characters long`

// isName is for targets and policies.
func isName(name string) bool {
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return name != "" && len(name) <= 32
}

func (d *decoder) wrongType(path []string, value any, want, remedy string) {
	if _, isSection := value.(map[string]any); isSection && len(path) == 2 && path[0] == "policy" {
		remedy = "a policy cannot have the name of a key: choose another name"
	}
	d.fault(path, "is "+typeOf(value)+", not "+want, remedy)
}

func (d *decoder) outOfRange(path []string, tag reflect.StructTag, value string) {
	lo, hi, _ := strings.Cut(tag.Get("range"), " ")
	d.fault(path, value+" is out of range", "choose from "+lo+" to "+hi)
}

func limits[T any](tag reflect.StructTag, parse func(string) T) (lo, hi T) {
	first, last, _ := strings.Cut(tag.Get("range"), " ")
	return parse(first), parse(last)
}

// The tags are ours: one that does not parse is a mistake that the first test meets.

func mustDuration(s string) time.Duration { return must(time.ParseDuration(s)) }
func mustFloat(s string) float64          { return must(strconv.ParseFloat(s, 64)) }
func mustInt(s string) int64              { return must(strconv.ParseInt(s, 10, 64)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// typeOf names the type of a value as TOML's users know it.
func typeOf(value any) string {
	switch value.(type) {
	case string:
		return "a string"
	case bool:
		return "true or false"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a fraction"
	case map[string]any:
		return "a section"
	case []any:
		return "an array"
	default:
		return "a date or a time"
	}
}

// sample is a value for a key that is missing.
func sample(k key) string {
	if oneof := k.tag.Get("oneof"); oneof != "" {
		return alternatives(oneof)
	}
	if k.field.Kind() == reflect.Int {
		return k.tag.Get("example")
	}
	return strconv.Quote(k.tag.Get("example"))
}

// alternatives writes out the values of a oneof tag: `"a", "b" or "c"`.
func alternatives(oneof string) string {
	values := strings.Fields(oneof)
	for i := range values {
		values[i] = strconv.Quote(values[i])
	}
	last := len(values) - 1
	if last == 0 {
		return values[0]
	}
	return strings.Join(values[:last], ", ") + " or " + values[last]
}

// quote writes a value of the file into a message, cut if it is long.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
