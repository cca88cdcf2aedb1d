// Package event says what happened: each event is one method here, written once and read as a log line and as a counter.
//
// Why: the log of a password tool is read by people under stress and by scripts. One place keeps the words, the keys and the
// levels the same, and makes it easy to see that no secret is among the values: nothing here takes one.
//
// Events that anybody in the domain can bring about as often as he likes have a limited number of lines (ration.go).
//
// Keys, always the same: account (sAMAccountName), guid, target, user, capture, stamp (version of the password attribute),
// took (since the capture), error.
package event

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/change"
	"github.com/samba-pwsync/samba-pwsync/internal/target"
)

// Log takes events. Its methods may be called concurrently.
type Log struct {
	log *slog.Logger

	mu       sync.Mutex
	counters map[string]uint64
	ration   ration
}

// New returns a Log that writes to log.
func New(log *slog.Logger) *Log { return &Log{log: log, counters: map[string]uint64{}} }

// Counters returns how often each event happened since the process started.
func (l *Log) Counters() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counters)
}

func (l *Log) write(level slog.Level, name, text string, attrs ...slog.Attr) {
	l.mu.Lock()
	l.counters[name]++
	l.mu.Unlock()
	l.log.LogAttrs(context.Background(), level, text, append([]slog.Attr{slog.String("event", name)}, attrs...)...)
}

func account(a change.Account) slog.Attr {
	return slog.Group("", slog.String("account", a.SAMAccountName), slog.String("guid", a.GUID.String()))
}

func stamp(c change.Change) slog.Attr { return slog.Uint64("stamp", uint64(c.Stamp.Version)) }
func took(d time.Duration) slog.Attr  { return slog.Duration("took", d.Round(100*time.Microsecond)) }
func failed(err error) slog.Attr      { return slog.String("error", err.Error()) }

// Started: the process serves a role, or all of them.
func (l *Log) Started(version, role string, targets []string) {
	l.write(slog.LevelInfo, "started", "serving", slog.String("version", version), slog.String("role", role), slog.Any("targets", targets))
}

// Events of the agent.

// Proven: the directory holds the captured password; the change has been handed to the forwarder.
func (l *Log) Proven(c change.Change) {
	targets := make([]string, len(c.Routes))
	for i, r := range c.Routes {
		targets[i] = r.Target
	}
	l.write(slog.LevelInfo, "proven", "password change proven", account(c.Account), stamp(c),
		slog.String("capture", c.Capture), slog.Any("targets", targets), took(time.Since(c.Captured)))
}

// Unwanted: proven, but no target wants the account.
func (l *Log) Unwanted(capture string, a change.Account, why string) {
	l.write(slog.LevelInfo, "unwanted", "no target wants this account", account(a), slog.String("capture", capture), slog.String("why", why))
}

// Repeated: proven, but this version of the account's password has been handed over before; the capture has been shredded.
func (l *Log) Repeated(capture string, a change.Account) {
	l.write(slog.LevelDebug, "repeated", "this password version has been handed over already", account(a), slog.String("capture", capture))
}

// NeverCommitted: no change of the account came of the captured password within the time allowed; the capture has been shredded.
// name is what the capture claims: any domain user can make one up. What is said is the same for a guess that was right.
func (l *Log) NeverCommitted(capture, name string) {
	l.rationed(slog.LevelInfo, "never-committed", "captured password is that of no change: refused, forged or replaced since; shredded", name,
		slog.String("capture", capture))
}

// Unclaimed: NeverCommitted, of a capture from before this process started whose account is not known by its name. An earlier process may
// have proven it.
func (l *Log) Unclaimed(capture, name string) {
	l.rationed(slog.LevelInfo, "unclaimed", "captured password from before this start is no account's new one since; shredded", name,
		slog.String("capture", capture))
}

// Crowded: the hook shredded n captures in an account's name before their time was over, because too many of their kind waited.
func (l *Log) Crowded(name string, n int) {
	for range n {
		l.rationed(slog.LevelInfo, "crowded", "captured password shredded by the hook before its time, because too many of its kind waited", name)
	}
}

