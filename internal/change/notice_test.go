package change

import (
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

func sampleNotice() Notice {
	now := time.Unix(1700000000, 42).UTC()
	return Notice{
		ID: "00112233445566778899aabbccddeeff", Account: sample().Account, FullName: "Alice", Address: "alice@example.com",
		Policy: "default", Rules: []string{"length", "banned"}, Audit: true, Times: 3, First: now.Add(-time.Minute), Last: now,
	}
}

func TestNotice(t *testing.T) {
	want := sampleNotice()
	b, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseNotice(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("came back as %+v, %v", got, err)
	}
	for name, spoil := range map[string]func(*Notice){
		"no ID":      func(n *Notice) { n.ID = "" },
		"no account": func(n *Notice) { n.Account.GUID = dsdb.GUID{} },
		"no name":    func(n *Notice) { n.Account.SAMAccountName = "" },
		"no rules":   func(n *Notice) { n.Rules = nil },
		"no time":    func(n *Notice) { n.Last = time.Time{} },
	} {
		n := sampleNotice()
		spoil(&n)
		b, _ := n.Marshal()
		if _, err := ParseNotice(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "{", `{"format":2}`, "null", "[]"} {
		if _, err := ParseNotice([]byte(text)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v", text, err)
		}
	}
	early, late := time.Unix(1700000000, 5), time.Unix(1700000000, 10)
	if a, b := NoticeFile(early, "z"), NoticeFile(late, "a"); a >= b || filepath.Ext(a) != NoticeSuffix {
		t.Errorf("%s is not before %s", a, b)
	}
}

func FuzzParseNotice(f *testing.F) {
	b, _ := sampleNotice().Marshal()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := ParseNotice(b); err == nil && (len(n.Rules) == 0 || n.Account.GUID.IsZero()) {
			t.Error("a notice without meaning was read")
		}
	})
}
