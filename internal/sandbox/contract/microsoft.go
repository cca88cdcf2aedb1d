package contract

import (
	"encoding/xml"
	"fmt"
	"strings"
)

const graphNamespace = "microsoft.graph"

type csdl struct {
	Schemas []struct {
		Namespace    string         `xml:"Namespace,attr"`
		EntityTypes  []csdlType     `xml:"EntityType"`
		ComplexTypes []csdlType     `xml:"ComplexType"`
		EnumTypes    []csdlEnumType `xml:"EnumType"`
	} `xml:"DataServices>Schema"`
}

type csdlType struct {
	Name       string `xml:"Name,attr"`
	BaseType   string `xml:"BaseType,attr"`
	Properties []struct {
		Name     string `xml:"Name,attr"`
		Type     string `xml:"Type,attr"`
		Nullable string `xml:"Nullable,attr"`
	} `xml:"Property"`
}

type csdlEnumType struct {
	Name    string `xml:"Name,attr"`
	Members []struct {
		Name string `xml:"Name,attr"`
	} `xml:"Member"`
}

// graphTypes are the types of the namespace microsoft.graph, and the schemas
// that were made of them.
type graphTypes struct {
	structured map[string]csdlType
	enums      map[string]csdlEnumType
	schemas    map[string]any
}

// FromCSDL makes the schema of a user as clients may send it, of Microsoft
// Graph's CSDL. Navigation properties are left out: they are changed elsewhere.
func FromCSDL(document []byte) (Generated, error) {
	var c csdl
	if err := xml.Unmarshal(document, &c); err != nil {
		return Generated{}, fmt.Errorf("reading CSDL: %w", err)
	}
	t := graphTypes{map[string]csdlType{}, map[string]csdlEnumType{}, map[string]any{}}
	for _, s := range c.Schemas {
		if s.Namespace != graphNamespace {
			continue
		}
		for _, structured := range append(s.EntityTypes, s.ComplexTypes...) {
			t.structured[structured.Name] = structured
		}
		for _, enum := range s.EnumTypes {
			t.enums[enum.Name] = enum
		}
	}
	user, err := t.object("user")
	if err != nil {
		return Generated{}, err
	}
	user["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	user["$defs"] = t.schemas
	schema, err := text(user)
	return Generated{Schema: schema}, err
}

// object is the strict schema of a structured type, with what it inherits. The
// annotation @odata.type is allowed and must tell the truth.
func (t graphTypes) object(name string) (map[string]any, error) {
	properties := map[string]any{
		"@odata.type": map[string]any{"const": "#" + graphNamespace + "." + name},
	}
	for next := name; next != ""; {
		structured, ok := t.structured[next]
		if !ok {
			return nil, fmt.Errorf("reading CSDL: it has no type %s", next)
		}
		for _, p := range structured.Properties {
			schema, err := t.schema(p.Type, p.Nullable != "false")
			if err != nil {
				return nil, fmt.Errorf("%w, for %s.%s", err, next, p.Name)
			}
			properties[p.Name] = schema
		}
		next = local(structured.BaseType)
	}
	return map[string]any{"type": "object", "properties": properties, "additionalProperties": false}, nil
}

var edmTypes = map[string]string{
	"Edm.String": "string", "Edm.Guid": "string", "Edm.Binary": "string", "Edm.Date": "string",
	"Edm.DateTimeOffset": "string", "Edm.TimeOfDay": "string", "Edm.Duration": "string",
	"Edm.Boolean": "boolean", "Edm.Double": "number", "Edm.Single": "number",
	"Edm.Byte": "integer", "Edm.Int16": "integer", "Edm.Int32": "integer", "Edm.Int64": "integer",
}

func (t graphTypes) schema(name string, nullable bool) (any, error) {
	if inner, ok := strings.CutPrefix(name, "Collection("); ok {
		items, err := t.schema(strings.TrimSuffix(inner, ")"), false)
		return map[string]any{"type": "array", "items": items}, err
	}
	if edm, ok := edmTypes[name]; ok {
		if nullable {
			return map[string]any{"type": []string{edm, "null"}}, nil
		}
		return map[string]any{"type": edm}, nil
	}
	name = local(name)
	if _, done := t.schemas[name]; !done {
		t.schemas[name] = nil // breaks cycles
		schema, err := t.define(name)
		if err != nil {
			return nil, err
		}
		t.schemas[name] = schema
	}
	reference := map[string]any{"$ref": "#/$defs/" + name}
	if nullable {
		return map[string]any{"anyOf": []any{reference, map[string]any{"type": "null"}}}, nil
	}
	return reference, nil
}

func (t graphTypes) define(name string) (any, error) {
	if enum, ok := t.enums[name]; ok {
		var members []string
		for _, m := range enum.Members {
			members = append(members, m.Name)
		}
		return map[string]any{"enum": members}, nil
	}
	return t.object(name)
}

// local is a type's name without its namespace or that one's alias.
func local(name string) string {
	return strings.TrimPrefix(strings.TrimPrefix(name, graphNamespace+"."), "graph.")
}