// Flood: somebody has Samba ask about passwords in an account's name again and again, or, if that is empty, in many; n so far within this minute.
func (l *Log) Flood(name string, n uint64) {
	l.write(slog.LevelWarn, "flood", "somebody has Samba ask about passwords again and again (SamrValidatePassword?); none of it is sent",
		slog.String("account", name), slog.Uint64("count", n))
}

// FloodOver: Flood, and it has been quiet for a while.
func (l *Log) FloodOver(name string, n uint64, lasted time.Duration) {
	l.write(slog.LevelWarn, "flood-over", "nobody has Samba ask about passwords again and again any more",
		slog.String("account", name), slog.Uint64("count", n), slog.Duration("lasted", lasted.Round(time.Second)))
}

// Skipped: proven and handed over, but some targets do not want the account.
func (l *Log) Skipped(capture string, a change.Account, why string) {
	l.write(slog.LevelInfo, "skipped", "some targets do not want this account", account(a), slog.String("capture", capture), slog.String("why", why))
}

// HashMissing: the directory stores nothing that a capture of this account could be compared with.
func (l *Log) HashMissing(capture string, a change.Account, err error) {
	l.rationed(slog.LevelError, "hash-missing", "nothing can be proven of this account", a.SAMAccountName, slog.String("guid", a.GUID.String()),
		slog.String("capture", capture), failed(err))
}

// Unprovable: HashMissing until the time allowed was over; the capture has been shredded.
func (l *Log) Unprovable(capture, name string) {
	l.rationed(slog.LevelError, "unprovable", "captured password could not be proven, because the directory stores nothing to compare it with; shredded", name,
		slog.String("capture", capture))
}

// Unanswered: until the time allowed was over the DC answered about a capture's account with an error. The capture, which may be nobody's change,
// has been shredded.
func (l *Log) Unanswered(capture, name string, err error) {
	l.rationed(slog.LevelError, "unanswered", "captured password could not be proven, because the account cannot be looked up; shredded", name,
		slog.String("capture", capture), failed(err))
}

// CaptureDamaged: a capture's file makes no sense, or its account cannot be looked up, and it has been set aside. name is what it claims; empty if that is not known.
func (l *Log) CaptureDamaged(file, name string, err error) {
	l.rationed(slog.LevelError, "capture-damaged", "capture set aside: look into spool/incoming/damaged", name, slog.String("file", file), failed(err))
}

// AsideFull: CaptureDamaged, but so many were set aside before that this one has been shredded.
func (l *Log) AsideFull(file, name string, err error) {
	l.rationed(slog.LevelError, "aside-full", "capture shredded, because too many are set aside already: look into spool/incoming/damaged, and empty it", name,
		slog.String("file", file), failed(err))
}

// DirectoryDown: the DC does not answer; captures wait. Called once per outage.
func (l *Log) DirectoryDown(err error) {
	l.write(slog.LevelWarn, "directory-down", "the directory does not answer; captures wait", failed(err))
}

// DirectoryUp: the DC answers again, or for the first time.
func (l *Log) DirectoryUp(host string) {
	l.write(slog.LevelInfo, "directory-up", "the directory answers", slog.String("dc", host))
}

// Sighted: the watch passed on n password stamps that are new.
func (l *Log) Sighted(n int) {
	l.write(slog.LevelDebug, "sighted", "password stamps passed on", slog.Int("count", n))
}

// PositionDamaged: the file of where the watch stood makes no sense. All stamps are passed on anew.
func (l *Log) PositionDamaged(file string, err error) {
	l.write(slog.LevelError, "position-damaged", "where the watch stood is damaged: all accounts are read anew; check the disk", slog.String("file", file), failed(err))
}

// FollowupForgotten: the file of when samba-pwsync was installed makes no sense. What was changed before now counts as of before that, for drift.
func (l *Log) FollowupForgotten(file string) {
	l.write(slog.LevelError, "followup-forgotten", "when this installation began is not known any more: drift takes it for now; check the disk", slog.String("file", file))
}

// AllTold: the forwarder had asked for the stamps of all accounts, and has got them.
func (l *Log) AllTold() {
	l.write(slog.LevelInfo, "all-told", "password stamps of all accounts passed on anew, as the forwarder asked")
}

