package dsdb

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
)

// Secret is a password, or what serves in place of one. fmt, whatever the verb,
// and JSON show it as "[secret]". There are places where fmt asks no method:
// below an unexported field, and below a pointer within a struct that is printed
// by a verb such as %s. There it is shown as the bytes that it is.
type Secret []byte

// Format implements fmt.Formatter without the secret.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, "[secret]") }

// MarshalText implements encoding.TextMarshaler without the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// SupplementalCredentials is a decoded value of the attribute
// supplementalCredentials ([MS-SAMR] 2.2.10.1, USER_PROPERTIES): what is derived
// from a password, beside its NT hash, at the time of its change. What the value
// does not hold is nil.
//
// Each field but the last two is the package "Primary:" of its name. A DC that
// does not know a package may keep it from an earlier password: compare
// UserPassword.Current. SambaGPG is here only where it is the last package, as
// Samba writes it, and among Other where something else came after it.
type SupplementalCredentials struct {
	Kerberos        *Kerberos          // keys of the old types (DES)
	NewerKeys       *KerberosNewerKeys // "Kerberos-Newer-Keys": AES; only from domain functional level 2008
	WDigest         []Secret           // 29 MD5 hashes of 16 bytes, in the order of [MS-SAMR] 3.1.1.8.11.3.1
	Cleartext       Secret             // the password itself, UTF-16LE, where reversible encryption is on
	NTLMStrongNTOWF Secret             // written by Windows: a key that has nothing to do with the password
	UserPassword    *UserPassword      // Samba's `password hash userPassword schemes`
	SambaGPG        Secret             // OpenPGP message, armored, of the password in UTF-16LE; Samba's `password hash gpg key ids`

	Packages []string          // "Packages": names of what was written, without "Primary:"
	Other    map[string]Secret // packages not known here, by their full name
}

// Format implements fmt.Formatter: it names the packages, for what is below a
// pointer would be shown (see Secret).
func (s SupplementalCredentials) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "[supplemental credentials %q]", s.Packages)
}

// Kerberos is the package Primary:Kerberos ([MS-SAMR] 2.2.10.4,
// KERB_STORED_CREDENTIAL).
type Kerberos struct {
	Salt          string // of Keys; that of OldKeys is not kept
	Keys, OldKeys []KerberosKey
}

// KerberosNewerKeys is the package Primary:Kerberos-Newer-Keys ([MS-SAMR]
// 2.2.10.6, KERB_STORED_CREDENTIAL_NEW). OldKeys are those of the password before
// this one, OlderKeys those of the one before that.
type KerberosNewerKeys struct {
	// Salt is that of Keys, as it was when they were made: the realm in upper
	// case and the account's name of that time. Renaming does not change it. The
	// salts of the older keys are not kept.
	Salt              string
	DefaultIterations uint32 // Samba: 4096

	Keys, ServiceKeys, OldKeys, OlderKeys []KerberosKey
}

// KerberosKey is one key of an account ([MS-SAMR] 2.2.10.5 and 2.2.10.7).
type KerberosKey struct {
	Type       int32  // encryption type of RFC 3961: see EncAES256 and its like
	Iterations uint32 // of the derivation (RFC 3962); 0 in Primary:Kerberos, which does not have it
	Value      Secret
}

// Encryption types that directories store (RFC 3961, RFC 3962).
const (
	EncDESCRC = 1
	EncDESMD5 = 3
	EncAES128 = 17 // aes128-cts-hmac-sha1-96, 16 bytes
	EncAES256 = 18 // aes256-cts-hmac-sha1-96, 32 bytes
)

// UserPassword is the package Primary:userPassword, which is Samba's own:
// hashes for other systems (package_PrimaryUserPasswordBlob).
type UserPassword struct {
	// Current tells which password the hashes are of: its NT hash or, where none
	// is stored (`nt hash store = never`), the first 16 bytes of its AES256 key.
	Current Secret
	Hashes  []UserPasswordHash
}

// UserPasswordHash is one hash in the form of RFC 2307: Scheme "{CRYPT}" and
// Value "$6$salt$…" as crypt(3) writes it.
type UserPasswordHash struct {
	Scheme string
	Value  Secret
}

// AES256 returns the AES256 key of the current password and the salt that went
// into it; ok is false where there is none, as in domains below the functional
// level 2008 and after a change that gave the directory the hash only.
func (s SupplementalCredentials) AES256() (key KerberosKey, salt string, ok bool) {
	if s.NewerKeys == nil {
		return KerberosKey{}, "", false
	}
	i := slices.IndexFunc(s.NewerKeys.Keys, func(k KerberosKey) bool { return k.Type == EncAES256 && len(k.Value) == 32 })
	if i < 0 {
		return KerberosKey{}, "", false
	}
	return s.NewerKeys.Keys[i], s.NewerKeys.Salt, true
}

// Errors of ParseSupplementalCredentials. They say where, not what: the bytes
// around are secrets.
var (
	errSupplementalLength    = errors.New("a length or an offset does not fit")
	errSupplementalSignature = errors.New("not its signature")
	errSupplementalVersion   = errors.New("not a known version")
	errSupplementalText      = errors.New("text that is no UTF-16")
	errSupplementalHex       = errors.New("data that is not hexadecimal")
)

