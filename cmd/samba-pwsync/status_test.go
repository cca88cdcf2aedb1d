package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/agent"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/census"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/floods"
	"github.com/samba-pwsync/samba-pwsync/internal/agent/refusals"
	"github.com/samba-pwsync/samba-pwsync/internal/ballast"
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/notice"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
)

// healthy is a report of an installation that needs nobody.
func healthy() *report {
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.Local)
	return &report{
		Version: "1.0",
		Agent: &agentStatus{Disk: ballast.Status{Condition: ballast.Well, Free: 99 << 20, Ballast: 16 << 20, Wanted: 16 << 20}, Status: agent.Status{
			Directory: agent.DirectoryStatus{Up: true, Since: at, DC: "dc1.example.com", NTHash: "stored"},
			Captures:  agent.CaptureStatus{Pending: 1, Proven: 2, Unwanted: 3, Never: 4},
			Policies:  census.Status{Kept: true, Made: at, AsOf: at, Accounts: 9, Policies: map[string]int{"staff": 4, "default": 5}, Targets: map[string]int{"google": 8}},
			Refusals: refusals.Status{Since: at, Full: 1, Policies: []refusals.Policy{
				{Policy: "default", Passwords: refusals.Count{LastDay: 1, Total: 2}, Probes: refusals.Count{Total: 1}, Rules: []refusals.Rule{
					{Rule: "banned", Count: refusals.Count{LastDay: 1, Total: 1}}, {Rule: "length", Count: refusals.Count{Total: 2}},
				}},
				{Policy: "staff", Audit: true, Passwords: refusals.Count{LastDay: 3, Total: 3}, Rules: []refusals.Rule{{Rule: "walk", Count: refusals.Count{LastDay: 3, Total: 3}}}},
			}},
		}},
		Forwarder: &forwarderStatus{Disk: ballast.Status{Condition: ballast.Well, Free: 99 << 20, Ballast: 16 << 20, Wanted: 16 << 20}, Notices: &notice.Status{Sent: 7, Waiting: 8, Lost: 9}, Status: deliver.Status{
			Watch: deliver.WatchStatus{AsOf: at, Fresh: true},
			Targets: []deliver.TargetStatus{{
				Name: "google", State: deliver.Up, Waiting: 5, Delivered: 6, Confirmed: 4, LastDelivered: at, Median: 1234567890,
			}},
		}},
		Attention: []string{},
	}
}

