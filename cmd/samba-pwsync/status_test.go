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
	"github.com/samba-pwsync/samba-pwsync/internal/deliver"
	"github.com/samba-pwsync/samba-pwsync/internal/proof"
)

// healthy is a report of an installation that needs nobody.
func healthy() *report {
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.Local)
	return &report{
		Version: "1.0",
		Agent: &agent.Status{
			Directory: agent.DirectoryStatus{Up: true, Since: at, DC: "dc1.example.com", NTHash: "stored"},
			Captures:  agent.CaptureStatus{Pending: 1, Proven: 2, Unwanted: 3, Never: 4},
		},
		Forwarder: &deliver.Status{
			Watch: deliver.WatchStatus{AsOf: at, Fresh: true},
			Targets: []deliver.TargetStatus{{
				Name: "google", State: deliver.Up, Waiting: 5, Delivered: 6, LastDelivered: at, Median: 1234567890,
			}},
		},
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
forwarder  running
watch      fresh, directory seen as of 2020-01-02 03:04:05
google     up; 5 waiting, 0 parked, 6 accounts delivered, last 2020-01-02 03:04:05, median 1.235s after the change
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
		{"denied", func(r *report) {
			r.Forwarder.Targets[0].State, r.Forwarder.Targets[0].Error = deliver.Denied, "grant it"
		}, "target google denies access: grant it"},
		{"down", func(r *report) {
			r.Forwarder.Targets[0].State, r.Forwarder.Targets[0].Error = deliver.Down, "503"
		}, "target google is down: 503"},
		{"parked", func(r *report) { r.Forwarder.Parked = []deliver.ParkedStatus{{Account: "liz"}} }, "1 parked"},
		{"expired", func(r *report) { r.Forwarder.Targets[0].Expired = 2 },
			"2 passwords expired undelivered at google: their users have to change them again"},
		{"stale", func(r *report) { r.Forwarder.Watch.Fresh = false }, "the watch is stale: 5 changes"},
		{"silent peer", func(r *report) {
			r.Forwarder.Watch.Peers = []deliver.PeerStatus{{Name: "DC2", Heard: time.Now().Add(-20 * time.Minute)}, {Name: "DC3", Heard: time.Now().Add(-5 * time.Minute)}}
		}, "peer DC2 has not been heard since"},
		{"unknown peer", func(r *report) { r.Forwarder.Watch.Peers = []deliver.PeerStatus{{Name: "DC2"}} }, "peer DC2 was never heard"},
		{"damaged", func(r *report) { r.Damaged = 2 }, "2 files made no sense"},
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

func TestStatusOfTheExpired(t *testing.T) {
	r := healthy()
	r.Forwarder.Targets[0].Expired = 2
	if text := printed(t, r); !strings.Contains(text, "6 accounts delivered, 2 expired, last ") {
		t.Errorf("it is printed as\n%s", text)
	}
}

func TestStatusOfWhatSettles(t *testing.T) {
	r := healthy()
	r.Forwarder.Targets[0].Settling = 3
	r.Forwarder.Watch.Peers = []deliver.PeerStatus{{Name: "DC2", Heard: time.Now()}}
	if text := printed(t, r); !strings.Contains(text, "6 accounts delivered, 3 settling, last ") || !strings.Contains(text, "peer       DC2, last heard ") {
		t.Errorf("it is printed as\n%s", text)
	}
}

// A throttled target, and a watch that is stale while nothing waits for it, mend themselves.
func TestWhatNeedsNone(t *testing.T) {
	r := healthy()
	r.Forwarder.Targets[0] = deliver.TargetStatus{Name: "google", State: deliver.Throttled}
	r.Forwarder.Watch = deliver.WatchStatus{}
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
	if strings.ContainsAny(text, "\x1b\r\t\u202e") || strings.Count(text, "\n") != 8 {
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
	r.Agent.Captures.Oldest, r.Agent.Watch.Mark = r.Agent.Directory.Since, r.Agent.Directory.Since
	r.Forwarder.Targets[0].Since, r.Forwarder.Targets[0].Error = r.Agent.Directory.Since, "e"
	r.Forwarder.Parked = []deliver.ParkedStatus{{Since: time.Now()}}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                    "agent attention captures damaged forwarder version",
		"agent":               "captures directory followup watch",
		"agent.directory":     "dc error nt_hash since up",
		"agent.captures":      "damaged never oldest pending proven unprovable unwanted",
		"agent.watch":         "invocation_id mark usn",
		"forwarder":           "drift parked targets watch",
		"forwarder.watch":     "as_of fresh peers",
		"forwarder.targets.0": "delivered error expired last_delivered median_ns name parked settling since state waiting",
		"forwarder.parked.0":  "account class guid reason since target user version",
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
