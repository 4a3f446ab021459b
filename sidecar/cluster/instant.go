package cluster

import "time"

// Instant is a reading of one machine's CLOCK_BOOTTIME, in nanoseconds, which goes on while the machine sleeps and never
// jumps. Zero stands for "never". Instants of two machines must not be compared: there is no such conversion here.
type Instant int64

// Add returns i moved by d. Never stays never.
func (i Instant) Add(d time.Duration) Instant {
	if i == 0 {
		return 0
	}
	return i + Instant(d)
}

// Sub is the time from earlier to i; both must have happened.
func (i Instant) Sub(earlier Instant) time.Duration { return time.Duration(i - earlier) }

// Since is how long ago earlier was at i. If it never was, it is so long ago that no limit holds it.
func (i Instant) Since(earlier Instant) time.Duration {
	if earlier == 0 {
		return Forever
	}
	return time.Duration(i - earlier)
}

// Forever is longer than anything that is waited for here: about a hundred years.
const Forever = 100 * 365 * 24 * time.Hour
