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
