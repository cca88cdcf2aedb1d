package lab

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// Held is the password that a DC's database holds for an account.
type Held struct {
	Hash  [16]byte // the NT hash
	Stamp dsdb.Stamp
}

// Is says whether it is that password.
func (h Held) Is(password string) bool { return h.Hash == dsdb.NTHash(utf16le(password)) }

// Held returns what the DC holds for the user accounts that an LDAP filter names, by sAMAccountName.
func (dc *DC) Held(ctx context.Context, filter string) (map[string]Held, error) {
	out, err := dc.Exec(ctx, "", "ldbsearch", "-d", "0", "-H", ldapiURL, "-b", BaseDN,
		"(&(objectClass=user)"+filter+")", "sAMAccountName", "unicodePwd", "replPropertyMetaData")
	if err != nil {
		return nil, fmt.Errorf("reading passwords from %s: %w", dc.Host, err)
	}
	held := map[string]Held{}
	for record := range strings.SplitSeq(strings.ReplaceAll(out, "\n ", ""), "\n\n") { // LDIF, unfolded
		attributes := map[string][]byte{}
		for line := range strings.Lines(record) {
			name, value, _ := strings.Cut(trim(line), ":")
			if encoded, ok := strings.CutPrefix(value, ": "); ok {
				attributes[name], _ = base64.StdEncoding.DecodeString(encoded) // what is damaged is judged below
			} else {
				attributes[name] = []byte(trim(value))
			}
		}
		if attributes["unicodePwd"] == nil {
			continue
		}
		metaData, err := dsdb.ParseReplPropertyMetaData(attributes["replPropertyMetaData"])
		stamp, ok := metaData.Password()
		if err != nil || !ok || len(attributes["unicodePwd"]) != 16 {
			return nil, fmt.Errorf("reading passwords from %s: no stamp or no hash: %v", dc.Host, err)
		}
		held[string(attributes["sAMAccountName"])] = Held{Hash: [16]byte(attributes["unicodePwd"]), Stamp: stamp}
	}
	return held, nil
}
