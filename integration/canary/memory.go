package canary

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
)

// ScanMemory looks through all memory of a process that can be read, as root can with /proc/PID/mem even where the process has forbidden
// it to its own user: heap, stacks, mappings. The process runs on meanwhile, so what moves at that moment can be missed, or be met twice.
// size is how much was read.
func (s *Search) ScanMemory(pid int) (found []Finding, size int64, err error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, 0, err
	}
	defer maps.Close()
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, 0, err
	}
	defer memory.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var from, to uint64
		var rights string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights); err != nil {
			return found, size, fmt.Errorf("reading the map of memory: %w", err)
		}
		if !strings.HasPrefix(rights, "r") || to > math.MaxInt64 || strings.HasSuffix(lines.Text(), "[vvar]") {
			continue // the kernel's own pages
		}
		f, n, err := s.Scan(fmt.Sprintf("process %d, memory at %x", pid, from), io.NewSectionReader(memory, int64(from), int64(to-from)))
		if err != nil && n == 0 {
			continue // unmapped meanwhile
		}
		found, size = append(found, f...), size+n
	}
	return found, size, lines.Err()
}
