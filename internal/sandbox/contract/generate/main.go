// Command generate makes the committed schemas of package contract, and the
// SOURCE notes that say what they were made of.
package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/contract"
)

func main() {
	commit := flag.String("commit", "", "commit of microsoftgraph/msgraph-metadata that the CSDL is from")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: generate google | generate -commit ID microsoft CSDL")
		flag.PrintDefaults()
	}
	flag.Parse()
	var err error
	switch {
	case flag.NArg() == 1 && flag.Arg(0) == "google":
		err = google()
	case flag.NArg() == 2 && flag.Arg(0) == "microsoft" && *commit != "":
		err = microsoft(flag.Arg(1), *commit)
	default:
		flag.Usage()
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func google() error {
	// The module's folder and version, as go.mod has them.
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}\n{{.Version}}", "google.golang.org/api").Output()
	if err != nil {
		return fmt.Errorf("finding google.golang.org/api: %w", err)
	}
	dir, version, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	document, err := os.ReadFile(filepath.Join(dir, contract.DiscoveryFile))
	if err != nil {
		return fmt.Errorf("reading discovery document: %w", err)
	}
	made, err := contract.FromDiscovery(document)
	if err != nil {
		return err
	}
	return write(map[string][]byte{
		"google-user.schema.json": made.Schema,
		"google-routes.json":      made.Routes,
		"google-SOURCE": fmt.Appendf(nil, `google-user.schema.json, google-routes.json: generated, do not edit.
from      %s of the Go module google.golang.org/api %s
revision  %s
sha256    %x
licence   BSD-3-Clause, Copyright (c) 2011 Google Inc.
again     go generate ./internal/sandbox/contract
`, contract.DiscoveryFile, version, made.Revision, sha256.Sum256(document)),
	})
}

func microsoft(path, commit string) error {
	document, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading CSDL: %w", err)
	}
	made, err := contract.FromCSDL(document)
	if err != nil {
		return err
	}
	return write(map[string][]byte{
		"microsoft-user.schema.json": made.Schema,
		"microsoft-SOURCE": fmt.Appendf(nil, `microsoft-user.schema.json: generated, do not edit.
from      https://github.com/microsoftgraph/msgraph-metadata clean_v10_metadata/cleanMetadata.xml
commit    %s
sha256    %x
schema    %x
licence   MIT, Copyright (c) Microsoft Corporation
again     see contract.go
`, commit, sha256.Sum256(document), sha256.Sum256(made.Schema)),
	})
}

func write(files map[string][]byte) error {
	for name, data := range files {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return fmt.Errorf("writing schema: %w", err)
		}
	}
	return nil
}
