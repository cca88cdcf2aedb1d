package proof

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/samba-pwsync/samba-pwsync/internal/proof/box"
	"github.com/samba-pwsync/samba-pwsync/samba/dsdb"
)

var hash = [16]byte{0xde, 0xad, 0xbe, 0xef, 15: 0x42}

func evidence(t *testing.T) Evidence {
	t.Helper()
	e, err := Read(box.EncodeNTHash(hash))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestJudge(t *testing.T) {
	stamp := dsdb.Stamp{Version: 2}
	other := hash
	other[15]++
	for name, c := range map[string]struct {
		stored []byte
		stamp  dsdb.Stamp
		want   Verdict
	}{
		"the same":           {hash[:], stamp, Current},
		"another":            {other[:], stamp, NotYet},
		"none stored":        {nil, stamp, Unprovable},
		"cut off":            {hash[:15], stamp, Unprovable},
		"too long":           {append(hash[:], 0), stamp, Unprovable},
		"same without stamp": {hash[:], dsdb.Stamp{}, Unprovable},
	} {
		if got := evidence(t).Judge(c.stored, c.stamp); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestReadRefusesOtherContent(t *testing.T) {
	if _, err := Read([]byte{2}); !errors.Is(err, box.ErrUnknown) {
		t.Errorf("error is %v", err)
	}
}

func TestEvidencePrintsNoHash(t *testing.T) {
	holder := struct{ kept Evidence }{evidence(t)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, value := range []any{holder, &holder, holder.kept, &holder.kept} {
			text := fmt.Sprintf(verb, value)
			for _, trace := range []string{hex.EncodeToString(hash[:4]), "222 173", "0xde", string(hash[:4])} {
				if strings.Contains(text, trace) {
					t.Errorf("%s of %T prints %s", verb, value, text)
				}
			}
		}
	}
}

func TestWipe(t *testing.T) {
	e := evidence(t)
	e.Wipe()
	if !bytes.Equal(e.hash(), make([]byte, 16)) {
		t.Error("the hash is still there")
	}
}

func TestPause(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ waited, want time.Duration }{
		{-time.Hour, 3 * ms}, {0, 3 * ms}, {300 * ms, 3 * ms}, {302 * ms, 4 * ms},
		{1300 * ms, 503 * ms}, {10 * time.Second, 4853 * ms}, {11 * time.Second, 5 * time.Second}, {time.Hour, 5 * time.Second},
	} {
		if got := Pause(c.waited); got != c.want {
			t.Errorf("after %v the pause is %v, want %v", c.waited, got, c.want)
		}
	}
}

// A capture that is never proven costs this many looks, each one search.
func TestLooksUntilTheDefaultTimeout(t *testing.T) {
	looks := 0
	for waited := time.Duration(0); waited < 2*time.Minute; waited += Pause(waited) {
		looks++
	}
	if looks < 120 || looks > 150 {
		t.Errorf("%d looks", looks)
	}
}

func TestEachPauseGrowsByHalf(t *testing.T) {
	waited := eager + time.Millisecond
	for pause := Pause(waited); ; {
		waited += pause
		next := Pause(waited)
		if next == lastPause {
			break
		}
		if ratio := float64(next) / float64(pause); ratio < 1.49 || ratio > 1.51 {
			t.Fatalf("after %v the pause grows from %v to %v", waited, pause, next)
		}
		pause = next
	}
}

func TestOverdue(t *testing.T) {
	const s, timeout = time.Second, 2 * time.Minute
	for name, c := range map[string]struct {
		age, waited, timeout time.Duration
		want                 bool
	}{
		"fresh":                               {s, s, timeout, false},
		"just before":                         {timeout - 1, timeout - 1, timeout, false},
		"just now":                            {timeout, timeout, timeout, true},
		"from the future, fresh":              {-time.Hour, s, timeout, false},
		"from the future, had its time":       {-time.Hour, timeout, timeout, true},
		"old already when found":              {time.Hour, 0, timeout, false},
		"old already, settled":                {time.Hour, settle, timeout, true},
		"clock jumped ahead while it waits":   {24 * time.Hour, 100 * time.Millisecond, timeout, false},
		"a timeout shorter than settling":     {time.Hour, 5 * s, 5 * s, true},
		"a timeout shorter than settling, no": {time.Hour, 4 * s, 5 * s, false},
	} {
		if got := Overdue(c.age, c.waited, c.timeout); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