// AskPutOff: the forwarder asks for the stamps of all accounts again and again, and has to wait for them. Called once each time.
func (l *Log) AskPutOff(until time.Time) {
	l.write(slog.LevelWarn, "ask-put-off", "the forwarder asks again and again for the password stamps of all accounts: it has to wait, and what waited there is held back",
		slog.Time("until", until))
}

// AccountUnreadable: what the directory holds of an account makes no sense. The others are not held up by that.
func (l *Log) AccountUnreadable(a change.Account, err error) {
	l.write(slog.LevelError, "account-unreadable", "account cannot be read from the directory: none of its passwords is sent until it can",
		account(a), failed(err))
}

// Counted: the directory was asked which policy each account has and which targets want it.
func (l *Log) Counted(accounts int, took time.Duration) {
	l.write(slog.LevelDebug, "counted", "policies and targets of all accounts looked up", slog.Int("accounts", accounts), slog.Duration("took", took.Round(time.Millisecond)))
}

// CensusTrouble: which policy each account has cannot be brought up to date; the hook goes on with what it last was. Called once per
// outage.
func (l *Log) CensusTrouble(err error) {
	l.write(slog.LevelError, "census-trouble", "policies of accounts cannot be brought up to date: the hook goes on with the last ones; will try again", failed(err))
}

// CensusUp: the policies of accounts are up to date again.
func (l *Log) CensusUp() {
	l.write(slog.LevelInfo, "census-up", "policies of accounts are up to date again")
}

// WordsCompiled: the banned words of some files are ready for the hook.
func (l *Log) WordsCompiled(files []string, words int) {
	l.write(slog.LevelInfo, "words-compiled", "banned words compiled", slog.Any("files", files), slog.Int("words", words))
}

// AgentTrouble: something of the agent's own failed and will be tried again.
func (l *Log) AgentTrouble(doing string, err error) {
	l.write(slog.LevelError, "agent-trouble", doing+" failed; will try again", failed(err))
}

// RefusalsForgotten: the file of the counts that `status` shows cannot be read; they begin anew.
func (l *Log) RefusalsForgotten(err error) {
	l.write(slog.LevelError, "refusals-forgotten", "what the policy refused is counted anew", failed(err))
}

// NoticeMade: an account is to be told that its password was refused; the notice has been handed to the forwarder.
func (l *Log) NoticeMade(a change.Account, id string, rules []string) {
	l.write(slog.LevelDebug, "notice-made", "the account is to be told that a password was refused", account(a), slog.String("notice", id), slog.Any("rules", rules))
}

// NoticesLimited: nobody is told at present that a password was refused, because too many were told within the hour. Called once.
func (l *Log) NoticesLimited(hourly int) {
	l.write(slog.LevelWarn, "notices-limited", "too many were told that a password was refused: nobody else is told until the hour is over", slog.Int("hourly", hourly))
}

// Events of the forwarder.

// NoticeSent: the account has been told.
func (l *Log) NoticeSent(a change.Account, id, by string, rules []string) {
	l.write(slog.LevelInfo, "notice-sent", "told that a password was refused", account(a), slog.String("notice", id), slog.String("by", by), slog.Any("rules", rules))
}

// NoticeLate: the account could not be told, and it is tried again for an hour. Called once for each notice.
func (l *Log) NoticeLate(a change.Account, id, by string, err error) {
	l.write(slog.LevelWarn, "notice-late", "could not tell that a password was refused; will try again", account(a), slog.String("notice", id), slog.String("by", by), failed(err))
}

// NoticeLost: the account will not be told.
func (l *Log) NoticeLost(a change.Account, id, by string, err error) {
	l.write(slog.LevelError, "notice-lost", "could not tell that a password was refused; given up", account(a), slog.String("notice", id), slog.String("by", by), failed(err))
}

// NoticeDamaged: a notice in spool/outgoing makes no sense and has been set aside.
func (l *Log) NoticeDamaged(file string, err error) {
	l.write(slog.LevelError, "notice-damaged", "notice set aside: look into spool/outgoing/damaged", slog.String("file", file), failed(err))
}

