package change

// Wanted says which targets want an account's password, as of a stamp whose time is over: by then a capture of it is proven or will
// never be. A target that has nothing of that stamp lacks the password for the reason of its route, likely.
//
// A target that only the account's state keeps from it is among them, with Disabled, Temporary or NameShared for a reason.
//
// It is decided once more when the account or the configuration has changed since.
type Wanted struct {
	Routes []WantedRoute `json:"routes,omitempty"` // none: no target wants the account
	DC     string        `json:"dc,omitempty"`     // short name of the domain controller where the password was changed, if it is known
}

// WantedRoute is a target that wants the account, and why it may lack the password.
type WantedRoute struct {
	Route
	Reason Reason `json:"reason"`
	Detail string `json:"detail,omitempty"` // in words: which DC, which policy
}

// Reason says why a target lacks an account's password, in a word that scripts rely on. These are the agent's.
type Reason string

// The reasons for which nothing was captured, or nothing came of it. When several hold, it is the first one.
const (
	Lost               Reason = "lost"                // captured, proven and handed over; the forwarder knows better, if it has it
	WantedSince        Reason = "wanted-since"        // captured and proven, but the target did not want the account then
	BeforeInstallation Reason = "before-installation" // changed before the agent ran for the first time
	AtPeer             Reason = "peer"                // changed at a domain controller that delivers by itself: no drift of ours
	AtOtherDC          Reason = "other-dc"            // changed at one that does not
	HashOnly           Reason = "hash-only"           // a hash was written, so that Samba knew no password
	ComplexityOff      Reason = "complexity-off"      // Samba runs no check password script then
	Unprovable         Reason = "unprovable"          // the directory stores nothing that a capture could be compared with
	Disabled           Reason = "disabled"            // rightly not sent: the account is disabled, and the target takes none of such
	Temporary          Reason = "temporary"           // rightly not sent: it has to be changed at the next logon, likewise
	NameShared         Reason = "name-shared"         // another account that the target wants has the same name there: neither is sent
	NotCaptured        Reason = "not-captured"        // the hook was not configured, or could not store it, or it was lost
)

// Rightly reports whether the password is not sent from here because it is not meant to be: no drift of ours.
func (r Reason) Rightly() bool { return r == AtPeer || r == Disabled || r == Temporary }

// OfState reports whether the reason is how things are now, and not what was known right after the change.
func (r Reason) OfState() bool { return r == Disabled || r == Temporary || r == NameShared }
