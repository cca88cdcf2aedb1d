package google

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/contract"
)

// parameters says what is wrong with what follows the question mark.
func parameters(query url.Values, known map[string]contract.Parameter) string {
	for name, values := range query {
		p, ok := known[name]
		if !ok {
			return fmt.Sprintf("there is no query parameter %q", name)
		}
		if len(values) > 1 {
			return fmt.Sprintf("the query parameter %s stands twice", name)
		}
		value := values[0]
		switch {
		case name == "access_token" || name == "oauth_token":
			return "a token stands in the URL, where logs would keep it"
		case len(p.Enum) > 0 && !slices.Contains(p.Enum, value):
			return fmt.Sprintf("the query parameter %s is not one of %s", name, strings.Join(p.Enum, ", "))
		case p.Type == "boolean" && value != "true" && value != "false":
			return fmt.Sprintf("the query parameter %s is not a boolean", name)
		case p.Type == "integer" && !within(value, p.Minimum, p.Maximum):
			return fmt.Sprintf("the query parameter %s is not a number from %s to %s", name, p.Minimum, p.Maximum)
		}
	}
	return ""
}

func within(value, minimum, maximum string) bool {
	n, err := strconv.Atoi(value)
	if err != nil {
		return false
	}
	if low, err := strconv.Atoi(minimum); err == nil && n < low {
		return false
	}
	if high, err := strconv.Atoi(maximum); err == nil && n > high {
		return false
	}
	return true
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// A mask is a parsed "fields" parameter: the fields that an answer may have, and
// of each what is inside. An empty mask takes everything.
type mask map[string]mask

// parseMask reads a mask such as "nextPageToken,users(id,primaryEmail)". The
// form a/b is the same as a(b).
func parseMask(text string) (mask, error) {
	m, rest, err := parseFields(text)
	if err == nil && rest != "" {
		err = errors.New(rest)
	}
	return m, err
}

// parseFields reads fields with commas between them. Its errors are what Google
// would name as the invalid selection.
func parseFields(text string) (mask, string, error) {
	m := mask{}
	for {
		rest, err := m.parseField(text)
		if err != nil || !strings.HasPrefix(rest, ",") {
			return m, rest, err
		}
		text = rest[1:]
	}
}

func (m mask) parseField(text string) (rest string, err error) {
	end := strings.IndexAny(text, ",()/")
	if end < 0 {
		end = len(text)
	}
	name, rest := text[:end], text[end:]
	if name == "" {
		return "", errors.New(text)
	}
	inner := mask{}
	switch {
	case strings.HasPrefix(rest, "/"):
		rest, err = inner.parseField(rest[1:])
	case strings.HasPrefix(rest, "("):
		if inner, rest, err = parseFields(rest[1:]); err == nil && !strings.HasPrefix(rest, ")") {
			err = errors.New(name)
		} else if err == nil {
			rest = rest[1:]
		}
	}
	m[name] = inner
	return rest, err
}

// unknown is a field of the mask that is not one of those known.
func (m mask) unknown(known []string) (string, bool) {
	for name := range m {
		if name != "*" && !slices.Contains(known, name) {
			return name, true
		}
	}
	return "", false
}

// apply keeps of an answer what the mask takes.
func (m mask) apply(value any) any {
	if _, all := m["*"]; all || len(m) == 0 {
		return value
	}
	switch v := value.(type) {
	case map[string]any:
		kept := map[string]any{}
		for name, inner := range m {
			if field, ok := v[name]; ok {
				kept[name] = inner.apply(field)
			}
		}
		return kept
	case []any:
		kept := make([]any, 0, len(v))
		for _, element := range v {
			kept = append(kept, m.apply(element))
		}
		return kept
	}
	return value
}
