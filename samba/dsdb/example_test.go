package dsdb_test

import (
	"fmt"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Which of two changes of one account's password is the current one?
func ExampleStamp_Compare() {
	at := time.Date(2026, 11, 22, 14, 35, 38, 0, time.UTC)
	captured := dsdb.Stamp{Version: 3, Time: at}
	stored := dsdb.Stamp{Version: 4, Time: at.Add(-time.Minute)} // by a DC whose clock is behind
	fmt.Println(captured.Compare(stored) < 0)
	// Output: true
}

func ExampleParseGUID() {
	guid, err := dsdb.ParseGUID("DE2DFA18-DCDC-4CA3-A9E4-101AAB81F854")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%v\n%x\n", guid, guid[:])
	// Output:
	// de2dfa18-dcdc-4ca3-a9e4-101aab81f854
	// 18fa2ddedcdca34ca9e4101aab81f854
}
