package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/agent"
	"github.com/samba-pwsync/samba-pwsync/internal/ballast"
	"github.com/samba-pwsync/samba-pwsync/internal/config"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/event"
	"github.com/samba-pwsync/samba-pwsync/internal/keyring"
	"github.com/samba-pwsync/samba-pwsync/internal/notice"
	program "github.com/samba-pwsync/samba-pwsync/internal/notice/command"
	"github.com/samba-pwsync/samba-pwsync/internal/notice/mail"
)

// forwarderStatus is what the forwarder's role answers.
type forwarderStatus struct {
	deliver.Status
	Keys    []keyring.Key  `json:"keys"`              // the current one first, then those that are still to be destroyed
	Disk    ballast.Status `json:"disk"`              // below its folder
	Notices *notice.Status `json:"notices,omitempty"` // null: nobody is told that a password was refused
}

// whomToTell is the agent's part of [notify]; nil if nobody is told.
func whomToTell(n config.Notify) *agent.Notify {
	if !n.On() {
		return nil
	}
	return &agent.Notify{Address: n.Address, Collect: n.Collect, AccountPause: n.AccountPause, Hourly: n.Hourly, Audited: n.Audited}
}

// newCourier is the forwarder's part of [notify]. With nobody to tell, it takes away what is left of when there was.
func newCourier(cfg *config.Config, log *event.Log) (*notice.Courier, error) {
	senders, _, err := newSenders(cfg.Notify)
	if err != nil {
		return nil, &codedError{exitUsage, err}
	}
	policies := map[string]notice.Policy{config.DefaultPolicy: inWords(cfg.Policy)}
	for _, p := range cfg.Policies {
		policies[p.Name] = inWords(p.Policy)
	}
	return notice.New(notice.Options{Outgoing: cfg.Paths().Outgoing, Policies: policies, Senders: senders, Log: log})
}

// inWords is what has to be known of a policy to say why it refuses. The first tier is a shortest length, too.
func inWords(p config.Policy) notice.Policy {
	words := notice.Policy{MinLength: p.MinLength, MaxLength: p.MaxLength, Tiers: len(p.Tiers) > 0}
	if words.Tiers {
		length, _, _ := config.ParseTier(p.Tiers[0])
		words.MinLength = max(words.MinLength, length)
	}
	return words
}

// newSenders makes those who tell people. Where one of their files cannot be opened, the error is a fileError.
func newSenders(n config.Notify) (senders []notice.Sender, server *mail.Mail, err error) {
	if n.SMTP != "" {
		if server, err = newMail(n); err != nil {
			return nil, nil, fmt.Errorf("opening [notify]: %w", fileTrouble(err))
		}
		senders = append(senders, server)
	}
	if n.Command != "" {
		senders = append(senders, program.New(n.Command))
	}
	return senders, server, nil
}

func newMail(n config.Notify) (*mail.Mail, error) {
	source := notice.Standard
	if n.Template != "" {
		b, err := os.ReadFile(n.Template)
		if err != nil {
			return nil, err
		}
		source = string(b)
	}
	text, err := notice.ParseText(source)
	if err != nil {
		return nil, err
	}
	return mail.New(mail.Options{
		Server:       n.SMTP,
		TLS:          n.TLS,
		CAFile:       n.CAFile,
		User:         n.User,
		PasswordFile: n.PasswordFile,
		From:         n.From,
		Subject:      n.Subject,
		Text:         text,
	})
}

// checkNotify looks whether people could be told; with connect it asks the mail server.
func checkNotify(ctx context.Context, list *checklist, n config.Notify, connect bool) {
	if !n.On() {
		if n != config.Default().Notify {
			list.attention("[notify] tells nobody: neither smtp nor command is given")
		}
		return
	}
	_, server, err := newSenders(n)
	if err != nil {
		if file := (*fileError)(nil); !errors.As(err, &file) { // that a file is missing, or cannot be read, has been said
			list.fault(exitUsage, err)
		}
		return
	}
	if server == nil || !connect {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := server.Check(ctx); err != nil {
		list.fault(exitFailed, fmt.Errorf("notify.smtp: %w", err))
		return
	}
	list.ok("mail server %s answers; whether it takes mails from %s, only one tells", n.SMTP, n.From)
}
