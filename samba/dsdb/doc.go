// Package dsdb decodes what an Active Directory domain controller stores about
// a password: which version of it the directory holds (the stamp), its NT
// hash, the keys derived from it (supplementalCredentials), and the times and
// flags beside it; and how far changes have come (replUpToDateVector, repsFrom,
// cookies of DirSync).
//
// Bytes go in, values come out. The package opens no connection, reads no
// file and keeps no state; package directory does the asking.
//
// It trusts nobody: the bytes may come from a damaged database or a hostile
// server, so every length is checked against the bytes that are there, and
// nothing is allocated because a length field asks for it.
//
// What it does not solve: it does not say whether a stamp is the newest one in
// the domain (each DC knows only what has been replicated to it), and the NT
// hash it computes is a password equivalent, to be guarded like the password.
//
// Layouts are from [MS-DTYP], [MS-ADTS] and [MS-DRSR]; where Samba decides
// differently, Samba's decision is followed and named.
package dsdb
