package lab

import (
	"context"
	"fmt"
	"strconv"
	"strings"
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
		fields := parseFields(line)
		at, err := time.Parse(time.RFC3339Nano, fields["time"])
		if err != nil || fields["event"] == "" {
			continue
		}
		events = append(events, Event{Name: fields["event"], Time: at, Fields: fields})
	}
	return events, nil
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

// HookSaid returns the hook's answers about an account so far, oldest first: "accepted", "refused" or "failed".
func (dc *DC) HookSaid(ctx context.Context, account string) ([]string, error) {
	log, err := dc.Exec(ctx, "", "cat", SysLog)
	if err != nil {
		return nil, fmt.Errorf("reading the hook's log: %w", err)
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
