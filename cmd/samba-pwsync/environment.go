package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// regions move Microsoft's token endpoint to another host than authority_url's, and one of their values asks the network for it.
// The libraries read them when a credential is made.
var regions = []string{"AZURE_REGIONAL_AUTHORITY_NAME", "MSAL_FORCE_REGION"}

// cleanEnvironment takes away what would have libraries send or print what is secret, so it comes before everything else. With
// http2debug in GODEBUG, net/http writes each request to standard error: passwords, access tokens, the client secret. And it asks Go's
// runtime to overwrite what the garbage collector frees (see forget). Both are looked at before main begins, so there is no way but to
// start the program anew, in the same process.
func cleanEnvironment() error {
	for _, name := range regions {
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("cleaning the environment: %w", err)
		}
	}
	before := os.Getenv("GODEBUG")
	after := goDebug(before)
	if after == before { // as it is after the new start, so there is never a second one
		return nil
	}
	err := os.Setenv("GODEBUG", after)
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	return fmt.Errorf("starting anew with another GODEBUG: %w", err)
}

// goDebug drops every setting that net/http could take for http2debug (it looks for the word anywhere), and adds clobberfree=1.
func goDebug(before string) string {
	var settings []string
	for setting := range strings.SplitSeq(before, ",") {
		if setting != "" && !strings.Contains(setting, "http2debug") && !strings.HasPrefix(setting, "clobberfree=") {
			settings = append(settings, setting)
		}
	}
	return strings.Join(append(settings, "clobberfree=1"), ",")
}
