//go:build race

package ramdisk

func init() { processors = 1 }
