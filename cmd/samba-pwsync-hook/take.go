package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/capture"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/policy"
	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/internal/seal"
	"github.com/samba-pwsync/samba-pwsync/internal/secret"
	"github.com/samba-pwsync/samba-pwsync/internal/spool"
	"github.com/samba-pwsync/samba-pwsync/samba/checkpassword"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

// take seals the password into a capture, stores it in spool/incoming, and returns the capture's header. When it returns without
// an error, the capture survives a power cut.
func take(conf config.HookConfig, from policy.Subject) (taken capture.Header, err error) {
	paths := conf.Paths()
	// The keys are read anew at each run, so that a rotation needs no restart of Samba.
	agent, err := seal.LoadPublic(paths.AgentPublicKey)
	if err != nil {
		return taken, err
	}
	forwarder, err := seal.LoadPublic(paths.ForwarderPublicKey)
	if err != nil {
		return taken, err
	}
	incoming, err := spool.Open(paths.Incoming, capture.Suffix)
	if err != nil {
		return taken, err
	}
	host, err := os.Hostname()
	if err != nil {
		return taken, fmt.Errorf("asking for the host name: %w", err)
	}
	header := capture.Header{
		ID:                capture.NewID(),
		Time:              time.Now(),
		Host:              strings.ToValidUTF8(host, "?"),
		Account:           from.Account,
		UserPrincipalName: from.UserPrincipalName,
		FullName:          from.FullName,
	}
	raw, err := header.Marshal()
	if err != nil {
		return taken, err
	}
	proofBox, err := sealProof(agent, capture.ProofInfo(raw), from.Password, conf.Proof)
	if err != nil {
		return taken, err
	}
	secretBox, err := seal.Close(forwarder, capture.SecretInfo(raw), from.Password.Bytes())
	if err != nil {
		return taken, err
	}
	if err := incoming.Put(header.FileName(), capture.Encode(raw, proofBox, secretBox)); err != nil {
		return taken, err
	}
	return header, nil
}

// makeRoom shreds the captures that have to go because one was taken, whose file is newest: nobody can fill the disk by having Samba ask about passwords. It
// returns how many went.
func makeRoom(conf config.HookConfig, newest string) (gone int, err error) {
	incoming, err := spool.Open(conf.Paths().Incoming, capture.Suffix)
	if err != nil {
		return 0, err
	}
	files, err := incoming.List()
	if err != nil {
		return 0, err
	}
	for _, file := range capture.Excess(files, newest) {
		if err := incoming.Remove(file); err != nil {
			return gone, err
		}
		gone++
	}
	return gone, nil
}

// sealProof closes the proof box: the NT hash of the password, or, for the proof by AES256 key, the password.
func sealProof(to seal.PublicKey, info []byte, password secret.Secret, proof string) ([]byte, error) {
	if proof == config.AES256 {
		content := box.EncodePassword(password.Bytes())
		defer clear(content)
		return seal.Close(to, info, content)
	}
	utf16 := checkpassword.UTF16LE(password.Bytes())
	defer clear(utf16)
	hash := dsdb.NTHash(utf16)
	defer clear(hash[:])
	content := box.EncodeNTHash(hash)
	defer clear(content)
	return seal.Close(to, info, content)
}