// ParseSupplementalCredentials decodes a value of supplementalCredentials:
// supplementalCredentialsBlob of Samba's librpc/idl/drsblobs.idl, little-endian:
//
//	  0  reserved   4  size of what follows at 12, without the last byte
//	  8  reserved  12  96 bytes of no meaning
//	108  signature (0x50)       110  count; may be missing if there is nothing
//	112  count times:
//	       0  bytes of the name   2  bytes of the data   4  reserved
//	       6  name, UTF-16LE; then the data, in hexadecimal digits
//
// and a last byte of no meaning. Each package's data has a layout of its own; see
// the decoders below. An empty value is one without packages. Of two packages of
// one name the first counts, and one without data counts as missing, as in Samba.
// Whatever is too short, too long or points outside is an error, and then nothing
// is returned.
func ParseSupplementalCredentials(b []byte) (SupplementalCredentials, error) {
	s, err := parseSupplemental(b)
	if err != nil {
		return SupplementalCredentials{}, fmt.Errorf("decoding supplementalCredentials: %w", err)
	}
	return s, nil
}

func parseSupplemental(b []byte) (s SupplementalCredentials, err error) {
	const outer, prefix, signature = 12, 96, 0x50
	if len(b) == 0 {
		return s, nil
	}
	r := reader{b: b}
	size := r.take(outer)
	if r.failed || uint64(len(b)) != outer+uint64(binary.LittleEndian.Uint32(size[4:]))+1 {
		return s, errSupplementalLength
	}
	r = reader{b: b[outer : len(b)-1]}
	r.take(prefix)
	if sign := r.uint16(); r.failed {
		return s, errSupplementalLength
	} else if sign != signature {
		return s, errSupplementalSignature
	}
	if len(r.b) == r.at {
		return s, nil
	}
	seen := map[string]bool{}
	count := r.uint16()
	for i := range count {
		nameBytes, dataBytes := int(r.uint16()), int(r.uint16())
		r.uint16()
		rawName, digits := r.take(nameBytes), r.take(dataBytes)
		if r.failed {
			return s, errSupplementalLength
		}
		name, ok := fromUTF16(rawName)
		if !ok {
			return s, errSupplementalText
		}
		if len(digits) == 0 || seen[name] {
			continue
		}
		seen[name] = true
		data := make([]byte, hex.DecodedLen(len(digits)))
		if _, err := hex.Decode(data, digits); err != nil { // whose text would show a digit of the secret
			return s, fmt.Errorf("%s: %w", place(name, i), errSupplementalHex)
		}
		if err := s.set(name, data, i == count-1); err != nil {
			return s, fmt.Errorf("%s: %w", place(name, i), err)
		}
	}
	if r.failed || r.at != len(r.b) {
		return s, errSupplementalLength
	}
	return s, nil
}

// place says in which package something is wrong: by its name if that is known,
// since where a length is wrong, what is taken for a name may be a secret.
func place(name string, i uint16) string {
	switch name {
	case "Packages", "Primary:Kerberos", "Primary:Kerberos-Newer-Keys", "Primary:WDigest", "Primary:CLEARTEXT",
		"Primary:NTLM-Strong-NTOWF", "Primary:userPassword", "Primary:SambaGPG":
		return name
	}
	return fmt.Sprintf("package %d", i+1)
}

func (s *SupplementalCredentials) set(name string, data []byte, last bool) (err error) {
	if name == "Primary:SambaGPG" && last {
		s.SambaGPG = data
		return nil
	}
	switch name {
	case "Packages":
		s.Packages, err = parsePackages(data)
	case "Primary:Kerberos":
		s.Kerberos, err = parseKerberos(data)
	case "Primary:Kerberos-Newer-Keys":
		s.NewerKeys, err = parseNewerKeys(data)
	case "Primary:WDigest":
		s.WDigest, err = parseWDigest(data)
	case "Primary:CLEARTEXT":
		s.Cleartext = data
	case "Primary:NTLM-Strong-NTOWF":
		s.NTLMStrongNTOWF = data
	case "Primary:userPassword":
		s.UserPassword, err = parseUserPassword(data)
	default:
		if s.Other == nil {
			s.Other = map[string]Secret{}
		}
		s.Other[name] = data
	}
	return err
}

// parsePackages reads the names of the packages, UTF-16LE, with a NUL between
// two of them.
func parsePackages(data []byte) ([]string, error) {
	text, ok := fromUTF16(data)
	if !ok {
		return nil, errSupplementalText
	}
	return strings.Split(text, "\x00"), nil
}