// AskedForAll: what the agent had told of the directory is lost to the disk, and it is asked to tell all anew. Until it has, what waited is
// held back.
func (l *Log) AskedForAll() {
	l.write(slog.LevelWarn, "asked-for-all", "what the agent told is damaged; asked it for the password stamps of all accounts: until they are here, what waited is held back")
}

// Queued: a change waits for its targets.
func (l *Log) Queued(c change.Change) {
	l.write(slog.LevelDebug, "queued", "change queued", account(c.Account), stamp(c), slog.String("capture", c.Capture))
}

// Attempt is what the forwarder knows of an item that it tried to deliver.
type Attempt struct {
	Target  string
	User    string
	Account change.Account
	Capture string
	Version uint32        // of the stamp
	Number  int           // of the attempt, from 1
	Took    time.Duration // since the capture
}

func (a Attempt) attrs(more ...slog.Attr) []slog.Attr {
	return append([]slog.Attr{slog.String("target", a.Target), slog.String("user", a.User), account(a.Account),
		slog.Uint64("stamp", uint64(a.Version)), slog.String("capture", a.Capture), slog.Int("attempt", a.Number), took(a.Took)}, more...)
}

// Delivered: the target holds the password.
func (l *Log) Delivered(a Attempt) {
	l.write(slog.LevelInfo, "delivered", "password delivered", a.attrs()...)
}

// Confirmed: the target was given the password once more, as the last word after those of other DCs' forwarders.
func (l *Log) Confirmed(a Attempt) {
	l.write(slog.LevelInfo, "confirmed", "password delivered once more: the other DCs have been heard since", a.attrs()...)
}

// Unsettled: secret_ttl was over before all peers were heard; the password was delivered once, and has been shredded.
func (l *Log) Unsettled(target string, a change.Account) {
	l.write(slog.LevelWarn, "unsettled", "secret_ttl is over before the other DCs were heard; a forwarder there may have sent an older password since",
		slog.String("target", target), account(a))
}

// Retry: the attempt failed and another one is due.
func (l *Log) Retry(a Attempt, class target.Class, due time.Time, err error) {
	l.write(slog.LevelWarn, "retry", "delivery failed; will try again", a.attrs(slog.String("class", string(class)), slog.Time("due", due), failed(err))...)
}

// Parked: the target refuses the user or the password; the account's next change tries again.
func (l *Log) Parked(a Attempt, class target.Class, err error) {
	l.write(slog.LevelError, "parked", "delivery refused for this account; its next password change tries again", a.attrs(slog.String("class", string(class)), failed(err))...)
}

// Superseded: the directory holds a newer password than a queued one, which has been shredded.
func (l *Log) Superseded(target string, a change.Account, old, now uint32) {
	l.write(slog.LevelInfo, "superseded", "queued password is no longer current; shredded", slog.String("target", target), account(a),
		slog.Uint64("stamp", uint64(old)), slog.Uint64("directory_stamp", uint64(now)))
}

// Shelved: the target does not want the account of a queued password any more; it waits for secret_ttl.
func (l *Log) Shelved(target string, a change.Account) {
	l.write(slog.LevelInfo, "shelved", "the target does not want the account any more; what waits is kept until it does again, or secret_ttl is over",
		slog.String("target", target), account(a))
}

// ShelvedExpired: what waited for a target that did not want the account any more has been shredded, since secret_ttl is over.
func (l *Log) ShelvedExpired(target string, a change.Account) {
	l.write(slog.LevelInfo, "shelved-expired", "the target did not want the account any more, and secret_ttl is over; shredded", slog.String("target", target), account(a))
}

// AccountGone: the account of a queued password was deleted, or the agent cannot read it; the password has been shredded.
func (l *Log) AccountGone(target string, a change.Account, version uint32) {
	l.write(slog.LevelInfo, "account-gone", "account was deleted, or cannot be read; its queued password is shredded", slog.String("target", target), account(a),
		slog.Uint64("stamp", uint64(version)))
}

// NameTaken: another account has the name at the target now; the queued password of the one that had it has been shredded.
func (l *Log) NameTaken(target, user string, a change.Account, version uint32, by change.Account) {
	l.write(slog.LevelWarn, "name-taken", "another account has this name at the target now; queued password shredded", slog.String("target", target),
		slog.String("user", user), account(a), slog.Uint64("stamp", uint64(version)), slog.String("taken_by", by.GUID.String()))
}

