package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Routes are methods of Google's Directory API.
type Routes struct {
	Methods map[string]Method `json:"methods"` // by id, such as users.update
	// Fields are all properties of a User, also those that only Google sets.
	Fields []string `json:"fields"`
}

// A Method is what the discovery document says about one of them.
type Method struct {
	Verb       string               `json:"verb"`
	Path       string               `json:"path"`
	Scopes     []string             `json:"scopes"` // one of these is needed
	Parameters map[string]Parameter `json:"parameters"`
}

// A Parameter may follow the question mark.
type Parameter struct {
	Type    string   `json:"type"`
	Enum    []string `json:"enum,omitempty"`
	Minimum string   `json:"minimum,omitempty"`
	Maximum string   `json:"maximum,omitempty"`
}

// Generated is what a generator makes of a vendor's description.
type Generated struct {
	Schema   []byte
	Routes   []byte // Google only
	Revision string // Google only
}

// DiscoveryFile is where the discovery document lies in google.golang.org/api.
const DiscoveryFile = "admin/directory/v1/admin-api.json"

var googleMethods = []string{"get", "list", "update", "patch"}

type discovery struct {
	Revision   string                        `json:"revision"`
	Parameters map[string]discoveryParameter `json:"parameters"`
	Schemas    map[string]discoverySchema    `json:"schemas"`
	Resources  map[string]struct {
		Methods map[string]struct {
			HTTPMethod string                        `json:"httpMethod"`
			Path       string                        `json:"path"`
			Scopes     []string                      `json:"scopes"`
			Parameters map[string]discoveryParameter `json:"parameters"`
		} `json:"methods"`
	} `json:"resources"`
}

type discoveryParameter struct {
	Parameter
	Location string `json:"location"`
}

type discoverySchema struct {
	Type                 string                     `json:"type"`
	Ref                  string                     `json:"$ref"`
	ReadOnly             bool                       `json:"readOnly"`
	Properties           map[string]discoverySchema `json:"properties"`
	Items                *discoverySchema           `json:"items"`
	AdditionalProperties *discoverySchema           `json:"additionalProperties"`
}

// FromDiscovery makes the schema of a User as clients may send it, and the
// routes, of the Directory API's discovery document.
func FromDiscovery(document []byte) (Generated, error) {
	var d discovery
	if err := json.Unmarshal(document, &d); err != nil {
		return Generated{}, fmt.Errorf("reading discovery document: %w", err)
	}
	user, ok := d.Schemas["User"]
	if !ok {
		return Generated{}, fmt.Errorf("reading discovery document: it has no schema User")
	}

	types := map[string]any{}
	schema := d.object(user, types)
	properties := schema["properties"].(map[string]any)
	// Vendor's text, not type: there are three hash functions, and a password
	// cannot be cleared.
	properties["password"] = map[string]any{"type": "string"}
	properties["hashFunction"] = map[string]any{"enum": []string{"MD5", "SHA-1", "crypt"}}
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["$defs"] = types

	routes := Routes{Methods: map[string]Method{}, Fields: slices.Sorted(maps.Keys(user.Properties))}
	for _, name := range googleMethods {
		m, ok := d.Resources["users"].Methods[name]
		if !ok {
			return Generated{}, fmt.Errorf("reading discovery document: it has no method users.%s", name)
		}
		route := Method{Verb: m.HTTPMethod, Path: "/" + m.Path, Scopes: m.Scopes, Parameters: map[string]Parameter{}}
		for _, parameters := range []map[string]discoveryParameter{d.Parameters, m.Parameters} {
			for name, p := range parameters {
				if p.Location == "query" {
					route.Parameters[name] = p.Parameter
				}
			}
		}
		routes.Methods["users."+name] = route
	}

	schemaText, err := text(schema)
	if err != nil {
		return Generated{}, err
	}
	routesText, err := text(routes)
	if err != nil {
		return Generated{}, err
	}
	return Generated{Schema: schemaText, Routes: routesText, Revision: d.Revision}, nil
}

// object is the strict schema of an object: what is read-only is left out, and
// nothing is allowed that is not named.
func (d discovery) object(s discoverySchema, types map[string]any) map[string]any {
	properties := map[string]any{}
	for name, p := range s.Properties {
		if !p.ReadOnly {
			properties[name] = d.schema(p, types)
		}
	}
	object := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if s.AdditionalProperties != nil {
		object["additionalProperties"] = d.schema(*s.AdditionalProperties, types)
	}
	return object
}

// schema is the schema of one property. Null is allowed, since it clears.
func (d discovery) schema(s discoverySchema, types map[string]any) any {
	switch {
	case s.Ref != "":
		if _, done := types[s.Ref]; !done {
			types[s.Ref] = nil // breaks cycles
			types[s.Ref] = d.schema(d.Schemas[s.Ref], types)
		}
		return map[string]any{"$ref": "#/$defs/" + s.Ref}
	case s.Type == "any":
		return true
	case s.Type == "object":
		object := d.object(s, types)
		object["type"] = []string{"object", "null"}
		return object
	case s.Type == "array":
		return map[string]any{"type": []string{"array", "null"}, "items": d.schema(*s.Items, types)}
	}
	return map[string]any{"type": []string{s.Type, "null"}}
}

func text(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("writing schema: %w", err)
	}
	return b.Bytes(), nil
}
