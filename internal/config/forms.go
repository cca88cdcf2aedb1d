package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// judgeText says what is wrong with the text of a key, by its tags; problem is empty if nothing is.
func judgeText(tag reflect.StructTag, text string) (problem, remedy string) {
	oneof, later := strings.Fields(tag.Get("oneof")), strings.Fields(tag.Get("later"))
	switch form := forms[tag.Get("form")]; {
	case len(oneof) > 0:
		if slices.Contains(oneof, text) {
			return "", ""
		}
		remedy = "choose " + alternatives(tag.Get("oneof"))
		if slices.Contains(later, text) {
			return quote(text) + " is for a later version", remedy
		}
		return quote(text) + " is not known", remedy
	case text == "" && tag.Get("required") != "":
		return "is empty", "give " + form.like
	case text != "" && !form.fits(text):
		return quote(text) + " is no " + form.name, "give " + form.like
	}
	return "", ""
}

// forms are what the tag form can ask of a text. They know what the text must look like, not what it means.
var forms = map[string]struct {
	name string // "is no …"
	like string // "give …"
	fits func(string) bool
}{
	"path": {"absolute path", "an absolute path", func(s string) bool {
		return filepath.IsAbs(s) && !strings.ContainsRune(s, 0)
	}},
	"command": {"command", "the absolute path of a program, and its arguments; there is no shell, so what needs one belongs into a script", func(s string) bool {
		return filepath.IsAbs(s) && !strings.ContainsAny(s, "\x00\t\r\n|&;<>()$`\\\"'*?[]#~%")
	}},
	"tier": {"tier", `LENGTH:CATEGORIES, like "12:3": 1 to 256 characters, 0 to 5 categories`, func(s string) bool {
		_, _, ok := ParseTier(s)
		return ok
	}},
	"ldapi": {"LDAPI URL", "ldapi:// and the absolute path of the privileged socket: only there a DC shows what proves a password", func(s string) bool {
		path, ok := strings.CutPrefix(s, "ldapi://")
		return ok && (strings.HasPrefix(path, "/") || strings.HasPrefix(path, "%2F")) && !strings.ContainsAny(path, "?# ") // OpenLDAP escapes the path
	}},
	"https": {"https URL", "https:// and a host, without a user, a query and a fragment", func(s string) bool {
		rest, ok := strings.CutPrefix(s, "https://")
		host, _, _ := strings.Cut(rest, "/")
		return ok && host != "" && host[0] != ':' && !strings.ContainsAny(rest, "@?# \t\r\n\"\\")
	}},
	"filter":    {"LDAP filter", "a filter in parentheses that match, like (mail=*)", isFilter},
	"attribute": {"attribute name", "the name of one directory attribute, like mail or userPrincipalName", isAttribute},
	"domain":    {"domain name", `a domain name without "@", like example.com`, isDomain},
	"email": {"e-mail address", "an address like pwsync@example.com", func(s string) bool {
		user, domain, _ := strings.Cut(s, "@")
		return user != "" && isDomain(domain) && !strings.ContainsAny(s, " \t\r\n")
	}},
	"server and port": {"server with a port", "HOST:PORT, like mail.example.com:587", func(s string) bool {
		colon := strings.LastIndexByte(s, ':')
		if colon <= 0 {
			return false
		}
		host, port := s[:colon], s[colon+1:]
		n, err := strconv.Atoi(port)
		if inner, ok := strings.CutPrefix(host, "["); ok { // IPv6
			host, ok = strings.CutSuffix(inner, "]")
			return ok && err == nil && n > 0 && n < 65536 && host != "" && !strings.ContainsFunc(host, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF:.", r) })
		}
		return err == nil && n > 0 && n < 65536 && isDomain(host)
	}},
	"line": {"line of text", "one line of text", func(s string) bool {
		return len(s) <= 200 && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
	}},
	"dn": {"distinguished name", "a distinguished name like OU=People,DC=example,DC=com", func(s string) bool {
		for rdn := range strings.SplitSeq(strings.ReplaceAll(s, `\,`, ""), ",") {
			if name, value, _ := strings.Cut(rdn, "="); !isAttribute(strings.TrimSpace(name)) || value == "" {
				return false
			}
		}
		return true
	}},
	"server": {"short server name", "the name of one domain controller without its domain, like DC2", func(s string) bool {
		return !strings.ContainsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\r\n./\\,\"", r) })
	}},
	"word": {"ID", "the ID without spaces or slashes, as Microsoft's portal shows it", func(s string) bool {
		return !strings.ContainsAny(s, " \t\r\n/\\?#%")
	}},
}

// isFilter looks at the parentheses alone: in a filter's values they are escaped, so they show its structure.
func isFilter(s string) bool {
	depth := 0
	for i, c := range []byte(s) {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth < 0 || depth == 0 && i < len(s)-1 {
			return false
		}
	}
	return depth == 0 && len(s) > 2
}

func isAttribute(s string) bool {
	for i, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && (c >= '0' && c <= '9' || c == '-')) {
			return false
		}
	}
	return s != ""
}

// isDomain lets internationalised names through as people write them.
func isDomain(s string) bool {
	return s != "" && !strings.HasPrefix(s, ".") && !strings.HasSuffix(s, ".") && !strings.Contains(s, "..") &&
		!strings.ContainsAny(s, "@ \t\r\n/:\\\"")
}

// advice is the remedy for a key that no table of this kind has.
func advice(name string, known []string) string {
	best, distance := "", 1+len(name)/3 // further away it is not a slip
	for _, candidate := range known {
		if n := editDistance(name, candidate); n <= distance {
			best, distance = candidate, n-1
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s? if not, remove it", best)
	}
	return "remove it; what is known here: " + strings.Join(known, ", ")
}

// misplaced explains a key that another section has: in TOML everything below a section's line belongs to that section.
func misplaced(name string) (problem, remedy string) {
	root := keysOf(reflect.ValueOf(Default()).Elem())
	for _, section := range root {
		switch {
		case section.name == name:
			return "does not belong into this section", "move it up, in front of the first section"
		case section.field.Kind() == reflect.Struct && slices.ContainsFunc(keysOf(section.field), func(k key) bool { return k.name == name }):
			return "does not belong here", fmt.Sprintf("move it into the section [%s]", section.name)
		}
	}
	return "", ""
}

// editDistance counts the characters to insert, delete or replace between a and b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
