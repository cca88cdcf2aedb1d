package dsdb

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"
)

// What a DC of 4.25 wrote after a pull from one of 4.17.
func repsFrom(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/repsfrom.bin")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseRepsFrom(t *testing.T) {
	b := repsFrom(t)
	dsa, _ := ParseGUID("38968dc6-ecb6-42d7-b3e9-99de60edc6f9")
	invocation, _ := ParseGUID("e5182bbb-88aa-4eab-b290-17d788db6414")
	moment := time.Date(2026, 11, 22, 17, 48, 30, 0, time.UTC)
	want := RepsFrom{DSA: dsa, InvocationID: invocation, LastSuccess: moment, LastAttempt: moment, HighestUSN: 4115}
	if got, err := ParseRepsFrom(b); err != nil || got != want {
		t.Errorf("ParseRepsFrom = %+v, %v", got, err)
	}
	b[12], b[32], b[33] = 3, 0x21, 0x07 // three failures, the last because of RPC_S_SERVER_UNAVAILABLE and the like
	if got, err := ParseRepsFrom(b); err != nil || got.Failures != 3 || got.Result != 0x721 {
		t.Errorf("after failures: %+v, %v", got, err)
	}
	clear(b[16:24])
	if got, err := ParseRepsFrom(b); err != nil || !got.LastSuccess.IsZero() {
		t.Errorf("without success: %+v, %v", got, err)
	}
}

func TestParseRepsFromRefuses(t *testing.T) {
	whole := repsFrom(t)
	change := func(f func([]byte) []byte) []byte { return f(slices.Clone(whole)) }
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":     {nil, errRepsFromLength},
		"short":     {whole[:207], errRepsFromLength},
		"cut":       {whole[:len(whole)-1], errRepsFromLength},
		"longer":    {change(func(b []byte) []byte { return append(b, 0) }), errRepsFromLength},
		"version 0": {change(func(b []byte) []byte { b[0] = 0; return b }), errRepsFromVersion},
		"version 3": {change(func(b []byte) []byte { b[0] = 3; return b }), errRepsFromVersion},
		"far away":  {change(func(b []byte) []byte { b[23] = 0x7f; return b }), errRepsFromTime},
	} {
		if got, err := ParseRepsFrom(c.b); !errors.Is(err, c.want) || got != (RepsFrom{}) {
			t.Errorf("%s: %+v, %v; want %v", name, got, err, c.want)
		}
	}
}

func FuzzParseRepsFrom(f *testing.F) {
	f.Add(repsFrom(f))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseRepsFrom(b)
		if err == nil && (len(b) < 208 || got.InvocationID != GUID(b[176:192])) {
			t.Errorf("%x became %+v", b, got)
		}
		if err != nil && got != (RepsFrom{}) {
			t.Errorf("%v, and yet %+v", err, got)
		}
	})
}
