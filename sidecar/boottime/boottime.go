//go:build linux

// Package boottime reads the one clock by which the sidecar decides: CLOCK_BOOTTIME, which nobody can set, and which goes on
// while the machine is suspended, so that a gap shows (clock_gettime(2)).
package boottime

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"understudy/sidecar/cluster"
)

// Now is the present instant of this machine.
func Now() cluster.Instant {
	var ts unix.Timespec
	// It never waits, so Go's scheduler need not be told, which for something asked this often would cost more than the call.
	if _, _, e := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
		panic("clock_gettime(CLOCK_BOOTTIME): " + e.Error()) // every kernel since 2.6.39 has it
	}
	return cluster.Instant(ts.Nano())
}
