package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const canary = "Canary-Pa55word"

type exported struct{ S Secret }
type unexported struct{ s Secret }
type pointer struct{ s *Secret }

// leaks reports whether out holds the canary in clear, in hex, or as a list of byte values.
func leaks(out string) bool {
	out = strings.ToLower(out)
	for _, form := range []string{canary, hex.EncodeToString([]byte(canary)), fmt.Sprint([]byte(canary))} {
		if strings.Contains(out, strings.ToLower(form)) {
			return true
		}
	}
	return false
}

func TestNeverPrinted(t *testing.T) {
	s := New([]byte(canary))
	values := []any{s, &s, exported{s}, &exported{s}, unexported{s}, &unexported{s}, pointer{&s}, []Secret{s}, map[string]Secret{"k": s}, struct{ any }{s}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%08b", "%T", "%p"} {
		for _, v := range values {
			if out := fmt.Sprintf(verb, v); leaks(out) {
				t.Errorf("%s of %T prints the secret", verb, v)
			}
		}
	}
	for _, v := range values {
		var buf bytes.Buffer
		slog.New(slog.NewTextHandler(&buf, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&buf, nil)).Info("x", "v", v)
		if j, err := json.Marshal(v); err == nil {
			buf.Write(j)
		}
		if x, err := xml.Marshal(v); err == nil {
			buf.Write(x)
		}
		_ = gob.NewEncoder(&buf).Encode(v)
		if leaks(buf.String()) {
			t.Errorf("an encoding of %T holds the secret", v)
		}
	}
	if !leaks(fmt.Sprintf("%x", s.Bytes())) {
		t.Error("leaks does not see a leak: the test above proves nothing")
	}
}

func TestPrintsAsSecret(t *testing.T) {
	if got := fmt.Sprintf("%v %d %x", New([]byte(canary)), New(nil), Secret{}); got != "[secret] [secret] [secret]" {
		t.Errorf("got %q", got)
	}
}

func TestDestroyWipesEveryCopy(t *testing.T) {
	b := []byte(canary)
	s := New(b)
	copied := s
	s.Destroy()
	s.Destroy()
	Secret{}.Destroy()
	if !bytes.Equal(copied.Bytes(), make([]byte, len(canary))) {
		t.Errorf("bytes left behind: %x", copied.Bytes())
	}
}

func TestRefusesToBeDecoded(t *testing.T) {
	var e exported
	if err := json.Unmarshal([]byte(`{"S":"x"}`), &e); err == nil {
		t.Error("a secret was read from JSON")
	}
	if err := gob.NewEncoder(&bytes.Buffer{}).Encode(exported{New([]byte("x"))}); err == nil {
		t.Error("a secret was encoded by gob")
	}
}
