package main

import (
	"fmt"
	"runtime/debug"
)

// release is set by the linker: -X main.release=1.2.3.
var release = "unreleased"

// version names the release and, where Go recorded it, the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return fmt.Sprintf("%s (%s)", release, s.Value[:12])
		}
	}
	return release
}
