package trial

import (
	"time"
	"unsafe"
)

// ClockSet returns what time.Now would have returned had the clock been set by that much: another time of day, and the same reading of the
// clock that nobody sets. Package time has no way to make one.
func ClockSet(now time.Time, by time.Duration) time.Time {
	layout := struct {
		wall uint64
		ext  int64
		loc  *time.Location
	}{}
	now = now.Add(by)
	monotonic := (*int64)(unsafe.Add(unsafe.Pointer(&now), unsafe.Offsetof(layout.ext)))
	*monotonic -= int64(by)
	return now
}
