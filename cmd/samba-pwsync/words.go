package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/gate"
	"github.com/samba-pwsync/samba-pwsync/internal/policy/words"
)

// keepWords compiles the banned words for the hook when their files change, or the configuration does, until ctx ends. Until then the
// hook reads all of them at each password, while the DC's database is locked.
func keepWords(ctx context.Context, cfg *config.Config, log *event.Log) {
	const pause = 5 * time.Second
	said := ""
	for {
		// A configuration that has a fault is for the census and the hook to complain about.
		if conf := gate.LoadNow(cfg.File()); conf.Err == nil {
			err := gate.CompileWords(conf.HookConfig, conf.Written(), func(files []string, r words.Report) { log.WordsCompiled(files, r.Words) })
			switch {
			case err == nil:
				said = ""
			case err.Error() != said:
				said = err.Error()
				log.AgentTrouble("compiling banned words", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func runPolicyCompile(c *cli.Context) error {
	cfg, err := config.Load(configPath(c))
	if err != nil {
		return err
	}
	err = gate.CompileWords(cfg.ForHook(), time.Now(), func(files []string, r words.Report) {
		fmt.Fprintf(c.App.Writer, "compiled  %d words of %v\n", r.Words, files)
		if r.Short > 0 {
			fmt.Fprintf(c.App.Writer, "          %d have fewer than four characters, and are not looked for\n", r.Short)
		}
		if r.Long > 0 {
			fmt.Fprintf(c.App.Writer, "          %d are longer than any password, and are not looked for\n", r.Long)
		}
	})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errNoWords, err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer, "banned words are up to date")
	return nil
}
