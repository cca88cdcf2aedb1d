package trial

import (
	"testing"
	"time"
)

func TestClockSet(t *testing.T) {
	now := time.Now()
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		if got := ClockSet(now, by); got.Sub(now) != 0 || got.Round(0).Sub(now.Round(0)) != by {
			t.Fatalf("package time keeps its readings differently now: %v is %v set by %v", got, now, by)
		}
	}
}