// parseKerberos reads package_PrimaryKerberosBlob version 3:
//
//	0  version (3)   2  flags   4  count of keys   6  count of old keys
//	8  salt, as string reads it
//	16 the keys, each of 20 bytes: 8 reserved, then as key reads it
//
// and 20 bytes of padding before what the offsets point to.
func parseKerberos(data []byte) (*Kerberos, error) {
	r := reader{b: data}
	if r.uint16() != 3 {
		return nil, errSupplementalVersion
	}
	r.uint16()
	keys, oldKeys := int(r.uint16()), int(r.uint16())
	var k Kerberos
	var ok bool
	if k.Salt, ok = r.string(); !ok {
		return nil, errSupplementalText
	}
	k.Keys = r.keys(keys, false)
	k.OldKeys = r.keys(oldKeys, false)
	if r.failed {
		return nil, errSupplementalLength
	}
	return &k, nil
}

// parseNewerKeys reads package_PrimaryKerberosBlob version 4:
//
//	0  version (4)   2  flags
//	4  counts of keys, service keys, old keys and older keys, 2 bytes each
//	12 salt, as string reads it   20  default iterations
//	24 the keys, each of 24 bytes: 8 reserved, iterations, then as key reads it
func parseNewerKeys(data []byte) (*KerberosNewerKeys, error) {
	r := reader{b: data}
	if r.uint16() != 4 {
		return nil, errSupplementalVersion
	}
	r.uint16()
	keys, serviceKeys, oldKeys, olderKeys := int(r.uint16()), int(r.uint16()), int(r.uint16()), int(r.uint16())
	var k KerberosNewerKeys
	var ok bool
	if k.Salt, ok = r.string(); !ok {
		return nil, errSupplementalText
	}
	k.DefaultIterations = r.uint32()
	k.Keys = r.keys(keys, true)
	k.ServiceKeys = r.keys(serviceKeys, true)
	k.OldKeys = r.keys(oldKeys, true)
	k.OlderKeys = r.keys(olderKeys, true)
	if r.failed {
		return nil, errSupplementalLength
	}
	return &k, nil
}

// parseWDigest reads package_PrimaryWDigestBlob ([MS-SAMR] 2.2.10.3,
// WDIGEST_CREDENTIALS): 3 bytes of no meaning, count, 12 bytes of no meaning, and
// count times 16 bytes.
func parseWDigest(data []byte) ([]Secret, error) {
	const header, size = 16, 16
	if len(data) < header || len(data) != header+size*int(data[3]) {
		return nil, errSupplementalLength
	}
	hashes := []Secret{}
	for hash := range slices.Chunk(data[header:], size) {
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

// parseUserPassword reads package_PrimaryUserPasswordBlob:
//
//	0  current, 16 bytes   16  count
//	20 count times, each at a multiple of 4:
//	     bytes of the scheme (2), scheme in UTF-16LE, padding to a multiple of 4,
//	     bytes of the value (4), its offset (4)
func parseUserPassword(data []byte) (*UserPassword, error) {
	r := reader{b: data}
	u := UserPassword{Current: r.take(16)}
	for range r.uint16() {
		r.align4()
		scheme, ok := fromUTF16(r.take(int(r.uint16())))
		if !ok {
			return nil, errSupplementalText
		}
		r.align4()
		value := r.pointed(r.uint32())
		if r.failed { // before there are 65535 of them
			break
		}
		u.Hashes = append(u.Hashes, UserPasswordHash{Scheme: scheme, Value: value})
	}
	if r.failed {
		return nil, errSupplementalLength
	}
	return &u, nil
}

// reader takes little-endian values one after the other. After one that is not
// there it has failed, and gives zeros and nil.
type reader struct {
	b      []byte
	at     int
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.b)-r.at {
		r.failed = true
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at : r.at]
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) align4() { r.take(-r.at & 3) }

// pointed reads an offset (4 bytes) and returns the size bytes that stand there,
// counted from the beginning. The offset 0 points to nothing.
func (r *reader) pointed(size uint32) []byte {
	offset := uint64(r.uint32())
	end := offset + uint64(size)
	if r.failed || end > uint64(len(r.b)) {
		r.failed = true
		return nil
	}
	if offset == 0 {
		r.failed = size > 0
		return nil
	}
	return r.b[offset:end:end]
}

// string reads the place of a text: its bytes (2), the bytes that are reserved
// for it (2, which is the number that Samba goes by), its offset (4).
func (r *reader) string() (text string, ok bool) {
	r.uint16()
	return fromUTF16(r.pointed(uint32(r.uint16())))
}

// keys reads count places of keys: 8 bytes reserved, iterations (4, if there are
// such), encryption type (4), bytes of the value (4), its offset (4).
func (r *reader) keys(count int, iterations bool) []KerberosKey {
	var keys []KerberosKey
	for range count {
		var k KerberosKey
		r.take(8)
		if iterations {
			k.Iterations = r.uint32()
		}
		k.Type = int32(r.uint32())
		k.Value = r.pointed(r.uint32())
		if r.failed {
			return nil
		}
		keys = append(keys, k)
	}
	return keys
}

// fromUTF16 reads UTF-16LE; not ok are an odd length and half a surrogate pair.
func fromUTF16(b []byte) (text string, ok bool) {
	if len(b)%2 != 0 {
		return "", false
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	runes := utf16.Decode(units)
	if !slices.Equal(utf16.Encode(runes), units) {
		return "", false
	}
	return string(runes), true
}
