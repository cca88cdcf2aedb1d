package directory

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
)

// watching is a connection that looks at what it is to read into.
type watching struct {
	net.Conn
	answers [][]byte
	dirty   int
}

func (c *watching) Read(b []byte) (int, error) {
	if bytes.IndexFunc(b, func(r rune) bool { return r != 0 }) >= 0 {
		c.dirty++
	}
	if len(c.answers) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.answers[0])
	c.answers = c.answers[1:]
	return n, nil
}

// While a connection waits for the next answer, nothing of the last one is left in the buffer above it.
func TestLastAnswerIsCleared(t *testing.T) {
	c := &watching{answers: [][]byte{[]byte("the hash of somebody"), []byte("short")}}
	if text, err := io.ReadAll(bufio.NewReader(guarded{c})); err != nil || string(text) != "the hash of somebodyshort" {
		t.Fatalf("%q, %v", text, err)
	}
	if c.dirty != 0 {
		t.Errorf("%d reads began over an old answer", c.dirty)
	}
}
