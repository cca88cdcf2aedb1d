package google

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"

	"github.com/GehirnInc/crypt"
	"github.com/GehirnInc/crypt/md5_crypt"
	"github.com/GehirnInc/crypt/sha256_crypt"
	"github.com/GehirnInc/crypt/sha512_crypt"

	"github.com/samba-pwsync/samba-pwsync/internal/sandbox/state"
)

// The forms of crypt(3) that Google names, but for DES, which cuts passwords off
// after eight characters: whoever sends that has made a mistake.
var (
	md5Form    = regexp.MustCompile(`^\$1\$[./0-9A-Za-z]{1,8}\$[./0-9A-Za-z]{22}$`)
	sha256Form = regexp.MustCompile(`^\$5\$(?:rounds=([1-9][0-9]*)\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{43}$`)
	sha512Form = regexp.MustCompile(`^\$6\$(?:rounds=([1-9][0-9]*)\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{86}$`)
)

const maxRounds = 10_000

// malformed says why a password cannot be what its hashFunction calls it. The
// answer never holds the password.
func malformed(value, hash string) string {
	switch hash {
	case "":
		// encoding/json puts U+FFFD where a string is not UTF-8: it would be
		// another password than the user's.
		if strings.ContainsRune(value, '\uFFFD') {
			return "the password holds U+FFFD, which replaces what was not UTF-8"
		}
	case "MD5", "SHA-1":
		digest, err := hex.DecodeString(value)
		if size := map[string]int{"MD5": md5.Size, "SHA-1": sha1.Size}[hash]; err != nil || len(digest) != size {
			return "the password is not the hex form of " + hash
		}
	case "crypt":
		var rounds string
		switch {
		case md5Form.MatchString(value):
		case sha256Form.MatchString(value):
			rounds = sha256Form.FindStringSubmatch(value)[1]
		case sha512Form.MatchString(value):
			rounds = sha512Form.FindStringSubmatch(value)[1]
		default:
			return "the password is not a crypt string of the forms $1$, $5$ and $6$"
		}
		if n, err := strconv.Atoi(rounds); rounds != "" && (err != nil || n > maxRounds) {
			return "the crypt string has more than 10000 rounds"
		}
	}
	return ""
}

// Matches says whether clear is the password that was stored.
func Matches(stored state.Password, clear string) bool {
	switch stored.Hash {
	case "MD5":
		sum := md5.Sum([]byte(clear))
		return equal(strings.ToLower(stored.Value), hex.EncodeToString(sum[:]))
	case "SHA-1":
		sum := sha1.Sum([]byte(clear))
		return equal(strings.ToLower(stored.Value), hex.EncodeToString(sum[:]))
	case "crypt":
		var c crypt.Crypter
		switch {
		case strings.HasPrefix(stored.Value, "$1$"):
			c = md5_crypt.New()
		case strings.HasPrefix(stored.Value, "$5$"):
			c = sha256_crypt.New()
		default:
			c = sha512_crypt.New()
		}
		// Not c.Verify: it takes a salt of fewer than sixteen characters, when
		// rounds stand before it, together with the hash that follows.
		again, err := c.Generate([]byte(clear), []byte(stored.Value[:strings.LastIndexByte(stored.Value, '$')]))
		return err == nil && equal(stored.Value, again)
	}
	return equal(stored.Value, clear)
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
