package dsdb

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

func toUTF16(text string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

// u16 and u32 write numbers, little-endian.
func u16(numbers ...int) (b []byte) {
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint16(b, uint16(n))
	}
	return b
}

func u32(numbers ...int) (b []byte) {
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return b
}

// pkg is one package of a supplementalCredentialsBlob.
func pkg(name string, data []byte) []byte {
	n, d := toUTF16(name), strings.ToUpper(hex.EncodeToString(data))
	return slices.Concat(u16(len(n), len(d), 1), n, []byte(d))
}

// credentials is a whole supplementalCredentialsBlob.
func credentials(packages ...[]byte) []byte {
	sub := slices.Concat(bytes.Repeat([]byte{' ', 0}, 48), u16(0x50, len(packages)), slices.Concat(packages...))
	return slices.Concat(u32(0, len(sub), 0), sub, []byte{0})
}

// newerKeys is a package_PrimaryKerberosBlob of version 4 with a key and an old key.
func newerKeys() []byte {
	const places = 24 + 2*24
	salt := toUTF16("REALMü")
	return slices.Concat(
		u16(4, 0, 1, 0, 1, 0), u16(len(salt), len(salt)), u32(places), u32(4096),
		u32(0, 0, 4096, EncAES256, 32, places+len(salt)), u32(0, 0, 4096, EncAES128, 16, places+len(salt)+32),
		salt, bytes.Repeat([]byte{18}, 32), bytes.Repeat([]byte{17}, 16))
}

func kerberos() []byte {
	const places = 16 + 20 + 20
	salt := toUTF16("S")
	return slices.Concat(u16(3, 0, 1, 0), u16(2, 2), u32(places), u32(0, 0, EncDESMD5, 8, places+2), u32(0, 0, 0, 0, 0), salt, []byte("8 bytes."))
}

func userPassword() []byte {
	scheme := toUTF16("{CRYPT}") // 14 bytes, so that both its ends are padded
	return slices.Concat(bytes.Repeat([]byte{7}, 16), u16(1, 0), u16(len(scheme)), scheme, u32(3, 44), []byte("$6$"))
}

func everything() []byte {
	return credentials(
		pkg("Primary:Kerberos-Newer-Keys", newerKeys()), pkg("Primary:Kerberos", kerberos()),
		pkg("Primary:WDigest", slices.Concat([]byte{0x31, 0, 1, 2}, make([]byte, 12), bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 16))),
		pkg("Primary:CLEARTEXT", toUTF16("geheim")), pkg("Primary:NTLM-Strong-NTOWF", []byte("strong")),
		pkg("Primary:userPassword", userPassword()), pkg("Primary:Unheard-Of", []byte("?")),
		pkg("Packages", toUTF16("Kerberos-Newer-Keys\x00Kerberos")), pkg("Primary:SambaGPG", []byte("-----BEGIN")))
}

func TestParseSupplementalCredentials(t *testing.T) {
	s, err := ParseSupplementalCredentials(everything())
	if err != nil {
		t.Fatal(err)
	}
	key, salt, ok := s.AES256()
	if !ok || salt != "REALMü" || key.Type != EncAES256 || key.Iterations != 4096 || !bytes.Equal(key.Value, bytes.Repeat([]byte{18}, 32)) {
		t.Errorf("AES256: %v, salt %q, %v", key, salt, ok)
	}
	if n := s.NewerKeys; n.DefaultIterations != 4096 || len(n.Keys) != 1 || len(n.OldKeys) != 1 || n.OldKeys[0].Type != EncAES128 ||
		len(n.OldKeys[0].Value) != 16 || n.ServiceKeys != nil || n.OlderKeys != nil {
		t.Errorf("newer keys %+v", n)
	}
	if k := s.Kerberos; k.Salt != "S" || len(k.Keys) != 1 || k.Keys[0].Type != EncDESMD5 || string(k.Keys[0].Value) != "8 bytes." {
		t.Errorf("keys %+v", k)
	}
	if u := s.UserPassword; len(u.Current) != 16 || len(u.Hashes) != 1 || u.Hashes[0].Scheme != "{CRYPT}" || string(u.Hashes[0].Value) != "$6$" {
		t.Errorf("userPassword %+v", u)
	}
	if len(s.WDigest) != 2 || s.WDigest[1][0] != 2 || !bytes.Equal(s.Cleartext, toUTF16("geheim")) || string(s.NTLMStrongNTOWF) != "strong" ||
		string(s.SambaGPG) != "-----BEGIN" || len(s.Other) != 1 || string(s.Other["Primary:Unheard-Of"]) != "?" ||
		!slices.Equal(s.Packages, []string{"Kerberos-Newer-Keys", "Kerberos"}) {
		t.Errorf("%+v", s)
	}
}