// DirectoryRestored: the directory is of before, or another database.
func (l *Log) DirectoryRestored() {
	l.write(slog.LevelWarn, "directory-restored", "the directory was restored or rolled back, or has a new invocationId: the password stamps of all accounts are passed on anew")
}

// DirectoryWentBack: the directory was restored or rolled back, and holds an older password of the account than the targets may.
func (l *Log) DirectoryWentBack(a change.Account, old, now uint32) {
	l.write(slog.LevelWarn, "directory-went-back", "the directory went back to an older password of this account; targets may hold the newer one until its next change",
		account(a), slog.Uint64("stamp", uint64(old)), slog.Uint64("directory_stamp", uint64(now)))
}

// RolledBack: a queued password is of before the directory went back, which does not hold it any more; it has been shredded.
func (l *Log) RolledBack(target string, a change.Account, old, now uint32) {
	l.write(slog.LevelWarn, "rolled-back", "queued password is of before the directory went back; shredded", slog.String("target", target), account(a),
		slog.Uint64("stamp", uint64(old)), slog.Uint64("directory_stamp", uint64(now)))
}

// Swept: the ledger has forgotten accounts that were deleted long ago.
func (l *Log) Swept(accounts int) {
	l.write(slog.LevelDebug, "swept", "accounts that were deleted long ago are forgotten", slog.Int("count", accounts))
}

// Lacks: a target that wants the account has not got the password that the directory holds, and will not get it by itself.
func (l *Log) Lacks(a change.Account, target string, why change.Reason, detail string) {
	level := slog.LevelWarn
	if why == change.BeforeInstallation || why.Rightly() || why == change.Lost { // lost may still be waiting
		level = slog.LevelDebug
	}
	l.write(level, "drift", "a target lacks this account's password", slog.String("target", target), account(a),
		slog.String("why", string(why)), slog.String("detail", detail))
}

// Expired: a secret waited longer than secret_ttl and has been shredded.
func (l *Log) Expired(target string, a change.Account) {
	l.write(slog.LevelError, "expired", "secret_ttl is over; the password was shredded undelivered", slog.String("target", target), account(a))
}

// Dropped: a person took a queued change out of the queue. Its secret has been shredded, unless another target still needs it.
func (l *Log) Dropped(target string, a change.Account, version uint32) {
	l.write(slog.LevelWarn, "dropped", "queued password dropped, because a person said so", slog.String("target", target), account(a),
		slog.Uint64("stamp", uint64(version)))
}

// TargetDenied: the target refuses us as a whole; its items wait. Called once per outage.
func (l *Log) TargetDenied(name string, err error) {
	l.write(slog.LevelError, "target-denied", "the target denies access; its changes wait until it is allowed", slog.String("target", name), failed(err))
}

// TargetDown: too many failures in a row; the target's items wait for a probe.
func (l *Log) TargetDown(name string, err error) {
	l.write(slog.LevelError, "target-down", "the target fails again and again; its changes wait", slog.String("target", name), failed(err))
}

// TargetUp: the target works again.
func (l *Log) TargetUp(name string) {
	l.write(slog.LevelInfo, "target-up", "the target works again", slog.String("target", name))
}

// WatchStale: changes that waited cannot be sent, because no agent says whether they are still current. Called once per
// outage.
func (l *Log) WatchStale(asOf time.Time) {
	l.write(slog.LevelError, "watch-stale", "no agent watches the directory; changes that waited are held back", slog.Time("as_of", asOf))
}

// WatchFresh: the watch is back.
func (l *Log) WatchFresh() {
	l.write(slog.LevelInfo, "watch-fresh", "the directory is watched again")
}

// ClockSet: the clock was set, or the machine slept. What waited is sent after the next look at the directory.
func (l *Log) ClockSet(by time.Duration) {
	l.write(slog.LevelWarn, "clock-set", "the clock was set, or the machine slept; changes that waited need a new look at the directory",
		slog.Duration("by", by.Round(time.Millisecond)))
}

