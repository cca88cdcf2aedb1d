package main

import (
	"bytes"
	"fmt"
	"strings"
)

const exampleHead = `Configuration of samba-pwsync. All keys are here, with # in front: each line shows the default, or where its end says so, an example. The manual is samba-pwsync.toml(5); "samba-pwsync check" lists what is wrong with the file.`

// example writes the file that `samba-pwsync init` installs. As it is, it means the same as an empty one.
func example(sections []section) []byte {
	var b bytes.Buffer
	b.WriteString(wrap(exampleHead, "# "))
	for _, s := range sections {
		switch {
		case s.name == "":
		case s.name == "policy.NAME":
			fmt.Fprintf(&b, "\n%s#[policy.staff]\n", wrap(s.text, "# "))
		case s.name != "target.NAME":
			fmt.Fprintf(&b, "\n%s[%s]\n", wrap(s.text, "# "), s.name)
		case s.kind == "":
			fmt.Fprintf(&b, "\n%s", wrap(s.text, "# "))
			continue // its keys follow in the first target
		default:
			fmt.Fprintf(&b, "\n%s#[target.%s]\n#type = %q\n", wrap(s.text, "# "), s.kind, s.kind)
			exampleKeys(&b, s.keys)
			if common := commonKeys(sections); s.kind == firstKind(sections) {
				exampleKeys(&b, common)
			} else {
				b.WriteString("\n" + wrap("Besides: "+names(common)+", as above.", "# "))
			}
			continue
		}
		exampleKeys(&b, s.keys)
	}
	return b.Bytes()
}

func exampleKeys(b *bytes.Buffer, keys []key) {
	for _, k := range keys {
		fmt.Fprintf(b, "\n%s", wrap(k.text, "# "))
		if k.choices != "" {
			b.WriteString("# " + k.choices + ".\n")
		}
		if k.limits != "" {
			b.WriteString("# From " + k.limits + ".\n")
		}
		value, remark := k.standard, ""
		switch {
		case k.required:
			value, remark = k.sample, "  # an example; needed"
		case (k.standard == `""` || k.standard == "[]") && k.sample != "":
			value, remark = k.sample, "  # an example; the default is "+k.standard
		}
		fmt.Fprintf(b, "#%s = %s%s\n", k.name, value, remark)
	}
}

// commonKeys are the keys that all types of targets have, but for the type itself.
func commonKeys(sections []section) []key {
	for _, s := range sections {
		if s.name == "target.NAME" && s.kind == "" {
			return s.keys[1:]
		}
	}
	return nil
}

func firstKind(sections []section) string {
	for _, s := range sections {
		if s.kind != "" {
			return s.kind
		}
	}
	return ""
}

func names(keys []key) string {
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = k.name
	}
	return strings.Join(all, ", ")
}
