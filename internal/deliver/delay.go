package deliver

import "time"

const (
	firstDelay = 2 * time.Second
	maxDelay   = 15 * time.Minute
	maxAsked   = time.Hour // more than this no target may ask for: a mistake in a header must not stop a target for a day
)

// delay returns how long to wait after a failed attempt: random (0 to 1) times a span that doubles with each attempt before
// this one ("full jitter": a thousand changes that failed together do not come back together), or what the target asked
// for, if that is more.
func delay(before int, asked time.Duration, random float64) time.Duration {
	span := firstDelay
	for ; before > 0 && span < maxDelay; before-- {
		span *= 2
	}
	return max(time.Duration(random*float64(min(span, maxDelay))), min(asked, maxAsked))
}

// downPause returns for how long nothing is tried at a target that failed again and again, so many pauses in a row: twice as long each
// time, less up to a quarter, so that the forwarders of several DCs do not come back together.
func downPause(before int, random float64) time.Duration {
	span := firstDown
	for ; before > 0 && span < maxDown; before-- {
		span *= 2
	}
	span = min(span, maxDown)
	return span - time.Duration(random*float64(span/4))
}
