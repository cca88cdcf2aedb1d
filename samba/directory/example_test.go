package directory_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/samba-pwsync/samba-pwsync/samba/directory"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Which version of alice's password does this DC hold?
func Example() {
	ctx := context.Background()
	dc, err := directory.Dial(ctx, "ldapi:///var/lib/samba/private/ldap_priv/ldapi")
	if err != nil {
		log.Fatal(err)
	}
	defer dc.Close()
	alice, err := dc.AccountByName(ctx, "alice", []string{"mail"})
	if errors.Is(err, directory.ErrNotFound) {
		fmt.Println("there is no alice")
		return
	} else if err != nil {
		log.Fatal(err)
	}
	fmt.Println(alice.Attributes["mail"], alice.Stamp)
}

// One round of following the directory.
func ExampleDC_Changed() {
	var (
		ctx  = context.Background()
		dc   *directory.DC // from Dial
		next uint64        // where the last round ended; 0 before the first
	)
	root, err := dc.Root(ctx)
	if err != nil {
		log.Fatal(err)
	}
	err = dc.Changed(ctx, next, nil, func(a directory.Account) error {
		fmt.Println(a.SAMAccountName, a.Stamp)
		return nil
	}, func(guid dsdb.GUID, name string) error {
		fmt.Println(name, "was deleted")
		return nil
	})
	if err != nil {
		log.Fatal(err) // and another time from the same number
	}
	next = root.HighestUSN + 1
	fmt.Println("next time from", next)
}

// One round of following whatever the domain holds, here the members of its groups.
func ExampleDC_DirSync() {
	var (
		ctx    = context.Background()
		dc     *directory.DC // from Dial
		cookie []byte        // what the last round returned; nil before the first
	)
	next, err := dc.DirSync(ctx, cookie, []string{"member"}, func(e directory.DirSyncEntry) error {
		for _, member := range e.Attributes["member"] {
			fmt.Printf("%s has %s\n", e.DN, member)
		}
		return nil
	})
	if err != nil {
		log.Fatal(err) // and another time with the same cookie
	}
	cookie = next
	fmt.Println("next time with", len(cookie), "bytes")
}

// Has this DC heard of everything that DC2 has done?
func ExampleDC_Neighbours() {
	ctx := context.Background()
	var dc *directory.DC // from Dial
	controllers, err := dc.Controllers(ctx)
	if err != nil {
		log.Fatal(err)
	}
	neighbours, err := dc.Neighbours(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range controllers {
		for _, n := range neighbours {
			if c.Name == "DC2" && n.InvocationID == c.InvocationID {
				fmt.Printf("up to its USN %d, as of %v\n", n.USN, n.Heard)
			}
		}
	}
}

func ExampleValidateFilter() {
	fmt.Println(directory.ValidateFilter("(&(mail=*)(!(adminCount=1)))"))
	// Output: <nil>
}
