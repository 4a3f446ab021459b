package sim

import (
	"time"

	"understudy/sidecar/cluster"
)

// moment is true time, in nanoseconds since the episode began. No node knows it.
type moment int64

func (m moment) add(d time.Duration) moment { return m + moment(d) }
func (m moment) sub(e moment) time.Duration { return time.Duration(m - e) }
func (m moment) String() string             { return time.Duration(m).Round(100 * time.Microsecond).String() }

// clock is one machine's CLOCK_BOOTTIME: it began at another time than the others', and runs at a rate of its own.
type clock struct {
	base cluster.Instant
	ppm  int64 // faster than true time by so many millionths
}

func (c clock) at(m moment) cluster.Instant {
	return c.base + cluster.Instant(int64(m)+part(int64(m), c.ppm, 1_000_000))
}

// when is the true time at which the clock shows i.
func (c clock) when(i cluster.Instant) moment {
	d := int64(i - c.base)
	return moment(d - part(d, c.ppm, 1_000_000+c.ppm))
}

// part is d·n/of, for times of years too.
func part(d, n, of int64) int64 { return d/of*n + d%of*n/of }
