// Package docs carries the documents that the programs hand out.
package docs

import _ "embed"

// ExampleConfig is the configuration file that `samba-pwsync init` installs: every key, explained, with its default.
//
//go:embed samba-pwsync.example.toml
var ExampleConfig []byte