func TestSupplementalCredentialsWithoutPackages(t *testing.T) {
	for name, b := range map[string][]byte{
		"no value":          nil,
		"count 0":           credentials(),
		"count missing":     slices.Concat(u32(0, 98, 0), bytes.Repeat([]byte{' ', 0}, 48), u16(0x50), []byte{0}), // as 4.13 leaves a smartcard's account
		"a package is void": credentials(pkg("Primary:CLEARTEXT", nil)),
	} {
		s, err := ParseSupplementalCredentials(b)
		if _, _, ok := s.AES256(); ok || err != nil || s.Packages != nil || s.Cleartext != nil || s.NewerKeys != nil {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	stale, err := ParseSupplementalCredentials(credentials(pkg("Primary:SambaGPG", []byte("old")), pkg("Packages", toUTF16("Kerberos"))))
	if err != nil || stale.SambaGPG != nil || string(stale.Other["Primary:SambaGPG"]) != "old" {
		t.Errorf("an older password's OpenPGP message: %v, %v", stale.Other, err)
	}
	twice, err := ParseSupplementalCredentials(credentials(pkg("Primary:CLEARTEXT", toUTF16("1")), pkg("Primary:CLEARTEXT", toUTF16("2"))))
	if err != nil || !bytes.Equal(twice.Cleartext, toUTF16("1")) {
		t.Errorf("twice the same package: %v, want the first", err)
	}
}

func TestAES256WantsThirtyTwoBytes(t *testing.T) {
	s := SupplementalCredentials{NewerKeys: &KerberosNewerKeys{Keys: []KerberosKey{{Type: EncAES256, Value: make(Secret, 31)}}}}
	if key, _, ok := s.AES256(); ok {
		t.Errorf("a key of %d bytes", len(key.Value))
	}
}

func TestParseSupplementalCredentialsRefuses(t *testing.T) {
	with := func(b []byte, at int, put ...byte) []byte {
		b = slices.Clone(b)
		copy(b[at:], put)
		return b
	}
	whole := everything()
	for n := range whole {
		if n == 0 {
			continue // no value
		}
		if _, err := ParseSupplementalCredentials(whole[:n]); err == nil {
			t.Errorf("cut after %d bytes: no error", n)
		}
	}
	for name, b := range map[string][]byte{
		"a byte too many":        append(everything(), 0),
		"four billion bytes":     with(whole, 4, 0xFF, 0xFF, 0xFF, 0xFF),
		"another signature":      with(whole, 108, 0x51),
		"a package too many":     with(whole, 110, 10),
		"a package too few":      with(whole, 110, 8),
		"65535 packages":         with(whole, 110, 0xFF, 0xFF),
		"no hexadecimal":         with(whole, len(whole)-2, 'G'),
		"half a byte":            credentials(slices.Concat(u16(2, 1, 1), toUTF16("X"), []byte("A"))),
		"a name of half a unit":  credentials(slices.Concat(u16(1, 2, 1), []byte("XAA"))),
		"a name that is no text": credentials(slices.Concat(u16(2, 2, 1), u16(0xD800), []byte("AA"))),
		"packages of half units": credentials(pkg("Packages", []byte("odd"))),
		"keys of version 5":      credentials(pkg("Primary:Kerberos-Newer-Keys", with(newerKeys(), 0, 5))),
		"keys of no version":     credentials(pkg("Primary:Kerberos", []byte{3})),
		"a salt outside":         credentials(pkg("Primary:Kerberos-Newer-Keys", with(newerKeys(), 16, 0xFF, 0xFF, 0xFF, 0xFF))),
		"a salt nowhere":         credentials(pkg("Primary:Kerberos-Newer-Keys", with(newerKeys(), 16, 0, 0, 0, 0))),
		"a salt of half a unit":  credentials(pkg("Primary:Kerberos-Newer-Keys", with(newerKeys(), 14, 1))),
		"a key outside":          credentials(pkg("Primary:Kerberos-Newer-Keys", with(newerKeys(), 40, 0xFF, 0xFF))),
		"a key nowhere":          credentials(pkg("Primary:Kerberos", with(kerberos(), 32, 0, 0, 0, 0))),
		"65535 keys":             credentials(pkg("Primary:Kerberos-Newer-Keys", with(newerKeys(), 10, 0xFF, 0xFF))),
		"65535 old DES keys":     credentials(pkg("Primary:Kerberos", with(kerberos(), 6, 0xFF, 0xFF))),
		"WDigest: one more":      credentials(pkg("Primary:WDigest", append([]byte{0x31, 0, 1, 1}, make([]byte, 12)...))),
		"WDigest: no header":     credentials(pkg("Primary:WDigest", []byte{0x31, 0, 1})),
		"65535 schemes":          credentials(pkg("Primary:userPassword", with(userPassword(), 16, 0xFF, 0xFF))),
		"a scheme of half units": credentials(pkg("Primary:userPassword", with(userPassword(), 20, 13))),
		"a hash outside":         credentials(pkg("Primary:userPassword", with(userPassword(), 40, 45))),
	} {
		s, err := ParseSupplementalCredentials(b)
		if err == nil || s.Packages != nil || s.NewerKeys != nil || s.Cleartext != nil {
			t.Errorf("%s: %v; want an error and nothing else", name, err)
		} else if strings.Contains(err.Error(), "'") { // as encoding/hex would show the byte
			t.Errorf("%s: the error shows bytes: %v", name, err)
		}
	}
}

// Where a length is wrong, what is taken for a name may be a secret.
func TestErrorShowsNoName(t *testing.T) {
	digits := []byte("67006500680065006900")
	name := slices.Concat(toUTF16("Primary:CLEARTEXT"), digits[:8])
	_, err := ParseSupplementalCredentials(credentials(slices.Concat(u16(len(name), 3, 1), name, digits[8:11])))
	if shown, _ := fromUTF16(digits[:8]); err == nil || strings.Contains(err.Error(), shown) || strings.Contains(err.Error(), "CLEARTEXT") {
		t.Errorf("the error is %v", err)
	}
	if _, err := ParseSupplementalCredentials(credentials(pkg("Primary:Kerberos", []byte{3}))); !strings.Contains(err.Error(), "Primary:Kerberos") {
		t.Errorf("the error does not say where: %v", err)
	}
}

func TestSecretsArePrintedNowhere(t *testing.T) {
	s, err := ParseSupplementalCredentials(everything())
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T %v"} {
		for _, v := range []any{s, &s, *s.NewerKeys, s.NewerKeys, s.NewerKeys.Keys, *s.Kerberos, *s.UserPassword, s.Cleartext, s.WDigest, s.Other} {
			text := fmt.Sprintf(verb, v)
			for _, secret := range []Secret{s.Cleartext, s.NTLMStrongNTOWF, s.SambaGPG, s.NewerKeys.Keys[0].Value[:4], s.Kerberos.Keys[0].Value} {
				for _, form := range []string{"%s", "%x", "%X", "%v", "%d"} {
					shown := strings.Trim(fmt.Sprintf(form, []byte(secret)), "[]")
					if strings.Contains(text, shown) {
						t.Errorf("%s of %T shows a secret: %s", verb, v, text)
					}
				}
			}
		}
	}
	if text := fmt.Sprint(s, *s.Kerberos); text != `[supplemental credentials ["Kerberos-Newer-Keys" "Kerberos"]] {S [{3 0 [secret]}] []}` {
		t.Errorf("printed as %s", text)
	}
	encoded, err := json.Marshal(s)
	if err != nil || !bytes.Contains(encoded, []byte(`"Cleartext":"[secret]"`)) || !bytes.Contains(encoded, []byte(`"Value":"[secret]"`)) {
		t.Errorf("as JSON: %s, %v", encoded, err)
	}
}

func TestParseReplUpToDateVector(t *testing.T) {
	one := slices.Concat(bytes.Repeat([]byte{1}, 16), u32(7, 0))
	synced := slices.Concat(one, binary.LittleEndian.AppendUint64(nil, 134398317370000000))
	for name, c := range map[string]struct {
		b    []byte
		want []Cursor
	}{
		"version 1":         {slices.Concat(u32(1, 0, 1, 0), one), []Cursor{{InvocationID: GUID(one[:16]), USN: 7}}},
		"version 2":         {slices.Concat(u32(2, 0, 1, 0), synced), []Cursor{{GUID(one[:16]), 7, NTTime(134398317370000000)}}},
		"without a cursor":  {u32(2, 0, 0, 0), []Cursor{}},
		"version 3":         {u32(3, 0, 0, 0), nil},
		"nothing":           {nil, nil},
		"half a header":     {u32(2, 0), nil},
		"a byte too many":   {append(u32(2, 0, 0, 0), 0), nil},
		"a cursor too few":  {slices.Concat(u32(2, 0, 2, 0), synced), nil},
		"1's length in 2":   {slices.Concat(u32(2, 0, 1, 0), one), nil},
		"four billion of 1": {slices.Concat(u32(1, 0, 0xFFFFFFFF, 0), one), nil},
	} {
		got, err := ParseReplUpToDateVector(c.b)
		if (err == nil) != (c.want != nil) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func cookie(extra []byte) []byte {
	return slices.Concat([]byte("MSDS"), u32(3), binary.LittleEndian.AppendUint64(nil, 134398317370000000), u32(0, 0, len(extra)),
		u32(5, 0, 0, 0, 6, 0), bytes.Repeat([]byte{9}, 16), extra)
}

func TestParseDirSyncCookie(t *testing.T) {
	cursors := slices.Concat(u32(1, 0, 1, 0), bytes.Repeat([]byte{1}, 16), u32(7, 0))
	for _, extra := range [][]byte{nil, cursors} {
		c, err := ParseDirSyncCookie(cookie(extra))
		if err != nil || c.HighObjUpdate != 5 || c.HighPropUpdate != 6 || c.InvocationID != GUID(bytes.Repeat([]byte{9}, 16)) ||
			!c.Time.Equal(NTTime(134398317370000000)) || len(c.Cursors) != len(extra)/len(cursors) {
			t.Errorf("%+v, %v", c, err)
		}
		for n := range cookie(extra) {
			if c, err := ParseDirSyncCookie(cookie(extra)[:n]); err == nil {
				t.Errorf("cut after %d bytes: %+v", n, c)
			}
		}
	}
	for name, b := range map[string][]byte{
		"a byte too many":   append(cookie(nil), 0),
		"another signature": bytes.Replace(cookie(nil), []byte("MSDS"), []byte("MSDT"), 1),
		"another kind":      bytes.Replace(cookie(nil), u32(3), u32(4), 1),
		"broken cursors":    cookie(cursors[:20]),
	} {
		if c, err := ParseDirSyncCookie(b); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// addGolden gives a fuzzer the golden files' values of one attribute.
func addGolden(f *testing.F, attribute string) {
	files, err := filepath.Glob("testdata/samba-*/directory.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden files", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var file struct {
			Accounts                          map[string]map[string]json.RawMessage
			ReplUpToDateVector, DirSyncCookie struct{ Value []byte }
		}
		if err := json.Unmarshal(b, &file); err != nil {
			f.Fatal(err)
		}
		switch attribute {
		case "replUpToDateVector":
			f.Add(file.ReplUpToDateVector.Value)
		case "dirSyncCookie":
			f.Add(file.DirSyncCookie.Value)
		}
		for _, account := range file.Accounts {
			var value []byte
			if err := json.Unmarshal(account[attribute], &value); err == nil {
				f.Add(value)
			}
		}
	}
}

func FuzzParseSupplementalCredentials(f *testing.F) {
	addGolden(f, "supplementalCredentials")
	f.Add(everything())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSupplementalCredentials(b)
		if err != nil {
			return
		}
		held := len(s.Cleartext) + len(s.SambaGPG) + len(s.NTLMStrongNTOWF) + 16*len(s.WDigest)
		for _, other := range s.Other {
			held += len(other)
		}
		if 2*held > len(b) {
			t.Errorf("%d bytes from %d digits", held, len(b))
		}
		if key, _, ok := s.AES256(); ok && len(key.Value) != 32 {
			t.Errorf("a key of %d bytes", len(key.Value))
		}
	})
}

func FuzzParseReplUpToDateVector(f *testing.F) {
	addGolden(f, "replUpToDateVector")
	f.Fuzz(func(t *testing.T, b []byte) {
		if cursors, err := ParseReplUpToDateVector(b); err == nil && len(b) != 16+24*len(cursors) && len(b) != 16+32*len(cursors) {
			t.Errorf("%d cursors from %d bytes", len(cursors), len(b))
		}
	})
}

func FuzzParseDirSyncCookie(f *testing.F) {
	addGolden(f, "dirSyncCookie")
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseDirSyncCookie(b); err == nil && len(b) < 68+24*len(c.Cursors) {
			t.Errorf("%d cursors from %d bytes", len(c.Cursors), len(b))
		}
	})
}
