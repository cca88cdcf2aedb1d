// Command generate makes the manual page samba-pwsync.toml(5) and the shipped example of the configuration.
//
// The words come from the comments in config.go, by go/ast; keys, limits and choices from the tags, and defaults from
// config.Default, by reflection. So what people read is what the program does. The test beside it fails when the committed
// files are not what this command would write: `go generate ./internal/config` writes them.
package main

import (
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

func main() {
	log.SetFlags(0)
	root := filepath.Join("..", "..")
	files, err := render(root)
	if err != nil {
		log.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), text, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// render returns the generated files by their path in the repository.
func render(root string) (map[string][]byte, error) {
	words, err := comments(filepath.Join(root, "internal", "config", "config.go"))
	if err != nil {
		return nil, err
	}
	sections := sectionsOf(words)
	return map[string][]byte{
		"docs/man/samba-pwsync.toml.5":   manPage(sections),
		"docs/samba-pwsync.example.toml": example(sections),
	}, nil
}

// section is one section of the file; a target has one for the keys of all types, and one for each type.
type section struct {
	name string // "" is the top of the file
	kind string // the type of target, where the keys are one type's own
	text string
	keys []key
}

type key struct {
	name     string
	text     string
	kind     string // "string", "duration", …
	standard string // the default, as TOML; empty if there is none
	sample   string // as TOML; empty if the default says enough
	required bool
	choices  string // "One of …"; empty if any value will do
	limits   string // "1 to 256"; empty if there are none
}

// comments returns the text of each type's and each field's comment in a file, by "Type" and "Type.Field".
func comments(file string) (map[string]string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("reading the comments: %w", err)
	}
	words := map[string]string{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		decl, ok := n.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			return true
		}
		spec := decl.Specs[0].(*ast.TypeSpec)
		words[spec.Name.Name] = oneLine(decl.Doc)
		if fields, ok := spec.Type.(*ast.StructType); ok {
			for _, field := range fields.Fields.List {
				for _, name := range field.Names {
					words[spec.Name.Name+"."+name.Name] = oneLine(field.Doc)
				}
			}
		}
		return false
	})
	return words, nil
}

func oneLine(group *ast.CommentGroup) string { return strings.Join(strings.Fields(group.Text()), " ") }

func sectionsOf(words map[string]string) []section {
	standard := reflect.ValueOf(*config.Default())
	sections := []section{{keys: keysOf(standard, words)}}
	for i := range standard.NumField() {
		field := standard.Type().Field(i)
		switch {
		case field.Type == reflect.TypeFor[map[string]config.Target]():
			sections = append(sections, targetSections(words)...)
		case field.Type == reflect.TypeFor[[]config.NamedPolicy]():
			var named config.NamedPolicy
			sections = append(sections, section{name: "policy.NAME", text: strings.Replace(words["NamedPolicy"], "NamedPolicy", "[policy.NAME]", 1), keys: keysOf(reflect.ValueOf(named), words)})
		case field.Type.Kind() == reflect.Struct:
			sections = append(sections, section{name: field.Tag.Get("toml"), text: words[field.Type.Name()], keys: keysOf(standard.Field(i), words)})
		}
	}
	return sections
}

func targetSections(words map[string]string) []section {
	standard := reflect.ValueOf(config.DefaultTarget())
	sections := []section{{name: "target.NAME", text: words["Target"], keys: keysOf(standard, words)}}
	for i := range standard.NumField() {
		if kind := standard.Type().Field(i).Tag.Get("type"); kind != "" {
			special := standard.Field(i)
			sections = append(sections, section{name: "target.NAME", kind: kind, text: words[special.Type().Name()], keys: keysOf(special, words)})
		}
	}
	return sections
}

// keysOf lists the keys of a struct that hold one value.
func keysOf(standard reflect.Value, words map[string]string) []key {
	var keys []key
	for i := range standard.NumField() {
		field := standard.Type().Field(i)
		name := field.Tag.Get("toml")
		if name == "" {
			continue
		}
		kind, value := literal(standard.Field(i))
		if kind == "" {
			continue
		}
		k := key{name: name, text: words[standard.Type().Name()+"."+field.Name], kind: kind, standard: value}
		if oneof := strings.Fields(field.Tag.Get("oneof")); len(oneof) > 0 {
			k.sample = strconv.Quote(oneof[0])
			k.choices = choices(oneof)
		}
		if lo, hi, ok := strings.Cut(field.Tag.Get("range"), " "); ok {
			k.limits = lo + " to " + hi
		}
		if sample := field.Tag.Get("example"); sample != "" {
			k.sample = strconv.Quote(sample)
			switch field.Type.Kind() {
			case reflect.Slice:
				k.sample = "[" + k.sample + "]"
			case reflect.Int:
				k.sample = sample
			}
		}
		if field.Tag.Get("required") != "" && standard.Field(i).IsZero() {
			k.required, k.standard = true, ""
		}
		keys = append(keys, k)
	}
	return keys
}

func choices(oneof []string) string {
	if len(oneof) == 1 {
		return "Only " + strconv.Quote(oneof[0]) + " in this version"
	}
	quoted := make([]string, len(oneof))
	for i, value := range oneof {
		quoted[i] = strconv.Quote(value)
	}
	return "One of " + strings.Join(quoted, ", ")
}

// literal names the kind of a field and writes its value as TOML; kind is empty if the field is no single value.
func literal(v reflect.Value) (kind, text string) {
	switch value := v.Interface().(type) {
	case string:
		return "string", strconv.Quote(value)
	case time.Duration:
		return "duration", strconv.Quote(short(value))
	case bool:
		return "true or false", strconv.FormatBool(value)
	case int:
		return "whole number", strconv.Itoa(value)
	case []string:
		quoted := make([]string, len(value))
		for i, text := range value {
			quoted[i] = strconv.Quote(text)
		}
		return "array of strings", "[" + strings.Join(quoted, ", ") + "]"
	case float64:
		return "number", strconv.FormatFloat(value, 'g', -1, 64)
	default:
		return "", ""
	}
}

// short writes 2m for 2m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// wrap breaks a text into lines that begin with prefix.
func wrap(text, prefix string) string {
	p := comment.Printer{TextWidth: 110, TextPrefix: prefix}
	return string(p.Text((&comment.Parser{}).Parse(text)))
}
