// Package wallclock corrects this machine's wall clock for the few protocols that need one, TLS, TSIG (RFC 8945) and S3's
// signatures, by the clocks of the servers that we talk to anyway. No safety decision reads it.
package wallclock

import (
	"slices"
	"sync"
	"time"

	"understudy/sidecar/boottime"
	"understudy/sidecar/cluster"
)

// Tolerance is how far the clocks of others may be from this machine's without being noticed. A Date header (RFC 9110, 6.6.1)
// is in whole seconds and as old as its answer, TSIG allows five minutes, S3 fifteen.
const Tolerance = time.Minute

// forgetAfter is when what a server said no longer counts: by then a boot-time clock may have drifted by a second.
const forgetAfter = 6 * time.Hour

// Clock is the wall clock of this machine, corrected. Its zero value has heard nothing, and neither has nil, which hears
// nothing either. Its methods may be called by several goroutines at once.
type Clock struct {
	mu    sync.Mutex
	heard map[string]reading // by source

	local func() time.Time // nil: time.Now; here and below for tests
	boot  func() cluster.Instant
}

// reading is what a server said, and when, by the clock that nobody sets: so a step of the wall clock shows at once.
type reading struct {
	said time.Time
	at   cluster.Instant
}

// Hear takes a server's clock from an answer that has just arrived and that nobody else can have written. A zero time is
// ignored: the server has not said.
func (c *Clock) Hear(source string, said time.Time) {
	if c == nil || said.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard == nil {
		c.heard = map[string]reading{}
	}
	c.heard[source] = reading{said, c.instant()}
}

// Now is the time to tell a server: this machine's, or that of the others if it is off.
func (c *Clock) Now() time.Time {
	if c == nil {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall().Add(c.ahead())
}

// Ahead is by how much the others' clocks are ahead of this machine's: the median of their newest readings, of an even number
// the one nearer to ours. Zero: it is within Tolerance, or nobody has said.
func (c *Clock) Ahead() time.Duration {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ahead()
}

func (c *Clock) ahead() time.Duration {
	wall, now := c.wall().Round(0), c.instant() // by the wall, not by Go's monotonic reading, which does not see a step
	var all []time.Duration
	for _, r := range c.heard {
		if age := now.Sub(r.at); age < forgetAfter {
			all = append(all, r.said.Add(age).Sub(wall))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	median := all[len(all)/2]
	if other := all[(len(all)-1)/2]; other.Abs() < median.Abs() {
		median = other
	}
	if median.Abs() <= Tolerance {
		return 0
	}
	return median
}

func (c *Clock) wall() time.Time {
	if c.local != nil {
		return c.local()
	}
	return time.Now()
}

func (c *Clock) instant() cluster.Instant {
	if c.boot != nil {
		return c.boot()
	}
	return boottime.Now()
}
