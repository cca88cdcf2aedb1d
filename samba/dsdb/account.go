package dsdb

import (
	//lint:ignore SA1019 MD4 is what the directory stores, so nothing else will do.
	"golang.org/x/crypto/md4"
)

// NTHash returns the NT hash of a password given as UTF-16LE (as by UTF16LE of
// package checkpassword): its MD4, which is what unicodePwd holds ([MS-SAMR]
// 3.1.1.8.7, NTOWFv1 of [MS-NLMP] 3.3.1).
// Unsalted and accepted in place of the password by NTLM: guard it as such.
func NTHash(utf16le []byte) [16]byte {
	h := md4.New()
	h.Write(utf16le) // a hash never returns an error
	return [16]byte(h.Sum(nil))
}

// Bits of userAccountControl ([MS-ADTS] 2.2.16).
const (
	UFAccountDisable          = 0x00000002
	UFPasswordNotRequired     = 0x00000020 // PASSWD_NOTREQD: other systems may take it at its word, Samba's password policy does not ask for it
	UFReversibleEncryption    = 0x00000080 // ENCRYPTED_TEXT_PASSWORD_ALLOWED: Samba stores new passwords in clear as well, if the domain's or the PSO's settings say so, too
	UFNormalAccount           = 0x00000200
	UFInterdomainTrustAccount = 0x00000800
	UFWorkstationTrustAccount = 0x00001000
	UFServerTrustAccount      = 0x00002000
	UFDontExpirePassword      = 0x00010000
	UFSmartcardRequired       = 0x00040000
)

// SAMUserObject is the sAMAccountType of user accounts, inetOrgPerson
// included, but neither computers nor trusts ([MS-SAMR] 2.2.1.9).
const SAMUserObject = 0x30000000
