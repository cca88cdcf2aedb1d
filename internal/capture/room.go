package capture

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
)

// How many captures wait at most. They are some 6 KB each.
//
// MaxDoubtful bounds those that may be nobody's change, of all accounts together: anybody in the domain can have hundreds made in a second. The newest stay, of
// the account that has the fewest the longest; a running agent needs them for moments.
//
// MaxOfAccount bounds the others, account by account: each took a transaction of the DC's, and nobody can have them made for somebody else's account. The
// directory's password is among the newest.
const (
	MaxDoubtful  = 4096
	MaxOfAccount = 256

	// excessATime bounds how many go because of one that came, since each takes the disk a millisecond or two while Samba waits.
	excessATime = 8
)

// The first letter of a kin.
const (
	certain  = "c"
	doubtful = "d"
)

// kin is what captures of one claimed account have in common, by which they are counted.
func (h Header) kin() string {
	letter := certain
	if h.Doubtful() {
		letter = doubtful
	}
	sum := fnv.New32a()
	sum.Write([]byte(strings.ToLower(h.Account)))
	return fmt.Sprintf("%s%08x", letter, sum.Sum32())
}

// kinOf reads it from a file's name; empty if that has none.
func kinOf(file string) string {
	const begins, size = 20 + 1 + 2*len(ID{}) + 1, 9
	if len(file) != begins+size+len(Suffix) || file[begins-1] != '-' {
		return ""
	}
	return file[begins : begins+size]
}

// Excess returns which of the files of a folder are to go because newest has come, which is one of them: none that is not older, and none of the
// other sort (doubtful or not). Files of other names are left alone.
func Excess(files []string, newest string) (excess []string) {
	mine := kinOf(newest)
	if mine == "" {
		return nil
	}
	limit, sort := MaxOfAccount, mine
	if mine[:1] == doubtful {
		limit, sort = MaxDoubtful, doubtful
	}
	for range excessATime {
		oldest, total := heaviest(files, sort, excess)
		if total <= limit || oldest >= newest { // what comes later sees to the rest
			break
		}
		excess = append(excess, oldest)
	}
	return excess
}

// heaviest looks at the files whose kin begins in a certain way, and that are not gone. It returns the oldest file of the kin that has the most of them (of
// several, of that with the oldest file), and how many there are in all.
func heaviest(files []string, sort string, gone []string) (oldest string, total int) {
	type kind struct{ count, oldest int } // which file
	kinds := make(map[string]kind, min(len(files), MaxDoubtful+excessATime))
	most := 0
	for i, file := range files {
		kin := kinOf(file)
		if !strings.HasPrefix(kin, sort) || slices.Contains(gone, file) {
			continue
		}
		k, met := kinds[kin]
		if k.count++; !met || file < files[k.oldest] {
			k.oldest = i
		}
		kinds[kin] = k
		total++
		most = max(most, k.count)
	}
	for _, k := range kinds {
		if file := files[k.oldest]; k.count == most && (oldest == "" || file < oldest) {
			oldest = file
		}
	}
	return oldest, total
}
