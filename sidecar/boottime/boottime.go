//go:build linux

// Package boottime reads the one clock by which the sidecar decides: CLOCK_BOOTTIME, which nobody can set, and which goes on
// while the machine is suspended, so that a gap shows (clock_gettime(2)).
package boottime

import (
	"golang.org/x/sys/unix"

	"understudy/sidecar/cluster"
)

// Now is the present instant of this machine.
func Now() cluster.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error()) // every kernel since 2.6.39 has it
	}
	return cluster.Instant(ts.Nano())
}
