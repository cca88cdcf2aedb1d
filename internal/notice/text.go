package notice

import (
	"bytes"
	_ "embed"
	"fmt"
	"text/template"
	"time"
)

// Standard is the text that is sent where no template is configured.
//
//go:embed standard.txt
var Standard string

// maxText bounds a text, in bytes.
const maxText = 64 << 10

// Text is the template of a mail's text. It is made by ParseText.
type Text struct{ template *template.Template }

// ParseText reads a template, and tries it: one that names what a Letter has not is an error here, and not when it is needed.
func ParseText(source string) (*Text, error) {
	parsed, err := template.New("text").Option("missingkey=error").Parse(source)
	if err != nil {
		return nil, fmt.Errorf("reading the text's template: %w", err)
	}
	t := &Text{parsed}
	at := time.Unix(1700000000, 0)
	for _, audit := range []bool{false, true} {
		sample := Letter{ID: "0", Account: "alice", FullName: "Alice", Mail: "alice@example.com", Policy: "default", Audit: audit, Times: 2, First: at, Last: at}
		for _, rule := range []string{"length", "complexity", "name", "walk", "banned", "breached", "target", "also"} {
			sample.Rules = append(sample.Rules, Rule{rule, reason(rule, Policy{})})
		}
		if _, err := t.For(sample); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// For writes the text of a letter.
func (t *Text) For(l Letter) (string, error) {
	var b bytes.Buffer
	if err := t.template.Execute(&b, l); err != nil {
		return "", fmt.Errorf("writing the text: %w", err)
	}
	if b.Len() > maxText {
		return "", fmt.Errorf("writing the text: it has more than %d bytes", maxText)
	}
	return b.String(), nil
}
