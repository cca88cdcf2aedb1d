package change

import (
	"fmt"
	"time"
)

// NoticeSuffix ends the file name of a Notice.
const NoticeSuffix = ".notice"

// Notice says that an account's password was refused, or would have been, and by which rules, for the forwarder to tell whose account it
// is. It is not of a password that anybody could have had refused in the account's name.
type Notice struct {
	ID       string    `json:"id"` // 16 random bytes in hex
	Account  Account   `json:"account"`
	FullName string    `json:"full_name,omitempty"` // displayName
	Address  string    `json:"address,omitempty"`   // as the directory has it: perhaps no e-mail address
	Policy   string    `json:"policy"`
	Rules    []string  `json:"rules"` // names, each once
	Audit    bool      `json:"audit,omitempty"`
	Times    int       `json:"times"` // how many passwords were refused
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
}

// NoticeFile names a notice's file by when it was made.
func NoticeFile(made time.Time, id string) string {
	return fmt.Sprintf("%020d-%s%s", made.UnixNano(), id, NoticeSuffix)
}

// Marshal returns the file's bytes.
func (n Notice) Marshal() ([]byte, error) {
	return encode(struct {
		Format int `json:"format"`
		Notice
	}{format, n})
}

// ParseNotice reads a notice's file. Error: ErrDamaged.
func ParseNotice(b []byte) (Notice, error) {
	var f struct {
		Format int `json:"format"`
		Notice
	}
	if err := decode(b, &f); err != nil {
		return Notice{}, err
	}
	switch n := f.Notice; {
	case f.Format != format:
		return Notice{}, fmt.Errorf("%w: format %d, this version reads %d", ErrDamaged, f.Format, format)
	case n.ID == "" || n.Account.GUID.IsZero() || n.Account.SAMAccountName == "" || len(n.Rules) == 0 || n.Last.IsZero():
		return Notice{}, fmt.Errorf("%w: ID, account, rules or time is missing", ErrDamaged)
	default:
		return n, nil
	}
}
