//go:build linux && !race

package datasync

const raceEnabled = false
