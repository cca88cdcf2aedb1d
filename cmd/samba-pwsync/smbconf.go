package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

// testparm asks Samba's own reader of smb.conf for a parameter. found is false where there is no testparm.
func testparm(ctx context.Context, parameter string) (value string, found bool, err error) {
	path, err := exec.LookPath("testparm")
	if err != nil {
		return "", false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-s", "--parameter-name="+parameter)
	cmd.Stderr = io.Discard     // it says there which file it reads
	cmd.WaitDelay = time.Second // for what it may have started, which holds its output open
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return "", true, fmt.Errorf("running %s: %w", path, err)
	}
	return strings.TrimSpace(string(out)), true, nil
}

// checkScript tells whether Samba runs the hook. Where there is no testparm nothing is said. hook is the command that smb.conf has
// to name; without complexity on, Samba does not run what it names, which has been said.
func checkScript(ctx context.Context, list *checklist, hook string, complexity bool) {
	script, found, err := testparm(ctx, "check password script")
	if !found {
		return
	}
	const put = "put check password script = exec %s into [global] of smb.conf and restart Samba"
	switch {
	case err != nil:
		list.attention("it cannot be told whether Samba runs the hook: %v", err)
	case !strings.Contains(script, "samba-pwsync-hook"):
		list.attention("Samba does not run the hook: "+put, hook)
	case !strings.HasPrefix(script, "exec "):
		list.attention("Samba runs the hook from a shell, and its kill after 10 s would reach the shell only: "+put, script)
	case complexity:
		list.ok("Samba runs the hook: check password script = %s", script)
	}
}

// hashStore is whether Samba stores the NT hashes of new passwords.
type hashStore string

const (
	storeUnknown hashStore = ""
	storesHashes hashStore = "stores"
	storesNone   hashStore = "stores none"
)

// askHashStore asks smb.conf. Before 4.17, which does not know `nt hash store`, Samba stored every hash.
func askHashStore(ctx context.Context) hashStore {
	store, found, err := testparm(ctx, "nt hash store")
	if !found {
		return storeUnknown
	}
	ntlm, _, errNTLM := testparm(ctx, "ntlm auth")
	switch {
	case errNTLM != nil: // it reads nothing
		return storeUnknown
	case err == nil && (store == "never" || store == "auto" && ntlm == "disabled"):
		return storesNone
	default:
		return storesHashes
	}
}

// aesLevel is the domain functional level from which a DC stores AES keys: Windows Server 2008.
const aesLevel = 3

// passwords is what the directory says of the passwords that it stores.
type passwords struct {
	level    int      // domain functional level
	unhashed []string // some accounts that have a password and no NT hash
	more     bool     // there are others
}

// checkProof tells whether the configured proof can work on this DC, and which is the better one.
func checkProof(list *checklist, proof string, store hashStore, held passwords) {
	if store == storeUnknown {
		store = storesHashes
		if len(held.unhashed) > 0 {
			store = storesNone
		}
	}
	switch {
	case store == storesNone && held.level < aesLevel:
		list.fault(exitFailed, errNoProof)
	case store == storesNone && proof == config.NTHash:
		list.fault(exitFailed, errNoHashes)
	case store == storesNone:
		list.ok("passwords are proven by AES256 key")
	case proof == config.AES256:
		list.attention("Samba stores NT hashes: set [directory] proof = %q, with which the agent sees no password", config.NTHash)
	case len(held.unhashed) > 0:
		names := strings.Join(held.unhashed, ", ")
		if held.more {
			names += " and others"
		}
		list.ok("passwords are proven by NT hash; that of %s is stored from the next change on", names)
	default:
		list.ok("passwords are proven by NT hash")
	}
}
