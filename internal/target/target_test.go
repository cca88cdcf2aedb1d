package target

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("setting password: %w", err) }
	for _, tc := range []struct {
		err  error
		want Class
	}{
		{nil, Delivered},
		{wrap(ErrNoUser), NoUser},
		{wrap(ErrForbidden), Forbidden},
		{wrap(ErrRejected), Rejected},
		{wrap(ErrDenied), Denied},
		{wrap(RetryAfter(errors.New("429"), time.Second)), Throttled},
		{wrap(RetryAfter(errors.New("503"), 0)), Temporary},
		{errors.New("connection reset"), Temporary},
	} {
		if got := Classify(tc.err); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.err, got, tc.want)
		}
	}
	if d := Delay(wrap(RetryAfter(errors.New("429"), 7*time.Second))); d != 7*time.Second {
		t.Errorf("delay %v", d)
	}
}