// ChangeUnreadable: the disk does not give a file in spool/outgoing, which is tried again at every look. Called once per file.
func (l *Log) ChangeUnreadable(file string, err error) {
	l.write(slog.LevelError, "change-unreadable", "change cannot be read; will try again", slog.String("file", file), failed(err))
}

// ChangeDamaged: a file in spool/outgoing makes no sense and has been set aside.
func (l *Log) ChangeDamaged(file string, err error) {
	l.write(slog.LevelError, "change-damaged", "change set aside: look into spool/outgoing/damaged", slog.String("file", file), failed(err))
}

// ForwarderTrouble: something of the forwarder's own failed and will be tried again.
func (l *Log) ForwarderTrouble(doing string, err error) {
	l.write(slog.LevelError, "forwarder-trouble", doing+" failed; will try again", failed(err))
}

// UnknownTarget: a change names a target that is not configured here; that part of it is ignored.
func (l *Log) UnknownTarget(name string, a change.Account) {
	l.write(slog.LevelWarn, "unknown-target", "a change is for a target that is not configured; ignored", slog.String("target", name), account(a))
}

// SecretLost: the file with a queued change's secret is gone; the account's next change tries again.
func (l *Log) SecretLost(file, target string, a change.Account) {
	l.write(slog.LevelError, "secret-lost", "the file of a queued change is gone; dropped", slog.String("file", file),
		slog.String("target", target), account(a))
}

// StateDamaged: a database of the forwarder's cannot be read. It has been renamed, and a new one is built from what waits.
func (l *Log) StateDamaged(file, aside string) {
	l.write(slog.LevelError, "state-damaged", "database damaged: renamed, and begun anew from what waits", slog.String("file", file),
		slog.String("renamed_to", aside))
}

// ValuesDamaged: n values in a database of the forwarder's did not match their checksums and have been dropped.
func (l *Log) ValuesDamaged(file string, n int) {
	l.write(slog.LevelError, "values-damaged", "damaged values dropped from database; check the disk", slog.String("file", file), slog.Int("count", n))
}

// DiskTrouble: the disk below a role's folder cannot be written, or is nearly full. Called once until it is well, or otherwise ill.
func (l *Log) DiskTrouble(dir, condition, why string, free int64) {
	l.write(slog.LevelError, "disk-trouble", "the disk cannot be relied on: make room or mend it; all goes on by itself then", slog.String("folder", dir),
		slog.String("condition", condition), slog.Int64("free", free), slog.String("error", why))
}

// DiskWell: the disk below a role's folder can be written again.
func (l *Log) DiskWell(dir string) {
	l.write(slog.LevelInfo, "disk-well", "the disk can be written again", slog.String("folder", dir))
}

// BallastReleased: the disk is full, or nearly; the file that kept room has been removed, and its room is the last.
func (l *Log) BallastReleased(bytes, free int64) {
	l.write(slog.LevelError, "ballast-released", "the disk is full: its reserve is in use now; make room", slog.Int64("reserve", bytes), slog.Int64("free", free))
}

// WaitingForDisk: a role cannot start because of the disk, and waits until it can. Called once.
func (l *Log) WaitingForDisk(role string, err error) {
	l.write(slog.LevelError, "waiting-for-disk", "cannot start because of the disk; waiting", slog.String("role", role), failed(err))
}

// KeyDestroyed: a key pair that a rotation had retired is gone for good; nothing that could still be delivered was sealed to it.
func (l *Log) KeyDestroyed(role, id string) {
	l.write(slog.LevelInfo, "key-destroyed", "retired key destroyed", slog.String("role", role), slog.String("key", id))
}

// KeyTrouble: a role's keys cannot be looked at, or a retired one not be destroyed.
func (l *Log) KeyTrouble(role string, err error) {
	l.write(slog.LevelError, "key-trouble", "looking after the keys failed; will try again", slog.String("role", role), failed(err))
}

// ControlTrouble: `samba-pwsync status` gets no answer from this process; deliveries go on.
func (l *Log) ControlTrouble(err error) {
	l.write(slog.LevelError, "control-trouble", "status cannot be asked for", failed(err))
}
