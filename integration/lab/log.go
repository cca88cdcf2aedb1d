package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Event is one line of serve's log.
type Event struct {
	Name   string // the key event: "proven", "delivered", …
	Time   time.Time
	Fields map[string]string // every key, these two included
}

// Events returns what serve has logged so far, oldest first, across restarts. Lines that are no events (an error at the start)
// are left out.
func (dc *DC) Events(ctx context.Context) ([]Event, error) {
	text, err := dc.Exec(ctx, "", "cat", ServeLog)
	if err != nil {
		return nil, fmt.Errorf("reading serve's log: %w", err)
	}
	var events []Event
	for line := range strings.Lines(text) {
		if e, ok := parseEvent(line); ok {
			events = append(events, e)
		}
	}
	return events, nil
}

func parseEvent(line string) (Event, bool) {
	fields := parseFields(line)
	at, err := time.Parse(time.RFC3339Nano, fields["time"])
	return Event{Name: fields["event"], Time: at, Fields: fields}, err == nil && fields["event"] != ""
}

// Follow hands over everything that serve has logged and will log, until ctx ends: cheaper than Events for those who ask often.
func (dc *DC) Follow(ctx context.Context, take func(Event)) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(dc.Stream(ctx, w, "tail", "-n", "+1", "-F", ServeLog)) }()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if e, ok := parseEvent(lines.Text()); ok {
			take(e)
		}
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("following serve's log: %w", err)
	}
	return nil
}

// A Record is what serve has logged, kept up to date.
type Record struct {
	mu     sync.Mutex
	events []Event
}

// Record begins one, which is kept until ctx ends. A look into the DC with docker exec costs a small machine a tenth of a second of its
// processor, so whoever asks again and again asks a Record.
func (dc *DC) Record(ctx context.Context) *Record {
	r := &Record{}
	go func() { _ = dc.Follow(ctx, r.add) }() // ends with the container; whoever waits for an event that does not come says so
	return r
}

func (r *Record) add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// Count returns how many events match.
func (r *Record) Count(match func(Event) bool) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if match(e) {
			n++
		}
	}
	return n
}

// Eventually waits for an event that matches, and returns the first one.
func (dc *DC) Eventually(ctx context.Context, match func(Event) bool) (Event, error) {
	for {
		events, err := dc.Events(ctx)
		if err != nil {
			return Event{}, err
		}
		for _, e := range events {
			if match(e) {
				return e, nil
			}
		}
		select {
		case <-ctx.Done():
			return Event{}, fmt.Errorf("waiting for an event: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// HookLog returns the DC's system log, which holds what every run of the hook that has ended said. The syslog daemon writes when it gets
// to it; so a line of one's own is sent behind the others and waited for.
func (dc *DC) HookLog(ctx context.Context) (string, error) {
	text, err := dc.Exec(ctx, "", "sh", "-c", `
		mark=$(cat /proc/sys/kernel/random/uuid) && logger -t lab "$mark" || exit 1
		for i in $(seq 1200); do grep -q "$mark" "$1" && exec cat "$1"; sleep 0.1; done; exit 1`, "sh", SysLog)
	if err != nil {
		return "", fmt.Errorf("reading the hook's log: %w", err)
	}
	return text, nil
}

// HookSaid returns the hook's answers about an account so far, oldest first: "accepted", "refused" or "failed".
func (dc *DC) HookSaid(ctx context.Context, account string) ([]string, error) {
	log, err := dc.HookLog(ctx)
	if err != nil {
		return nil, err
	}
	var said []string
	for line := range strings.Lines(log) {
		if _, text, ok := strings.Cut(line, " samba-pwsync-hook["); ok && parseFields(text)["account"] == account {
			_, text, _ = strings.Cut(text, "]: ")
			answer, _, _ := strings.Cut(text, " ")
			said = append(said, answer)
		}
	}
	return said, nil
}

// Unnamed returns the captures that the hook took so far without being told a name, oldest first.
func (dc *DC) Unnamed(ctx context.Context) (captures []string, err error) {
	log, err := dc.HookLog(ctx)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(log) {
		if fields := parseFields(line); strings.Contains(line, "]: accepted ") && fields["account"] == "" {
			captures = append(captures, fields["capture"])
		}
	}
	return captures, nil
}

// parseFields reads key=value pairs as log/slog's TextHandler writes them, and as the hook does, between other words. A torn
// line gives the pairs that are whole.
func parseFields(line string) map[string]string {
	fields := map[string]string{}
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimLeft(rest, " ") {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		key = key[strings.LastIndexByte(key, ' ')+1:]
		var value string
		if quoted, err := strconv.QuotedPrefix(after); err == nil {
			value, _ = strconv.Unquote(quoted)
			rest = after[len(quoted):]
		} else {
			value, rest, _ = strings.Cut(after, " ")
		}
		fields[strings.Trim(key, `"`)] = value
	}
	return fields
}