func printed(t *testing.T, r *report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestStatusOfTheHealthy(t *testing.T) {
	r := healthy()
	r.judge()
	const want = `agent      running
directory  dc1.example.com answers since 2020-01-02 03:04:05
captures   1 waiting, 2 proven, 4 never committed, 3 unwanted
policies   9 accounts, as of 2020-01-02 03:04:05: default 5, staff 4
refused    policy default: 1 in 24 h, 2 since 2020-01-02 03:04:05; banned 1 of 1, length 0 of 2; perhaps probes 0 of 1
audited    policy staff: 3 in 24 h, 3 since 2020-01-02 03:04:05; walk 3 of 3
refused    more than was counted: the hook's list was full 1 times, while no agent ran or by a flood of probes; the hook's log has them all
forwarder  running
watch      fresh, directory seen as of 2020-01-02 03:04:05
google     up; 5 waiting, 0 parked, 6 accounts delivered, 4 of them confirmed, last 2020-01-02 03:04:05, median 1.235s after the change
notices    7 sent, 8 waiting, 9 given up
disk       well, 99.0 MB free, 16 MB in reserve for each role
`
	if got := printed(t, r); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWhatNeedsAttention(t *testing.T) {
	for _, tc := range []struct {
		name string
		ill  func(*report)
		want string // the one line of attention
	}{
		{"no agent", func(r *report) { r.Agent = nil }, "the agent is not running"},
		{"no forwarder", func(r *report) { r.Forwarder = nil }, "the forwarder is not running"},
		{"no directory", func(r *report) { r.Agent.Directory.Up, r.Agent.Directory.Error = false, "gone" }, "the directory does not answer: gone"},
		{"no hashes", func(r *report) { r.Agent.Directory.NTHash = proof.NoHash }, "stores no NT hash (nt hash store in smb.conf), so nothing can be proven: set [directory] proof = \"aes256\""},
		{"neither hashes nor keys", func(r *report) { r.Agent.Directory.NTHash = proof.Nothing }, "set nt hash store = always"},
		{"policies outdated", func(r *report) { r.Agent.Policies.Error = "filter (a=b): busy" }, "as it last was (2020-01-02 03:04:05): filter (a=b): busy"},
		{"flood", func(r *report) { r.Agent.Floods = []floods.Flood{{Account: "liz", Count: 5210}} },
			"a flood of passwords, in the name of liz, that are nobody's (5210)"},
		{"flood in many names", func(r *report) { r.Agent.Floods = []floods.Flood{{Count: 9}} }, "in many names, or in none"},
		{"denied", func(r *report) {
			r.Forwarder.Targets[0].State, r.Forwarder.Targets[0].Error = deliver.Denied, "grant it"
		}, "target google denies access: grant it"},
		{"down", func(r *report) {
			r.Forwarder.Targets[0].State, r.Forwarder.Targets[0].Error = deliver.Down, "503"
		}, "target google is down: 503"},
		{"parked", func(r *report) { r.Forwarder.Parked = []deliver.ParkedStatus{{Account: "liz"}} }, "1 parked"},
		{"more parked than are listed", func(r *report) {
			r.Forwarder.Parked, r.Forwarder.Targets[0].Parked = []deliver.ParkedStatus{{Account: "liz"}}, 1003
		}, "1003 parked"},
		{"expired", func(r *report) { r.Forwarder.Targets[0].Expired = 2 },
			"2 passwords expired undelivered at google: their users have to change them again"},
		{"stale", func(r *report) { r.Forwarder.Watch.Fresh = false }, "the watch is stale: 5 changes"},
		{"asked again too soon", func(r *report) { r.Agent.Watch.PutOff = time.Now().Add(time.Minute) }, "the forwarder has lost again"},
		{"silent peer", func(r *report) {
			r.Forwarder.Watch.Peers = []deliver.PeerStatus{{Name: "DC2", Heard: time.Now().Add(-20 * time.Minute)}, {Name: "DC3", Heard: time.Now().Add(-5 * time.Minute)}}
		}, "peer DC2 has not been heard since"},
		{"unknown peer", func(r *report) { r.Forwarder.Watch.Peers = []deliver.PeerStatus{{Name: "DC2"}} }, "peer DC2 was never heard"},
		{"damaged", func(r *report) { r.Damaged = 2 }, "2 files made no sense"},
		{"database damaged", func(r *report) { r.Corrupt = []string{"/s/queue.db.corrupt-1"} }, "is kept as /s/queue.db.corrupt-1"},
		{"disk nearly full", func(r *report) { r.Agent.Disk = ballast.Status{Condition: ballast.Low, Free: 3 << 20, Wanted: 1} }, "nearly full (3.0 MB free): make room; the reserve is in use"},
		{"disk full", func(r *report) { // said once, though both know
			r.Agent.Disk = ballast.Status{Condition: ballast.Full, Error: "no space"}
			r.Forwarder.Disk = r.Agent.Disk
		}, "is full since never (no space): make room; there is no reserve"},
		{"disk read-only", func(r *report) { r.Forwarder.Disk.Condition, r.disk = ballast.ReadOnly, ballast.ReadOnly }, "is read-only since"},
		{"disk broken", func(r *report) {
			r.Forwarder.Disk = ballast.Status{Condition: ballast.Broken, Error: "input/output error"}
		}, "does not work since never: input/output error"},
		{"disk read-only, seen from outside", func(r *report) { r.disk = ballast.ReadOnly }, "is read-only: no password"},
		{"disk full, seen from outside", func(r *report) { r.disk = ballast.Full }, "is full: make room"},
	} {
		r := healthy()
		tc.ill(r)
		r.judge()
		if len(r.Attention) != 1 || !strings.Contains(r.Attention[0], tc.want) {
			t.Errorf("%s: %q, want one with %q", tc.name, r.Attention, tc.want)
		}
		if text := printed(t, r); strings.Count(text, "ATTENTION") != 1 {
			t.Errorf("%s is printed as\n%s", tc.name, text)
		}
	}
}

func TestStatusOfAFlood(t *testing.T) {
	r := healthy()
	r.Agent.Floods = []floods.Flood{{Account: "liz", Count: 5210, Since: r.Agent.Directory.Since, Last: r.Agent.Directory.Since}}
	r.Agent.Captures.Crowded = 7
	const want = `
flood      in the name of liz: asked about 5210 passwords since 2020-01-02 03:04:05, last 2020-01-02 03:04:05
           7 captures went before their time, because too many of their kind waited
`
	if text := printed(t, r); !strings.Contains(text, want) {
		t.Errorf("it is printed as\n%s", text)
	}
}

func TestStatusOfPolicies(t *testing.T) {
	for _, tc := range []struct {
		change func(*census.Status)
		want   string
		absent bool
	}{
		{func(s *census.Status) { s.Pending = true }, "staff 4; groups or units have changed since", false},
		{func(s *census.Status) { *s = census.Status{Kept: true} }, "policies   the directory has not been asked yet", false},
		{func(s *census.Status) { *s = census.Status{} }, "policies ", true},
	} {
		r := healthy()
		tc.change(&r.Agent.Policies)
		if text := printed(t, r); strings.Contains(text, tc.want) == tc.absent {
			t.Errorf("it is printed as\n%s", text)
		}
	}
}

func TestStatusOfTheExpired(t *testing.T) {
	r := healthy()
	r.Forwarder.Targets[0].Expired = 2
	if text := printed(t, r); !strings.Contains(text, "6 accounts delivered, 4 of them confirmed, 2 expired, last ") {
		t.Errorf("it is printed as\n%s", text)
	}
}

func TestStatusOfWhatSettles(t *testing.T) {
	r := healthy()
	r.Forwarder.Targets[0].Settling = 3
	r.Forwarder.Watch.Peers = []deliver.PeerStatus{{Name: "DC2", Heard: time.Now()}}
	if text := printed(t, r); !strings.Contains(text, "6 accounts delivered, 4 of them confirmed, 3 settling, last ") || !strings.Contains(text, "peer       DC2, last heard ") {
		t.Errorf("it is printed as\n%s", text)
	}
}

func TestStatusOfManyParked(t *testing.T) {
	r := healthy()
	r.Forwarder.Parked, r.Forwarder.Targets[0].Parked = []deliver.ParkedStatus{{Account: "liz", Reason: "no such user"}}, 1003
	if text := printed(t, r); !strings.Contains(text, ": no such user\n           and 1002 more: samba-pwsync queue list\n") {
		t.Errorf("it is printed as\n%s", text)
	}
}

// A throttled target, and a watch that is stale while nothing waits for it, mend themselves.
func TestWhatNeedsNone(t *testing.T) {
	r := healthy()
	r.Forwarder.Targets[0] = deliver.TargetStatus{Name: "google", State: deliver.Throttled}
	r.Forwarder.Watch = deliver.WatchStatus{}
	r.Agent.Policies.Error, r.Agent.Policies.AsOf = "busy", time.Now().Add(-time.Minute)
	r.judge()
	if len(r.Attention) != 0 {
		t.Errorf("%q", r.Attention)
	}
}

// Who may name accounts in the directory must not get at the administrator's terminal.
func TestStatusMovesNoCursor(t *testing.T) {
	r := healthy()
	r.Forwarder.Parked = []deliver.ParkedStatus{{
		Target: "google", Account: "liz\x1b[2J", User: "liz\u202e@example.com", Reason: "no\r\nsuch\tuser", Since: time.Now(),
	}}
	r.judge()
	text := printed(t, r)
	if strings.ContainsAny(text, "\x1b\r\t\u202e") || strings.Count(text, "\n") != strings.Count(printed(t, healthy()), "\n")+2 {
		t.Errorf("%q", text)
	}
	if !strings.Contains(text, "liz\ufffd[2J at google (liz\ufffd@example.com)") {
		t.Errorf("the rest is not there: %q", text)
	}
}

// Nor may the JSON, in which scripts find what was there.
func TestJSONMovesNoCursor(t *testing.T) {
	r := healthy()
	const name = "liz\x1b[2J\u009b2J\u202e\U000e0001\nü"
	r.Forwarder.Parked = []deliver.ParkedStatus{{Account: name}}
	var b bytes.Buffer
	if err := printJSON(&b, r); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\u009b\u202e\U000e0001") {
		t.Errorf("%q", b.String())
	}
	var back report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if got := back.Forwarder.Parked[0].Account; got != name {
		t.Errorf("%q, want %q", got, name)
	}
}

// Nor may errors and findings: what a forwarder that was taken over answers becomes one, and what a directory calls itself.
func TestComplaintsMoveNoCursor(t *testing.T) {
	var complaint, finding bytes.Buffer
	complain(&complaint, "asking it: \x1b[2J\u009b2J\r\u202e\nsecond")
	if got, want := complaint.String(), "samba-pwsync: asking it: \ufffd[2J\ufffd2J\ufffd\ufffd\nsamba-pwsync: second\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	list := &checklist{out: &finding}
	list.ok("directory %s", "\x1b[2J")
	list.attention("\u202e")
	list.fault(exitFailed, errors.New("first\x1b\nsecond"))
	if got, want := finding.String(), "ok         directory \ufffd[2J\nattention  \ufffd\nFAULT      first\ufffd\n           second\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The forwarder's user can put another server in the place of the forwarder's socket.
func TestStatusOfATakenForwarder(t *testing.T) {
	in := install(t, startSandbox(t), self())
	listener, err := net.Listen("unix", in.paths.ForwarderSocket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "\x1b[2J\u009b2J", http.StatusInternalServerError)
	})}
	go server.Serve(listener)
	defer server.Close()
	out, err := exec.Command("samba-pwsync", "status", "--config", in.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "500") {
		t.Errorf("%v, %q", err, out)
	}
	if strings.ContainsAny(string(out), "\x1b\u009b") {
		t.Errorf("%q", out)
	}
}

