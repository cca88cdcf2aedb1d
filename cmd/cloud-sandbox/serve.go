package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/urfave/cli/v2"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name: "serve", Usage: "run both clouds until SIGTERM",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "google-listen", Value: "0.0.0.0:8443", Usage: "`ADDRESS`"},
			&cli.StringFlag{Name: "microsoft-listen", Value: "0.0.0.0:8444", Usage: "`ADDRESS`"},
			&cli.StringFlag{Name: "trap-listen", Value: "0.0.0.0:8445", Usage: "`ADDRESS` of the other host, to which redirects lead"},
			&cli.StringSliceFlag{Name: "name", Usage: "`HOST` or address for the certificate; the first is for the URLs, the second for the trap's"},
			&cli.StringFlag{Name: "domain", Value: "example.com", Usage: "of both tenants"},
			&cli.StringFlag{Name: "client-dir", Usage: "where clients have the files of --dir; there, unless given"},
			&cli.BoolFlag{Name: "service-account-admin", Usage: "give Google's service account an administrator role of its own"},
		},
		Action: serve,
	}
}

// serve runs a sandbox and its control socket, until the context ends or the
// control socket fails.
func serve(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("serve takes no arguments")
	}
	sb, err := sandbox.Start(c.String("dir"), sandbox.Options{
		Domain:              c.String("domain"),
		GoogleListen:        c.String("google-listen"),
		MicrosoftListen:     c.String("microsoft-listen"),
		TrapListen:          c.String("trap-listen"),
		Names:               c.StringSlice("name"),
		ClientDir:           c.String("client-dir"),
		ServiceAccountAdmin: c.Bool("service-account-admin"),
		ErrorLog:            log.New(c.App.ErrWriter, "cloud-sandbox: ", 0),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "google    %s\nmicrosoft %s\ntargets   %s\n", sb.Google.URL, sb.Microsoft.GraphURL, sb.TargetsFile)
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	return errors.Join(sb.Control(ctx, socket(c)), sb.Close())
}
