package config

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// document is a TOML text as a tree, with the line of each key.
//
// The tree is go-toml's, which also knows all of TOML's rules about what may not be written twice; it stops at the first
// type that does not fit a struct, so it is given none, and the types are checked here. The lines come from go-toml's
// parser, which keeps them.
type document struct {
	tree  map[string]any
	lines map[string]int    // by dotted key
	texts map[string]string // the strings, by dotted key: also those in front of a syntax error
}

// parse reads text. With a syntax error the tree is nil, and lines and texts hold what stands before the error.
func parse(text []byte) (document, *Fault) {
	d := document{lines: map[string]int{}, texts: map[string]string{}}
	d.scan(text)
	if err := toml.Unmarshal(text, &d.tree); err != nil {
		d.tree = nil
		fault := &Fault{Problem: "is no TOML: " + strings.TrimPrefix(err.Error(), "toml: "), Remedy: "mend the syntax of this line"}
		if e := (*toml.DecodeError)(nil); errors.As(err, &e) {
			fault.Line, _ = e.Position()
		}
		if strings.Contains(fault.Problem, "already exists") {
			fault.Remedy = "a section stands once: put its keys below the first header, even if that is empty"
		}
		return d, fault
	}
	return d, nil
}

func (d document) scan(text []byte) {
	var p unstable.Parser
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = d.mark(&p, nil, e)
		case unstable.KeyValue:
			d.scanValue(&p, table, e)
		}
	}
}

func (d document) scanValue(p *unstable.Parser, table []string, keyValue *unstable.Node) {
	path := d.mark(p, table, keyValue)
	switch value := keyValue.Value(); value.Kind {
	case unstable.String:
		if key := dotted(path); d.texts[key] == "" {
			d.texts[key] = string(value.Data)
		}
	case unstable.InlineTable:
		for pairs := value.Children(); pairs.Next(); {
			if pairs.Node().Kind == unstable.KeyValue {
				d.scanValue(p, path, pairs.Node())
			}
		}
	}
}

// mark notes the line of each part of a node's key, unless an earlier line has it, and returns the whole path.
func (d document) mark(p *unstable.Parser, table []string, node *unstable.Node) []string {
	path := slices.Clone(table)
	for keys := node.Key(); keys.Next(); {
		path = append(path, string(keys.Node().Data))
		if key := dotted(path); d.lines[key] == 0 {
			d.lines[key] = 1 + bytes.Count(p.Data()[:keys.Node().Raw.Offset], []byte("\n"))
		}
	}
	return path
}

// dotted joins the parts of a key as TOML writes them.
func dotted(path []string) string {
	parts := make([]string, len(path))
	for i, part := range path {
		if parts[i] = part; !isBare(part) {
			parts[i] = strconv.Quote(part)
		}
	}
	return strings.Join(parts, ".")
}

func isBare(part string) bool {
	for _, c := range []byte(part) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return part != ""
}
