package main

import (
	"testing"

	"github.com/samba-pwsync/samba-pwsync/internal/config"
)

func TestRate(t *testing.T) {
	for _, c := range []struct {
		target config.Target
		want   float64
	}{
		{config.Target{Type: config.TypeGoogle}, 20},
		{config.Target{Type: config.TypeEntra}, 10},
		{config.Target{Type: config.TypeGoogle, Rate: 3.5}, 3.5},
	} {
		if got := rate(c.target); got != c.want {
			t.Errorf("%+v: %v changes a second, want %v", c.target, got, c.want)
		}
	}
}