// The names in JSON are a contract with scripts.
func TestJSON(t *testing.T) {
	r := healthy()
	r.Agent.Directory.Error = "e"
	r.Agent.Captures.Oldest, r.Agent.Watch.Mark, r.Agent.Watch.PutOff = r.Agent.Directory.Since, r.Agent.Directory.Since, r.Agent.Directory.Since
	r.Forwarder.Targets[0].Since, r.Forwarder.Targets[0].Error = r.Agent.Directory.Since, "e"
	r.Forwarder.Parked = []deliver.ParkedStatus{{Since: time.Now()}}
	r.Agent.Floods = []floods.Flood{{}}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                    "agent attention captures corrupt damaged forwarder version",
		"agent":               "captures directory disk floods followup keys policies refusals watch",
		"agent.directory":     "dc error nt_hash since up",
		"agent.captures":      "aside_full crowded damaged never oldest pending proven unanswered unprovable unwanted",
		"agent.floods.0":      "account count last since",
		"agent.policies":      "accounts as_of kept made pending policies targets",
		"agent.watch":         "invocation_id mark put_off usn",
		"agent.refusals":      "full nonsense policies since started",
		"forwarder":           "disk drift keys notices parked targets watch",
		"forwarder.notices":   "lost sent waiting",
		"forwarder.disk":      "ballast ballast_wanted condition free since",
		"forwarder.watch":     "as_of fresh peers",
		"forwarder.targets.0": "confirmed delivered error expired last_delivered median_ns name parked settling shelved since state waiting",
		"forwarder.parked.0":  "account class guid reason since target user version",

		"agent.refusals.policies.0":           "audit passwords policy probes rules",
		"agent.refusals.policies.0.passwords": "last_day started total",
		"agent.refusals.policies.0.rules.0":   "last_day rule started total",
	} {
		var at any = tree
		for name := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' }) {
			if list, ok := at.([]any); ok {
				at = list[0]
			} else {
				at = at.(map[string]any)[name]
			}
		}
		if got := strings.Join(keys(at.(map[string]any)), " "); got != want {
			t.Errorf("%q holds %s, want %s", path, got, want)
		}
	}
}

func keys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
