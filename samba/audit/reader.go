package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine is more than Samba writes: an event about a thousand values of a thousand bytes.
const maxLine = 4 << 20

var errLineTooLong = errors.New("longer than any event")

// LineError tells of a line that begins as an event and is none. A Reader goes on after it.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns why it is no event.
func (e *LineError) Unwrap() error { return e.Err }

// Reader reads the events of a log.
type Reader struct {
	r       *bufio.Reader
	pending []byte // the beginning of a line whose end is not there yet
	rest    []byte // of the last whole line, what has not been told
	line    int
	tooLong bool
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// Next returns the next event. Lines of other kinds are passed over.
//
// Samba writes an event and the newline after it one after the other, and several processes write to one log: two events, or an event
// and other text, can stand in one line (seen with 4.25). They are told one by one. Long events can run into each other; that is a
// *LineError, which is about one line, and the next call goes on behind it. Any other error is the underlying reader's. At io.EOF a last
// line without its newline is kept, so that Next may be called again when the log has grown.
func (r *Reader) Next() (Event, error) {
	for {
		if len(r.rest) == 0 {
			line, err := r.readLine()
			if errors.Is(err, errLineTooLong) {
				return Event{}, &LineError{r.line, err}
			} else if err != nil {
				return Event{}, err
			}
			r.rest = line
		}
		r.rest = bytes.TrimSpace(r.rest)
		if !bytes.HasPrefix(r.rest, []byte("{")) {
			r.rest = nil
			continue
		}
		var object json.RawMessage
		objects := json.NewDecoder(bytes.NewReader(r.rest))
		if err := objects.Decode(&object); err != nil {
			r.rest = nil
			return Event{}, &LineError{r.line, fmt.Errorf("decoding audit event: %w", err)}
		}
		r.rest = r.rest[objects.InputOffset():]
		e, err := Parse(object)
		if err != nil {
			return Event{}, &LineError{r.line, err}
		}
		return e, nil
	}
}

// readLine returns a whole line; it is valid until the next call.
func (r *Reader) readLine() ([]byte, error) {
	for {
		piece, err := r.r.ReadSlice('\n')
		if len(r.pending)+len(piece) > maxLine {
			r.tooLong, r.pending = true, nil
		}
		if !r.tooLong {
			r.pending = append(r.pending, piece...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		} else if err != nil {
			return nil, err
		}
		r.line++
		if r.tooLong {
			r.tooLong = false
			return nil, errLineTooLong
		}
		line := r.pending
		r.pending = r.pending[:0]
		return line, nil
	}
}
