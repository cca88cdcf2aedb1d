// Package programs holds what the benchmarks compare the hook with, and what runs them all as Samba does.
package programs

import "embed"

// Files are c/samba.c, c/store.c, check.sh and check.py; each says in front what it is.
//
//go:embed c/samba.c c/store.c check.sh check.py
var Files embed.FS
