package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves the flags of a command about an account before the account, where alone cli looks for them: `why liz --json` is how one
// writes it. All that comes after "--" is no flag.
func flagsFirst(app *cli.App, args []string) []string {
	command, flags, from := (*cli.Command)(nil), app.Flags, 1
	for list := app.Commands; from < len(args); {
		if strings.HasPrefix(args[from], "-") {
			from += flagLength(flags, args[from:])
			continue
		}
		next := slices.IndexFunc(list, func(c *cli.Command) bool { return c.Name == args[from] })
		if next < 0 {
			break
		}
		command, from = list[next], from+1
		flags, list = command.Flags, command.Subcommands
		if len(list) == 0 {
			break
		}
	}
	if command == nil || !strings.Contains(command.ArgsUsage, "ACCOUNT") {
		return args
	}
	var first, rest []string
	for i := min(from, len(args)); i < len(args); {
		switch {
		case args[i] == "--":
			rest, i = append(rest, args[i+1:]...), len(args)
		case len(args[i]) > 1 && strings.HasPrefix(args[i], "-"):
			n := min(flagLength(flags, args[i:]), len(args)-i)
			first, i = append(first, args[i:i+n]...), i+n
		default:
			rest, i = append(rest, args[i]), i+1
		}
	}
	moved := append(slices.Clone(args[:from]), first...)
	if len(rest) > 0 {
		moved = append(append(moved, "--"), rest...)
	}
	return moved
}

// flagLength returns how many arguments the flag that comes first takes up.
func flagLength(flags []cli.Flag, args []string) int {
	name := strings.TrimLeft(args[0], "-")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) && f.(cli.DocGenerationFlag).TakesValue() {
			return 2
		}
	}
	return 1
}
