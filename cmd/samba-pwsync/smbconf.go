package main

import (
	"context"
	"io"
	"os/exec"
	"strings"
	"time"
)

// checkScript asks testparm, Samba's own reader of smb.conf, whether Samba runs the hook. Where there is no testparm nothing is
// said. hook is the command that smb.conf has to name; without complexity on, Samba does not run what it names, which has been said.
func checkScript(ctx context.Context, list *checklist, hook string, complexity bool) {
	testparm, err := exec.LookPath("testparm")
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, testparm, "-s", "--parameter-name=check password script")
	cmd.Stderr = io.Discard     // it says there which file it reads
	cmd.WaitDelay = time.Second // for what it may have started, which holds its output open
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	const put = "put check password script = exec %s into [global] of smb.conf and restart Samba"
	switch script := strings.TrimSpace(string(out)); {
	case err != nil:
		list.attention("it cannot be told whether Samba runs the hook: running %s: %v", testparm, err)
	case !strings.Contains(script, "samba-pwsync-hook"):
		list.attention("Samba does not run the hook: "+put, hook)
	case !strings.HasPrefix(script, "exec "):
		list.attention("Samba runs the hook from a shell, and its kill after 10 s would reach the shell only: "+put, script)
	case complexity:
		list.ok("Samba runs the hook: check password script = %s", script)
	}
}
