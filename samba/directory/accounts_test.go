package directory

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-ldap/ldap/v3"
)

func TestAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []search
		dc := dialFake(t, &fake{answer: func(s search) *reply {
			asked = append(asked, s)
			time.Sleep(time.Second)
			page := len(asked)
			broken := user(t, fmt.Sprintf("broken%d", page), 9)
			for _, a := range broken.Attributes {
				if a.Name == hashAttribute {
					*a = *ldap.NewEntryAttribute(hashAttribute, []string{"short"})
				}
			}
			r := &reply{entries: []*ldap.Entry{user(t, fmt.Sprintf("user%d", page), byte(page)), broken}}
			if page < 3 {
				r.cookie = fmt.Sprint("page", page)
			}
			return r
		}})
		start := time.Now()
		var names, bad []string
		var hashes [][]byte
		err := dc.Accounts(t.Context(), "(department=7)", []string{"mail"}, func(a Account) error {
			if a.Unreadable != nil {
				bad = append(bad, a.SAMAccountName)
				return nil
			}
			names = append(names, a.SAMAccountName)
			if string(a.NTHash) != strings.Repeat("h", 16) || a.Attributes["mail"] == "" || a.Stamp.IsZero() {
				t.Errorf("%v came without its hash, stamp or attributes", a)
			}
			hashes = append(hashes, a.NTHash)
			return nil
		})
		if err != nil || !slices.Equal(names, []string{"user1", "user2", "user3"}) || !slices.Equal(bad, []string{"broken1", "broken2", "broken3"}) {
			t.Errorf("Accounts told of %q and of %q, unreadable; %v", names, bad, err)
		}
		for _, hash := range hashes {
			if !bytes.Equal(hash, make([]byte, 16)) {
				t.Error("a hash lives longer than it was told")
			}
		}
		for i, s := range asked {
			if !s.paged || s.cookie != []string{"", "page1", "page2"}[i] || s.filter != "(&"+UserAccounts+"(department=7))" || s.deleted {
				t.Errorf("search %d was %+v", i, s)
			}
		}
		// Three pages of a second each, and a rest as long after each but the last.
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("it took %v", d)
		}

		asked = asked[:0]
		enough := errors.New("enough")
		if err := dc.Accounts(t.Context(), "", nil, func(Account) error { return enough }); err != enough || len(asked) != 1 || asked[0].filter != UserAccounts {
			t.Errorf("stopped by its caller: %v after %+v", err, asked)
		}
		if err := dc.Accounts(t.Context(), "department=7", nil, nil); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("with a malformed filter: %v", err)
		}
	})
}
