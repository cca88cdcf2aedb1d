package dsdb_test

import (
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Is this the account's current password? unicodePwd is NTHash of the Account that package directory finds.
func ExampleNTHash() {
	unicodePwd, err := hex.DecodeString("8846f7eaee8fb117ad06bdd830b7586c")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, password := range []string{"password", "Password"} {
		utf16le := checkpassword.UTF16LE([]byte(password))
		hash := dsdb.NTHash(utf16le)
		clear(utf16le)
		fmt.Println(subtle.ConstantTimeCompare(hash[:], unicodePwd) == 1)
	}
	// Output:
	// true
	// false
}

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

// Which change of its password does the directory hold of an account?
func ExampleMetaData_Password() {
	value, err := os.ReadFile("testdata/created.bin") // a value of replPropertyMetaData, as LDAP returns it
	if err != nil {
		fmt.Println(err)
		return
	}
	meta, err := dsdb.ParseReplPropertyMetaData(value)
	if err != nil {
		fmt.Println(err)
		return
	}
	stamp, _ := meta.Password()
	fmt.Println(stamp)
	// Output: 2@2026-11-22T14:35:37Z by b693bfda-4bd6-4c67-b992-0eb5ce7a265e/4113
}

// What to compare with the key that a password gives (RFC 3962), where the directory stores no NT hash. The salt of a renamed account
// is that of its old name until the password changes.
func ExampleSupplementalCredentials_AES256() {
	value := stored("renamed") // a value of supplementalCredentials
	credentials, err := dsdb.ParseSupplementalCredentials(value)
	if err != nil {
		fmt.Println(err)
		return
	}
	if key, salt, ok := credentials.AES256(); ok {
		fmt.Println(len(key.Value), "bytes after", key.Iterations, "iterations with salt", salt)
	}
	fmt.Println(credentials)
	// Output:
	// 32 bytes after 4096 iterations with salt SAMDOM.EXAMPLE.COMnewname
	// [supplemental credentials ["Kerberos-Newer-Keys" "Kerberos" "WDigest"]]
}

func stored(account string) []byte {
	b, err := os.ReadFile("testdata/samba-4.25/directory.json")
	if err != nil {
		return nil
	}
	var g golden
	if err := json.Unmarshal(b, &g); err != nil {
		return nil
	}
	return g.Accounts[account].SupplementalCredentials
}
