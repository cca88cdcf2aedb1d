// Package contract is what Google and Microsoft publish about their own
// requests, in a form that can judge one: JSON Schemas for the bodies, and for
// Google the table of routes, parameters and scopes.
//
// The schemas are generated from the vendors' machine-readable descriptions
// (Google's discovery document, Microsoft's CSDL) and committed, each beside a
// SOURCE note. They are stricter than the real services: an unknown property is
// an error, because a client that sends one has misspelt something.
//
// What a vendor says only in prose (the length of a password, who may be
// changed) is not here but in the packages google and microsoft.
package contract

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

//go:generate go run ./generate google

// Microsoft's CSDL (3.5 MB) is in no Go module. With a checkout of its
// repository beside this one:
//
//	go run ./generate -commit $(git -C msgraph-metadata rev-parse HEAD) microsoft msgraph-metadata/clean_v10_metadata/cleanMetadata.xml

//go:embed google-user.schema.json
var googleUser []byte

//go:embed google-routes.json
var googleRoutes []byte

//go:embed microsoft-user.schema.json
var microsoftUser []byte

// GoogleUser judges the body of users.update and users.patch.
var GoogleUser = sync.OnceValue(func() *Schema { return compile("google-user", googleUser) })

// MicrosoftUser judges the body of PATCH /users/{id}.
var MicrosoftUser = sync.OnceValue(func() *Schema { return compile("microsoft-user", microsoftUser) })

// GoogleRoutes are the methods of the Directory API that the sandbox answers.
var GoogleRoutes = sync.OnceValue(func() Routes {
	var routes Routes
	if err := json.Unmarshal(googleRoutes, &routes); err != nil {
		panic(err) // our own committed file
	}
	return routes
})

// A Schema judges bodies.
type Schema struct {
	compiled   *jsonschema.Schema
	properties map[string]bool
}

func compile(name string, text []byte) *Schema {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		panic(err) // our own committed file
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(name, document); err != nil {
		panic(err)
	}
	s := &Schema{compiled: compiler.MustCompile(name), properties: map[string]bool{}}
	for property := range document.(map[string]any)["properties"].(map[string]any) {
		s.properties[property] = true
	}
	return s
}

// Has says whether the type has a property of that name.
func (s *Schema) Has(property string) bool { return s.properties[property] }

// Check says what is wrong with a body. The error names places and types, and
// never holds a value: the value may be a password.
func (s *Schema) Check(body []byte) error {
	if !utf8.Valid(body) {
		return errors.New("the body is not UTF-8")
	}
	if err := unique(json.NewDecoder(bytes.NewReader(body))); err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return errors.New("the body is not one JSON value")
	}
	var invalid *jsonschema.ValidationError
	if err := s.compiled.Validate(value); errors.As(err, &invalid) {
		return errors.New(strings.Join(leaves(invalid, message.NewPrinter(language.English)), "; "))
	} else if err != nil {
		return err
	}
	return nil
}

// IsJSON says whether a Content-Type is JSON, which is UTF-8.
func IsJSON(contentType string) bool {
	kind, parameters, err := mime.ParseMediaType(contentType)
	charset, named := parameters["charset"]
	return err == nil && kind == "application/json" && (!named || strings.EqualFold(charset, "utf-8"))
}

// leaves are the messages that say something, without the tree above them.
func leaves(e *jsonschema.ValidationError, printer *message.Printer) []string {
	if len(e.Causes) == 0 {
		return []string{fmt.Sprintf("/%s: %s", strings.Join(e.InstanceLocation, "/"), e.ErrorKind.LocalizedString(printer))}
	}
	var all []string
	for _, cause := range e.Causes {
		all = append(all, leaves(cause, printer)...)
	}
	return all
}

// unique refuses a JSON object that names a property twice: two readers may
// take different ones.
func unique(d *json.Decoder) error {
	token, err := d.Token()
	if errors.Is(err, io.EOF) {
		return errors.New("the body is empty")
	} else if err != nil {
		return errors.New("the body is not JSON")
	}
	opened, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if opened == '{' {
			name, err := d.Token()
			if err != nil {
				return errors.New("the body is not JSON")
			}
			if seen[name.(string)] {
				return fmt.Errorf("the property %q stands twice", name)
			}
			seen[name.(string)] = true
		}
		if err := unique(d); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return errors.New("the body is not JSON")
	}
	return nil
}
