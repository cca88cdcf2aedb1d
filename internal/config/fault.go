package config

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with the file, and what to do about it.
type Fault struct {
	File    string
	Line    int    // 0: the file as a whole
	Key     string // dotted, as in the file: "target.google.subject"; may be empty
	Problem string
	Remedy  string
}

func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	if f.Key != "" {
		b.WriteString(": " + f.Key)
	}
	b.WriteString(": " + f.Problem + "; " + f.Remedy)
	return b.String()
}

// Faults is everything that is wrong with a file, sorted by line: the error of Load and of LoadHook.
type Faults []Fault

// Error has one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Key, b.Key)
	})
}
